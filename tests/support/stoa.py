"""A whole Stoa, started as a user starts it, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from stoa_contracts.envelope import Envelope, read_batch

__all__ = ["TRIVIAL_TOOL", "RunningStoa", "free_port", "running_stoa"]

SERVICES = ("tables", "scheduler", "executor")

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


def free_port() -> int:
    """Find a free port on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RunningStoa:
    """Stoa on a data folder: `start` and `stop` may be called in turn.

    Parameters
    ----------
    data
        The data folder.
    arguments
        More arguments of ``stoa up``.
    environment
        More settings.
    """

    def __init__(self, data: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self._arguments = arguments
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("STOA_")},
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process and do not wait for anything."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        command = [
            str(Path(sys.executable).with_name("stoa")),
            "up",
            "--port",
            str(self.port),
            "--data",
            str(self.data),
        ]
        with self.said_in.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, *self._arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._environment,
            )
        return self.process

    def start(self, timeout: float = 90) -> None:
        """Start, and wait until every service and the page answer.

        Raises
        ------
        RuntimeError
            If they do not in time; the message holds what was said.
        """
        process = self.launch()
        deadline = time.monotonic() + timeout
        while process.poll() is None and time.monotonic() < deadline:
            try:
                answers = [self.client.get(f"/services/{name}/readyz") for name in SERVICES]
                if all(answer.is_success for answer in answers) and self.client.get("/").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"Stoa did not become ready:\n{self.said()[-3000:]}")

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 60) -> int:
        """Stop by a signal and give the exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        finally:
            self.process.kill()

    def close(self) -> None:
        """Stop, and close the client."""
        self.stop()
        self.client.close()

    @property
    def said_in(self) -> Path:
        """The file with what the process wrote to its terminal."""
        return self.data.with_name(f"{self.data.name}.said.txt")

    def said(self) -> str:
        """Give what the process wrote to its terminal."""
        return self.said_in.read_text() if self.said_in.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """List the running processes that the supervisor started, and it itself."""
        assert self.process is not None
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    # --- What a user does ------------------------------------------------------------------------------------------

    def create_worktable(self, name: str, cwl: str = TRIVIAL_TOOL, **files: str) -> str:
        """Create a worktable from one CWL document and more files, and give its id."""
        upload = [("files", ("tool.cwl", cwl.encode()))]
        upload += [("files", (file, content.encode())) for file, content in files.items()]
        answer = self.client.post(
            "/api/tables", data={"table": json.dumps({"name": name, "main": "tool.cwl"})}, files=upload
        )
        table: str = self.checked(answer)["id"]
        return table

    def add_rows(self, table: str, rows: list[dict[str, Any]], chunk: int = 10_000) -> int:
        """Add rows and give the position of the tables' log after the last of them."""
        position = 0
        for start in range(0, len(rows), chunk):
            answer = self.client.post(f"/api/tables/{table}/rows", json={"rows": rows[start : start + chunk]})
            position = self.checked(answer)["position"]
        return position

    def run(self, table: str, scope: str = "stale", *, after: int | None = None, **more: Any) -> dict[str, Any]:
        """Run rows of a table."""
        return self.checked(
            self.client.post("/api/runs", json={"table": table, "scope": scope, "after": after, **more})
        )

    def run_to_end(self, table: str, scope: str, timeout: float = 60, **more: Any) -> None:
        """Run rows of a table and wait until the table knows how each of them ended.

        Rows that had ended before look no different until the table hears of their new jobs, so `settle` would not wait.

        Raises
        ------
        TimeoutError
            If they do not end in time.
        """
        position = self.head("tables")
        run = self.run(table, scope, **more)["run"]
        listed = self.checked(self.client.get("/api/jobs", params={"run": run, "limit": 1000}))["jobs"]
        waiting = {job["job"] for job in listed}
        deadline = time.monotonic() + timeout
        while waiting:
            if time.monotonic() > deadline:
                raise TimeoutError(f"The jobs {waiting} did not end within {timeout} s")
            for event in self.events("tables", position):
                position = event.log_position
                if event.name == "outputs-recorded":
                    waiting.discard(event.data["job"])
                elif event.name == "row-status-changed":
                    ended = [change for change in event.data["changes"] if change["status"] in {"failed", "cancelled"}]
                    waiting -= {change["job"] for change in ended}
            time.sleep(0.05)

    def counts(self, table: str) -> dict[str, int]:
        """Give the number of rows per status, without those that are zero."""
        counts: dict[str, int] = self.checked(self.client.get(f"/api/tables/{table}"))["counts"]
        return {status: number for status, number in counts.items() if number}

    def rows(self, table: str, **parameters: Any) -> list[dict[str, Any]]:
        """Give the rows of a table."""
        rows: list[dict[str, Any]] = self.checked(
            self.client.get(f"/api/tables/{table}/rows", params={"limit": 1000, **parameters})
        )["rows"]
        return rows

    def settle(self, *tables: str, timeout: float = 120) -> dict[str, dict[str, int]]:
        """Wait until no row of the tables is stale, queued or running, and give the counts of each.

        Raises
        ------
        TimeoutError
            If they do not settle in time.
        """
        deadline = time.monotonic() + timeout
        counts: dict[str, dict[str, int]] = {}
        while time.monotonic() < deadline:
            try:
                counts = {table: self.counts(table) for table in tables}
                if not any(each.keys() & {"stale", "queued", "running"} for each in counts.values()):
                    return counts
            except (httpx.TransportError, httpx.HTTPStatusError):
                pass
            time.sleep(0.05)
        raise TimeoutError(f"The tables did not settle within {timeout} s: {counts}")

    def events(self, service: str, after: int = 0) -> list[Envelope]:
        """Read a service's feed to its end."""
        found: list[Envelope] = []
        while True:
            answer = self.client.get(f"/services/{service}/events", params={"after": after, "limit": 5000})
            page = read_batch(answer.raise_for_status().content)
            if not page:
                return found
            found += page
            after = page[-1].log_position

    def head(self, service: str) -> int:
        """Give the position of a service's last event."""
        events = self.events(service)
        return events[-1].log_position if events else 0

    def finished_jobs(self, after: int = 0) -> Counter[str]:
        """Count the jobs that the executor finished, by table."""
        return Counter(e.subject for e in self.events("executor", after) if e.name == "job-finished")

    @staticmethod
    def checked(answer: httpx.Response) -> dict[str, Any]:
        """Give an answer's JSON.

        Raises
        ------
        httpx.HTTPStatusError
            If it is a problem; the message holds the document.
        """
        if answer.is_error:
            raise httpx.HTTPStatusError(f"{answer.status_code}: {answer.text}", request=answer.request, response=answer)
        document: dict[str, Any] = answer.json()
        return document


@contextmanager
def running_stoa(data: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[RunningStoa]:
    """Start Stoa on a data folder and stop it at the end."""
    stoa = RunningStoa(data, *arguments, environment=environment)
    try:
        stoa.start()
        yield stoa
    finally:
        stoa.close()
