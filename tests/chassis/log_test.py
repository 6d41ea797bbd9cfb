"""The log is gapless, append-only and verifiable, on every database."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.database import Database
from stoa_chassis.log import Broken, ConflictError, Log, event, read_checkpoint, write_checkpoint
from stoa_contracts.canonical import canonical_json
from stoa_contracts.events.tables import RowsRemoved
from tests.chassis.observatory import ORIGIN, opened, pointed

ANYTHING = st.text(min_size=1, max_size=20)


async def test_positions_are_gapless_under_concurrent_writers(database_url: str) -> None:
    with opened(database_url) as (database, store):
        writers = [Database(database_url) for _ in range(4)]

        async def write(number: int) -> None:
            stream = f"telescope-{number % 5}"
            await writers[number % 4].write(
                lambda connection: store.log.append(connection, stream, [pointed(stream)] * (1 + number % 3), ORIGIN)
            )

        async def follow() -> list[int]:
            seen: list[int] = []
            while len(seen) < 396:
                found = await database.read(
                    lambda connection: store.log.read(connection, after=seen[-1] if seen else 0)
                )
                seen.extend(envelope.log_position for envelope in found)
            return seen

        follower = asyncio.create_task(follow())
        await asyncio.gather(*(write(number) for number in range(198)))
        # A follower by position misses nothing, although others write while it reads.
        assert await follower == list(range(1, 397))
        with database.reading() as connection:
            assert [step for step in store.log.verify(connection) if isinstance(step, Broken)] == []
        for writer in writers:
            await writer.aclose()
        await database.aclose()


def test_a_stream_that_moved_on_refuses(database_url: str) -> None:
    with opened(database_url) as (database, store), database.writing() as connection:
        store.log.append(connection, "a", [pointed("a"), pointed("a")], ORIGIN, expected_version=0)
        store.log.append(connection, "b", [pointed("b")], ORIGIN, expected_version=0)
        with pytest.raises(ConflictError, match="Stream a is at version 2, not at 1"):
            store.log.append(connection, "a", [pointed("a")], ORIGIN, expected_version=1)
        assert store.log.head(connection) == 3
        assert [envelope.streamversion for envelope in store.log.read(connection)] == [1, 2, 1]
        assert [envelope.log_position for envelope in store.log.read(connection, stream="b")] == [3]


def test_what_was_written_is_read_byte_for_byte(database_url: str) -> None:
    with opened(database_url) as (database, store):
        with database.writing() as connection:
            written = store.log.append(connection, "é\N{SNOWMAN}", [pointed("Tycho's «quoted» \\ name")], ORIGIN)
        with database.reading() as connection:
            read = store.log.read(connection)
        assert [envelope.to_bytes() for envelope in read] == [envelope.to_bytes() for envelope in written]


@pytest.mark.parametrize("statement", ["UPDATE event SET actor = 'eve'", "DELETE FROM event", "TRUNCATE event"])
def test_the_database_refuses_to_change_the_log(database_url: str, statement: str) -> None:
    if statement.startswith("TRUNCATE") and database_url.startswith("sqlite"):
        statement = "DELETE FROM event WHERE position = 1"
    with opened(database_url) as (database, store):
        with database.writing() as connection:
            store.log.append(connection, "a", [pointed("a")], ORIGIN)
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), database.engine.begin() as connection:
            connection.execute(sa.text(statement))
        with database.reading() as connection:
            assert store.log.head(connection) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("data", "replace(data, 'automatic', 'automatiC')"),
        ("data", "data || ' '"),
        ("actor", "'eve'"),
        ("time", "'2026-01-01T00:00:00.000000Z'"),
        ("correlationid", "'another'"),
        ("causationid", "'made up'"),
        ("stream", "'b'"),
        ("type", "'job-queued'"),
        ("schema_version", "1"),
        ("id", "'0'"),
        ("chain", "replace(chain, substr(chain, 1, 1), 'g')"),
    ],
)
def test_one_changed_byte_is_found_and_said_where(tmp_path: Path, column: str, value: str) -> None:
    file = tmp_path / "log.sqlite"
    with opened(f"sqlite:///{file}") as (database, store):
        with database.writing() as connection:
            for number in range(30):
                store.log.append(connection, "a", [pointed(f"telescope {number}")], ORIGIN)
        _tamper(file, f"UPDATE event SET {column} = {value} WHERE position = 17")
        with database.reading() as connection:
            found = [step for step in store.log.verify(connection, batch=7) if isinstance(step, Broken)]
        assert [broken.position for broken in found] == [17]


def test_a_missing_event_is_found(tmp_path: Path) -> None:
    file = tmp_path / "log.sqlite"
    with opened(f"sqlite:///{file}") as (database, store):
        with database.writing() as connection:
            for number in range(10):
                store.log.append(connection, str(number), [pointed("a")], ORIGIN)
        _tamper(file, "DELETE FROM event WHERE position IN (4, 5)")
        with database.reading() as connection:
            (*_, broken) = store.log.verify(connection)
        assert isinstance(broken, Broken)
        assert broken.problem == "positions 4 to 5 are missing"


def _tamper(file: Path, statement: str) -> None:
    # Whoever holds the file can drop the triggers: this is what the chain is for.
    with sqlite3.connect(file) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            assert re.fullmatch(r"\w+", name)
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
    connection.close()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(ANYTHING, max_size=3)), max_size=12))
def test_positions_and_versions_count_without_gaps(
    tmp_path_factory: pytest.TempPathFactory, appends: list[tuple[str, list[str]]]
) -> None:
    file = tmp_path_factory.mktemp("log") / "log.sqlite"
    with opened(f"sqlite:///{file}") as (database, store):
        with database.writing() as connection:
            for stream, names in appends:
                store.log.append(connection, stream, [pointed(name) for name in names], ORIGIN)
        with database.reading() as connection:
            read = store.log.read(connection)
            assert [item.log_position for item in read] == list(range(1, len(read) + 1))
            for stream in "abc":
                own = [item for item in read if item.subject == stream]
                assert [item.streamversion for item in own] == list(range(1, len(own) + 1))
                assert store.log.version(connection, stream) == len(own)
            assert not any(isinstance(step, Broken) for step in store.log.verify(connection))


def test_an_event_of_another_service_keeps_its_owner(database_url: str) -> None:
    with opened(database_url) as (database, _), database.writing() as connection:
        (envelope,) = Log("tables").append(connection, "t", [RowsRemoved(table="t", rows=[1])], ORIGIN)
        assert (envelope.service, envelope.bus_subject) == ("tables", "stoa.tables.t.rows-removed")


def test_a_checkpoint_moves(database_url: str) -> None:
    with opened(database_url) as (database, _), database.writing() as connection:
        assert read_checkpoint(connection, "me", "tables") == 0
        write_checkpoint(connection, "me", "tables", 5)
        write_checkpoint(connection, "me", "tables", 9)
        write_checkpoint(connection, "me", "executor", 1)
        assert read_checkpoint(connection, "me", "tables") == 9


def test_the_log_needs_no_more_columns_than_it_says() -> None:
    assert [column.name for column in event.columns] == [
        "position", "id", "stream", "version", "type", "schema_version", "time", "actor",
        "correlationid", "causationid", "traceparent", "data", "chain",
    ]  # fmt: skip


def test_what_is_sent_is_what_was_written(database_url: str) -> None:
    with opened(database_url) as (database, store), database.writing() as connection:
        facts = [RowsRemoved(table="Größe", rows=[number]) for number in range(1, 6)]
        store.log.append(connection, "Größe", facts, ORIGIN)
        sent = list(store.log.read_written(connection, after=1, limit=3))
        read = store.log.read(connection, after=1, limit=3)
        assert [head.log_position for head, _ in sent] == [2, 3, 4]
        assert [body for _, body in sent] == [envelope.to_bytes() for envelope in read]
        whole = [envelope.model_dump(mode="json", exclude_none=True) for envelope in read]
        assert [body for _, body in sent] == [canonical_json(content) for content in whole]
