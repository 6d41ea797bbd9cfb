"""An executor that is killed again and again in the middle of its work, over NATS and a database on disk."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

import psutil

from stoa_chassis.database import Database
from stoa_chassis.log import Log
from stoa_chassis.migrations import upgrade
from stoa_chassis.nats_bus import NatsBus
from stoa_executor.app import SERVICE
from stoa_executor.store import FileStore
from tests.executor.conftest import tool
from tests.executor.site import Site
from tests.support.brokers import reached

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 45


async def start(site: Site, nats_url: str, said: Path) -> asyncio.subprocess.Process:
    """Start an executor as a process of its own."""
    settings = {
        "STOA_DATA": str(site.directory / "data"),
        "STOA_NATS_URL": nats_url,
        "STOA_TABLES_URL": site.url,
        "STOA_SCHEDULER_URL": site.url,
        "STOA_EXECUTOR_WORKERS": "2",
        "STOA_EXECUTOR_JOB_LEASE": "2",
    }
    program = "import sys; from stoa_chassis.service import serve; from stoa_executor.app import SERVICE; sys.exit(serve(SERVICE))"
    with said.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env=os.environ | settings, stdout=output, stderr=output
        )


async def test_every_job_has_exactly_one_outcome_however_often_the_executor_is_killed(
    tmp_path: Path, nats_url: str
) -> None:
    chance = random.Random(7)
    bus = NatsBus(nats_url)
    await bus.connect()
    await reached(bus)
    database = Database(f"sqlite:///{tmp_path}/data/executor.sqlite")
    await asyncio.to_thread(upgrade, database, SERVICE.migrations)
    log = Log("executor")

    async def finished() -> Counter[str]:
        events = await database.read(log.read)
        return Counter(event.data["job"] for event in events if event.name == "job-finished")

    async with Site(tmp_path, bus).serving() as site:
        script = f"sleep 0.05; echo {tmp_path} $0; echo $$ >&2"
        version = site.workflow(
            tool(["sh", "-c", script], {"n": {"type": "int", "inputBinding": {}}}, {"out": {"type": "stdout"}})
        )
        requests = [await site.queue(site.request(version, {"n": number})) for number in range(ROWS)]
        kills = 0
        process = await start(site, nats_url, tmp_path / "said")
        try:
            async with asyncio.timeout(100):
                while len(await finished()) < ROWS:
                    done = len(await finished())
                    if kills < 2 and done >= 15 * (kills + 1):
                        await asyncio.sleep(chance.random() * 0.3)
                        process.kill()
                        assert await process.wait() == -signal.SIGKILL
                        kills += 1
                        process = await start(site, nats_url, tmp_path / "said")
                    await asyncio.sleep(0.05)
        finally:
            process.terminate()
            status = await process.wait()
        outcomes = [event.data for event in await database.read(log.read) if event.name == "job-finished"]

    assert status == 0, (tmp_path / "said").read_text()
    assert kills == 2
    assert await finished() == Counter(request.job for request in requests)
    assert {outcome["outcome"] for outcome in outcomes} == {"success"}
    store = FileStore(tmp_path / "data" / "files")
    assert all(store.verify(outcome["outputs"]["out"]["location"].removeprefix("sha256:")) for outcome in outcomes)
    assert [
        item
        for item in await database.read(lambda connection: list(log.verify(connection)))
        if not isinstance(item, int)
    ] == []
    marks = str(tmp_path)
    left = [
        found.cmdline() for found in psutil.process_iter(["cmdline"]) if marks in " ".join(found.info["cmdline"] or [])
    ]
    assert left == []
    await bus.aclose()
    await database.aclose()
