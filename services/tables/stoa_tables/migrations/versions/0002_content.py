"""Whether outputs belong to their rows, by content."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""
    with op.batch_alter_table("row") as row:
        row.add_column(sa.Column("outputs_inputs", sa.String(64)))
        row.add_column(sa.Column("outputs_key", sa.JSON))
        row.add_column(sa.Column("outputs_files", sa.JSON))
        row.add_column(sa.Column("outputs_wall_s", sa.Float))
        row.add_column(sa.Column("files_changed", sa.Integer, nullable=False, server_default="0"))
        row.add_column(sa.Column("accepted_revision", sa.BigInteger))
        row.add_column(sa.Column("accepted_version", sa.String(64)))
        row.add_column(sa.Column("suspected", sa.Boolean, nullable=False, server_default=sa.false()))
        row.add_column(sa.Column("pinned", sa.String(64)))
    with op.batch_alter_table("worktable") as worktable:
        worktable.add_column(sa.Column("element_key", sa.Text))
    with op.batch_alter_table("workflow_version") as version:
        version.add_column(sa.Column("inputs", sa.JSON))
    op.create_table(
        "row_file",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("place", sa.String(64), nullable=False),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("changed", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("table_id", "row", "place", name="pk_row_file"),
    )
    op.create_index("ix_row_file_place", "row_file", ["place", "table_id"])
