"""Run by alembic."""  # noqa: INP001 - loaded from a folder

from stoa_chassis.migrations import run_migrations
from stoa_tables.models import metadata

run_migrations(metadata)
