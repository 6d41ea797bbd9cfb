"""The web service: the page, and the gateway to the other services."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

from fastapi import FastAPI
from pydantic import ValidationError

from stoa_chassis.application import create_operated_app, run_app
from stoa_chassis.background import Background
from stoa_chassis.logging import configure_logging
from stoa_chassis.metrics import Metrics
from stoa_web.gateway import Gateway, gateway_routes
from stoa_web.page import add_page
from stoa_web.settings import WebSettings

__all__ = ["SERVICE", "WebContext", "WebService", "create_app"]

_DESCRIPTION = """
One address for all of Stoa: the page, and the gateway. Addresses below `/api/` are answered by the service that owns
them; each service's own document stands at `/services/{tables|scheduler|executor}/openapi.json`.
"""


@dataclass(frozen=True, kw_only=True)
class WebContext:
    """What lives as long as the process."""

    settings: WebSettings
    """How the process was set up."""

    background: Background
    """Its stop event ends live updates."""

    metrics: Metrics
    """Numbers for Prometheus."""

    gateway: Gateway
    """The way to the other services."""

    @classmethod
    def create(cls, settings: WebSettings) -> WebContext:
        """Make the context of a process; nothing is opened yet that could fail."""
        background = Background()
        gateway = Gateway(settings, background.stop)
        return cls(settings=settings, background=background, metrics=Metrics(settings.service), gateway=gateway)

    async def problems(self) -> list[str]:
        """Name the services that do not answer."""
        return await self.gateway.problems()

    async def aclose(self) -> None:
        """End what runs, and close the connections to the services."""
        await self.background.aclose()
        await self.gateway.aclose()


def create_app(settings: WebSettings) -> FastAPI:
    """Make the application of the web service.

    Parameters
    ----------
    settings
        How it is set up.
    """
    context = WebContext.create(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await context.aclose()

    app = create_operated_app(context, [], description=_DESCRIPTION, lifespan=lifespan)
    app.router.routes.extend(gateway_routes(context.gateway))
    add_page(app)
    return app


class WebService:
    """The web service for the command line; it owns no log and no database."""

    name: ClassVar[str] = "web"
    """The name under which it is started."""

    migrations: ClassVar[None] = None
    """There is nothing to migrate."""

    settings: ClassVar[type[WebSettings]] = WebSettings
    """Its settings."""

    @staticmethod
    def create_app(settings: WebSettings) -> FastAPI:
        """Make its application."""
        return create_app(settings)

    def serve(self, *, fd: int | None = None) -> int:
        """Run until the process is told to stop, and give its exit status.

        Parameters
        ----------
        fd
            A listening socket that was opened by the parent process; else host and port of the settings.
        """
        try:
            settings = self.settings()
            configure_logging(settings)
        except (ValidationError, OSError) as error:
            sys.stderr.write(f"stoa {self.name}: {error}\n")
            return 2
        app = create_app(settings)
        context: WebContext = app.state.context
        return run_app(app, settings, context.background.stop.set, fd=fd)


SERVICE = WebService()
