"""The bus: how services hear of each other's events, hand out jobs and tell what passes.

The bus holds nothing that would be missed: the truth is each service's log, the queue in the scheduler's database, and
the followers' checkpoints. So every implementation may lose all that it holds, and whoever speaks through it goes on.

`stoa_chassis.nats_bus` speaks to NATS, `stoa_chassis.memory_bus` stays within the process. Both keep the contract that
`tests/chassis/bus_test.py` writes down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

__all__ = [
    "MAX_BATCH",
    "MAX_BATCH_BYTES",
    "BufferedListener",
    "Bus",
    "BusError",
    "BusForbiddenError",
    "BusUnavailableError",
    "EventMessage",
    "EventSubscription",
    "JobMessage",
    "JobSubscription",
    "Listener",
    "Message",
    "MessageTooLargeError",
    "SupersededError",
    "Tail",
    "check_batch",
    "check_size",
]


#: How many events fit into one atomic batch.
MAX_BATCH = 1000

#: How many bytes of bodies may go into one batch of more than one event.
MAX_BATCH_BYTES = 1024 * 1024


class BusError(Exception):
    """Something went wrong on the bus."""


class BusUnavailableError(BusError):
    """The bus cannot be reached, or does not answer. Nobody knows whether the message arrived: try again later."""


class BusForbiddenError(BusUnavailableError):
    """The broker refused what this process asked for. Somebody has to correct its permissions."""


class SupersededError(BusError):
    """The stream does not end where the publisher believed: another one was faster. Look again."""


class MessageTooLargeError(BusError):
    """The message is larger than what the broker takes."""


@dataclass(frozen=True)
class EventMessage:
    """One event on its way to the bus."""

    subject: str
    """``stoa.<service>.<stream-id>.<event-type>``."""

    id: str
    """The event's id: a broker that has seen it lately takes it only once."""

    body: bytes
    """The envelope as it is written in the feed and in an export."""

    position: int
    """The position in the owner's log."""


class Tail(NamedTuple):
    """Where a service's events on the bus end."""

    position: int
    """The position of the last event in its owner's log; 0 where the bus holds none."""

    sequence: int
    """The broker's own number of that message, for the guard of the next one; 0 where there is none."""

    id: str | None
    """The id of that event."""


class Message(NamedTuple):
    """Something told in passing."""

    subject: str
    body: bytes


class EventSubscription(Protocol):
    """One service's events in their order, from a position on, some of them perhaps more than once.

    A subscription does not outlive its connection: when one of its methods raises `BusUnavailableError`, close it and
    subscribe again behind what was applied.
    """

    async def fetch(self, limit: int, wait: float) -> list[bytes]:
        """Wait for events.

        Parameters
        ----------
        limit
            At most so many.
        wait
            How many seconds to wait for the first one.

        Returns
        -------
        list of bytes
            Envelopes, as soon as there is one; empty when the time is over.

        Raises
        ------
        BusUnavailableError
            If the subscription is lost.
        """
        ...

    async def ack(self) -> None:
        """Acknowledge everything that was fetched. What is never acknowledged is delivered again.

        Raises
        ------
        BusUnavailableError
            If the subscription is lost.
        """
        ...

    async def aclose(self) -> None:
        """End the subscription. Raises nothing."""
        ...


class JobMessage(Protocol):
    """A job from the queue. It is delivered again when neither an answer nor a sign of life comes in time."""

    @property
    def subject(self) -> str:
        """Where it was queued."""
        ...

    @property
    def body(self) -> bytes:
        """What was published."""
        ...

    @property
    def deliveries(self) -> int:
        """How many times it was delivered, this time included."""
        ...

    async def ack(self) -> None:
        """Take the job off the queue, for it is done. Returns when the broker has noted it.

        Raises
        ------
        BusUnavailableError
            If the broker does not answer. The job may come again.
        """
        ...

    async def in_progress(self) -> None:
        """Give a sign of life: the time until the next delivery starts anew.

        Raises
        ------
        BusUnavailableError
            If the broker is gone.
        """
        ...

    async def retry(self, delay: float = 0) -> None:
        """Put the job back, to be delivered again after so many seconds.

        Raises
        ------
        BusUnavailableError
            If the broker is gone. The job comes again by itself.
        """
        ...

    async def reject(self) -> None:
        """Take the job off the queue, for it can never be done.

        Raises
        ------
        BusUnavailableError
            If the broker is gone. The job may come again.
        """
        ...


class JobSubscription(Protocol):
    """A share in the job queue: each job goes to one of the subscribers of the same name."""

    async def fetch(self, limit: int, wait: float) -> list[JobMessage]:
        """Wait for jobs. A subscription heals itself when the broker comes back.

        Parameters
        ----------
        limit
            At most so many. Ask only for as many as can be started at once: others may have room.
        wait
            How many seconds to wait for the first one.

        Returns
        -------
        list of JobMessage
            Jobs, as soon as there is one; empty when the time is over.

        Raises
        ------
        BusUnavailableError
            If the broker is gone. Ask again later.
        """
        ...

    async def aclose(self) -> None:
        """End the subscription. What was fetched and not answered comes again to somebody. Raises nothing."""
        ...


class Listener(Protocol):
    """What is told on a subject from now on. The oldest is dropped where the listener is slow. Close it in the end."""

    @property
    def dropped(self) -> int:
        """How many messages were dropped because nobody took them in time."""
        ...

    async def aclose(self) -> None:
        """Stop listening: the iteration ends. Raises nothing."""
        ...

    def __aiter__(self) -> Self:
        """Iterate over what is told."""
        ...

    async def __anext__(self) -> Message:
        """Wait for the next message."""
        ...

    async def __aenter__(self) -> Self:
        """Use the listener."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening."""
        ...


class Bus(Protocol):
    """One process's way to the broker.

    Every call either answers or raises within a bounded time. Whoever calls may assume nothing about a call that raised
    `BusUnavailableError`: the message may have arrived.
    """

    @property
    def connected(self) -> bool:
        """Whether the broker can be reached right now."""
        ...

    @property
    def failure(self) -> BusForbiddenError | None:
        """What the broker refused to this process lately. Calls that waited then raise it; `/readyz` shows it."""
        ...

    @property
    def max_message_bytes(self) -> int:
        """How large a body may be."""
        ...

    async def connect(self) -> None:
        """Begin to connect, and wait a moment for it.

        Raises nothing where the broker is gone: a service starts without it, and the bus goes on trying until `aclose`.
        """
        ...

    async def aclose(self) -> None:
        """Leave the broker, and end what waits for it."""
        ...

    async def ensure_streams(self) -> None:
        """Make the streams of events and jobs where they are missing, and correct their settings.

        The other calls do so by themselves when a stream turns out to be missing.

        Raises
        ------
        BusUnavailableError
            If the broker is gone or refuses.
        """
        ...

    async def last_position(self, service: str) -> Tail:
        """Ask how far a service's events have got.

        Raises
        ------
        BusUnavailableError
            If the broker is gone.
        """
        ...

    async def publish_events(self, service: str, messages: Sequence[EventMessage], last_sequence: int) -> int:
        """Append events of one service to the stream: all of them, or none.

        Parameters
        ----------
        service
            The owner.
        messages
            In the order of the log, without a gap. At most `MAX_BATCH`, and together not larger than `MAX_BATCH_BYTES`
            where they are more than one.
        last_sequence
            Where the service's events end, as `last_position` or the previous call said.

        Returns
        -------
        int
            The sequence of the last message, for the next call.

        Raises
        ------
        SupersededError
            If the service's events do not end there. Nothing was appended.
        MessageTooLargeError
            If a body is larger than `max_message_bytes`. Nothing was appended.
        BusUnavailableError
            If the broker is gone. Ask `last_position` whether they arrived.
        """
        ...

    async def subscribe_events(self, name: str, service: str, after: int) -> EventSubscription:
        """Follow a service's events.

        Parameters
        ----------
        name
            Who follows, for people who look at the broker.
        service
            The owner of the events.
        after
            The position up to which they are known. The first that come may be older ones, never younger than the next,
            unless the bus no longer holds the next.

        Raises
        ------
        BusUnavailableError
            If the broker is gone.
        """
        ...

    async def publish_job(self, subject: str, id: str, body: bytes) -> None:  # noqa: A002 - the field's term
        """Put a job into the queue.

        Parameters
        ----------
        subject
            ``jobs.<table>``.
        id
            Within two minutes the broker takes a job of the same id only once.
        body
            The job.

        Raises
        ------
        MessageTooLargeError
            If the body is larger than `max_message_bytes`.
        BusUnavailableError
            If the broker is gone. Publish again with the same id.
        """
        ...

    async def subscribe_jobs(self, name: str) -> JobSubscription:
        """Take a share in the job queue.

        Parameters
        ----------
        name
            The group of workers. The queue has exactly one.

        Raises
        ------
        BusUnavailableError
            If the broker is gone.
        """
        ...

    async def tell(self, subject: str, body: bytes) -> None:
        """Tell something in passing: at most once, to whoever listens now.

        Raises
        ------
        MessageTooLargeError
            If the body is larger than `max_message_bytes`.
        BusUnavailableError
            If the broker is gone.
        """
        ...

    async def listen(self, subject: str, *, limit: int = 1000) -> Listener:
        """Listen to what is told in passing, while the broker is there; nothing is made up for.

        Parameters
        ----------
        subject
            May hold the wildcards ``*`` and ``>``.
        limit
            How many messages wait for a slow listener. Beyond it the oldest is dropped.
        """
        ...

    def break_topic(self) -> AbstractContextManager[None]:
        """Behave as though the broker were gone while the context lasts, so that failure can be tested."""
        ...


class BufferedListener:
    """The receiving end of what is told, for every implementation: a bounded queue that drops its oldest message.

    Parameters
    ----------
    subject
        What is listened to.
    limit
        How many messages wait.
    """

    def __init__(self, subject: str, limit: int) -> None:
        self.subject = subject
        self.dropped = 0
        self._messages: deque[Message] = deque(maxlen=limit)
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, message: Message) -> None:
        """Take a message in."""
        if len(self._messages) == self._messages.maxlen:
            self.dropped += 1
        self._messages.append(message)
        self._changed.set()

    def end(self) -> None:
        """End the iteration after what waits."""
        self._closed = True
        self._changed.set()

    async def aclose(self) -> None:
        """Stop listening."""
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._messages:
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def check_size(subject: str, body: bytes, limit: int) -> None:
    """Refuse a body that the broker would not take.

    Raises
    ------
    MessageTooLargeError
        If it is too large.
    """
    if len(body) > limit:
        raise MessageTooLargeError(
            f"A message of {len(body)} bytes on {subject} is larger than the {limit} that the broker takes"
        )


def check_batch(service: str, messages: Sequence[EventMessage], limit: int) -> None:
    """Refuse events that cannot go out as one batch.

    Raises
    ------
    MessageTooLargeError
        If one of them is too large.
    ValueError
        If they are no batch: none, too many, too large together, another service's, or with a gap.
    """
    for message in messages:
        check_size(message.subject, message.body, limit)
        if not message.subject.startswith(f"stoa.{service}."):
            raise ValueError(f"An event on {message.subject} does not belong to {service}")
    if not 1 <= len(messages) <= MAX_BATCH:
        raise ValueError(f"A batch holds 1 to {MAX_BATCH} events, not {len(messages)}")
    if len(messages) > 1 and sum(len(message.body) for message in messages) > MAX_BATCH_BYTES:
        raise ValueError(f"The events of a batch are larger than {MAX_BATCH_BYTES} bytes together")
    first = messages[0].position
    if [message.position for message in messages] != list(range(first, first + len(messages))):
        raise ValueError(f"The positions of a batch from {first} on have a gap")
