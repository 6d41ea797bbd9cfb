"""Flags, comments, locks and views, and the steps that can be undone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of what people say of rows, and of what they can undo."""
    op.create_table(
        "flag",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("flag", sa.String(63), nullable=False),
        sa.Column("colour", sa.String(7), nullable=False),
        sa.Column("description", sa.Text),
        sa.PrimaryKeyConstraint("table_id", "flag", name="pk_flag"),
    )
    op.create_table(
        "row_flag",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("flag", sa.String(63), nullable=False),
        sa.PrimaryKeyConstraint("table_id", "row", "flag", name="pk_row_flag"),
    )
    op.create_index("ix_row_flag_flag", "row_flag", ["table_id", "flag"])
    op.create_table(
        "comment",
        sa.Column("comment", sa.String(36), nullable=False),
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False),
        sa.Column("element", sa.BigInteger),
        sa.Column("column", sa.String(200)),
        sa.Column("replies_to", sa.String(36)),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("edited", sa.String(40)),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("comment", name="pk_comment"),
    )
    op.create_index("ix_comment_row", "comment", ["table_id", "row"])
    op.create_index("ix_comment_position", "comment", ["table_id", "position"])
    op.create_table(
        "comment_version",
        sa.Column("comment", sa.String(36), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("text", sa.Text),
        sa.Column("time", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("comment", "position", name="pk_comment_version"),
    )
    op.create_table(
        "row_lock",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("time", sa.String(40), nullable=False),
        sa.Column("withheld", sa.JSON),
        sa.Column("gone", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("table_id", "row", name="pk_row_lock"),
    )
    op.create_table(
        "saved_view",
        sa.Column("view", sa.String(36), nullable=False),
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("specification", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("view", name="pk_saved_view"),
    )
    op.create_index("ix_saved_view_table_id", "saved_view", ["table_id"])
    op.create_table(
        "edit_step",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("correlationid", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("time", sa.String(40), nullable=False),
        sa.Column("undone", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("table_id", "position", name="pk_edit_step"),
    )
    op.create_index("ix_edit_step_actor", "edit_step", ["table_id", "actor", "position"])
    op.create_table(
        "edit_step_event",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("undone", sa.Boolean, nullable=False),
        sa.Column("live", sa.Boolean, nullable=False),
        sa.Column("corrected", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_edit_step_event"),
    )
    op.create_index("ix_edit_step_event_step", "edit_step_event", ["table_id", "step"])
    op.create_table(
        "removed_row",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("pinned", sa.String(64)),
        sa.PrimaryKeyConstraint("table_id", "row", name="pk_removed_row"),
    )
