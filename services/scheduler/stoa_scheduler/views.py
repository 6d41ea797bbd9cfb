"""What the scheduler takes and answers over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stoa_contracts.types import Digest, FileReference, Mode, Outcome, Scope, TriggerKind, Usage, Values
from stoa_scheduler.domain import Attempt, JobState

__all__ = [
    "Cancellation",
    "CancellationRequest",
    "JobDetail",
    "JobList",
    "JobSummary",
    "Limit",
    "LimitList",
    "LimitRequest",
    "NewTrigger",
    "Progress",
    "ProgressReport",
    "Queue",
    "QueueCounts",
    "QueueGroup",
    "Run",
    "RunAnswer",
    "RunRequest",
    "SkippedRow",
    "StartedRun",
    "TableProgress",
    "Trigger",
    "TriggerRequest",
    "TriggerState",
]

_TABLE = "019512f0-6d6c-7b1e-8f0a-3d2b1c4e5f60"
_JOB = "019512f4-0b0c-7d11-9a55-aa0c6b1f0f01"
_RUN = "019512f4-0b0c-7d11-9a55-aa0c6b1f0f00"

RowNumber = Annotated[int, Field(ge=1)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunRequest(_Request):
    """Run rows of a table, or of all tables of a project."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"table": "sources", "scope": "stale"},
                {"table": "sources", "scope": "rows", "rows": [3, 17], "force": True},
                {"project": "survey", "scope": "failed"},
            ]
        },
    )

    table: str | None = Field(default=None, min_length=1, description="The table's id or name.")
    project: str | None = Field(
        default=None,
        min_length=1,
        description="All worktables of this project instead of one table, with the scope `stale` or `failed`.",
    )
    scope: Scope = Field(
        default="stale",
        description=(
            "`stale`: rows whose outputs do not belong to their inputs, and those that were cancelled. `failed`: rows whose"
            " last run failed. `rows`: the given rows, current ones too. `all`: every row, current ones too."
        ),
    )
    rows: list[RowNumber] | None = Field(default=None, description="With the scope `rows`, and only with it.")
    priority: int = Field(default=0, ge=-1000, le=1000, description="Higher goes first.")
    force: bool = Field(
        default=False,
        description="Run them even where a job with the same key has ended, instead of taking its outputs.",
    )
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
        if (self.table is None) == (self.project is None):
            msg = "either a table or a project is run"
            raise ValueError(msg)
        if self.project is not None and self.scope not in {"stale", "failed"}:
            msg = "of a project, what is stale or has failed can be run"
            raise ValueError(msg)
        return self


class SkippedRow(BaseModel):
    """A row that was asked for and is not run."""

    table: str = Field(examples=[_TABLE])
    row: int
    reason: str = Field(examples=["input image is missing"])


class StartedRun(BaseModel):
    """What was queued of one table of a project."""

    table: str = Field(examples=[_TABLE])
    run: str = Field(examples=[_RUN])
    jobs: int
    awaited: int


class RunAnswer(BaseModel):
    """What was queued."""

    run: str | None = Field(
        description="The run's id; null where nothing was queued, and where a project was asked for.", examples=[_RUN]
    )
    jobs: int = Field(description="How many jobs were queued.", examples=[24])
    awaited: int = Field(
        default=0,
        description=(
            "How many rows wait, because something that they depend on is being computed anew; they run when that has"
            " settled, if they still have to."
        ),
    )
    runs: list[StartedRun] = Field(
        default_factory=list, description="One run for each table of the project of which rows were queued or wait."
    )
    skipped: list[SkippedRow] = Field(description="Rows that are not run, and why; at most 1,000 of them.")
    skipped_total: int = Field(description="How many rows are not run.")


class Run(BaseModel):
    """What was asked for at once, and how far it got."""

    run: str = Field(examples=[_RUN])
    table: str = Field(examples=[_TABLE])
    workflow_version: Digest
    requested_by: str = Field(examples=["jansky"])
    reason: str = Field(
        description="`command`, `automatic` where a change started it, or `trigger` where a trigger did."
    )
    priority: int
    force: bool = Field(description="Whether its rows run even where a job with the same key has ended.")
    trigger: str | None = Field(description="The trigger that fired; null where none did.")
    jobs: int = Field(description="How many jobs the run has.")
    awaited: int = Field(
        description="How many rows wait for their job, until what they depend on has settled; jobs come of them, or not."
    )
    reused: int = Field(description="How many of the jobs that succeeded took the outputs of an earlier job.")
    states: dict[JobState, int] = Field(
        description="How many of them are in which state; states without jobs are left out."
    )
    queued: datetime
    started: datetime | None = Field(description="When its first job started.")
    finished: datetime | None = Field(description="When its last job ended; null while jobs or awaited rows are left.")


class CancellationRequest(_Request):
    """Cancel the jobs of a table or of some of its rows, of a run, some jobs, or all of mine; rows that wait for theirs, too."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"table": "sources"}, {"table": "sources", "rows": [3]}, {"run": _RUN}, {"scope": "mine"}]
        },
    )

    table: str | None = Field(default=None, min_length=1, description="The table's id or name.")
    rows: list[RowNumber] | None = Field(default=None, description="Only these rows of the table.")
    run: str | None = None
    jobs: list[str] | None = None
    scope: Literal["mine"] | None = Field(default=None, description="`mine`: whatever I asked for, in every table.")
    after: int | None = Field(default=None, ge=0, description="As with runs.")

    @model_validator(mode="after")
    def _check_one(self) -> CancellationRequest:
        if sum(item is not None for item in (self.table, self.run, self.jobs, self.scope)) != 1:
            msg = "one of table, run, jobs and scope says what is cancelled"
            raise ValueError(msg)
        if self.rows is not None and self.table is None:
            msg = "rows are given with their table"
            raise ValueError(msg)
        return self


class Cancellation(BaseModel):
    """What was cancelled."""

    cancelled: int = Field(description="How many jobs were cancelled; those that had ended are not among them.")
    awaited: int = Field(default=0, description="How many rows no longer wait for a job.")


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
    force: bool = Field(description="Whether it runs even where a job with the same key has ended.")
    reused_from: str | None = Field(
        description="The job with the same key whose outputs it took; null where it ran, or has not ended."
    )


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


class NewTrigger(_Request):
    """What starts runs without a person."""

    trigger: str | None = Field(
        default=None, description="Its id, where it is there already; a new one gets an id.", max_length=36
    )
    kind: TriggerKind
    schedule: str | None = Field(
        default=None,
        max_length=200,
        description="A cron expression of five fields, or the ISO 8601 duration of an interval.",
        examples=["30 2 * * *", "PT15M"],
    )
    timezone: str = Field(default="UTC", max_length=100, description="The zone of a cron expression, by its IANA name.")
    files: list[Annotated[str, Field(max_length=4000)]] = Field(
        default=[], max_length=100, description="Locations of files and directories to watch; none for all inputs."
    )
    missed: Literal["once", "skip"] = Field(
        default="once", description="Whether firings that were missed are caught up by one, or left out."
    )
    scope: Literal["stale", "failed", "all"] = "stale"
    paused: bool = False


class TriggerRequest(_Request):
    """Set what starts a table's runs."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"mode": "automatic"},
                {
                    "mode": "scheduled",
                    "triggers": [{"kind": "cron", "schedule": "30 2 * * *", "timezone": "Europe/Berlin"}],
                },
            ]
        },
    )

    mode: Mode = Field(
        description="`manual`: a person. `automatic`: each change that makes rows stale. `scheduled`: its triggers."
    )
    triggers: Annotated[list[NewTrigger], Field(max_length=20)] | None = Field(
        default=None, description="All triggers that the table has from now on; null leaves them as they are."
    )
    after: int | None = Field(default=None, ge=0, description="As with runs.")


class TriggerState(BaseModel):
    """A trigger, and when it fires."""

    trigger: str
    kind: TriggerKind
    schedule: str | None
    timezone: str
    files: list[str]
    missed: Literal["once", "skip"]
    scope: Literal["stale", "failed", "all"]
    paused: bool
    next: datetime | None = Field(
        description="When it fires next; null while it is paused, the table is not scheduled, or it waits for an event."
    )
    fired: datetime | None = Field(description="When it last started a run.")


class Trigger(BaseModel):
    """What starts a table's runs."""

    table: str = Field(examples=[_TABLE])
    mode: Mode
    triggers: list[TriggerState] = []


class QueueCounts(BaseModel):
    """How many jobs there are before their end."""

    waiting: int = Field(description="In the queue.")
    dispatched: int = Field(description="On the bus, not started yet.")
    running: int
    awaited: int = Field(
        default=0, description="Rows that were asked for and wait until what they depend on has settled."
    )


class QueueGroup(QueueCounts):
    """What one person asked for in one table, with one priority."""

    table: str = Field(examples=[_TABLE])
    name: str = Field(description="The table's name.", examples=["sources"])
    requested_by: str = Field(examples=["jansky"])
    priority: int


class Queue(QueueCounts):
    """The queue at a glance."""

    tables: dict[str, QueueCounts] = Field(description="By table id; tables without such jobs are left out.")
    groups: list[QueueGroup] = Field(
        default_factory=list,
        description="Whose jobs they are: highest priority first, then by person and table; at most 1,000.",
    )


class LimitRequest(_Request):
    """Set how many jobs of a table, or of a person, are in flight at once at most."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"table": "sources", "running": 8}, {"person": "jansky", "running": None}]},
    )

    table: str | None = Field(default=None, min_length=1, description="The table's id or name.")
    person: str | None = Field(default=None, min_length=1, max_length=200)
    running: int | None = Field(
        ge=0,
        le=1_000_000,
        description="So many jobs are on the bus or run at most; 0 holds everything back, null is the default again.",
    )
    after: int | None = Field(default=None, ge=0, description="As with runs.")

    @model_validator(mode="after")
    def _check_one(self) -> LimitRequest:
        if (self.table is None) == (self.person is None):
            msg = "either a table or a person is limited"
            raise ValueError(msg)
        return self


class Limit(BaseModel):
    """A limit of its own that a table, or a person, has."""

    table: str | None = Field(default=None, examples=[_TABLE])
    name: str | None = Field(default=None, description="The table's name.", examples=["sources"])
    person: str | None = Field(default=None, examples=["jansky"])
    running: int | None = Field(description="Null where the default holds.")


class LimitList(BaseModel):
    """How many jobs are in flight at once at most."""

    per_table: int | None = Field(description="Of a table without a limit of its own; null where there is none.")
    per_person: int | None = Field(description="Of a person without a limit of its own; null where there is none.")
    limits: list[Limit] = Field(description="A page of the limits of their own.")
    next: str | None = Field(description="Give it as `after` for the next page; null on the last one.")


class Progress(BaseModel):
    """How far rows got."""

    rows: int
    done: int = Field(description="Rows whose outputs belong to their inputs.")
    failed: int
    waiting: int = Field(description="Rows whose job has not started.")
    running: int
    awaited: int = Field(
        description="Rows that were asked for and wait until what they depend on has settled; other counts have them, too."
    )
    stale: int
    cancelled: int
    rate: float | None = Field(
        description="Jobs that end in a minute, over the last minutes of this work; null where nothing waits or has ended."
    )
    estimated_end: datetime | None = Field(
        description="When what waits, runs and is awaited will be done at this rate; null where nobody can know."
    )


class TableProgress(Progress):
    """How far a table got."""

    table: str = Field(examples=[_TABLE])
    name: str = Field(examples=["sources"])
    project: str


class ProgressReport(Progress):
    """How far tables got, in all and one by one."""

    tables: list[TableProgress] = Field(description="A page of them, by their ids.")
    next: str | None = Field(description="Give it as `after` for the next page; null on the last one.")
