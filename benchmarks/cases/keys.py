"""What it costs to know what a job would compute, to take it from another job, and to watch the files."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness import Result, case, median_ms
from stoa_chassis.database import Database
from stoa_chassis.log import Log, Origin
from stoa_chassis.migrations import upgrade
from stoa_chassis.projection import EventStore
from stoa_contracts.events.executor import JobFinished
from stoa_contracts.jobs import JobRequest
from stoa_contracts.types import InputFile, Usage
from stoa_executor.app import SERVICE
from stoa_executor.digests import ContentDigests
from stoa_executor.ledger import Ledger
from stoa_executor.pool import search_path
from stoa_executor.preparation import Preparer
from stoa_executor.projection import ExecutorProjection
from stoa_executor.software import Software, WorkflowDescription
from stoa_executor.staging import InputStager, StagedWorkflow
from stoa_executor.store import FileStore
from stoa_executor.watching import FileWatcher
from tests.support.stoa import running_stoa

FILES = 100_000
ROWS = 500
_DIGEST = "0" * 64
_ORIGIN = Origin(actor="benchmark", correlationid="benchmark")


class _Executor:
    """The parts of an executor that know what files hold."""

    def __init__(self, folder: Path) -> None:
        self.archive = folder / "archive"
        self.archive.mkdir()
        self.database = Database(f"sqlite:///{folder / 'executor.sqlite'}")
        upgrade(self.database, SERVICE.migrations)
        self.events = EventStore(Log("executor"), ExecutorProjection())
        self.digests = ContentDigests(self.database, [self.archive])

    def settle(self) -> None:
        """Wait until the files count as written long ago."""
        time.sleep(2.1)


def _ended(files: list[InputFile]) -> JobFinished:
    now = datetime.now(UTC)
    return JobFinished(
        table="t",
        job="j",
        attempt=1,
        row=1,
        revision=1,
        workflow_version=_DIGEST,
        outcome="success",
        final=True,
        host="h",
        started=now,
        finished=now,
        usage=Usage(wall_s=0, cpu_s=0, max_rss_bytes=0),
        files=files,
    )


@case("key_ms")
def key(folder: Path) -> Iterator[Result]:
    """Compute the key of a row that reads a file of 10 MB, and look for a job that ran under it."""
    executor = _Executor(folder)
    image = executor.archive / "image.fits"
    image.write_bytes(os.urandom(10 << 20))
    executor.settle()
    workflow = StagedWorkflow(folder / "workflow", "tool.cwl", None)
    description = WorkflowDescription(programs=("/bin/echo",), expressions=False, reuse=True)
    store = FileStore(folder / "files")
    software = Software(executor.digests, search_path(None), {"cwltool": version("cwltool")})
    preparer = Preparer(store, InputStager(store, [executor.archive]), executor.digests, software)
    ledger = Ledger(
        database=executor.database,
        events=executor.events,
        host="h",
        place="p",
        software={},
        max_starts=5,
        dead_after=10,
    )

    async def measure() -> float:
        durations = []
        for number in range(300):
            request = JobRequest(
                job=str(number),
                attempt=1,
                max_attempts=1,
                table="t",
                row=number,
                revision=1,
                workflow_version=_DIGEST,
                inputs={"number": number, "image": {"class": "File", "location": image.as_uri()}},
                requested_by="benchmark",
                correlationid="c",
                causationid="c",
            )
            started = time.perf_counter()
            prepared = await asyncio.to_thread(preparer.prepare, request, workflow, description, lambda: False)
            if prepared.key is None or await ledger.reusable(prepared.key.digest) is not None:
                raise RuntimeError(number)
            await asyncio.to_thread(preparer.check, prepared, workflow, description)
            durations.append((time.perf_counter() - started) * 1000)
        await executor.database.aclose()
        return sorted(durations)[len(durations) // 2]

    value = asyncio.run(measure())
    bare_ms = median_ms(lambda: subprocess.run(["/bin/echo", "1"], stdout=subprocess.DEVNULL, check=True), 300)
    yield Result("key_ms", value, "ms", "bare subprocess", value / bare_ms)


@case("reused_per_second")
def reused(folder: Path) -> Iterator[Result]:
    """Give 500 rows the outputs of equal rows of another table, from stale to current."""
    with running_stoa(folder / "data") as stoa:
        seconds = []
        for name in ("made", "reused"):
            table = stoa.create_worktable(name)
            position = stoa.add_rows(table, [{"number": number} for number in range(ROWS)])
            started = time.perf_counter()
            stoa.run(table, after=position)
            counts = stoa.settle(table, timeout=300)[table]
            seconds.append(time.perf_counter() - started)
            if counts != {"current": ROWS}:
                raise RuntimeError(f"Not every row became current: {counts}")
        ran = [e for e in stoa.events("executor") if e.name == "job-finished" and e.data["reused_from"] is None]
        if len(ran) != ROWS:
            raise RuntimeError(f"{len(ran)} jobs ran")
    yield Result("reused_per_second", ROWS / seconds[1], "rows/s", "the same rows, run", seconds[0] / seconds[1])


@case("recheck_100k_s", "directory_10k_ms")
def recheck(folder: Path) -> Iterator[Result]:
    """Look whether 100,000 files changed that jobs have read, and whether a directory of 10,000 did."""
    executor = _Executor(folder)
    for number in range(100):
        (executor.archive / str(number)).mkdir()
    paths = [executor.archive / str(number % 100) / f"{number}.fits" for number in range(FILES)]
    for path in paths:
        path.write_bytes(b"x")
    executor.settle()
    watcher = FileWatcher(
        database=executor.database,
        events=executor.events,
        digests=executor.digests,
        roots=[executor.archive],
        period=60,
        folders=0,
    )

    async def measure() -> tuple[float, float]:
        for start in range(0, FILES, 1000):
            some = paths[start : start + 1000]
            executor.digests.fetch([str(path) for path in some])
            held = [executor.digests.look(str(path), recall=False) for path in some]
            files = [
                InputFile(location=path.as_uri(), sha256=item.sha256, size=item.size)
                for path, item in zip(some, held, strict=True)
            ]
            await executor.digests.save()
            await executor.database.write(
                lambda connection, files=files: executor.events.record(connection, "t", [_ended(files)], _ORIGIN)  # type: ignore[misc]
            )
        started = time.perf_counter()
        done = await watcher.recheck(None, _ORIGIN)
        seconds = time.perf_counter() - started
        if done.checked != FILES or done.changed:
            raise RuntimeError(f"{done.checked} looked at, {len(done.changed)} changed")
        tenth = executor.archive / "ten-thousand"
        tenth.mkdir()
        for path in paths[: FILES // 10]:
            path.rename(tenth / path.name)
        executor.settle()
        executor.digests.look(str(tenth))
        directory_ms = median_ms(lambda: executor.digests.look(str(tenth)), 5)
        await executor.database.aclose()
        return seconds, directory_ms

    def bare(some: list[Path]) -> None:
        for path in some:
            os.stat(path)  # noqa: PTH116 - the least that a look can be

    bare_s = median_ms(lambda: bare(paths), 3) / 1000
    seconds, directory_ms = asyncio.run(measure())
    yield Result("recheck_100k_s", seconds, "s", "os.stat of each", seconds / bare_s)
    moved = [executor.archive / "ten-thousand" / path.name for path in paths[: FILES // 10]]
    bare_ms = median_ms(lambda: bare(moved), 3)
    yield Result("directory_10k_ms", directory_ms, "ms", "os.stat of each file", directory_ms / bare_ms)
