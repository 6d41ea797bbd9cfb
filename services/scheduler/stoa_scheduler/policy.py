"""What the scheduler does by itself when something happens elsewhere.

It acts once, when an event is applied for the first time. A rebuild of the read model replays what was done, from the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from stoa_chassis.log import Origin
from stoa_chassis.projection import EventStore
from stoa_contracts.envelope import Envelope
from stoa_contracts.events import executor, tables
from stoa_contracts.ids import new_id
from stoa_scheduler.alarm import fire
from stoa_scheduler.awaiting import let_go, pull_back, record_cancellation, release
from stoa_scheduler.commands import run_rows
from stoa_scheduler.domain import ActiveJob, Request
from stoa_scheduler.store import SchedulerStore
from stoa_scheduler.triggers import watches

__all__ = ["Policy", "queue_stale"]


class Policy:
    """Applies the events of other services, and reacts to them in the same transaction.

    Parameters
    ----------
    events
        Our log and read model.
    run_lease
        How long a job that started may be silent.
    on_start
        Called for every job that starts.
    """

    def __init__(self, events: EventStore, *, run_lease: timedelta, on_start: Callable[[], None]) -> None:
        self._events = events
        self._run_lease = run_lease
        self._on_start = on_start
        self._reactions: Mapping[tuple[str, str], Callable[[sa.Connection, Envelope, Any], None]] = {
            ("tables", "rows-added"): self._rows_added,
            ("tables", "row-edited"): self._row_edited,
            ("tables", "rows-removed"): self._rows_removed,
            ("tables", "rows-restored"): self._rows_restored,
            ("tables", "table-invalidated"): self._table_invalidated,
            ("tables", "rows-confirmed"): self._rows_confirmed,
            ("tables", "rows-accepted"): self._rows_accepted,
            ("tables", "outputs-imported"): self._outputs_imported,
            ("tables", "rows-pinned"): self._rows_pinned,
            ("tables", "row-locked"): self._row_locked,
            ("tables", "workflow-changed"): self._workflow_changed,
            ("tables", "table-deleted"): self._table_deleted,
            ("tables", "outputs-recorded"): self._outputs_recorded,
            ("tables", "row-status-changed"): self._row_status_changed,
            ("executor", "job-started"): self._job_started,
            ("executor", "job-finished"): self._job_finished,
        }

    def apply(self, connection: sa.Connection, envelope: Envelope) -> None:
        """Apply an event and react to it."""
        self._events.observe(connection, envelope)
        reaction = self._reactions.get((envelope.service, envelope.name))
        if reaction is not None:
            reaction(connection, envelope, envelope.event())

    # Where rows are derived, or follow a workflow version, `table-invalidated` says next which of them are stale for sure.

    def _rows_added(self, connection: sa.Connection, envelope: Envelope, event: tables.RowsAdded) -> None:
        if event.cause is None:
            self._run_stale(connection, envelope, event.table, [row.row for row in event.rows])

    def _rows_restored(self, connection: sa.Connection, envelope: Envelope, event: tables.RowsRestored) -> None:
        self._run_stale(connection, envelope, event.table, [row.row for row in event.rows])

    def _row_edited(self, connection: sa.Connection, envelope: Envelope, event: tables.RowEdited) -> None:
        store = SchedulerStore(connection)
        rows = [row.row for row in event.rows]
        if event.cause is None:
            waiting = store.active_jobs(table=event.table, rows=rows, waiting_only=True)
            self._cancel(connection, envelope, waiting, "the row was edited")
            self._run_stale(connection, envelope, event.table, rows)
            return
        # Nobody took back what was asked for, so the rows run with what they have got from upstream.
        current = {row.row for row in event.rows if row.current}
        active = store.active_jobs(table=event.table, rows=rows)
        needless = [job for job in active if job.row in current and job.state == "waiting"]
        self._cancel(connection, envelope, needless, "the row is current")
        pull_back(self._events, connection, [job for job in active if job.row not in current], _caused_by(envelope))

    def _rows_removed(self, connection: sa.Connection, envelope: Envelope, event: tables.RowsRemoved) -> None:
        store = SchedulerStore(connection)
        self._cancel(connection, envelope, store.active_jobs(table=event.table, rows=event.rows), "the row was removed")
        self._let_go(connection, envelope, event.table, event.rows)

    def _table_invalidated(self, connection: sa.Connection, envelope: Envelope, event: tables.TableInvalidated) -> None:
        if event.suspected:
            store = SchedulerStore(connection)
            waiting = store.active_jobs(table=event.table, rows=event.rows, waiting_only=True)
            pull_back(self._events, connection, waiting, _caused_by(envelope))
            return
        self._release(connection, envelope, event.table, event.rows)
        self._run_stale(connection, envelope, event.table, event.rows)
        self._fire(connection, envelope, event)

    def _fire(self, connection: sa.Connection, envelope: Envelope, event: tables.TableInvalidated) -> None:
        store = SchedulerStore(connection)
        caused = _caused_by(envelope)
        for trigger in watches(store.watching(event.table), event):
            origin = replace(caused, actor=store.set_by(trigger.trigger))
            fire(self._events, connection, event.table, trigger, origin)

    def _rows_confirmed(self, connection: sa.Connection, envelope: Envelope, event: tables.RowsConfirmed) -> None:
        self._release(connection, envelope, event.table, event.rows)

    def _rows_accepted(self, connection: sa.Connection, envelope: Envelope, event: tables.RowsAccepted) -> None:
        self._settled(connection, envelope, event.table, [row.row for row in event.rows])

    def _outputs_imported(self, connection: sa.Connection, envelope: Envelope, event: tables.OutputsImported) -> None:
        self._settled(connection, envelope, event.table, [row.row for row in event.rows])

    def _settled(self, connection: sa.Connection, envelope: Envelope, table: str, rows: list[int]) -> None:
        waiting = SchedulerStore(connection).active_jobs(table=table, rows=rows, waiting_only=True)
        self._cancel(connection, envelope, waiting, "the row has outputs without it")
        self._release(connection, envelope, table, rows)

    def _rows_pinned(self, connection: sa.Connection, envelope: Envelope, event: tables.RowsPinned) -> None:
        store = SchedulerStore(connection)
        state = store.find_table(event.table)
        version = event.workflow_version or (state and state.workflow_version)
        active = store.active_jobs(table=event.table, rows=event.rows)
        other = [job for job in active if job.workflow_version != version]
        self._cancel(connection, envelope, other, "the row stays with another workflow version")

    def _row_locked(self, connection: sa.Connection, envelope: Envelope, event: tables.RowLocked) -> None:
        if not event.locked:
            self._run_stale(connection, envelope, event.table, event.rows)
            return
        waiting = SchedulerStore(connection).active_jobs(table=event.table, rows=event.rows, waiting_only=True)
        self._cancel(connection, envelope, waiting, "the row was locked")
        self._let_go(connection, envelope, event.table, event.rows)

    def _workflow_changed(self, connection: sa.Connection, envelope: Envelope, event: tables.WorkflowChanged) -> None:
        outdated = SchedulerStore(connection).active_jobs(table=event.table, but_version=event.workflow_version)
        self._cancel(connection, envelope, outdated, "the table has a new workflow")

    def _table_deleted(self, connection: sa.Connection, envelope: Envelope, event: tables.TableDeleted) -> None:
        active = SchedulerStore(connection).active_jobs(table=event.table)
        self._cancel(connection, envelope, active, "the table was deleted")
        self._let_go(connection, envelope, event.table, None)

    def _outputs_recorded(self, connection: sa.Connection, _: Envelope, event: tables.OutputsRecorded) -> None:
        SchedulerStore(connection).withdraw([event.job])

    def _row_status_changed(self, connection: sa.Connection, _: Envelope, event: tables.RowStatusChanged) -> None:
        failed = [change.job for change in event.changes if change.status == "failed" and change.job is not None]
        SchedulerStore(connection).withdraw(failed)

    def _job_started(self, connection: sa.Connection, envelope: Envelope, event: executor.JobStarted) -> None:
        SchedulerStore(connection).attempt_started(event.job, event.attempt, envelope.time + self._run_lease)
        self._on_start()

    def _job_finished(self, connection: sa.Connection, envelope: Envelope, event: executor.JobFinished) -> None:
        store = SchedulerStore(connection)
        store.attempt_ended(event.job, event.attempt)
        active = [] if event.final else store.active_jobs(jobs=[event.job], waiting_only=True)
        if not active:
            return
        row = store.shown_row(event.job)
        if row is None:
            self._cancel(connection, envelope, active, "the row was edited")
        elif row.suspected:
            pull_back(self._events, connection, active, _caused_by(envelope))

    def _run_stale(self, connection: sa.Connection, envelope: Envelope, table: str, rows: Iterable[int] | None) -> None:
        store = SchedulerStore(connection)
        if not store.is_automatic(table):
            return
        queue_stale(self._events, connection, table, rows, _caused_by(envelope))

    def _release(self, connection: sa.Connection, envelope: Envelope, table: str, rows: Iterable[int] | None) -> None:
        release(self._events, connection, table, rows, _caused_by(envelope))

    def _let_go(self, connection: sa.Connection, envelope: Envelope, table: str, rows: Iterable[int] | None) -> None:
        gone = SchedulerStore(connection).awaited_rows(table=table, rows=rows)
        let_go(self._events, connection, gone, _caused_by(envelope))

    def _cancel(self, connection: sa.Connection, envelope: Envelope, jobs: Iterable[ActiveJob], reason: str) -> None:
        record_cancellation(self._events, connection, jobs, reason, _caused_by(envelope))


def _caused_by(envelope: Envelope) -> Origin:
    return Origin(
        actor=envelope.actor,
        correlationid=envelope.correlationid,
        causationid=envelope.id,
        traceparent=envelope.traceparent,
    )


def queue_stale(
    events: EventStore, connection: sa.Connection, table: str, rows: Iterable[int] | None, origin: Origin
) -> int:
    """Queue what is stale in a table that runs by itself.

    Parameters
    ----------
    events
        Our log and read model.
    connection
        Of the transaction.
    table
        The table's id.
    rows
        Only these rows; null for all.
    origin
        Who caused it, and by what.

    Returns
    -------
    int
        How many jobs were queued.
    """
    store = SchedulerStore(connection)
    state = store.find_table(table)
    if state is None or state.workflow_version is None:
        return 0
    stale = [row for row in store.rows(table, statuses=["stale"], rows=rows) if not row.suspected]
    request = Request(new_id(), origin.actor, "automatic")
    decision = run_rows(state, stale, request, versions=store.versions(table, stale))
    events.record(connection, table, decision.events, origin)
    return decision.jobs
