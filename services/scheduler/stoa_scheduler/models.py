"""The scheduler's tables in SQL: the read model, and beside it what is only true while it works."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from stoa_chassis.idempotency import idempotency_key
from stoa_chassis.migrations import merged
from stoa_contracts.types import RowStatus

__all__ = [
    "UtcDateTime",
    "awaited",
    "backlog",
    "dispatch",
    "ended",
    "idempotency",
    "job",
    "metadata",
    "progress",
    "read_model",
    "row_state",
    "run",
    "run_limit",
    "table_state",
    "trigger",
    "workflow",
]

_NAMING = {"pk": "pk_%(table_name)s"}


class UtcDateTime(TypeDecorator[datetime]):
    """An instant, in UTC on every database: SQLite would forget the zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store in UTC."""
        del dialect
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read with the zone."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


#: What the projection computes from events, and nothing else: a rebuild gives the same rows.
read_model = sa.MetaData(naming_convention=_NAMING)

table_state = sa.Table(
    "table_state",
    read_model,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("workflow_version", sa.String(64), doc="Null until the worktable has a workflow"),
    sa.Column("inputs", sa.JSON, nullable=False, doc="The workflow's inputs: domain.InputColumn by name"),
    sa.Column("mode", sa.String(20), nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Index("ix_table_state_name", "name"),
    sa.Index("ix_table_state_project", "project", "id"),
)

#: The inputs of each workflow version that a table has had: pinned rows run an earlier one.
workflow = sa.Table(
    "workflow",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("version", sa.String(64), primary_key=True),
    sa.Column("inputs", sa.JSON, nullable=False, doc="domain.InputColumn"),
)

row_state = sa.Table(
    "row_state",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("inputs", sa.JSON, nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("job", sa.String(36), doc="The last job for the present revision and workflow version"),
    sa.Column(
        "output_version", sa.String(64), doc="The workflow version that the outputs of the present revision came from"
    ),
    sa.Column("suspected", sa.Boolean, nullable=False, doc="Something that it depends on is being computed anew"),
    sa.Column("pinned", sa.String(64), doc="The workflow version that it stays with; null where it follows the table"),
    sa.Column("locked", sa.Boolean, nullable=False),
    sa.Index("ix_row_state_status", "table_id", "status", "row"),
)

run = sa.Table(
    "run",
    read_model,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("table_id", sa.String(36), nullable=False),
    sa.Column("workflow_version", sa.String(64), nullable=False),
    sa.Column("requested_by", sa.String(200), nullable=False),
    sa.Column("reason", sa.String(20), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("jobs", sa.Integer, nullable=False),
    sa.Column("queued", UtcDateTime, nullable=False),
    sa.Column("force", sa.Boolean, nullable=False),
    sa.Column("trigger", sa.String(36)),
    sa.Column("awaited", sa.Integer, nullable=False, doc="Rows that wait until what they depend on is settled"),
    sa.Column("reused", sa.Integer, nullable=False, doc="Jobs that took the outputs of an earlier one"),
)

#: Rows that were asked for and wait until what they depend on is settled.
awaited = sa.Table(
    "awaited",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("run", sa.String(36), nullable=False),
    sa.Column("requested_by", sa.String(200), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("force", sa.Boolean, nullable=False),
    sa.Index("ix_awaited_run", "run"),
    sa.Index("ix_awaited_person", "requested_by"),
)

job = sa.Table(
    "job",
    read_model,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("run", sa.String(36), nullable=False),
    sa.Column("table_id", sa.String(36), nullable=False),
    sa.Column("row", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("workflow_version", sa.String(64), nullable=False),
    sa.Column("inputs", sa.JSON, nullable=False),
    sa.Column("state", sa.String(20), nullable=False, doc="waiting, running, succeeded, failed or cancelled"),
    sa.Column("attempt", sa.Integer, nullable=False, doc="The attempt that comes next, runs or was the last"),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("requested_by", sa.String(200), nullable=False),
    sa.Column("correlationid", sa.String(200), nullable=False),
    sa.Column("causationid", sa.String(36), nullable=False, doc="The job-queued event"),
    sa.Column("traceparent", sa.String(200)),
    sa.Column("queued", UtcDateTime, nullable=False),
    sa.Column("not_before", UtcDateTime, doc="Of a later attempt; null for the first one"),
    sa.Column("started", UtcDateTime),
    sa.Column("finished", UtcDateTime),
    sa.Column("outcome", sa.String(20)),
    sa.Column("exit_code", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("host", sa.String(255)),
    sa.Column("usage", sa.JSON(none_as_null=True)),
    sa.Column("log", sa.JSON(none_as_null=True), doc="A FileReference"),
    sa.Column("earlier", sa.JSON(none_as_null=True), doc="Earlier attempts, first one first: domain.Attempt"),
    sa.Column("force", sa.Boolean, nullable=False, default=False),
    sa.Column("reused_from", sa.String(36), doc="The job whose outputs it took"),
    # The first index gives the next jobs of one group in row order, the second one the retries that are due, and the
    # last one all that is told of a run.
    sa.Index("ix_job_next", "state", "table_id", "requested_by", "priority", "not_before", "row"),
    sa.Index("ix_job_retries", "state", "not_before"),
    sa.Index("ix_job_row", "table_id", "row", "id"),
    sa.Index("ix_job_table", "table_id", "id"),
    sa.Index("ix_job_run", "run", "state", "started", "finished"),
)

#: How many jobs wait, so that nobody has to count 100,000 of them to choose the next one.
backlog = sa.Table(
    "backlog",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("requested_by", sa.String(200), primary_key=True),
    sa.Column("priority", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("waiting", sa.BigInteger, nullable=False),
)

#: How many rows of a table have which status, so that nobody has to count them.
progress = sa.Table(
    "progress",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    *(sa.Column(status, sa.BigInteger, nullable=False) for status in get_args(RowStatus)),
    sa.Column("awaited", sa.BigInteger, nullable=False),
    sa.Column("busy_since", UtcDateTime, doc="When a row was queued while none was queued or running"),
)

#: How many jobs of a table ended within some seconds; the last day is kept.
ended = sa.Table(
    "ended",
    read_model,
    sa.Column("table_id", sa.String(36), primary_key=True),
    sa.Column("moment", sa.BigInteger, primary_key=True, autoincrement=False, doc="progress.moment_of"),
    sa.Column("jobs", sa.Integer, nullable=False),
)

#: How many jobs of a table or of a person are in flight at most, where it is not the default.
run_limit = sa.Table(
    "run_limit",
    read_model,
    sa.Column("kind", sa.String(10), primary_key=True, doc="table or person"),
    sa.Column("name", sa.String(200), primary_key=True, doc="The table's id, or the person"),
    sa.Column("running", sa.Integer, nullable=False),
)

#: What starts a table's runs without a person, and when it fires next.
trigger = sa.Table(
    "trigger",
    read_model,
    sa.Column("trigger", sa.String(36), primary_key=True),
    sa.Column("table_id", sa.String(36), nullable=False),
    sa.Column("specification", sa.JSON, nullable=False, doc="A contracts' Trigger"),
    sa.Column("set_by", sa.String(200), nullable=False, doc="Who runs are asked for by"),
    sa.Column("next_due", UtcDateTime, doc="Null while it is paused, or waits for something to happen"),
    sa.Column("fired", UtcDateTime),
    sa.Index("ix_trigger_table", "table_id"),
    sa.Index("ix_trigger_due", "next_due"),
)

_operational = sa.MetaData(naming_convention=_NAMING)

#: Attempts that were handed to the bus and have not ended. No part of the read model: if these rows were lost, the
#: attempts would be handed out once more under the same ids, and the executor drops what it has.
dispatch = sa.Table(
    "dispatch",
    _operational,
    sa.Column("job", sa.String(36), primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("table_id", sa.String(36), nullable=False),
    sa.Column("requested_by", sa.String(200), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("started", sa.Boolean, nullable=False),
    sa.Column("published", sa.Integer, nullable=False, doc="How many times"),
    sa.Column("due", UtcDateTime, nullable=False, doc="When it is handed out again if nothing is heard"),
    sa.Index("ix_dispatch_due", "due"),
)

idempotency = idempotency_key(_operational)

#: Everything but the log.
metadata = merged(read_model, _operational)
