"""The past: a table of 100,000 rows as it was, with a million events since and before."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from benchmarks.harness import Result, case
from stoa_chassis import migrations
from stoa_chassis.administration import load_service
from stoa_chassis.database import Database
from stoa_chassis.log import Log, Origin
from stoa_chassis.projection import EventStore
from stoa_contracts.events.tables import EditedRow, RowEdited, RowsAdded, TableCreated
from stoa_contracts.types import Column, RowInputs
from stoa_tables.history_queries import HistoryQueries
from stoa_tables.models import snapshot
from stoa_tables.moments import AsOf, Moments
from stoa_tables.queries import Page, Queries
from stoa_tables.settings import TablesSettings
from stoa_tables.snapshots import SnapshotKeeper
from stoa_tables.store import Store

ORIGIN = Origin(actor="benchmark", correlationid="benchmark")
ROWS = 100_000
EVENTS = 1_000_000
PAGE = Page(limit=100, filters=["x>50"], sort="-name")


@case("as_of_s", "as_of_again_s", "diff_s", "snapshots_per_log_bytes")
def history(folder: Path) -> Iterator[Result]:
    """Read a table of 100,000 rows at three moments of a log of a million edits, and compare two of them."""
    definition = load_service("tables")
    settings = TablesSettings(data=folder)
    database = Database(settings.resolved_database_url)
    migrations.upgrade(database, definition.migrations)
    store = EventStore(Log("tables"), definition.projection())
    _write(database, store)
    moments = Moments(database, store, max_bytes=settings.history_bytes)
    keeper = SnapshotKeeper(
        database, store, moments, every_events=settings.snapshot_events, every_bytes=settings.snapshot_bytes
    )
    try:
        asyncio.run(keeper.catch_up(asyncio.Event()))
        with database.reading() as connection:
            head = store.log.head(connection)
            kept = connection.execute(sa.select(sa.func.count(), sa.func.sum(snapshot.c.size))).one()
            logged = connection.execute(sa.text("SELECT sum(length(data)) FROM event")).scalar_one()
        yield Result(
            "snapshots_per_log_bytes", kept[1] / 1e6, "MB", "the events", kept[1] / logged, note=f"{kept[0]} snapshots"
        )
        # As if every later event had still to come: what the present costs.
        started = time.perf_counter()
        with database.reading() as connection:
            Queries(Store(connection, store.tables)).rows("t", PAGE, head)
        present = time.perf_counter() - started
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # The worst moment is just before a snapshot: with the fewest events it comes every `snapshot_events`.
        for name, position in {
            "all events later": head - EVENTS,
            "half of them later": head - EVENTS // 2,
            "just before a snapshot": _worst(database, store, head),
        }.items():
            for result in ("as_of_s", "as_of_again_s"):
                seconds = _ask(moments, position)
                yield Result(result, seconds, "s", "the same page of the present", seconds / present, note=name)
        queries = HistoryQueries(store.log, store.tables, moments)
        started = time.perf_counter()
        asyncio.run(queries.differences("t", AsOf(head - EVENTS), AsOf(head), limit=100, beyond=0))
        seconds = time.perf_counter() - started
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        yield Result(
            "diff_s",
            seconds,
            "s",
            "the same page of the present",
            seconds / present,
            note=f"memory grew by {grown:.0f} MB",
        )
    finally:
        moments.close()


def _write(database: Database, store: EventStore) -> None:
    columns = [Column(name="x", role="input", type="double"), Column(name="name", role="input", type="string")]
    created = TableCreated(table="t", name="t", kind="plain", owner="ada", project="default", columns=columns)
    with database.writing() as connection:
        store.record(connection, "t", [created], ORIGIN)
        for start in range(1, ROWS, 1000):
            rows = [
                RowInputs(row=row, inputs={"x": row % 100 / 1, "name": f"source {row}"})
                for row in range(start, start + 1000)
            ]
            store.record(connection, "t", [RowsAdded(table="t", rows=rows)], ORIGIN)
    for start in range(0, EVENTS, 2000):
        edits = [
            RowEdited(
                table="t",
                rows=[
                    EditedRow(
                        row=number % ROWS + 1,
                        revision=number // ROWS + 2,
                        changes={"x": float(number % 97)},
                        previous={"x": 0.0},
                    )
                ],
            )
            for number in range(start, start + 2000)
        ]
        with database.writing() as connection:
            # Into the log alone: how fast the present is kept is another case.
            store.log.append(connection, "t", edits, [Origin("benchmark", f"request {start + n}") for n in range(2000)])


def _worst(database: Database, store: EventStore, head: int) -> int:
    with database.reading() as connection:
        versions = connection.execute(sa.select(snapshot.c.version).order_by(snapshot.c.version)).scalars().all()
        place = store.log.place(connection, "t", versions[len(versions) * 3 // 4] - 1)
        return place[0] if place else head


def _ask(moments: Moments, position: int) -> float:
    started = time.perf_counter()
    page = asyncio.run(moments.ask("t", AsOf(position), lambda store, at, table: Queries(store).rows(table, PAGE, at)))
    seconds = time.perf_counter() - started
    if page.position != position or not page.rows:
        msg = f"The page of position {position} shows {page.position}"
        raise AssertionError(msg)
    return seconds
