"""Derived tables are kept up to date step by step; a computation from scratch gives the same, after any edits."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from stoa_chassis.database import Database
from stoa_chassis.log import Log, Origin
from stoa_chassis.migrations import upgrade
from stoa_chassis.projection import EventStore, compare, rebuild
from stoa_contracts.canonical import digest
from stoa_contracts.events.tables import OutputsRecorded
from stoa_contracts.types import Column, Usage
from stoa_tables import commands
from stoa_tables.app import SERVICE
from stoa_tables.cascade import Recorder
from stoa_tables.commands import DescribedWorkflow, Edit
from stoa_tables.domain import Table
from stoa_tables.elements import split
from stoa_tables.store import Store

_ARRAY = {"type": "array", "items": "int"}
_NULLABLE = ["null", "int"]
_BYTES = 2000  # so small that a change of some rows is several events
_USAGE = Usage(wall_s=1, cpu_s=1, max_rss_bytes=1)

#: The graph: what each derived table is made of.
#:   targets (plain: k, v)    sources (worktable: k -> f[], g[])    coords (plain: k, w)
#:   inner, left: sources joined with coords on k
#:   cut: one row per target       found: one per element of sources, keyed on f      final: one per row of left


def _column(name: str, role: str, kind: Any = _NULLABLE) -> Column:
    return Column.model_validate({"name": name, "role": role, "type": kind})


class World:
    """The service's inside, without HTTP, and the operations that a person or a job could do to it."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        upgrade(self.database, SERVICE.migrations)
        self.events = EventStore(Log("tables"), SERVICE.projection())
        self.jobs = 0
        for name, columns in {
            "targets": [_column("k", "input"), _column("v", "input")],
            "coords": [_column("k", "input"), _column("w", "input")],
        }.items():
            self.create(name, "plain", columns)
        self.create("sources", "worktable")
        self.workflow(
            "sources", [_column("k", "input"), _column("f", "output", _ARRAY), _column("g", "output", _ARRAY)]
        )
        for name, inputs in {"cut": ["k", "v"], "found": ["f", "g", "k"], "final": ["k", "f", "w"]}.items():
            self.create(name, "worktable")
            self.workflow(name, [*(_column(column, "input") for column in inputs), _column("o", "output")])
        self.join("inner", "sources", "coords")
        self.join("left", "sources", "coords")
        self.keyed("cut", "targets", "row", {"k": "k", "v": "v"})
        self.keyed("found", "sources", "element", {"f": "f", "g": "g", "k": "k"}, ["f"])
        self.keyed("final", "left", "row", {"k": "k", "f": "f", "w": "w"})

    def populate(self) -> None:
        """Begin with rows that meet, for few operations make such by chance."""
        self.add("targets", [{"k": 0, "v": 1}])
        self.add("coords", [{"k": 0, "w": 1}, {"k": 1, "w": 2}])
        self.add("sources", [{"k": 0}, {"k": 1}, {"k": None}])
        self.finish(0, [1, 2], [3, 3])
        self.finish(1, [1], [2])

    def close(self) -> None:
        self.database.engine.dispose()

    @contextmanager
    def recorder(self) -> Iterator[Recorder]:
        with self.database.writing() as connection:
            yield Recorder(connection, self.events, Origin("ada", "c"), event_bytes=_BYTES)

    def create(self, name: str, kind: Any, columns: list[Column] | None = None) -> None:
        with self.recorder() as recorder:
            created = commands.create_table(name, name=name, kind=kind, owner="ada", columns=columns or [])
            recorder.record(name, created)

    def workflow(self, name: str, columns: list[Column]) -> None:
        with self.recorder() as recorder:
            described = DescribedWorkflow(digest(name), "main.cwl", "CommandLineTool", [], columns)
            recorder.record(name, commands.change_workflow(self.table(recorder, name), described))

    def join(self, kind: Any, left: str, right: str) -> None:
        with self.recorder() as recorder:
            tables = self.table(recorder, left), self.table(recorder, right)
            link = commands.join_specification(f"l-{kind}", *tables, kind=kind, on=[("k", "k")], columns=None)
            columns = commands.join_columns(link, *tables)
            recorder.record(kind, commands.create_table(kind, name=kind, kind="join", owner="ada", columns=columns))
            recorder.record(kind, commands.link_tables(kind, link))

    def keyed(self, child: str, parent: str, per: Any, mapping: dict[str, str], keys: list[str] | None = None) -> None:
        with self.recorder() as recorder:
            tables = self.table(recorder, child), self.table(recorder, parent)
            link = commands.keyed_specification(
                f"l-{child}", *tables, per=per, mapping=mapping, keys=keys, graph=[], names={}
            )
            recorder.record(child, commands.link_tables(child, link))

    @staticmethod
    def table(recorder: Recorder, name: str) -> Table:
        found = recorder.store.table(name)
        assert found is not None
        return found

    # --- operations ---

    def add(self, name: str, rows: list[dict[str, Any]]) -> None:
        with self.recorder() as recorder:
            events = commands.add_rows(self.table(recorder, name), rows, event_bytes=_BYTES)
            recorder.record(name, events)
            recorder.follow(name, [row.row for event in events for row in event.rows])

    def edit(self, name: str, which: int, values: dict[str, Any]) -> None:
        with self.recorder() as recorder:
            row = self.pick(recorder, name, which)
            if row is not None:
                rows = recorder.store.rows(name, [row])
                edits = [Edit(row, values)]
                recorder.record(name, commands.edit_rows(self.table(recorder, name), rows, edits, event_bytes=_BYTES))
                recorder.follow(name, [row])

    def remove(self, name: str, which: int) -> None:
        with self.recorder() as recorder:
            row = self.pick(recorder, name, which)
            if row is not None:
                rows = recorder.store.rows(name, [row])
                recorder.record(name, commands.remove_rows(self.table(recorder, name), rows, [row]))
                recorder.follow(name, [row])

    def finish(self, which: int, f: list[int], g: list[int]) -> None:
        with self.recorder() as recorder:
            number = self.pick(recorder, "sources", which)
            row = None if number is None else recorder.store.row("sources", number)
            if row is None:
                return
            self.jobs += 1
            outputs = {"f": f, "g": g}
            now = datetime.now(UTC)
            event = OutputsRecorded(
                table="sources",
                row=row.row,
                revision=row.revision,
                workflow_version=digest("sources"),
                job=f"j{self.jobs:06}",
                attempt=1,
                outputs=outputs,
                elements=split(outputs, self.table(recorder, "sources").columns)[0],
                differs=row.outputs != outputs,
                started=now,
                finished=now,
                usage=_USAGE,
            )
            recorder.record("sources", [event])
            recorder.follow("sources", [row.row])

    @staticmethod
    def pick(recorder: Recorder, name: str, which: int) -> int | None:
        ids = recorder.store.row_ids(name)
        return ids[which % len(ids)] if ids else None

    # --- what there is, and what there ought to be ---

    def read(self, name: str) -> list[Any]:
        with self.database.reading() as connection:
            store = Store(connection, self.events.tables)
            return list(store.rows(name, store.row_ids(name)).values())

    def shown(self, name: str, *columns: str) -> Counter[tuple[Any, ...]]:
        return Counter(tuple(row.inputs[column] for column in columns) for row in self.read(name))

    def elements(self) -> list[tuple[Any, Any, Any]]:
        found = []
        for row in self.read("sources"):
            if row.outputs is None:
                continue
            f, g = row.outputs["f"], row.outputs["g"]
            pairs = zip(f, g, strict=True) if len(f) == len(g) else [(f, g)]
            found += [(row.inputs["k"], one, other) for one, other in pairs]
        return found

    def expected_join(self, *, left: bool) -> Counter[tuple[Any, ...]]:
        coords = [(row.inputs["k"], row.inputs["w"]) for row in self.read("coords")]
        found: Counter[tuple[Any, ...]] = Counter()
        for k, f, g in self.elements():
            partners = [w for key, w in coords if key is not None and key == k]
            if not partners and left:
                partners = [None]
            found.update((k, _hashable(f), _hashable(g), w) for w in partners)
        return found

    def check(self) -> None:
        targets = Counter((row.inputs["k"], row.inputs["v"]) for row in self.read("targets"))
        assert self.shown("cut", "k", "v") == targets
        # What is no number does not fit a column of numbers, and its cell is empty.
        found = Counter((_fitting(f), _fitting(g), k) for k, f, g in self.elements())
        assert self.shown("found", "f", "g", "k") == found
        inner = Counter(
            (row.inputs["k"], _hashable(row.inputs["f"]), _hashable(row.inputs["g"]), row.inputs["w"])
            for row in self.read("inner")
        )
        assert inner == self.expected_join(left=False)
        left = self.expected_join(left=True)
        shown = Counter(
            (row.inputs["k"], _hashable(row.inputs["f"]), _hashable(row.inputs["g"]), row.inputs["w"])
            for row in self.read("left")
        )
        assert shown == left
        final = Counter[tuple[Any, ...]]()
        for (k, f, _, w), count in left.items():
            final[k, _fitting(f), w] += count
        assert self.shown("final", "k", "f", "w") == final
        self.check_counts()

    def check_counts(self) -> None:
        with self.database.reading() as connection:
            store = Store(connection, self.events.tables)
            for table in store.all_tables():
                rows = store.rows(table.id, store.row_ids(table.id)).values()
                assert store.counts(table.id) == dict(Counter(row.status for row in rows)), table.name

    def check_rebuild(self) -> None:
        projection = SERVICE.projection()
        rebuild(self.database, self.events.log, projection, _no_feed, swap=False)
        assert list(compare(self.database, projection)) == []


def _no_feed(source: str, after: int, until: int) -> list[Any]:
    raise AssertionError(f"asked {source} for {after} to {until}")


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _fitting(value: Any) -> Any:
    return None if isinstance(value, list | tuple) else value


_small = st.integers(0, 3)
# Few keys, so that rows meet.
_maybe = st.sampled_from([0, 1, None])
_which = st.integers(0, 4)
_array = st.lists(_small, max_size=4)
_row = {
    "targets": st.fixed_dictionaries({"k": _maybe, "v": _small}),
    "coords": st.fixed_dictionaries({"k": _maybe, "w": _small}),
    "sources": st.fixed_dictionaries({"k": _maybe}),
}


def _operations() -> st.SearchStrategy[Callable[[World], None]]:
    choices: list[st.SearchStrategy[Callable[[World], None]]] = []
    for name, row in _row.items():
        choices += [
            st.lists(row, min_size=1, max_size=4).map(lambda rows, name=name: lambda world: world.add(name, rows)),  # type: ignore[misc]
            st.tuples(_which, row).map(lambda chosen, name=name: lambda world: world.edit(name, *chosen)),  # type: ignore[misc]
            _which.map(lambda which, name=name: lambda world: world.remove(name, which)),  # type: ignore[misc]
        ]
    pairs = st.lists(st.tuples(_small, _small), max_size=4).map(
        lambda found: ([f for f, _ in found], [g for _, g in found])
    )
    finish = st.tuples(_which, pairs | st.tuples(_array, _array))
    finished = finish.map(lambda chosen: lambda world: world.finish(chosen[0], *chosen[1]))
    return st.one_of(*choices, finished, finished, finished)


def _url(folder: str) -> str:
    return f"sqlite:///{Path(folder) / 'stoa.db'}"


@given(st.lists(_operations(), max_size=14))
@settings(max_examples=settings().max_examples * 20 // 50)
def test_step_by_step_is_from_scratch(operations: list[Callable[[World], None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(_url(folder))
        try:
            world.populate()
            for operation in operations:
                operation(world)
                world.check()
            world.check_rebuild()
        finally:
            world.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_step_by_step_is_from_scratch_on_both_databases(database_url: str, seed: int) -> None:
    import random

    chance = random.Random(seed)
    world = World(database_url)
    world.populate()
    for step in range(40):
        name = chance.choice(["targets", "coords", "sources", "sources"])
        values: dict[str, Any] = {"k": chance.choice([None, 0, 1])}
        if name != "sources":
            values["v" if name == "targets" else "w"] = chance.randint(0, 3)
        action = chance.choice(["add", "add", "edit", "remove", "finish", "finish", "finish"])
        if action == "add":
            world.add(name, [values, values])
        elif action == "edit":
            world.edit(name, chance.randint(0, 9), values)
        elif action == "remove":
            world.remove(name, chance.randint(0, 9))
        else:
            length = chance.randint(0, 4)
            world.finish(chance.randint(0, 9), *([chance.randint(0, 2) for _ in range(length)] for _ in range(2)))
        if not step % 5:
            world.check()
    world.check()
    world.check_rebuild()
    world.close()


@given(st.lists(_array, min_size=2, max_size=5), st.data())
@settings(max_examples=settings().max_examples * 12 // 50)
def test_rows_keep_their_identity(runs: list[list[int]], data: st.DataObject) -> None:
    """A child row stays as long as its parent row has an element of its key, wherever that stands."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(_url(folder))
        try:
            world.add("sources", [{"k": 1}])
            before: dict[tuple[int, int], Any] = {}
            for run in runs:
                world.finish(0, data.draw(st.permutations(run)), [0] * len(run))
                rows = world.read("found")
                numbered: Counter[int] = Counter()
                now = {}
                for row in sorted(rows, key=lambda row: row.row):
                    now[row.inputs["f"], numbered[row.inputs["f"]]] = row
                    numbered[row.inputs["f"]] += 1
                assert numbered == Counter(run)
                for key in before.keys() & now.keys():
                    assert now[key].revision == before[key].revision
                kept = {row.row for row in before.values()} & {row.row for row in now.values()}
                assert len(kept) == len(before.keys() & now.keys())
                before = now
        finally:
            world.close()


def test_the_index_of_joins_holds_what_it_ought_to(sqlite_url: str) -> None:
    world = World(sqlite_url)
    world.add("sources", [{"k": 1}, {"k": None}])
    world.add("coords", [{"k": 1, "w": 2}, {"k": None, "w": 3}])
    world.finish(0, [1, 2], [3, 4])
    world.finish(1, [1], [3])
    index = world.events.tables["join_index"]
    with world.database.reading() as connection:
        found = connection.execute(
            sa.select(index.c.side, index.c.row, index.c.element).where(index.c.link == "l-left")
        )
        assert sorted(tuple(entry) for entry in found) == [(0, 1, 0), (0, 1, 1), (1, 1, -1)]
    world.close()
