"""A command that is sent twice is carried out once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from stoa_chassis.database import Database
from stoa_chassis.idempotency import KeyReusedError, idempotency_key, once

metadata = sa.MetaData()
keys = idempotency_key(metadata)


@pytest.fixture
def database(database_url: str) -> Database:
    database = Database(database_url)
    with database.writing() as connection:
        metadata.create_all(connection)
    return database


def counting() -> tuple[list[int], Callable[[], dict[str, int]]]:
    calls: list[int] = []

    def command() -> dict[str, int]:
        calls.append(1)
        return {"call": len(calls)}

    return calls, command


async def test_the_first_answer_is_given_again(database: Database) -> None:
    calls, command = counting()
    for _ in range(3):
        answer = await database.write(lambda connection: once(connection, keys, "k1", "ada", {"rows": [1]}, command))
        assert answer == {"call": 1}
    assert len(calls) == 1
    await database.write(lambda connection: once(connection, keys, "k1", "grace", {"rows": [1]}, command))
    await database.write(lambda connection: once(connection, keys, None, "ada", {"rows": [1]}, command))
    assert len(calls) == 3
    await database.aclose()


async def test_a_key_with_another_request_is_refused(database: Database) -> None:
    calls, command = counting()
    await database.write(lambda connection: once(connection, keys, "k1", "ada", {"rows": [1]}, command))
    with pytest.raises(KeyReusedError, match="'k1' was used before"):
        await database.write(lambda connection: once(connection, keys, "k1", "ada", {"rows": [2]}, command))
    assert len(calls) == 1
    await database.aclose()


async def test_a_failed_command_leaves_no_answer_behind(database: Database) -> None:
    def fail() -> None:
        raise KeyError("no such table")

    with pytest.raises(KeyError):
        await database.write(lambda connection: once(connection, keys, "k1", "ada", {}, fail))
    assert await database.write(lambda connection: once(connection, keys, "k1", "ada", {}, lambda: "done")) == "done"
    await database.aclose()
