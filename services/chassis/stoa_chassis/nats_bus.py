"""The bus over NATS: plain nats-py, JetStream for events and jobs, core NATS for what is told in passing."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import api

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
from stoa_chassis.waiting import Backoff, wait_any
from stoa_contracts.ids import new_id
from stoa_contracts.subjects import EVENT_STREAM, JOB_STREAM, event_subjects

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

__all__ = ["NatsBus"]

T = TypeVar("T")

#: How long the broker keeps events. The logs keep them for ever.
_MAX_AGE_S = 90 * 86400.0

#: Atomic batches came with this version of the server.
_OLDEST_SERVER = (2, 12)

#: What the headers of a message may take of its size.
_HEADER_BYTES = 4096

#: How long a connection may take to close.
_CLOSE_S = 2.0

#: How long a refusal stays visible when the next connection meets none.
_FORBIDDEN_S = 10.0

#: How the server begins to say that a permission, a password or a token is wrong.
_REFUSALS = ("permissions violation", "authorization", "authentication")

#: JetStream's error codes: https://github.com/nats-io/nats-server/blob/main/server/errors.json
_NO_MESSAGE = 10037
_NO_STREAM = 10059
#: Wrong last sequence, the same in a cluster, wrong last message id, duplicate id in a batch.
_SUPERSEDED = frozenset({10071, 10164, 10070, 10201})

_GUARD = api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value
_GUARD_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"

#: What we set on a stream and correct when it differs. Denials cannot be changed afterwards.
_OWN_SETTINGS = ("subjects", "max_age", "num_replicas", "allow_direct", "allow_atomic", "compression")


class _StreamMissingError(BusUnavailableError):
    """Nobody answers for the stream: it was never made, or the broker's store was wiped."""


@dataclass(eq=False)
class _Session:
    """One connection, from its beginning to its loss. What belongs to it does not outlive it."""

    client: Client
    jetstream: JetStreamContext
    since: float
    lost: asyncio.Future[BusUnavailableError]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    has_streams: bool = False
    refused: bool = False

    def end(self, error: BusUnavailableError) -> None:
        self.refused |= isinstance(error, BusForbiddenError)
        if not self.lost.done():
            self.lost.set_result(error)
        self.ended.set()


class NatsBus:
    """One process's connection to NATS.

    The connection is made anew for ever, with growing delays; nothing is buffered meanwhile: a call without a
    connection raises at once, and its caller tries again. A refusal by the broker reaches nats-py only as an
    asynchronous error; here it fails every call that waits, and shows as `failure`.

    Parameters
    ----------
    servers
        Addresses such as ``nats://host:4222``, as a list or separated by commas.
    name
        What the broker's people see as the name of the connection.
    replicas
        How many servers of a cluster keep each stream.
    ack_wait
        After so many seconds without an answer or a sign of life an event or a job is delivered again.
    request_timeout
        How many seconds the broker may take to answer.
    connect_wait
        How many seconds `connect` waits for the first connection before it goes on without.
    credentials
        A file with a user's JWT and seed.
    tls
        For connections that are encrypted otherwise than by the system's certificates.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        name: str = "stoa",
        replicas: int = 1,
        ack_wait: float = 30.0,
        request_timeout: float = 5.0,
        connect_wait: float = 2.0,
        credentials: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._servers = [part.strip() for part in servers.split(",")] if isinstance(servers, str) else list(servers)
        self._name = name
        self._replicas = replicas
        self._ack_wait = ack_wait
        self._request_timeout = request_timeout
        self._connect_wait = connect_wait
        self._credentials = credentials
        self._tls = tls
        self._session: _Session | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._closing = asyncio.Event()
        self._unbroken = asyncio.Event()
        self._unbroken.set()
        self._forbidden: BusForbiddenError | None = None
        self._reason = "it was not tried yet"
        self._max_payload = 1024 * 1024
        self._listeners: set[_NatsListener] = set()
        self._stream_lock = asyncio.Lock()
        self._logger = structlog.get_logger("stoa.bus")

    @property
    def connected(self) -> bool:
        """Whether the broker can be reached right now."""
        return self._session is not None and not self._session.lost.done() and self._session.client.is_connected

    @property
    def failure(self) -> BusForbiddenError | None:
        """What the broker refused to this process lately."""
        self._forgive()
        return self._forbidden

    @property
    def max_message_bytes(self) -> int:
        """How large a body may be."""
        return self._max_payload - _HEADER_BYTES

    async def connect(self) -> None:
        """Begin to connect, and wait a moment for it."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connected(), name="nats-bus")
        await wait_any(self._connected, self._closing, seconds=self._connect_wait)

    async def aclose(self) -> None:
        """Leave the broker, and end what waits for it."""
        self._closing.set()
        if self._keeper is not None:
            await self._keeper
        for listener in list(self._listeners):
            await listener.aclose()

    @contextmanager
    def break_topic(self) -> Iterator[None]:
        """Cut the connection and make none while the context lasts."""
        self._unbroken.clear()
        self._reason = "the connection is broken on purpose"
        if self._session is not None:
            self._session.end(self._unavailable())
        try:
            yield
        finally:
            self._unbroken.set()

    async def _keep_connected(self) -> None:
        backoff = Backoff(0.05, 5.0)
        while not self._closing.is_set():
            await wait_any(self._unbroken, self._closing)
            try:
                session = None if self._closing.is_set() else await self._open()
                if session is not None:
                    await self._attend(session)
                    if not session.refused:
                        backoff.reset()
            except Exception as error:
                self._reason = str(error) or type(error).__name__
                self._logger.exception("bus connection failed")
            # A broker that refuses would refuse again at once.
            delay = backoff.next() + (1.0 if self._forbidden is not None else 0.0)
            await wait_any(self._closing, seconds=delay)

    async def _attend(self, session: _Session) -> None:
        """Serve a connection until it is lost, or the bus is closed or broken."""
        try:
            if self._closing.is_set() or not self._unbroken.is_set():
                return
            self._session = session
            for listener in list(self._listeners):
                await listener.attach(session.client)
            self._connected.set()
            self._logger.info("bus connected", server=_address(session.client))
            await wait_any(session.ended, self._closing)
        finally:
            self._connected.clear()
            self._forgive()
            session.end(BusUnavailableError("The bus is closed") if self._closing.is_set() else self._unavailable())
            self._reason = str(session.lost.result()).rpartition("cannot be reached: ")[2]
            if not self._closing.is_set():
                self._logger.warning("bus lost", reason=self._reason)
            await _close(session.client)

    def _forgive(self) -> None:
        session = self._session
        if session is not None and not session.refused and time.monotonic() - session.since > _FORBIDDEN_S:
            self._forbidden = None

    async def _open(self) -> _Session | None:
        """Make one attempt to connect."""
        client = Client()
        loop = asyncio.get_running_loop()
        lost = loop.create_future()
        session = _Session(client, client.jetstream(timeout=self._request_timeout), time.monotonic(), lost)

        async def on_error(error: Exception) -> None:
            text = str(error).removeprefix("nats: ")
            if any(refusal in text.lower() for refusal in _REFUSALS):
                if str(self._forbidden) != (refused := f"NATS refuses this process: {text}"):
                    self._logger.error("bus refuses", reason=text)
                self._forbidden = BusForbiddenError(refused)
                session.end(self._forbidden)
            elif isinstance(error, nats.errors.SlowConsumerError):
                self._logger.warning("bus dropped a message", reason=text)
            else:
                self._reason = text or type(error).__name__

        async def on_closed() -> None:
            session.end(self._unavailable())

        # nats-py's own reconnects would send what was buffered before them and keep subscriptions whose consumers are
        # gone: a new connection is a new beginning, and everything above it knows how to begin.
        attempt = asyncio.ensure_future(
            client.connect(
                self._servers,
                name=self._name,
                error_cb=on_error,
                closed_cb=on_closed,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=2,
                ping_interval=10,
                max_outstanding_pings=2,
                user_credentials=str(self._credentials) if self._credentials else None,
                tls=self._tls,
            )
        )
        closing = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait({attempt, closing}, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if not attempt.done():
            attempt.cancel()
        (error,) = await asyncio.gather(attempt, return_exceptions=True)
        if error is None and not session.lost.done():
            session.since = time.monotonic()
            self._max_payload = client.max_payload
            return session
        await _close(client)
        return None

    def _unavailable(self) -> BusUnavailableError:
        return BusUnavailableError(f"NATS at {', '.join(map(_hide, self._servers))} cannot be reached: {self._reason}")

    def require(self) -> _Session:
        """Give the present connection, or raise at once."""
        if self._closing.is_set():
            raise BusUnavailableError("The bus is closed")
        session = self._session
        if session is not None and not session.lost.done() and session.client.is_connected:
            return session
        raise self._forbidden or self._unavailable()

    async def ask(self, session: _Session, what: str, operation: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer, but not beyond the connection, and name what went wrong in our terms."""
        task = asyncio.ensure_future(operation)
        ends: set[asyncio.Future[Any]] = {task, session.lost}
        try:
            # nats-py bounds each request; twice that bounds whatever it may do around it.
            await asyncio.wait(ends, timeout=2 * self._request_timeout, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                if session.lost.done():
                    raise session.lost.result()
                raise BusUnavailableError(f"NATS did not answer in time when asked to {what}")
            return task.result()
        except (nats.js.errors.NoStreamResponseError, nats.errors.NoRespondersError) as error:
            raise _StreamMissingError(f"NATS has nobody who could {what}") from error
        except (TimeoutError, nats.errors.TimeoutError) as error:
            raise BusUnavailableError(f"NATS did not answer in time when asked to {what}") from error
        except nats.js.errors.APIError as error:
            if error.err_code in _SUPERSEDED:
                raise SupersededError(f"NATS refused to {what}: {error.description}") from error
            if error.err_code == _NO_STREAM:
                raise _StreamMissingError(f"NATS could not {what}: {error.description}") from error
            raise BusUnavailableError(f"NATS could not {what}: {error.description or error}") from error
        except (nats.errors.Error, OSError) as error:
            raise BusUnavailableError(f"NATS could not {what}: {error}") from error
        finally:
            _abandon(task)

    async def with_streams(self, what: str, operation: Callable[[_Session], Coroutine[Any, Any, T]]) -> T:
        """Do something that needs the streams, and make them where they turn out to be missing."""
        for last_try in (False, True):
            session = self.require()
            if not session.has_streams:
                await self.ensure_streams()
            try:
                return await self.ask(session, what, operation(session))
            except _StreamMissingError:
                session.has_streams = False
                if last_try:
                    raise
        raise AssertionError  # the second try returns or raises

    async def ensure_streams(self) -> None:
        """Make the streams of events and jobs where they are missing, and correct their settings."""
        async with self._stream_lock:
            session = self.require()
            if session.has_streams:
                return
            version = session.client.connected_server_version
            if (version.major, version.minor) < _OLDEST_SERVER:
                oldest = ".".join(map(str, _OLDEST_SERVER))
                raise BusUnavailableError(f"NATS at {_address(session.client)} is too old: version {oldest} is needed")
            for config in (self._event_stream(), self._job_stream()):
                await self._ensure_stream(session, config)
            session.has_streams = True

    def _event_stream(self) -> api.StreamConfig:
        return api.StreamConfig(
            name=EVENT_STREAM,
            description="The events of every service of Stoa, copied from their logs",
            subjects=["stoa.>"],
            retention=api.RetentionPolicy.LIMITS,
            storage=api.StorageType.FILE,
            max_age=_MAX_AGE_S,
            num_replicas=self._replicas,
            deny_delete=True,
            deny_purge=True,
            allow_direct=True,
            allow_atomic=True,
            compression=api.StoreCompression.S2,
        )

    def _job_stream(self) -> api.StreamConfig:
        return api.StreamConfig(
            name=JOB_STREAM,
            description="The jobs of Stoa that an executor may take",
            subjects=["jobs.>"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE,
            num_replicas=self._replicas,
            allow_direct=True,
            compression=api.StoreCompression.S2,
        )

    async def _ensure_stream(self, session: _Session, config: api.StreamConfig) -> None:
        js, name = session.jetstream, str(config.name)
        try:
            info = await self.ask(session, f"describe the stream {name}", js.stream_info(name))
        except _StreamMissingError:
            # Several services may do this at once: making the same stream twice is no error.
            await self.ask(session, f"make the stream {name}", js.add_stream(config))
            self._logger.info("stream made", stream=name, replicas=self._replicas)
            return
        wanted = {key: getattr(config, key) for key in _OWN_SETTINGS if getattr(config, key) is not None}
        if any(getattr(info.config, key) != value for key, value in wanted.items()):
            await self.ask(session, f"correct the stream {name}", js.update_stream(info.config.evolve(**wanted)))
            self._logger.info("stream corrected", stream=name, replicas=self._replicas)

    async def last_position(self, service: str) -> Tail:
        """Ask how far a service's events have got."""

        async def read(session: _Session) -> Tail:
            # Only the stream's leader knows its end for sure, so this is not a direct get.
            return await self._read(session, subject=event_subjects(service))

        return await self.with_streams(f"read the last event of {service}", read)

    async def _read(self, session: _Session, **which: Any) -> Tail:
        try:
            message = await session.jetstream.get_msg(EVENT_STREAM, **which)
        except nats.js.errors.NotFoundError as error:
            if error.err_code == _NO_MESSAGE:
                return Tail(0, 0, None)
            raise
        envelope = json.loads(message.data or b"")
        return Tail(int(envelope["position"]), message.seq or 0, envelope["id"])

    async def publish_events(self, service: str, messages: Sequence[EventMessage], last_sequence: int) -> int:
        """Append events of one service to the stream: all of them, or none."""
        check_batch(service, messages, self.max_message_bytes)
        guard = {_GUARD: str(last_sequence), _GUARD_SUBJECT: event_subjects(service)}

        async def publish(session: _Session) -> int:
            if len(messages) == 1:
                return await self._publish_one(session, messages[0], guard)
            return await self._publish_batch(session, messages, guard)

        return await self.with_streams(f"take {len(messages)} events of {service}", publish)

    async def _publish_one(self, session: _Session, message: EventMessage, guard: dict[str, str]) -> int:
        headers = {api.Header.MSG_ID.value: message.id, **guard}
        answer = await session.jetstream.publish(message.subject, message.body, headers=headers)
        if answer.duplicate:
            raise SupersededError(f"The event {message.id} is on the bus already")
        return answer.seq

    async def _publish_batch(self, session: _Session, messages: Sequence[EventMessage], guard: dict[str, str]) -> int:
        batch = new_id()
        headers: dict[str, str] = {}
        for number, message in enumerate(messages, start=1):
            headers = {
                api.Header.MSG_ID.value: message.id,
                api.Header.BATCH_ID.value: batch,
                api.Header.BATCH_SEQUENCE.value: str(number),
            }
            if number == 1:
                headers |= guard
            if number < len(messages):
                await session.client.publish(message.subject, message.body, headers=headers)
        # The answer to the commit is that of a publish, and the only one that is asked for.
        headers[api.Header.BATCH_COMMIT.value] = "1"
        last = messages[-1]
        return (await session.jetstream.publish(last.subject, last.body, headers=headers)).seq

    async def subscribe_events(self, name: str, service: str, after: int) -> _NatsEventSubscription:
        """Follow a service's events from a position on."""

        async def subscribe(session: _Session) -> _NatsEventSubscription:
            js = session.jetstream
            config = api.ConsumerConfig(
                # A consumer of its own for each subscription: where to go on stands in the follower's database.
                name=f"{name}-{service}-{new_id()}",
                description=f"{self._name} follows {service}",
                filter_subject=event_subjects(service),
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=await self._sequence_behind(session, service, after),
                ack_policy=api.AckPolicy.ALL,
                ack_wait=self._ack_wait,
                max_deliver=-1,
                max_ack_pending=10_000,
                inactive_threshold=60,
                mem_storage=True,
                num_replicas=1,
            )
            await js.add_consumer(EVENT_STREAM, config)
            pull = await js.pull_subscribe_bind(config.name, EVENT_STREAM)
            return _NatsEventSubscription(self, session, pull, service, str(config.name))

        return await self.with_streams(f"let {name} follow {service}", subscribe)

    async def _sequence_behind(self, session: _Session, service: str, after: int) -> int:
        """Find where the first event beyond a position stands in the stream."""
        subject = event_subjects(service)
        end = await self._read(session, subject=subject)
        if after == 0 or end.sequence == 0:
            return 1
        if end.position <= after:
            return end.sequence + 1
        # Positions grow with sequences, and there are at least as many messages between two events as positions.
        low, high = 1, end.sequence - (end.position - after - 1)
        while low < high:
            middle = (low + high) // 2
            found = await self._read(session, subject=subject, seq=middle, next=True)
            if found.sequence and found.position <= after:
                low = found.sequence + 1
            else:
                high = middle
        return low

    async def publish_job(self, subject: str, id: str, body: bytes) -> None:  # noqa: A002 - the field's term
        """Put a job into the queue."""
        check_size(subject, body, self.max_message_bytes)

        async def publish(session: _Session) -> None:
            await session.jetstream.publish(subject, body, headers={api.Header.MSG_ID.value: id})

        await self.with_streams(f"take the job {id}", publish)

    async def subscribe_jobs(self, name: str) -> _NatsJobSubscription:
        """Take a share in the job queue."""
        subscription = _NatsJobSubscription(self, name)
        await subscription.bind()
        return subscription

    async def bind_jobs(self, name: str) -> tuple[_Session, JetStreamContext.PullSubscription]:
        """Make or find the one consumer of the queue and attach to it."""

        async def bind(session: _Session) -> tuple[_Session, JetStreamContext.PullSubscription]:
            config = api.ConsumerConfig(
                name=name,
                durable_name=name,
                description="The executors",
                filter_subject="jobs.>",
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=self._ack_wait,
                # Who has failed too often is decided in SQL: a queue that gives up would lose a job.
                max_deliver=-1,
                max_ack_pending=10_000,
            )
            await session.jetstream.add_consumer(JOB_STREAM, config)
            return session, await session.jetstream.pull_subscribe_bind(name, JOB_STREAM)

        return await self.with_streams(f"hand out jobs to {name}", bind)

    async def answer(self, reply: str, content: bytes, *, confirmed: bool) -> None:
        """Answer a delivery, over whichever connection there is now."""
        session = self.require()
        if confirmed:
            what = "note the answer to a job"
            await self.ask(session, what, session.client.request(reply, content, timeout=self._request_timeout))
        else:
            await self.ask(session, "hear a sign of life", session.client.publish(reply, content))

    async def fetch(
        self, session: _Session, pull: JetStreamContext.PullSubscription, limit: int, wait: float, what: str
    ) -> list[Msg]:
        """Wait for messages of a consumer; none when the time is over."""

        async def fetch() -> list[Msg]:
            try:
                return await pull.fetch(limit, timeout=max(wait, 0.001))
            except (TimeoutError, nats.errors.TimeoutError):
                return []

        if session is not self.require():
            raise BusUnavailableError(f"The subscription to {what} was lost with its connection")
        task = asyncio.ensure_future(fetch())
        ends: set[asyncio.Future[Any]] = {task, session.lost}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise session.lost.result()
        except nats.errors.Error as error:
            raise BusUnavailableError(f"The subscription to {what} is lost: {error}") from error
        finally:
            _abandon(task)

    async def tell(self, subject: str, body: bytes) -> None:
        """Tell something in passing."""
        check_size(subject, body, self.max_message_bytes)
        session = self.require()
        await self.ask(session, f"tell something on {subject}", session.client.publish(subject, body))

    async def listen(self, subject: str, *, limit: int = 1000) -> _NatsListener:
        """Listen to what is told in passing."""
        listener = _NatsListener(self._listeners, subject, limit)
        self._listeners.add(listener)
        with suppress(BusUnavailableError):
            session = self.require()
            # Only when the broker has answered it has also taken the subscription.
            await self.ask(session, f"listen to {subject}", listener.attach(session.client))
        return listener


class _NatsEventSubscription:
    def __init__(
        self, bus: NatsBus, session: _Session, pull: JetStreamContext.PullSubscription, service: str, consumer: str
    ) -> None:
        self._bus = bus
        self._session = session
        self._pull = pull
        self._what = f"the events of {service}"
        self._consumer = consumer
        self._last: Msg | None = None
        self._closed = False

    async def fetch(self, limit: int, wait: float) -> list[bytes]:
        messages = await self._bus.fetch(self._session, self._pull, limit, wait, self._what)
        if messages:
            self._last = messages[-1]
        return [message.data for message in messages]

    async def ack(self) -> None:
        if self._last is not None:
            last, self._last = self._last, None
            if self._session is not self._bus.require():
                raise BusUnavailableError(f"The subscription to {self._what} was lost with its connection")
            # An acknowledgement that gets lost costs a second delivery and nothing more, so nobody waits for an answer.
            await self._bus.ask(self._session, "note an acknowledgement", last.ack())

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        with suppress(BusUnavailableError, nats.errors.Error):
            if self._session is self._bus.require():
                await self._pull.unsubscribe()
                delete = self._session.jetstream.delete_consumer(EVENT_STREAM, self._consumer)
                await self._bus.ask(self._session, "forget a consumer", delete)


class _NatsJobSubscription:
    def __init__(self, bus: NatsBus, name: str) -> None:
        self._bus = bus
        self._name = name
        self._bound: tuple[_Session, JetStreamContext.PullSubscription] | None = None
        self._closed = False

    async def bind(self) -> tuple[_Session, JetStreamContext.PullSubscription]:
        if self._closed:
            raise BusUnavailableError("The subscription to the jobs is closed")
        if self._bound is None or self._bound[0] is not self._bus.require():
            self._bound = await self._bus.bind_jobs(self._name)
        return self._bound

    async def fetch(self, limit: int, wait: float) -> list[JobMessage]:
        session, pull = await self.bind()
        try:
            messages = await self._bus.fetch(session, pull, limit, wait, "the jobs")
        except BusUnavailableError:
            self._bound = None
            raise
        return [_NatsJobMessage(self._bus, message) for message in messages]

    async def aclose(self) -> None:
        self._closed = True
        if self._bound is not None:
            with suppress(BusUnavailableError, nats.errors.Error):
                if self._bound[0] is self._bus.require():
                    await self._bound[1].unsubscribe()


class _NatsJobMessage:
    def __init__(self, bus: NatsBus, message: Msg) -> None:
        self._bus = bus
        self._reply = message.reply
        self.subject = message.subject
        self.body = message.data
        self.deliveries = message.metadata.num_delivered

    async def ack(self) -> None:
        await self._bus.answer(self._reply, b"+ACK", confirmed=True)

    async def in_progress(self) -> None:
        await self._bus.answer(self._reply, b"+WPI", confirmed=False)

    async def retry(self, delay: float = 0) -> None:
        content = b"-NAK" + (b' {"delay": %d}' % round(delay * 1e9) if delay > 0 else b"")
        await self._bus.answer(self._reply, content, confirmed=True)

    async def reject(self) -> None:
        await self._bus.answer(self._reply, b"+TERM", confirmed=True)


class _NatsListener(BufferedListener):
    def __init__(self, registry: set[_NatsListener], subject: str, limit: int) -> None:
        super().__init__(subject, limit)
        self._registry = registry
        self._detach: Callable[[], Coroutine[Any, Any, None]] | None = None

    async def attach(self, client: Client) -> None:
        async def take(message: Msg) -> None:
            self.put(Message(message.subject, message.data))

        subscription = await client.subscribe(self.subject, cb=take)
        self._detach = subscription.unsubscribe
        await client.flush()

    async def aclose(self) -> None:
        self._registry.discard(self)
        self.end()
        if self._detach is not None:
            with suppress(nats.errors.Error, OSError):
                await self._detach()


def _abandon(task: asyncio.Future[Any]) -> None:
    """Cancel what nobody waits for any more; whatever nats-py makes of that is of no interest."""
    if not task.done():
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        task.cancel()


async def _close(client: Client) -> None:
    """Close a connection, but do not wait for a broker that hangs."""
    with suppress(nats.errors.Error, OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await client.close()


def _address(client: Client) -> str:
    url = client.connected_url
    return url.netloc.rpartition("@")[2] if url is not None else "?"


def _hide(server: str) -> str:
    scheme, separator, rest = server.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
