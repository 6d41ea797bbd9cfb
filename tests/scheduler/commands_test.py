"""Decisions: what is queued, what is skipped and why, and what is cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_contracts.canonical import canonical_json
from stoa_contracts.types import RowStatus
from stoa_scheduler.commands import Skipped, cancel_jobs, run_rows, set_triggers
from stoa_scheduler.domain import ActiveJob, InputColumn, Request, RowState, TableState
from stoa_scheduler.problems import NothingToRunError
from tests.scheduler.neighbours import version

TABLE = TableState(
    id="t",
    name="sources",
    kind="worktable",
    workflow_version=version("one"),
    inputs=[
        InputColumn(name="image", optional=False),
        InputColumn(name="beam", optional=False),
        InputColumn(name="sigma", optional=False, default=5.0),
    ],
    mode="manual",
)


def row(number: int, status: RowStatus = "stale", **inputs: object) -> RowState:
    return RowState(number, 1, {"image": "m87.fits", "beam": 0.5, **inputs}, status)


def ids() -> Iterator[str]:
    return (f"job-{number:05}" for number in count(1))


def test_each_row_becomes_a_job_with_its_full_inputs() -> None:
    make = ids()
    decision = run_rows(
        TABLE,
        [row(1), row(7, sigma=3.0)],
        Request("r", "jansky", priority=4),
        make_id=lambda: next(make),
    )
    assert decision.jobs == 2
    assert not decision.skipped
    (event,) = decision.queued
    assert (event.table, event.run, event.requested_by, event.reason, event.priority) == (
        "t",
        "r",
        "jansky",
        "command",
        4,
    )
    assert event.workflow_version == version("one")
    assert [(job.job, job.row, job.revision, job.inputs) for job in event.jobs] == [
        ("job-00001", 1, 1, {"image": "m87.fits", "beam": 0.5, "sigma": 5.0}),
        ("job-00002", 7, 1, {"image": "m87.fits", "beam": 0.5, "sigma": 3.0}),
    ]


def test_rows_are_skipped_with_the_reason() -> None:
    rows = [
        row(1, "queued"),
        row(2, "running"),
        row(3, image=None),
        row(4, image=None, beam=None),
        row(5, image="x" * 300_000),
        row(6, "failed"),
        row(7, "current"),
    ]
    decision = run_rows(TABLE, rows, Request("r", "jansky"), asked=[1, 7, 12, 11])
    assert [job.row for event in decision.queued for job in event.jobs] == [6, 7]
    *first, too_large = decision.skipped[:5]
    assert first == [
        Skipped(1, "it is queued already"),
        Skipped(2, "it is running already"),
        Skipped(3, "input image is missing"),
        Skipped(4, "inputs image, beam are missing"),
    ]
    assert too_large.row == 5
    assert "its inputs take 300,195 bytes" in too_large.reason
    assert decision.skipped[5:] == [Skipped(11, "there is no row 11"), Skipped(12, "there is no row 12")]


@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=30))
def test_every_event_passes_the_broker(sizes: list[int]) -> None:
    rows = [row(number, image="x" * size) for number, size in enumerate(sizes, 1)]
    decision = run_rows(TABLE, rows, Request("r", "jansky"))
    assert [job.row for event in decision.queued for job in event.jobs] == list(range(1, len(sizes) + 1))
    assert all(len(canonical_json(event.model_dump(mode="json"))) < 256 * 1024 for event in decision.queued)


def test_many_rows_are_events_of_one_run() -> None:
    decision = run_rows(TABLE, [row(number) for number in range(1, 1301)], Request("r", "jansky"))
    assert [len(event.jobs) for event in decision.queued] == [500, 500, 300]
    assert {event.run for event in decision.queued} == {"r"}


def test_what_has_no_workflow_is_refused() -> None:
    plain = replace(TABLE, kind="plain", workflow_version=None)
    with pytest.raises(NothingToRunError, match="Table sources is a plain table: its rows are always current"):
        run_rows(plain, [], Request("r", "jansky"))
    with pytest.raises(NothingToRunError, match="Table sources is a join: its rows"):
        run_rows(replace(plain, kind="join"), [], Request("r", "jansky"))
    with pytest.raises(NothingToRunError, match="Table sources has no workflow yet"):
        run_rows(replace(TABLE, workflow_version=None), [], Request("r", "jansky"))
    with pytest.raises(NothingToRunError):
        set_triggers(plain, "automatic", None, [])


def test_cancelling_names_each_table_once() -> None:
    jobs = [ActiveJob(f"j{number}", "ab"[number % 2], number, 1, version("one"), "waiting") for number in range(1, 7)]
    events = cancel_jobs(jobs, "why")
    assert [(event.table, [job.row for job in event.jobs], event.reason) for event in events] == [
        ("a", [2, 4, 6], "why"),
        ("b", [1, 3, 5], "why"),
    ]
    assert cancel_jobs([], "why") == []


def test_a_mode_is_set_once() -> None:
    (event,) = set_triggers(TABLE, "automatic", None, [])
    assert (event.table, event.mode, event.previous) == ("t", "automatic", "manual")
    assert set_triggers(replace(TABLE, mode="automatic"), "automatic", None, []) == []
