"""Run by alembic."""  # noqa: INP001 - loaded by alembic from a folder

from __future__ import annotations

from stoa_chassis.migrations import run_migrations
from stoa_executor.models import metadata

run_migrations(metadata)
