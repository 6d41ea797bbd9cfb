from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from pydantic import SecretStr

from stoa_chassis.database import Database
from stoa_chassis.log import Log, Origin
from stoa_chassis.memory_bus import MemoryBroker, MemoryBus
from stoa_chassis.migrations import upgrade
from stoa_chassis.projection import EventStore
from stoa_tables import commands
from stoa_tables.app import SERVICE
from stoa_tables.cascade import Recorder
from stoa_tables.changes import ChangeFeed
from stoa_tables.settings import TablesSettings
from tests.tables.harness import Harness, running


class Listener:
    """Hears what changes, as a browser would."""

    def __init__(self, stoa: Harness, tables: set[str] | None = None, after: int | None = None) -> None:
        self._changes = stoa.feed.listen(tables, after)

    async def next(self, seconds: float = 10) -> Any:
        async with asyncio.timeout(seconds):
            return (await anext(self._changes)).model_dump()


async def _settled(stoa: Harness) -> None:
    """Wait until the feed has read all there is."""
    head = await stoa.head()
    async with asyncio.timeout(10):
        while stoa.feed._position < head:
            await asyncio.sleep(0.01)


async def test_a_listener_hears_which_rows_changed(stoa: Harness) -> None:
    table = (await stoa.worktable("t", {"x": "int"}, {"y": "int"}))["id"]
    await stoa.add("t", {"x": 1}, {"x": 2})
    await _settled(stoa)
    listener = Listener(stoa)
    heard = asyncio.create_task(listener.next())
    await asyncio.sleep(0.05)
    await stoa.patch("/tables/t/rows/2", {"x": 3})
    assert await heard == {
        "position": await stoa.head(),
        "tables": {table: {"counts": {"stale": 2}, "rows": {2: "stale"}, "structure": False}},
    }
    await stoa.run("t", 1, {"y": 1})
    await stoa.request("DELETE", "/tables/t/rows/2", expect=204)
    await _settled(stoa)
    rows: dict[int, Any] = {}
    while set(rows) < {1, 2}:
        rows |= (await listener.next())["tables"][table]["rows"]
    assert rows == {1: "current", 2: None}


async def test_a_listener_who_comes_back_hears_what_was_missed(stoa: Harness) -> None:
    table = (await stoa.plain("t", {"x": "int"}))["id"]
    other = (await stoa.plain("u", {"x": "int"}))["id"]
    position = await stoa.head()
    await stoa.add("t", {"x": 1})
    await stoa.add("u", {"x": 1})
    await stoa.patch("/tables/t", {"description": "New."})
    await _settled(stoa)
    change = await Listener(stoa, after=position).next()
    assert change["position"] == await stoa.head()
    assert change["tables"][table] == {"counts": {"current": 1}, "rows": {1: "current"}, "structure": True}
    only = await Listener(stoa, {other}, after=position).next()
    assert set(only["tables"]) == {other}


async def test_a_listener_from_another_time_loads_everything_anew(quick: Harness) -> None:
    table = (await quick.plain("t", {"x": "int"}))["id"]
    await _settled(quick)
    change = await Listener(quick, after=10_000).next()
    assert change == {
        "position": await quick.head(),
        "tables": {table: {"counts": {}, "rows": None, "structure": True}},
    }


async def test_many_rows_are_not_named_one_by_one(quick: Harness) -> None:
    table = (await quick.plain("t", {"x": "int"}))["id"]
    position = await quick.head()
    await quick.add("t", *({"x": number} for number in range(1000)))
    await _settled(quick)
    change = await Listener(quick, after=position).next()
    assert change["tables"][table] == {"counts": {"current": 1000}, "rows": None, "structure": False}


async def test_frames_come_ten_times_a_second_at_most(quick: Harness) -> None:
    await quick.plain("t", {"x": "int"})
    await quick.add("t", {"x": 0})
    await _settled(quick)
    listener = Listener(quick)
    frames: list[Any] = []

    async def hear() -> None:
        while True:
            frames.append(await listener.next())

    task = asyncio.create_task(hear())
    await asyncio.sleep(0)
    begin = time.monotonic()
    for number in range(1, 40):
        await quick.patch("/tables/t/rows/1", {"x": number})
    seconds = time.monotonic() - begin
    head = await quick.head()
    async with asyncio.timeout(10):
        while not frames or frames[-1]["position"] < head:
            await asyncio.sleep(0.02)
    task.cancel()
    assert len(frames) <= seconds * 10 + 3


async def test_what_another_process_appends_is_heard(stoa: Harness) -> None:
    table = (await stoa.plain("t", {"x": "int"}))["id"]
    await _settled(stoa)
    listener = Listener(stoa)
    heard = asyncio.create_task(listener.next())
    await asyncio.sleep(0.05)

    def append() -> None:
        database = Database(stoa.context.database.url)
        events = EventStore(Log("tables"), SERVICE.projection())
        with database.writing() as connection:
            recorder = Recorder(connection, events, Origin("bob", "c"), event_bytes=10_000)
            found = recorder.store.table(table)
            assert found is not None
            recorder.record(table, commands.add_rows(found, [{"x": 1}], event_bytes=10_000))
        database.engine.dispose()

    await asyncio.to_thread(append)
    assert (await heard)["tables"][table]["rows"] == {1: "current"}


async def test_old_events_are_forgotten_and_late_listeners_told_to_load(quick: Harness) -> None:
    table = (await quick.plain("t", {"x": "int"}))["id"]
    stop = asyncio.Event()
    feed = ChangeFeed(quick.context.database, quick.context.events, stop, interval=0.1, kept=3)
    running_feed = asyncio.create_task(feed.run(stop))
    await asyncio.sleep(0.1)
    start = await quick.head()
    for number in range(5):
        await quick.add("t", {"x": number})
    head = await quick.head()
    async with asyncio.timeout(10):
        while feed._position < head:
            await asyncio.sleep(0.01)
    late = (await anext(feed.listen(None, start))).model_dump()
    assert late == {"position": head, "tables": {table: {"counts": {"current": 5}, "rows": None, "structure": True}}}
    soon = (await anext(feed.listen(None, head - 3))).model_dump()
    assert soon["tables"][table]["rows"] == {3: "current", 4: "current", 5: "current"}
    stop.set()
    await running_feed


# --- over HTTP ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _served(url: str, folder: Path) -> AsyncIterator[tuple[str, uvicorn.Server, asyncio.Event]]:
    settings = TablesSettings(
        data=folder,
        database_url=SecretStr(url),
        actor="ada",
        scheduler_url="http://127.0.0.1:9",
        executor_url="http://127.0.0.1:9",
    )
    app = SERVICE.create_app(settings, bus=MemoryBus(MemoryBroker()))
    upgrade(app.state.context.database, SERVICE.migrations)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not server.started:
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", server, app.state.context.background.stop
    app.state.context.background.stop.set()
    server.should_exit = True
    async with asyncio.timeout(20):
        await task


async def _frame(lines: AsyncIterator[str]) -> dict[str, str]:
    frame: dict[str, str] = {}
    async with asyncio.timeout(10):
        async for line in lines:
            if not line and frame:
                return frame
            name, _, value = line.partition(": ")
            if name:
                frame[name] = value
    return frame


async def test_changes_are_server_sent_events_that_end_with_the_service(sqlite_url: str, tmp_path: Path) -> None:
    async with _served(sqlite_url, tmp_path) as (url, _, stop), httpx.AsyncClient(base_url=url, timeout=20) as client:
        body = {"name": "t", "columns": [{"name": "x", "type": "int"}]}
        table = (await client.post("/api/tables", json=body)).json()["id"]
        headers = {"Last-Event-ID": "1"}
        async with client.stream("GET", "/api/changes?tables=t", headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = response.aiter_lines()
            await client.post("/api/tables/t/rows", json={"rows": [{"x": 1}]})
            frame = await _frame(lines)
            assert (frame["event"], frame["id"]) == ("change", "2")
            assert json.loads(frame["data"]) == {
                "position": 2,
                "tables": {table: {"counts": {"current": 1}, "rows": {"1": "current"}, "structure": False}},
            }
            stop.set()
            assert await _frame(lines) == {}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/changes?tables=nobody", {}, 404),
        ("/changes", {"Last-Event-ID": "x"}, 422),
        ("/changes", {"Last-Event-ID": "-1"}, 422),
    ],
)
async def test_a_listener_who_asks_for_nonsense_is_told(quick: Harness, path: str, headers: Any, status: int) -> None:
    await quick.request("GET", path, expect=status, headers=headers)


async def test_streams_end_when_the_service_stops(sqlite_url: str, tmp_path: Path) -> None:
    async with running(sqlite_url, tmp_path) as stoa:
        listener = Listener(stoa)
        heard = asyncio.create_task(listener.next())
        await asyncio.sleep(0.05)
    with pytest.raises(StopAsyncIteration):
        await heard
