"""The scheduler over HTTP, in its own process context, with neighbours on a bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openapi_spec_validator import validate
from pydantic import SecretStr

from stoa_chassis.bus import Bus, BusUnavailableError
from stoa_chassis.database import Database
from stoa_chassis.migrations import upgrade
from stoa_contracts.envelope import Envelope, read_batch
from stoa_contracts.jobs import JobRequest
from stoa_scheduler.app import SERVICE, create_app
from stoa_scheduler.settings import SchedulerSettings
from tests.scheduler.neighbours import Executor, Tables
from tests.support.brokers import Broker, MemoryTestBroker, reached


class Observatory:
    """A scheduler that serves, and its neighbours."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, bus: Bus) -> None:
        self.app = app
        self.client = client
        self.bus = bus
        self.tables = Tables()
        self.executor = Executor()

    async def post(self, path: str, status: int = 200, headers: dict[str, str] | None = None, **content: Any) -> Any:
        response = await self.client.post(path, json=content, headers=headers)
        assert response.status_code == status, response.text
        return response.json()

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        response = await self.client.get(path, params=query)
        assert response.status_code == status, response.text
        return response.json()

    async def told(self) -> int:
        """Put the tables' news on the bus and give their position, for ``after``."""
        await self.tables.relay(self.bus)
        return self.tables.head

    async def run(self, **content: Any) -> Any:
        return await self.post("/api/runs", 202, after=await self.told(), **content)

    async def work(self, stop: asyncio.Event, outcome: Callable[[JobRequest], str] = lambda _: "success") -> None:
        """Be an executor, and the tables service that records what it gets."""
        jobs = await self.bus.subscribe_jobs("executors")
        while not stop.is_set():
            try:
                for message in await jobs.fetch(8, 0.05):
                    request = JobRequest.model_validate_json(message.body)
                    end = outcome(request)
                    self.executor.start(request)
                    final = end != "temporaryFail" or request.attempt >= request.max_attempts
                    self.executor.finish(request, end, final=final, error="it did not work")  # type: ignore[arg-type]
                    if end == "success":
                        self.tables.record(request)
                    await message.ack()
                await self.executor.relay(self.bus)
                await self.tables.relay(self.bus)
            except BusUnavailableError:
                await asyncio.sleep(0.05)
        await jobs.aclose()

    @asynccontextmanager
    async def working(self, outcome: Callable[[JobRequest], str] = lambda _: "success") -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.work(stop, outcome))
            try:
                yield
            finally:
                stop.set()

    async def until(self, path: str, check: Callable[[Any], bool], seconds: float = 20) -> Any:
        """Ask again and again."""
        answer = None
        try:
            async with asyncio.timeout(seconds):
                while not check(answer := await self.get(path)):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"{path} still answers {answer}")
        return answer


@asynccontextmanager
async def serving(url: str, folder: Path, bus: Bus, ours: Bus, **settings: Any) -> AsyncIterator[Observatory]:
    values = SchedulerSettings(
        data=folder,
        database_url=SecretStr(url),
        actor="jansky",
        tables_url="http://127.0.0.1:9",
        executor_url="http://127.0.0.1:9",
        **settings,
    )
    database = Database(url)
    upgrade(database, SERVICE.migrations)
    database.engine.dispose()
    app = create_app(values, bus=bus)
    for follower in app.state.context.followers:
        # So long it takes to stop, for every test.
        follower.wait = 0.02
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://scheduler") as client,
    ):
        await reached(bus)
        yield Observatory(app, client, ours)


@pytest.fixture
async def observatory(database_url: str, tmp_path: Path) -> AsyncIterator[Observatory]:
    broker = MemoryTestBroker()
    async with serving(database_url, tmp_path, await broker.client(), await broker.client(), after_timeout=3) as found:
        yield found
    await broker.aclose()


async def test_rows_run_from_request_to_end(sqlite_url: str, tmp_path: Path, broker: Broker) -> None:
    async with serving(sqlite_url, tmp_path, await broker.client(), await broker.client()) as here:
        table = here.tables.create("sources", rows=40)
        answer = await here.run(table="sources")
        assert answer["jobs"] == 40
        assert (answer["skipped"], answer["skipped_total"]) == ([], 0)
        async with here.working(lambda job: "permanentFail" if job.row == 7 else "success"):
            path = f"/api/runs/{answer['run']}"
            run = await here.until(path, lambda run: run["finished"] is not None)
        assert run["states"] == {"succeeded": 39, "failed": 1}
        assert (run["table"], run["jobs"], run["requested_by"], run["reason"]) == (table, 40, "jansky", "command")
        assert run["started"] <= run["finished"]
        again = await here.run(table=table, scope="failed", priority=2)
        assert again["jobs"] == 1
        (job,) = (await here.get("/api/jobs", run=again["run"]))["jobs"]
        assert (job["row"], job["priority"], job["run"]) == (7, 2, again["run"])


async def test_the_loop_goes_on_when_the_broker_comes_back_empty(
    sqlite_url: str, tmp_path: Path, broker: Broker
) -> None:
    async with serving(sqlite_url, tmp_path, await broker.client(), await broker.client()) as here:
        here.tables.create("sources", rows=30)
        answer = await here.run(table="sources")
        handed = "/api/queue"
        await here.until(handed, lambda queue: queue["dispatched"] > 0)
        await broker.wipe()
        here.tables._sent = here.executor._sent = 0
        # A broker that stays away for a moment is noticed, and what was on it is handed out again at once.
        await broker.stop()
        await asyncio.sleep(1)
        await broker.start()
        await reached(here.bus)
        async with here.working():
            path = f"/api/runs/{answer['run']}"
            run = await here.until(path, lambda run: run["finished"] is not None, seconds=40)
        assert run["states"] == {"succeeded": 30}


async def test_a_run_sees_what_its_author_wrote(observatory: Observatory) -> None:
    table = observatory.tables.create("sources", rows=1)
    await observatory.told()
    observatory.tables.edit(table, 1, 2, image="m87.fits")
    answer = await observatory.run(table="sources")
    (job,) = (await observatory.get("/api/jobs", run=answer["run"]))["jobs"]
    assert job["revision"] == 2
    detail = await observatory.get(f"/api/jobs/{job['job']}")
    assert detail["inputs"] == {"image": "m87.fits", "sigma": 5.0, "note": None}


async def test_what_has_not_been_heard_of_is_waited_for_a_while(observatory: Observatory) -> None:
    observatory.tables.create("sources", rows=1)
    response = await observatory.client.post("/api/runs", json={"table": "sources", "after": 99})
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    problem = response.json()
    assert problem["type"] == "urn:stoa:problem:behind"
    assert "position 99 of the tables service" in problem["detail"]
    late = asyncio.create_task(observatory.post("/api/runs", 202, table="sources", after=observatory.tables.head))
    await asyncio.sleep(0.2)
    assert not late.done()
    await observatory.told()
    assert (await late)["jobs"] == 1


async def test_skipped_rows_have_a_reason(observatory: Observatory) -> None:
    table = observatory.tables.create("sources", rows=2)
    observatory.tables.add(table, {"image": None}, {}, first=3)
    answer = await observatory.run(table=table, scope="rows", rows=[1, 3, 4, 9])
    assert answer["jobs"] == 1
    assert answer["skipped"] == [
        {"table": table, "row": 3, "reason": "input image is missing"},
        {"table": table, "row": 4, "reason": "input image is missing"},
        {"table": table, "row": 9, "reason": "there is no row 9"},
    ]
    again = await observatory.run(table=table, scope="rows", rows=[1])
    assert again == {
        "run": None,
        "jobs": 0,
        "awaited": 0,
        "runs": [],
        "skipped": [{"table": table, "row": 1, "reason": "it is queued already"}],
        "skipped_total": 1,
    }


async def test_a_table_is_found_by_its_present_name(observatory: Observatory) -> None:
    table = observatory.tables.create("sources", rows=1)
    observatory.tables.rename(table, "detections")
    assert (await observatory.run(table="detections"))["jobs"] == 1
    assert (await observatory.get("/api/triggers/detections"))["table"] == table
    problem = await observatory.post("/api/runs", 404, table="sources")
    assert problem["detail"] == "There is no table 'sources'"


PROBLEMS: list[tuple[str, dict[str, Any], int, str]] = [
    ("/api/runs", {"table": "catalogue"}, 409, "its rows are always current, there is nothing to run"),
    ("/api/runs", {"table": "empty"}, 409, "Table empty has no workflow yet"),
    ("/api/runs", {"table": "nowhere"}, 404, "There is no table 'nowhere'"),
    ("/api/runs", {"table": "sources", "rows": [1]}, 422, "rows are given with the scope 'rows'"),
    ("/api/runs", {"table": "sources", "scope": "rows"}, 422, "rows are given with the scope 'rows'"),
    ("/api/runs", {"table": "sources", "scope": "some"}, 422, "body/scope"),
    ("/api/runs", {"table": "sources", "hurry": True}, 422, "body/hurry"),
    ("/api/cancellations", {}, 422, "one of table, run, jobs and scope"),
    ("/api/cancellations", {"table": "sources", "run": "r"}, 422, "one of table, run, jobs and scope"),
    ("/api/cancellations", {"run": "r", "rows": [1]}, 422, "rows are given with their table"),
    ("/api/cancellations", {"run": "r"}, 404, "There is no run 'r'"),
]


async def test_problems(observatory: Observatory) -> None:
    observatory.tables.create("sources", rows=1)
    observatory.tables.create("catalogue", kind="plain", rows=1)
    observatory.tables.create("empty", workflow=None)
    after = await observatory.told()
    for path, content, status, detail in PROBLEMS:
        response = await observatory.client.post(path, json={**content, "after": after})
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert detail in problem["detail"]
        assert problem["instance"] == response.headers["X-Correlation-ID"]
    assert (await observatory.client.get("/events")).json() == []


async def test_unknown_things_are_not_found(observatory: Observatory) -> None:
    for path in ("/api/runs/none", "/api/jobs/none", "/api/triggers/none"):
        problem = await observatory.get(path, 404)
        assert problem["type"] == "urn:stoa:problem:not-found"
        assert "'none'" in problem["detail"]
    response = await observatory.client.put("/api/triggers/none", json={"mode": "manual"})
    assert response.status_code == 404


async def test_a_command_that_comes_twice_is_carried_out_once(observatory: Observatory) -> None:
    observatory.tables.create("sources", rows=3)
    after = await observatory.told()
    key = {"Idempotency-Key": "k1"}
    first = await observatory.post("/api/runs", 202, key, table="sources", after=after)
    second = await observatory.post("/api/runs", 202, key, table="sources", after=after)
    assert first == second
    assert first["jobs"] == 3
    problem = await observatory.post("/api/runs", 422, key, table="sources", scope="all", after=after)
    assert problem["type"] == "urn:stoa:problem:idempotency-key-reused"
    key = {"Idempotency-Key": "k2"}
    assert [await observatory.post("/api/cancellations", 200, key, table="sources") for _ in "ab"] == [
        {"cancelled": 3, "awaited": 0}
    ] * 2


async def test_writes_tell_the_position_of_the_log(observatory: Observatory) -> None:
    table = observatory.tables.create("sources", rows=3)
    after = await observatory.told()
    posted = await observatory.client.post("/api/runs", json={"table": table, "after": after})
    put = await observatory.client.put(f"/api/triggers/{table}", json={"mode": "automatic"})
    cancelled = await observatory.client.post("/api/cancellations", json={"table": table})
    assert [item.headers["Stoa-Position"] for item in (posted, put, cancelled)] == ["1", "2", "3"]
    envelopes: list[Envelope] = read_batch((await observatory.client.get("/events")).content)
    assert [item.type for item in envelopes] == [
        "stoa.scheduler.job-queued",
        "stoa.scheduler.trigger-set",
        "stoa.scheduler.job-cancelled",
    ]
    assert envelopes[0].correlationid == posted.headers["X-Correlation-ID"]


async def test_cancelling(observatory: Observatory) -> None:
    observatory.tables.create("sources", rows=10)
    answer = await observatory.run(table="sources")
    assert await observatory.post("/api/cancellations", table="sources", rows=[1, 2]) == {"cancelled": 2, "awaited": 0}
    page = await observatory.get("/api/jobs", table="sources", row=3)
    assert await observatory.post("/api/cancellations", jobs=[page["jobs"][0]["job"], "unknown"]) == {
        "cancelled": 1,
        "awaited": 0,
    }
    assert await observatory.post("/api/cancellations", run=answer["run"]) == {"cancelled": 7, "awaited": 0}
    assert await observatory.post("/api/cancellations", table="sources") == {"cancelled": 0, "awaited": 0}
    run = await observatory.get(f"/api/runs/{answer['run']}")
    assert run["states"] == {"cancelled": 10}
    (job,) = (await observatory.get("/api/jobs", table="sources", row=5))["jobs"]
    assert (job["state"], job["error"]) == ("cancelled", "jansky cancelled it")


async def test_jobs_are_listed_page_by_page_newest_first(observatory: Observatory) -> None:
    observatory.tables.create("sources", rows=25)
    await observatory.run(table="sources")
    pages, after = [], None
    while True:
        query: dict[str, Any] = {"table": "sources", "limit": 10} | ({"after": after} if after else {})
        page = await observatory.get("/api/jobs", **query)
        pages.append([job["row"] for job in page["jobs"]])
        after = page["next"]
        if after is None:
            break
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [row for page in pages for row in page] == list(range(25, 0, -1))
    await observatory.until("/api/queue", lambda queue: queue["dispatched"] == 8)
    dispatched = await observatory.get("/api/jobs", state="dispatched")
    assert sorted(job["row"] for job in dispatched["jobs"]) == list(range(1, 9))
    waiting = await observatory.get("/api/jobs", state="waiting")
    assert len(waiting["jobs"]) == 17
    assert (await observatory.get("/api/jobs", state="failed"))["jobs"] == []


async def test_the_queue_at_a_glance(observatory: Observatory) -> None:
    first = observatory.tables.create("sources", rows=30)
    second = observatory.tables.create("other", rows=2)
    await observatory.run(table="sources")
    await observatory.run(table="other")
    queue = await observatory.until("/api/queue", lambda queue: queue["dispatched"] == 8)
    assert (queue["waiting"], queue["running"]) == (24, 0)
    assert set(queue["tables"]) == {first, second}
    assert sum(item["waiting"] for item in queue["tables"].values()) == 24
    assert [(item["name"], item["requested_by"], item["priority"]) for item in queue["groups"]] == [
        ("other", "jansky", 0),
        ("sources", "jansky", 0),
    ]
    empty = {"waiting": 0, "dispatched": 0, "running": 0, "awaited": 0, "tables": {}, "groups": []}
    async with observatory.working():
        await observatory.until("/api/queue", lambda queue: queue == empty)


async def test_progress_and_limits(observatory: Observatory) -> None:
    table = observatory.tables.create("sources", rows=3, project="survey")
    limited = await observatory.client.put(
        "/api/limits", json={"table": table, "running": 0, "after": await observatory.told()}
    )
    assert limited.json() == {"table": table, "name": "sources", "person": None, "running": 0}
    assert int(limited.headers["stoa-position"]) == 1
    assert (await observatory.client.put("/api/limits", json={"running": 0})).status_code == 422
    asked = await observatory.post("/api/runs", 202, project="survey", force=True)
    assert [(item["table"], item["jobs"]) for item in asked["runs"]] == [(table, 3)]
    progress = await observatory.get("/api/progress", project="survey")
    assert (progress["rows"], progress["waiting"], progress["estimated_end"]) == (3, 3, None)
    await observatory.get("/api/progress", 404, project="galaxies")
    listed = await observatory.get("/api/limits")
    assert (listed["per_table"], [item["running"] for item in listed["limits"]]) == (None, [0])
    cancelled = await observatory.post("/api/cancellations", scope="mine")
    assert cancelled == {"cancelled": 3, "awaited": 0}
    progress = await observatory.get("/api/progress", table="sources")
    assert (progress["cancelled"], progress["tables"][0]["table"]) == (3, table)


async def test_an_automatic_table_keeps_itself_up_to_date(observatory: Observatory) -> None:
    table = observatory.tables.create("sources", rows=5)
    await observatory.run(table=table, scope="rows", rows=[5])
    assert await observatory.get(f"/api/triggers/{table}") == {"table": table, "mode": "manual", "triggers": []}
    response = await observatory.client.put("/api/triggers/sources", json={"mode": "automatic"})
    assert response.json() == {"table": table, "mode": "automatic", "triggers": []}
    path = "/api/jobs?state=succeeded&limit=100"
    async with observatory.working():
        await observatory.until(path, lambda page: len(page["jobs"]) == 5)
        observatory.tables.edit(table, 2, 2, image="m87.fits")
        page = await observatory.until(path, lambda page: len(page["jobs"]) == 6)
    newest = page["jobs"][0]
    assert (newest["row"], newest["revision"]) == (2, 2)
    run = await observatory.get(f"/api/runs/{newest['run']}")
    assert (run["reason"], run["jobs"]) == ("automatic", 1)


async def test_a_temporary_failure_is_tried_again(observatory: Observatory) -> None:
    observatory.tables.create("sources", rows=1)
    answer = await observatory.run(table="sources")
    async with observatory.working(lambda job: "temporaryFail" if job.attempt == 1 else "success"):
        await observatory.until(f"/api/runs/{answer['run']}", lambda run: run["finished"] is not None)
    (job,) = (await observatory.get("/api/jobs", run=answer["run"]))["jobs"]
    detail = await observatory.get(f"/api/jobs/{job['job']}")
    assert (detail["state"], detail["attempt"], detail["max_attempts"]) == ("succeeded", 2, 3)
    assert [(item["attempt"], item["outcome"]) for item in detail["attempts"]] == [(1, "temporaryFail"), (2, "success")]
    assert detail["usage"]["max_rss_bytes"] == 1 << 20


async def test_the_description_of_the_interface_is_complete(observatory: Observatory) -> None:
    document = await observatory.get("/openapi.json")
    validate(document)
    operations = {
        operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()
    }
    assert set(operations) >= {
        "start_run",
        "get_run",
        "cancel_jobs",
        "list_jobs",
        "get_job",
        "get_trigger",
        "set_trigger",
        "get_queue",
    }
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            good = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
            if path.startswith("/api/"):
                assert "$ref" in good["content"]["application/json"]["schema"]
    assert "Stoa-Position" in operations["start_run"]["responses"]["202"]["headers"]
    assert {"404", "409", "503", "422"} <= set(operations["start_run"]["responses"])
    assert document["components"]["schemas"]["RunRequest"]["examples"]
    assert all(
        field.get("description") or field.get("title")
        for field in document["components"]["schemas"]["RunRequest"]["properties"].values()
    )


async def test_it_tells_of_its_health_and_numbers(observatory: Observatory) -> None:
    observatory.tables.create("sources", rows=30)
    await observatory.run(table="sources")
    await observatory.until("/api/queue", lambda queue: queue["dispatched"] == 8)
    assert (await observatory.get("/healthz"))["status"] == "alive"
    text = (await observatory.client.get("/metrics")).text
    assert "stoa_scheduler_pick_seconds_count" in text
    assert "stoa_scheduler_waiting_jobs 22.0" in text or "stoa_scheduler_waiting_jobs 30.0" in text
