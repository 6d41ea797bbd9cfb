"""A small service for the chassis' tests: an observatory that notes what its telescopes measured.

It knows its own events, and counts the rows that the tables service tells of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from stoa_chassis.database import Database
from stoa_chassis.log import APPEND_ONLY, Log, Origin, log_metadata
from stoa_chassis.projection import EventStore, ReadModel
from stoa_contracts.envelope import Envelope
from stoa_contracts.events.scheduler import TriggerSet
from stoa_contracts.events.tables import RowsRemoved

ORIGIN = Origin(actor="ada", correlationid="night-1")

read_model = sa.MetaData()
telescope = sa.Table(
    "telescope",
    read_model,
    sa.Column("name", sa.String(50), primary_key=True),
    sa.Column("mode", sa.String(50), nullable=False, index=True),
    sa.Column("changes", sa.Integer, nullable=False),
)
seen = sa.Table(
    "seen",
    read_model,
    sa.Column("stream", sa.String(50), primary_key=True),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column(
        "after_mode",
        sa.String(50),
        doc="The telescope's mode when they were seen: it depends on the order of both logs",
    ),
)


def pointed(name: str, mode: str = "automatic") -> TriggerSet:
    """Say that a telescope was pointed; the scheduler's event serves as the observatory's."""
    return TriggerSet(table=name, mode=mode, previous="manual")  # type: ignore[arg-type]


class Observatory:
    """The projection."""

    name = "observatory"
    metadata = read_model
    version = 1

    def apply(self, connection: sa.Connection, tables: ReadModel, envelope: Envelope) -> None:
        event = envelope.event()
        if isinstance(event, TriggerSet):
            table = tables["telescope"]
            known = connection.execute(
                sa.update(table).where(table.c.name == event.table).values(mode=event.mode, changes=table.c.changes + 1)
            )
            if not known.rowcount:
                connection.execute(sa.insert(table).values(name=event.table, mode=event.mode, changes=1))
        elif isinstance(event, RowsRemoved):
            table = tables["seen"]
            mode = connection.execute(
                sa.select(tables["telescope"].c.mode).where(tables["telescope"].c.name == envelope.subject)
            ).scalar_one_or_none()
            known = connection.execute(
                sa.update(table)
                .where(table.c.stream == envelope.subject)
                .values(rows=table.c.rows + len(event.rows), after_mode=mode)
            )
            if not known.rowcount:
                connection.execute(
                    sa.insert(table).values(stream=envelope.subject, rows=len(event.rows), after_mode=mode)
                )


def create(url: str) -> tuple[Database, EventStore]:
    """Open a fresh database with the log's tables and the read model's."""
    database = Database(url)
    with database.writing() as connection:
        log_metadata.create_all(connection)
        read_model.create_all(connection)
        for statement in APPEND_ONLY[connection.dialect.name]:
            connection.execute(sa.text(statement.replace(":", r"\:")))
    return database, EventStore(Log("scheduler"), Observatory())


@contextmanager
def opened(url: str) -> Iterator[tuple[Database, EventStore]]:
    """Open a fresh observatory and close it at the end."""
    database, store = create(url)
    try:
        yield database, store
    finally:
        database.engine.dispose()


def dump(connection: sa.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Read the whole read model."""
    return {
        name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))]
        for name, table in read_model.tables.items()
    }
