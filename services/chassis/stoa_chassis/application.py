"""The application of a process that is watched and stopped like all others, whether it owns a log or not."""

from __future__ import annotations

import gc
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import Any, Protocol

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stoa_chassis.background import Background
from stoa_chassis.metrics import Metrics
from stoa_chassis.problems import ProblemDocument, install_problem_handlers
from stoa_chassis.settings import ServiceSettings
from stoa_contracts.ids import new_id

__all__ = ["OperatedContext", "create_operated_app", "run_app"]

_CORRELATION_HEADER = "X-Correlation-ID"
_MAX_CORRELATION_ID = 100
_OBJECTS_UNTIL_COLLECTION = 20_000


class OperatedContext(Protocol):
    """What an application needs of its process to be watched and stopped, whether it owns a log or not."""

    @property
    def settings(self) -> ServiceSettings:
        """How the process was set up."""

    @property
    def background(self) -> Background:
        """Its stop event ends endless answers."""

    @property
    def metrics(self) -> Metrics:
        """Numbers for Prometheus."""

    async def problems(self) -> list[str]:
        """List what keeps the process from doing all its work."""


class Health(BaseModel):
    """Whether the process lives, or does all its work."""

    service: str
    status: str
    problems: list[str] = []


def create_operated_app(
    context: OperatedContext,
    routers: Sequence[APIRouter],
    *,
    description: str,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """Make an application with problem documents, correlation ids, health and metrics, and nothing that needs a log.

    Parameters
    ----------
    context
        What the application runs in.
    routers
        Its own routes.
    description
        For the OpenAPI document.
    lifespan
        What happens at its start and its end.
    """
    app = FastAPI(
        title=f"Stoa: {context.settings.service}",
        description=description,
        version="0.1.0",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.context = context
    install_problem_handlers(app)
    app.add_middleware(_RequestMiddleware, context=context)
    for router in routers:
        app.include_router(router)
    app.include_router(_operations(context))
    _document_problems(app)
    return app


def _operations(context: OperatedContext) -> APIRouter:
    router = APIRouter(tags=["operations"])
    service = context.settings.service

    @router.get("/healthz", summary="Whether the process lives")
    async def healthz() -> Health:
        return Health(service=service, status="alive")

    @router.get("/readyz", summary="Whether the process does all its work", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        problems = await context.problems()
        if problems:
            response.status_code = 503
        return Health(service=service, status="degraded" if problems else "ready", problems=problems)

    @router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def metrics() -> Response:
        await context.problems()
        return Response(generate_latest(context.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _document_problems(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
            for path in document["paths"].values():
                for operation in path.values():
                    if "422" in operation["responses"]:
                        operation["responses"]["422"] = {
                            "description": "The request is not in the form that this route takes",
                            "content": problem,
                        }
            app.openapi_schema = document
        return app.openapi_schema

    # FastAPI's documented way to extend the document.
    app.openapi = openapi  # type: ignore[method-assign]


class _RequestMiddleware:
    """Binds correlation id and actor to log lines, and measures the answer."""

    def __init__(self, app: ASGIApp, context: OperatedContext) -> None:
        self.app = app
        self.context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        given = headers.get(_CORRELATION_HEADER.lower(), "")
        correlationid = given if 0 < len(given) <= _MAX_CORRELATION_ID and given.isprintable() else new_id()
        scope.setdefault("state", {})["correlationid"] = correlationid
        status = 500
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (_CORRELATION_HEADER.lower().encode(), correlationid.encode()),
                ]
            await send(message)

        with structlog.contextvars.bound_contextvars(correlationid=correlationid, actor=self.context.settings.actor):
            try:
                await self.app(scope, receive, send_with_id)
            finally:
                seconds = time.perf_counter() - started
                route = getattr(scope.get("route"), "path", "unmatched")
                metrics = self.context.metrics
                metrics.requests.labels(metrics.service, scope["method"], route, status).observe(seconds)
                logger = structlog.get_logger(__name__)
                log = logger.debug if route in {"/healthz", "/readyz", "/metrics", "/events"} else logger.info
                log("request", method=scope["method"], path=scope["path"], status=status, ms=round(seconds * 1000, 1))


class _Server(uvicorn.Server):
    """Tells the application at the signal, so that endless answers end and the running requests can be waited for."""

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop once; a second Ctrl-C does not wait for the running requests."""
        del frame
        self._on_signal()
        # uvicorn's own handler would end the process by the signal after an orderly stop.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def run_app(app: FastAPI, settings: ServiceSettings, on_signal: Callable[[], None], *, fd: int | None = None) -> int:
    """Serve an application until the process is told to stop.

    Parameters
    ----------
    app
        The application.
    settings
        Where it listens, and how long running requests get at the end.
    on_signal
        Called at the signal, before the running requests are waited for.
    fd
        A listening socket that was opened by the parent process; else host and port of the settings.

    Returns
    -------
    int
        The exit status: 0 after a stop, 2 if the application could not start.
    """
    listening = socket.socket(fileno=fd) if fd is not None else None
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=int(settings.stop_timeout),
        timeout_keep_alive=75,
    )
    server = _Server(config, on_signal)
    # Reading a large event makes some objects for each of its rows. Looking after every few hundred of them whether any is
    # garbage, and among all that was imported, takes several times as long as the reading.
    gc.freeze()
    gc.set_threshold(_OBJECTS_UNTIL_COLLECTION, 20, 20)
    server.run(sockets=[listening] if listening else None)
    return 0 if server.started else 2
