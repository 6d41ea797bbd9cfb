"""Evolve: events to the read model. It depends on nothing but events and the read model, so a rebuild gives the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from stoa_chassis.projection import ReadModel
from stoa_contracts.envelope import Envelope
from stoa_contracts.events import executor, scheduler, tables
from stoa_scheduler.domain import ACTIVE, Attempt, input_columns, outcome_state, retry_time
from stoa_scheduler.models import read_model

__all__ = ["SchedulerProjection"]

#: The states of a job that has not ended, as they stand in the read model.
_UNENDED = ("waiting", "running")

_MANY = 500

_T = TypeVar("_T")


class SchedulerProjection:
    """Keeps tables, rows, runs and jobs, and how many jobs wait.

    A row's status decides whether it is run. An edit makes it stale, our own events queue and cancel it, the executor's
    events start and fail it, and only `outputs-recorded` makes it current: that event alone stands in one order with the
    edits.
    """

    name = "scheduler"
    metadata = read_model
    version = 1

    def __init__(self) -> None:
        self._statements: dict[sa.Table, _Statements] = {}

    def apply(self, connection: sa.Connection, tables: ReadModel, envelope: Envelope) -> None:
        """Change the read model by one event."""
        handler = _HANDLERS.get((envelope.service, envelope.name))
        if handler is None:
            return
        statements = self._statements.get(tables["job"])
        if statements is None:
            statements = self._statements[tables["job"]] = _Statements(tables)
        handler(_Step(connection, statements, envelope), envelope.event())


class _Statements:
    """The statements of the read model's tables, written once: they run for every job."""

    def __init__(self, model: ReadModel) -> None:
        self.table = model["table_state"]
        self.row = model["row_state"]
        self.run = model["run"]
        self.job = job = model["job"]
        self.backlog = backlog = model["backlog"]
        p = sa.bindparam
        row = self.row
        group = (
            backlog.c.table_id == p("b_table"),
            backlog.c.requested_by == p("b_person"),
            backlog.c.priority == p("b_priority"),
        )
        self.find_job = sa.select(
            job.c.id,
            job.c.table_id,
            job.c.row,
            job.c.state,
            job.c.attempt,
            job.c.host,
            job.c.requested_by,
            job.c.priority,
            job.c.earlier,
        ).where(job.c.id == p("b_job"))
        self.change_backlog = sa.update(backlog).where(*group).values(waiting=backlog.c.waiting + p("b_number"))
        self.start_job = (
            sa.update(job)
            .where(job.c.id == p("b_job"))
            .values(state="running", attempt=p("b_attempt"), host=p("b_host"), started=p("b_started"), not_before=None)
        )
        # One comparison each: the parameters of IN are put in when a statement runs, which one for many rows cannot.
        inactive = sa.and_(*(row.c.status != status for status in sorted(ACTIVE)))
        of_job = (row.c.table_id == p("b_table"), row.c.row == p("b_row"), row.c.job == p("b_job"))
        self.row_status = sa.update(row).where(*of_job).values(status=p("b_status"))
        self.queue_row = (
            sa.update(row)
            .where(row.c.table_id == p("b_table"), row.c.row == p("b_row"), row.c.revision == p("b_revision"))
            .values(status="queued", job=p("b_job"))
        )
        version = sa.select(self.table.c.workflow_version).where(self.table.c.id == p("b_table")).scalar_subquery()
        self.row_current = (
            sa.update(row)
            .where(
                row.c.table_id == p("b_table"),
                row.c.row == p("b_row"),
                row.c.revision == p("b_revision"),
                version == p("b_version"),
                sa.or_(row.c.job == p("b_job"), inactive),
            )
            .values(status="current", output_version=p("b_version"))
        )
        self.edit_row = (
            sa.update(row)
            .where(row.c.table_id == p("b_table"), row.c.row == p("b_row"))
            .values(
                revision=p("b_revision"),
                inputs=p("b_inputs", type_=sa.JSON),
                status=p("b_status"),
                job=None,
                output_version=None,
            )
        )
        self.remove_row = sa.delete(row).where(row.c.table_id == p("b_table"), row.c.row == p("b_row"))
        self.invalidate_row = (
            sa.update(row)
            .where(row.c.table_id == p("b_table"), row.c.row == p("b_row"), inactive)
            .values(status="stale", job=None)
        )


class _Step:
    """One event on its way into the read model."""

    def __init__(self, connection: sa.Connection, statements: _Statements, envelope: Envelope) -> None:
        self.connection = connection
        self.s = statements
        self.envelope = envelope

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        return self.connection.execute(statement, parameters)

    def is_worktable(self, table: str) -> bool:
        c = self.s.table.c
        return self.execute(sa.select(c.kind).where(c.id == table)).scalar_one_or_none() == "worktable"

    def count(self, table: str, person: str, priority: int, number: int) -> None:
        """Change how many jobs wait."""
        group = {"b_table": table, "b_person": person, "b_priority": priority}
        changed = self.execute(self.s.change_backlog, {**group, "b_number": number}).rowcount
        if not changed:
            new = {"table_id": table, "requested_by": person, "priority": priority, "waiting": number}
            self.execute(sa.insert(self.s.backlog), new)

    def find(self, job: str) -> Any:
        """Find what a job is and how far it got."""
        return self.execute(self.s.find_job, {"b_job": job}).first()

    def end(self, job: Any, state: str, **values: Any) -> None:
        """End a job that has not ended."""
        self.execute(
            sa.update(self.s.job).where(self.s.job.c.id == job.id).values(state=state, not_before=None, **values)
        )
        if job.state == "waiting":
            self.count(job.table_id, job.requested_by, job.priority, -1)

    def row_status(self, job: Any, status: str) -> None:
        """Change the status of the row that shows a job."""
        self.execute(
            self.s.row_status, {"b_table": job.table_id, "b_row": job.row, "b_job": job.id, "b_status": status}
        )


def _table_created(step: _Step, event: tables.TableCreated) -> None:
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
        },
    )


def _table_renamed(step: _Step, event: tables.TableRenamed) -> None:
    step.execute(sa.update(step.s.table).where(step.s.table.c.id == event.table).values(name=event.name))


def _table_deleted(step: _Step, event: tables.TableDeleted) -> None:
    step.execute(sa.update(step.s.table).where(step.s.table.c.id == event.table).values(deleted=True))
    step.execute(sa.delete(step.s.row).where(step.s.row.c.table_id == event.table))


def _workflow_changed(step: _Step, event: tables.WorkflowChanged) -> None:
    inputs = [column.model_dump(mode="json") for column in input_columns(event.columns)]
    table, row = step.s.table, step.s.row
    step.execute(
        sa.update(table).where(table.c.id == event.table).values(workflow_version=event.workflow_version, inputs=inputs)
    )
    if event.workflow_version != event.previous_version:
        # Whoever goes back to an earlier workflow still has that workflow's outputs.
        status = sa.case((row.c.output_version == event.workflow_version, "current"), else_="stale")
        step.execute(sa.update(row).where(row.c.table_id == event.table).values(status=status, job=None))


def _rows_added(step: _Step, event: tables.RowsAdded) -> None:
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
        }
        for row in event.rows
    ]
    step.execute(sa.insert(step.s.row), rows)


def _row_edited(step: _Step, event: tables.RowEdited) -> None:
    row = step.s.row
    for piece in _pieces(event.rows):
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
            step.execute(step.s.edit_row, changes)


def _rows_removed(step: _Step, event: tables.RowsRemoved) -> None:
    if event.rows:
        step.execute(step.s.remove_row, [{"b_table": event.table, "b_row": row} for row in event.rows])


def _table_invalidated(step: _Step, event: tables.TableInvalidated) -> None:
    if event.suspected:
        return
    row = step.s.row
    # A row that is queued or running computes its present inputs already.
    if event.rows is None:
        where = (row.c.table_id == event.table, row.c.status.not_in(ACTIVE))
        step.execute(sa.update(row).where(*where).values(status="stale", job=None))
    elif event.rows:
        step.execute(step.s.invalidate_row, [{"b_table": event.table, "b_row": number} for number in event.rows])


def _outputs_recorded(step: _Step, event: tables.OutputsRecorded) -> None:
    job = step.find(event.job)
    if job is not None and job.state in _UNENDED:
        # The tables service heard of the end before we did. Were the job still to end here, its row could be queued twice.
        usage = event.usage.model_dump(mode="json")
        end = {"outcome": "success", "attempt": event.attempt, "started": event.started, "usage": usage}
        step.end(job, "succeeded", finished=event.finished, **end)
    step.execute(
        step.s.row_current,
        {
            "b_table": event.table,
            "b_row": event.row,
            "b_revision": event.revision,
            "b_version": event.workflow_version,
            "b_job": event.job,
        },
    )


def _row_status_changed(step: _Step, event: tables.RowStatusChanged) -> None:
    for change in event.changes:
        # The other statuses follow from our own events and the executor's. This one may come before the executor's.
        if change.status == "failed" and change.job is not None:
            job = step.find(change.job)
            if job is not None and job.state in _UNENDED:
                step.end(job, "failed", outcome="permanentFail", error=change.reason, finished=step.envelope.time)
                step.row_status(job, "failed")


def _job_queued(step: _Step, event: scheduler.JobQueued) -> None:
    run = step.s.run
    known = step.execute(sa.update(run).where(run.c.id == event.run).values(jobs=run.c.jobs + len(event.jobs))).rowcount
    if not known:
        new = {
            "id": event.run,
            "table_id": event.table,
            "workflow_version": event.workflow_version,
            "requested_by": event.requested_by,
            "reason": event.reason,
            "priority": event.priority,
            "jobs": len(event.jobs),
            "queued": step.envelope.time,
        }
        step.execute(sa.insert(run), new)
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
        }
        for job in event.jobs
    ]
    step.execute(sa.insert(step.s.job), jobs)
    step.count(event.table, event.requested_by, event.priority, len(jobs))
    rows = [
        {"b_table": event.table, "b_row": job.row, "b_revision": job.revision, "b_job": job.job} for job in event.jobs
    ]
    step.execute(step.s.queue_row, rows)


def _job_cancelled(step: _Step, event: scheduler.JobCancelled) -> None:
    job = step.s.job
    fewer: Counter[tuple[str, int]] = Counter()
    for piece in _pieces(event.jobs):
        statement = sa.select(job.c.id, job.c.row, job.c.state, job.c.requested_by, job.c.priority).where(
            job.c.id.in_([reference.job for reference in piece])
        )
        # Were the state a condition, SQLite would rather walk all that waits than look up 500 jobs.
        found = [item for item in step.execute(statement) if item.state in _UNENDED]
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
        of_jobs = (c.row.in_([item.row for item in found]), c.job.in_([item.id for item in found]))
        step.execute(sa.update(step.s.row).where(c.table_id == event.table, *of_jobs).values(status="cancelled"))
        fewer.update((item.requested_by, item.priority) for item in found if item.state == "waiting")
    for (person, priority), number in sorted(fewer.items()):
        step.count(event.table, person, priority, -number)


def _trigger_set(step: _Step, event: scheduler.TriggerSet) -> None:
    step.execute(sa.update(step.s.table).where(step.s.table.c.id == event.table).values(mode=event.mode))


def _job_started(step: _Step, event: executor.JobStarted) -> None:
    job = step.find(event.job)
    if job is None or job.state not in _UNENDED or event.attempt < job.attempt:
        return
    step.execute(
        step.s.start_job,
        {"b_job": event.job, "b_attempt": event.attempt, "b_host": event.host, "b_started": event.started},
    )
    if job.state == "waiting":
        step.count(job.table_id, job.requested_by, job.priority, -1)
        step.row_status(job, "running")


def _job_finished(step: _Step, event: executor.JobFinished) -> None:
    job = step.find(event.job)
    if job is None or event.attempt < job.attempt:
        return
    log = event.log.model_dump(mode="json") if event.log else None
    usage = event.usage.model_dump(mode="json")
    cost = {"host": event.host, "exit_code": event.exit_code, "usage": usage, "log": log, "started": event.started}
    if job.state not in _UNENDED:
        # Whoever said first how it ended is right: it was cancelled, or the tables service was faster. But only the
        # executor knows the circumstances.
        if job.host is None or job.state == "cancelled":
            if job.state == "failed":
                cost |= {"attempt": event.attempt, "outcome": event.outcome, "finished": event.finished}
            step.execute(sa.update(step.s.job).where(step.s.job.c.id == event.job).values(**cost))
    elif event.final:
        state = outcome_state(event.outcome)
        end = {"attempt": event.attempt, "outcome": event.outcome, "error": event.error, **cost}
        step.end(job, state, finished=event.finished, **end)
        if state != "succeeded":
            step.row_status(job, state)
    else:
        _try_again(step, job, event)


def _try_again(step: _Step, job: Any, event: executor.JobFinished) -> None:
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
    step.execute(sa.update(step.s.job).where(step.s.job.c.id == event.job).values(**values))
    step.row_status(job, "queued")
    if job.state == "running":
        step.count(job.table_id, job.requested_by, job.priority, 1)


def _pieces(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for first in range(0, len(items), _MANY):
        yield items[first : first + _MANY]


_HANDLERS: Mapping[tuple[str, str], Callable[[_Step, Any], None]] = {
    ("tables", "table-created"): _table_created,
    ("tables", "table-renamed"): _table_renamed,
    ("tables", "table-deleted"): _table_deleted,
    ("tables", "workflow-changed"): _workflow_changed,
    ("tables", "rows-added"): _rows_added,
    ("tables", "row-edited"): _row_edited,
    ("tables", "rows-removed"): _rows_removed,
    ("tables", "table-invalidated"): _table_invalidated,
    ("tables", "outputs-recorded"): _outputs_recorded,
    ("tables", "row-status-changed"): _row_status_changed,
    ("scheduler", "job-queued"): _job_queued,
    ("scheduler", "job-cancelled"): _job_cancelled,
    ("scheduler", "trigger-set"): _trigger_set,
    ("executor", "job-started"): _job_started,
    ("executor", "job-finished"): _job_finished,
}
