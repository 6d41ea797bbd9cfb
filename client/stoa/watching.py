"""Watching rows run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from stoa.output import emit

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["Progress", "watch_run", "watch_tables"]

_ACTIVE = ("queued", "running")
_ENDED_JOBS = ("succeeded", "failed", "cancelled")
_ACTIVE_JOBS = ("waiting", "dispatched", "running")
_LINES_EVERY_S = 5.0
_LOOK_EVERY_S = 0.3
_SHOWN_WITHIN_S = 15.0
_ASK_EVERY_S = 2.0
_IDLE_LOOKS = 8


class Progress:
    """How much is done, how fast, and how long the rest will take."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.failed = 0
        self._began = time.monotonic()
        self._looked: float | None = None
        self._per_minute: float | None = None
        self._end: datetime | None = None

    def look(self, stoa: Stoa, tables: Sequence[str]) -> None:
        """Ask now and then how fast tables are computed, and when that will be done."""
        now = time.monotonic()
        if self._looked is not None and now - self._looked < _ASK_EVERY_S:
            return
        self._looked = now
        reports = [stoa.progress(table=table) for table in tables] or [stoa.progress()]
        rates = [report["rate"] for report in reports if report["rate"] is not None]
        ends = [report["estimated_end"] for report in reports if report["waiting"] or report["running"]]
        self._per_minute = sum(rates) if rates else None
        known = [datetime.fromisoformat(end) for end in ends if end is not None]
        self._end = max(known) if known and len(known) == len(ends) else None

    def update(self, counts: Mapping[str, Mapping[str, int]]) -> int:
        """Take over the counts of tables, and give how many rows are left."""
        left = _left(*counts.values())
        # More work may come up while we watch.
        self.total = max(self.total, left + self.done)
        self.done = self.total - left
        self.failed = sum(each.get("failed", 0) for each in counts.values())
        return left

    @property
    def rate(self) -> str:
        """How many rows end in a minute, where that is known."""
        return "" if self._per_minute is None else f"{self._per_minute:.3g} rows/min"

    @property
    def remaining(self) -> str:
        """How long the rest will take, where that is known."""
        if self._end is None or self.total == self.done:
            return ""
        seconds = max(0, round((self._end - datetime.now(UTC)).total_seconds()))
        if seconds < 60:  # noqa: PLR2004
            return f"about {seconds} s left"
        return f"about {seconds // 60} min {seconds % 60:02} s left"

    @property
    def details(self) -> str:
        """What stands beside a bar."""
        failed = f"{self.failed} failed" if self.failed else ""
        return ", ".join(part for part in (self.rate, failed, self.remaining) if part)

    def line(self) -> str:
        """Tell it in one line."""
        return ", ".join(part for part in (f"{self.done} of {self.total} rows", self.details) if part)


def watch_run(stoa: Stoa, started: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Watch a run to its end.

    Parameters
    ----------
    stoa
        Where it runs.
    started
        What `Stoa.run` answered.
    as_json
        Print nothing but the run as it ended.

    Raises
    ------
    click.exceptions.Exit
        With status 1 if rows failed, or wait for what nobody runs.
    """
    if started["run"] is None:
        if as_json:
            emit({**started, "states": {}})
        return
    progress = Progress()
    ended: dict[str, Any] = {}

    _show(progress, _run_updates(stoa, started["run"], progress, ended), as_json=as_json)
    waiting = ended["awaited"] if ended["finished"] is None else 0
    if as_json:
        emit({**started, "states": ended["states"], "awaited": waiting})
    elif waiting:
        rows = "1 row waits" if waiting == 1 else f"{waiting} rows wait"
        click.echo(f"{rows} for rows upstream that nobody runs; 'stoa why' says which.")
    else:
        said = [f"{number} {state}" for state, number in ended["states"].items()]
        click.echo(f"The run has ended: {', '.join(said)}.")
    if progress.failed or waiting:
        raise click.exceptions.Exit(1)


def _run_updates(stoa: Stoa, run: str, progress: Progress, ended: dict[str, Any]) -> Iterator[None]:
    """Look at a run until it has ended, or nothing is on its way that could end it."""
    idle = 0
    while True:
        ended.update(stoa.run_state(run))
        states = ended["states"]
        # Rows that wait for their job may get one, or need none.
        progress.total = ended["jobs"] + ended["awaited"]
        progress.done = sum(states.get(state, 0) for state in _ENDED_JOBS)
        progress.failed = states.get("failed", 0)
        progress.look(stoa, [ended["table"]])
        yield
        if ended["finished"] is not None:
            break
        idle = 0 if any(states.get(state) for state in _ACTIVE_JOBS) or _is_busy(stoa) else idle + 1
        if idle >= _IDLE_LOOKS:
            # What the rows wait for is stale itself, and nobody has asked for it.
            break
        time.sleep(_LOOK_EVERY_S)
    # The scheduler knows first; who looks at the table next wants to see it there, too.
    until = time.monotonic() + _SHOWN_WITHIN_S
    while time.monotonic() < until and _left(stoa.table(ended["table"])["counts"]):
        time.sleep(_LOOK_EVERY_S)


def _is_busy(stoa: Stoa) -> bool:
    """Tell whether any job is on its way."""
    queue = stoa.request("GET", "/api/queue")
    return any(queue[state] for state in _ACTIVE_JOBS)


def watch_tables(stoa: Stoa, names: list[str], *, as_json: bool = False) -> None:
    """Watch tables until nothing is queued or running in them.

    Parameters
    ----------
    stoa
        Where they are.
    names
        Names or ids; none stands for all tables.
    as_json
        Print nothing but the counts at the end.

    Raises
    ------
    click.exceptions.Exit
        With status 1 if rows failed.
    """
    ids = [stoa.table(name)["id"] for name in names]
    position, counts = _counts(stoa, ids)
    progress = Progress()

    def updates() -> Iterator[None]:
        left = progress.update(counts)
        if not left:
            yield
            return
        progress.look(stoa, ids)
        yield
        for change in stoa.changes(ids or None, after=position):
            _take_over(counts, change["tables"])
            left = progress.update(counts)
            progress.look(stoa, ids)
            yield
            if not left:
                # A stream tells what was; the last word is the tables' own.
                counts.clear()
                counts.update(_counts(stoa, ids)[1])
                if not progress.update(counts):
                    return

    _show(progress, updates(), as_json=as_json)
    if as_json:
        emit({"counts": counts, "failed": progress.failed})
    else:
        click.echo(f"Nothing is queued or running{f'; {progress.failed} rows failed' if progress.failed else ''}.")
    if progress.failed:
        raise click.exceptions.Exit(1)


def _counts(stoa: Stoa, ids: list[str]) -> tuple[int, dict[str, dict[str, int]]]:
    """Give the counts of tables and the position that they show."""
    answer = stoa.request("GET", "/api/tables")
    chosen = {table["id"]: table["counts"] for table in answer["tables"] if not ids or table["id"] in ids}
    return answer["position"], chosen


def _take_over(counts: dict[str, dict[str, int]], changes: Mapping[str, Any]) -> None:
    for table, what in changes.items():
        if what.get("counts") is None:
            counts.pop(table, None)
        else:
            counts[table] = what["counts"]


def _left(*counts: Mapping[str, int]) -> int:
    return sum(each.get(status, 0) for each in counts for status in _ACTIVE)


def _show(progress: Progress, updates: Iterator[None], *, as_json: bool) -> None:
    if as_json:
        for _ in updates:
            pass
    elif sys.stdout.isatty():
        _bar(progress, updates)
    else:
        _lines(progress, updates)


def _lines(progress: Progress, updates: Iterator[None]) -> None:
    told = time.monotonic()
    for _ in updates:
        if time.monotonic() - told >= _LINES_EVERY_S:
            told = time.monotonic()
            click.echo(progress.line())


def _bar(progress: Progress, updates: Iterator[None]) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, transient=True) as bar:
        task = bar.add_task("", total=None)
        for _ in updates:
            bar.update(task, completed=progress.done, total=progress.total or None, description=progress.details)
