"""What the executor can be told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from stoa_chassis.settings import ServiceSettings

__all__ = ["ExecutorSettings"]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ExecutorSettings(ServiceSettings):
    """The executor's settings: ``STOA_EXECUTOR_…``, or the section ``[executor]``."""

    service: ClassVar[str] = "executor"

    workers: int = Field(
        default_factory=_cores, ge=1, le=1024, description="Jobs that run at the same time; default: one per core."
    )
    files: Path | None = Field(default=None, description="Folder of the file store; default: files in the data folder.")
    work: Path | None = Field(
        default=None,
        description=(
            "Folder for running jobs and cached workflows, of this executor alone; default: executor in the data folder."
            " On the disk of the file store, outputs are moved and not copied."
        ),
    )
    input_roots: list[Path] = Field(
        default_factory=list, description="Folders from which jobs may read files by their location file:///…"
    )
    recheck_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Seconds in which every file is looked at once that jobs have read by its location; longer where there are very many.",
    )
    watched_folders: int = Field(
        default=1000,
        ge=0,
        description="So many folders of such files are watched at the most, so that a change is noticed at once; 0 for none.",
    )
    tool_path: str | None = Field(
        default=None, description="Where tools are looked for, after this Python's own folder; default: PATH."
    )
    job_time_limit: float | None = Field(default=None, gt=0, description="Seconds after which any job is ended.")
    job_lease: float = Field(
        default=12.0,
        ge=1,
        description="Seconds of silence after which the queue hands a job to another executor; signs of life come four times as often.",
    )
    max_starts: int = Field(
        default=5, ge=1, description="An attempt that the executor started so often without seeing its end has failed."
    )
    recycle_jobs: int = Field(default=5000, ge=1, description="Jobs after which an engine process is replaced.")
    recycle_bytes: int = Field(default=1 << 30, ge=1, description="Memory from which on an engine process is replaced.")
    max_upload_bytes: int = Field(default=100 << 30, ge=1, description="The largest file that may be uploaded.")
    max_log_bytes: int = Field(
        default=4 << 20, ge=1024, description="Of a longer job log, the beginning and the end are kept."
    )

    @property
    def files_folder(self) -> Path:
        """The folder of the file store."""
        return (self.files or self.data / "files").absolute()

    @property
    def work_folder(self) -> Path:
        """The folder for running jobs."""
        return (self.work or self.data / "executor").absolute()
