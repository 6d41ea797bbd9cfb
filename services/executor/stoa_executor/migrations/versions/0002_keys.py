"""Job keys, and the files that jobs have read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema. Jobs of before have no key: their outputs are not taken for others."""
    op.add_column("job", sa.Column("key", sa.String(64)))
    op.add_column("job", sa.Column("position", sa.BigInteger))
    op.create_index("ix_job_key", "job", ["key", "position"])
    op.create_table(
        "watched_file",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("path", sa.String(64), nullable=False),
        sa.Column("directory", sa.Boolean, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_watched_file"),
    )
    op.create_index("ix_watched_file_path", "watched_file", ["path"])
    op.create_table(
        "file_digest",
        sa.Column("path", sa.String(64), nullable=False),
        sa.Column("state", sa.String(100), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger),
        sa.PrimaryKeyConstraint("path", name="pk_file_digest"),
    )
