"""Whatever the bus delivers, whoever fails and whenever the process ends: exactly once, and in order."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stoa_chassis.bus import Bus, BusUnavailableError
from stoa_chassis.database import Database, DatabaseUnavailableError
from stoa_chassis.follower import Follower
from tests.support.crash import Crash, crash_tasks
from tests.support.following import NAME, World

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

SOURCES = ("tables", "scheduler")
sources = st.sampled_from(SOURCES)


class HostileBus:
    """A bus that delivers what it is told to, in whatever order and as often as it likes."""

    def __init__(self) -> None:
        self.works = True
        self.acknowledges = True
        self.subscriptions: dict[str, list[HostileSubscription]] = {source: [] for source in SOURCES}

    async def subscribe_events(self, name: str, service: str, after: int) -> HostileSubscription:
        await asyncio.sleep(0)
        self.check()
        subscription = HostileSubscription(self)
        self.subscriptions[service].append(subscription)
        return subscription

    def check(self) -> None:
        if not self.works:
            raise BusUnavailableError("The hostile bus is down")

    def deliver(self, source: str, bodies: list[bytes]) -> None:
        for subscription in self.subscriptions[source]:
            subscription.waiting.append(bodies)


class HostileSubscription:
    def __init__(self, bus: HostileBus) -> None:
        self.bus = bus
        self.waiting: list[list[bytes]] = []

    async def fetch(self, limit: int, wait: float) -> list[bytes]:
        self.bus.check()
        if not self.waiting:
            await asyncio.sleep(wait)
        self.bus.check()
        if not self.waiting:
            return []
        bodies = self.waiting.pop(0)
        if len(bodies) > limit:
            self.waiting.insert(0, bodies[limit:])
        return bodies[:limit]

    async def ack(self) -> None:
        await asyncio.sleep(0)
        if not self.bus.acknowledges:
            raise BusUnavailableError("The acknowledgement got lost")

    async def aclose(self) -> None:
        await asyncio.sleep(0)


class UncertainDatabase:
    """A database whose connection breaks before a commit, or between the commit and its confirmation."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.breaks: list[str] = []
        self.read = database.read

    async def write(self, function: Callable[[sa.Connection], Any]) -> Any:
        when = self.breaks.pop() if self.breaks else ""
        if when == "before":
            raise DatabaseUnavailableError("The connection broke before the commit")
        result = await self.database.write(function)
        if when == "after":
            raise DatabaseUnavailableError("The connection broke after the commit")
        return result


class Following(RuleBasedStateMachine):
    """One follower of two sources, and everything that may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(f"sqlite:///{Path(self.folder.name) / 'world.db'}", *SOURCES)
        self.loop = asyncio.new_event_loop()
        self.bus = HostileBus()
        self.database = UncertainDatabase(self.world.database)
        self.start()

    def start(self) -> None:
        self.crash = Crash(2**60, abandon=True)
        self.stop = asyncio.Event()
        self.follower = Follower(
            NAME,
            SOURCES,
            bus=cast("Bus", self.bus),
            database=cast("Database", self.database),
            log=self.world.log,
            apply=self.world.apply,
            feed=self.world.feed,
            batch=4,
            wait=0.003,
            gap_wait=0.001,
            poll=0.02,
        )
        self.loop.set_task_factory(crash_tasks(self.crash))
        self.task = self.loop.create_task(self.follower.run(self.stop))

    def go_on(self, milliseconds: float) -> None:
        self.loop.set_task_factory(None)
        self.loop.run_until_complete(self.rest(milliseconds))

    async def rest(self, milliseconds: float) -> None:
        self.loop.set_task_factory(crash_tasks(self.crash))
        await asyncio.sleep(milliseconds / 1000)

    @rule(source=sources, count=st.integers(1, 8))
    def append(self, source: str, count: int) -> None:
        self.world.owners[source].append(count)

    @rule(source=sources, offsets=st.lists(st.integers(-2, 9), max_size=9), milliseconds=st.integers(0, 8))
    def deliver(self, source: str, offsets: list[int], milliseconds: int) -> None:
        """Deliver events around the checkpoint in any order, some of them twice; the others are lost."""
        events = self.world.owners[source].events
        positions = [self.world.checkpoint(source) + offset for offset in offsets]
        bodies = [events[position - 1].to_bytes() for position in positions if 1 <= position <= len(events)]
        self.bus.deliver(source, bodies)
        self.go_on(milliseconds)

    @rule(source=sources, milliseconds=st.integers(0, 8))
    def deliver_all(self, source: str, milliseconds: int) -> None:
        """Deliver what a bus should."""
        new = self.world.owners[source].events[self.world.checkpoint(source) :]
        self.bus.deliver(source, [event.to_bytes() for event in new])
        self.go_on(milliseconds)

    @rule(milliseconds=st.integers(0, 30))
    def wait(self, milliseconds: int) -> None:
        self.go_on(milliseconds)

    @rule(source=sources, works=st.booleans())
    def feed(self, source: str, works: bool) -> None:
        self.world.owners[source].feed_works = works

    @rule(works=st.booleans())
    def topic(self, works: bool) -> None:
        self.bus.works = works

    @rule(works=st.booleans())
    def acknowledgements(self, works: bool) -> None:
        self.bus.acknowledges = works

    @rule(when=st.lists(st.sampled_from(["before", "after"]), min_size=1, max_size=3))
    def break_database(self, when: list[str]) -> None:
        self.database.breaks.extend(when)

    @rule(source=sources, ahead=st.integers(1, 5))
    def poison(self, source: str, ahead: int) -> None:
        self.world.poison.add((source, self.world.checkpoint(source) + ahead))

    @rule()
    def cure(self) -> None:
        self.world.poison.clear()

    @rule(awaits=st.integers(1, 25))
    def kill_and_start(self, awaits: int) -> None:
        """End the process at one of its next awaits; the next one starts while a transaction may be under way."""
        self.crash.at = self.crash.awaits + awaits
        self.go_on(5)
        self.crash.at = 0
        self.task.cancel()
        self.start()

    @rule()
    def stop_and_start(self) -> None:
        self.end()
        self.start()

    def end(self) -> None:
        self.stop.set()
        self.loop.set_task_factory(None)
        self.loop.run_until_complete(asyncio.wait_for(self.task, 10))

    @invariant()
    def each_event_is_applied_once_and_in_order(self) -> None:
        for source in SOURCES:
            with self.world.database.reading():
                applied = self.world.applied(source)
            assert applied == list(range(1, len(applied) + 1))

    def teardown(self) -> None:
        try:
            self.bus.works = self.bus.acknowledges = True
            self.world.poison.clear()
            self.database.breaks.clear()
            for source in SOURCES:
                self.world.owners[source].feed_works = True
            self.loop.set_task_factory(None)
            for source in SOURCES:
                count = len(self.world.owners[source].events)
                self.loop.run_until_complete(self.follower.wait_for(source, count, timeout=10))
                assert self.world.applied(source) == list(range(1, count + 1))
                assert self.world.checkpoint(source) == count
            consumed = [
                (source, position)
                for source, first, last, _ in self.world.consumed()
                for position in range(first, last + 1)
            ]
            for source in SOURCES:
                assert [position for name, position in consumed if name == source] == self.world.applied(source)
            self.end()
            self.loop.run_until_complete(self.world.database.aclose())
        finally:
            self.world.close()
            self.loop.close()
            self.folder.cleanup()


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=40, stateful_step_count=30)
