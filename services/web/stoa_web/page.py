"""The page and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["add_page"]

_FOLDER: Final = Path(__file__).parent / "static"

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # Kept by the browser, and asked for anew by its ETag: a new release is seen at once and costs one empty answer.
    "Cache-Control": "no-cache",
}


class _WithHeaders:
    """Adds the page's headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def add_page(app: FastAPI) -> None:
    """Serve the page at ``/``, the list of interfaces at ``/openapi``, and their files below ``/static``."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_FOLDER / "index.html", headers=_HEADERS)

    @app.get("/openapi", include_in_schema=False)
    async def interfaces() -> Response:
        return FileResponse(_FOLDER / "openapi.html", headers=_HEADERS)

    app.mount("/static", _WithHeaders(StaticFiles(directory=_FOLDER)), name="static")
