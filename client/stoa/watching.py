"""Watching rows run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from stoa.output import emit

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["Progress", "watch_run", "watch_tables"]

_ACTIVE = ("queued", "running")
_ENDED_JOBS = ("succeeded", "failed", "cancelled")
_LINES_EVERY_S = 5.0
_LOOK_EVERY_S = 0.3
_SHOWN_WITHIN_S = 15.0


class Progress:
    """How much is done, how fast, and how long the rest will take."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.failed = 0
        self._began = time.monotonic()

    def update(self, counts: Mapping[str, Mapping[str, int]]) -> int:
        """Take over the counts of tables, and give how many rows are left."""
        left = _left(*counts.values())
        # More work may come up while we watch.
        self.total = max(self.total, left + self.done)
        self.done = self.total - left
        self.failed = sum(each.get("failed", 0) for each in counts.values())
        return left

    @property
    def rate(self) -> float:
        """Rows per second since we watch."""
        return self.done / max(time.monotonic() - self._began, 1e-3)

    @property
    def remaining(self) -> str:
        """How long the rest will take at this rate."""
        left = self.total - self.done
        if not left or not self.done:
            return ""
        seconds = round(left / self.rate)
        if seconds < 60:  # noqa: PLR2004
            return f"about {seconds} s left"
        return f"about {seconds // 60} min {seconds % 60:02} s left"

    @property
    def details(self) -> str:
        """What stands beside a bar."""
        failed = f"{self.failed} failed" if self.failed else ""
        return ", ".join(part for part in (f"{self.rate:.1f} rows/s", failed, self.remaining) if part)

    def line(self) -> str:
        """Tell it in one line."""
        return f"{self.done} of {self.total} rows, {self.details}"


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
        With status 1 if rows failed.
    """
    if started["run"] is None:
        if as_json:
            emit({**started, "states": {}})
        return
    progress = Progress()
    ended: dict[str, Any] = {}

    def updates() -> Iterator[None]:
        while True:
            ended.update(stoa.run_state(started["run"]))
            states = ended["states"]
            progress.total = ended["jobs"]
            progress.done = sum(states.get(state, 0) for state in _ENDED_JOBS)
            progress.failed = states.get("failed", 0)
            yield
            if ended["finished"] is not None:
                break
            time.sleep(_LOOK_EVERY_S)
        # The scheduler knows first; who looks at the table next wants to see it there, too.
        until = time.monotonic() + _SHOWN_WITHIN_S
        while time.monotonic() < until and _left(stoa.table(ended["table"])["counts"]):
            time.sleep(_LOOK_EVERY_S)

    _show(progress, updates(), as_json=as_json)
    if as_json:
        emit({**started, "states": ended["states"]})
    else:
        said = [f"{number} {state}" for state, number in ended["states"].items()]
        click.echo(f"The run has ended: {', '.join(said)}.")
    if progress.failed:
        raise click.exceptions.Exit(1)


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
        yield
        if not left:
            return
        for change in stoa.changes(ids or None, after=position):
            _take_over(counts, change["tables"])
            left = progress.update(counts)
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
