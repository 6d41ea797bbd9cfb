"""What the tables do when other services tell what happened to jobs.

Nothing of it goes into the read model directly: what counts becomes an event of ours, in the transaction that notes that
the other service's event was applied. So our log alone explains our tables.

The scheduler's and the executor's logs are followed side by side, so a job may have started before we hear that it was
queued. Ids of jobs sort by the time they were made, which tells a job that is news from one that is late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
import structlog

from stoa_chassis.log import Origin
from stoa_chassis.projection import EventStore
from stoa_contracts.envelope import Envelope
from stoa_contracts.events.executor import FileChanged, JobFinished, JobStarted
from stoa_contracts.events.scheduler import JobCancelled, JobQueued
from stoa_contracts.events.tables import OutputsRecorded, RowStatusChanged, StatusChange
from stoa_contracts.types import RowStatus
from stoa_tables.cascade import Recorder
from stoa_tables.changed_files import follow_file
from stoa_tables.commands import upstream_cause
from stoa_tables.content import belongs_to
from stoa_tables.domain import Row, Table, same
from stoa_tables.elements import split
from stoa_tables.store import Parameter, Store

__all__ = ["SOURCES", "JobPolicy", "cancelled", "failed", "queued", "recorded", "started"]

#: The services whose events concern us.
SOURCES = ("scheduler", "executor")

_MAX_CHANGES = 1000


# --- decisions ---------------------------------------------------------------------------------------------------------


def queued(table: Table, rows: Mapping[int, Row], event: JobQueued) -> list[StatusChange]:
    """Decide which rows are queued: those whose present inputs and workflow version the jobs compute."""
    changes = []
    for job in event.jobs:
        row = rows.get(job.row)
        if row is None or row.own_version(table.workflow_version) != event.workflow_version:
            continue
        if row.revision != job.revision or (row.job is not None and job.job <= row.job):
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
    if row.revision != event.revision or row.own_version(table.workflow_version) != event.workflow_version:
        return False
    if row.settled(event.job) or row.superseded(event.job):
        return False
    return row.job != event.job or row.attempt is None or event.attempt >= row.attempt


def recorded(
    table: Table, row: Row | None, event: JobFinished, parameters: Sequence[Parameter] | None = None
) -> OutputsRecorded | None:
    """Decide what outputs to record. Those for other inputs than the row has stay in its history.

    Parameters
    ----------
    table, row
        As they are.
    event
        Tells of the job.
    parameters
        The inputs of the workflow version that ran, to compare what it read with what the row has.
    """
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
        key=event.key,
        files=event.files,
        reused_from=event.reused_from,
        belongs=belongs_to(table, row, event, parameters),
    )


def cancelled(rows: Mapping[int, Row], event: JobCancelled) -> list[StatusChange]:
    """Decide which rows are cancelled: those that wait for these jobs or run in them."""
    changes = []
    for job in event.jobs:
        row = rows.get(job.row)
        if row is None or row.revision != job.revision or row.job != job.job or row.status not in {"queued", "running"}:
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

    def apply(self, connection: sa.Connection, envelope: Envelope) -> None:
        """React to one event of another service."""
        self.apply_all(connection, [envelope])

    def apply_all(self, connection: sa.Connection, envelopes: Sequence[Envelope]) -> None:
        """React to events of another service in their order, at a lower cost than to one after the other."""
        concerned = [envelope for envelope in envelopes if envelope.type in _CONCERNED]
        if concerned:
            batch = _Batch(connection, self._events, self._event_bytes, concerned)
            for envelope, event in zip(concerned, batch.parsed, strict=True):
                batch.react(envelope, event)
            batch.record()


@dataclass
class _Affected:
    """A table, its rows as they are after what was decided, and what was not recorded yet."""

    table: Table
    rows: dict[int, Row | None]
    has_children: bool
    changes: list[StatusChange] = field(default_factory=list)
    outputs: list[tuple[Origin, OutputsRecorded]] = field(default_factory=list)

    def change(self, changes: list[StatusChange]) -> set[int]:
        """Take changes of statuses; gives the rows that were current and no longer are."""
        self.changes += changes
        unsettled = set()
        for change in changes:
            row = self.rows[change.row]
            if row is not None and row.status == "current":
                unsettled.add(row.row)
            self.rows[change.row] = row and row.with_status(change)
        return unsettled


class _Batch:
    """What several events of another service mean, in one transaction.

    Status changes of several rows become one event of ours, where the same request caused them.
    """

    def __init__(
        self, connection: sa.Connection, events: EventStore, event_bytes: int, envelopes: Sequence[Envelope]
    ) -> None:
        self.parsed = [envelope.event() for envelope in envelopes]
        self._connection = connection
        self._events = events
        self._event_bytes = event_bytes
        self._store = Store(connection, events.tables)
        self._concerned: dict[str, set[int]] = {}
        for envelope, event in zip(envelopes, self.parsed, strict=True):
            if isinstance(event, FileChanged):
                continue
            self._concerned.setdefault(envelope.subject, set()).update(_rows_of(event))
        self._affected: dict[str, _Affected | None] = {}
        self._origin: Origin | None = None
        self._changed: tuple[str, set[int]] | None = None
        self._settled: tuple[str, set[int]] | None = None
        self._last: str | None = None

    def react(self, envelope: Envelope, event: Any) -> None:
        """Decide what one event means."""
        origin = Origin(envelope.actor, envelope.correlationid, envelope.id, envelope.traceparent)
        if self._origin and (origin.actor, origin.correlationid) != (self._origin.actor, self._origin.correlationid):
            self.record()
        if any(waiting and waiting[0] != envelope.subject for waiting in (self._changed, self._settled)):
            # What follows from the rows of one table may change the rows of this one.
            self.record()
        self._origin = origin
        if isinstance(event, FileChanged):
            self.record()
            follow_file(Recorder(self._connection, self._events, origin, event_bytes=self._event_bytes), event)
            self._affected.clear()
            return
        affected = self._find(envelope.subject)
        if affected is None:
            logger = structlog.get_logger(__name__)
            logger.debug("a job of a table that is gone", table=envelope.subject, type=envelope.type)
            return
        if affected.outputs and not {outputs.row for _, outputs in affected.outputs}.isdisjoint(_rows_of(event)):
            # A row's events stay in their order.
            self._record(affected)
        if isinstance(event, JobFinished) and event.outcome == "success":
            self._finished(affected, event, origin)
        else:
            self._settle(affected, affected.change(_decide(affected, event)))

    def _settle(self, affected: _Affected, rows: set[int]) -> None:
        """Note rows that were settled and no longer are, or the other way round."""
        if rows and affected.has_children:
            self._settled = self._settled or (affected.table.id, set())
            self._settled[1].update(rows)

    def _find(self, table: str) -> _Affected | None:
        if table not in self._affected:
            found = self._store.table(table)
            if found is None:
                self._affected[table] = None
            else:
                rows: dict[int, Row | None] = dict.fromkeys(self._concerned[table])
                rows |= self._store.rows(table, self._concerned[table])
                self._affected[table] = _Affected(found, rows, bool(self._store.links_from(table)))
        return self._affected[table]

    def _finished(self, affected: _Affected, event: JobFinished, origin: Origin) -> None:
        table, row = affected.table, affected.rows[event.row]
        outputs = recorded(table, row, event, self._parameters(row, event))
        if row is None or outputs is None:
            return
        belongs = bool(outputs.belongs)
        # The outcome of a job that is newer than the row's outputs cannot have been recorded before.
        is_news = belongs and (row.outputs_job is None or event.job > row.outputs_job)
        if not is_news and (
            any(event.job == known.job for _, known in affected.outputs)
            or self._store.has_outcome(table.id, event.row, event.job)
        ):
            return
        affected.outputs.append((origin, outputs))
        if belongs:
            affected.rows[event.row] = after = row.with_outputs(outputs)
            if row.status != after.status:
                self._settle(affected, {event.row})
            if outputs.differs and affected.has_children:
                self._changed = self._changed or (table.id, set())
                self._changed[1].add(event.row)

    def _parameters(self, row: Row | None, event: JobFinished) -> list[Parameter] | None:
        if row is None or row.revision == event.revision or event.key is None:
            return None
        return self._store.parameters(event.workflow_version)

    def record(self) -> None:
        """Record everything that was decided, and what follows from it in other tables."""
        for affected in self._affected.values():
            if affected is not None:
                self._record(affected)
        waiting, self._changed, self._settled = (self._changed, self._settled), None, None
        found = next(filter(None, waiting), None)
        if found is not None and self._origin is not None:
            table, (changed, settled) = found[0], (part[1] if part else set() for part in waiting)
            origin = self._origin
            cause = Origin(origin.actor, origin.correlationid, self._last, origin.traceparent)
            recorder = Recorder(self._connection, self._events, cause, event_bytes=self._event_bytes)
            recorder.touch(table, settled, upstream_cause(table, sorted(settled)))
            recorder.follow(table, changed)
            # Rows of other tables are not what they were.
            self._affected.clear()

    def _record(self, affected: _Affected) -> None:
        table = affected.table.id
        if affected.changes and self._origin is not None:
            changes, affected.changes = affected.changes, []
            events = [
                RowStatusChanged(table=table, changes=changes[start : start + _MAX_CHANGES])
                for start in range(0, len(changes), _MAX_CHANGES)
            ]
            self._last = self._events.record(self._connection, table, events, self._origin)[-1].id
        if affected.outputs:
            outputs, affected.outputs = affected.outputs, []
            origins = [origin for origin, _ in outputs]
            envelopes = self._events.record(self._connection, table, [event for _, event in outputs], origins)
            self._last = envelopes[-1].id


def _decide(affected: _Affected, event: JobQueued | JobCancelled | JobStarted | JobFinished) -> list[StatusChange]:
    if isinstance(event, JobQueued | JobCancelled):
        known = {job.row: row for job in event.jobs if (row := affected.rows[job.row]) is not None}
        return queued(affected.table, known, event) if isinstance(event, JobQueued) else cancelled(known, event)
    row = affected.rows[event.row]
    return started(affected.table, row, event) if isinstance(event, JobStarted) else failed(affected.table, row, event)


def _rows_of(event: Any) -> list[int]:
    return [job.row for job in event.jobs] if isinstance(event, JobQueued | JobCancelled) else [event.row]


_CONCERNED = {event.event_type.type for event in (JobQueued, JobStarted, JobFinished, JobCancelled, FileChanged)}
