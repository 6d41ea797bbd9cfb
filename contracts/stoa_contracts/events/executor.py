"""What happens to running jobs, and to the files that they read.

The stream of a job's events is the table's id, that of `file-changed` is `files`.
"""

from __future__ import annotations

from pydantic import Field

from stoa_contracts.registry import Event, event
from stoa_contracts.types import Digest, FileReference, InputFile, JobKey, Outcome, Timestamp, Usage, Values

__all__ = ["FileChanged", "JobFinished", "JobStarted"]


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


@event("executor", "job-finished", version=2)
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
    key: JobKey | None = Field(default=None, description="What decided the outputs; null where no tool was run.")
    files: list[InputFile] = Field(
        default_factory=list, description="What the job read from places whose content may change."
    )
    reused_from: str | None = Field(
        default=None, description="The job with the same key whose outputs these are; null where it was run."
    )


@event("executor", "file-changed")
class FileChanged(Event):
    """A file or a directory that jobs have read holds something else now, or is gone."""

    location: str
    previous: Digest
    sha256: Digest | None = Field(description="What it holds now; null where it is gone or cannot be read.")
    size: int | None = Field(default=None, ge=0, description="Bytes; null for a directory.")
