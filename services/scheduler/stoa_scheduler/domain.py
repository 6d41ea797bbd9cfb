"""The scheduler's types and rules, without any input or output."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Any, Literal, TypeVar

from stoa_contracts.canonical import canonical_json
from stoa_contracts.types import (
    Column,
    Digest,
    FileReference,
    Frozen,
    Mode,
    Outcome,
    RowStatus,
    TableKind,
    Timestamp,
    Usage,
    Values,
)
from stoa_scheduler.limits import UNLIMITED, Limits

__all__ = [
    "ACTIVE",
    "MAX_EVENT_BYTES",
    "MAX_EVENT_JOBS",
    "MAX_EVENT_ROWS",
    "MAX_INPUT_BYTES",
    "ActiveJob",
    "Attempt",
    "AwaitedRow",
    "Group",
    "InputColumn",
    "JobState",
    "Request",
    "RowState",
    "TableState",
    "Turns",
    "chunks",
    "input_columns",
    "job_bytes",
    "missing_inputs",
    "outcome_state",
    "retry_delay",
    "retry_time",
    "share",
    "window_size",
]

T = TypeVar("T")

#: `waiting` in our queue, `dispatched` to the bus, `running` somewhere, or ended.
JobState = Literal["waiting", "dispatched", "running", "succeeded", "failed", "cancelled"]

#: The statuses of rows whose present revision has a job that has not ended.
ACTIVE: frozenset[RowStatus] = frozenset({"queued", "running"})

#: One event names at most so many jobs,
MAX_EVENT_JOBS = 500

#: and their inputs are together at most so large, so that the event passes every broker.
MAX_EVENT_BYTES = 240 * 1024

#: One event names at most so many rows that wait.
MAX_EVENT_ROWS = 10_000

#: A row whose inputs are larger is not run: its event and its job message would not pass the broker.
MAX_INPUT_BYTES = MAX_EVENT_BYTES

#: What a job takes in an event beside its inputs: its names and their quotes.
_REFERENCE_BYTES = 160

_FIRST_RETRY = 2.0
_LONGEST_RETRY = 600.0


class InputColumn(Frozen):
    """What has to be known of an input to fill in a row's input object."""

    name: str
    optional: bool
    """Whether it takes null."""

    default: Any = None


class Attempt(Frozen):
    """An attempt that ended and was followed by another one."""

    attempt: int
    outcome: Outcome
    exit_code: int | None
    error: str | None
    host: str
    started: Timestamp
    finished: Timestamp
    usage: Usage
    log: FileReference | None


@dataclass(frozen=True)
class TableState:
    """What the scheduler knows of a table."""

    id: str
    name: str
    kind: TableKind
    workflow_version: Digest | None
    inputs: Sequence[InputColumn]
    mode: Mode
    deleted: bool = False
    project: str = "default"


@dataclass(frozen=True)
class RowState:
    """What the scheduler knows of a row."""

    row: int
    revision: int
    inputs: Values
    status: RowStatus
    job: str | None = None
    suspected: bool = False
    """Whether something that it depends on is being computed anew."""

    pinned: Digest | None = None
    """The workflow version that it stays with; null where it follows its table."""

    locked: bool = False
    awaited: bool = False
    """Whether it was asked for and waits until it is settled."""


@dataclass(frozen=True)
class Request:
    """What was asked for at once, by whom and how."""

    run: str
    requested_by: str
    reason: Literal["command", "automatic", "trigger"] = "command"
    priority: int = 0
    force: bool = False
    """Whether rows run even where a job with the same key has ended."""

    trigger: str | None = None


@dataclass(frozen=True)
class ActiveJob:
    """A job that has not ended."""

    job: str
    table: str
    row: int
    revision: int
    workflow_version: Digest
    state: JobState
    run: str = ""


@dataclass(frozen=True)
class AwaitedRow:
    """A row that was asked for and waits until it is settled."""

    table: str
    row: int
    request: Request
    """What it was asked for in."""


@dataclass
class Group:
    """Jobs among which nothing but the row's number decides: those of one table, person and priority."""

    table: str
    requested_by: str
    priority: int
    waiting: int
    """How many can be handed out, at most."""

    taken: int = field(default=0)
    """How many of them are to be handed out now."""


def input_columns(columns: Iterable[Column]) -> list[InputColumn]:
    """Find the inputs among a workflow's columns."""
    return [
        InputColumn(name=column.name, optional=_takes_null(column.type), default=column.default)
        for column in columns
        if column.role != "output"
    ]


def _takes_null(type_: Any) -> bool:
    """Tell whether a CWL type takes null: it is ``null``, a union with it, or the short form ``x?``."""
    if isinstance(type_, list):
        return any(_takes_null(item) for item in type_)
    return isinstance(type_, str) and (type_ == "null" or type_.endswith("?"))


def missing_inputs(columns: Iterable[InputColumn], inputs: Values) -> list[str]:
    """Name the inputs without which a row cannot run."""
    return [
        column.name
        for column in columns
        if not column.optional and column.default is None and inputs.get(column.name) is None
    ]


def outcome_state(outcome: Outcome) -> Literal["succeeded", "failed", "cancelled"]:
    """Give the state of a job whose last attempt ended so."""
    if outcome == "success":
        return "succeeded"
    return "cancelled" if outcome == "cancelled" else "failed"


def retry_delay(job: str, attempt: int) -> timedelta:
    """Say how long to wait before an attempt, the first retry being number 2.

    The delay doubles from attempt to attempt. Its jitter is computed from the job's id and not drawn: whoever replays the
    log finds the same times.
    """
    delay = min(_LONGEST_RETRY, _FIRST_RETRY * 2.0 ** (attempt - 2))
    drawn = int.from_bytes(hashlib.sha256(f"{job}:{attempt}".encode()).digest()[:4], "big") / 2**32
    return timedelta(seconds=delay * (0.75 + 0.5 * drawn))


def retry_time(job: str, attempt: int, finished: datetime) -> datetime:
    """Say before which time an attempt is not made."""
    return finished + retry_delay(job, attempt)


def chunks(
    items: Iterable[T], size: Callable[[T], int] = lambda _: _REFERENCE_BYTES, most: int = MAX_EVENT_JOBS
) -> Iterator[list[T]]:
    """Cut jobs into pieces of which each fits into one event.

    Parameters
    ----------
    items
        In their order.
    size
        Gives the bytes of an item; by default those of a reference to a job.
    most
        So many are in a piece at most.
    """
    piece: list[T] = []
    taken = 0
    for item in items:
        needs = size(item)
        if piece and (len(piece) >= most or taken + needs > MAX_EVENT_BYTES):
            yield piece
            piece, taken = [], 0
        piece.append(item)
        taken += needs
    if piece:
        yield piece


def job_bytes(inputs: Values) -> int:
    """Count the bytes that a job takes in an event."""
    return len(canonical_json(inputs)) + _REFERENCE_BYTES


def window_size(*, smallest: int, largest: int, running: int, starts: int) -> int:
    """Say how many jobs that have not started may be on the bus.

    Parameters
    ----------
    smallest, largest
        The bounds that were set.
    running
        Jobs that run now: each of their workers may want the next one at any moment.
    starts
        Jobs that started within the last two seconds. Where many short jobs run, the news of their starts takes longer
        than the jobs themselves, and the workers must not run dry.
    """
    return min(largest, max(smallest, 2 * running, starts))


class Turns:
    """Whose turn it was when, so that those who have equally much take turns."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], int] = {}
        self._count = 0

    def last(self, *who: str) -> int:
        """Give the number of somebody's last turn, 0 before the first."""
        return self._last.get(who, 0)

    def take(self, *who: str) -> int:
        """Note a turn and give its number."""
        self._count += 1
        self._last[who] = self._count
        return self._count

    def forget_all_but(self, keep: Iterable[tuple[str, ...]]) -> None:
        """Forget those who want nothing at present: when they come back, it is their turn."""
        kept = set(keep)
        self._last = {who: turn for who, turn in self._last.items() if who in kept}


def share(
    groups: Sequence[Group],
    room: int,
    in_flight: Mapping[tuple[str, str], int],
    turns: Turns,
    limits: Limits = UNLIMITED,
) -> None:
    """Say how many jobs of each group are handed out, in `Group.taken`.

    The highest priority goes first. Within it the next job is one of the person who has the fewest in flight, and of
    that person's table which has the fewest; among equals, whose last turn was longest ago. A person or a table at the
    limit is passed over.

    Parameters
    ----------
    groups
        What waits.
    room
        How many jobs are handed out.
    in_flight
        Jobs that were handed out and have not ended, by person and table.
    turns
        Remembers from call to call.
    limits
        How many may be in flight.
    """
    have: Counter[str] = Counter()
    of_table: Counter[str] = Counter()
    for (person, table), number in in_flight.items():
        have[person] += number
        of_table[table] += number
    have_there = Counter(in_flight)
    for priority in sorted({group.priority for group in groups}, reverse=True):
        tables = _queues([group for group in groups if group.priority == priority], have_there, turns)
        people = [(have[person], turns.last(person), person) for person in tables]
        heapify(people)
        while people and room:
            _, turn, person = heappop(people)
            if not limits.leaves_person(person, have[person]):
                continue
            _, _, table, group = heappop(tables[person])
            if limits.leaves_table(table, of_table[table]):
                group.taken += 1
                room -= 1
                have[person] += 1
                of_table[table] += 1
                have_there[person, table] += 1
                table_turn, turn = turns.take(person, table), turns.take(person)
                if group.waiting > group.taken:
                    heappush(tables[person], (have_there[person, table], table_turn, table, group))
            if tables[person]:
                heappush(people, (have[person], turn, person))


def _queues(
    groups: Iterable[Group], have_there: Mapping[tuple[str, str], int], turns: Turns
) -> dict[str, list[tuple[int, int, str, Group]]]:
    """Give each person's tables in the order in which they come."""
    queues: dict[str, list[tuple[int, int, str, Group]]] = {}
    for group in groups:
        person, table = group.requested_by, group.table
        if group.waiting > group.taken:
            entry = (have_there.get((person, table), 0), turns.last(person, table), table, group)
            queues.setdefault(person, []).append(entry)
    for queue in queues.values():
        heapify(queue)
    return queues
