"""What every service does: health, metrics, the feed, problem documents, and an orderly start and stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import SecretStr

from stoa_chassis import migrations
from stoa_chassis.database import Database
from stoa_chassis.log import Origin
from stoa_chassis.memory_bus import MemoryBroker, MemoryBus
from stoa_chassis.migrations import OutdatedSchemaError
from stoa_chassis.problems import PROBLEM_MEDIA_TYPE, Problem
from stoa_chassis.service import ProcessContext, create_service_app
from stoa_contracts.envelope import BATCH_MEDIA_TYPE, read_batch
from stoa_contracts.events.scheduler import TriggerSet
from stoa_scheduler.app import SERVICE
from stoa_scheduler.settings import SchedulerSettings
from tests.support.postgres import PostgresServer


class TelescopeClosedError(Problem):
    """A problem of the service under test."""

    status = 409
    code = "telescope-closed"
    title = "The telescope is closed"


def make_app(url: str, broker: MemoryBroker) -> FastAPI:
    settings = SchedulerSettings(database_url=SecretStr(url), actor="ada")
    context: ProcessContext = ProcessContext.create(SERVICE, settings, bus=MemoryBus(broker))
    router = APIRouter()

    @router.get("/closed")
    async def closed() -> None:
        raise TelescopeClosedError("Clouds until 04:00", until="04:00", headers={"Retry-After": "60"})

    @router.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    @router.get("/typed")
    async def typed(number: int) -> int:
        return number

    return create_service_app(SERVICE, context, [router], description="under test")


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[FastAPI]:
    database = Database(database_url)
    migrations.upgrade(database, SERVICE.migrations)
    database.engine.dispose()
    app = make_app(database_url, MemoryBroker())
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://stoa") as client:
        yield client


async def until_ready(client: httpx.AsyncClient) -> httpx.Response:
    async with asyncio.timeout(10):
        while True:
            answer = await client.get("/readyz")
            if answer.status_code == 200:
                return answer
            await asyncio.sleep(0.01)


async def test_health_says_what_is_the_matter(app: FastAPI, client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"service": "scheduler", "status": "alive", "problems": []}
    assert (await until_ready(client)).json()["status"] == "ready"
    bus: MemoryBus = app.state.context.bus
    bus.broker.stop()
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "degraded"
    assert any("bus is not connected" in problem for problem in answer.json()["problems"])
    assert (await client.get("/healthz")).status_code == 200
    bus.broker.start()
    await until_ready(client)


async def test_metrics_count_requests_by_route(client: httpx.AsyncClient) -> None:
    await client.get("/typed", params={"number": 3})
    text = (await client.get("/metrics")).text
    assert 'stoa_request_seconds_count{method="GET",route="/typed",service="scheduler",status="200"} 1.0' in text
    assert 'stoa_log_position{service="scheduler"} 0.0' in text


async def test_the_feed_gives_the_log_in_its_order(app: FastAPI, client: httpx.AsyncClient) -> None:
    context: ProcessContext = app.state.context
    facts = [TriggerSet(table="t", mode="manual", previous="manual")] * 5
    written = await context.database.write(
        lambda connection: context.log.append(connection, "t", facts, Origin(actor="ada", correlationid="c"))
    )
    answer = await client.get("/events", params={"after": 1, "limit": 3})
    assert answer.headers["content-type"] == BATCH_MEDIA_TYPE
    assert [e.to_bytes() for e in read_batch(answer.content)] == [e.to_bytes() for e in written[1:4]]
    assert (await client.get("/events", params={"after": 99})).json() == []
    assert (await client.get("/events", params={"after": -1})).status_code == 422
    async with asyncio.timeout(10):
        while (await context.bus.last_position("scheduler")).position < 5:
            await asyncio.sleep(0.01)


async def test_problems_are_told_in_one_form(client: httpx.AsyncClient) -> None:
    answer = await client.get("/closed", headers={"X-Correlation-ID": "night-1"})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == PROBLEM_MEDIA_TYPE
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["x-correlation-id"] == "night-1"
    assert answer.json() == {
        "type": "urn:stoa:problem:telescope-closed",
        "title": "The telescope is closed",
        "status": 409,
        "detail": "Clouds until 04:00",
        "instance": "night-1",
        "until": "04:00",
    }
    invalid = await client.get("/typed", params={"number": "many"})
    assert (invalid.status_code, invalid.json()["type"]) == (422, "urn:stoa:problem:invalid-request")
    assert "query/number" in invalid.json()["detail"]
    missing = await client.get("/nowhere")
    assert (missing.status_code, missing.json()["title"]) == (404, "Not Found")
    broken = await client.get("/broken")
    assert broken.status_code == 500
    assert broken.headers["content-type"] == PROBLEM_MEDIA_TYPE
    assert "ZeroDivision" not in broken.text


async def test_the_openapi_document_speaks_of_problems(app: FastAPI) -> None:
    document = app.openapi()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    response = document["paths"]["/typed"]["get"]["responses"]["422"]
    assert response["content"] == {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}


async def test_a_lost_database_is_a_problem_that_passes(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    migrations.upgrade(Database(url), SERVICE.migrations)
    app = make_app(url, MemoryBroker())
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://stoa") as client,
    ):
        await until_ready(client)
        postgres_server.stop()
        try:
            answer = await client.get("/events")
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:stoa:problem:database-unavailable")
            assert answer.headers["retry-after"]
            assert (await client.get("/readyz")).status_code == 503
        finally:
            postgres_server.start()
        await until_ready(client)
        assert (await client.get("/events")).status_code == 200


async def test_an_old_schema_is_refused_with_the_command_that_mends_it(database_url: str) -> None:
    app = make_app(database_url, MemoryBroker())
    with pytest.raises(OutdatedSchemaError, match="run 'stoa migrate scheduler'"):
        async with app.router.lifespan_context(app):
            pass


def _serve(tmp_path: Path, *, migrated: bool) -> tuple[subprocess.Popen[str], int]:
    url = f"sqlite:///{tmp_path / 'scheduler.sqlite'}"
    if migrated:
        migrations.upgrade(Database(url), SERVICE.migrations)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd = listening.fileno()
        code = f"import sys; from stoa_chassis.service import serve; from stoa_scheduler.app import SERVICE; sys.exit(serve(SERVICE, fd={fd}))"
        environment = {
            **os.environ,
            "STOA_DATA": str(tmp_path),
            "STOA_NATS_URL": "nats://127.0.0.1:1",
            "STOA_LOG_FORMAT": "json",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, pass_fds=[fd], stderr=subprocess.PIPE, text=True
        )
        return process, listening.getsockname()[1]


def test_a_process_stops_in_order_at_a_signal(tmp_path: Path) -> None:
    process, port = _serve(tmp_path, migrated=True)
    try:
        # The socket listens before the process does, so that nobody is turned away while it starts.
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said


def test_a_process_without_its_schema_says_so_and_ends(tmp_path: Path) -> None:
    process, _ = _serve(tmp_path, migrated=False)
    try:
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 2
    assert "run 'stoa migrate scheduler'" in said
    assert "Traceback" not in said
