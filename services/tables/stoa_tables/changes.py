"""Live changes: what a browser that shows tables has to know, from the log, for any number of listeners."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa

from stoa_chassis.database import Database, DatabaseUnavailableError
from stoa_chassis.projection import EventStore
from stoa_chassis.waiting import wait_any
from stoa_contracts.envelope import Envelope
from stoa_contracts.types import RowStatus
from stoa_tables.store import Store
from stoa_tables.wire import Change, TableChange

__all__ = ["ChangeFeed", "touched_rows"]

#: How many events are read at once.
_BATCH = 100

#: More rows than these are not named one by one.
_MAX_ROWS = 500

#: Other processes may append to the log, too.
_POLL_S = 1.0

_STRUCTURE = {
    "table-created",
    "workflow-changed",
    "column-described",
    "table-linked",
    "link-changed",
    "table-unlinked",
    "table-renamed",
    "table-deleted",
    "flag-defined",
    "view-saved",
    "view-deleted",
}


@dataclass(frozen=True, slots=True)
class _Step:
    """What one event changed."""

    position: int
    table: str
    rows: frozenset[int] | None
    structure: bool


def touched_rows(envelope: Envelope) -> frozenset[int] | None:
    """Tell which rows an event is about; None for all of the table's."""
    tell = _ROWS_OF.get(envelope.name)
    rows = () if tell is None else tell(envelope.data)
    return None if rows is None else frozenset(rows)


def _named(data: Mapping[str, Any]) -> Iterable[int] | None:
    rows: Iterable[int] | None = data["rows"]
    return rows


_ROWS_OF: Mapping[str, Callable[[Mapping[str, Any]], Iterable[int] | None]] = {
    **dict.fromkeys(
        (
            "corrections-confirmed",
            "derived-values-changed",
            "outputs-imported",
            "row-edited",
            "rows-accepted",
            "rows-added",
            "rows-restored",
            "sources-moved",
            "updates-withheld",
        ),
        lambda data: [row["row"] for row in data["rows"]],
    ),
    **dict.fromkeys(
        ("row-flagged", "row-locked", "rows-confirmed", "rows-pinned", "rows-removed", "table-invalidated"), _named
    ),
    **dict.fromkeys(("outputs-recorded", "row-commented"), lambda data: [data["row"]]),
    **dict.fromkeys(("table-deleted", "table-unlinked", "workflow-changed"), lambda _: None),
    "row-status-changed": lambda data: [change["row"] for change in data["changes"]],
}


class ChangeFeed:
    """Reads the log once for all listeners.

    Parameters
    ----------
    database
        Of the service.
    events
        Its log and read model.
    stop
        Ends every stream when it is set.
    interval
        A listener gets at most one frame in so many seconds.
    kept
        How many events are remembered for listeners that come back.

    Notes
    -----
    Every listener reads the present status of the rows in its frame for itself: 10 queries a second for each.
    """

    def __init__(
        self, database: Database, events: EventStore, stop: asyncio.Event, *, interval: float, kept: int = 5000
    ) -> None:
        self._database = database
        self._events = events
        self._stop = stop
        self._interval = interval
        self._steps: deque[_Step] = deque(maxlen=kept)
        self._position = 0
        self._begin = 0
        self._news = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Read what is appended to the log until the event is set."""
        wake = asyncio.Event()
        self._database.on_commit(wake)
        try:
            self._begin = self._position = await self._database.read(self._events.log.head)
            self._steps.clear()
            self._tell()
            while not stop.is_set():
                wake.clear()
                found = await self._read()
                if not found:
                    await wait_any(stop, wake, seconds=_POLL_S)
                elif found < _BATCH:
                    # Whoever listens gets at most one frame in this time anyway.
                    await wait_any(stop, seconds=self._interval)
        finally:
            self._database.forget(wake)
            self._tell()

    async def _read(self) -> int:
        after = self._position
        found = await self._database.read(
            lambda connection: self._events.log.read(connection, after=after, limit=_BATCH)
        )
        for envelope in found:
            if len(self._steps) == self._steps.maxlen:
                self._begin = self._steps[0].position
            rows = touched_rows(envelope)
            if rows is not None and len(rows) > _MAX_ROWS:
                rows = None
            self._steps.append(_Step(envelope.log_position, envelope.subject, rows, envelope.name in _STRUCTURE))
            self._position = envelope.log_position
        if found:
            self._tell()
        return len(found)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def listen(self, tables: Collection[str] | None, after: int | None) -> AsyncIterator[Change]:
        """Tell what changes from now on, or what has changed since a position and then what changes.

        Parameters
        ----------
        tables
            Ids of the tables that are of interest; None for all.
        after
            The position of the last frame that the listener has; None where it begins now.

        Yields
        ------
        Change
            At most one in each interval.
        """
        position = self._position if after is None else after
        if position > self._position or position < self._begin:
            # The log is another one, or too much has happened since: everything has to be loaded anew.
            change = await self._database.read(lambda connection: self._everything(connection, tables))
            position = change.position
            yield change
        while not self._stop.is_set():
            news = self._news
            steps = [step for step in self._since(position) if tables is None or step.table in tables]
            position = max(position, self._position)
            if steps:
                try:
                    yield await self._database.read(lambda connection: self._change(connection, steps, position))  # noqa: B023 - awaited here
                except DatabaseUnavailableError:
                    return
                await wait_any(self._stop, seconds=self._interval)
            else:
                await wait_any(self._stop, news, seconds=None)

    def _since(self, position: int) -> Iterator[_Step]:
        for step in reversed(self._steps):
            if step.position <= position:
                return
            yield step

    def _change(self, connection: sa.Connection, steps: list[_Step], position: int) -> Change:
        store = Store(connection, self._events.tables)
        rows: dict[str, set[int] | None] = {}
        structure: set[str] = set()
        for step in steps:
            known = rows.setdefault(step.table, set())
            if step.structure:
                structure.add(step.table)
            if step.rows is None or known is None or len(known) + len(step.rows) > _MAX_ROWS:
                rows[step.table] = None
            else:
                known |= step.rows
        return Change(
            position=position,
            tables={
                table: TableChange.model_validate(
                    {
                        "counts": store.counts(table),
                        "rows": None if found is None else self._statuses(store, table, found),
                        "structure": table in structure,
                    }
                )
                for table, found in rows.items()
            },
        )

    @staticmethod
    def _statuses(store: Store, table: str, rows: set[int]) -> dict[int, RowStatus | None]:
        statuses = store.statuses(table, rows)
        return {row: cast("RowStatus | None", statuses.get(row)) for row in sorted(rows)}

    def _everything(self, connection: sa.Connection, tables: Collection[str] | None) -> Change:
        store = Store(connection, self._events.tables)
        wanted = [table.id for table in store.all_tables() if tables is None or table.id in tables]
        changes: dict[str, Any] = {
            table: {"counts": store.counts(table), "rows": None, "structure": True} for table in wanted
        }
        return Change.model_validate({"position": self._events.log.head(connection), "tables": changes})
