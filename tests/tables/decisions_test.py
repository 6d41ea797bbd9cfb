"""Decisions without a database: what follows from a state and a command, or an event of another service."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from stoa_contracts.events.executor import JobFinished, JobStarted
from stoa_contracts.events.scheduler import JobCancelled, JobQueued, QueuedJob
from stoa_contracts.events.tables import OutputsRecorded, RowEdited, StatusChange, TableInvalidated, WorkflowChanged
from stoa_contracts.types import Cause, Column, JobReference, LinkSpecification, Usage
from stoa_tables import commands, policy
from stoa_tables.commands import DescribedWorkflow, Edit, RowsChangedError
from stoa_tables.derivation import Difference, Wanted, compare_joined, compare_keyed, join_key, keyed_rows
from stoa_tables.domain import Item, Row, Source, Table, find_path, items, same
from stoa_tables.problems import ConflictError, InvalidRequestError, InvalidValuesError, NotFoundError

_VERSION, _OTHER = "a" * 64, "b" * 64
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_USAGE = Usage(wall_s=1, cpu_s=1, max_rss_bytes=1)


def _column(name: str, kind: Any = "int", role: Any = "input") -> Column:
    return Column(name=name, role=role, type=kind)


_TABLE = Table(
    id="t",
    name="t",
    kind="worktable",
    owner="ada",
    project="default",
    description="",
    columns=(_column("x"), _column("s", "string"), _column("y", {"type": "array", "items": "int"}, "output")),
    workflow_version=_VERSION,
    next_row=5,
    created="2026-01-01T00:00:00Z",
)
_ROW = Row(row=1, revision=3, status="stale", inputs={"x": 1, "s": "a"})


# --- commands ----------------------------------------------------------------------------------------------------------


def test_added_rows_follow_the_last_one_in_events_of_bounded_size() -> None:
    events = commands.add_rows(_TABLE, [{"x": number, "s": "a" * 50} for number in range(10)], event_bytes=400)
    assert len(events) > 1
    assert [row.row for event in events for row in event.rows] == list(range(5, 15))
    assert events[0].rows[0].inputs == {"x": 0, "s": "a" * 50}


def test_an_edit_holds_what_changed_and_what_was() -> None:
    edits = [Edit(1, {"x": 2, "s": "a"}, revision=3)]
    assert commands.edit_rows(_TABLE, {1: _ROW}, edits, event_bytes=1000) == [
        RowEdited.model_validate(
            {"table": "t", "rows": [{"row": 1, "revision": 4, "changes": {"x": 2}, "previous": {"x": 1}}]}
        )
    ]


def test_edits_that_cannot_be_made() -> None:
    rows = {1: _ROW}
    with pytest.raises(RowsChangedError, match="at revision 3, not at 2"):
        commands.edit_rows(_TABLE, rows, [Edit(1, {"x": 2}, revision=2)], event_bytes=1000)
    with pytest.raises(NotFoundError, match="no row 9"):
        commands.edit_rows(_TABLE, rows, [Edit(9, {"x": 2})], event_bytes=1000)
    with pytest.raises(InvalidValuesError, match="row 1, x"):
        commands.edit_rows(_TABLE, rows, [Edit(1, {"x": "two"})], event_bytes=1000)
    with pytest.raises(InvalidValuesError, match="computed by the workflow"):
        commands.edit_rows(_TABLE, rows, [Edit(1, {"y": [1]})], event_bytes=1000)
    with pytest.raises(InvalidRequestError, match="twice"):
        commands.edit_rows(_TABLE, rows, [Edit(1, {"x": 2}), Edit(1, {"x": 3})], event_bytes=1000)


def test_a_new_workflow_names_the_rows_that_it_makes_stale() -> None:
    workflow = DescribedWorkflow(_OTHER, "main.cwl", "Workflow", [], _TABLE.columns)
    changed, told = commands.change_workflow(_TABLE, workflow, rows=[1, 2, 3], stale=[1, 3])
    assert isinstance(changed, WorkflowChanged)
    assert isinstance(told, TableInvalidated)
    assert (told.cause.kind, told.rows) == ("workflow", [1, 3])
    assert commands.change_workflow(_TABLE, replace(workflow, version=_VERSION)) == []
    assert len(commands.change_workflow(_TABLE, workflow, rows=[1], stale=[])) == 1
    with pytest.raises(ConflictError, match="only worktables"):
        commands.change_workflow(replace(_TABLE, kind="plain"), workflow)


def test_a_long_list_of_stale_rows_is_told_in_parts() -> None:
    told = commands.invalidate("t", list(range(50_000)), Cause(kind="workflow"), total=60_000)
    assert [len(event.rows or []) for event in told if isinstance(event, TableInvalidated)] == [20_000, 20_000, 10_000]
    (whole,) = commands.invalidate("t", list(range(50_000)), Cause(kind="workflow"), total=50_000)
    assert isinstance(whole, TableInvalidated)
    assert whole.rows is None


def test_a_difference_becomes_events_in_an_order_that_can_be_replayed() -> None:
    link = LinkSpecification(link="l", kind="keyed", parents=["p"], mapping={"x": "a"}, keys=["x"])
    wanted = Wanted((Source(7, 0), None), "k" * 64, {"x": 5})
    key = "c" * 64
    known = replace(_ROW, link="l", key=key, sources=(Source(7, 1), None))
    difference = Difference(
        added=[replace(wanted, key="d" * 64, problem="x: no.")],
        removed=[replace(known, row=2)],
        edited=[(known, {"x": 5}, replace(wanted, key=key))],
        moved=[(known, replace(wanted, key=key))],
    )
    applied = commands.apply_difference(_TABLE, link, difference, Cause(kind="upstream"), event_bytes=1000)
    assert [event.event_type.name for event in applied.events] == [
        "rows-removed",
        "row-edited",
        "rows-added",
        "sources-moved",
        "row-status-changed",
    ]
    assert (applied.changed, applied.stale) == ({1, 2, 5}, [1, 5])


# --- derivation --------------------------------------------------------------------------------------------------------


def test_a_path_is_found_or_not() -> None:
    links = [("b", ["a"]), ("c", ["b"]), ("d", ["b", "c"])]
    assert find_path(links, "a", "d") == ["a", "b", "d"]
    assert find_path(links, "d", "a") is None
    assert find_path(links, "a", "a") == ["a"]


def test_values_are_the_same_as_json() -> None:
    assert same({"a": 1, "b": [2]}, {"b": [2], "a": 1})
    assert not same(1, True)
    assert not same(1, 1.0)
    assert same(None, None)


def test_what_a_row_offers() -> None:
    columns = _TABLE.columns
    never = _ROW
    ran = replace(_ROW, outputs={"y": [7, 8]}, elements=2)
    assert list(items(never, columns, per="element")) == []
    assert [item.values for item in items(never, columns, per="row", needs_outputs=False)] == [never.inputs]
    assert [(item.source.element, item.values["y"]) for item in items(ran, columns, per="element")] == [(0, 7), (1, 8)]
    assert [(item.source.element, item.values["y"]) for item in items(ran, columns, per="row")] == [(None, [7, 8])]
    assert [item.values for item in items(never, columns[:2], per="element")] == [never.inputs]


def test_a_join_compares_numbers_as_numbers_and_files_by_content() -> None:
    def key(value: Any) -> str | None:
        return join_key({"k": value}, ["k"])

    assert key(1) == key(1.0)
    assert key("1") != key(1)
    assert key(None) is None
    file = {"class": "File", "location": "sha256:x", "basename": "a.fits"}
    assert key(file) == key({**file, "basename": "b.fits"})
    assert key(file) != key({**file, "location": "sha256:y"})


def _keyed(*values: int) -> list[Wanted]:
    link = LinkSpecification(link="l", kind="keyed", parents=["p"], mapping={"x": "a", "s": "b"}, keys=["x"])
    offered = [Item(Source(1, number), {"a": value, "b": f"s{value}"}) for number, value in enumerate(values)]
    return keyed_rows(link, {column.name: column for column in _TABLE.columns}, offered, lambda value, _: value)


def _existing(wanted: list[Wanted]) -> list[Row]:
    return [
        replace(_ROW, row=number, inputs=item.values, link="l", key=item.key, sources=item.sources)
        for number, item in enumerate(wanted, 1)
    ]


def test_keyed_rows_are_known_by_their_values_and_their_number_among_equals() -> None:
    difference = compare_keyed(_keyed(2, 1, 1), _existing(_keyed(1, 2)))
    assert [item.values["x"] for item in difference.added] == [1]
    assert (difference.edited, difference.removed) == ([], [])
    assert sorted(row.row for row, _ in difference.moved) == [1, 2]


def test_a_joined_row_is_changed_before_one_is_added() -> None:
    def wanted(left: int, right: int | None, value: int) -> Wanted:
        return Wanted((Source(left), None if right is None else Source(right)), "k" * 64, {"v": value})

    before = [wanted(1, None, 0), wanted(2, 5, 1)]
    rows = [
        replace(_ROW, row=number, inputs=item.values, link="l", key=item.key, sources=item.sources)
        for number, item in enumerate(before, 1)
    ]
    difference = compare_joined([wanted(1, 5, 7), wanted(2, 5, 1), wanted(1, 6, 8)], rows)
    assert [(row.row, changes) for row, changes, _ in difference.edited] == [(1, {"v": 7})]
    assert [item.values for item in difference.added] == [{"v": 8}]
    assert difference.removed == []
    assert compare_joined([], rows).removed == rows


# --- what other services tell ------------------------------------------------------------------------------------------


def _queued(job: str, revision: int = 3, version: str = _VERSION) -> JobQueued:
    jobs = [QueuedJob(job=job, row=1, revision=revision, inputs={})]
    return JobQueued(table="t", run="r", requested_by="ada", reason="command", workflow_version=version, jobs=jobs)


def _started(job: str, attempt: int = 1, revision: int = 3, version: str = _VERSION) -> JobStarted:
    return JobStarted(
        table="t", job=job, attempt=attempt, row=1, revision=revision, workflow_version=version, host="h", started=_NOW
    )


def _finished(job: str, attempt: int = 1, **more: Any) -> JobFinished:
    given = {
        "table": "t",
        "job": job,
        "attempt": attempt,
        "row": 1,
        "revision": 3,
        "workflow_version": _VERSION,
        "outcome": "permanentFail",
        "final": True,
        "host": "h",
        "started": _NOW,
        "finished": _NOW,
        "usage": _USAGE,
    }
    return JobFinished.model_validate({**given, **more})


@pytest.mark.parametrize(
    ("row", "event", "expected"),
    [
        (_ROW, _queued("j2"), "queued"),
        (_ROW, _queued("j2", revision=2), None),
        (_ROW, _queued("j2", version=_OTHER), None),
        (replace(_ROW, job="j2", status="running"), _queued("j2"), None),
        (replace(_ROW, job="j3", status="failed"), _queued("j2"), None),
        (replace(_ROW, job="j1", status="failed"), _queued("j2"), "queued"),
    ],
)
def test_which_rows_are_queued(row: Row, event: JobQueued, expected: str | None) -> None:
    assert [change.status for change in policy.queued(_TABLE, {1: row}, event)] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("row", "event", "runs"),
    [
        (replace(_ROW, job="j2", status="queued"), _started("j2"), True),
        (replace(_ROW, job="j2", status="running", attempt=1), _started("j2"), False),
        (replace(_ROW, job="j2", status="running", attempt=1), _started("j2", attempt=2), True),
        (replace(_ROW, job="j2", status="running", attempt=2), _started("j2", attempt=1), False),
        (replace(_ROW, job="j2", status="failed"), _started("j2", attempt=2), False),
        (replace(_ROW, job="j3", status="queued"), _started("j2"), False),
        (replace(_ROW, job="j2", status="stale"), _started("j2", revision=2), False),
        (replace(_ROW, job="j2", status="queued"), _started("j2", version=_OTHER), False),
        (replace(_ROW, job="j2", status="current", outputs={}, outputs_job="j2"), _started("j2"), False),
        (replace(_ROW, job="j2", status="queued", outputs={}, outputs_job="j1"), _started("j2"), True),
        (None, _started("j2"), False),
    ],
)
def test_which_rows_run(row: Row | None, event: JobStarted, runs: bool) -> None:
    assert [change.status for change in policy.started(_TABLE, row, event)] == (["running"] if runs else [])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "failed"),
        ({"final": False}, "queued"),
        ({"outcome": "temporaryFail"}, "failed"),
        ({"outcome": "cancelled"}, "cancelled"),
        ({"revision": 2}, None),
        ({"workflow_version": _OTHER}, None),
    ],
)
def test_what_a_failure_means(more: dict[str, Any], expected: str | None) -> None:
    row = replace(_ROW, job="j2", status="running", attempt=1)
    changes = policy.failed(_TABLE, row, _finished("j2", error="No.", **more))
    assert [(change.status, change.reason) for change in changes] == ([(expected, "No.")] if expected else [])


def test_recorded_outputs_say_whether_they_differ_and_how_many_elements_they_are() -> None:
    event = _finished("j2", outcome="success", outputs={"y": [1, 2]})
    first = policy.recorded(_TABLE, _ROW, event)
    assert first is not None
    assert (first.elements, first.differs) == (2, True)
    row = _ROW.with_outputs(first)
    assert (row.status, row.outputs_job, row.outdated(_VERSION), row.outdated(_OTHER)) == ("current", "j2", False, True)
    again = policy.recorded(_TABLE, row, event)
    assert again is not None
    assert not again.differs


@pytest.mark.parametrize(
    ("row", "cancelled"),
    [
        (replace(_ROW, job="j2", status="queued"), True),
        (replace(_ROW, job="j2", status="running"), True),
        (replace(_ROW, job="j2", status="current"), False),
        (replace(_ROW, job="j3", status="queued"), False),
        (replace(_ROW, job=None, status="stale"), False),
        (replace(_ROW, job="j2", status="queued", revision=4), False),
    ],
)
def test_which_rows_are_cancelled(row: Row, cancelled: bool) -> None:
    event = JobCancelled(table="t", jobs=[JobReference(job="j2", row=1, revision=3)], reason="Enough.")
    assert [change.status for change in policy.cancelled({1: row}, event)] == (["cancelled"] if cancelled else [])


def test_the_row_in_memory_goes_the_way_of_the_row_in_the_database() -> None:
    row = _ROW.with_status(StatusChange(row=1, revision=3, status="running", job="j2", attempt=2))
    assert (row.status, row.job, row.attempt) == ("running", "j2", 2)
    row = row.with_status(StatusChange(row=1, revision=3, status="stale", reason="x: no."))
    assert (row.status, row.job, row.reason) == ("stale", "j2", "x: no.")
    older = OutputsRecorded(
        table="t",
        row=1,
        revision=3,
        workflow_version=_VERSION,
        job="j1",
        attempt=1,
        outputs={"y": []},
        elements=0,
        differs=True,
        started=_NOW,
        finished=_NOW,
        usage=_USAGE,
    )
    row = row.with_outputs(older)
    assert (row.job, row.outputs_job, row.attempt, row.elements) == ("j2", "j1", 2, 0)
