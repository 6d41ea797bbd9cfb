"""What the tables do when other services tell what happened to jobs.

Nothing of it goes into the read model directly: what counts becomes an event of ours, in the transaction that notes that
the other service's event was applied. So our log alone explains our tables.

The scheduler's and the executor's logs are followed side by side, so a job may have started before we hear that it was
queued. Ids of jobs sort by the time they were made, which tells a job that is news from one that is late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
import structlog

from stoa_chassis.log import Origin
from stoa_chassis.projection import EventStore
from stoa_contracts.envelope import Envelope
from stoa_contracts.events.executor import JobFinished, JobStarted
from stoa_contracts.events.scheduler import JobCancelled, JobQueued
from stoa_contracts.events.tables import OutputsRecorded, RowStatusChanged, StatusChange
from stoa_contracts.types import RowStatus
from stoa_tables.cascade import Recorder
from stoa_tables.domain import Row, Table, same
from stoa_tables.elements import split

__all__ = ["SOURCES", "JobPolicy", "cancelled", "failed", "queued", "recorded", "started"]

#: The services whose events concern us.
SOURCES = ("scheduler", "executor")

_MAX_CHANGES = 1000


# --- decisions ---------------------------------------------------------------------------------------------------------


def queued(table: Table, rows: Mapping[int, Row], event: JobQueued) -> list[StatusChange]:
    """Decide which rows are queued: those whose present inputs and workflow version the jobs compute."""
    if event.workflow_version != table.workflow_version:
        return []
    changes = []
    for job in event.jobs:
        row = rows.get(job.row)
        if row is None or row.revision != job.revision or (row.job is not None and job.job <= row.job):
            continue
        changes.append(StatusChange(row=job.row, revision=job.revision, status="queued", job=job.job))
    return changes


def started(table: Table, row: Row | None, event: JobStarted) -> list[StatusChange]:
    """Decide whether a row runs."""
    if row is None or not _concerns(table, row, event):
        return []
    if row.job == event.job and row.status == "running" and row.attempt == event.attempt:
        return []
    return [StatusChange(row=row.row, revision=row.revision, status="running", job=event.job, attempt=event.attempt)]


def failed(table: Table, row: Row | None, event: JobFinished) -> list[StatusChange]:
    """Decide what an attempt without outputs means for its row."""
    if row is None or not _concerns(table, row, event):
        return []
    status: RowStatus = "cancelled" if event.outcome == "cancelled" else "failed" if event.final else "queued"
    return [
        StatusChange(
            row=row.row, revision=row.revision, status=status, job=event.job, attempt=event.attempt, reason=event.error
        )
    ]


def _concerns(table: Table, row: Row, event: JobStarted | JobFinished) -> bool:
    """Tell whether an attempt has something new to say about its row as it is now."""
    if row.revision != event.revision or table.workflow_version != event.workflow_version:
        return False
    if row.settled(event.job) or row.superseded(event.job):
        return False
    return row.job != event.job or row.attempt is None or event.attempt >= row.attempt


def recorded(table: Table, row: Row | None, event: JobFinished) -> OutputsRecorded | None:
    """Decide what outputs to record. Those for older inputs stay in the row's history."""
    if row is None or event.outputs is None:
        return None
    elements, _ = split(event.outputs, table.columns)
    return OutputsRecorded(
        table=table.id,
        row=row.row,
        revision=event.revision,
        workflow_version=event.workflow_version,
        job=event.job,
        attempt=event.attempt,
        outputs=event.outputs,
        elements=elements,
        differs=row.outputs is None or not same(row.outputs, event.outputs),
        started=event.started,
        finished=event.finished,
        usage=event.usage,
    )


def cancelled(rows: Mapping[int, Row], event: JobCancelled) -> list[StatusChange]:
    """Decide which rows are cancelled: those that wait for these jobs or run in them."""
    changes = []
    for job in event.jobs:
        row = rows.get(job.row)
        if row is None or row.revision != job.revision or row.settled(job.job) or row.superseded(job.job):
            continue
        if row.job == job.job and row.status not in {"queued", "running"}:
            continue
        changes.append(
            StatusChange(row=job.row, revision=job.revision, status="cancelled", job=job.job, reason=event.reason)
        )
    return changes


# --- in the transaction ------------------------------------------------------------------------------------------------


class JobPolicy:
    """Applies the events of the scheduler and the executor.

    Parameters
    ----------
    events
        The log and the read model of the tables.
    event_bytes
        About how large an event may become.
    """

    def __init__(self, events: EventStore, *, event_bytes: int) -> None:
        self._events = events
        self._event_bytes = event_bytes
        self._react: dict[type, Callable[[Recorder, Table, Any], None]] = {
            JobQueued: self._queued,
            JobStarted: self._started,
            JobFinished: self._finished,
            JobCancelled: self._cancelled,
        }

    def apply(self, connection: sa.Connection, envelope: Envelope) -> None:
        """React to one event of another service."""
        if envelope.type not in _CONCERNED:
            return
        event = envelope.event()
        origin = Origin(envelope.actor, envelope.correlationid, envelope.id, envelope.traceparent)
        recorder = Recorder(connection, self._events, origin, event_bytes=self._event_bytes)
        table = recorder.store.table(envelope.subject)
        if table is None:
            structlog.get_logger(__name__).debug(
                "a job of a table that is gone", table=envelope.subject, type=envelope.type
            )
            return
        self._react[type(event)](recorder, table, event)

    def _queued(self, recorder: Recorder, table: Table, event: JobQueued) -> None:
        rows = recorder.store.rows(table.id, [job.row for job in event.jobs])
        self._change(recorder, table, queued(table, rows, event))

    def _cancelled(self, recorder: Recorder, table: Table, event: JobCancelled) -> None:
        rows = recorder.store.rows(table.id, [job.row for job in event.jobs])
        self._change(recorder, table, cancelled(rows, event))

    def _started(self, recorder: Recorder, table: Table, event: JobStarted) -> None:
        self._change(recorder, table, started(table, recorder.store.row(table.id, event.row), event))

    def _finished(self, recorder: Recorder, table: Table, event: JobFinished) -> None:
        row = recorder.store.row(table.id, event.row)
        if event.outcome != "success":
            self._change(recorder, table, failed(table, row, event))
            return
        outputs = recorded(table, row, event)
        if outputs is None or recorder.store.has_outcome(table.id, event.row, event.job):
            return
        recorder.record(table.id, [outputs])
        belongs = (
            row is not None and row.revision == event.revision and table.workflow_version == event.workflow_version
        )
        if belongs and outputs.differs:
            recorder.follow(table.id, [event.row])

    @staticmethod
    def _change(recorder: Recorder, table: Table, changes: list[StatusChange]) -> None:
        recorder.record(
            table.id,
            [
                RowStatusChanged(table=table.id, changes=changes[start : start + _MAX_CHANGES])
                for start in range(0, len(changes), _MAX_CHANGES)
            ],
        )


_CONCERNED = {event.event_type.type for event in (JobQueued, JobStarted, JobFinished, JobCancelled)}
