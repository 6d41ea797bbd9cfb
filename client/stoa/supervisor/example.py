"""The example: its archive, its tables, and the wait until they are filled."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stoa.errors import Refused

if TYPE_CHECKING:
    from stoa.api import Stoa
    from stoa.supervisor.reporter import Reporter

__all__ = ["Example"]

_LOOK_EVERY_S = 0.5
_TELL_EVERY_S = 5.0
# What ends in one table begins in the next a moment later.
_QUIET_LOOKS = 3
# Rows that stay stale wait for a person: somebody edited them, and their table runs by hand.
_STALE_LOOKS = 12
_ACTIVE = ("queued", "running")
_ENDED = ("current", "failed", "cancelled")


class Example:
    """Loads an example beside the supervision of the services.

    Parameters
    ----------
    folder
        With ``project.yaml``, and ``make_archive.py`` where its data are made by a script.
    archive
        Where the script makes them.
    url
        Where Stoa answers.
    reporter
        Told what happens.
    """

    def __init__(self, folder: Path, archive: Path, url: str, reporter: Reporter) -> None:
        self._folder = folder
        self._archive = archive
        self._url = url
        self._reporter = reporter
        self._stop = threading.Event()
        self._maker: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._load, name="example", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Break off; the next start goes on."""
        self._stop.set()
        if self._maker is not None and self._maker.poll() is None:
            self._maker.terminate()
        self._thread.join(timeout=5)

    def _load(self) -> None:
        from stoa.api import Stoa, StoaError, UnreachableError
        from stoa.project import load_project

        try:
            if not self._made():
                return
            with Stoa(self._url) as stoa:
                variables = {"ARCHIVE": self._archive.as_uri()}
                names = load_project(stoa, self._folder / "project.yaml", variables, self._reporter.say)
                self._settle(stoa, names)
        except (StoaError, UnreachableError, Refused, OSError) as error:
            if not self._stop.is_set():
                self._reporter.say(f"The example could not be loaded: {error}")

    def _made(self) -> bool:
        maker = self._folder / "make_archive.py"
        if not maker.exists() or self._stop.is_set():
            return not self._stop.is_set()
        if not self._archive.exists():
            self._reporter.say("Simulating the archive of the example")
        self._maker = subprocess.Popen(  # noqa: S603 - the example that the user named
            [sys.executable, str(maker), str(self._archive)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        _, said = self._maker.communicate()
        if self._stop.is_set():
            return False
        if self._maker.returncode:
            self._reporter.say(f"The archive of the example could not be made: {said.strip()}")
        return self._maker.returncode == 0

    def _settle(self, stoa: Stoa, names: list[str]) -> None:
        from stoa.api import StoaError, UnreachableError

        told, quiet, before = time.monotonic(), 0, dict[str, int]()
        while not self._stop.is_set():
            try:
                counts = _summed([table["counts"] for table in stoa.tables() if table["name"] in names])
            except (StoaError, UnreachableError):
                # A service that is started again answers soon.
                self._stop.wait(_LOOK_EVERY_S)
                continue
            still = counts == before and not any(counts.get(status) for status in _ACTIVE)
            quiet, before = (quiet + 1 if still else 0), counts
            if quiet >= (_STALE_LOOKS if counts.get("stale") else _QUIET_LOOKS):
                self._tell(counts)
                return
            if not still and time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                ended = sum(counts.get(status, 0) for status in _ENDED)
                self._reporter.progress(f"The example runs: {ended} of {sum(counts.values())} rows have ended")
            self._stop.wait(_LOOK_EVERY_S)

    def _tell(self, counts: dict[str, int]) -> None:
        parts = [f"{counts[status]} {status}" for status in (*_ENDED, "stale") if counts.get(status)]
        self._reporter.say(f"The example is ready; rows: {', '.join(parts) or 'none'}.")
        self._reporter.say(f"Look at it: {self._url}  or  stoa table show sources")


def _summed(counts: list[dict[str, int]]) -> dict[str, int]:
    statuses = {status for each in counts for status in each}
    return {status: sum(each.get(status, 0) for each in counts) for status in statuses}
