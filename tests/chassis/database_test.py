"""Writes are serialised, committed together, and undone one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from stoa_chassis.database import Database, DatabaseUnavailableError
from tests.support.postgres import PostgresServer

metadata = sa.MetaData()
note = sa.Table("note", metadata, sa.Column("number", sa.Integer, primary_key=True), sa.Column("text", sa.Text))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    with database.writing() as connection:
        metadata.create_all(connection)
    yield database
    await database.aclose()


def add(number: int) -> Callable[[sa.Connection], int]:
    def insert(connection: sa.Connection) -> int:
        connection.execute(sa.insert(note).values(number=number))
        return number

    return insert


def count(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(note)).scalar_one())


async def test_one_failing_piece_of_work_undoes_itself_alone(database: Database) -> None:
    def change_and_fail(connection: sa.Connection) -> None:
        connection.execute(sa.insert(note).values(number=1000))
        raise KeyError("refused")

    work = [database.write(add(number)) for number in (1, 2, 2, 3)]
    results = await asyncio.gather(*work[:2], database.write(change_and_fail), *work[2:], return_exceptions=True)
    assert [type(result) for result in results] == [int, int, KeyError, sa.exc.IntegrityError, int]
    assert await database.read(count) == 3


async def test_a_write_is_seen_as_soon_as_it_is_answered(database: Database) -> None:
    for number in range(20):
        await database.write(add(number))
        assert await database.read(count) == number + 1


async def test_concurrent_writers_of_several_processes_lose_nothing(database: Database, database_url: str) -> None:
    others = [Database(database_url) for _ in range(3)]

    def increment(connection: sa.Connection) -> None:
        present = connection.execute(sa.select(note.c.text).where(note.c.number == 0)).scalar_one()
        connection.execute(sa.update(note).where(note.c.number == 0).values(text=str(int(present) + 1)))

    await database.write(lambda connection: connection.execute(sa.insert(note).values(number=0, text="0")))
    await asyncio.gather(*(each.write(increment) for each in [database, *others] for _ in range(50)))
    total = await database.read(lambda connection: connection.execute(sa.select(note.c.text)).scalar_one())
    assert total == "200"
    for other in others:
        await other.aclose()


async def test_a_reader_sees_one_moment(database: Database) -> None:
    reading, written = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def read_twice(connection: sa.Connection) -> tuple[int, int]:
        first = count(connection)
        loop.call_soon_threadsafe(reading.set)
        asyncio.run_coroutine_threadsafe(written.wait(), loop).result(10)
        return first, count(connection)

    reader = asyncio.create_task(database.read(read_twice))
    await reading.wait()
    await database.write(add(1))
    written.set()
    assert await reader == (0, 0)
    assert await database.read(count) == 1


async def test_a_commit_wakes_whoever_listens(database: Database) -> None:
    event = asyncio.Event()
    database.on_commit(event)
    await database.write(add(1))
    await asyncio.wait_for(event.wait(), 5)
    database.forget(event)
    event.clear()
    await database.write(add(2))
    await asyncio.sleep(0.01)
    assert not event.is_set()


async def test_a_closed_database_finishes_what_waits_and_takes_no_more(database_url: str) -> None:
    database = Database(database_url)
    with database.writing() as connection:
        metadata.create_all(connection)
    waiting = [asyncio.create_task(database.write(add(number))) for number in range(50)]
    await asyncio.sleep(0)
    await database.aclose()
    assert await asyncio.gather(*waiting) == list(range(50))
    with pytest.raises(DatabaseUnavailableError, match="closed"):
        await database.write(add(100))


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    database = Database(f"sqlite:///{tmp_path}/file/stoa.sqlite")
    with pytest.raises(DatabaseUnavailableError, match=r"file/stoa\.sqlite cannot be used"):
        await database.write(count)
    await database.aclose()


async def test_postgresql_may_go_and_come_back(postgres_server: PostgresServer) -> None:
    database = Database(postgres_server.create_database())
    with database.writing() as connection:
        metadata.create_all(connection)
    await database.write(add(1))
    postgres_server.stop()
    try:
        with pytest.raises(DatabaseUnavailableError, match="cannot be used"):
            await database.write(add(2))
        with pytest.raises(DatabaseUnavailableError, match="cannot be used"):
            await database.read(count)
    finally:
        postgres_server.start()
    await database.write(add(3))
    assert await database.read(count) == 2
    await database.aclose()


def test_a_password_is_not_shown() -> None:
    database = Database("postgresql+psycopg://ada:secret@127.0.0.1:1/stoa")
    with pytest.raises(DatabaseUnavailableError) as caught, database.writing():
        pass
    assert "secret" not in str(caught.value)
    assert "ada:***@127.0.0.1:1/stoa" in str(caught.value)
