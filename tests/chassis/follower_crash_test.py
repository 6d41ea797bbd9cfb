"""A crash at any await applies nothing twice and skips nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from stoa_chassis.database import Database
from stoa_chassis.follower import Follower
from tests.support.brokers import reached
from tests.support.crash import Crash, crash_tasks
from tests.support.following import NAME, World, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stoa_chassis.bus import Bus
    from stoa_contracts.envelope import Envelope
    from tests.support.brokers import Broker


@pytest.fixture
def world(sqlite_url: str) -> Iterator[World]:
    made = World(sqlite_url, "tables")
    yield made
    made.close()


async def put(bus: Bus, *events: Envelope) -> None:
    tail = await bus.last_position("tables")
    await bus.publish_events("tables", [message(event) for event in events], tail.sequence)


async def trouble(world: World, bus: Bus) -> None:
    """Bring a run of new events, then a gap, then events that come for the second time after a wipe."""
    owner = world.owners["tables"]
    await put(bus, *owner.append(3))
    owner.append(2)
    await put(bus, *owner.append(2))


@pytest.mark.parametrize("abandon", [False, True], ids=["raised", "killed"])
async def test_a_crash_at_any_await_doubles_and_skips_nothing(world: World, broker: Broker, abandon: bool) -> None:
    """Crash at the first await of a run, at the second of the next, and so on, until a run ends without a crash.

    Both tasks of the follower count, and they stop together. The next run begins while the transaction of the
    one before may still be on its way.
    """
    owner = world.owners["tables"]
    loop = asyncio.get_running_loop()
    database = Database(world.url)
    outcomes: list[int] = []
    while True:
        bus = await broker.client()
        await reached(bus)
        await trouble(world, bus)
        stop = asyncio.Event()
        one = Follower(
            NAME,
            ["tables"],
            bus=bus,
            database=database,
            log=world.log,
            apply=world.apply,
            feed=world.feed,
            batch=2,
            wait=0.02,
            gap_wait=0.005,
            poll=0.05,
        )
        crash = Crash(len(outcomes) + 1, abandon=abandon)
        loop.set_task_factory(only_the_follower(crash))
        running = loop.create_task(one.run(stop))
        async with asyncio.timeout(60):
            while not crash.happened and one.position("tables") < len(owner.events):
                await asyncio.sleep(0)
        stop.set()
        if not crash.happened:
            # A few more awaits happen on the way out: they may crash, too.
            await asyncio.wait({running}, timeout=30)
        loop.set_task_factory(None)
        if not crash.happened:
            await running
            break
        outcomes.append(world.checkpoint("tables"))
        if abandon:
            running.cancel()
        else:
            with pytest.raises((BaseExceptionGroup, Crash.Happened)):
                await asyncio.wait_for(running, 30)
        if len(outcomes) % 15 == 0:
            # Nothing that is on the bus is new any more; it is what a wiped bus would bring again.
            await broker.wipe()
            other = await broker.client()
            await put_again(other, owner.events)
            await other.aclose()
        if not abandon:
            await bus.aclose()
    await database.aclose()
    assert world.applied("tables") == list(range(1, len(owner.events) + 1))
    assert world.checkpoint("tables") == len(owner.events)
    noted = [position for _, first, last, _ in world.consumed() for position in range(first, last + 1)]
    assert noted == world.applied("tables")
    # It crashed often enough to have met every await, and some crashes came after a commit, others before it.
    assert len(outcomes) > 20


def only_the_follower(crash: Crash) -> Any:
    """Make a task factory that crashes the follower's own tasks; what they sent on its way goes on without them."""
    crashing = crash_tasks(crash)

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        if coroutine.__qualname__ in {"Follower.run", "_Source.run"}:
            return crashing(loop, coroutine, **options)  # type: ignore[no-any-return]
        return asyncio.Task(coroutine, loop=loop, **options)

    return factory


async def put_again(bus: Bus, events: list[Envelope]) -> None:
    """Do what a relay does after a wipe."""
    await reached(bus)
    for first in range(0, len(events), 100):
        await put(bus, *events[first : first + 100])
