"""Watching rows run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from stoa.output import emit

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["Progress", "watch"]

_ACTIVE = ("queued", "running")
_LINES_EVERY_S = 5.0


class Progress:
    """What is done and what is left in some tables.

    Parameters
    ----------
    counts
        Rows by status, by table.
    """

    def __init__(self, counts: dict[str, dict[str, int]]) -> None:
        self.counts = counts
        self._began = time.monotonic()
        self._left_at_first = self.left

    def _sum(self, *statuses: str) -> int:
        return sum(counts.get(status, 0) for counts in self.counts.values() for status in statuses)

    @property
    def left(self) -> int:
        """Rows that are queued or running."""
        return self._sum(*_ACTIVE)

    @property
    def failed(self) -> int:
        """Rows that failed."""
        return self._sum("failed")

    @property
    def done(self) -> int:
        """Rows that have ended since we watch."""
        return max(self._left_at_first - self.left, 0)

    @property
    def total(self) -> int:
        """Rows that were to do at the most."""
        return self._left_at_first

    @property
    def rate(self) -> float:
        """Rows per second since we watch."""
        return self.done / max(time.monotonic() - self._began, 1e-3)

    def update(self, changes: dict[str, dict[str, int]]) -> None:
        """Take over new counts; more work may have come up."""
        self.counts.update(changes)
        self._left_at_first = max(self._left_at_first, self.left + self.done)

    def line(self) -> str:
        """Tell it in one line."""
        remaining = f", about {self.left / self.rate:.0f} s left" if self.rate > 0 and self.left else ""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {self.total} rows, {self.rate:.1f} rows/s{failed}{remaining}"


def _chosen(stoa: Stoa, names: list[str]) -> dict[str, dict[str, Any]]:
    tables = {item["id"]: item for item in stoa.tables()}
    return {key: item for key, item in tables.items() if not names or item["name"] in names or key in names}


def _updates(stoa: Stoa, names: list[str], progress: Progress) -> Iterator[None]:
    ids = list(progress.counts)
    for change in stoa.changes(ids):
        progress.update(
            {key: value["counts"] for key, value in change["tables"].items() if key in ids and value.get("counts")}
        )
        yield
        if not progress.left:
            # A stream tells what was; the last word is the table's own.
            progress.update({key: item["counts"] for key, item in _chosen(stoa, names).items()})
            if not progress.left:
                return


def watch(stoa: Stoa, names: list[str], *, as_json: bool = False) -> None:
    """Watch until nothing is queued or running.

    Raises
    ------
    click.exceptions.Exit
        With status 1 if rows failed.
    """
    for name in names:
        stoa.table(name)
    progress = Progress({key: item["counts"] for key, item in _chosen(stoa, names).items()})
    if progress.left:
        shown = _bar if sys.stdout.isatty() and not as_json else _lines
        shown(progress, _updates(stoa, names, progress), as_json=as_json)
    if as_json:
        emit({"counts": progress.counts, "failed": progress.failed})
    else:
        click.echo(f"Nothing is queued or running{f'; {progress.failed} rows failed' if progress.failed else ''}.")
    if progress.failed:
        raise click.exceptions.Exit(1)


def _lines(progress: Progress, updates: Iterator[None], *, as_json: bool) -> None:
    told = 0.0
    for _ in updates:
        if not as_json and time.monotonic() - told > _LINES_EVERY_S:
            told = time.monotonic()
            click.echo(progress.line())


def _bar(progress: Progress, updates: Iterator[None], *, as_json: bool) -> None:
    del as_json
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, transient=True) as bar:
        task = bar.add_task("", total=progress.total)
        for _ in updates:
            bar.update(
                task, completed=progress.done, total=progress.total, description=progress.line().split(", ", 1)[1]
            )
