"""Links that change, and corrections that are reviewed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_corrected = sa.text("corrected IS NOT NULL")
_review = sa.text("review")


def upgrade() -> None:
    op.add_column("row", sa.Column("review", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index(
        "ix_row_corrected", "row", ["table_id", "row"], sqlite_where=_corrected, postgresql_where=_corrected
    )
    op.create_index("ix_row_review", "row", ["table_id", "row"], sqlite_where=_review, postgresql_where=_review)
