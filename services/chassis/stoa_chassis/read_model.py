"""Tells whether a read model was computed by this version of its projection, and computes it anew where it was not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import httpx
import sqlalchemy as sa

from stoa_chassis.database import Database
from stoa_chassis.log import Log, read_model
from stoa_chassis.problems import Problem
from stoa_chassis.projection import Fetch, Projection, Rebuilt, rebuild
from stoa_contracts.canonical import digest
from stoa_contracts.envelope import Envelope, read_batch

__all__ = [
    "Renewal",
    "UpgradingError",
    "brought_up_to_date",
    "fetch_over_http",
    "fingerprint",
    "forget",
    "is_outdated",
    "note",
]

_FEED_PAGE = 1000


class UpgradingError(Problem):
    """The service computes anew what it answers from."""

    status: ClassVar[int] = 503
    code: ClassVar[str] = "upgrading"
    title: ClassVar[str] = "The service is being upgraded"


class StoppedError(Exception):
    """The process is to stop; the next one begins again."""


@dataclass
class Renewal:
    """How far a process is in computing its read model anew."""

    pending: bool = False
    """Whether the service cannot answer yet."""

    events: int = 0
    """Events replayed so far."""

    problem: str | None = None
    """Why it does not go on."""

    def __str__(self) -> str:
        """Say it in a sentence."""
        why = f"; {self.problem}" if self.problem else ""
        return f"The read model is computed anew from the log after an upgrade: {self.events:,} events so far{why}"


def fingerprint(projection: Projection) -> str:
    """Name what a projection computes: its version, and the tables that it writes."""
    tables = {
        name: [[column.name, str(column.type), column.nullable, column.primary_key] for column in table.columns]
        for name, table in projection.metadata.tables.items()
    }
    return digest({"version": projection.version, "tables": tables})


def _noted(connection: sa.Connection, projection: Projection) -> str | None:
    if not sa.inspect(connection).has_table(read_model.name):
        return None
    statement = sa.select(read_model.c.fingerprint).where(read_model.c.name == projection.name)
    return connection.execute(statement).scalar_one_or_none()


def note(connection: sa.Connection, projection: Projection, *, complete: bool = True) -> None:
    """Write down that the read model is this projection's, or that it still has to be computed."""
    written = fingerprint(projection) if complete else ""
    mine = read_model.c.name == projection.name
    if not connection.execute(sa.update(read_model).where(mine).values(fingerprint=written)).rowcount:
        connection.execute(sa.insert(read_model).values(name=projection.name, fingerprint=written))


def is_outdated(connection: sa.Connection, projection: Projection) -> bool:
    """Tell whether the read model was computed by another version of the projection, or is not there yet."""
    noted = _noted(connection, projection)
    return noted is not None and noted != fingerprint(projection)


def forget(connection: sa.Connection, projection: Projection) -> bool:
    """Empty a read model that another version computed, before its tables are changed.

    Migrations need not care for its rows then, which they could not compute anyway.

    Returns
    -------
    bool
        Whether it was another version; also where nobody noted which.
    """
    if _noted(connection, projection) == fingerprint(projection):
        return False
    present = set(sa.inspect(connection).get_table_names())
    for table in reversed(projection.metadata.sorted_tables):
        if table.name in present:
            connection.execute(sa.delete(table))
    return True


def brought_up_to_date(
    database: Database,
    log: Log,
    projection: Projection,
    fetch: Fetch,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> Rebuilt | None:
    """Compute the read model anew if another version of the projection computed it.

    Returns
    -------
    Rebuilt or None
        None where it is this version's.
    """
    with database.alone("rebuild"):
        # Another replica may have done it while this one waited for its turn.
        with database.reading() as connection:
            if not is_outdated(connection, projection):
                return None
        return rebuild(
            database,
            log,
            projection,
            fetch,
            on_progress=on_progress,
            on_swap=lambda connection: note(connection, projection),
        )


def fetch_over_http(urls: Mapping[str, str], client: httpx.Client) -> Fetch:
    """Fetch events of other services from their feeds."""

    def fetch(source: str, after: int, until: int) -> list[Envelope]:
        envelopes: list[Envelope] = []
        while after < until:
            parameters = {"after": after, "limit": min(until - after, _FEED_PAGE)}
            answer = client.get(f"{urls[source]}/events", params=parameters).raise_for_status()
            page = read_batch(answer.content)
            if not page:
                break
            envelopes += page
            after = page[-1].log_position
        return envelopes

    return fetch
