"""The log, what is known of jobs, and who runs them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from stoa_chassis.migrations import create_log_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_log_tables()
    op.create_table(
        "job",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("outcome", sa.String(20)),
        sa.Column("error", sa.Text),
        sa.Column("log_sha256", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
    )
    op.create_table(
        "claim",
        sa.Column("job", sa.String(36), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("token", sa.String(36), nullable=False),
        sa.Column("starts", sa.Integer, nullable=False),
        sa.Column("place", sa.String(500), nullable=False),
        sa.Column("beat", sa.Float, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job", name="pk_claim"),
    )
    op.create_index("ix_claim_place", "claim", ["place"])
