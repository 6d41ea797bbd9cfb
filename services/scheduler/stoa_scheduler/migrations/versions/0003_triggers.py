"""Triggers and when they fire next."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the triggers of tables."""
    op.create_table(
        "trigger",
        sa.Column("trigger", sa.String(36), nullable=False),
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("specification", sa.JSON, nullable=False),
        sa.Column("set_by", sa.String(200), nullable=False),
        sa.Column("next_due", sa.DateTime(timezone=True)),
        sa.Column("fired", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("trigger", name="pk_trigger"),
    )
    op.create_index("ix_trigger_table", "trigger", ["table_id"])
    op.create_index("ix_trigger_due", "trigger", ["next_due"])
