"""State computed from events, which may be dropped and rebuilt at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from stoa_chassis.database import Database
from stoa_chassis.log import Consumption, Log, Origin
from stoa_contracts.envelope import Envelope
from stoa_contracts.registry import Event

__all__ = ["BatchProjection", "EventStore", "Projection", "ReadModel", "Rebuilt", "compare", "rebuild"]

#: The tables of a read model by name: the ones that serve, or their shadows during a rebuild.
ReadModel = Mapping[str, sa.Table]

#: Fetches events (source, after, until) of another service.
Fetch = Callable[[str, int, int], Sequence[Envelope]]

_BATCH = 1000


class Projection(Protocol):
    """Computes a read model from events.

    What `apply` writes may depend only on the event and on what is already in the read model: never on the clock, chance,
    or another table. Then a rebuild gives the same rows.
    """

    name: str
    """The follower that brings events of other services, if there is one."""

    metadata: sa.MetaData
    """The tables of the read model, and no others."""

    version: int
    """Raised with each change of what `apply` writes into the same tables, so that an upgrade computes it anew."""

    def apply(self, connection: sa.Connection, tables: ReadModel, envelope: Envelope) -> None:
        """Change the read model by one event, of this service or of another."""


class BatchProjection(Projection, Protocol):
    """A projection that takes several events at once faster than one after the other, with the same result."""

    def apply_all(self, connection: sa.Connection, tables: ReadModel, envelopes: Sequence[Envelope]) -> None:
        """Change the read model by events in their order."""


def _apply_all(
    projection: Projection, connection: sa.Connection, tables: ReadModel, envelopes: Sequence[Envelope]
) -> None:
    # Asking the protocol at run time would cost as much as a statement.
    apply_all = getattr(projection, "apply_all", None)
    if apply_all is not None:
        apply_all(connection, tables, envelopes)
    else:
        for envelope in envelopes:
            projection.apply(connection, tables, envelope)


class EventStore:
    """A log and the read model that is changed in the same transaction.

    Parameters
    ----------
    log
        The service's log.
    projection
        The read model from which the service answers.
    """

    def __init__(self, log: Log, projection: Projection) -> None:
        self.log = log
        self.projection = projection
        self.tables: ReadModel = projection.metadata.tables

    def record(
        self,
        connection: sa.Connection,
        stream: str,
        events: Sequence[Event],
        origin: Origin | Sequence[Origin],
        *,
        expected_version: int | None = None,
    ) -> list[Envelope]:
        """Append events to a stream and change the read model by them; ``origin`` is that of all events, or of each.

        Raises
        ------
        stoa_chassis.log.ConflictError
            If the stream is not at the expected version.
        """
        envelopes = self.log.append(connection, stream, events, origin, expected_version=expected_version)
        _apply_all(self.projection, connection, self.tables, envelopes)
        return envelopes

    def observe(self, connection: sa.Connection, envelope: Envelope) -> None:
        """Change the read model by an event of another service."""
        self.projection.apply(connection, self.tables, envelope)


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did."""

    events: int
    """Events replayed, our own and others."""

    rows: dict[str, int]
    """Rows in each table of the read model."""


class _BehindError(Exception):
    """More was consumed from other services while the swap was prepared."""


def rebuild(
    database: Database,
    log: Log,
    projection: Projection,
    fetch: Fetch,
    *,
    swap: bool = True,
    on_progress: Callable[[int], None] | None = None,
    on_swap: Callable[[sa.Connection], None] | None = None,
) -> Rebuilt:
    """Replay the log into shadow tables and put their content in the place of the read model.

    The old read model serves until the last moment: readers see either all of the old or all of the new one. Writers wait
    while the last events are replayed and the shadow is copied.

    Parameters
    ----------
    database, log, projection
        Of the service.
    fetch
        Gives the events of other services that the read model was computed from.
    swap
        Whether to put the result in the place of the read model; else the shadow tables stay, for comparison.
    on_progress
        Called with the number of events replayed so far.
    on_swap
        Called in the transaction that puts the result in its place.

    Returns
    -------
    Rebuilt
        What was done.
    """
    shadow = _shadow(projection.metadata)
    tables = {name: shadow.tables[f"shadow_{name}"] for name in projection.metadata.tables}
    with database.writing() as connection:
        shadow.drop_all(connection)
        shadow.create_all(connection)
    replay = _Replay(log, projection, tables, fetch)
    while True:
        replay.catch_up(database, on_progress)
        try:
            with database.writing() as connection:
                replay.finish(connection)
                rows = _count(connection, tables)
                if swap:
                    for name, table in projection.metadata.tables.items():
                        _replace(connection, table, tables[name])
                    shadow.drop_all(connection)
                    if on_swap:
                        on_swap(connection)
                return Rebuilt(replay.events, rows)
        except _BehindError:
            continue


def _count(connection: sa.Connection, tables: ReadModel) -> dict[str, int]:
    return {
        name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        for name, table in tables.items()
    }


def _replace(connection: sa.Connection, table: sa.Table, copy: sa.Table) -> None:
    columns = [column.name for column in table.columns]
    connection.execute(sa.delete(table))
    connection.execute(sa.insert(table).from_select(columns, sa.select(*(copy.c[column] for column in columns))))


class _Replay:
    """Walks our own log and what was consumed from others, in the order in which they were applied."""

    def __init__(self, log: Log, projection: Projection, tables: ReadModel, fetch: Fetch) -> None:
        self.log = log
        self.projection = projection
        self.tables = tables
        self.fetch = fetch
        self.position = 0
        self.consumed = 0
        self.events = 0
        self._fetched: dict[int, Sequence[Envelope]] = {}

    def catch_up(self, database: Database, on_progress: Callable[[int], None] | None) -> None:
        """Replay until nothing is left, and fetch what `finish` will need, so that it fetches nothing while writers wait."""
        while True:
            with database.reading() as connection:
                item, envelopes = self.plan(connection)
            if not envelopes:
                break
            # Small transactions, because on SQLite every writer of the service waits for each of them.
            with database.writing() as connection:
                self.run(connection, item, envelopes)
            if on_progress:
                on_progress(self.events)
        with database.reading() as connection:
            for item in self.log.consumptions(connection, self.projection.name, after=self.consumed):
                self._foreign(item)

    def finish(self, connection: sa.Connection) -> None:
        """Replay what came since `catch_up`.

        Raises
        ------
        _BehindError
            If events of other services came that were not fetched yet.
        """
        while True:
            item, envelopes = self.plan(connection, fetched_only=True)
            if not envelopes:
                return
            self.run(connection, item, envelopes)

    def plan(
        self, connection: sa.Connection, *, fetched_only: bool = False
    ) -> tuple[Consumption | None, Sequence[Envelope]]:
        """Give the next events: at most a batch of our own, or one consumption."""
        waiting = self.log.consumptions(connection, self.projection.name, after=self.consumed, limit=1)
        until = waiting[0].own_position if waiting else None
        if until is None or self.position < until:
            return None, self.log.read(connection, after=self.position, until=until, limit=_BATCH)
        if fetched_only and waiting[0].id not in self._fetched:
            raise _BehindError
        return waiting[0], self._foreign(waiting[0])

    def run(self, connection: sa.Connection, item: Consumption | None, envelopes: Sequence[Envelope]) -> None:
        """Apply planned events to the shadow."""
        _apply_all(self.projection, connection, self.tables, envelopes)
        self.events += len(envelopes)
        if item is None:
            self.position = envelopes[-1].log_position
        else:
            self.consumed = item.id
            self._fetched.pop(item.id, None)

    def _foreign(self, item: Consumption) -> Sequence[Envelope]:
        if item.id not in self._fetched:
            envelopes = self.fetch(item.source, item.first - 1, item.last)
            if [envelope.log_position for envelope in envelopes] != list(range(item.first, item.last + 1)):
                msg = f"The feed of {item.source} does not give its events {item.first} to {item.last}"
                raise LookupError(msg)
            self._fetched[item.id] = envelopes
        return self._fetched[item.id]


def _shadow(metadata: sa.MetaData) -> sa.MetaData:
    shadow = sa.MetaData()
    for table in metadata.tables.values():
        copy = table.to_metadata(shadow, name=f"shadow_{table.name}")
        for index in copy.indexes:
            index.name = quoted_name(f"shadow_{index.name}", quote=None)
        for constraint in copy.constraints:
            constraint.name = None
    return shadow


def compare(database: Database, projection: Projection) -> Iterator[str]:
    """Tell the tables whose shadow, left by a rebuild without a swap, is not equal to them row by row."""
    shadow = _shadow(projection.metadata)
    with database.reading() as connection:
        for name, table in projection.metadata.tables.items():
            copy = shadow.tables[f"shadow_{name}"]
            order = [column.name for column in table.primary_key.columns]
            rows = [
                connection.execute(sa.select(item).order_by(*(item.c[c] for c in order))).all()
                for item in (table, copy)
            ]
            if rows[0] != rows[1]:
                yield name
