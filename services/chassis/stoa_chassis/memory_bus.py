"""A bus that stays within the process: the contract of `stoa_chassis.bus` without a broker to start."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stoa_chassis.bus import (
    BufferedListener,
    BusForbiddenError,
    BusUnavailableError,
    EventMessage,
    JobMessage,
    Message,
    SupersededError,
    Tail,
    check_batch,
    check_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MemoryBroker", "MemoryBus"]

#: For so long a job of the same id is taken only once.
_DUPLICATE_WINDOW_S = 120.0


@dataclass(frozen=True)
class _Event:
    sequence: int
    message: EventMessage


@dataclass
class _Job:
    subject: str
    body: bytes
    deliveries: int = 0
    due: float = 0.0


@dataclass(eq=False)
class MemoryBroker:
    """What several `MemoryBus` share, as processes share a NATS server. It belongs to one event loop."""

    sequence: int = 0
    events: dict[str, list[_Event]] = field(default_factory=dict)
    jobs: dict[int, _Job] = field(default_factory=dict)
    job_ids: dict[str, float] = field(default_factory=dict)
    listeners: set[_MemoryListener] = field(default_factory=set)
    buses: set[MemoryBus] = field(default_factory=set)
    generation: int = 0
    running: bool = True

    def stop(self) -> None:
        """Be gone for everybody until `start`. What was kept is there afterwards."""
        self.running = False
        self.generation += 1
        self.wake()

    def start(self) -> None:
        """Come back."""
        self.running = True

    def wipe(self) -> None:
        """Lose everything, as a NATS server does whose store is gone."""
        self.sequence = 0
        self.events.clear()
        self.jobs.clear()
        self.job_ids.clear()
        self.generation += 1
        self.wake()

    def wake(self) -> None:
        """Let everybody look again who waits for something."""
        for bus in self.buses:
            bus.wake()


class MemoryBus:
    """One client of a `MemoryBroker`.

    Parameters
    ----------
    broker
        What the clients share.
    ack_wait
        After so many seconds without an answer an event or a job is delivered again.
    max_message_bytes
        How large a body may be.

    Notes
    -----
    A call gives way to other tasks before and after its effect, as a call over a network does: whoever stops in between
    has to live with it.
    """

    def __init__(self, broker: MemoryBroker, *, ack_wait: float = 30.0, max_message_bytes: int = 1024 * 1024) -> None:
        self.failure: BusForbiddenError | None = None
        self.ack_wait = ack_wait
        self._max_message_bytes = max_message_bytes
        self._broker = broker
        self._connected = False
        self._broken = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def broker(self) -> MemoryBroker:
        """What the clients share."""
        return self._broker

    @property
    def max_message_bytes(self) -> int:
        """How large a body may be."""
        return self._max_message_bytes

    @property
    def connected(self) -> bool:
        """Whether the broker can be reached right now."""
        return self._connected and not self._broken and self._broker.running

    async def connect(self) -> None:
        """Connect."""
        self._connected = True
        self._broker.buses.add(self)

    async def aclose(self) -> None:
        """Leave the broker, and end what waits for it."""
        self._connected = False
        self.wake()
        self._broker.buses.discard(self)
        for listener in [listener for listener in self._broker.listeners if listener.bus is self]:
            await listener.aclose()

    @contextmanager
    def break_topic(self) -> Iterator[None]:
        """Behave as though the broker were gone while the context lasts."""
        self._broken += 1
        self.wake()
        try:
            yield
        finally:
            self._broken -= 1

    async def ensure_streams(self) -> None:
        """Do nothing: there is always a stream."""
        await self.reach()

    async def last_position(self, service: str) -> Tail:
        """Ask how far a service's events have got."""
        await self.reach()
        last = self._last(service)
        await self.reach()
        return Tail(last.message.position, last.sequence, last.message.id) if last else Tail(0, 0, None)

    async def publish_events(self, service: str, messages: Sequence[EventMessage], last_sequence: int) -> int:
        """Append events of one service to the stream: all of them, or none."""
        check_batch(service, messages, self.max_message_bytes)
        await self.reach()
        last = self._last(service)
        if (last.sequence if last else 0) != last_sequence:
            raise SupersededError(
                f"The events of {service} on the bus end at {last.sequence if last else 0}, not at {last_sequence}"
            )
        for message in messages:
            self._broker.sequence += 1
            self._broker.events.setdefault(service, []).append(_Event(self._broker.sequence, message))
        sequence = self._broker.sequence
        self._broker.wake()
        await self.reach()
        return sequence

    async def subscribe_events(self, name: str, service: str, after: int) -> _MemoryEventSubscription:  # noqa: ARG002 - nobody looks at this broker
        """Follow a service's events from a position on."""
        await self.reach()
        return _MemoryEventSubscription(self, service, after)

    async def publish_job(self, subject: str, id: str, body: bytes) -> None:  # noqa: A002 - the field's term
        """Put a job into the queue."""
        check_size(subject, body, self.max_message_bytes)
        await self.reach()
        now = asyncio.get_running_loop().time()
        ids = self._broker.job_ids
        if now - ids.get(id, -_DUPLICATE_WINDOW_S) >= _DUPLICATE_WINDOW_S:
            ids[id] = now
            self._broker.sequence += 1
            self._broker.jobs[self._broker.sequence] = _Job(subject, body)
            self._broker.wake()
        await self.reach()

    async def subscribe_jobs(self, name: str) -> _MemoryJobSubscription:  # noqa: ARG002 - the queue has one group
        """Take a share in the job queue."""
        await self.reach()
        return _MemoryJobSubscription(self)

    async def tell(self, subject: str, body: bytes) -> None:
        """Tell something in passing."""
        check_size(subject, body, self.max_message_bytes)
        await self.reach()
        for listener in list(self._broker.listeners):
            if listener.bus.connected and matches(listener.subject, subject):
                listener.put(Message(subject, body))

    async def listen(self, subject: str, *, limit: int = 1000) -> _MemoryListener:
        """Listen to what is told in passing."""
        listener = _MemoryListener(self, subject, limit)
        self._broker.listeners.add(listener)
        return listener

    def require(self) -> None:
        """Raise what is wrong with the bus, if anything is."""
        if self.failure is not None:
            raise self.failure
        if self._broken:
            raise BusUnavailableError("The bus in memory is broken on purpose")
        if not self._connected:
            raise BusUnavailableError("The bus in memory is not connected")
        if not self._broker.running:
            raise BusUnavailableError("The broker in memory is stopped")

    async def reach(self) -> None:
        """Be on the way to the broker for a moment, where anything may happen."""
        self.require()
        await asyncio.sleep(0)
        self.require()

    def wake(self) -> None:
        """Let everybody look again who waits on this bus."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def change(self, seconds: float) -> None:
        """Wait until something has changed, or the time is over."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=max(seconds, 0))
        finally:
            self._waiters.discard(waiter)

    def _last(self, service: str) -> _Event | None:
        events = self._broker.events.get(service)
        return events[-1] if events else None


class _MemoryEventSubscription:
    def __init__(self, bus: MemoryBus, service: str, after: int) -> None:
        self._bus = bus
        self._service = service
        self._generation = bus.broker.generation
        events = self._events()
        self._next = next((i for i, event in enumerate(events) if event.message.position > after), len(events))
        self._acknowledged = self._next
        self._delivered_at = 0.0
        self._closed = False

    async def fetch(self, limit: int, wait: float) -> list[bytes]:
        await self._bus.reach()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            self._require()
            now = loop.time()
            if self._acknowledged < self._next and now >= self._delivered_at + self._bus.ack_wait:
                self._next = self._acknowledged
            found = self._events()[self._next : self._next + limit]
            if found:
                self._next += len(found)
                self._delivered_at = now
                return [event.message.body for event in found]
            if now >= deadline:
                return []
            until = deadline
            if self._acknowledged < self._next:
                until = min(until, self._delivered_at + self._bus.ack_wait)
            await self._bus.change(until - now)

    async def ack(self) -> None:
        await self._bus.reach()
        self._require()
        self._acknowledged = self._next

    async def aclose(self) -> None:
        self._closed = True

    def _require(self) -> None:
        self._bus.require()
        if self._closed or self._generation != self._bus.broker.generation:
            raise BusUnavailableError(f"The subscription to the events of {self._service} is lost")

    def _events(self) -> list[_Event]:
        return self._bus.broker.events.get(self._service, [])


class _MemoryJobSubscription:
    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._closed = False

    async def fetch(self, limit: int, wait: float) -> list[JobMessage]:
        await self._bus.reach()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            self._bus.require()
            if self._closed:
                raise BusUnavailableError("The subscription to the jobs is closed")
            now = loop.time()
            jobs = self._bus.broker.jobs
            found = [sequence for sequence, job in jobs.items() if job.due <= now][:limit]
            for sequence in found:
                jobs[sequence].deliveries += 1
                jobs[sequence].due = now + self._bus.ack_wait
            if found:
                return [
                    _MemoryJobMessage(
                        self._bus, sequence, jobs[sequence].subject, jobs[sequence].body, jobs[sequence].deliveries
                    )
                    for sequence in found
                ]
            if now >= deadline:
                return []
            await self._bus.change(min([deadline, *(job.due for job in jobs.values())]) - now)

    async def aclose(self) -> None:
        self._closed = True


@dataclass(frozen=True)
class _MemoryJobMessage:
    bus: MemoryBus
    sequence: int
    subject: str
    body: bytes
    deliveries: int

    async def ack(self) -> None:
        await self.bus.reach()
        self.bus.broker.jobs.pop(self.sequence, None)
        await self.bus.reach()

    async def in_progress(self) -> None:
        self._postpone(self.bus.ack_wait)
        await self.bus.reach()

    async def retry(self, delay: float = 0) -> None:
        self._postpone(delay)
        self.bus.broker.wake()
        await self.bus.reach()

    async def reject(self) -> None:
        await self.ack()

    def _postpone(self, seconds: float) -> None:
        self.bus.require()
        job = self.bus.broker.jobs.get(self.sequence)
        # As on NATS, a worker that was given up is heard all the same: who may record an outcome is decided in SQL.
        if job is not None:
            job.due = asyncio.get_running_loop().time() + seconds


class _MemoryListener(BufferedListener):
    def __init__(self, bus: MemoryBus, subject: str, limit: int) -> None:
        super().__init__(subject, limit)
        self.bus = bus

    async def aclose(self) -> None:
        self.bus.broker.listeners.discard(self)
        self.end()


def matches(pattern: str, subject: str) -> bool:
    """Say whether a subject fits a pattern with NATS's wildcards."""
    wanted, given = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(given) > index
        if index >= len(given) or part not in {"*", given[index]}:
            return False
    return len(wanted) == len(given)
