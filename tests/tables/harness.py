"""The tables service as a program sees it, and stand-ins for what the scheduler and the executor would tell it."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
from pydantic import SecretStr

from stoa_chassis.bus import EventMessage
from stoa_chassis.database import Database
from stoa_chassis.memory_bus import MemoryBroker, MemoryBus
from stoa_chassis.migrations import upgrade
from stoa_chassis.projection import Rebuilt, compare, rebuild
from stoa_contracts.envelope import Envelope
from stoa_contracts.events.executor import JobFinished, JobStarted
from stoa_contracts.events.scheduler import JobCancelled, JobQueued, QueuedJob
from stoa_contracts.ids import new_id
from stoa_contracts.keys import job_key
from stoa_contracts.registry import Event
from stoa_contracts.types import InputFile, JobReference, Outcome, Usage
from stoa_tables.app import SERVICE
from stoa_tables.changes import ChangeFeed
from stoa_tables.context import TablesContext
from stoa_tables.settings import TablesSettings

__all__ = ["Harness", "running", "tool"]

_USAGE = Usage(wall_s=0.5, cpu_s=0.25, max_rss_bytes=1024)


def tool(inputs: Mapping[str, Any], outputs: Mapping[str, Any], **more: Any) -> bytes:
    """Write a CWL tool with these parameters."""
    return json.dumps(
        {
            "cwlVersion": "v1.2",
            "class": "CommandLineTool",
            "baseCommand": "true",
            "inputs": dict(inputs),
            "outputs": dict(outputs),
            **more,
        }
    ).encode()


@dataclass
class Harness:
    """A running tables service."""

    client: httpx.AsyncClient
    context: TablesContext
    feed: ChangeFeed
    broker: MemoryBroker
    positions: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)

    # --- what a person does ---

    async def request(self, method: str, path: str, *, expect: int | None = None, **arguments: Any) -> httpx.Response:
        response = await self.client.request(method, f"/api{path}", **arguments)
        if expect is not None:
            assert response.status_code == expect, response.text
        return response

    async def get(self, path: str, **parameters: Any) -> Any:
        return (await self.request("GET", path, expect=200, params=parameters)).json()

    async def post(self, path: str, body: Any, *, expect: int = 201, headers: Mapping[str, str] | None = None) -> Any:
        return (await self.request("POST", path, expect=expect, json=body, headers=headers)).json()

    async def patch(self, path: str, body: Any, *, expect: int = 200, headers: Mapping[str, str] | None = None) -> Any:
        return (await self.request("PATCH", path, expect=expect, json=body, headers=headers)).json()

    async def worktable(self, name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], **more: Any) -> Any:
        files = [("files", ("main.cwl", tool(inputs, outputs, **more)))]
        response = await self.request(
            "POST", "/tables", expect=201, files=files, data={"table": json.dumps({"name": name})}
        )
        return response.json()

    async def plain(self, name: str, columns: Mapping[str, Any]) -> Any:
        described = [{"name": column, "type": kind} for column, kind in columns.items()]
        return await self.post("/tables", {"name": name, "columns": described})

    async def join(self, name: str, left: str, right: str, on: Sequence[tuple[str, str]], kind: str = "inner") -> Any:
        join = {"kind": kind, "left": left, "right": right, "on": on}
        return await self.post("/tables", {"name": name, "kind": "join", "join": join})

    async def add(self, table: str, *rows: Mapping[str, Any]) -> list[int]:
        added = await self.post(f"/tables/{table}/rows", {"rows": rows})
        return cast("list[int]", added["rows"])

    async def rows(self, table: str, **parameters: Any) -> list[Any]:
        page = await self.get(f"/tables/{table}/rows", limit=10_000, **parameters)
        return cast("list[Any]", page["rows"])

    async def values(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        return [tuple(row["values"][column] for column in columns) for row in await self.rows(table)]

    # --- what other services tell ---

    async def tell(self, service: str, stream: str, *events: Event) -> None:
        """Let another service tell events, and wait until they were applied."""
        follower = self.context.followers[0]
        messages = []
        for event in events:
            self.positions[service] = position = self.positions.get(service, 0) + 1
            envelope = Envelope(
                id=new_id(),
                source=f"urn:stoa:{service}",
                type=event.event_type.type,
                subject=stream,
                time=datetime.now(UTC),
                dataschema=event.event_type.dataschema,
                position=str(position),
                streamversion=position,
                actor=service,
                correlationid=new_id(),
                data=event.model_dump(mode="json"),
            )
            messages.append(EventMessage(envelope.bus_subject, envelope.id, envelope.to_bytes(), position))
        bus = MemoryBus(self.broker)
        await bus.connect()
        last = self.sequences.get(service, 0)
        self.sequences[service] = await bus.publish_events(service, messages, last)
        await bus.aclose()
        await follower.wait_for(service, self.positions[service])

    async def queue(self, table: str, *rows: int) -> dict[int, str]:
        """Queue jobs for rows as they are; gives the jobs' ids."""
        detail = await self.get(f"/tables/{table}")
        present = {row["row"]: row for row in await self.rows(table)}
        jobs = {row: new_id() for row in rows}
        queued = JobQueued(
            table=detail["id"],
            run=new_id(),
            requested_by="ada",
            reason="command",
            workflow_version=detail["workflow"]["version"],
            jobs=[
                QueuedJob(job=job, row=row, revision=present[row]["revision"], inputs=present[row]["values"])
                for row, job in jobs.items()
            ],
        )
        await self.tell("scheduler", detail["id"], queued)
        return jobs

    async def start(self, table: str, row: int, job: str, *, attempt: int = 1, revision: int | None = None) -> None:
        identity = await self._identity(table, row, job, attempt, revision)
        event = JobStarted(**identity, host="h", started=datetime.now(UTC))
        await self.tell("executor", identity["table"], event)

    async def finish(
        self,
        table: str,
        row: int,
        job: str,
        outputs: Mapping[str, Any] | None,
        *,
        outcome: Outcome = "success",
        final: bool = True,
        error: str | None = None,
        attempt: int = 1,
        revision: int | None = None,
        version: str | None = None,
        wall_s: float = _USAGE.wall_s,
        inputs: Mapping[str, Any] | None = None,
        files: Mapping[str, str] | None = None,
        reused_from: str | None = None,
    ) -> None:
        """Let an attempt end; `inputs` are those of the job, where the executor tells its key."""
        identity = await self._identity(table, row, job, attempt, revision, version)
        read = [InputFile(location=location, sha256=sha256, size=1) for location, sha256 in (files or {}).items()]
        key = None
        if inputs is not None:
            key = job_key(
                workflow_version=identity["workflow_version"], inputs=dict(inputs), files=read, software={"true": "1"}
            )
        now = datetime.now(UTC)
        event = JobFinished(
            **identity,
            outcome=outcome,
            final=final,
            outputs=None if outputs is None else dict(outputs),
            error=error,
            host="h",
            started=now,
            finished=now,
            usage=_USAGE.model_copy(update={"wall_s": wall_s}),
            key=key,
            files=read,
            reused_from=reused_from,
        )
        await self.tell("executor", identity["table"], event)

    async def cancel(self, table: str, row: int, job: str, *, revision: int | None = None) -> None:
        identity = await self._identity(table, row, job, 1, revision)
        reference = JobReference(job=job, row=row, revision=identity["revision"])
        event = JobCancelled(table=identity["table"], jobs=[reference], reason="ada cancelled it")
        await self.tell("scheduler", identity["table"], event)

    async def run(
        self, table: str, row: int, outputs: Mapping[str, Any], *, files: Mapping[str, str] | None = None, **more: Any
    ) -> str:
        """Run a row from queued to current."""
        job = (await self.queue(table, row))[row]
        await self.start(table, row, job)
        inputs = None if files is None else (await self._job_inputs(table, row))
        await self.finish(table, row, job, outputs, inputs=inputs, files=files, **more)
        return job

    async def _job_inputs(self, table: str, row: int) -> dict[str, Any]:
        columns = (await self.get(f"/tables/{table}"))["columns"]
        values = (await self.get(f"/tables/{table}/rows/{row}"))["values"]
        return {column["name"]: values[column["name"]] for column in columns if column["role"] == "input"}

    async def status(self, table: str, row: int = 1) -> str:
        """Give a row's status."""
        return cast("str", (await self.get(f"/tables/{table}/rows/{row}"))["status"])

    async def change_workflow(
        self, table: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], **more: Any
    ) -> Any:
        """Give a worktable another workflow."""
        files = [("files", ("main.cwl", tool(inputs, outputs, **more)))]
        return (await self.request("PUT", f"/tables/{table}/workflow", expect=200, files=files)).json()

    async def _identity(
        self, table: str, row: int, job: str, attempt: int, revision: int | None, version: str | None = None
    ) -> dict[str, Any]:
        detail = await self.get(f"/tables/{table}")
        if revision is None:
            revision = (await self.get(f"/tables/{table}/rows/{row}"))["revision"]
        return {
            "table": detail["id"],
            "job": job,
            "attempt": attempt,
            "row": row,
            "revision": revision,
            "workflow_version": version or detail["workflow"]["version"],
        }

    # --- what the log says ---

    async def log(self, after: int = 0, *names: str) -> list[Envelope]:
        found = await self.context.database.read(lambda connection: self.context.log.read(connection, after=after))
        return [envelope for envelope in found if not names or envelope.name in names]

    async def head(self) -> int:
        return await self.context.database.read(self.context.log.head)

    def rebuilt(self) -> tuple[Rebuilt, list[str]]:
        """Rebuild beside the read model, and tell which tables are not equal to it."""
        projection = SERVICE.projection()
        result = rebuild(self.context.database, self.context.log, projection, _no_feed, swap=False)
        return result, list(compare(self.context.database, projection))


def _no_feed(source: str, after: int, until: int) -> list[Envelope]:
    raise AssertionError(f"a rebuild asked {source} for {after} to {until}")


_migrated: list[Path] = []


def _migrate(database: Database, folder: Path) -> None:
    """Bring a database to the newest schema; a file is copied from the first one of this process, which takes less time."""
    file = Path(database.url.database or "")
    if not database.is_sqlite or file.exists():
        upgrade(database, SERVICE.migrations)
        return
    if not _migrated or not _migrated[0].exists():
        template = Path(tempfile.mkdtemp(prefix="stoa-template-")) / "tables.sqlite"
        atexit.register(shutil.rmtree, template.parent, ignore_errors=True)
        made = Database(f"sqlite:///{template}")
        upgrade(made, SERVICE.migrations)
        made.engine.dispose()
        _migrated[:] = [template]
    folder.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_migrated[0], file)


@asynccontextmanager
async def running(database_url: str, folder: Path, **settings: Any) -> AsyncIterator[Harness]:
    """Run the service over a database, which is migrated first."""
    nowhere = "http://127.0.0.1:9"
    chosen = TablesSettings(
        data=folder,
        database_url=SecretStr(database_url),
        actor="ada",
        scheduler_url=nowhere,
        executor_url=nowhere,
        **settings,
    )
    broker = MemoryBroker()
    app = SERVICE.create_app(chosen, bus=MemoryBus(broker))
    context: TablesContext = app.state.context
    for follower in context.followers:
        # So long it takes to stop, for every test.
        follower.wait = 0.02
    _migrate(context.database, folder)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://stoa", timeout=60) as client,
    ):
        yield Harness(client, context, app.state.changes, broker)
