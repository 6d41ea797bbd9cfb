"""The follower: applies the events of other services, each exactly once, in the order of their logs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import httpx
import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import OperationalError

from stoa_chassis.bus import Bus, BusUnavailableError, EventSubscription
from stoa_chassis.database import Database, DatabaseUnavailableError
from stoa_chassis.log import read_checkpoint, write_checkpoint
from stoa_chassis.waiting import Backoff, wait_any
from stoa_contracts.envelope import BATCH_MEDIA_TYPE, Envelope, read_batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import sqlalchemy as sa

    from stoa_chassis.log import Log
    from stoa_chassis.metrics import Metrics

__all__ = ["Apply", "ApplyAll", "Feed", "FeedUnavailableError", "Follower", "http_feed"]

#: Applies one event in the transaction that notes that it was applied.
Apply = Callable[["sa.Connection", Envelope], None]

#: Applies several events in their order, with the same effect as one after the other.
ApplyAll = Callable[["sa.Connection", "Sequence[Envelope]"], None]

#: Gives a source's events beyond a position, at most so many: ``feed(source, after, limit)``. Empty at the log's end.
Feed = Callable[[str, int, int], Awaitable[list[Envelope]]]

#: A transaction holds the service's one writer: after so many seconds it makes room for commands.
_TRANSACTION_S = 0.1

#: So many events are applied together at most, for the same reason.
_TOGETHER = 100


class FeedUnavailableError(Exception):
    """The owner of the events does not give its feed now."""


class _ApplyError(Exception):
    """An event could not be applied; the events before it in its batch could."""

    def __init__(self, index: int, envelope: Envelope) -> None:
        super().__init__(f"Event {envelope.log_position} ({envelope.name}, {envelope.id}) cannot be applied")
        self.index = index


class _UnreadableError(Exception):
    """A message on the bus is no event of ours."""


class _RewoundError(Exception):
    """The position in the database is behind the one that we reached."""


class _Reference(BaseModel):
    """What has to stand in an event whose data is elsewhere."""

    position: int
    dataref: str


class _Applied(NamedTuple):
    position: int
    events: int


def http_feed(base_urls: Mapping[str, str], client: httpx.AsyncClient) -> Feed:
    """Read feeds over HTTP: ``GET {base}/events?after=N&limit=M``.

    Parameters
    ----------
    base_urls
        Where each source answers.
    client
        Makes the requests; its time-outs count.

    Returns
    -------
    Feed
        Raises `FeedUnavailableError` where a source does not answer as it should.
    """

    async def feed(source: str, after: int, limit: int) -> list[Envelope]:
        url = f"{base_urls[source].rstrip('/')}/events"
        try:
            response = await client.get(
                url, params={"after": after, "limit": limit}, headers={"Accept": BATCH_MEDIA_TYPE}
            )
            response.raise_for_status()
            return await asyncio.to_thread(read_batch, response.content)
        except httpx.HTTPError as error:
            raise FeedUnavailableError(
                f"The feed of {source} at {url} is not available: {str(error) or type(error).__name__}"
            ) from error
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise FeedUnavailableError(f"The feed of {source} at {url} cannot be read: {reason}") from error

    return feed


class Follower:
    """Applies the events of other services, each exactly once, in the order of their logs.

    The position up to which a source was followed is committed together with what its events did. So it does not matter
    how often an event comes, in which order, or at which moment the process ends: what is at or below the position is
    skipped, the next one is applied, and what lies beyond a gap waits until the missing events have come, from the bus
    or else from their owner's feed. The sources are followed side by side, so one that fails holds up no other. Several
    processes may follow under one name with one database: whoever is first applies.

    Parameters
    ----------
    name
        Under which the positions are kept.
    sources
        The services that are followed.
    bus
        Where events come from, quickly.
    database
        Where they are applied.
    log
        Of the service that follows: it notes what was applied when, so that a rebuild can repeat it.
    apply
        Applies one event. What it raises is reported, and the event is tried again: it is never skipped.
    feed
        Where events come from when the bus does not have them, or is gone.
    apply_all
        Applies several events at a lower cost. Where it fails, they are applied one by one, to tell which of them it is.
    metrics
        Counts the applied events.
    batch
        At most so many events are fetched, and applied in one transaction.
    wait
        How many seconds a fetch waits for events; so long may it take to stop.
    gap_wait
        How many seconds a gap may take to close by itself.
    poll
        After so many seconds without events the feed is asked whether there really are none; while the bus is gone, it
        is asked ten times as often. After a failure it takes at most half as long until the next attempt.
    """

    def __init__(  # noqa: PLR0913 - all but the first two by keyword
        self,
        name: str,
        sources: Sequence[str],
        *,
        bus: Bus,
        database: Database,
        log: Log,
        apply: Apply,
        feed: Feed,
        apply_all: ApplyAll | None = None,
        metrics: Metrics | None = None,
        batch: int = 500,
        wait: float = 0.5,
        gap_wait: float = 0.25,
        poll: float = 10.0,
    ) -> None:
        self.name = name
        self.bus = bus
        self.database = database
        self.log = log
        self.apply = apply
        self.feed = feed
        self.apply_all = apply_all
        self.metrics = metrics
        self.batch = batch
        self.wait = wait
        self.gap_wait = gap_wait
        self.poll = poll
        self._sources = {source: _Source(self, source) for source in sources}

    @property
    def sources(self) -> list[str]:
        """The services that are followed."""
        return list(self._sources)

    @property
    def problems(self) -> dict[str, str]:
        """What keeps the follower from its work, by source."""
        return {name: source.problem for name, source in self._sources.items() if source.problem is not None}

    def position(self, source: str) -> int:
        """Tell up to which position a source's events are applied and committed, 0 before `run` has begun."""
        return self._sources[source].position

    async def wait_for(self, source: str, position: int, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - the caller says what it is for
        """Wait until a source's events are applied up to a position.

        Raises
        ------
        TimeoutError
            If they are not after so many seconds.
        """
        found = self._sources[source]
        try:
            async with asyncio.timeout(timeout):
                await found.reach(position)
        except TimeoutError:
            raise TimeoutError(
                f"{self.name} has applied the events of {source} up to {found.position}, not up to {position}, after "
                f"{timeout:g} s"
            ) from None

    async def run(self, stop: asyncio.Event) -> None:
        """Follow every source until the event is set."""
        async with asyncio.TaskGroup() as group:
            for name, source in self._sources.items():
                group.create_task(source.run(stop), name=f"{self.name} follows {name}")


class _Source:
    """Follows one source."""

    def __init__(self, follower: Follower, source: str) -> None:
        self.position = 0
        self._outage: str | None = None
        self._failure: str | None = None
        self._loaded = False
        self._follower = follower
        self._source = source
        # What came and could not be applied yet, by position; without an envelope, the feed has to give it.
        self._waiting: dict[int, Envelope | None] = {}
        self._changed = asyncio.Event()
        self._backoff = Backoff(follower.poll / 100, follower.poll / 2)
        self._asked_feed = 0.0
        self._logger = structlog.get_logger(__name__).bind(follower=follower.name, source=source)

    @property
    def problem(self) -> str | None:
        """What keeps us from following: what fails comes before a bus that is gone."""
        return self._failure or self._outage

    async def reach(self, position: int) -> None:
        """Wait until a position is reached."""
        while self.position < position:
            changed = self._changed
            await changed.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until the event is set, whatever happens."""
        while not stop.is_set():
            try:
                if not self._loaded:
                    await self._load(stop)
                await self._follow_or_poll(stop)
            except (
                DatabaseUnavailableError,
                FeedUnavailableError,
                _ApplyError,
                _UnreadableError,
                _RewoundError,
            ) as error:
                self._fail(str(error), error.__cause__)
                await wait_any(stop, seconds=self._backoff.next())
            except Exception as error:  # noqa: BLE001 - a loop that ended would miss events for ever
                self._fail(f"{type(error).__name__}: {error}", error)
                await wait_any(stop, seconds=self._backoff.next())

    async def _follow_or_poll(self, stop: asyncio.Event) -> None:
        try:
            await self._follow(stop)
        except BusUnavailableError as error:
            if self._outage is None:
                self._logger.warning("follower asks the feed, because the bus is gone", reason=str(error))
            self._outage = str(error)
            await self._poll_feed(stop)
            await wait_any(stop, seconds=min(self._backoff.next(), self._follower.poll / 10))

    async def _load(self, stop: asyncio.Event) -> None:
        """Find out where to begin."""
        read = partial(read_checkpoint, name=self._follower.name, source=self._source)
        self._advance(await self._follower.database.read(read))
        self._loaded = True
        if self.position == 0:
            await self._bootstrap(stop)

    async def _bootstrap(self, stop: asyncio.Event) -> None:
        """Begin with the feed, which reaches further back than the bus."""
        try:
            await self._read_feed(stop)
        except FeedUnavailableError as error:
            self._logger.info("follower begins without the feed", reason=str(error))

    async def _follow(self, stop: asyncio.Event) -> None:
        """Apply what comes over the bus."""
        follower = self._follower
        self._waiting.clear()
        subscription = await follower.bus.subscribe_events(follower.name, self._source, self.position)
        try:
            if self._outage is not None:
                self._logger.info("follower listens to the bus again", position=self.position)
                self._outage = None
            while not stop.is_set():
                if await self._fetch(subscription, follower.wait):
                    await self._drain(stop)
                    if self._waiting and not stop.is_set():
                        await self._close_gap(subscription, stop)
                    if not self._waiting:
                        # Only now, after the commit: what is not acknowledged comes again.
                        await subscription.ack()
                        self._well()
                else:
                    self._well()
                    if time.monotonic() - self._asked_feed > follower.poll:
                        await self._poll_feed(stop)
        finally:
            await subscription.aclose()

    async def _fetch(self, subscription: EventSubscription, wait: float) -> bool:
        bodies = await subscription.fetch(self._follower.batch, wait)
        for position, envelope in map(self._read, bodies):
            if position > self.position:
                self._waiting[position] = envelope
        if bodies:
            self._asked_feed = time.monotonic()
        return bool(bodies)

    def _read(self, body: bytes) -> tuple[int, Envelope | None]:
        try:
            envelope = Envelope.from_bytes(body)
        except ValidationError as error:
            return self._read_reference(body, error), None
        return envelope.log_position, envelope

    def _read_reference(self, body: bytes, error: ValidationError) -> int:
        """Read an event whose data is elsewhere (CloudEvents' extension ``dataref``)."""
        try:
            content = _Reference.model_validate_json(body)
        except ValidationError:
            reason = f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
            raise _UnreadableError(
                f"A message of {self._source} on the bus is no event that we know: {reason}"
            ) from None
        return content.position

    async def _close_gap(self, subscription: EventSubscription, stop: asyncio.Event) -> None:
        """Wait a moment for what is missing, then ask its owner."""
        if self._misses_events():
            await self._fetch(subscription, self._follower.gap_wait)
            await self._drain(stop)
        while self._waiting and not stop.is_set():
            target = min(self._waiting)
            self._logger.debug("follower asks the feed", position=self.position, beyond=target)
            if not await self._read_page(stop):
                raise FeedUnavailableError(
                    f"The bus has event {target} of {self._source}, but its feed ends at {self.position}"
                )

    def _misses_events(self) -> bool:
        """Tell a gap from an event that has to be fetched."""
        return self.position + 1 not in self._waiting

    async def _poll_feed(self, stop: asyncio.Event) -> None:
        try:
            await self._read_feed(stop)
        except FeedUnavailableError as error:
            self._logger.debug("follower cannot ask the feed", reason=str(error))

    async def _read_feed(self, stop: asyncio.Event) -> None:
        """Apply everything that the feed has."""
        self._asked_feed = time.monotonic()
        while not stop.is_set() and await self._read_page(stop):
            pass

    async def _read_page(self, stop: asyncio.Event) -> bool:
        """Apply the next events of the feed; tell whether there were any."""
        begin = self.position
        page = await self._follower.feed(self._source, begin, self._follower.batch)
        positions = [envelope.log_position for envelope in page]
        if positions != list(range(begin + 1, begin + 1 + len(page))):
            raise FeedUnavailableError(f"The feed of {self._source} behind {begin} is not in order, or has a gap")
        self._waiting.update(zip(positions, page, strict=True))
        await self._drain(stop)
        return bool(page)

    async def _drain(self, stop: asyncio.Event) -> None:
        """Apply what is next, as far as it goes without a gap."""
        while (batch := self._next()) and not stop.is_set():
            try:
                applied = await self._follower.database.write(partial(self._apply, batch=batch))
            except _ApplyError as error:
                if error.index == 0:
                    raise
                # What came before the event that fails is not held up by it.
                good = batch[: error.index]
                applied = await self._follower.database.write(partial(self._apply, batch=good))
            if applied.position <= self.position:
                # The database says that we are not where we believed, and the database is right.
                self.position = await self._follower.database.read(
                    partial(read_checkpoint, name=self._follower.name, source=self._source)
                )
                self._waiting.clear()
                raise _RewoundError(f"The checkpoint of {self._source} went back to {self.position}")
            self._advance(applied.position)
            if self._follower.metrics is not None:
                service = self._follower.log.service
                self._follower.metrics.followed.labels(service, self._source).inc(applied.events)

    def _next(self) -> list[Envelope]:
        batch: list[Envelope] = []
        while len(batch) < self._follower.batch:
            envelope = self._waiting.get(self.position + 1 + len(batch))
            if envelope is None:
                break
            batch.append(envelope)
        return batch

    def _apply(self, connection: sa.Connection, batch: Sequence[Envelope]) -> _Applied:
        """Apply a batch in a transaction: the position it begins at is the one that is committed, not the one we know."""
        together = self._apply_together(connection, batch)
        return self._apply_each(connection, batch) if together is None else together

    def _apply_together(self, connection: sa.Connection, batch: Sequence[Envelope]) -> _Applied | None:
        """Apply what is next at once, or say that it has to be applied one by one."""
        follower, source = self._follower, self._source
        if follower.apply_all is None:
            return None
        begin = read_checkpoint(connection, follower.name, source)
        some = [envelope for envelope in batch if envelope.log_position > begin][:_TOGETHER]
        # A batch has no gap within, but the database may say that we are not where we believed.
        if not some or some[0].log_position != begin + 1:
            return None
        own_position = follower.log.head(connection)
        try:
            with connection.begin_nested():
                follower.apply_all(connection, some)
        except OperationalError:
            raise  # the database's own affair
        except Exception as error:  # noqa: BLE001 - applied one by one, the event at fault says it again
            self._logger.warning("events are applied one by one", reason=f"{type(error).__name__}: {error}")
            return None
        position = some[-1].log_position
        follower.log.record_consumption(
            connection, follower.name, source, begin + 1, position, own_position=own_position
        )
        write_checkpoint(connection, follower.name, source, position)
        return _Applied(position, len(some))

    def _apply_each(self, connection: sa.Connection, batch: Sequence[Envelope]) -> _Applied:
        follower, source = self._follower, self._source
        begin = position = read_checkpoint(connection, follower.name, source)
        noted, own_position, appended = begin, follower.log.head(connection), follower.log.appended
        until = time.monotonic() + _TRANSACTION_S
        for index, envelope in enumerate(batch):
            if envelope.log_position <= position:
                continue
            if envelope.log_position > position + 1 or time.monotonic() > until:
                break
            try:
                follower.apply(connection, envelope)
            except OperationalError:
                raise  # the database's own affair
            except Exception as error:
                raise _ApplyError(index, envelope) from error
            position += 1
            if follower.log.appended != appended:
                # It caused events of our own, which a rebuild has to replay before the next one.
                follower.log.record_consumption(
                    connection, follower.name, source, noted + 1, position, own_position=own_position
                )
                noted, own_position, appended = position, follower.log.head(connection), follower.log.appended
        if position > noted:
            follower.log.record_consumption(
                connection, follower.name, source, noted + 1, position, own_position=own_position
            )
        if position > begin:
            write_checkpoint(connection, follower.name, source, position)
        return _Applied(position, position - begin)

    def _advance(self, position: int) -> None:
        if position > self.position:
            self.position = position
            self._well()
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        for past in [waiting for waiting in self._waiting if waiting <= position]:
            del self._waiting[past]

    def _well(self) -> None:
        if self._failure is not None:
            self._logger.info("follower goes on", position=self.position)
        self._failure = None
        self._backoff.reset()

    def _fail(self, problem: str, cause: BaseException | None) -> None:
        if problem != self._failure:
            log = self._logger.warning if cause is None else self._logger.error
            log("follower waits", reason=problem, position=self.position + 1, exc_info=cause)
        self._failure = problem
