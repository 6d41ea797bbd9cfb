"""Fixtures of the scheduler's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scheduler.site import Site
from tests.support.brokers import broker, made_broker

__all__ = ["broker", "made_broker", "site"]


@pytest.fixture
async def site(database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Give the scheduler's parts on an empty database."""
    site = Site(database_url, tmp_path)
    yield site
    await site.database.aclose()
