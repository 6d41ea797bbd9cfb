"""Evolve: events to the read model. It depends on nothing but events and the read model, so a rebuild gives the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from stoa_chassis.bulk import insert_many
from stoa_chassis.projection import ReadModel
from stoa_contracts.envelope import Envelope
from stoa_contracts.events import executor, scheduler, tables
from stoa_scheduler.domain import ACTIVE, Attempt, input_columns, outcome_state, retry_time
from stoa_scheduler.models import read_model
from stoa_scheduler.settling import AWAITING, SETTLING
from stoa_scheduler.step import UNENDED, Statements, Step, pieces
from stoa_scheduler.trigger_projection import TRIGGERS

__all__ = ["SchedulerProjection"]


class SchedulerProjection:
    """Keeps tables, rows, runs and jobs, and how many jobs wait.

    A row's status decides whether it is run. An edit makes it stale, our own events queue and cancel it, the executor's
    events start and fail it, and only `outputs-recorded` makes it current: that event alone stands in one order with the
    edits.
    """

    name = "scheduler"
    metadata = read_model
    version = 2

    def __init__(self) -> None:
        self._statements: dict[sa.Table, Statements] = {}

    def apply(self, connection: sa.Connection, tables: ReadModel, envelope: Envelope) -> None:
        """Change the read model by one event."""
        handler = _HANDLERS.get((envelope.service, envelope.name))
        if handler is None:
            return
        statements = self._statements.get(tables["job"])
        if statements is None:
            statements = self._statements[tables["job"]] = Statements(tables)
        handler(Step(connection, statements, envelope), envelope.event())


def _table_created(step: Step, event: tables.TableCreated) -> None:
    step.execute(
        sa.insert(step.s.table),
        {
            "id": event.table,
            "name": event.name,
            "kind": event.kind,
            "workflow_version": None,
            "inputs": [],
            "mode": "manual",
            "deleted": False,
            "project": event.project,
        },
    )
    if event.kind == "worktable":
        none = dict.fromkeys(("stale", "queued", "running", "current", "failed", "cancelled", "awaited"), 0)
        step.execute(sa.insert(step.s.progress), {"table_id": event.table, "busy_since": None, **none})


def _table_renamed(step: Step, event: tables.TableRenamed) -> None:
    step.execute(sa.update(step.s.table).where(step.s.table.c.id == event.table).values(name=event.name))


def _table_deleted(step: Step, event: tables.TableDeleted) -> None:
    step.execute(sa.update(step.s.table).where(step.s.table.c.id == event.table).values(deleted=True))
    with step.counted(event.table, None):
        step.execute(sa.delete(step.s.row).where(step.s.row.c.table_id == event.table))
    step.execute(sa.delete(step.s.trigger).where(step.s.trigger.c.table_id == event.table))


def _workflow_changed(step: Step, event: tables.WorkflowChanged) -> None:
    inputs = [column.model_dump(mode="json") for column in input_columns(event.columns)]
    table, row = step.s.table, step.s.row
    step.execute(
        sa.update(table).where(table.c.id == event.table).values(workflow_version=event.workflow_version, inputs=inputs)
    )
    known = step.s.workflow
    same = (known.c.table_id == event.table, known.c.version == event.workflow_version)
    if not step.execute(sa.update(known).where(*same).values(inputs=inputs)).rowcount:
        new = {"table_id": event.table, "version": event.workflow_version, "inputs": inputs}
        step.execute(sa.insert(known), new)
    if event.workflow_version != event.previous_version:
        # Whoever goes back to an earlier workflow still has that workflow's outputs.
        belongs = sa.and_(row.c.output_version == event.workflow_version, row.c.suspected.is_(False))
        status = sa.case((belongs, "current"), else_="stale")
        with step.counted(event.table, None):
            following = (row.c.table_id == event.table, row.c.pinned.is_(None))
            step.execute(sa.update(row).where(*following).values(status=status, job=None))


def _rows_added(step: Step, event: tables.RowsAdded) -> None:
    if not event.rows or not step.is_worktable(event.table):
        return
    rows = [
        {
            "table_id": event.table,
            "row": row.row,
            "revision": 1,
            "inputs": row.inputs,
            "status": "stale",
            "job": None,
            "output_version": None,
            "suspected": False,
            "pinned": None,
            "locked": False,
        }
        for row in event.rows
    ]
    insert_many(step.connection, step.s.add_rows, rows)
    step.change_progress(event.table, {"stale": len(rows)})


def _row_edited(step: Step, event: tables.RowEdited) -> None:
    row = step.s.row
    for piece in pieces(event.rows):
        statement = sa.select(row.c.row, row.c.inputs).where(
            row.c.table_id == event.table, row.c.row.in_([edited.row for edited in piece])
        )
        known: dict[int, dict[str, Any]] = {found.row: found.inputs for found in step.execute(statement)}
        changes = [
            {
                "b_table": event.table,
                "b_row": edited.row,
                "b_revision": edited.revision,
                "b_inputs": {**known[edited.row], **edited.changes},
                "b_status": "current" if edited.current else "stale",
            }
            for edited in piece
            if edited.row in known
        ]
        if changes:
            with step.counted(event.table, list(known)):
                step.execute(step.s.edit_row, changes)


def _rows_removed(step: Step, event: tables.RowsRemoved) -> None:
    if event.rows:
        with step.counted(event.table, event.rows):
            step.execute(step.s.remove_row, [{"b_table": event.table, "b_row": row} for row in event.rows])


def _outputs_recorded(step: Step, event: tables.OutputsRecorded) -> None:
    job = step.find(event.job)
    if job is not None and job.state in UNENDED:
        # The tables service heard of the end before we did. Were the job still to end here, its row could be queued twice.
        usage = event.usage.model_dump(mode="json")
        end = {"outcome": "success", "attempt": event.attempt, "started": event.started, "usage": usage}
        step.end(job, "succeeded", finished=event.finished, reused_from=event.reused_from, **end)
    row = step.find_row(event.table, event.row)
    if row is None or (row.status in ACTIVE and row.job != event.job):
        return
    belongs = event.belongs
    if belongs is None:
        version = row.pinned or row.workflow_version
        belongs = (row.revision, version) == (event.revision, event.workflow_version)
    if belongs:
        status = "stale" if row.suspected else "current"
        values = {"b_status": status, "b_version": event.workflow_version}
        step.execute(step.s.row_computed, {"b_table": event.table, "b_row": event.row, **values})
        step.change_progress(event.table, {row.status: -1, status: 1} if row.status != status else {})


def _row_status_changed(step: Step, event: tables.RowStatusChanged) -> None:
    for change in event.changes:
        # The other statuses follow from our own events and the executor's. This one may come before the executor's.
        if change.status == "failed" and change.job is not None:
            job = step.find(change.job)
            if job is not None and job.state in UNENDED:
                step.end(job, "failed", outcome="permanentFail", error=change.reason, finished=step.envelope.time)
                step.row_status(job, "failed")


def _job_queued(step: Step, event: scheduler.JobQueued) -> None:
    if not step.change_run(event.run, jobs=len(event.jobs)):
        new = {
            "id": event.run,
            "table_id": event.table,
            "workflow_version": event.workflow_version,
            "requested_by": event.requested_by,
            "reason": event.reason,
            "priority": event.priority,
            "jobs": len(event.jobs),
            "queued": step.envelope.time,
            "force": event.force,
            "trigger": event.trigger,
            "awaited": 0,
            "reused": 0,
        }
        step.execute(sa.insert(step.s.run), new)
    if not event.jobs:
        return
    envelope = step.envelope
    jobs: list[dict[str, Any]] = [
        {
            "id": job.job,
            "run": event.run,
            "table_id": event.table,
            "row": job.row,
            "revision": job.revision,
            "workflow_version": event.workflow_version,
            "inputs": job.inputs,
            "state": "waiting",
            "attempt": 1,
            "priority": event.priority,
            "requested_by": event.requested_by,
            "correlationid": envelope.correlationid,
            "causationid": envelope.id,
            "traceparent": envelope.traceparent,
            "queued": envelope.time,
            "force": event.force,
        }
        for job in event.jobs
    ]
    step.execute(sa.insert(step.s.job), jobs)
    step.count(event.table, event.requested_by, event.priority, len(jobs))
    step.execute(step.s.begin_work, {"b_table": event.table, "b_time": envelope.time})
    numbers = [job.row for job in event.jobs]
    step.no_longer_awaited(event.table, numbers)
    rows = [
        {"b_table": event.table, "b_row": job.row, "b_revision": job.revision, "b_job": job.job} for job in event.jobs
    ]
    with step.counted(event.table, numbers):
        step.execute(step.s.queue_row, rows)


def _job_cancelled(step: Step, event: scheduler.JobCancelled) -> None:
    job = step.s.job
    fewer: Counter[tuple[str, int]] = Counter()
    for piece in pieces(event.jobs):
        statement = sa.select(job.c.id, job.c.row, job.c.state, job.c.requested_by, job.c.priority).where(
            job.c.id.in_([reference.job for reference in piece])
        )
        # Were the state a condition, SQLite would rather walk all that waits than look up 500 jobs.
        found = [item for item in step.execute(statement) if item.state in UNENDED]
        if not found:
            continue
        step.execute(
            sa.update(job)
            .where(job.c.id.in_([item.id for item in found]))
            .values(
                state="cancelled", outcome="cancelled", error=event.reason, not_before=None, finished=step.envelope.time
            )
        )
        c = step.s.row.c
        rows = [item.row for item in found]
        of_jobs = (c.row.in_(rows), c.job.in_([item.id for item in found]))
        with step.counted(event.table, rows):
            step.execute(sa.update(step.s.row).where(c.table_id == event.table, *of_jobs).values(status="cancelled"))
        fewer.update((item.requested_by, item.priority) for item in found if item.state == "waiting")
    for (person, priority), number in sorted(fewer.items()):
        step.count(event.table, person, priority, -number)


def _job_started(step: Step, event: executor.JobStarted) -> None:
    job = step.find(event.job)
    if job is None or job.state not in UNENDED or event.attempt < job.attempt:
        return
    step.execute(
        step.s.start_job,
        {"b_job": event.job, "b_attempt": event.attempt, "b_host": event.host, "b_started": event.started},
    )
    if job.state == "waiting":
        step.count(job.table_id, job.requested_by, job.priority, -1)
        step.row_status(job, "running")


def _job_finished(step: Step, event: executor.JobFinished) -> None:
    job = step.find(event.job)
    if job is None or event.attempt < job.attempt:
        return
    log = event.log.model_dump(mode="json") if event.log else None
    usage = event.usage.model_dump(mode="json")
    cost = {"host": event.host, "exit_code": event.exit_code, "usage": usage, "log": log, "started": event.started}
    if job.state not in UNENDED:
        # Whoever said first how it ended is right: it was cancelled, or the tables service was faster. But only the
        # executor knows the circumstances.
        if job.host is None or job.state == "cancelled":
            if job.state == "failed":
                cost |= {"attempt": event.attempt, "outcome": event.outcome, "finished": event.finished}
            step.update_job(event.job, **cost)
    elif event.final:
        state = outcome_state(event.outcome)
        end = {"attempt": event.attempt, "outcome": event.outcome, "error": event.error, **cost}
        step.end(job, state, finished=event.finished, reused_from=event.reused_from, **end)
        if state != "succeeded":
            step.row_status(job, state)
    else:
        _try_again(step, job, event)


def _try_again(step: Step, job: Any, event: executor.JobFinished) -> None:
    next_attempt = event.attempt + 1
    ended = Attempt(
        attempt=event.attempt,
        outcome=event.outcome,
        exit_code=event.exit_code,
        error=event.error,
        host=event.host,
        started=event.started,
        finished=event.finished,
        usage=event.usage,
        log=event.log,
    )
    values = {
        "state": "waiting",
        "attempt": next_attempt,
        "not_before": retry_time(event.job, next_attempt, event.finished),
        "host": None,
        "started": None,
        "earlier": [*(job.earlier or ()), ended.model_dump(mode="json")],
    }
    step.update_job(event.job, **values)
    step.row_status(job, "queued")
    if job.state == "running":
        step.count(job.table_id, job.requested_by, job.priority, 1)


_HANDLERS: Mapping[tuple[str, str], Callable[[Step, Any], None]] = {
    ("tables", "table-created"): _table_created,
    ("tables", "table-renamed"): _table_renamed,
    ("tables", "table-deleted"): _table_deleted,
    ("tables", "workflow-changed"): _workflow_changed,
    ("tables", "rows-added"): _rows_added,
    ("tables", "row-edited"): _row_edited,
    ("tables", "rows-removed"): _rows_removed,
    ("tables", "outputs-recorded"): _outputs_recorded,
    ("tables", "row-status-changed"): _row_status_changed,
    ("scheduler", "job-queued"): _job_queued,
    ("scheduler", "job-cancelled"): _job_cancelled,
    ("executor", "job-started"): _job_started,
    ("executor", "job-finished"): _job_finished,
    **SETTLING,
    **AWAITING,
    **TRIGGERS,
}
