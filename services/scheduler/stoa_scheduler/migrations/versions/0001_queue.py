"""The log, the queue and what is known of tables and rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from stoa_chassis.migrations import create_log_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_instant = sa.DateTime(timezone=True)


def upgrade() -> None:
    create_log_tables()
    op.create_table(
        "table_state",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("workflow_version", sa.String(64)),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("mode", sa.String(20), nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_table_state"),
    )
    op.create_index("ix_table_state_name", "table_state", ["name"])
    op.create_table(
        "row_state",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("job", sa.String(36)),
        sa.Column("output_version", sa.String(64)),
        sa.PrimaryKeyConstraint("table_id", "row", name="pk_row_state"),
    )
    op.create_index("ix_row_state_status", "row_state", ["table_id", "status", "row"])
    op.create_table(
        "run",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("workflow_version", sa.String(64), nullable=False),
        sa.Column("requested_by", sa.String(200), nullable=False),
        sa.Column("reason", sa.String(20), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("jobs", sa.Integer, nullable=False),
        sa.Column("queued", _instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("run", sa.String(36), nullable=False),
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("workflow_version", sa.String(64), nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("requested_by", sa.String(200), nullable=False),
        sa.Column("correlationid", sa.String(200), nullable=False),
        sa.Column("causationid", sa.String(36), nullable=False),
        sa.Column("traceparent", sa.String(200)),
        sa.Column("queued", _instant, nullable=False),
        sa.Column("not_before", _instant),
        sa.Column("started", _instant),
        sa.Column("finished", _instant),
        sa.Column("outcome", sa.String(20)),
        sa.Column("exit_code", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("host", sa.String(255)),
        sa.Column("usage", sa.JSON),
        sa.Column("log", sa.JSON),
        sa.Column("earlier", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
    )
    op.create_index("ix_job_next", "job", ["state", "table_id", "requested_by", "priority", "not_before", "row"])
    op.create_index("ix_job_retries", "job", ["state", "not_before"])
    op.create_index("ix_job_row", "job", ["table_id", "row", "id"])
    op.create_index("ix_job_table", "job", ["table_id", "id"])
    op.create_index("ix_job_run", "job", ["run", "state", "started", "finished"])
    op.create_table(
        "backlog",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("requested_by", sa.String(200), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("waiting", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("table_id", "requested_by", "priority", name="pk_backlog"),
    )
    op.create_table(
        "dispatch",
        sa.Column("job", sa.String(36), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("requested_by", sa.String(200), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("started", sa.Boolean, nullable=False),
        sa.Column("published", sa.Integer, nullable=False),
        sa.Column("due", _instant, nullable=False),
        sa.PrimaryKeyConstraint("job", name="pk_dispatch"),
    )
    op.create_index("ix_dispatch_due", "dispatch", ["due"])
    op.create_table(
        "idempotency_key",
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("time", _instant, nullable=False),
        sa.PrimaryKeyConstraint("key", "actor", name="pk_idempotency_key"),
    )
