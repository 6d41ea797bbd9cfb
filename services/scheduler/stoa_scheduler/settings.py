"""What the scheduler can be told."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from stoa_chassis.settings import ServiceSettings

__all__ = ["SchedulerSettings"]


class SchedulerSettings(ServiceSettings):
    """The scheduler's settings: ``STOA_SCHEDULER_…``, or the section ``[scheduler]``."""

    service: ClassVar[str] = "scheduler"

    window: int = Field(
        default=128,
        ge=1,
        le=10_000,
        description=(
            "The most jobs that are handed to the bus and have not started. Fewer are, as long as fewer start within two"
            " seconds: what is handed out can no longer be overtaken."
        ),
    )
    smallest_window: int = Field(default=8, ge=1, le=10_000, description="As many are handed out at any rate.")
    max_attempts: int = Field(default=3, ge=1, le=100, description="How often a job is tried that fails temporarily.")
    limit_per_table: int | None = Field(
        default=None,
        ge=0,
        description="So many jobs of a table are handed out and have not ended at most, where the table has no limit of its own.",
    )
    limit_per_person: int | None = Field(
        default=None,
        ge=0,
        description="So many jobs of a person are handed out and have not ended at most, where the person has no limit of their own.",
    )
    start_lease: float = Field(
        default=60.0,
        gt=0,
        description="Seconds after which a job that was handed out and has not started is handed out again.",
    )
    run_lease: float = Field(
        default=1800.0,
        gt=0,
        description="Seconds after which a job that started and has not ended is handed out again; the executor drops it if it runs.",
    )
    after_timeout: float = Field(
        default=10.0, gt=0, description="The most seconds that a command waits for a change that it is to follow."
    )
