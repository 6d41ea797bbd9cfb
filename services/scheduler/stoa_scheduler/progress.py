"""How far tables got, how fast they are computed, and when that will be done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["KEPT", "MOMENT_S", "Ended", "Pace", "moment_of", "pace", "time_of"]

#: So many seconds are one moment: ended jobs are counted by the moment.
MOMENT_S = 10

#: So many moments are kept: those of a day.
KEPT = 24 * 3600 // MOMENT_S

#: The rate is that of the last minutes,
_WINDOW_S = 300

#: and reaches further back where jobs are so long that fewer ended within them.
_ENOUGH = 20


@dataclass(frozen=True)
class Ended:
    """How many jobs ended in a moment."""

    moment: int
    jobs: int


@dataclass(frozen=True)
class Pace:
    """How fast it goes."""

    per_minute: float | None
    """Jobs that end in a minute; null while none has ended."""

    estimated_end: datetime | None
    """When nothing will be left; null where nothing is, or where nobody can know."""


def moment_of(time: datetime) -> int:
    """Give the number of the moment in which something ended."""
    return int(time.timestamp()) // MOMENT_S


def time_of(moment: int) -> datetime:
    """Tell when a moment began."""
    return datetime.fromtimestamp(moment * MOMENT_S, UTC)


def pace(ended: Iterable[Ended], *, left: int, busy_since: datetime | None, now: datetime) -> Pace:
    """Compute how fast it goes, from what ended lately.

    Only what ended since work began counts: a night in which nothing was queued does not make the morning slow.

    Parameters
    ----------
    ended
        Newest first.
    left
        How many jobs are still to end.
    busy_since
        Since when there is work; null where there never was any.
    now
        The present time.
    """
    if busy_since is None or not left:
        return Pace(None, None)
    recent = moment_of(now - timedelta(seconds=_WINDOW_S))
    begin = max(moment_of(busy_since), moment_of(now) - KEPT)
    jobs = 0
    oldest = begin
    for item in ended:
        if item.moment < begin:
            break
        if item.moment <= recent and jobs >= _ENOUGH:
            begin = min(recent + 1, oldest)
            break
        jobs += item.jobs
        oldest = item.moment
    if not jobs:
        return Pace(None, None)
    since = max(busy_since, time_of(begin))
    seconds = max((now - since).total_seconds(), 1.0)
    return Pace(60 * jobs / seconds, now + timedelta(seconds=left * seconds / jobs))
