"""The log, the tables with their rows and links, and the files of their workflows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from stoa_chassis.migrations import create_log_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_derived = sa.text("link IS NOT NULL")


def upgrade() -> None:
    create_log_tables()
    op.create_table(
        "worktable",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("folded_name", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("columns", sa.JSON, nullable=False),
        sa.Column("workflow_version", sa.String(64)),
        sa.Column("next_row", sa.BigInteger, nullable=False),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_worktable"),
    )
    op.create_index("ix_worktable_folded_name", "worktable", ["folded_name"])
    op.create_table(
        "row",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("outputs", sa.JSON),
        sa.Column("elements", sa.BigInteger),
        sa.Column("outputs_revision", sa.BigInteger),
        sa.Column("outputs_version", sa.String(64)),
        sa.Column("outputs_job", sa.String(100)),
        sa.Column("job", sa.String(100)),
        sa.Column("attempt", sa.Integer),
        sa.Column("link", sa.String(36)),
        sa.Column("key", sa.String(64)),
        sa.Column("left_row", sa.BigInteger),
        sa.Column("left_element", sa.BigInteger),
        sa.Column("right_row", sa.BigInteger),
        sa.Column("right_element", sa.BigInteger),
        sa.Column("corrected", sa.JSON),
        sa.PrimaryKeyConstraint("table_id", "row", name="pk_row"),
    )
    op.create_index("ix_row_key", "row", ["link", "key"], sqlite_where=_derived, postgresql_where=_derived)
    op.create_index("ix_row_left", "row", ["link", "left_row"], sqlite_where=_derived, postgresql_where=_derived)
    op.create_index("ix_row_right", "row", ["link", "right_row"], sqlite_where=_derived, postgresql_where=_derived)
    op.create_index("ix_row_status", "row", ["table_id", "status"])
    op.create_table(
        "element",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("element", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("outputs", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("table_id", "row", "element", name="pk_element"),
    )
    op.create_table(
        "status_count",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("table_id", "status", name="pk_status_count"),
    )
    op.create_table(
        "link",
        sa.Column("link", sa.String(36), nullable=False),
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("specification", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("link", name="pk_link"),
    )
    op.create_index("ix_link_table_id", "link", ["table_id"])
    op.create_table(
        "link_parent",
        sa.Column("link", sa.String(36), nullable=False),
        sa.Column("side", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("link", "side", name="pk_link_parent"),
    )
    op.create_index("ix_link_parent_table_id", "link_parent", ["table_id"])
    op.create_table(
        "join_index",
        sa.Column("link", sa.String(36), nullable=False),
        sa.Column("side", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("row", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("element", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("link", "side", "row", "element", name="pk_join_index"),
    )
    op.create_index("ix_join_index_key", "join_index", ["link", "side", "key"])
    op.create_table(
        "workflow_version",
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("main", sa.Text, nullable=False),
        sa.Column("process_class", sa.String(100), nullable=False),
        sa.Column("files", sa.JSON, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("description", sa.Text),
        sa.PrimaryKeyConstraint("version", name="pk_workflow_version"),
    )
    op.create_table(
        "row_event",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("job", sa.String(100)),
        sa.PrimaryKeyConstraint("table_id", "row", "position", name="pk_row_event"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "blob",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_blob"),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", "actor", name="pk_idempotency_key"),
    )
