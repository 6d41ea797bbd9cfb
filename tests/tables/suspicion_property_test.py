"""Statuses and suspicion are kept up to date step by step; a computation from scratch gives the same, after any history."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stoa_contracts.canonical import digest
from stoa_contracts.events.tables import OutputsRecorded, RowStatusChanged, StatusChange
from stoa_contracts.types import Column, RowStatus, Usage
from stoa_tables import commands
from stoa_tables.commands import DescribedWorkflow
from stoa_tables.domain import Row
from stoa_tables.store import Store
from tests.tables.derivation_property_test import World

_USAGE = Usage(wall_s=1, cpu_s=1, max_rss_bytes=1)

#: The worktables that a history runs, beside `sources`.
_RUN = ("cut", "found", "final", "last")

#: From which parents a table's rows come, and whether they take outputs of them.
_SOURCES = {
    "cut": [("targets", False)],
    "found": [("sources", True)],
    "inner": [("sources", True), ("coords", False)],
    "left": [("sources", True), ("coords", False)],
    "final": [("left", False)],
    "last": [("final", True)],
    "aside": [("final", False)],
}


class History(World):
    """The world of derived tables, with runs below, and a memory of what each run was made from."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        for name, column in {"last": "o", "aside": "k"}.items():
            self.create(name, "worktable")
            columns = [
                Column(name="i", role="input", type=["null", "int"]),
                Column(name="o", role="output", type=["null", "int"]),
            ]
            self.workflow(name, columns)
            self.keyed(name, "final", "row", {"i": column})
        self.made: dict[tuple[str, int, str], tuple[Any, str]] = {}

    def version(self, name: str) -> str:
        with self.database.reading() as connection:
            table = Store(connection, self.events.tables).table(name)
            assert table is not None
            return table.workflow_version or ""

    def run(self, name: str, which: int, value: int) -> None:
        with self.recorder() as recorder:
            number = self.pick(recorder, name, which)
            row = None if number is None else recorder.store.row(name, number)
            if row is None:
                return
            self.jobs += 1
            now = datetime.now(UTC)
            event = OutputsRecorded(
                table=name,
                row=row.row,
                revision=row.revision,
                workflow_version=self.table(recorder, name).workflow_version or "",
                job=f"j{self.jobs:06}",
                attempt=1,
                outputs={"o": value},
                elements=None,
                differs=row.outputs != {"o": value},
                started=now,
                finished=now,
                usage=_USAGE,
            )
            recorder.record(name, [event])
            recorder.follow(name, [row.row])

    def tell(self, name: str, which: int, status: RowStatus) -> None:
        with self.recorder() as recorder:
            number = self.pick(recorder, name, which)
            row = None if number is None else recorder.store.row(name, number)
            if row is not None:
                change = StatusChange(row=row.row, revision=row.revision, status=status, job=f"k{self.jobs}")
                recorder.record(name, [RowStatusChanged(table=name, changes=[change])])
                recorder.settle()

    def change_version(self, name: str, number: int) -> None:
        with self.recorder() as recorder:
            table, store = self.table(recorder, name), recorder.store
            version = digest(name if number == 0 else [name, number])
            described = DescribedWorkflow(version, "main.cwl", "CommandLineTool", [], table.columns)
            events = commands.change_workflow(
                table,
                described,
                rows=store.row_ids(name),
                stale=store.not_of_version(name, version),
                current=store.of_version(name, version),
            )
            recorder.record(name, events)
            recorder.settle()

    # --- from scratch ---

    def remember(self) -> None:
        """Note from what the outputs were made that rows got in the last step."""
        for name in ("sources", *_RUN):
            for row in self.read(name):
                if row.outputs_job is not None:
                    self.made.setdefault((name, row.row, row.outputs_job), (row.inputs, self.version(name)))

    def check_suspicion(self) -> None:
        self.remember()
        rows = {name: {row.row: row for row in self.read(name)} for name in ("sources", "targets", "coords", *_SOURCES)}
        for name, parents in _SOURCES.items():
            for row in rows[name].values():
                expected = any(
                    self.is_unsettled(rows[parent][source.row], takes_outputs=takes_outputs)
                    for (parent, takes_outputs), source in zip(parents, row.sources, strict=False)
                    if source is not None
                )
                assert row.suspected == expected, (name, row)
        for name in ("sources", *_RUN):
            version = self.version(name)
            for row in rows[name].values():
                made = self.made.get((name, row.row, row.outputs_job or ""))
                belongs = made == (row.inputs, version)
                assert row.belongs(version) == belongs, (name, row, made)
                if row.status in {"stale", "current"}:
                    assert row.status == ("current" if belongs and not row.suspected else "stale"), (name, row)
        for name in ("inner", "left", "targets", "coords"):
            assert {row.status for row in rows[name].values()} <= {"current"}

    @staticmethod
    def is_unsettled(row: Row, *, takes_outputs: bool) -> bool:
        return row.suspected or (takes_outputs and row.status != "current")


_few = st.integers(0, 4)
_k = st.sampled_from([0, 1, None])
_value = st.integers(0, 1)
_arrays = st.lists(st.tuples(_value, _value), max_size=2).map(lambda pairs: tuple(map(list, zip(*pairs, strict=True))))
_statuses = st.sampled_from(["queued", "failed", "cancelled"])
_named = st.sampled_from(_RUN)
_operations: st.SearchStrategy[tuple[str, tuple[Any, ...]]] = st.one_of(
    st.tuples(st.just("run"), st.tuples(_named, _few, _value)),
    st.tuples(st.just("run"), st.tuples(_named, _few, _value)),
    st.tuples(st.just("finish"), st.tuples(_few, _arrays)).map(
        lambda chosen: ("finish", (chosen[1][0], *(chosen[1][1] or ([], []))))
    ),
    st.tuples(st.just("edit"), st.tuples(st.just("sources"), _few, st.fixed_dictionaries({"k": _k}))),
    st.tuples(st.just("edit"), st.tuples(st.just("coords"), _few, st.fixed_dictionaries({"k": _k, "w": _value}))),
    st.tuples(st.just("edit"), st.tuples(st.just("final"), _few, st.fixed_dictionaries({"w": _value}))),
    st.tuples(st.just("remove"), st.tuples(st.sampled_from(["sources", "coords"]), _few)),
    st.tuples(st.just("add"), st.tuples(st.just("coords"), st.just([{"k": 0, "w": 0}]))),
    st.tuples(st.just("tell"), st.tuples(st.sampled_from(["sources", *_RUN]), _few, _statuses)),
    st.tuples(st.just("change_version"), st.tuples(_named, _value)),
)


@given(st.lists(_operations, max_size=12))
@settings(max_examples=settings().max_examples * 8 // 50, deadline=None)
def test_suspicion_step_by_step_is_suspicion_from_scratch(operations: list[tuple[str, tuple[Any, ...]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(f"sqlite:///{Path(folder) / 'stoa.db'}")
        try:
            history.populate()
            for name in _RUN:
                for which in range(3):
                    history.run(name, which, 0)
            history.check_suspicion()
            for name, arguments in operations:
                operation: Callable[..., None] = getattr(history, name)
                operation(*arguments)
                history.check_suspicion()
            history.check_counts()
            history.check_rebuild()
        finally:
            history.close()
