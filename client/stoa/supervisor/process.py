"""A child process that is started, watched, started again and stopped."""

from __future__ import annotations

import ctypes
import json
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["Service", "end_with_parent"]

_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 10 * 1024 * 1024
_LOG_FILES = 3
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_HEALTHY_AFTER_S = 10.0


def end_with_parent() -> None:
    """Have the kernel end this process when its parent ends, however that ends; only Linux can."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        # The parent ended before we asked.
        os.kill(os.getpid(), signal.SIGKILL)


class Service:
    """One service of Stoa as a process in a session of its own, so that Ctrl-C reaches the supervisor alone.

    Parameters
    ----------
    name
        Of the service.
    socket
        The descriptor of its listening socket. It outlives the process: who connects while it starts again waits.
    environment
        Its whole environment.
    logs
        Folder for its log.
    say
        Shows a line to the person at the terminal.
    """

    def __init__(
        self, name: str, socket: int, environment: Mapping[str, str], logs: Path, say: Callable[[str], None]
    ) -> None:
        self.name = name
        self._socket = socket
        self._environment = dict(environment)
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._pause = _FIRST_PAUSE_S
        self._started = 0.0
        self._restart_at: float | None = None
        self._last: deque[str] = deque(maxlen=12)
        self.log_file = logs / f"{name}.log"
        self._log = logging.handlers.RotatingFileHandler(
            self.log_file, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, delay=True
        )

    @property
    def pid(self) -> int | None:
        """The process id, if it runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def last_words(self) -> str:
        """The last lines that it wrote."""
        return "\n".join(self._last)

    def start(self) -> None:
        """Start the process."""
        command: Sequence[str] = (
            sys.executable, "-m", "stoa", "serve", self.name, "--fd", str(self._socket), "--upgrade", "--with-parent",
        )  # fmt: skip
        self._started = time.monotonic()
        self._restart_at = None
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[self._socket],
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout], daemon=True)
        self._reader.start()

    def watch(self) -> None:
        """Start the process again if it ended, after a pause that grows while it ends soon after each start."""
        if self.pid is not None or self._process is None:
            return
        now = time.monotonic()
        if self._restart_at is None:
            if now - self._started > _HEALTHY_AFTER_S:
                self._pause = _FIRST_PAUSE_S
            self._restart_at = now + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_S)
            self._say(f"The {self.name} service ended ({_ending(self._process.returncode)}) and is started again.")
        elif now >= self._restart_at:
            self.start()

    def stop(self, timeout: float) -> None:
        """Ask the process to end, and kill it if it does not in time."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._say(f"The {self.name} service does not end and is killed.")
                self._process.kill()
                self._process.wait()
        self._process = None
        if self._reader is not None:
            self._reader.join(timeout=2)
        self._log.close()

    def _read(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                text = line.decode(errors="replace").rstrip("\n")
                self._last.append(text)
                self._log.emit(logging.makeLogRecord({"msg": text}))
                self._tell_errors(text)

    def _tell_errors(self, text: str) -> None:
        try:
            entry = json.loads(text)
        except ValueError:
            return
        if isinstance(entry, dict) and entry.get("level") in {"error", "critical"}:
            self._say(
                f"{self.name}: {entry.get('event')} ({entry.get('error') or entry.get('reason') or 'see ' + str(self.log_file)})"
            )


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"status {status}"
