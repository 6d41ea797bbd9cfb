"""What people ask the scheduler to do: each command is one transaction, each answer one consistent view."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel
from structlog.stdlib import BoundLogger

from stoa_chassis.background import pause
from stoa_chassis.database import Database
from stoa_chassis.idempotency import once
from stoa_chassis.log import Origin, read_checkpoint
from stoa_chassis.projection import EventStore
from stoa_contracts.ids import new_id
from stoa_contracts.types import RowStatus
from stoa_scheduler.commands import run_rows, set_mode
from stoa_scheduler.domain import JobState, Scope
from stoa_scheduler.models import idempotency
from stoa_scheduler.policy import queue_stale, record_cancellation
from stoa_scheduler.problems import BehindError
from stoa_scheduler.settings import SchedulerSettings
from stoa_scheduler.store import SchedulerStore
from stoa_scheduler.views import (
    Cancellation,
    CancellationRequest,
    JobDetail,
    JobList,
    Queue,
    Run,
    RunAnswer,
    RunRequest,
    SkippedRow,
    Trigger,
    TriggerRequest,
)

__all__ = ["Committed", "SchedulerService"]

_MOST_SKIPPED = 1000
_ANOTHER_LOOK = 0.5

#: Which rows a command means; `rows` is missing because it names them, and `all` because it means every status.
_STATUSES: dict[Scope, list[RowStatus]] = {"stale": ["stale", "cancelled"], "failed": ["failed"]}

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class Committed(NamedTuple, Generic[AnswerT]):
    """An answer, and the head of our log after what it tells of."""

    answer: AnswerT
    position: int


class SchedulerService:
    """Carries out commands and answers questions on behalf of one person.

    Parameters
    ----------
    database, events, settings
        Of the process.
    origin
        Who asks.
    logger
        Bound to the request.
    """

    def __init__(
        self,
        *,
        database: Database,
        events: EventStore,
        settings: SchedulerSettings,
        origin: Origin,
        logger: BoundLogger,
    ) -> None:
        self._database = database
        self._events = events
        self._settings = settings
        self._origin = origin
        self._logger = logger

    async def start_run(self, request: RunRequest, key: str | None = None) -> Committed[RunAnswer]:
        """Queue rows of a table.

        Parameters
        ----------
        request
            Which ones.
        key
            A request that comes again under the same key is carried out once.

        Raises
        ------
        NotFoundError
            If there is no such table.
        NothingToRunError
            If the table has no workflow.
        BehindError
            If the change that the request is to follow has not been heard of.
        """
        await self._wait_for(request.after)

        def command(connection: sa.Connection) -> RunAnswer:
            store = SchedulerStore(connection)
            table = store.table(request.table)
            rows = store.rows(table.id, statuses=_STATUSES.get(request.scope), rows=request.rows)
            run = new_id()
            decision = run_rows(
                table,
                rows,
                run=run,
                requested_by=self._origin.actor,
                priority=request.priority,
                asked=request.rows or (),
            )
            self._events.record(connection, table.id, decision.events, self._origin)
            return RunAnswer(
                run=run if decision.jobs else None,
                jobs=decision.jobs,
                skipped=[SkippedRow(row=item.row, reason=item.reason) for item in decision.skipped[:_MOST_SKIPPED]],
                skipped_total=len(decision.skipped),
            )

        committed = await self._write(RunAnswer, request, key, command)
        self._logger.info("a run was asked for", run=committed.answer.run, jobs=committed.answer.jobs)
        return committed

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
            active = store.active_jobs(table=table, rows=request.rows, run=request.run, jobs=request.jobs)
            reason = f"{self._origin.actor} cancelled it"
            return Cancellation(cancelled=record_cancellation(self._events, connection, active, reason, self._origin))

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
        BehindError
            If the position that the request names was not reached in time.
        """
        await self._wait_for(request.after)
        mode = request.mode

        def command(connection: sa.Connection) -> Committed[Trigger]:
            state = SchedulerStore(connection).table(table)
            events = self._events.record(connection, state.id, set_mode(state, mode), self._origin)
            if events and mode == "automatic":
                caused = Origin(
                    actor=self._origin.actor,
                    correlationid=self._origin.correlationid,
                    causationid=events[0].id,
                    traceparent=self._origin.traceparent,
                )
                queue_stale(self._events, connection, state.id, None, caused)
            return Committed(Trigger(table=state.id, mode=mode), self._events.log.head(connection))

        return await self._database.write(command)

    async def trigger(self, table: str) -> Trigger:
        """Tell what starts a table's runs."""

        def query(connection: sa.Connection) -> Trigger:
            state = SchedulerStore(connection).table(table)
            return Trigger(table=state.id, mode=state.mode)

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

    async def queue(self) -> Queue:
        """Count the jobs that have not ended."""
        return await self._database.read(lambda connection: SchedulerStore(connection).queue())

    async def _write(
        self,
        answer: type[AnswerT],
        request: BaseModel,
        key: str | None,
        command: Callable[[sa.Connection], AnswerT],
    ) -> Committed[AnswerT]:
        asked = {"kind": type(request).__name__, **request.model_dump(mode="json")}

        def work(connection: sa.Connection) -> Committed[AnswerT]:
            content = once(
                connection,
                idempotency,
                key,
                self._origin.actor,
                asked,
                lambda: command(connection).model_dump(mode="json"),
            )
            return Committed(answer.model_validate(content), self._events.log.head(connection))

        return await self._database.write(work)

    async def _wait_for(self, position: int | None) -> None:
        """Wait until the events of the tables service were applied up to a position."""
        if position is None:
            return
        name = self._events.projection.name

        def applied(connection: sa.Connection) -> int:
            return read_checkpoint(connection, name, "tables")

        committed = asyncio.Event()
        self._database.on_commit(committed)
        try:
            async with asyncio.timeout(self._settings.after_timeout):
                while True:
                    committed.clear()
                    if await self._database.read(applied) >= position:
                        return
                    # Another replica may be the one that follows.
                    await pause(committed, _ANOTHER_LOOK)
        except TimeoutError:
            msg = (
                f"The scheduler has not heard of position {position} of the tables service within"
                f" {self._settings.after_timeout:g} s; nothing was changed. Try again"
            )
            raise BehindError(msg, headers={"Retry-After": "2"}) from None
        finally:
            self._database.forget(committed)
