"""What the cases share: the registry, the machine's line, and timing."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Result", "case", "cases", "machine", "median_ms", "report"]


@dataclass(frozen=True)
class Result:
    """One line of output."""

    case: str
    value: float
    unit: str
    peer: str
    """What the value is compared with."""

    ratio: float
    """The value divided by the peer's."""

    note: str | None = None


_cases: dict[str, Callable[[Path], Iterator[Result]]] = {}


def case(*names: str) -> Callable[[Callable[[Path], Iterator[Result]]], Callable[[Path], Iterator[Result]]]:
    """Register a function that measures one or several cases; it gets an empty folder."""

    def register(function: Callable[[Path], Iterator[Result]]) -> Callable[[Path], Iterator[Result]]:
        for name in names:
            _cases[name] = function
        return function

    return register


def cases() -> dict[str, Callable[[Path], Iterator[Result]]]:
    """Give every registered case by its name."""
    return dict(_cases)


def machine() -> dict[str, object]:
    """Describe the machine, for the line above the results."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def report(result: Result) -> None:
    """Print a result as one line of JSON."""
    rounded = {
        key: (float(f"{value:.4g}") if isinstance(value, float) else value) for key, value in asdict(result).items()
    }
    print(json.dumps({key: value for key, value in rounded.items() if value is not None}), flush=True)


def median_ms(function: Callable[[], object], times: int) -> float:
    """Call a function several times and give the median duration in milliseconds."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        durations.append((time.perf_counter() - started) * 1000)
    return statistics.median(durations)
