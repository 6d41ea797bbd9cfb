"""What happens in the queue. The stream of each event is the table's id."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stoa_contracts.registry import Event, event
from stoa_contracts.types import Digest, Frozen, JobReference, Mode, Values

__all__ = ["JobCancelled", "JobQueued", "QueuedJob", "TriggerSet"]


class QueuedJob(Frozen):
    """A job: one row revision and the full input object, so that nobody has to read the table again."""

    job: str
    row: int
    revision: int
    inputs: Values


@event("scheduler", "job-queued")
class JobQueued(Event):
    """Jobs were queued in one step; a large step is several events of one `run`."""

    table: str
    run: str = Field(description="What was asked for in one command or by one trigger.")
    requested_by: str
    reason: Literal["command", "automatic"]
    workflow_version: Digest
    priority: int = Field(default=0, description="Higher goes first.")
    jobs: list[QueuedJob]


@event("scheduler", "job-cancelled")
class JobCancelled(Event):
    """Jobs were cancelled: waiting ones never start, running ones are stopped."""

    table: str
    jobs: list[JobReference]
    reason: str


@event("scheduler", "trigger-set")
class TriggerSet(Event):
    """What starts a table's runs was set: a person (`manual`), or each change that makes rows stale (`automatic`)."""

    table: str
    mode: Mode
    previous: Mode
