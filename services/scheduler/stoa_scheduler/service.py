"""What people ask the scheduler to do: each command is one transaction, each answer one consistent view."""

from __future__ import annotations

import sqlalchemy as sa

from stoa_chassis.log import Origin
from stoa_contracts import types as contracts
from stoa_contracts.ids import new_id
from stoa_contracts.types import RowStatus, Scope
from stoa_scheduler.awaiting import let_go, record_cancellation
from stoa_scheduler.commands import Decision, Skipped, run_rows, set_triggers
from stoa_scheduler.domain import JobState, Request, TableState
from stoa_scheduler.policy import queue_stale
from stoa_scheduler.store import SchedulerStore
from stoa_scheduler.transactions import Committed, Transactions
from stoa_scheduler.views import (
    Cancellation,
    CancellationRequest,
    JobDetail,
    JobList,
    NewTrigger,
    Run,
    RunAnswer,
    RunRequest,
    SkippedRow,
    StartedRun,
    Trigger,
    TriggerRequest,
)

__all__ = ["SchedulerService"]

_MOST_SKIPPED = 1000

#: Which rows a command means; `rows` is missing because it names them, and `all` because it means every status.
_STATUSES: dict[Scope, list[RowStatus]] = {"stale": ["stale", "cancelled"], "failed": ["failed"]}


class SchedulerService(Transactions):
    """Carries out commands on runs and jobs, and answers questions about them, on behalf of one person."""

    async def start_run(self, request: RunRequest, key: str | None = None) -> Committed[RunAnswer]:
        """Queue rows of a table, or of the tables of a project.

        Parameters
        ----------
        request
            Which ones.
        key
            A request that comes again under the same key is carried out once.

        Raises
        ------
        NotFoundError
            If there is no such table or project.
        NothingToRunError
            If the table has no workflow.
        BehindError
            If the change that the request is to follow has not been heard of.
        """
        await self._wait_for(request.after)

        def command(connection: sa.Connection) -> RunAnswer:
            store = SchedulerStore(connection)
            if request.table is not None:
                table = store.table(request.table)
                run, decision = self._run_table(connection, table, request)
                return _answer(table.id, run if decision.jobs or decision.awaited else None, decision)
            total = RunAnswer(run=None, jobs=0, skipped=[], skipped_total=0)
            for table in store.worktables(request.project or ""):
                run, decision = self._run_table(connection, table, request)
                part = _answer(table.id, run, decision)
                if part.jobs or part.awaited:
                    total.runs.append(StartedRun(table=table.id, run=run, jobs=part.jobs, awaited=part.awaited))
                total.jobs += part.jobs
                total.awaited += part.awaited
                total.skipped = [*total.skipped, *part.skipped][:_MOST_SKIPPED]
                total.skipped_total += part.skipped_total
            return total

        committed = await self._write(RunAnswer, request, key, command)
        self._logger.info("a run was asked for", run=committed.answer.run, jobs=committed.answer.jobs)
        return committed

    def _run_table(self, connection: sa.Connection, table: TableState, request: RunRequest) -> tuple[str, Decision]:
        store = SchedulerStore(connection)
        rows = store.rows(table.id, statuses=_STATUSES.get(request.scope), rows=request.rows)
        asked = Request(new_id(), self._origin.actor, priority=request.priority, force=request.force)
        versions = store.versions(table.id, rows)
        decision = run_rows(table, rows, asked, asked=request.rows or (), versions=versions)
        self._events.record(connection, table.id, decision.events, self._origin)
        return asked.run, decision

    async def cancel(self, request: CancellationRequest, key: str | None = None) -> Committed[Cancellation]:
        """Cancel jobs that have not ended.

        Raises
        ------
        NotFoundError
            If there is no such table or run.
        BehindError
            If the change that the request is to follow has not been heard of.
        """
        await self._wait_for(request.after)

        def command(connection: sa.Connection) -> Cancellation:
            store = SchedulerStore(connection)
            table = None if request.table is None else store.table(request.table).id
            if request.run is not None:
                store.run(request.run)
            person = self._origin.actor if request.scope == "mine" else None
            active = store.active_jobs(
                table=table, rows=request.rows, run=request.run, jobs=request.jobs, person=person
            )
            reason = f"{self._origin.actor} cancelled it"
            cancelled = record_cancellation(self._events, connection, active, reason, self._origin)
            waiting = []
            if request.jobs is None:
                waiting = store.awaited_rows(table=table, rows=request.rows, run_id=request.run, person=person)
            return Cancellation(cancelled=cancelled, awaited=let_go(self._events, connection, waiting, self._origin))

        committed = await self._write(Cancellation, request, key, command)
        self._logger.info("jobs were cancelled", jobs=committed.answer.cancelled)
        return committed

    async def set_trigger(self, table: str, request: TriggerRequest) -> Committed[Trigger]:
        """Set what starts a table's runs; a table that becomes automatic runs at once what is stale.

        Raises
        ------
        NotFoundError
            If there is no such table.
        NothingToRunError
            If it is a plain table or a join.
        InvalidTriggerError
            If a trigger can never fire, or a scheduled table has none.
        BehindError
            If the position that the request names was not reached in time.
        """
        await self._wait_for(request.after)

        def command(connection: sa.Connection) -> Committed[Trigger]:
            store = SchedulerStore(connection)
            state = store.table(table)
            wanted = None if request.triggers is None else [_specified(item) for item in request.triggers]
            decided = set_triggers(state, request.mode, wanted, store.triggers(state.id))
            events = self._events.record(connection, state.id, decided, self._origin)
            if events and request.mode == "automatic" != state.mode:
                caused = Origin(
                    actor=self._origin.actor,
                    correlationid=self._origin.correlationid,
                    causationid=events[0].id,
                    traceparent=self._origin.traceparent,
                )
                queue_stale(self._events, connection, state.id, None, caused)
            return Committed(store.trigger(state.id), self._events.log.head(connection))

        return await self._database.write(command)

    async def trigger(self, table: str, after: int | None = None) -> Trigger:
        """Tell what starts a table's runs, and when it fires next.

        Raises
        ------
        NotFoundError
            If there is no such table.
        BehindError
            If the position that the answer is to know of was not reached in time.
        """
        await self._wait_for(after)

        def query(connection: sa.Connection) -> Trigger:
            store = SchedulerStore(connection)
            return store.trigger(store.table(table).id)

        return await self._database.read(query)

    async def run(self, run: str) -> Run:
        """Tell how far a run got."""
        return await self._database.read(lambda connection: SchedulerStore(connection).run(run))

    async def job(self, job: str) -> JobDetail:
        """Tell all about a job."""
        most = self._settings.max_attempts
        return await self._database.read(lambda connection: SchedulerStore(connection).job(job, max_attempts=most))

    async def jobs(
        self,
        *,
        table: str | None = None,
        row: int | None = None,
        state: JobState | None = None,
        run: str | None = None,
        after: str | None = None,
        limit: int,
    ) -> JobList:
        """List jobs, newest first; the table is named by its id or its name."""

        def query(connection: sa.Connection) -> JobList:
            store = SchedulerStore(connection)
            id_ = None if table is None else store.table(table).id
            return store.jobs(table=id_, row=row, state=state, run=run, after=after, limit=limit)

        return await self._database.read(query)


def _answer(table: str, run: str | None, decision: Decision) -> RunAnswer:
    def wire(item: Skipped) -> SkippedRow:
        return SkippedRow(table=table, row=item.row, reason=item.reason)

    return RunAnswer(
        run=run,
        jobs=decision.jobs,
        awaited=decision.awaited,
        skipped=[wire(item) for item in decision.skipped[:_MOST_SKIPPED]],
        skipped_total=len(decision.skipped),
    )


def _specified(new: NewTrigger) -> contracts.Trigger:
    return contracts.Trigger(**{**new.model_dump(), "trigger": new.trigger or new_id()})
