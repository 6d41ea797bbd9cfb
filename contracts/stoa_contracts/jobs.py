"""The message on the job queue. It is a command, not an event: the queue in SQL is what counts."""

from __future__ import annotations

from pydantic import Field

from stoa_contracts.types import Digest, Frozen, Values

__all__ = ["JobRequest"]


class JobRequest(Frozen):
    """Run this job: everything the executor has to know, so that it never reads a table."""

    job: str
    attempt: int = Field(ge=1)
    max_attempts: int = Field(ge=1, description="A temporary failure of an earlier attempt is followed by another one.")
    table: str
    row: int
    revision: int
    workflow_version: Digest
    inputs: Values
    requested_by: str
    correlationid: str
    causationid: str = Field(description="The id of the `job-queued` event.")
    traceparent: str | None = None
    force: bool = Field(default=False, description="Whether to run it even where a job with the same key has ended.")
