"""An executor in its surroundings: a broker, the scheduler's log, and the tables service's workflows over HTTP."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from fastapi import FastAPI, Response

from stoa_chassis.background import pause
from stoa_chassis.bus import Bus, EventMessage
from stoa_chassis.database import Database
from stoa_chassis.migrations import upgrade
from stoa_contracts.canonical import digest
from stoa_contracts.envelope import BATCH_MEDIA_TYPE, Envelope, batch
from stoa_contracts.events.scheduler import JobCancelled
from stoa_contracts.ids import new_id
from stoa_contracts.jobs import JobRequest
from stoa_contracts.subjects import job_subject
from stoa_contracts.types import JobReference
from stoa_executor.app import SERVICE
from stoa_executor.settings import ExecutorSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from stoa_executor.factory import ExecutorContext

TABLE = "0190aaaa-0000-7000-8000-000000000001"


class Site:
    """What surrounds the executor, and any number of executors in it."""

    def __init__(self, directory: Path, bus: Bus) -> None:
        self.directory = directory
        self.bus = bus
        self.bundles: dict[str, dict[str, bytes]] = {}
        self.mains: dict[str, str] = {}
        self.fetched: list[str] = []
        self.cancellations: list[Envelope] = []
        self.tables_down = False
        self.url = ""
        self._row = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Site]:
        """Serve what the other services would."""
        app = FastAPI()

        @app.get("/api/workflows/{version}")
        async def workflow(version: str) -> Response:
            if self.tables_down:
                return Response(status_code=503)
            if version not in self.bundles:
                return Response(status_code=404)
            self.fetched.append(version)
            files = [
                {"name": name, "sha256": sha256(content).hexdigest(), "size": len(content)}
                for name, content in self.bundles[version].items()
            ]
            return Response(json.dumps({"version": version, "main": self.mains[version], "files": files}))

        @app.get("/api/workflows/{version}/files/{name:path}")
        async def file(version: str, name: str) -> Response:
            return Response(self.bundles[version][name])

        @app.get("/events")
        async def events(after: int = 0) -> Response:
            return Response(
                batch([item.to_bytes() for item in self.cancellations[after:]]), media_type=BATCH_MEDIA_TYPE
            )

        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.should_exit = True
            await task

    def workflow(self, main: dict[str, Any], process: str | None = None, **files: bytes) -> str:
        """Publish a workflow version, and give its name."""
        bundle = {"main.cwl": json.dumps({"cwlVersion": "v1.2", **main}).encode()}
        bundle.update({name.replace("__", "."): content for name, content in files.items()})
        version = digest({name: content.decode() for name, content in bundle.items()} | {"process": process})
        self.bundles[version] = bundle
        self.mains[version] = "main.cwl" + (f"#{process}" if process else "")
        return version

    def request(self, version: str, inputs: dict[str, Any] | None = None, **more: Any) -> JobRequest:
        """Write a job message."""
        self._row += 1
        fields: dict[str, Any] = {
            "job": new_id(),
            "attempt": 1,
            "max_attempts": 3,
            "table": TABLE,
            "row": self._row,
            "revision": 1,
            "workflow_version": version,
            "inputs": inputs or {},
            "requested_by": "jansky",
            "correlationid": new_id(),
            "causationid": new_id(),
        }
        return JobRequest(**(fields | more))

    async def queue(self, request: JobRequest, key: str | None = None) -> JobRequest:
        """Put a job on the queue."""
        await self.bus.publish_job(
            job_subject(request.table), key or f"{request.job}:{request.attempt}", request.model_dump_json().encode()
        )
        return request

    async def cancel(self, *requests: JobRequest) -> None:
        """Cancel jobs as the scheduler does."""
        references = [JobReference(job=item.job, row=item.row, revision=item.revision) for item in requests]
        event = JobCancelled(table=TABLE, jobs=references, reason="jansky cancelled it")
        position = len(self.cancellations) + 1
        envelope = Envelope(
            id=new_id(),
            source="urn:stoa:scheduler",
            type=event.event_type.type,
            subject=TABLE,
            time=datetime.now(UTC),
            dataschema=event.event_type.dataschema,
            position=str(position),
            streamversion=position,
            actor="jansky",
            correlationid=new_id(),
            data=event.model_dump(mode="json"),
        )
        self.cancellations.append(envelope)
        tail = await self.bus.last_position("scheduler")
        message = EventMessage(envelope.bus_subject, envelope.id, envelope.to_bytes(), position)
        await self.bus.publish_events("scheduler", [message], tail.sequence)

    def settings(self, **options: Any) -> ExecutorSettings:
        """Set up an executor in this site."""
        fields: dict[str, Any] = {
            "data": self.directory / "data",
            "tables_url": self.url,
            "scheduler_url": self.url,
            "executor_url": self.url,
            "workers": 1,
            "stop_timeout": 2.0,
        }
        return ExecutorSettings(**(fields | options))

    @asynccontextmanager
    async def executor(self, bus: Bus, **options: Any) -> AsyncIterator[RunningExecutor]:
        """Run an executor."""
        settings = self.settings(**options)
        database = Database(settings.resolved_database_url)
        await asyncio.to_thread(upgrade, database, SERVICE.migrations)
        await database.aclose()
        app = SERVICE.create_app(settings, bus=bus)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://executor") as client,
        ):
            yield RunningExecutor(app.state.context, client)


class RunningExecutor:
    """An executor that runs."""

    def __init__(self, context: ExecutorContext, client: httpx.AsyncClient) -> None:
        self.context = context
        self.client = client

    async def events(self) -> list[Envelope]:
        """Read its log."""
        return await self.context.database.read(self.context.log.read)

    async def finished(self, *requests: JobRequest, seconds: float = 30.0) -> list[dict[str, Any]]:
        """Wait for the outcomes of jobs, and give the data of their events."""
        committed = asyncio.Event()
        self.context.database.on_commit(committed)
        wanted = {(request.job, request.attempt) for request in requests}
        async with asyncio.timeout(seconds):
            while True:
                committed.clear()
                found = {
                    (event.data["job"], event.data["attempt"]): event.data
                    for event in await self.events()
                    if event.name == "job-finished"
                }
                if wanted <= set(found):
                    return [found[request.job, request.attempt] for request in requests]
                # Another replica may be the one that commits.
                await pause(committed, 0.2)

    async def names(self, request: JobRequest) -> list[str]:
        """List what happened to a job."""
        return [event.name for event in await self.events() if event.data.get("job") == request.job]

    async def started(self, request: JobRequest, seconds: float = 30.0) -> None:
        """Wait until a job runs."""
        async with asyncio.timeout(seconds):
            while request.job not in self.context.agent.running:
                await asyncio.sleep(0.01)
