"""How long it takes until the page is there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Result, case, median_ms
from tests.support.stoa import running_stoa


@case("start_s")
def second_start(folder: Path) -> Iterator[Result]:
    """Start Stoa a second time on the same data, until the page and every service answer."""
    data = folder / "data"
    with running_stoa(data):
        pass
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        with running_stoa(data):
            durations.append(time.perf_counter() - started)
    seconds = sorted(durations)[1]
    peer = (
        median_ms(
            lambda: subprocess.run([sys.executable, "-m", "cwltool", "--version"], capture_output=True, check=True), 3
        )
        / 1000
    )
    yield Result("start_s", seconds, "s", "one cwltool start", seconds / peer)
