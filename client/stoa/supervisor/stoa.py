"""The supervisor: starts everything in order, keeps it running, and stops it in order."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from stoa.errors import Failure, Refused
from stoa.supervisor.process import Service

__all__ = ["Options", "Supervisor"]

#: In the order in which they are stopped: who takes requests first, the truth last.
SERVICES = ("web", "executor", "scheduler", "tables")

_READY_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 25.0
_TICK_S = 0.2


@dataclass(frozen=True)
class Options:
    """What ``stoa up`` was told."""

    host: str
    port: int
    data: Path
    example: Path | None = None
    workers: int | None = None
    nats_url: str | None = None


class Supervisor:
    """Runs Stoa on one machine.

    Parameters
    ----------
    options
        What the user wants.
    say
        Shows a line to the person at the terminal.
    """

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self.data = options.data.absolute()
        self._say = say
        self._stop = threading.Event()
        self._sockets: dict[str, socket.socket] = {}
        self._services: dict[str, Service] = {}
        self._nats: Any = None
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        """Where Stoa answers."""
        host, port = self._sockets["web"].getsockname()[:2]
        shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"

    def run(self) -> None:
        """Start, tell the address, stay until a signal comes, and stop.

        Raises
        ------
        Refused
            If the data folder or the port cannot be used; nothing was started.
        Failure
            If a part does not start.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._take_data()
        self._listen()
        try:
            self._start()
            if self._wait_until_ready():
                self._welcome()
            while not self._stop.wait(_TICK_S):
                self._watch()
        finally:
            self._end()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stop.set()

    # --- before anything is started ----------------------------------------------------------------------------------

    def _take_data(self) -> None:
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            (self.data / "logs").mkdir(exist_ok=True)
            self._lock = (self.data / "stoa.lock").open("a+")
        except OSError as error:
            raise Refused(f"The data folder {self.data} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            raise Refused(
                f"Stoa already runs on {self.data} (process {holder}); stop it, or name another folder"
            ) from error
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def _listen(self) -> None:
        for name in SERVICES:
            host, port = (self.options.host, self.options.port) if name == "web" else ("127.0.0.1", 0)
            try:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                self._sockets[name] = socket.create_server((host, port), family=family, backlog=512)
            except OSError as error:
                raise Refused(
                    f"Port {port} on {host} cannot be used: {error.strerror}; name another one (make up PORT=…, stoa up --port …)"
                ) from error

    # --- running -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        environment = self._environment()
        for name in reversed(SERVICES):
            descriptor = self._sockets[name].fileno()
            self._services[name] = Service(name, descriptor, environment, self.data / "logs", self._say)
            self._services[name].start()

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        environment["STOA_DATA"] = str(self.data)
        environment["STOA_NATS_URL"] = self.options.nats_url or self._start_nats()
        environment.setdefault("STOA_LOG_FORMAT", "json")
        for name in ("tables", "scheduler", "executor"):
            environment[f"STOA_{name.upper()}_URL"] = f"http://127.0.0.1:{self._sockets[name].getsockname()[1]}"
        if self.options.workers is not None:
            environment["STOA_EXECUTOR_WORKERS"] = str(self.options.workers)
        if self.options.example is not None:
            roots = json.loads(environment.get("STOA_EXECUTOR_INPUT_ROOTS", "[]"))
            environment["STOA_EXECUTOR_INPUT_ROOTS"] = json.dumps([*roots, str(self.data / "archive")])
        return environment

    def _start_nats(self) -> str:
        try:
            from stoa_chassis.nats_server import NatsServer, NatsServerError
        except ImportError as error:
            raise Failure(
                "The services of Stoa are not installed here; 'make up' in a checkout installs them"
            ) from error
        self._nats = NatsServer(self.data / "nats", end_with_parent=True)
        try:
            self._nats.start()
        except NatsServerError as error:
            raise Failure(str(error)) from error
        url: str = self._nats.url
        return url

    def _watch(self) -> None:
        for service in self._services.values():
            service.watch()
        if self._nats is not None and not self._nats.is_running and not self._stop.is_set():
            self._say("The NATS server ended and is started again.")
            try:
                self._nats.start()
            except Exception as error:  # noqa: BLE001 - it is tried again at the next tick, whatever it was
                self._say(str(error))

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        waiting = list(SERVICES)
        while waiting and not self._stop.is_set():
            waiting = [name for name in waiting if not self._is_ready(name)]
            for name in waiting:
                if self._services[name].pid is None:
                    raise Failure(f"The {name} service does not start:\n{self._services[name].last_words}")
            if time.monotonic() > deadline:
                raise Failure(
                    f"Not ready after {_READY_TIMEOUT_S:.0f} s: {', '.join(waiting)}; see {self.data / 'logs'}"
                )
            if waiting:
                self._stop.wait(0.05)
        return not self._stop.is_set()

    def _is_ready(self, name: str) -> bool:
        host, port = self._sockets[name].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/readyz"
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                return bool(answer.status == 200)  # noqa: PLR2004
        except (urllib.error.URLError, OSError):
            return False

    def _welcome(self) -> None:
        self._say(f"Stoa answers at {self.url}")
        if self.options.example is not None:
            # In a thread, because the services are watched meanwhile.
            threading.Thread(target=self._load_example, args=[self.options.example], daemon=True).start()
        else:
            self._say(f"Press Ctrl-C to stop it. Its data stay in {self.data}")

    # --- the example -------------------------------------------------------------------------------------------------

    def _load_example(self, example: Path) -> None:
        from stoa.api import Stoa, StoaError, UnreachableError
        from stoa.project import load_project

        archive = self.data / "archive"
        try:
            if (maker := example / "make_archive.py").exists() and not self._made(maker, archive):
                return
            with Stoa(self.url) as stoa:
                names = load_project(stoa, example / "project.yaml", {"ARCHIVE": archive.as_uri()}, self._say)
                self._settle(stoa, names)
        except (StoaError, UnreachableError, Refused, OSError) as error:
            if not self._stop.is_set():
                self._say(f"The example could not be loaded: {error}")

    def _made(self, maker: Path, archive: Path) -> bool:
        if not archive.exists():
            self._say("Simulating the archive of the example")
        command = [sys.executable, str(maker), str(archive)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the example that the user named
        if done.returncode:
            self._say(f"The archive of the example could not be made: {done.stderr.strip()}")
        return done.returncode == 0

    def _settle(self, stoa: Any, names: list[str]) -> None:
        told, quiet, counts = time.monotonic(), 0, dict[str, dict[str, int]]()
        while not self._stop.is_set():
            counts = {item["id"]: item["counts"] for item in stoa.tables() if item["name"] in names}
            busy = any(count.get(status) for count in counts.values() for status in ("stale", "queued", "running"))
            # What ends in one table begins in the next a moment later.
            quiet = 0 if busy else quiet + 1
            if quiet > 3:  # noqa: PLR2004
                break
            if time.monotonic() - told > 5:  # noqa: PLR2004
                told = time.monotonic()
                ended = sum(
                    count.get(status, 0) for count in counts.values() for status in ("current", "failed", "cancelled")
                )
                self._say(
                    f"The example runs: {ended} of {sum(sum(count.values()) for count in counts.values())} rows have ended"
                )
            self._stop.wait(0.3)
        if not self._stop.is_set():
            current = sum(count.get("current", 0) for count in counts.values())
            failed = sum(count.get("failed", 0) for count in counts.values())
            self._say(f"The example is ready: {current} rows are current, {failed} failed.")
            self._say(f"Look at it: {self.url}  or  stoa table show sources")
            self._say(f"Press Ctrl-C to stop Stoa. Its data stay in {self.data}")

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        for name in SERVICES:
            if name in self._services:
                self._services[name].stop(_STOP_TIMEOUT_S)
        if self._nats is not None:
            self._nats.stop()
        for each in self._sockets.values():
            each.close()
        if self._lock is not None:
            self._lock.close()
