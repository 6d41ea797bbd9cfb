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
from typing import IO, Any

__all__ = ["Service", "end_with_parent"]

_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 10 * 1024 * 1024
_LOG_FILES = 3
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_HEALTHY_AFTER_S = 10.0
_TELL_AGAIN_S = 60.0
_POLL_S = 0.1


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that ends; only Linux can.

    Parameters
    ----------
    parent
        The parent's process id.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent ended before we asked, and somebody else adopted us.
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
        self._told: dict[str, float] = {}
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
        """The last lines that it wrote; of entries of its log only what they say."""
        return "\n".join(filter(None, map(_said, self._last)))

    @property
    def gave_up(self) -> bool:
        """Whether it ended by itself and said that it cannot run; one that was killed is started again."""
        return self._process is not None and (self._process.poll() or 0) > 0

    def start(self) -> None:
        """Start the process."""
        command: Sequence[str] = (
            sys.executable, "-m", "stoa", "serve", self.name, "--fd", str(self._socket), "--upgrade",
            "--with-parent", str(os.getpid()),
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
            if self._process.returncode > 0 and self.last_words:
                self._say(self.last_words)
        elif now >= self._restart_at:
            self.start()

    def ask_to_stop(self) -> None:
        """Ask the process to end; `stop` waits for it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, is_over: Callable[[], bool]) -> None:
        """Ask the process to end, and kill it when the time for that is over.

        Parameters
        ----------
        is_over
            Tells whether there is no more time.
        """
        if self._process is None:
            return
        self.ask_to_stop()
        while not _waited(self._process):
            if is_over():
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
        entry = _entry(text)
        if entry is None or entry.get("level") not in {"error", "critical"}:
            return
        # A service that waits for something says so again and again; once is enough for the person.
        now, what = time.monotonic(), str(entry.get("event"))
        if now - self._told.get(what, -_TELL_AGAIN_S) < _TELL_AGAIN_S:
            return
        self._told[what] = now
        why = entry.get("error") or entry.get("reason") or entry.get("problem")
        self._say(f"{self.name}: {what}{f': {why}' if why else ''} (see {self.log_file})")


def _entry(text: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _said(text: str) -> str:
    entry = _entry(text)
    if entry is None:
        return text
    if entry.get("level") in {"debug", "info"}:
        return ""
    return ": ".join(str(entry[key]) for key in ("event", "error") if entry.get(key))


def _waited(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"status {status}"
