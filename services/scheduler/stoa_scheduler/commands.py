"""Decide: what is known and what is asked for, to events. Nothing here reads or writes anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from stoa_contracts.events.scheduler import JobCancelled, JobQueued, QueuedJob, RowsAwaited, TriggerSet
from stoa_contracts.ids import new_id
from stoa_contracts.keys import job_inputs
from stoa_contracts.types import Digest, JobReference, Mode, Trigger
from stoa_scheduler.domain import (
    ACTIVE,
    MAX_EVENT_ROWS,
    MAX_INPUT_BYTES,
    ActiveJob,
    InputColumn,
    Request,
    RowState,
    TableState,
    chunks,
    job_bytes,
    missing_inputs,
)
from stoa_scheduler.problems import InvalidTriggerError, NothingToRunError
from stoa_scheduler.triggers import check_trigger

__all__ = ["Decision", "Skipped", "await_rows", "cancel_jobs", "check_runnable", "run_rows", "set_triggers"]


@dataclass(frozen=True)
class Skipped:
    """A row that was asked for and is not run."""

    row: int
    reason: str


@dataclass(frozen=True)
class Decision:
    """What happens, and which rows are left out."""

    queued: Sequence[JobQueued] = ()
    waits: Sequence[RowsAwaited] = ()
    skipped: Sequence[Skipped] = ()

    @property
    def events(self) -> list[JobQueued | RowsAwaited]:
        """All that happens."""
        return [*self.queued, *self.waits]

    @property
    def jobs(self) -> int:
        """How many jobs are queued."""
        return sum(len(event.jobs) for event in self.queued)

    @property
    def awaited(self) -> int:
        """How many rows wait."""
        return sum(len(event.rows) for event in self.waits)


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
    request: Request,
    *,
    asked: Iterable[int] = (),
    versions: Mapping[Digest, Sequence[InputColumn]] | None = None,
    make_id: Callable[[], str] = new_id,
) -> Decision:
    """Queue a job for each row, but for those that are queued or running already, or cannot run.

    Rows that are suspected wait: their inputs may be about to change.

    Parameters
    ----------
    table
        The worktable.
    rows
        What is known of the rows, in their order.
    request
        What they are asked for in.
    asked
        Rows that were named; those of them that are not in `rows` do not exist.
    versions
        The inputs of the workflow versions that rows are pinned to.
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
    present = table.workflow_version or ""
    inputs_of = {**(versions or {}), present: table.inputs}
    jobs: dict[Digest, list[tuple[QueuedJob, int]]] = defaultdict(list)
    waiting: list[int] = []
    skipped: list[Skipped] = []
    known = set()
    for row in rows:
        known.add(row.row)
        version = row.pinned or present
        columns = inputs_of.get(version)
        why = _why_not(columns, row)
        if why is not None or columns is None:
            skipped.append(Skipped(row.row, why or ""))
        elif row.suspected:
            waiting.append(row.row)
        else:
            inputs = job_inputs(columns, row.inputs)
            size = job_bytes(inputs)
            if size > MAX_INPUT_BYTES:
                why = f"its inputs take {size:,} bytes, a job may have {MAX_INPUT_BYTES:,}"
                skipped.append(Skipped(row.row, why))
            else:
                job = QueuedJob(job=make_id(), row=row.row, revision=row.revision, inputs=inputs)
                jobs[version].append((job, size))
    skipped.extend(Skipped(row, f"there is no row {row}") for row in sorted(set(asked) - known))
    queued = [
        JobQueued(
            table=table.id,
            run=request.run,
            requested_by=request.requested_by,
            reason=request.reason,
            workflow_version=version,
            priority=request.priority,
            jobs=[job for job, _ in piece],
            force=request.force,
            trigger=request.trigger,
        )
        for version in sorted(jobs, key=lambda version: version != present)
        for piece in chunks(jobs[version], lambda item: item[1])
    ]
    return Decision(queued, await_rows(table.id, waiting, request), skipped)


def await_rows(table: str, rows: Iterable[int], request: Request, *, awaited: bool = True) -> list[RowsAwaited]:
    """Let rows wait until they are settled, or no longer.

    Parameters
    ----------
    table
        Its id.
    rows
        Each once.
    request
        What they were asked for in.
    awaited
        Whether they wait from now on.
    """
    return [
        RowsAwaited(
            table=table,
            run=request.run,
            requested_by=request.requested_by,
            rows=piece,
            awaited=awaited,
            priority=request.priority,
            force=request.force,
            reason=request.reason,
            trigger=request.trigger,
        )
        for piece in chunks(sorted(rows), most=MAX_EVENT_ROWS, size=lambda _: 20)
    ]


def _why_not(columns: Sequence[InputColumn] | None, row: RowState) -> str | None:
    if row.status in ACTIVE:
        return f"it is {row.status} already"
    if row.locked:
        return "it is locked"
    if columns is None:
        return "the workflow version that it is pinned to is not known here"
    if row.suspected:
        return "it waits already until what it depends on is computed" if row.awaited else None
    missing = missing_inputs(columns, row.inputs)
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


def set_triggers(
    table: TableState, mode: Mode, wanted: Sequence[Trigger] | None, present: Sequence[Trigger]
) -> list[TriggerSet]:
    """Say what starts a table's runs; nothing happens where it is so already.

    Parameters
    ----------
    table
        The table.
    mode
        Who starts them: people, every change, or the triggers.
    wanted
        The triggers; None for those that the table has.
    present
        Those.

    Raises
    ------
    NothingToRunError
        If the table is a plain table or a join.
    InvalidTriggerError
        If a trigger can never fire, or a scheduled table has none.
    """
    if table.kind != "worktable":
        check_runnable(table)
    triggers = list(present if wanted is None else wanted)
    for trigger in triggers:
        check_trigger(trigger)
    if mode == "scheduled" and not triggers:
        raise InvalidTriggerError(f"Table {table.name} has no trigger yet; a scheduled table needs one")
    if (table.mode, list(present)) == (mode, triggers):
        return []
    return [TriggerSet(table=table.id, mode=mode, previous=table.mode, triggers=triggers)]
