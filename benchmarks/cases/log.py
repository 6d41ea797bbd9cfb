"""The log: how fast it is written, read and replayed, on SQLite and PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.harness import Result, case
from stoa_chassis import migrations
from stoa_chassis.administration import load_service
from stoa_chassis.database import Database
from stoa_chassis.log import Log, Origin
from stoa_chassis.projection import EventStore, rebuild
from stoa_contracts.events.tables import EditedRow, RowEdited, RowsAdded, TableCreated, WorkflowChanged
from stoa_contracts.registry import Event
from stoa_contracts.types import Column, RowInputs
from tests.support.postgres import best_postgres

ORIGIN = Origin(actor="benchmark", correlationid="benchmark")
APPENDS = 1000
EVENTS = 10_000
VERSION = "0" * 64


@case("append_per_s", "replay_per_s", "rebuild_per_s")
def log(folder: Path) -> Iterator[Result]:
    """Append single events, each in its own transaction; read and evolve them; rebuild the read model from them."""
    postgres = best_postgres()
    try:
        for name, url in [("SQLite", f"sqlite:///{folder / 'log.sqlite'}"), ("PostgreSQL", postgres.create_database())]:
            yield from _measure(name, url)
    finally:
        postgres.close()


def _measure(name: str, url: str) -> Iterator[Result]:
    definition = load_service("tables")
    database = Database(url)
    migrations.upgrade(database, definition.migrations)
    store = EventStore(Log("tables"), definition.projection())
    with database.writing() as connection:
        store.record(connection, "t", list(_beginning()), ORIGIN)

    def append(number: int) -> None:
        with database.writing() as connection:
            store.record(connection, "t", [_edit(number)], ORIGIN)

    appended = _rate(append, APPENDS)
    with database.writing() as connection:
        connection.execute(sa.text("CREATE TABLE bare (number INTEGER PRIMARY KEY, data TEXT)"))
    insert = sa.text("INSERT INTO bare VALUES (:number, :data)")
    data = "x" * 600

    def bare(number: int) -> None:
        with database.writing() as connection:
            connection.execute(insert, {"number": number, "data": data})

    yield Result(
        "append_per_s", appended, "events/s", f"bare inserts, {name}", appended / _rate(bare, APPENDS), note=name
    )

    with database.writing() as connection:
        for number in range(APPENDS, EVENTS):
            store.record(connection, "t", [_edit(number)], ORIGIN)
    started = time.perf_counter()
    with database.reading() as connection:
        rows = len(connection.execute(sa.text("SELECT * FROM event")).all())
    selected = rows / (time.perf_counter() - started)
    started = time.perf_counter()
    with database.reading() as connection:
        position = 0
        while envelopes := store.log.read(connection, after=position, limit=1000):
            for envelope in envelopes:
                envelope.event()
            position = envelopes[-1].log_position
    replayed = position / (time.perf_counter() - started)
    yield Result("replay_per_s", replayed, "events/s", f"bare select, {name}", replayed / selected, note=name)

    started = time.perf_counter()
    done = rebuild(database, store.log, definition.projection(), _no_others)
    rebuilt = done.events / (time.perf_counter() - started)
    yield Result(
        "rebuild_per_s", rebuilt, "events/s", f"replay without a read model, {name}", rebuilt / replayed, note=name
    )
    database.engine.dispose()


def _beginning() -> Iterator[Event]:
    column = Column(name="number", role="input", type="int")
    yield TableCreated(table="t", name="t", kind="worktable", owner="benchmark", project="default")
    yield WorkflowChanged(
        table="t",
        workflow_version=VERSION,
        previous_version=None,
        main="t.cwl",
        process_class="CommandLineTool",
        files=[],
        columns=[column],
    )
    yield RowsAdded(table="t", rows=[RowInputs(row=row, inputs={"number": row}) for row in range(1, 101)])


def _edit(number: int) -> RowEdited:
    row, revision = number % 100 + 1, number // 100 + 2
    return RowEdited(
        table="t",
        rows=[EditedRow(row=row, revision=revision, changes={"number": number}, previous={"number": number - 100})],
    )


def _rate(function: Callable[[int], None], times: int) -> float:
    started = time.perf_counter()
    for number in range(times):
        function(number)
    return times / (time.perf_counter() - started)


def _no_others(source: str, after: int, until: int) -> list[Any]:
    raise LookupError(source, after, until)
