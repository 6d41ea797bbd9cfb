"""The supervisor: starts everything in order, keeps it running, and stops it in order."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from stoa.address import DEFAULT_URL
from stoa.errors import Failure, Refused
from stoa.supervisor import ADDRESSES
from stoa.supervisor.example import Example
from stoa.supervisor.process import Service
from stoa.supervisor.reporter import Reporter

__all__ = ["Options", "Supervisor"]

#: In the order in which they are named to people.
SERVICES = ("web", "executor", "scheduler", "tables")

_READY_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 25.0
_TICK_S = 0.2
_NATS_PAUSE_S = 2.0
_LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True)
class Options:
    """What ``stoa up`` was told."""

    host: str
    """Address to listen on."""

    port: int
    """Port to listen on; 0 takes a free one."""

    data: Path
    """Folder for everything that Stoa keeps."""

    example: Path | None = None
    """Folder of an example to load."""

    workers: int | None = None
    """Rows that run at the same time."""

    files: tuple[Path, ...] = ()
    """Folders from which rows may read files by their path."""

    nats_url: str | None = None
    """A NATS server that runs already."""


class Supervisor:
    """Runs Stoa on one machine.

    Parameters
    ----------
    options
        What the user wants.
    reporter
        Told what happens.
    """

    def __init__(self, options: Options, reporter: Reporter) -> None:
        self.options = options
        self.data = options.data.absolute()
        self._reporter = reporter
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._sockets: dict[str, socket.socket] = {}
        self._services: dict[str, Service] = {}
        self._nats: Any = None
        self._nats_again = 0.0
        self._example: Example | None = None
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
                self._reporter.ready(self.url, self.data)
                self._load_example()
            while not self._stop.wait(_TICK_S):
                self._watch()
        finally:
            self._end()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._stop.is_set():
            # Whoever asks twice does not want to wait.
            self._hurry.set()
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
            raise Refused(f"Stoa already runs on {self.data} ({holder}); stop it, or name another folder") from error
        self._note(f"process {os.getpid()}")

    def _note(self, holder: str) -> None:
        assert self._lock is not None  # noqa: S101 - taken before
        self._lock.truncate(0)
        self._lock.write(holder)
        self._lock.flush()

    def _listen(self) -> None:
        for name in SERVICES:
            host, port = (self.options.host, self.options.port) if name == "web" else ("127.0.0.1", 0)
            try:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                self._sockets[name] = socket.create_server((host, port), family=family, backlog=512)
            except OSError as error:
                raise Refused(
                    f"Port {port} on {host} cannot be used: {error.strerror};"
                    " name another one (make up PORT=…, stoa up --port …)"
                ) from error
        self._note(f"process {os.getpid()}, {self.url}")

    # --- running -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        environment = self._environment()
        self._tell_addresses(environment)
        for name in reversed(SERVICES):
            descriptor = self._sockets[name].fileno()
            self._services[name] = Service(name, descriptor, environment, self.data / "logs", self._reporter.say)
            self._services[name].start()

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        environment["STOA_DATA"] = str(self.data)
        environment["STOA_NATS_URL"] = self.options.nats_url or self._start_nats()
        environment.setdefault("STOA_LOG_FORMAT", "json")
        for name in ("NO_PROXY", "no_proxy"):
            # The services talk to each other, and no proxy leads from this machine to itself.
            environment[name] = ",".join(filter(None, [environment.get(name), "127.0.0.1", "localhost", "::1"]))
        for name in ("tables", "scheduler", "executor"):
            environment[f"STOA_{name.upper()}_URL"] = f"http://127.0.0.1:{self._sockets[name].getsockname()[1]}"
        if self.options.workers is not None:
            environment["STOA_EXECUTOR_WORKERS"] = str(self.options.workers)
        # An example that was loaded once stays readable, also where it is not named again.
        roots = [*json.loads(environment.get("STOA_EXECUTOR_INPUT_ROOTS", "[]")), *map(str, self.options.files)]
        if self.options.example is not None or (self.data / "archive").is_dir():
            roots.append(str(self.data / "archive"))
        environment["STOA_EXECUTOR_INPUT_ROOTS"] = json.dumps(roots)
        return environment

    def _tell_addresses(self, environment: dict[str, str]) -> None:
        # For the commands of an operator: the ports are others at each start.
        names = ("nats_url", "tables_url", "scheduler_url", "executor_url")
        lines = [f"{name} = {json.dumps(environment[f'STOA_{name.upper()}'])}\n" for name in names]
        (self.data / ADDRESSES).write_text("# Where the services answer while 'stoa up' runs.\n" + "".join(lines))

    def _start_nats(self) -> str:
        try:
            from stoa_chassis.nats_server import NatsServer, NatsServerError
        except ImportError as error:
            raise Failure(
                "The services of Stoa are not installed here; 'make up' in a checkout installs them"
            ) from error
        _quiet_library_logs()
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
        if self._nats is None or self._nats.is_running or time.monotonic() < self._nats_again:
            return
        self._nats_again = time.monotonic() + _NATS_PAUSE_S
        self._reporter.say("The NATS server ended and is started again.")
        try:
            self._nats.start()
        except Exception as error:  # noqa: BLE001 - it is tried again, whatever it was
            self._reporter.say(str(error))

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        waiting = list(SERVICES)
        while waiting and not self._stop.is_set():
            waiting = [name for name in waiting if not self._is_ready(name)]
            for name in waiting:
                if self._services[name].gave_up:
                    raise Failure(f"The {name} service does not start.\n{self._services[name].last_words}")
            if time.monotonic() > deadline:
                raise Failure(
                    f"Not ready after {_READY_TIMEOUT_S:.0f} s: {', '.join(waiting)}; see {self.data / 'logs'}"
                )
            self._watch()
            if waiting:
                self._stop.wait(0.05)
        return not self._stop.is_set()

    def _is_ready(self, name: str) -> bool:
        host, port = self._sockets[name].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/readyz"
        # Requests to this machine go to no proxy, whatever the environment says.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(address, timeout=2) as answer:
                return bool(answer.status == 200)  # noqa: PLR2004
        except (urllib.error.URLError, OSError):
            return False

    def _load_example(self) -> None:
        if not self.options.host.startswith(_LOOPBACK):
            self._reporter.say("Whoever reaches this address may use it: Stoa asks for no password yet.")
        if self.url != DEFAULT_URL:
            self._reporter.say(f"For the command: export STOA_URL={self.url}")
        if self.options.example is None:
            return
        self._example = Example(self.options.example, self.data / "archive", self.url, self._reporter)
        self._example.start()

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        # A second signal arrives here, and hurries.
        self._stop.set()
        deadline = time.monotonic() + _STOP_TIMEOUT_S

        def is_over() -> bool:
            return self._hurry.is_set() or time.monotonic() > deadline

        if self._example is not None:
            self._example.stop()
        # First who takes requests, then who does the work, all at once: none needs another to end well.
        # The broker goes last, because they send what they have still to say.
        for names in (SERVICES[:1], SERVICES[1:]):
            stopping = [self._services[name] for name in names if name in self._services]
            for service in stopping:
                service.ask_to_stop()
            for service in stopping:
                service.stop(is_over)
        if self._nats is not None:
            self._nats.stop()
        for each in self._sockets.values():
            each.close()
        (self.data / ADDRESSES).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()


def _quiet_library_logs() -> None:
    """Keep the broker's log lines off the terminal: what matters of them is said here in sentences."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(file=None),
    )
