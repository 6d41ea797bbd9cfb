"""What happens to running jobs. The stream of each event is the table's id."""

from __future__ import annotations

from pydantic import Field

from stoa_contracts.registry import Event, event
from stoa_contracts.types import Digest, FileReference, Outcome, Timestamp, Usage, Values

__all__ = ["JobFinished", "JobStarted"]


@event("executor", "job-started")
class JobStarted(Event):
    """An attempt at a job started on a host."""

    table: str
    job: str
    attempt: int
    row: int
    revision: int
    workflow_version: Digest
    host: str
    started: Timestamp


@event("executor", "job-finished")
class JobFinished(Event):
    """An attempt at a job ended. Where `final` is false, another attempt follows."""

    table: str
    job: str
    attempt: int
    row: int
    revision: int
    workflow_version: Digest
    outcome: Outcome
    final: bool = Field(description="Whether this was the last attempt at the job.")
    exit_code: int | None = Field(
        default=None, description="Of the tool that decided the outcome; null where none ran."
    )
    outputs: Values | None = Field(
        default=None, description="The CWL output object, files by digest; null unless it succeeded."
    )
    error: str | None = Field(default=None, description="One sentence for people; null if it succeeded.")
    host: str
    software: dict[str, str] = Field(default_factory=dict, description="Name to version of what ran the job.")
    started: Timestamp
    finished: Timestamp
    usage: Usage
    log: FileReference | None = Field(default=None, description="What the tools wrote to their error streams.")
