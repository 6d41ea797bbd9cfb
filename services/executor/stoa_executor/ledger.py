"""Who runs which job, written in SQL: claims and outcomes, each with its event in one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from stoa_chassis.database import Database
from stoa_chassis.log import Origin
from stoa_chassis.projection import EventStore
from stoa_contracts.events.executor import JobFinished, JobStarted
from stoa_contracts.ids import new_id
from stoa_contracts.jobs import JobRequest
from stoa_contracts.types import FileReference, InputFile, JobKey, Outcome, Usage
from stoa_executor.domain import Claim, claim_decision
from stoa_executor.models import claim, job

__all__ = ["Ending", "JobRecord", "Ledger", "Taken"]

_p = sa.bindparam
_known = (
    sa.select(
        job.c.attempt,
        job.c.state,
        claim.c.attempt.label("claimed"),
        claim.c.token,
        claim.c.starts,
        claim.c.place,
        claim.c.beat,
    )
    .select_from(job.outerjoin(claim, claim.c.job == job.c.id))
    .where(job.c.id == _p("b_job"))
)
_insert = sa.insert(claim)
_take_over = (
    sa.update(claim)
    .where(claim.c.job == _p("b_job"))
    .values(
        attempt=_p("b_attempt"),
        token=_p("b_token"),
        starts=_p("b_starts"),
        place=_p("b_place"),
        beat=_p("b_beat"),
        request=_p("b_request"),
    )
)
_mine = (
    sa.select(job.c.state)
    .select_from(claim.join(job, claim.c.job == job.c.id))
    .where(claim.c.job == _p("b_job"), claim.c.token == _p("b_token"))
)
_release = sa.delete(claim).where(claim.c.job == _p("b_job"))
_newest_under = sa.select(sa.func.max(job.c.position)).where(job.c.key == _p("b_key"))
_let_go = sa.update(claim).where(claim.c.job == _p("b_job"), claim.c.token == _p("b_token")).values(beat=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of the wish to run an attempt."""

    decision: Literal["run", "drop", "cancelled", "elsewhere", "exhausted"]
    """``elsewhere`` while another executor runs it, ``exhausted`` after too many starts without an end."""
    token: str = ""
    starts: int = 0
    started: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended."""

    outcome: Outcome
    started: datetime
    finished: datetime
    usage: Usage
    exit_code: int | None = None
    outputs: dict[str, Any] | None = None
    error: str | None = None
    log: FileReference | None = None
    key: JobKey | None = None
    files: list[InputFile] = field(default_factory=list)
    software: dict[str, str] = field(default_factory=dict)
    """Of the tools; what runs them is added."""
    reused_from: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What the read model says about a job."""

    state: str
    attempt: int
    outcome: str | None
    error: str | None
    log_sha256: str | None


class Ledger:
    """Claims on jobs, and their outcomes.

    Parameters
    ----------
    database, events
        Of the process.
    host
        The name of this machine, for people.
    place
        What tells this executor from others, and stays when it is started again.
    software
        Name to version of what runs jobs here.
    max_starts
        An attempt that was started so often without an end has failed.
    dead_after
        Seconds of silence after which an executor's claims may be taken over.
    """

    def __init__(
        self,
        *,
        database: Database,
        events: EventStore,
        host: str,
        place: str,
        software: Mapping[str, str],
        max_starts: int,
        dead_after: float,
    ) -> None:
        self._database = database
        self._events = events
        self._host = host
        self._place = place
        self._software = dict(software)
        self._max_starts = max_starts
        self._dead_after = dead_after

    async def take(self, request: JobRequest) -> Taken:
        """Claim an attempt and record that it started, if it is to run.

        Parameters
        ----------
        request
            The job message.

        Returns
        -------
        Taken
            The decision, and the token of the claim.
        """
        token, now = new_id(), datetime.now(UTC)
        return await self._database.write(lambda connection: self._take(connection, request, token, now))

    def _take(self, connection: sa.Connection, request: JobRequest, token: str, now: datetime) -> Taken:
        row = connection.execute(_known, {"b_job": request.job}).first()
        known = None if row is None else Claim(row.attempt, row.state)
        decision = claim_decision(known, request.attempt)
        if decision != "run":
            if (
                row is not None
                and row.token is not None
                and row.place == self._place
                and row.claimed <= request.attempt
            ):
                connection.execute(_release, {"b_job": request.job})
            return Taken(decision=decision)
        beat = now.timestamp()
        starts = 1
        if row is not None and row.token is not None and row.claimed == request.attempt:
            if row.place != self._place and beat - row.beat < self._dead_after:
                return Taken(decision="elsewhere")
            starts = row.starts + 1
        values = {
            "attempt": request.attempt,
            "token": token,
            "starts": starts,
            "place": self._place,
            "beat": beat,
            "request": request.model_dump_json(),
        }
        if row is not None and row.token is not None:
            connection.execute(
                _take_over, {"b_job": request.job, **{f"b_{key}": value for key, value in values.items()}}
            )
        else:
            connection.execute(_insert, {"job": request.job, **values})
        if starts > self._max_starts:
            return Taken(decision="exhausted", token=token, starts=starts - 1, started=now)
        started = JobStarted(
            table=request.table,
            job=request.job,
            attempt=request.attempt,
            row=request.row,
            revision=request.revision,
            workflow_version=request.workflow_version,
            host=self._host,
            started=now,
        )
        self._events.record(connection, request.table, [started], _origin(request))
        return Taken(decision="run", token=token, starts=starts, started=now)

    async def finish(self, request: JobRequest, token: str, ending: Ending) -> bool:
        """Record how an attempt ended.

        Parameters
        ----------
        request
            The job message.
        token
            Of the claim under which it ran.
        ending
            How it ended.

        Returns
        -------
        bool
            False if the claim was taken over meanwhile, and the result is refused.
        """
        return await self._database.write(lambda connection: self._finish(connection, request, token, ending))

    def _finish(self, connection: sa.Connection, request: JobRequest, token: str, ending: Ending) -> bool:
        row = connection.execute(_mine, {"b_job": request.job, "b_token": token}).first()
        if row is None:
            return False
        cancelled = row.state == "cancelled" or ending.outcome == "cancelled"
        finished = JobFinished(
            table=request.table,
            job=request.job,
            attempt=request.attempt,
            row=request.row,
            revision=request.revision,
            workflow_version=request.workflow_version,
            outcome="cancelled" if cancelled else ending.outcome,
            final=cancelled or ending.outcome != "temporaryFail" or request.attempt >= request.max_attempts,
            exit_code=ending.exit_code,
            outputs=None if cancelled else ending.outputs,
            error="The job was cancelled." if cancelled else ending.error,
            host=self._host,
            software={**self._software, **ending.software},
            started=ending.started,
            finished=ending.finished,
            usage=ending.usage,
            log=ending.log,
            key=ending.key,
            files=ending.files,
            reused_from=None if cancelled else ending.reused_from,
        )
        self._events.record(connection, request.table, [finished], _origin(request))
        connection.execute(_release, {"b_job": request.job})
        return True

    async def reusable(self, key: str) -> JobFinished | None:
        """Find the newest job that was run under a key and succeeded.

        Parameters
        ----------
        key
            The digest of a job key.

        Returns
        -------
        JobFinished or None
            How it ended; None where there is none.
        """
        return await self._database.read(lambda connection: self._reusable(connection, key))

    def _reusable(self, connection: sa.Connection, key: str) -> JobFinished | None:
        position = connection.execute(_newest_under, {"b_key": key}).scalar_one_or_none()
        if position is None:
            return None
        (envelope,) = self._events.log.read(connection, after=position - 1, limit=1)
        return JobFinished.model_validate(envelope.data)

    async def let_go(self, request: JobRequest, token: str) -> None:
        """Let others take an attempt over at once that will not be ended here."""
        await self._execute(_let_go, {"b_job": request.job, "b_token": token})

    async def beat(self) -> None:
        """Give a sign of life for all claims of this executor."""
        statement = sa.update(claim).where(claim.c.place == self._place, claim.c.beat > 0).values(beat=time.time())
        await self._execute(statement, {})

    async def _execute(self, statement: sa.Executable, parameters: dict[str, Any]) -> None:
        def work(connection: sa.Connection) -> None:
            connection.execute(statement, parameters)

        await self._database.write(work)

    async def left_behind(self) -> list[JobRequest]:
        """List what this executor was running when it was last ended, without its end."""
        statement = sa.select(claim.c.request).where(claim.c.place == self._place)
        rows = await self._database.read(lambda connection: connection.execute(statement).scalars().all())
        return [JobRequest.model_validate_json(row) for row in rows]

    async def job(self, job_id: str) -> JobRecord | None:
        """Tell what is known about a job."""
        statement = sa.select(job.c.state, job.c.attempt, job.c.outcome, job.c.error, job.c.log_sha256)
        row = await self._database.read(
            lambda connection: connection.execute(statement.where(job.c.id == job_id)).first()
        )
        return None if row is None else JobRecord(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor


def _origin(request: JobRequest) -> Origin:
    return Origin(
        actor=request.requested_by,
        correlationid=request.correlationid,
        causationid=request.causationid,
        traceparent=request.traceparent,
    )
