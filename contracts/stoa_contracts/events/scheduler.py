"""What happens in the queue. The stream of each event is the table's id."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stoa_contracts.registry import Event, event
from stoa_contracts.types import Digest, Frozen, JobReference, Mode, Timestamp, Trigger, Values

__all__ = ["JobCancelled", "JobQueued", "LimitSet", "QueuedJob", "RowsAwaited", "TriggerFired", "TriggerSet"]


class QueuedJob(Frozen):
    """A job: one row revision and the full input object, so that nobody has to read the table again."""

    job: str
    row: int
    revision: int
    inputs: Values


@event("scheduler", "job-queued", version=2)
class JobQueued(Event):
    """Jobs were queued in one step; a large step is several events of one `run`."""

    table: str
    run: str = Field(description="What was asked for in one command or by one trigger.")
    requested_by: str
    reason: Literal["command", "automatic", "trigger"]
    workflow_version: Digest
    priority: int = Field(default=0, description="Higher goes first.")
    jobs: list[QueuedJob]
    force: bool = Field(default=False, description="Whether they are run even where a job with the same key has ended.")
    trigger: str | None = Field(default=None, description="The trigger that fired; null where none did.")


@event("scheduler", "job-cancelled")
class JobCancelled(Event):
    """Jobs were cancelled: waiting ones never start, running ones are stopped."""

    table: str
    jobs: list[JobReference]
    reason: str


@event("scheduler", "trigger-set", version=2)
class TriggerSet(Event):
    """What starts a table's runs was set: a person (`manual`), each change that makes rows stale (`automatic`), or its triggers (`scheduled`)."""

    table: str
    mode: Mode
    previous: Mode
    triggers: list[Trigger] = Field(default_factory=list, description="All that the table has now.")


@event("scheduler", "trigger-fired")
class TriggerFired(Event):
    """A trigger fired, once for all schedulers."""

    table: str
    trigger: str
    due: Timestamp | None = Field(description="When it ought to fire; null where something happened that it watches.")
    missed: int = Field(default=0, description="How many earlier firings this one makes up for.")
    run: str | None = Field(description="What it started; null where there was nothing to run.")


@event("scheduler", "rows-awaited")
class RowsAwaited(Event):
    """Rows that were asked for wait until what they depend on is settled, and then run if they still have to."""

    table: str
    run: str
    requested_by: str
    rows: list[int]
    awaited: bool = Field(default=True, description="False where they are no longer asked for.")
    priority: int = 0
    force: bool = False
    reason: Literal["command", "automatic", "trigger"] = "command"
    trigger: str | None = Field(default=None, description="The trigger that fired; null where none did.")


@event("scheduler", "limit-set")
class LimitSet(Event):
    """How many jobs of a table, or of a person, run at once at most was set."""

    table: str | None = None
    person: str | None = None
    running: int | None = Field(ge=0, description="Null where there is no limit of its own.")
    previous: int | None
