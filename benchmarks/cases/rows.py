"""What a row costs: the engine alone, and the whole way from stale to current."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Result, case, median_ms
from stoa_executor.pool import EnginePool, EngineRequest
from tests.support.stoa import TRIVIAL_TOOL, running_stoa

ROWS = 1000


@case("row_engine_ms", "row_vs_cli")
def engine(folder: Path) -> Iterator[Result]:
    """Compare a row in a warm engine with the bare subprocess, and with one start of cwltool per row."""
    (folder / "workflow").mkdir()
    (folder / "workflow" / "tool.cwl").write_text(TRIVIAL_TOOL)

    async def measure() -> list[float]:
        pool = EnginePool(workers=1, directory=folder / "engines")
        await pool.start()
        durations = []
        for number in range(320):
            request = EngineRequest(
                job=f"job-{number}",
                workflow=folder / "workflow",
                main="tool.cwl",
                inputs={"number": number},
                directory=folder / "jobs" / str(number),
            )
            started = time.perf_counter()
            result = await pool.run(request)
            durations.append((time.perf_counter() - started) * 1000)
            if result.outcome != "success":
                raise RuntimeError(result.error)
        await pool.stop()
        return durations[20:]

    def bare() -> None:
        with (folder / "text.txt").open("wb") as output:
            subprocess.run(["/bin/echo", "1"], stdout=output, check=True)

    def command_line() -> None:
        arguments = ["--quiet", "--outdir", str(folder / "out"), str(folder / "workflow" / "tool.cwl"), "--number", "1"]
        subprocess.run([sys.executable, "-m", "cwltool", *arguments], stdout=subprocess.DEVNULL, check=True)

    bare_ms = median_ms(bare, 300)
    warm_ms = statistics.median(asyncio.run(measure()))
    yield Result("row_engine_ms", warm_ms, "ms", "bare subprocess", warm_ms / bare_ms)
    cli_ms = median_ms(command_line, 5)
    yield Result("row_vs_cli", warm_ms, "ms", "one cwltool start per row", warm_ms / cli_ms)


@case("rows_per_second")
def whole_way(folder: Path) -> Iterator[Result]:
    """Run 1,000 trivial rows from stale to current, with every event logged and every file stored."""
    with running_stoa(folder / "data") as stoa:
        warm_up = stoa.create_worktable("warm-up")
        # Other numbers than those that are measured, or their outputs would be taken instead of being made.
        stoa.run(warm_up, after=stoa.add_rows(warm_up, [{"number": -1 - number} for number in range(20)]))
        stoa.settle(warm_up)

        table = stoa.create_worktable("measured")
        position = stoa.add_rows(table, [{"number": number} for number in range(ROWS)])
        started = time.perf_counter()
        stoa.run(table, after=position)
        counts = stoa.settle(table, timeout=300)[table]
        seconds = time.perf_counter() - started
        if counts != {"current": ROWS}:
            raise RuntimeError(f"Not every row became current: {counts}")

    def bare() -> None:
        with (folder / "text.txt").open("wb") as output:
            subprocess.run(["/bin/echo", "1"], stdout=output, check=True)

    bare_rate = 1000 / median_ms(bare, 300)
    rate = ROWS / seconds
    yield Result("rows_per_second", rate, "rows/s", "bare subprocesses, one after another", rate / bare_rate)
