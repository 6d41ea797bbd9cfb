"""Rows that are awaited, limits, and how fast tables are computed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATUSES = ("stale", "queued", "running", "current", "failed", "cancelled")


def upgrade() -> None:
    """Change the schema; the read model is computed anew from the log."""
    op.add_column("table_state", sa.Column("project", sa.String(200), nullable=False, server_default="default"))
    op.create_index("ix_table_state_project", "table_state", ["project", "id"])
    for name in ("suspected", "locked"):
        op.add_column("row_state", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("row_state", sa.Column("pinned", sa.String(64)))
    op.add_column("run", sa.Column("force", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("run", sa.Column("trigger", sa.String(36)))
    for name in ("awaited", "reused"):
        op.add_column("run", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.add_column("job", sa.Column("force", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("job", sa.Column("reused_from", sa.String(36)))
    op.create_table(
        "workflow",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("table_id", "version", name="pk_workflow"),
    )
    op.create_table(
        "awaited",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("run", sa.String(36), nullable=False),
        sa.Column("requested_by", sa.String(200), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("force", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("table_id", "row", name="pk_awaited"),
    )
    op.create_index("ix_awaited_run", "awaited", ["run"])
    op.create_index("ix_awaited_person", "awaited", ["requested_by"])
    op.create_table(
        "progress",
        sa.Column("table_id", sa.String(36), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in (*_STATUSES, "awaited")),
        sa.Column("busy_since", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("table_id", name="pk_progress"),
    )
    op.create_table(
        "ended",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("moment", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("jobs", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("table_id", "moment", name="pk_ended"),
    )
    op.create_table(
        "run_limit",
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("running", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_run_limit"),
    )
