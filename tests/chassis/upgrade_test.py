"""A service whose read model needs other services' events computes it anew when it starts, and gives its own log meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import sqlalchemy as sa
from fastapi import APIRouter, FastAPI
from pydantic import SecretStr

from stoa_chassis import migrations
from stoa_chassis.database import Database
from stoa_chassis.log import Log
from stoa_chassis.memory_bus import MemoryBroker, MemoryBus
from stoa_chassis.read_model import brought_up_to_date, is_outdated, note
from stoa_chassis.service import ProcessContext, ServiceDefinition, create_service_app
from stoa_contracts.envelope import batch
from stoa_contracts.events.tables import RowsRemoved
from stoa_scheduler.app import SERVICE as SCHEDULER
from stoa_scheduler.settings import SchedulerSettings
from tests.chassis.observatory import ORIGIN, Observatory, create, dump, pointed, read_model


class Feed:
    """The feed of the tables service, which answers only when it is told to."""

    def __init__(self, content: bytes) -> None:
        self.open = False
        self.asked = threading.Event()
        feed = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if feed.open else 503)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                feed.asked.set()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


def _app(url: str, feed: str) -> FastAPI:
    definition = ServiceDefinition(
        name="scheduler",
        settings=SchedulerSettings,
        projection=Observatory,
        metadata=read_model,
        migrations=SCHEDULER.migrations,
        create_app=FastAPI,
    )
    settings = SchedulerSettings(database_url=SecretStr(url), tables_url=feed)
    context: ProcessContext = ProcessContext.create(definition, settings, bus=MemoryBus(MemoryBroker()))
    router = APIRouter()

    @router.get("/sky")
    async def sky() -> str:
        return "clear"

    return create_service_app(definition, context, [router], description="under test")


async def test_a_service_renews_its_read_model_when_others_can_be_asked(database_url: str, tmp_path: Path) -> None:
    elsewhere, _ = create(f"sqlite:///{tmp_path}/elsewhere.sqlite")
    with elsewhere.writing() as connection:
        told = Log("tables").append(connection, "t", [RowsRemoved(table="t", rows=[1, 2])], ORIGIN)[0]
    database = Database(database_url)
    migrations.upgrade(database, SCHEDULER.migrations)
    with database.writing() as connection:
        read_model.create_all(connection)
        log = Log("scheduler")
        log.append(connection, "t", [pointed("t", "manual")], ORIGIN)
        log.record_consumption(connection, "observatory", "tables", 1, 1)
        log.append(connection, "t", [pointed("t")], ORIGIN)
        note(connection, Observatory(), complete=False)
    feed = Feed(batch([told.to_bytes()]))
    app = _app(database_url, feed.url)
    transport = httpx.ASGITransport(app)
    with feed.serving():
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://stoa") as client,
        ):
            await asyncio.to_thread(feed.asked.wait, 20)
            refused = await client.get("/sky")
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:stoa:problem:upgrading")
            assert refused.headers["retry-after"]
            assert "computed anew" in (await client.get("/readyz")).text
            assert len((await client.get("/events")).json()) == 2
            feed.open = True
            while (await client.get("/sky")).status_code != 200:
                await asyncio.sleep(0.05)
    with database.reading() as connection:
        assert not is_outdated(connection, Observatory())
        assert dump(connection) == {"telescope": [("t", "automatic", 2)], "seen": [("t", 2, "manual")]}
    database.engine.dispose()
    elsewhere.engine.dispose()


async def test_a_service_can_be_stopped_before_others_answer(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    migrations.upgrade(database, SCHEDULER.migrations)
    with database.writing() as connection:
        read_model.create_all(connection)
        Log("scheduler").record_consumption(connection, "observatory", "tables", 1, 1)
        note(connection, Observatory(), complete=False)
    feed = Feed(b"[]")
    app = _app(sqlite_url, feed.url)
    with feed.serving():
        async with app.router.lifespan_context(app):
            await asyncio.to_thread(feed.asked.wait, 20)
    with database.reading() as connection:
        assert is_outdated(connection, Observatory())
    database.engine.dispose()


def test_a_read_model_is_renewed_once_by_however_many(database_url: str) -> None:
    database, store = create(database_url)
    with database.writing() as connection:
        store.record(connection, "t", [pointed("t")], ORIGIN)
        connection.execute(sa.delete(read_model.tables["telescope"]))
        note(connection, Observatory(), complete=False)
    done = []

    def renew() -> None:
        own = Database(database_url)
        done.append(brought_up_to_date(own, store.log, Observatory(), lambda *_: []))
        own.engine.dispose()

    threads = [threading.Thread(target=renew) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each is None for each in done) == [False, True, True]
    with database.reading() as connection:
        assert dump(connection)["telescope"] == [("t", "automatic", 1)]
    database.engine.dispose()
