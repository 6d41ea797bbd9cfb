"""Evolve: events to the read model. It depends on nothing but events and the read model, so a rebuild gives the same."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from stoa_chassis.projection import ReadModel
from stoa_contracts.envelope import Envelope
from stoa_executor.models import read_model
from stoa_executor.watched import note_change, watch_files

__all__ = ["ExecutorProjection"]


class ExecutorProjection:
    """Keeps what became of each job, its newest attempt, outcome, log and key; and the files that jobs have read."""

    name = "executor"
    metadata = read_model
    version = 1

    def __init__(self) -> None:
        self._statements: dict[sa.Table, _Statements] = {}

    def apply(self, connection: sa.Connection, tables: ReadModel, envelope: Envelope) -> None:
        """Change the read model by one event."""
        job = tables["job"]
        statements = self._statements.get(job)
        if statements is None:
            statements = self._statements[job] = _Statements(job)
        data = envelope.data
        match envelope.service, envelope.name:
            case "executor", "job-started":
                _started(connection, statements, data)
            case "executor", "job-finished":
                _finished(connection, statements, data, envelope.log_position)
                if data.get("files"):
                    watch_files(connection, tables["watched_file"], data["files"])
            case "executor", "file-changed":
                note_change(connection, tables["watched_file"], data)
            case "scheduler", "job-cancelled":
                _cancelled(connection, statements, data)


class _Statements:
    """Written once: they run for every job."""

    def __init__(self, job: sa.Table) -> None:
        p = sa.bindparam
        self.insert = sa.insert(job)
        this = job.c.id == p("b_job")
        self.start = (
            sa.update(job)
            .where(this, job.c.attempt <= p("b_attempt"), job.c.state != "cancelled")
            .values(attempt=p("b_attempt"), state="running", outcome=None, error=None)
        )
        columns = ("id", "table_id", "attempt", "state")
        values = sa.select(*(p(name, type_=job.c[name].type) for name in columns)).where(
            ~sa.exists().where(job.c.id == p("id", type_=job.c.id.type))
        )
        self.start_new = sa.insert(job).from_select(columns, values)
        self.find = sa.select(job.c.state).where(this)
        self.finish = (
            sa.update(job)
            .where(this, job.c.attempt <= p("b_attempt"))
            .values(
                attempt=p("b_attempt"),
                state=p("b_state"),
                outcome=p("b_outcome"),
                error=p("b_error"),
                log_sha256=sa.func.coalesce(p("b_log", type_=sa.String), job.c.log_sha256),
                key=p("b_key", type_=sa.String),
                position=p("b_position", type_=sa.BigInteger),
            )
        )
        self.cancel = sa.update(job).where(this).values(state="cancelled")


def _started(connection: sa.Connection, s: _Statements, data: dict[str, Any]) -> None:
    new = {"id": data["job"], "table_id": data["table"], "attempt": data["attempt"], "state": "running"}
    # The first attempt of a job, which is nearly always the case, costs one statement.
    if not connection.execute(s.start_new, new).rowcount:
        connection.execute(s.start, {"b_job": data["job"], "b_attempt": data["attempt"]})


def _finished(connection: sa.Connection, s: _Statements, data: dict[str, Any], position: int) -> None:
    log = data.get("log")
    key = data.get("key")
    # Equal keys lead to the job that really ran, however often its outputs were taken.
    ran = data["outcome"] == "success" and key is not None and data.get("reused_from") is None
    connection.execute(
        s.finish,
        {
            "b_job": data["job"],
            "b_attempt": data["attempt"],
            "b_state": "cancelled" if data["outcome"] == "cancelled" else "finished",
            "b_outcome": data["outcome"],
            "b_error": data.get("error"),
            "b_log": log["sha256"] if log else None,
            "b_key": key["digest"] if key is not None and ran else None,
            "b_position": position if ran else None,
        },
    )


def _cancelled(connection: sa.Connection, s: _Statements, data: dict[str, Any]) -> None:
    for reference in data["jobs"]:
        row = connection.execute(s.find, {"b_job": reference["job"]}).first()
        if row is None:
            connection.execute(
                s.insert, {"id": reference["job"], "table_id": data["table"], "attempt": 0, "state": "cancelled"}
            )
        else:
            # Also where an attempt has failed: the one that would follow must not start.
            connection.execute(s.cancel, {"b_job": reference["job"]})
