"""Decide: what is known and what is asked for, to events. Nothing here reads or writes anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from stoa_contracts.events.scheduler import JobCancelled, JobQueued, QueuedJob, TriggerSet
from stoa_contracts.ids import new_id
from stoa_contracts.types import JobReference, Mode
from stoa_scheduler.domain import (
    ACTIVE,
    MAX_INPUT_BYTES,
    ActiveJob,
    RowState,
    TableState,
    chunks,
    full_inputs,
    job_bytes,
    missing_inputs,
)
from stoa_scheduler.problems import NothingToRunError

__all__ = ["Decision", "Skipped", "cancel_jobs", "check_runnable", "run_rows", "set_mode"]


@dataclass(frozen=True)
class Skipped:
    """A row that was asked for and is not run."""

    row: int
    reason: str


@dataclass(frozen=True)
class Decision:
    """What happens, and which rows are left out."""

    events: Sequence[JobQueued] = ()
    skipped: Sequence[Skipped] = ()
    jobs: int = field(default=0)


def check_runnable(table: TableState) -> None:
    """Refuse a table without a workflow.

    Raises
    ------
    NothingToRunError
        If it is a plain table or a join, or has no workflow yet.
    """
    if table.kind != "worktable":
        msg = f"Table {table.name} is a {table.kind} table: its rows are always current, there is nothing to run"
        raise NothingToRunError(msg.replace("a join table", "a join"))
    if table.workflow_version is None:
        msg = f"Table {table.name} has no workflow yet"
        raise NothingToRunError(msg)


def run_rows(
    table: TableState,
    rows: Iterable[RowState],
    *,
    run: str,
    requested_by: str,
    reason: Literal["command", "automatic"] = "command",
    priority: int = 0,
    asked: Iterable[int] = (),
    make_id: Callable[[], str] = new_id,
) -> Decision:
    """Queue a job for each row, but for those that are queued or running already, or cannot run.

    Parameters
    ----------
    table
        The worktable.
    rows
        What is known of the rows, in their order.
    run
        The id of the run.
    requested_by
        The person who wants it.
    reason
        Whether the person asked for it, or a change that the person made.
    priority
        Higher goes first.
    asked
        Rows that were named; those of them that are not in `rows` do not exist.
    make_id
        Makes the jobs' ids.

    Returns
    -------
    Decision
        The events, each small enough for every broker, and the rows that were skipped.

    Raises
    ------
    NothingToRunError
        If the table has no workflow.
    """
    check_runnable(table)
    jobs: list[tuple[QueuedJob, int]] = []
    skipped: list[Skipped] = []
    known = set()
    for row in rows:
        known.add(row.row)
        why = _why_not(table, row)
        inputs = full_inputs(table.inputs, row.inputs)
        size = job_bytes(inputs)
        if why is None and size > MAX_INPUT_BYTES:
            why = f"its inputs take {size:,} bytes, a job may have {MAX_INPUT_BYTES:,}"
        if why is None:
            jobs.append((QueuedJob(job=make_id(), row=row.row, revision=row.revision, inputs=inputs), size))
        else:
            skipped.append(Skipped(row.row, why))
    skipped.extend(Skipped(row, f"there is no row {row}") for row in sorted(set(asked) - known))
    events = [
        JobQueued(
            table=table.id,
            run=run,
            requested_by=requested_by,
            reason=reason,
            workflow_version=table.workflow_version or "",
            priority=priority,
            jobs=[job for job, _ in piece],
        )
        for piece in chunks(jobs, lambda item: item[1])
    ]
    return Decision(events, skipped, len(jobs))


def _why_not(table: TableState, row: RowState) -> str | None:
    if row.status in ACTIVE:
        return f"it is {row.status} already"
    missing = missing_inputs(table.inputs, row.inputs)
    if missing:
        return f"input {missing[0]} is missing" if len(missing) == 1 else f"inputs {', '.join(missing)} are missing"
    return None


def cancel_jobs(jobs: Iterable[ActiveJob], reason: str) -> list[JobCancelled]:
    """Cancel jobs that have not ended, whatever tables they belong to.

    Parameters
    ----------
    jobs
        Each once.
    reason
        One sentence for people, without its full stop.
    """
    ordered = sorted(jobs, key=lambda job: (job.table, job.row, job.revision))
    return [
        JobCancelled(
            table=table,
            jobs=[JobReference(job=job.job, row=job.row, revision=job.revision) for job in piece],
            reason=reason,
        )
        for table, group in groupby(ordered, key=lambda job: job.table)
        for piece in chunks(group)
    ]


def set_mode(table: TableState, mode: Mode) -> list[TriggerSet]:
    """Say what starts a table's runs; nothing happens where it is so already.

    Raises
    ------
    NothingToRunError
        If the table is a plain table or a join.
    """
    if table.kind != "worktable":
        check_runnable(table)
    if table.mode == mode:
        return []
    return [TriggerSet(table=table.id, mode=mode, previous=table.mode)]
