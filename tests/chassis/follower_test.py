"""The follower applies each event exactly once and in order, whatever the bus, the feed and the process do."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI, Response

from stoa_chassis.bus import BusUnavailableError, EventMessage, SupersededError
from stoa_chassis.database import Database
from stoa_chassis.follower import FeedUnavailableError, Follower, http_feed
from stoa_chassis.log import write_checkpoint
from stoa_chassis.memory_bus import MemoryBroker, MemoryBus
from stoa_chassis.metrics import Metrics
from stoa_chassis.relay import Relay
from stoa_contracts.envelope import BATCH_MEDIA_TYPE, batch
from stoa_contracts.events.tables import RowsRemoved
from tests.chassis.observatory import ORIGIN, create
from tests.support.brokers import reached
from tests.support.following import NAME, World, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    import sqlalchemy as sa

    from stoa_chassis.bus import Bus
    from stoa_contracts.envelope import Envelope
    from tests.support.brokers import Broker


@pytest.fixture
def world(sqlite_url: str) -> Iterator[World]:
    made = World(sqlite_url, "tables", "scheduler")
    yield made
    made.close()


def follower(world: World, bus: Bus, **options: Any) -> Follower:
    parts: dict[str, Any] = {"database": world.database, "log": world.log, "apply": world.apply, "feed": world.feed}
    pace: dict[str, Any] = {"wait": 0.1, "gap_wait": 0.05, "poll": 5.0}
    return Follower(NAME, list(world.owners), bus=bus, **(parts | pace | options))


@asynccontextmanager
async def running(*followers: Follower) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(one.run(stop)) for one in followers]
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)


async def publish(bus: Bus, *events: Envelope) -> None:
    """Do what a relay does, without looking twice."""
    async with asyncio.timeout(15):
        while True:
            with suppress(BusUnavailableError, SupersededError):
                tail = await bus.last_position(events[0].service)
                rest = [message(event) for event in events if event.log_position > tail.position]
                if rest:
                    await bus.publish_events(events[0].service, rest, tail.sequence)
                return
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def upto(position: int) -> list[int]:
    return list(range(1, position + 1))


async def test_events_are_applied_in_order_and_noted(world: World, broker: Broker) -> None:
    bus = await broker.client()
    tables, scheduler = world.owners["tables"], world.owners["scheduler"]
    one = follower(world, bus)
    async with running(one):
        await publish(bus, *tables.append(30))
        await publish(bus, *scheduler.append(5))
        await publish(bus, *tables.append(1))
        await one.wait_for("tables", 31)
        await one.wait_for("scheduler", 5)
    assert world.applied("tables") == upto(31)
    assert world.applied("scheduler") == upto(5)
    assert (world.checkpoint("tables"), world.checkpoint("scheduler")) == (31, 5)
    assert (one.position("tables"), one.position("scheduler")) == (31, 5)
    noted = [
        position
        for source, first, last, _ in world.consumed()
        if source == "tables"
        for position in range(first, last + 1)
    ]
    assert noted == upto(31)


async def test_a_newcomer_begins_with_the_feed(world: World, broker: Broker) -> None:
    bus = await broker.client()
    world.owners["tables"].append(1200)
    one = follower(world, bus)
    async with running(one):
        await one.wait_for("tables", 1200)
    assert world.applied("tables") == upto(1200)


async def test_a_newcomer_without_a_feed_begins_with_the_bus(world: World, broker: Broker) -> None:
    bus = await broker.client()
    owner = world.owners["tables"]
    await publish(bus, *owner.append(20))
    owner.feed_works = False
    one = follower(world, bus)
    async with running(one):
        await one.wait_for("tables", 20)
    assert world.applied("tables") == upto(20)


async def test_it_goes_on_behind_its_checkpoint_and_skips_what_it_has(world: World, broker: Broker) -> None:
    bus = await broker.client()
    owner = world.owners["tables"]
    await publish(bus, *owner.append(10))
    async with running(one := follower(world, bus)):
        await one.wait_for("tables", 10)
    await broker.wipe()
    await reached(bus)
    await publish(bus, *owner.events, *owner.append(5))
    async with running(one := follower(world, bus)):
        await one.wait_for("tables", 15)
    assert world.applied("tables") == upto(15)


async def test_what_the_bus_lost_is_healed_from_the_feed(world: World, broker: Broker) -> None:
    bus = await broker.client()
    owner = world.owners["tables"]
    async with running(one := follower(world, bus)):
        await publish(bus, *owner.append(5))
        await one.wait_for("tables", 5)
        lost = owner.append(3)
        tail = await bus.last_position("tables")
        await bus.publish_events("tables", [message(event) for event in owner.append(2)], tail.sequence)
        await one.wait_for("tables", 10)
    assert world.applied("tables") == upto(10)
    assert len(lost) == 3


async def test_a_gap_waits_for_its_owner(world: World, broker: Broker) -> None:
    bus = await broker.client()
    owner = world.owners["tables"]
    async with running(one := follower(world, bus)):
        await publish(bus, *owner.append(2))
        await one.wait_for("tables", 2)
        owner.feed_works = False
        owner.append(1)
        tail = await bus.last_position("tables")
        await bus.publish_events("tables", [message(event) for event in owner.append(1)], tail.sequence)
        await until(lambda: "tables" in one.problems)
        await publish(bus, *world.owners["scheduler"].append(4))
        await one.wait_for("scheduler", 4)
        assert world.applied("tables") == upto(2)
        owner.feed_works = True
        await one.wait_for("tables", 4)
        await until(lambda: not one.problems)
    assert world.applied("tables") == upto(4)


async def test_events_are_followed_over_the_feed_while_the_bus_is_gone(world: World, broker: Broker) -> None:
    bus = await broker.client()
    with bus.break_topic():
        async with running(one := follower(world, bus, poll=1.0)):
            for count in (3, 1, 4):
                world.owners["tables"].append(count)
                await one.wait_for("tables", len(world.owners["tables"].events))
            await until(lambda: "tables" in one.problems)
    assert world.applied("tables") == upto(8)


async def test_a_silent_bus_is_checked_against_the_feed(world: World, broker: Broker) -> None:
    bus = await broker.client()
    async with running(one := follower(world, bus, poll=0.3)):
        await publish(bus, *world.owners["tables"].append(1))
        await one.wait_for("tables", 1)
        world.owners["tables"].append(2)  # the owner's relay hangs
        await one.wait_for("tables", 3)
    assert world.applied("tables") == upto(3)


async def test_the_broker_is_killed_restarted_and_wiped_during_traffic(
    world: World, broker: Broker, tmp_path: Path
) -> None:
    owner, store = create(f"sqlite:///{tmp_path / 'owner.db'}")
    log = store.log

    async def feed(source: str, after: int, limit: int) -> list[Envelope]:
        if source != "scheduler":
            return []
        return await owner.read(lambda connection: log.read(connection, after=after, limit=limit))

    sending, receiving = await broker.client(), await broker.client()
    stop = asyncio.Event()
    relay = asyncio.create_task(Relay(log=log, database=owner, bus=sending, poll=0.2).run(stop))
    async with running(one := follower(world, receiving, feed=feed, poll=1.0)):
        for number in range(80):
            fact = RowsRemoved(table="t", rows=[number])
            await owner.write(lambda connection, fact=fact: log.append(connection, "t", [fact] * 3, ORIGIN))  # type: ignore[misc]
            await asyncio.sleep(0.005)
            match number:
                case 20:
                    await broker.stop()
                case 30:
                    await broker.start()
                case 50:
                    await broker.wipe()
        await one.wait_for("scheduler", 240, timeout=20)
    stop.set()
    await relay
    await owner.aclose()
    assert world.applied("scheduler") == upto(240)


async def test_two_processes_share_the_work_and_neither_doubles_it(database_url: str, broker: Broker) -> None:
    world = World(database_url, "tables")
    buses = [await broker.client(), await broker.client()]
    other = Database(world.url)
    one, two = follower(world, buses[0], batch=7), follower(world, buses[1], batch=5, database=other)
    async with running(one, two):
        for _ in range(40):
            await publish(buses[0], *world.owners["tables"].append(5))
        await one.wait_for("tables", 200)
        await two.wait_for("tables", 200)
    assert world.applied("tables") == upto(200)
    await other.aclose()
    await world.database.aclose()


class TestFailure:
    async def test_an_event_that_cannot_be_applied_is_told_and_never_skipped(
        self, world: World, broker: Broker, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bus = await broker.client()
        world.poison = {("tables", 4)}
        async with running(one := follower(world, bus)):
            await publish(bus, *world.owners["tables"].append(6))
            await until(lambda: one.problems)
            assert "Event 4 (rows-removed" in one.problems["tables"]
            assert world.applied("tables") == upto(3)
            await publish(bus, *world.owners["scheduler"].append(3))
            await one.wait_for("scheduler", 3)
            assert one.position("tables") == 3
            world.poison = set()
            await one.wait_for("tables", 6)
            await until(lambda: not one.problems)
        assert world.applied("tables") == upto(6)
        said = capsys.readouterr().out
        assert "poisoned" in said
        assert "position=4" in said

    async def test_it_is_told_once_while_it_is_tried_again_and_again(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bus = MemoryBus(MemoryBroker())
        await bus.connect()
        world.poison = {("tables", 1)}
        tries = 0

        def apply(connection: sa.Connection, envelope: Envelope) -> None:
            nonlocal tries
            tries += 1
            world.apply(connection, envelope)

        async with running(one := follower(world, bus, apply=apply)):
            await publish(bus, *world.owners["tables"].append(1))
            await until(lambda: tries >= 4)
            assert one.problems
        assert capsys.readouterr().out.count("follower waits") == 1

    async def test_a_message_that_is_no_event_is_told_and_nothing_behind_it_is_applied(
        self, world: World, broker: Broker
    ) -> None:
        bus = await broker.client()
        owner = world.owners["tables"]
        owner.feed_works = False
        await publish(bus, *owner.append(2))
        tail = await bus.last_position("tables")
        newer = EventMessage("stoa.tables.t.x", "n", b'{"position":"3","id":"n","specversion":"9"}', 3)
        await bus.publish_events("tables", [newer], tail.sequence)
        async with running(one := follower(world, bus, batch=2)):
            await until(lambda: one.problems)
            assert "no event that we know" in one.problems["tables"]
        assert world.applied("tables") == upto(2)

    async def test_a_database_that_fails_holds_up_and_loses_nothing(self, world: World, broker: Broker) -> None:
        bus = await broker.client()
        locked = Database(world.url)
        with locked.engine.connect() as connection:
            async with running(one := follower(world, bus)):
                await until(lambda: one._sources["tables"]._loaded)
                await until(lambda: one._sources["scheduler"]._loaded)
                # Another process holds the table that is written to.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                connection.exec_driver_sql("ALTER TABLE applied RENAME TO gone")
                connection.exec_driver_sql("COMMIT")
                await publish(bus, *world.owners["tables"].append(3))
                await until(lambda: one.problems)
                connection.exec_driver_sql("ALTER TABLE gone RENAME TO applied")
                await one.wait_for("tables", 3)
        await locked.aclose()
        assert world.applied("tables") == upto(3)

    async def test_it_stops_soon_whatever_is_wrong(self, world: World, broker: Broker) -> None:
        bus = await broker.client()
        world.poison = {("tables", 1)}
        world.owners["tables"].append(1)
        world.owners["scheduler"].feed_works = False
        async with running(follower(world, bus)):
            await asyncio.sleep(1)
            begin = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begin < 1

    async def test_a_checkpoint_that_went_back_is_believed(self, world: World, broker: Broker) -> None:
        bus = await broker.client()
        owner = world.owners["tables"]
        async with running(one := follower(world, bus)):
            await publish(bus, *owner.append(5))
            await one.wait_for("tables", 5)
            with world.database.writing() as connection:
                write_checkpoint(connection, NAME, "tables", 2)
            await publish(bus, *owner.append(1))
            await until(lambda: world.checkpoint("tables") == 6)
        assert world.applied("tables") == [1, 2, 3, 4, 5, 3, 4, 5, 6]


async def test_waiting_for_a_position_ends_with_a_sentence(world: World) -> None:
    bus = MemoryBus(MemoryBroker())
    await bus.connect()
    async with running(one := follower(world, bus)):
        with pytest.raises(TimeoutError, match="has applied the events of tables up to 0, not up to 1"):
            await one.wait_for("tables", 1, timeout=0.1)


async def test_an_event_by_reference_is_fetched_from_the_feed(world: World, broker: Broker) -> None:
    bus = await broker.client()
    owner = world.owners["tables"]
    async with running(one := follower(world, bus)):
        await publish(bus, *owner.append(1))
        await one.wait_for("tables", 1)
        (large,) = owner.append(1)
        body = b'{"dataref":"/events?after=1&limit=1","id":"%s","position":"2"}' % large.id.encode()
        tail = await bus.last_position("tables")
        await bus.publish_events("tables", [EventMessage(large.bus_subject, large.id, body, 2)], tail.sequence)
        await publish(bus, *owner.append(1))
        await one.wait_for("tables", 3)
    assert world.applied("tables") == upto(3)


async def test_what_events_caused_stands_between_them_for_a_rebuild(world: World) -> None:
    bus = MemoryBus(MemoryBroker())
    await bus.connect()

    def apply(connection: sa.Connection, envelope: Envelope) -> None:
        world.apply(connection, envelope)
        if envelope.log_position in {2, 3, 6}:
            world.log.append(connection, "own", [RowsRemoved(table="t", rows=[1])], ORIGIN)

    world.owners["tables"].append(7)
    async with running(one := follower(world, bus, apply=apply)):
        await one.wait_for("tables", 7)
    assert world.consumed() == [
        ("tables", 1, 2, 0),
        ("tables", 3, 3, 1),
        ("tables", 4, 6, 2),
        ("tables", 7, 7, 3),
    ]


async def test_the_applied_events_are_counted(world: World) -> None:
    bus = MemoryBus(MemoryBroker())
    await bus.connect()
    metrics = Metrics("executor")
    async with running(one := follower(world, bus, metrics=metrics)):
        await publish(bus, *world.owners["tables"].append(9))
        await one.wait_for("tables", 9)
    labels = {"service": "executor", "source": "tables"}
    await until(lambda: metrics.registry.get_sample_value("stoa_followed_events_total", labels) == 9)


class TestHttpFeed:
    @pytest.fixture
    async def client(self, world: World) -> AsyncIterator[httpx.AsyncClient]:
        app = FastAPI()

        @app.get("/base/events")
        async def events(after: int, limit: int) -> Response:
            found = await world.feed("tables", after, limit)
            return Response(batch([event.to_bytes() for event in found]), media_type=BATCH_MEDIA_TYPE)

        @app.get("/garbage/events")
        async def garbage() -> Response:
            return Response(b"<html>", media_type="text/html")

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            yield client

    async def test_it_reads_what_the_owner_gives(self, world: World, client: httpx.AsyncClient) -> None:
        world.owners["tables"].append(10)
        feed = http_feed({"tables": "http://test/base/"}, client)
        found = await feed("tables", 3, 5)
        assert [event.to_bytes() for event in found] == [
            event.to_bytes() for event in world.owners["tables"].events[3:8]
        ]
        assert await feed("tables", 10, 5) == []

    async def test_a_follower_lives_on_it(self, world: World, client: httpx.AsyncClient) -> None:
        bus = MemoryBus(MemoryBroker())
        await bus.connect()
        world.owners["tables"].append(1001)
        feed = http_feed({"tables": "http://test/base", "scheduler": "http://test/missing"}, client)
        async with running(one := follower(world, bus, feed=feed)):
            await one.wait_for("tables", 1001)
        assert world.applied("tables") == upto(1001)

    @pytest.mark.parametrize(
        ("base", "reason"), [("http://test/missing", "404"), ("http://test/garbage", "cannot be read")]
    )
    async def test_an_owner_that_fails_is_named(self, client: httpx.AsyncClient, base: str, reason: str) -> None:
        with pytest.raises(FeedUnavailableError, match=f"tables at {base}/events .*{reason}"):
            await http_feed({"tables": base}, client)("tables", 0, 10)

    async def test_an_owner_that_is_not_there_is_named(self, unused_tcp_port: int) -> None:
        async with httpx.AsyncClient() as client:
            base = f"http://127.0.0.1:{unused_tcp_port}"
            with pytest.raises(FeedUnavailableError, match=f"{base}/events is not available"):
                await http_feed({"tables": base}, client)("tables", 0, 10)


@pytest.mark.slow
async def test_catching_up_with_ten_thousand_events(world: World, broker: Broker, capsys: Any) -> None:
    bus = await broker.client()
    for _ in range(20):
        await publish(bus, *world.owners["tables"].append(500))
    one = follower(world, bus, batch=500)
    for source in world.owners.values():
        source.feed_works = False
    begin = asyncio.get_running_loop().time()
    async with running(one):
        await one.wait_for("tables", 10_000, timeout=60)
        seconds = asyncio.get_running_loop().time() - begin
    assert world.applied("tables") == upto(10_000)
    with capsys.disabled():
        print(f"\nfollower, {type(bus).__name__}: {10_000 / seconds:,.0f} events/s")  # noqa: T201 - the measurement is the point


def test_each_database_follows_alike(database_url: str) -> None:
    async def scenario() -> None:
        world = World(database_url, "tables")
        bus = MemoryBus(MemoryBroker())
        await bus.connect()
        world.poison = {("tables", 7)}
        async with running(one := follower(world, bus)):
            await publish(bus, *world.owners["tables"].append(10))
            await until(lambda: one.problems)
            world.poison = set()
            await one.wait_for("tables", 10)
        assert world.applied("tables") == upto(10)
        await world.database.aclose()

    asyncio.run(scenario())
