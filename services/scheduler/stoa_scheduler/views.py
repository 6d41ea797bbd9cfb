"""What the scheduler takes and answers over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stoa_contracts.types import Digest, FileReference, Mode, Outcome, Usage, Values
from stoa_scheduler.domain import Attempt, JobState, Scope

__all__ = [
    "Cancellation",
    "CancellationRequest",
    "JobDetail",
    "JobList",
    "JobSummary",
    "Queue",
    "QueueCounts",
    "Run",
    "RunAnswer",
    "RunRequest",
    "SkippedRow",
    "Trigger",
    "TriggerRequest",
]

_TABLE = "019512f0-6d6c-7b1e-8f0a-3d2b1c4e5f60"
_JOB = "019512f4-0b0c-7d11-9a55-aa0c6b1f0f01"
_RUN = "019512f4-0b0c-7d11-9a55-aa0c6b1f0f00"

RowNumber = Annotated[int, Field(ge=1)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunRequest(_Request):
    """Run rows of a table."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"table": "sources", "scope": "stale"}, {"table": "sources", "scope": "rows", "rows": [3, 17]}]
        },
    )

    table: str = Field(min_length=1, description="The table's id or name.")
    scope: Scope = Field(
        default="stale",
        description=(
            "`stale`: rows whose outputs do not belong to their inputs, and those that were cancelled. `failed`: rows whose"
            " last run failed. `rows`: the given rows, current ones too. `all`: every row, current ones too."
        ),
    )
    rows: list[RowNumber] | None = Field(default=None, description="With the scope `rows`, and only with it.")
    priority: int = Field(default=0, ge=-1000, le=1000, description="Higher goes first.")
    after: int | None = Field(
        default=None,
        ge=0,
        description="A position of the tables service's log, from its `Stoa-Position`: what happened up to it is seen.",
    )

    @model_validator(mode="after")
    def _check_rows(self) -> RunRequest:
        if (self.scope == "rows") != (self.rows is not None):
            msg = "rows are given with the scope 'rows', and only with it"
            raise ValueError(msg)
        return self


class SkippedRow(BaseModel):
    """A row that was asked for and is not run."""

    row: int
    reason: str = Field(examples=["input image is missing"])


class RunAnswer(BaseModel):
    """What was queued."""

    run: str | None = Field(description="The run's id; null where nothing was queued.", examples=[_RUN])
    jobs: int = Field(description="How many jobs were queued.", examples=[24])
    skipped: list[SkippedRow] = Field(description="Rows that are not run, and why; at most 1,000 of them.")
    skipped_total: int = Field(description="How many rows are not run.")


class Run(BaseModel):
    """What was asked for at once, and how far it got."""

    run: str = Field(examples=[_RUN])
    table: str = Field(examples=[_TABLE])
    workflow_version: Digest
    requested_by: str = Field(examples=["jansky"])
    reason: str = Field(description="`command`, or `automatic` where a change started it.")
    priority: int
    jobs: int = Field(description="How many jobs the run has.")
    states: dict[JobState, int] = Field(
        description="How many of them are in which state; states without jobs are left out."
    )
    queued: datetime
    started: datetime | None = Field(description="When its first job started.")
    finished: datetime | None = Field(description="When its last job ended; null while jobs are left.")


class CancellationRequest(_Request):
    """Cancel the jobs of a table or of some of its rows, of a run, or some jobs."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"table": "sources"}, {"table": "sources", "rows": [3]}, {"run": _RUN}]},
    )

    table: str | None = Field(default=None, min_length=1, description="The table's id or name.")
    rows: list[RowNumber] | None = Field(default=None, description="Only these rows of the table.")
    run: str | None = None
    jobs: list[str] | None = None
    after: int | None = Field(default=None, ge=0, description="As with runs.")

    @model_validator(mode="after")
    def _check_one(self) -> CancellationRequest:
        if sum(item is not None for item in (self.table, self.run, self.jobs)) != 1:
            msg = "one of table, run and jobs says what is cancelled"
            raise ValueError(msg)
        if self.rows is not None and self.table is None:
            msg = "rows are given with their table"
            raise ValueError(msg)
        return self


class Cancellation(BaseModel):
    """What was cancelled."""

    cancelled: int = Field(description="How many jobs were cancelled; those that had ended are not among them.")


class JobSummary(BaseModel):
    """A job in a list."""

    job: str = Field(examples=[_JOB])
    run: str
    table: str
    row: int
    revision: int
    workflow_version: Digest
    state: JobState
    attempt: int = Field(description="The attempt that comes next, runs, or was the last.")
    priority: int
    requested_by: str
    queued: datetime
    not_before: datetime | None = Field(description="When the next attempt is made at the earliest.")
    started: datetime | None
    finished: datetime | None
    outcome: Outcome | None
    exit_code: int | None
    error: str | None = Field(description="Why it failed or was cancelled, in one sentence.")
    host: str | None


class JobDetail(JobSummary):
    """All about a job."""

    inputs: Values
    max_attempts: int = Field(description="A temporary failure is followed by another attempt, up to so many.")
    usage: Usage | None
    log: FileReference | None = Field(
        description="What the tools of the last attempt wrote; the executor has it by its digest."
    )
    attempts: list[Attempt] = Field(description="Attempts that ended, first one first.")


class JobList(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobSummary]
    next: str | None = Field(description="Give it as `after` for the next page; null on the last one.")


class TriggerRequest(_Request):
    """Set what starts a table's runs."""

    mode: Mode = Field(description="`manual`: a person. `automatic`: each change that makes rows stale.")
    after: int | None = Field(default=None, ge=0, description="As with runs.")


class Trigger(BaseModel):
    """What starts a table's runs."""

    table: str = Field(examples=[_TABLE])
    mode: Mode


class QueueCounts(BaseModel):
    """How many jobs there are before their end."""

    waiting: int = Field(description="In the queue.")
    dispatched: int = Field(description="On the bus, not started yet.")
    running: int


class Queue(QueueCounts):
    """The queue at a glance."""

    tables: dict[str, QueueCounts] = Field(description="By table id; tables without such jobs are left out.")
