"""SQL to values and back; the transactions belong to the callers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from stoa_contracts.types import RowStatus
from stoa_scheduler.domain import ActiveJob, Attempt, InputColumn, JobState, RowState, TableState
from stoa_scheduler.models import backlog, dispatch, job, row_state, run, table_state
from stoa_scheduler.problems import NotFoundError
from stoa_scheduler.views import JobDetail, JobList, JobSummary, Queue, QueueCounts, Run

__all__ = ["SchedulerStore"]

_MANY = 500
_UNENDED = ("waiting", "running")

#: The state that people see: what is on the bus and has not started is `dispatched`.
_seen_state = sa.case(
    (sa.and_(job.c.state == "waiting", dispatch.c.job.is_not(None)), "dispatched"), else_=job.c.state
).label("seen_state")

_with_dispatch = job.outerjoin(dispatch, dispatch.c.job == job.c.id)

_summary = (
    job.c.id.label("job"),
    job.c.run,
    job.c.table_id.label("table"),
    job.c.row,
    job.c.revision,
    job.c.workflow_version,
    _seen_state,
    job.c.attempt,
    job.c.priority,
    job.c.requested_by,
    job.c.queued,
    job.c.not_before,
    job.c.started,
    job.c.finished,
    job.c.outcome,
    job.c.exit_code,
    job.c.error,
    job.c.host,
)

# Written once, because they run for every job.
_of_attempt = (dispatch.c.job == sa.bindparam("b_job"), dispatch.c.attempt <= sa.bindparam("b_attempt"))
_attempt_started = sa.update(dispatch).where(*_of_attempt).values(started=True, due=sa.bindparam("b_due"))
_attempt_ended = sa.delete(dispatch).where(*_of_attempt)
_withdraw = sa.delete(dispatch).where(dispatch.c.job.in_(sa.bindparam("b_jobs", expanding=True)))


class SchedulerStore:
    """What the scheduler reads from its database, and what it writes there beside its log and read model.

    Parameters
    ----------
    connection
        Of the caller's transaction.
    """

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def table(self, name: str) -> TableState:
        """Find a table by its id or its name.

        Raises
        ------
        NotFoundError
            If there is none, or it was deleted.
        """
        found = self.find_table(name)
        if found is None:
            c = table_state.c
            statement = sa.select(c.id).where(c.name == name, c.deleted.is_(False)).limit(1)
            id_ = self._connection.execute(statement).scalar_one_or_none()
            found = None if id_ is None else self.find_table(id_)
        if found is None or found.deleted:
            msg = f"There is no table {name!r}"
            raise NotFoundError(msg)
        return found

    def find_table(self, id_: str) -> TableState | None:
        """Find a table by its id, even a deleted one."""
        found = self._connection.execute(sa.select(table_state).where(table_state.c.id == id_)).first()
        if found is None:
            return None
        return TableState(
            id=found.id,
            name=found.name,
            kind=found.kind,
            workflow_version=found.workflow_version,
            inputs=[InputColumn.model_validate(column) for column in found.inputs],
            mode=found.mode,
            deleted=found.deleted,
        )

    def is_automatic(self, id_: str) -> bool:
        """Tell whether changes start a table's runs."""
        c = table_state.c
        statement = sa.select(c.mode).where(c.id == id_, c.deleted.is_(False), c.workflow_version.is_not(None))
        return self._connection.execute(statement).scalar_one_or_none() == "automatic"

    def rows(
        self, table: str, *, statuses: Iterable[RowStatus] | None = None, rows: Iterable[int] | None = None
    ) -> list[RowState]:
        """List rows of a table in their order: all of them, those of some statuses, or those that are named."""
        c = row_state.c
        statement = sa.select(c.row, c.revision, c.inputs, c.status, c.job).where(c.table_id == table).order_by(c.row)
        if statuses is not None:
            statement = statement.where(c.status.in_(list(statuses)))
        if rows is None:
            found = self._connection.execute(statement).all()
        else:
            found = [
                item
                for piece in _pieces(sorted(set(rows)))
                for item in self._connection.execute(statement.where(c.row.in_(piece)))
            ]
        return [RowState(item.row, item.revision, item.inputs, item.status, item.job) for item in found]

    def active_jobs(
        self,
        *,
        table: str | None = None,
        rows: Iterable[int] | None = None,
        run: str | None = None,
        jobs: Iterable[str] | None = None,
        waiting_only: bool = False,
        but_version: str | None = None,
    ) -> list[ActiveJob]:
        """List jobs that have not ended.

        Parameters
        ----------
        table, run
            Only of this table or run.
        rows, jobs
            Only of these rows, or only these jobs.
        waiting_only
            Leave out those that run.
        but_version
            Leave out those of this workflow version.
        """
        c = job.c
        states = ("waiting",) if waiting_only else _UNENDED
        statement = sa.select(c.id, c.table_id, c.row, c.revision, c.workflow_version, c.state)
        if table is not None:
            statement = statement.where(c.table_id == table)
        if run is not None:
            statement = statement.where(c.run == run)
        if but_version is not None:
            statement = statement.where(c.workflow_version != but_version)
        # Where rows or jobs are named, their states are looked at here: else SQLite would rather walk all that waits.
        if rows is not None:
            pieces = [statement.where(c.row.in_(piece)) for piece in _pieces(sorted(set(rows)))]
        elif jobs is not None:
            pieces = [statement.where(c.id.in_(piece)) for piece in _pieces(sorted(set(jobs)))]
        else:
            pieces = [statement.where(c.state.in_(states))]
        return [
            ActiveJob(item.id, item.table_id, item.row, item.revision, item.workflow_version, item.state)
            for piece in pieces
            for item in self._connection.execute(piece)
            if item.state in states
        ]

    def is_superseded(self, job_id: str) -> bool:
        """Tell whether a waiting job computes what its row is no longer."""
        c = row_state.c
        shown = sa.and_(c.table_id == job.c.table_id, c.row == job.c.row, c.job == job.c.id)
        statement = (
            sa.select(c.row)
            .select_from(job.outerjoin(row_state, shown))
            .where(job.c.id == job_id, job.c.state == "waiting")
        )
        found = self._connection.execute(statement).first()
        return found is not None and found.row is None

    def job(self, id_: str, *, max_attempts: int) -> JobDetail:
        """Tell all about a job.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        statement = (
            sa.select(*_summary, job.c.inputs, job.c.usage, job.c.log, job.c.earlier)
            .select_from(_with_dispatch)
            .where(job.c.id == id_)
        )
        found = self._connection.execute(statement).mappings().first()
        if found is None:
            msg = f"There is no job {id_!r}"
            raise NotFoundError(msg)
        values = dict(found)
        values["state"] = values.pop("seen_state")
        attempts = [Attempt.model_validate(item) for item in values.pop("earlier") or ()]
        if values["usage"] is not None:
            last = {
                name: values[name]
                for name in ("attempt", "outcome", "exit_code", "error", "host", "usage", "log", "started")
            }
            attempts.append(Attempt(**last, finished=values["finished"]))
        return JobDetail(**values, max_attempts=max_attempts, attempts=attempts)

    def jobs(
        self,
        *,
        table: str | None = None,
        row: int | None = None,
        state: JobState | None = None,
        run: str | None = None,
        after: str | None = None,
        limit: int,
    ) -> JobList:
        """List jobs, newest first.

        Parameters
        ----------
        table, row, state, run
            Only those.
        after
            Only those beyond this one.
        limit
            At most so many.
        """
        c = job.c
        statement = sa.select(*_summary).select_from(_with_dispatch).order_by(c.id.desc()).limit(limit + 1)
        given = ((c.table_id, table), (c.row, row), (c.run, run))
        statement = statement.where(*(column == value for column, value in given if value is not None))
        if state is not None:
            statement = statement.where(c.state == ("waiting" if state == "dispatched" else state))
        if state in {"waiting", "dispatched"}:
            statement = statement.where(dispatch.c.job.is_(None) if state == "waiting" else dispatch.c.job.is_not(None))
        if after is not None:
            statement = statement.where(c.id < after)
        found = self._connection.execute(statement).mappings().all()
        items = []
        for item in found[:limit]:
            values = dict(item)
            items.append(JobSummary(state=values.pop("seen_state"), **values))
        return JobList(jobs=items, next=items[-1].job if len(found) > limit else None)

    def run(self, id_: str) -> Run:
        """Tell how far a run got.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        found = self._connection.execute(sa.select(run).where(run.c.id == id_)).first()
        if found is None:
            msg = f"There is no run {id_!r}"
            raise NotFoundError(msg)
        c = job.c
        statement = (
            sa.select(
                c.state,
                sa.func.count().label("number"),
                sa.func.min(c.started).label("started"),
                sa.func.max(c.finished).label("finished"),
            )
            .where(c.run == id_)
            .group_by(c.state)
        )
        groups = self._connection.execute(statement).all()
        states: dict[JobState, int] = {group.state: group.number for group in groups}
        # From the few on the bus to their runs: in one statement SQLite would go the other way round.
        on_bus = (
            self._connection.execute(sa.select(dispatch.c.job).where(dispatch.c.started.is_(False))).scalars().all()
        )
        runs = (
            self._connection.execute(sa.select(c.run).where(c.id.in_(piece))).scalars() for piece in _pieces(on_bus)
        )
        dispatched = sum(item == id_ for found_runs in runs for item in found_runs)
        if dispatched:
            states |= {"dispatched": dispatched, "waiting": states["waiting"] - dispatched}
        active = states.keys() & set(_UNENDED)
        started = [group.started for group in groups if group.started is not None]
        finished = [group.finished for group in groups if group.finished is not None]
        return Run(
            run=found.id,
            table=found.table_id,
            workflow_version=found.workflow_version,
            requested_by=found.requested_by,
            reason=found.reason,
            priority=found.priority,
            jobs=found.jobs,
            states={state: number for state, number in states.items() if number},
            queued=found.queued,
            started=min(started, default=None),
            finished=None if active else max(finished, default=None),
        )

    def queue(self) -> Queue:
        """Count the jobs that have not ended."""
        counts: dict[str, QueueCounts] = {}

        def of(table: str) -> QueueCounts:
            return counts.setdefault(table, QueueCounts(waiting=0, dispatched=0, running=0))

        waiting = sa.select(backlog.c.table_id, sa.func.sum(backlog.c.waiting)).group_by(backlog.c.table_id)
        for table, number in self._connection.execute(waiting.where(backlog.c.waiting > 0)):
            of(table).waiting = int(number)
        handed = sa.select(dispatch.c.table_id, sa.func.count()).where(dispatch.c.started.is_(False))
        for table, number in self._connection.execute(handed.group_by(dispatch.c.table_id)):
            of(table).dispatched = number
            of(table).waiting -= number
        running = sa.select(job.c.table_id, sa.func.count()).where(job.c.state == "running").group_by(job.c.table_id)
        for table, number in self._connection.execute(running):
            of(table).running = number
        everywhere = counts.values()
        return Queue(
            waiting=sum(item.waiting for item in everywhere),
            dispatched=sum(item.dispatched for item in everywhere),
            running=sum(item.running for item in everywhere),
            tables=counts,
        )

    def attempt_started(self, job_id: str, attempt: int, due: datetime) -> None:
        """Note that an attempt that was handed out runs."""
        self._connection.execute(_attempt_started, {"b_job": job_id, "b_attempt": attempt, "b_due": due})

    def attempt_ended(self, job_id: str, attempt: int) -> None:
        """Forget an attempt that was handed out."""
        self._connection.execute(_attempt_ended, {"b_job": job_id, "b_attempt": attempt})

    def withdraw(self, jobs: Sequence[str]) -> None:
        """Forget that jobs were handed out, whatever the attempt."""
        for piece in _pieces(jobs):
            self._connection.execute(_withdraw, {"b_jobs": piece})


def _pieces(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for first in range(0, len(items), _MANY):
        yield items[first : first + _MANY]
