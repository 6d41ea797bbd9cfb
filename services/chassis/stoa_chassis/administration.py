"""What an operator does to a service from the command line of its own machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx

from stoa_chassis import migrations
from stoa_chassis.database import Database, DatabaseUnavailableError
from stoa_chassis.installed import UnknownServiceError, installed_services, load_service
from stoa_chassis.log import Broken, Log
from stoa_chassis.migrations import OutdatedSchemaError
from stoa_chassis.projection import Rebuilt
from stoa_chassis.projection import rebuild as rebuild_projection
from stoa_chassis.read_model import brought_up_to_date, fetch_over_http, note
from stoa_chassis.service import ServiceDefinition
from stoa_chassis.settings import ServiceSettings
from stoa_contracts.envelope import Envelope

__all__ = [
    "DatabaseUnavailableError",
    "OutdatedSchemaError",
    "UnknownServiceError",
    "installed_services",
    "load_service",
    "migrate",
    "migrated_services",
    "rebuild",
    "tail",
    "verify",
]


def migrated_services() -> list[str]:
    """Name the installed services that own a log and a database."""
    return [name for name in installed_services() if getattr(load_service(name), "migrations", None)]


def _open(name: str) -> tuple[ServiceDefinition, ServiceSettings, Database]:
    definition = load_service(name)
    settings = definition.settings()
    return definition, settings, Database(settings.resolved_database_url)


def migrate(name: str, on_progress: Callable[[int], None] | None = None) -> None:
    """Bring a service's database to the newest schema; a new database is created.

    A read model that another version computed is computed anew from the log. Where it needs other services' events too, the
    service does so itself when it starts, because those may start only then.
    """
    definition, _, database = _open(name)
    projection, log = definition.projection(), Log(name)
    try:
        if migrations.upgrade(database, definition.migrations, projection):
            with database.reading() as connection:
                alone = not log.consumptions(connection, projection.name, limit=1)
            if alone:
                brought_up_to_date(database, log, projection, _no_feed, on_progress=on_progress)
    finally:
        database.engine.dispose()


def _no_feed(source: str, after: int, until: int) -> list[Envelope]:
    msg = f"Events {after + 1} to {until} of {source} were applied in the meantime"
    raise LookupError(msg)


def verify(name: str) -> Iterator[int | Broken]:
    """Walk the chain of a service's log: positions reached, and the first place that is broken, if any."""
    definition, _, database = _open(name)
    migrations.check_schema(database, definition.migrations, name)
    with database.reading() as connection:
        yield from Log(name).verify(connection)


def tail(name: str, *, after: int | None = None, limit: int = 20) -> list[Envelope]:
    """Give the events after a position, or the last ones."""
    definition, _, database = _open(name)
    migrations.check_schema(database, definition.migrations, name)
    log = Log(name)
    with database.reading() as connection:
        start = max(0, log.head(connection) - limit) if after is None else after
        return log.read(connection, after=start, limit=limit)


def rebuild(name: str, on_progress: Callable[[int], None] | None = None) -> Rebuilt:
    """Replay a service's log into its read model, which serves until it is replaced.

    Raises
    ------
    httpx.HTTPError
        If the read model also comes from other services' events, and such a service does not answer.
    """
    definition, settings, database = _open(name)
    migrations.check_schema(database, definition.migrations, name)
    with httpx.Client(timeout=30) as client:
        fetch = fetch_over_http(settings.service_urls, client)
        projection = definition.projection()
        try:
            with database.alone("rebuild"):
                return rebuild_projection(
                    database,
                    Log(name),
                    projection,
                    fetch,
                    on_progress=on_progress,
                    on_swap=lambda connection: note(connection, projection),
                )
        finally:
            database.engine.dispose()
