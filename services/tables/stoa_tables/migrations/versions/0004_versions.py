"""The workflow versions that a table ever had."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "table_version",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("time", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("last_time", sa.String(40), nullable=False),
        sa.Column("last_actor", sa.String(200), nullable=False),
        sa.Column("columns", sa.JSON),
        sa.PrimaryKeyConstraint("table_id", "version", name="pk_table_version"),
    )
