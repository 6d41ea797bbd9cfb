"""Whatever happened, a table is shown as of a position exactly as it was shown at that position."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoa_tables import commands
from stoa_tables.history_queries import HistoryQueries
from stoa_tables.models import read_model
from stoa_tables.moments import AsOf, Moments
from stoa_tables.queries import Page, Queries
from stoa_tables.snapshots import SnapshotKeeper
from stoa_tables.store import Store
from tests.tables.derivation_property_test import World, _operations, _url

_TABLES = ("targets", "coords", "sources", "inner", "left", "cut", "found", "final")


def _page(store: Store, table: str) -> Any:
    queries = Queries(store)
    page = Page(limit=10_000)
    answers = [queries.detail(table, 0), queries.rows(table, page, 0), queries.elements(table, page, 0)]
    rows = [queries.row(table, row, 0) for row in store.row_ids(table)[:3]]
    return [answer.model_dump(mode="json") for answer in [*answers, *rows]]


def _stored(store: Store, table: str) -> Any:
    """Everything of the read model that is of one table, but what the past is not asked for."""
    found = {}
    for name, item in store.tables.items():
        own = item.c.get("table_id") if name != "worktable" else item.c.id
        if own is None or name in {"row_event", "link_parent", "edit_step", "edit_step_event"}:
            continue
        entries = store.connection.execute(item.select().where(own == table).order_by(*item.primary_key.columns))
        found[name] = [tuple(entry) for entry in entries]
    return found


class History:
    """What was shown at each position, for comparison with what is shown as of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.moments = Moments(world.database, world.events, max_bytes=10**6)
        self.keeper = SnapshotKeeper(world.database, world.events, self.moments, every_events=4, every_bytes=10**6)
        self.queries = HistoryQueries(world.events.log, world.events.tables, self.moments)
        self.shown: dict[tuple[int, str], Any] = {}

    def note(self) -> None:
        with self.world.database.reading() as connection:
            position = self.world.events.log.head(connection)
            store = Store(connection, read_model.tables)
            for table in _TABLES:
                if store.table(table) is not None:
                    self.shown[position, table] = (_page(store, table), _stored(store, table))

    async def check(self) -> None:
        # Positions at which nothing happened to a table follow each other, and one file is enough for them.
        for (position, table), expected in sorted(self.shown.items(), key=lambda item: (item[0][1], item[0][0])):
            seen = await self.moments.ask(
                table, AsOf(position), lambda store, _, found: (_page(store, found), _stored(store, found))
            )
            assert seen == expected, (position, table)

    async def check_differences(self, first: int, second: int, table: str) -> None:
        """The first moment with its differences to the second one is the second moment."""
        found = await self.queries.differences(table, AsOf(first), AsOf(second), limit=10_000, beyond=0)
        pages = [self.shown[position, table][0][1] for position in (first, second)]
        rows = {row["row"]: (row["status"], dict(row["values"])) for row in pages[0]["rows"]}
        for change in found.rows:
            status, values = rows.pop(change.row, (None, {}))
            if change.change == "removed":
                continue
            for cell in change.cells:
                assert values.get(cell.column) == cell.before
                values[cell.column] = cell.after
            if change.status is not None:
                assert change.status.before == status
                status = change.status.after
            rows[change.row] = (status, values)
        seen = {
            row: (status, {name: value for name, value in values.items() if value is not None})
            for row, (status, values) in rows.items()
        }
        assert seen == {
            row["row"]: (row["status"], {name: value for name, value in row["values"].items() if value is not None})
            for row in pages[1]["rows"]
        }
        changes = [change.change for change in found.rows]
        counted = found.summary
        assert [changes.count(kind) for kind in ("added", "removed", "changed")] == [
            counted.rows_added,
            counted.rows_removed,
            counted.rows_changed,
        ]

    def close(self) -> None:
        self.moments.close()
        self.world.close()


def _delete(world: World) -> None:
    """Delete the table below all others, the first time."""
    with world.recorder() as recorder:
        table = recorder.store.table("final")
        if table is not None:
            recorder.record("final", commands.delete_table(table, []))


async def _try(url: str, operations: list[Callable[[World], None]], pairs: list[tuple[int, int]]) -> None:
    history = History(World(url))
    try:
        history.note()
        history.world.populate()
        for step, operation in enumerate(operations):
            operation(history.world)
            history.note()
            if step % 5 == 0:
                await history.keeper.catch_up(asyncio.Event())
        await history.check()
        for table in ("targets", "sources", "left"):
            positions = [position for position, of in history.shown if of == table]
            for pair in pairs:
                first, second = sorted(positions[which % len(positions)] for which in pair)
                await history.check_differences(first, second, table)
    finally:
        history.close()


@given(
    st.lists(_operations() | st.just(_delete), max_size=10),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=2),
)
# An example compares every table at every position.
@settings(max_examples=settings().max_examples // 10)
def test_the_past_is_what_was_shown(operations: list[Callable[[World], None]], pairs: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_try(_url(folder), operations, pairs))


@pytest.mark.parametrize("seed", [1])
def test_the_past_is_what_was_shown_on_both_databases(database_url: str, seed: int) -> None:
    operations = [
        lambda world: world.add("sources", [{"k": 1}, {"k": 0}]),
        lambda world: world.finish(seed, [1, 2], [3, 4]),
        lambda world: world.edit("coords", 0, {"k": 1, "w": 3}),
        lambda world: world.remove("sources", 0),
        lambda world: world.finish(seed, [2, 1, 1], [3, 4, 4]),
        _delete,
        lambda world: world.edit("targets", 0, {"k": 1, "v": 3}),
    ]
    asyncio.run(_try(database_url, operations, [(0, 5), (1, 7)]))
