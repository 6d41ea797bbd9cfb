"""What a service is: its parts by name, its process context, its application and its process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import sqlalchemy as sa
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from pydantic import ValidationError

from stoa_chassis.application import create_operated_app, run_app
from stoa_chassis.background import Background, pause
from stoa_chassis.bus import Bus
from stoa_chassis.database import Database, DatabaseUnavailableError
from stoa_chassis.follower import Follower, http_feed
from stoa_chassis.log import Log, Origin
from stoa_chassis.logging import configure_logging
from stoa_chassis.metrics import Metrics
from stoa_chassis.migrations import OutdatedSchemaError, check_schema
from stoa_chassis.nats_bus import NatsBus
from stoa_chassis.projection import EventStore, Projection
from stoa_chassis.read_model import (
    Renewal,
    StoppedError,
    UpgradingError,
    brought_up_to_date,
    fetch_over_http,
    is_outdated,
)
from stoa_chassis.relay import Relay
from stoa_chassis.settings import ServiceSettings
from stoa_contracts.envelope import BATCH_MEDIA_TYPE, Envelope, batch

__all__ = [
    "ProcessContext",
    "ServiceDefinition",
    "create_service_app",
    "origin_of",
    "process_context",
    "serve",
]

_ASK_AGAIN_AFTER = 1.0


@dataclass(frozen=True, kw_only=True)
class ServiceDefinition:
    """The parts of a service, for the application, the command line and the tests."""

    name: str
    """One lower-case word; the owner of its events."""

    settings: type[ServiceSettings]
    """Its settings."""

    projection: Callable[[], Projection]
    """Makes its read model's projection."""

    metadata: sa.MetaData
    """All its tables but those of the log."""

    migrations: Path
    """Its folder of migrations."""

    create_app: Callable[..., FastAPI]
    """Makes its application: ``create_app(settings, *, bus=None)``."""

    def serve(self, *, fd: int | None = None) -> int:
        """Run the service until it is told to stop: `serve`."""
        return serve(self, fd=fd)


@dataclass(frozen=True, kw_only=True)
class ProcessContext:
    """What lives as long as the process."""

    settings: ServiceSettings
    """How the process was set up."""

    database: Database
    """The service's own database."""

    events: EventStore
    """The log and the read model."""

    bus: Bus
    """The broker."""

    http: httpx.AsyncClient
    """For calls to the other services."""

    background: Background
    """The loops beside the requests; its stop event ends streams to browsers, too."""

    metrics: Metrics
    """Numbers for Prometheus."""

    relay: Relay
    """Copies the log to the bus."""

    followers: list[Follower] = field(default_factory=list)
    """What brings the events of other services."""

    renewal: Renewal = field(default_factory=Renewal)
    """Whether the read model is still being computed after an upgrade."""

    @property
    def log(self) -> Log:
        """The service's log."""
        return self.events.log

    @classmethod
    def create(
        cls, definition: ServiceDefinition, settings: ServiceSettings, *, bus: Bus | None = None, **parts: Any
    ) -> Any:
        """Make the context of a process; nothing is opened yet that could fail."""
        database = Database(settings.resolved_database_url)
        events = EventStore(Log(definition.name), definition.projection())
        metrics = Metrics(definition.name)
        bus = bus or NatsBus(settings.nats_url, name=definition.name, replicas=settings.nats_replicas)
        relay = Relay(log=events.log, database=database, bus=bus, metrics=metrics)
        return cls(
            settings=settings,
            database=database,
            events=events,
            bus=bus,
            http=httpx.AsyncClient(timeout=httpx.Timeout(30.0, connect=5.0)),
            background=Background(),
            metrics=metrics,
            relay=relay,
            **parts,
        )

    def follow(self, sources: Sequence[str], apply: Callable[[sa.Connection, Envelope], None]) -> Follower:
        """Apply every event of other services once, in order, under the projection's name."""
        follower = Follower(
            name=self.events.projection.name,
            sources=sources,
            bus=self.bus,
            database=self.database,
            log=self.log,
            apply=apply,
            feed=http_feed({source: self.settings.service_urls[source] for source in sources}, self.http),
            metrics=self.metrics,
        )
        self.followers.append(follower)
        return follower

    async def start(self) -> None:
        """Start the loops."""
        self.background.start("bus", self._connect)
        self.background.start("relay", self.relay.run)
        for number, follower in enumerate(self.followers):
            self.background.start(f"follower-{number}", follower.run)

    async def renew(self, stop: asyncio.Event) -> bool:
        """Compute the read model anew, after an upgrade that could not do it because other services' events are needed.

        Returns
        -------
        bool
            Whether it is done; else the process is to stop.
        """

        def on_progress(events: int) -> None:
            self.renewal.events = events
            if stop.is_set():
                raise StoppedError

        def work() -> None:
            with httpx.Client(timeout=30) as client:
                fetch = fetch_over_http(self.settings.service_urls, client)
                brought_up_to_date(self.database, self.log, self.events.projection, fetch, on_progress=on_progress)

        while not stop.is_set():
            try:
                await asyncio.to_thread(work)
            except StoppedError:
                return False
            except (httpx.HTTPError, LookupError, DatabaseUnavailableError) as error:
                # Services that need each other's events may all be starting; each gives its own while it waits for the others'.
                self.renewal.problem = f"the events of other services cannot be had: {error}"
                await pause(stop, _ASK_AGAIN_AFTER)
            else:
                self.renewal.pending = False
                return True
        return False

    async def _connect(self, stop: asyncio.Event) -> None:
        await self.bus.connect()
        await stop.wait()

    async def problems(self) -> list[str]:
        """List what keeps the process from doing all its work."""
        found = [f"{loop}: {reason}" for loop, reason in self.background.failures.items()]
        found += [str(self.renewal)] if self.renewal.pending else []
        found += [self.relay.problem] if self.relay.problem else []
        found += [f"{source}: {problem}" for each in self.followers for source, problem in each.problems.items()]
        try:
            head = await self.database.read(self.log.head)
            self.metrics.log_position.labels(self.log.service).set(head)
        except DatabaseUnavailableError as error:
            found.append(str(error))
        self.metrics.bus_connected.labels(self.log.service).set(self.bus.connected)
        if not self.bus.connected:
            found.append("The bus is not connected; commands are taken, and events are sent when it is back")
        return found

    async def aclose(self) -> None:
        """Stop the loops, then close what they used."""
        await self.background.aclose()
        await self.bus.aclose()
        await self.http.aclose()
        await self.database.aclose()


def process_context(request: Request) -> Any:
    """Give the process context of a request's application."""
    return request.app.state.context


def origin_of(request: Request) -> Origin:
    """Tell who makes a request, for the events that follow from it."""
    context: ProcessContext = request.app.state.context
    return Origin(
        actor=context.settings.actor,
        correlationid=request.state.correlationid,
        traceparent=request.headers.get("traceparent"),
    )


def create_service_app(
    definition: ServiceDefinition,
    context: ProcessContext,
    routers: Sequence[APIRouter],
    *,
    description: str,
    on_start: Callable[[], Awaitable[None]] | None = None,
    on_stop: Callable[[], Awaitable[None]] | None = None,
) -> FastAPI:
    """Make a service's application: its own routes, and those that every service has.

    Parameters
    ----------
    definition
        The service.
    context
        Its process context; closed when the application stops.
    routers
        Its own routes.
    description
        For the OpenAPI document.
    on_start, on_stop
        Run after the schema was checked and the loops were started, and before they are stopped.
    """

    async def start() -> None:
        await context.start()
        if on_start:
            await on_start()

    async def renew(stop: asyncio.Event) -> None:
        if context.renewal.pending and await context.renew(stop):
            await start()
        await stop.wait()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(check_schema, context.database, definition.migrations, definition.name)
        context.renewal.pending = await context.database.read(
            lambda connection: is_outdated(connection, context.events.projection)
        )
        try:
            if context.renewal.pending:
                context.background.start("read-model", renew)
            else:
                await start()
            yield
        finally:
            context.background.stop.set()
            if on_stop:
                await on_stop()
            await context.aclose()

    answering = APIRouter(dependencies=[Depends(_refuse_while_upgrading)])
    for router in routers:
        answering.include_router(router)
    # The log can be read at any time: other services may need it to compute their own read models.
    return create_operated_app(context, [answering, _feed(context)], description=description, lifespan=lifespan)


async def _refuse_while_upgrading(request: Request) -> None:
    context: ProcessContext = request.app.state.context
    if context.renewal.pending:
        raise UpgradingError(str(context.renewal), headers={"Retry-After": "1"})


def _feed(context: ProcessContext) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get(
        "/events",
        summary="The service's log, in its order",
        response_class=Response,
        responses={200: {"content": {BATCH_MEDIA_TYPE: {"schema": {"type": "array", "items": {"type": "object"}}}}}},
    )
    async def events(
        after: Annotated[int, Query(ge=0, description="Only events beyond this position.")] = 0,
        limit: Annotated[int, Query(ge=1, le=5000, description="At most so many events.")] = 500,
    ) -> Response:
        written = await context.database.read(
            lambda connection: [body for _, body in context.log.read_written(connection, after=after, limit=limit)]
        )
        return Response(batch(written), media_type=BATCH_MEDIA_TYPE)

    return router


def serve(definition: ServiceDefinition, *, fd: int | None = None) -> int:
    """Run a service until it is told to stop.

    Parameters
    ----------
    definition
        The service.
    fd
        A listening socket that was opened by the parent process; else host and port of the settings.

    Returns
    -------
    int
        The exit status: 0 after a stop, 2 if the service could not start because of its settings or its surroundings.
    """
    try:
        settings = definition.settings()
        configure_logging(settings)
        app = definition.create_app(settings)
        context: ProcessContext = app.state.context
        check_schema(context.database, definition.migrations, definition.name)
    except (OutdatedSchemaError, DatabaseUnavailableError, ValidationError, OSError) as error:
        sys.stderr.write(f"stoa {definition.name}: {error}\n")
        return 2
    return run_app(app, settings, context.background.stop.set, fd=fd)
