from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.tables.harness import Harness, running


@pytest.fixture
async def stoa(database_url: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """Give a running tables service, once over SQLite and once over PostgreSQL."""
    async with running(database_url, tmp_path) as harness:
        yield harness


@pytest.fixture
async def quick(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """Give a running tables service over SQLite, for what does not depend on the database."""
    async with running(sqlite_url, tmp_path) as harness:
        yield harness
