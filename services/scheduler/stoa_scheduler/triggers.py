"""What starts runs without a person, and when. Pure; the cron expressions are read by cronsim.

Cron expressions follow Debian's cron where clocks change: a time that is left out fires when the clock has jumped, and one
that comes twice fires once, unless the expression fires every hour anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import TypeAdapter, ValidationError

from stoa_contracts.events.tables import TableInvalidated
from stoa_contracts.types import Trigger
from stoa_scheduler.problems import InvalidTriggerError

__all__ = ["Firing", "check_trigger", "due_firing", "next_firing", "watches"]

_MOST_COUNTED = 10_000
_SHORTEST = timedelta(seconds=10)
_LONGEST = timedelta(days=3660)
#: A firing that is later than this was missed: nothing was there to see it.
_PUNCTUAL = timedelta(minutes=1)

_duration: TypeAdapter[timedelta] = TypeAdapter(timedelta)


@dataclass(frozen=True, slots=True)
class Firing:
    """A firing that is due."""

    due: datetime
    """The last moment at which it ought to have been."""
    missed: int
    """How many came before that one and were not seen."""
    runs: bool
    """Whether it starts a run, or is left out because it was missed."""


def check_trigger(trigger: Trigger) -> None:
    """Refuse a trigger that can never fire.

    Raises
    ------
    InvalidTriggerError
        Says what is wrong with it.
    """
    if trigger.kind not in {"cron", "interval"}:
        if trigger.schedule is not None:
            raise InvalidTriggerError(f"A trigger of the kind {trigger.kind} has no schedule")
        if trigger.kind == "upstream" and trigger.files:
            raise InvalidTriggerError("Only a trigger of the kind file watches files")
        return
    if trigger.files:
        raise InvalidTriggerError("Only a trigger of the kind file watches files")
    if trigger.schedule is None:
        raise InvalidTriggerError(f"A trigger of the kind {trigger.kind} needs a schedule")
    _zone(trigger)
    if trigger.kind == "interval":
        _interval(trigger)
        return
    if next(_moments(trigger, datetime.now(UTC)), None) is None:
        raise InvalidTriggerError(f"The schedule {trigger.schedule!r} never comes")


def _zone(trigger: Trigger) -> ZoneInfo:
    try:
        return ZoneInfo(trigger.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidTriggerError(
            f"There is no time zone {trigger.timezone!r}; zones have names such as Europe/Berlin"
        ) from None


def _interval(trigger: Trigger) -> timedelta:
    written = trigger.schedule or ""
    try:
        interval = _duration.validate_python(written) if written.startswith("P") else None
    except ValidationError:
        interval = None
    if interval is None:
        raise InvalidTriggerError(f"{written!r} is no interval; PT15M is 15 minutes, P1D a day")
    if not _SHORTEST <= interval <= _LONGEST:
        raise InvalidTriggerError(f"The interval {written} is not between 10 seconds and ten years")
    return interval


def _moments(trigger: Trigger, after: datetime) -> Iterator[datetime]:
    """Give the moments of a schedule behind another one, in their order."""
    if trigger.kind == "interval":
        interval, moment = _interval(trigger), after
        while True:
            moment += interval
            yield moment
    try:
        for moment in CronSim(trigger.schedule or "", after.astimezone(_zone(trigger))):
            yield moment.astimezone(UTC)
    except CronSimError as error:
        raise InvalidTriggerError(f"{trigger.schedule!r} is no cron expression of five fields: {error}") from None


def next_firing(trigger: Trigger, after: datetime) -> datetime | None:
    """Say when a trigger fires next.

    Parameters
    ----------
    trigger
        Of any kind.
    after
        When it fired last, or was set.

    Returns
    -------
    datetime or None
        None for one that has no schedule, is paused, or never fires again.
    """
    if trigger.paused or trigger.kind not in {"cron", "interval"}:
        return None
    return next(_moments(trigger, after), None)


def due_firing(trigger: Trigger, due: datetime, now: datetime) -> Firing:
    """Make one firing of all that are due.

    Parameters
    ----------
    trigger
        A schedule.
    due
        The first moment at which it ought to have fired.
    now
        The present time, not before `due`.
    """
    later = islice(_moments(trigger, due), _MOST_COUNTED)
    moments = [due]
    for moment in later:
        if moment > now:
            break
        moments.append(moment)
    punctual = now - moments[-1] <= _PUNCTUAL
    return Firing(moments[-1], len(moments) - 1, runs=punctual or trigger.missed == "once")


def watches(triggers: Sequence[Trigger], event: TableInvalidated) -> list[Trigger]:
    """Find the triggers that fire because of what happened to a table.

    Parameters
    ----------
    triggers
        All that the table has.
    event
        Tells that rows are stale.
    """
    if event.suspected:
        # What is being computed upstream may come out the same.
        return []
    kind = "file" if event.file is not None else "upstream"
    if kind == "upstream" and event.cause.kind not in {"upstream", "link", "edit"}:
        return []
    location = event.file.location if event.file is not None else None
    return [
        trigger
        for trigger in triggers
        if trigger.kind == kind
        and not trigger.paused
        and (kind == "upstream" or not trigger.files or _below(location, trigger.files))
    ]


def _below(location: str | None, places: Sequence[str]) -> bool:
    return location is not None and any(
        location == place or location.startswith(place.rstrip("/") + "/") for place in places
    )
