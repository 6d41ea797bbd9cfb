"""SQL to values and back; the transactions belong to the callers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from stoa_contracts import types as contracts
from stoa_contracts.types import Digest, RowStatus
from stoa_scheduler.domain import ActiveJob, Attempt, AwaitedRow, InputColumn, JobState, Request, RowState, TableState
from stoa_scheduler.models import awaited, dispatch, job, row_state, run, table_state, trigger, workflow
from stoa_scheduler.problems import NotFoundError
from stoa_scheduler.views import JobDetail, JobList, JobSummary, Run, Trigger, TriggerState

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
    job.c.force,
    job.c.reused_from,
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

    def worktables(self, project: str) -> list[TableState]:
        """List the worktables of a project.

        Raises
        ------
        NotFoundError
            If it has no table.
        """
        c = table_state.c
        statement = sa.select(c.id, c.kind).where(c.project == project, c.deleted.is_(False)).order_by(c.id)
        found = self._connection.execute(statement).all()
        if not found:
            msg = f"There is no table in a project {project!r}"
            raise NotFoundError(msg)
        states = [self.find_table(item.id) for item in found if item.kind == "worktable"]
        return [state for state in states if state is not None and state.workflow_version is not None]

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
            project=found.project,
        )

    def triggers(self, table: str) -> list[contracts.Trigger]:
        """List the triggers of a table as they were set, in the order in which they were made."""
        c = trigger.c
        statement = sa.select(c.specification).where(c.table_id == table).order_by(c.trigger)
        return [contracts.Trigger.model_validate(item) for item in self._connection.execute(statement).scalars()]

    def watching(self, table: str) -> list[contracts.Trigger]:
        """List the triggers of a table that may fire."""
        c = table_state.c
        mode = self._connection.execute(sa.select(c.mode).where(c.id == table)).scalar_one_or_none()
        return self.triggers(table) if mode == "scheduled" else []

    def set_by(self, id_: str) -> str:
        """Tell who set a trigger: its runs are asked for in that name."""
        return str(self._connection.execute(sa.select(trigger.c.set_by).where(trigger.c.trigger == id_)).scalar_one())

    def trigger(self, table: str) -> Trigger:
        """Tell what starts a table's runs, and when."""
        mode = self._connection.execute(sa.select(table_state.c.mode).where(table_state.c.id == table)).scalar_one()
        c = trigger.c
        found = self._connection.execute(sa.select(trigger).where(c.table_id == table).order_by(c.trigger)).all()
        states = [
            TriggerState(**item.specification, next=item.next_due if mode == "scheduled" else None, fired=item.fired)
            for item in found
        ]
        return Trigger(table=table, mode=mode, triggers=states)

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
        waits = sa.and_(awaited.c.table_id == c.table_id, awaited.c.row == c.row)
        statement = (
            sa.select(
                c.row,
                c.revision,
                c.inputs,
                c.status,
                c.job,
                c.suspected,
                c.pinned,
                c.locked,
                awaited.c.row.is_not(None).label("awaited"),
            )
            .select_from(row_state.outerjoin(awaited, waits))
            .where(c.table_id == table)
            .order_by(c.row)
        )
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
        return [RowState(**item._mapping) for item in found]  # noqa: SLF001 - a public name of SQLAlchemy's

    def versions(self, table: str, rows: Iterable[RowState]) -> dict[Digest, list[InputColumn]]:
        """Give the inputs of the workflow versions that rows are pinned to."""
        pinned = sorted({row.pinned for row in rows if row.pinned is not None})
        c = workflow.c
        return {
            item.version: [InputColumn.model_validate(column) for column in item.inputs]
            for piece in _pieces(pinned)
            for item in self._connection.execute(
                sa.select(c.version, c.inputs).where(c.table_id == table, c.version.in_(piece))
            )
        }

    def awaited_rows(
        self,
        *,
        table: str | None = None,
        rows: Iterable[int] | None = None,
        run_id: str | None = None,
        person: str | None = None,
        settled_only: bool = False,
    ) -> list[AwaitedRow]:
        """List rows that were asked for and wait.

        Parameters
        ----------
        table, rows, run_id, person
            Only those of this table, these rows of it, this run, or this person.
        settled_only
            Only those that need not wait any longer.
        """
        c = awaited.c
        statement = sa.select(
            c.table_id, c.row, c.run, c.requested_by, c.priority, c.force, run.c.reason, run.c.trigger
        ).select_from(awaited.join(run, run.c.id == c.run))
        given = ((c.table_id, table), (c.run, run_id), (c.requested_by, person))
        statement = statement.where(*(column == value for column, value in given if value is not None))
        if settled_only:
            of_row = (row_state.c.table_id == c.table_id, row_state.c.row == c.row)
            suspected = sa.exists(sa.select(row_state.c.row).where(*of_row, row_state.c.suspected.is_(True)))
            statement = statement.where(~suspected)
        parts = [statement] if rows is None else [statement.where(c.row.in_(p)) for p in _pieces(sorted(set(rows)))]
        return [
            AwaitedRow(
                item.table_id,
                item.row,
                Request(item.run, item.requested_by, item.reason, item.priority, item.force, item.trigger),
            )
            for part in parts
            for item in self._connection.execute(part)
        ]

    def requests(self, runs: Iterable[str]) -> dict[str, Request]:
        """Tell what was asked for in runs."""
        c = run.c
        statement = sa.select(c.id, c.requested_by, c.reason, c.priority, c.force, c.trigger)
        return {
            item.id: Request(*item)
            for piece in _pieces(sorted(runs))
            for item in self._connection.execute(statement.where(c.id.in_(piece)))
        }

    def any_awaited(self, table: str) -> bool:
        """Tell whether rows of a table wait until they are settled."""
        return (
            self._connection.execute(sa.select(awaited.c.row).where(awaited.c.table_id == table).limit(1)).first()
            is not None
        )

    def active_jobs(
        self,
        *,
        table: str | None = None,
        rows: Iterable[int] | None = None,
        run: str | None = None,
        jobs: Iterable[str] | None = None,
        person: str | None = None,
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
        person
            Only those that this person asked for.
        waiting_only
            Leave out those that run.
        but_version
            Leave out those of this workflow version, and those of pinned rows.
        """
        c = job.c
        states = ("waiting",) if waiting_only else _UNENDED
        statement = sa.select(
            c.id,
            c.table_id,
            c.row,
            c.revision,
            c.workflow_version,
            c.state,
            c.run,
        )
        if table is not None:
            statement = statement.where(c.table_id == table)
        if run is not None:
            statement = statement.where(c.run == run)
        if but_version is not None:
            of_row = (row_state.c.table_id == c.table_id, row_state.c.row == c.row)
            pinned = sa.exists(sa.select(row_state.c.row).where(*of_row, row_state.c.pinned.is_not(None)))
            statement = statement.where(c.workflow_version != but_version, ~pinned)
        if person is not None:
            statement = statement.where(c.requested_by == person)
        # Where rows or jobs are named, their states are looked at here: else SQLite would rather walk all that waits.
        if rows is not None:
            pieces = [statement.where(c.row.in_(piece)) for piece in _pieces(sorted(set(rows)))]
        elif jobs is not None:
            pieces = [statement.where(c.id.in_(piece)) for piece in _pieces(sorted(set(jobs)))]
        else:
            pieces = [statement.where(c.state.in_(states))]
        return [
            ActiveJob(*item) for piece in pieces for item in self._connection.execute(piece) if item.state in states
        ]

    def shown_row(self, job_id: str) -> RowState | None:
        """Find the row that shows a job; nothing if it was edited since, or removed."""
        found = self._connection.execute(sa.select(job.c.table_id, job.c.row).where(job.c.id == job_id)).first()
        if found is None:
            return None
        return next((row for row in self.rows(found.table_id, rows=[found.row]) if row.job == job_id), None)

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
            force=found.force,
            trigger=found.trigger,
            awaited=found.awaited,
            reused=found.reused,
            started=min(started, default=None),
            finished=None if active or found.awaited else max(finished, default=found.queued),
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
