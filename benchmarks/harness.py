"""What the cases share: the registry, the machine's line, timing, and a running Stoa."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

__all__ = ["TRIVIAL_TOOL", "Result", "case", "cases", "machine", "median_ms", "running_stoa", "wait_until_settled"]

#: The least that a row can be: one process, one input, one output file.
TRIVIAL_TOOL = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [/bin/echo]
inputs:
  number: {type: int, inputBinding: {position: 1}}
outputs:
  text: {type: stdout}
stdout: text.txt
"""


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


def free_port() -> int:
    """Find a free port on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_stoa(data: Path, *, timeout: float = 120) -> Iterator[httpx.Client]:
    """Start Stoa on a data folder and give a client for it; stop it at the end.

    Raises
    ------
    RuntimeError
        If it does not become ready in time; the message holds what it said.
    """
    port = free_port()
    data.mkdir(parents=True, exist_ok=True)
    said = data / "up.txt"
    command = [str(Path(sys.executable).with_name("stoa")), "up", "--port", str(port), "--data", str(data)]
    with said.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until_ready(client, process, said, timeout)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], said: Path, timeout: float) -> None:
    """Wait until every service answers that it is ready."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            answers = [client.get(f"/services/{name}/readyz") for name in ("tables", "scheduler", "executor")]
            if all(answer.status_code == httpx.codes.OK for answer in answers) and client.get("/").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    message = f"Stoa did not become ready:\n{said.read_text()[-2000:]}"
    raise RuntimeError(message)


def create_worktable(client: httpx.Client, name: str, cwl: str = TRIVIAL_TOOL) -> str:
    """Create a worktable from one CWL document and give its id."""
    answer = client.post(
        "/api/tables", data={"table": json.dumps({"name": name})}, files={"files": ("tool.cwl", cwl.encode())}
    )
    answer.raise_for_status()
    table: str = answer.json()["id"]
    return table


def add_rows(client: httpx.Client, table: str, rows: list[dict[str, object]], chunk: int = 10_000) -> int:
    """Add rows and give the position of the tables' log after the last of them."""
    position = 0
    for start in range(0, len(rows), chunk):
        answer = client.post(f"/api/tables/{table}/rows", json={"rows": rows[start : start + chunk]})
        answer.raise_for_status()
        position = answer.json()["position"]
    return position


def wait_until_settled(client: httpx.Client, table: str, timeout: float) -> dict[str, int]:
    """Wait until no row of a table is stale, queued or running, and give the counts per status."""
    deadline = time.monotonic() + timeout
    counts: dict[str, int] = {}
    while time.monotonic() < deadline:
        counts = client.get(f"/api/tables/{table}").raise_for_status().json()["counts"]
        if not any(counts.get(status) for status in ("stale", "queued", "running")):
            return counts
        time.sleep(0.05)
    message = f"Table {table} did not settle within {timeout} s: {counts}"
    raise RuntimeError(message)
