"""The relay: copies a service's log to the bus, and keeps no state of its own."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from stoa_chassis.bus import MAX_BATCH_BYTES, Bus, BusUnavailableError, EventMessage, SupersededError, Tail
from stoa_chassis.database import Database, DatabaseUnavailableError
from stoa_chassis.waiting import Backoff, wait_any
from stoa_contracts.canonical import canonical_json

if TYPE_CHECKING:
    import sqlalchemy as sa

    from stoa_chassis.log import Log
    from stoa_chassis.metrics import Metrics
    from stoa_contracts.envelope import Envelope

__all__ = ["ForeignEventError", "Relay"]


class ForeignEventError(Exception):
    """The bus ends with an event that the log does not hold: this is not the log that was copied there."""


class Relay:
    """Copies a log to the bus, in its order, each event once.

    How far it got stands in the last message on the bus and nowhere else. Each publish is guarded by that message, so
    a second relay of the same service loses the race and looks again. Where the bus lost its messages, all are sent
    again: positions tell the followers what they know already.

    Parameters
    ----------
    log
        What is copied.
    database
        Where it stands. Its commits wake the relay.
    bus
        Where it goes.
    metrics
        Gets the position reached and the number of events sent.
    poll
        Seconds after which the relay looks at both ends even if nothing woke it: another process may have appended,
        or the bus may have been wiped.
    batch
        At most so many events go out at once. They are all held in memory.
    collect
        While events follow each other closely, the relay waits for so many seconds at most, less at first, before it looks
        for more: a batch costs the bus and every follower hardly more than a single event.

    Notes
    -----
    An event that is too large for the bus goes out without its data, with CloudEvents' extension ``dataref``: followers
    fetch it from the feed.
    """

    def __init__(
        self,
        *,
        log: Log,
        database: Database,
        bus: Bus,
        metrics: Metrics | None = None,
        poll: float = 5.0,
        batch: int = 500,
        collect: float = 0.05,
    ) -> None:
        self._log = log
        self._database = database
        self._bus = bus
        self._metrics = metrics
        self._poll = poll
        self._batch = self._limit = batch
        self._collect = collect
        self._backoff = Backoff(0.05, 2.0)
        self._position = 0
        self._problem: str | None = None
        self._logger = structlog.get_logger(__name__).bind(log=log.service)

    @property
    def position(self) -> int:
        """The last event of which the relay knows that the bus has it."""
        return self._position

    @property
    def problem(self) -> str | None:
        """What keeps the relay from its work, if anything does."""
        return self._problem

    async def run(self, stop: asyncio.Event) -> None:
        """Copy until the event is set."""
        wake = asyncio.Event()
        self._database.on_commit(wake)
        try:
            while not stop.is_set():
                try:
                    await self._copy(await self._look(), wake, stop)
                except SupersededError as error:
                    # Another relay of this service was faster, or our own last publish arrived after all.
                    self._logger.debug("relay looks again", reason=str(error))
                    await wait_any(stop, seconds=self._backoff.next() / 10)
                except (BusUnavailableError, DatabaseUnavailableError) as error:
                    self._report(str(error))
                    await wait_any(stop, seconds=self._backoff.next())
                except ForeignEventError as error:
                    self._report(str(error), severe=True)
                    await wait_any(stop, seconds=self._poll)
        finally:
            self._database.forget(wake)

    async def _look(self) -> Tail:
        """Find out where to go on."""
        tail = await self._bus.last_position(self._log.service)
        if tail.position:
            known = await self._database.read(lambda connection: self._id_at(connection, tail.position))
            if known != tail.id:
                raise ForeignEventError(
                    f"The bus ends with event {tail.position} ({tail.id}) of {self._log.service}, and the log holds "
                    f"{known or 'nothing'} there: its database was replaced, or restored from an older copy. Nothing "
                    "is sent until the newer database is back or the stream is deleted."
                )
        self._reached(tail.position)
        return tail

    async def _copy(self, tail: Tail, wake: asyncio.Event, stop: asyncio.Event) -> None:
        """Send what the bus does not have, until it is time to look again."""
        look_again = time.monotonic() + self._poll
        pause = self._collect / 8
        while not stop.is_set():
            # First the flag, then the log: what is appended in between wakes us once too often, never too seldom.
            wake.clear()
            messages, more = await self._database.read(partial(self._read, after=tail.position))
            if messages:
                sequence = await self._bus.publish_events(self._log.service, messages, tail.sequence)
                tail = Tail(messages[-1].position, sequence, messages[-1].id)
                if self._metrics is not None:
                    self._metrics.relayed.labels(self._log.service).inc(len(messages))
                self._reached(tail.position)
                if not more:
                    await wait_any(stop, seconds=pause)
                    pause = min(2 * pause, self._collect)
                continue
            pause = self._collect / 8
            rest = look_again - time.monotonic()
            if rest <= 0 or not await wait_any(wake, stop, seconds=rest):
                return

    def _read(self, connection: sa.Connection, after: int) -> tuple[list[EventMessage], bool]:
        """Read the next batch, as large as the bus takes it, and tell whether there is more at once."""
        messages: list[EventMessage] = []
        size, limit = 0, self._limit
        for envelope, body in self._log.read_written(connection, after=after, limit=limit):
            message = self._message(envelope, body)
            size += len(message.body)
            if messages and size > MAX_BATCH_BYTES:
                # While events are large, what does not fit would be read again for each batch.
                self._limit = len(messages)
                return messages, True
            messages.append(message)
        self._limit = min(self._batch, 2 * limit)
        return messages, len(messages) == limit

    def _message(self, envelope: Envelope, body: bytes) -> EventMessage:
        if len(body) > self._bus.max_message_bytes:
            reference = f"/events?after={envelope.log_position - 1}&limit=1"
            head = envelope.model_dump(mode="json", exclude_none=True, exclude={"data"})
            body = canonical_json(head | {"dataref": reference})
        return EventMessage(envelope.bus_subject, envelope.id, body, envelope.log_position)

    def _id_at(self, connection: sa.Connection, position: int) -> str | None:
        found = self._log.read(connection, after=position - 1, limit=1)
        return found[0].id if found and found[0].log_position == position else None

    def _reached(self, position: int) -> None:
        if self._problem is not None:
            self._logger.info("relay goes on", position=position)
        self._problem = None
        self._position = position
        self._backoff.reset()
        if self._metrics is not None:
            self._metrics.relay_position.labels(self._log.service).set(position)

    def _report(self, problem: str, *, severe: bool = False) -> None:
        if problem != self._problem:
            (self._logger.error if severe else self._logger.warning)("relay waits", reason=problem)
        self._problem = problem
