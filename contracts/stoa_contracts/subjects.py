"""The names on the bus: streams and subjects."""

from __future__ import annotations

__all__ = [
    "EVENT_STREAM",
    "JOB_STREAM",
    "SERVICES",
    "event_subjects",
    "job_log_subject",
    "job_subject",
]

#: The stream of all events; its subjects are ``stoa.<service>.<stream-id>.<event-type>``.
EVENT_STREAM = "STOA"

#: The work queue of jobs.
JOB_STREAM = "JOBS"

#: The services that own a log.
SERVICES = ("tables", "scheduler", "executor")


def event_subjects(service: str) -> str:
    """Match every event of a service."""
    return f"stoa.{service}.>"


def job_subject(table: str) -> str:
    """Give the subject on which a table's jobs are queued."""
    return f"jobs.{table}"


def job_log_subject(job: str) -> str:
    """Give the subject on which a running job's log is told live; it is not kept."""
    return f"live.{job}.log"
