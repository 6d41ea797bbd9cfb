"""The relay copies a log to the bus: each event once, in order, whatever happens to either end."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoa_chassis.bus import BusUnavailableError, EventMessage
from stoa_chassis.database import Database
from stoa_chassis.log import Log
from stoa_chassis.memory_bus import MemoryBroker, MemoryBus
from stoa_chassis.metrics import Metrics
from stoa_chassis.relay import Relay
from stoa_contracts.events.tables import RowsRemoved
from tests.chassis.observatory import ORIGIN, create
from tests.support.brokers import reached
from tests.support.crash import Crash, crashing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from stoa_chassis.bus import Bus
    from tests.support.brokers import Broker

LOG = Log("tables")


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    made, _ = create(sqlite_url)
    yield made
    made.engine.dispose()


async def append(database: Database, count: int, rows: int = 1) -> None:
    table = f"t{count % 3}"
    facts = [RowsRemoved(table=table, rows=list(range(1, rows + 1)))] * count
    await database.write(lambda connection: LOG.append(connection, table, facts, ORIGIN))


async def on_bus(bus: Bus) -> list[dict[str, Any]]:
    """Read everything that the bus has."""
    last = (await bus.last_position("tables")).position
    subscription = await bus.subscribe_events("test", "tables", 0)
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while not found or int(found[-1]["position"]) < last:
            found += map(json.loads, await subscription.fetch(500, 0.5))
            await subscription.ack()
    await subscription.aclose()
    return found


async def relayed(bus: Bus, position: int, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while True:
            with suppress(BusUnavailableError):
                if (await bus.last_position("tables")).position >= position:
                    return
            await asyncio.sleep(0.02)


async def until(condition: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*relays: Relay) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(relay.run(stop)) for relay in relays]
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)


def positions(events: Sequence[dict[str, Any]]) -> list[int]:
    return [int(event["position"]) for event in events]


async def test_the_bus_holds_the_bytes_of_the_log(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    await append(database, 3)
    async with running(Relay(log=LOG, database=database, bus=bus)):
        await relayed(bus, 3)
    subscription = await bus.subscribe_events("test", "tables", 0)
    with database.reading() as connection:
        assert await subscription.fetch(10, 5) == [envelope.to_bytes() for envelope in LOG.read(connection)]


async def test_an_append_wakes_the_relay(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    async with running(Relay(log=LOG, database=database, bus=bus, poll=60)):
        await asyncio.sleep(0.2)
        for count in range(1, 6):
            await append(database, 1)
            await relayed(bus, count, seconds=3)


async def test_another_process_appends_and_the_relay_notices(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    other = Database(database.url)
    async with running(Relay(log=LOG, database=database, bus=bus, poll=0.2)):
        await asyncio.sleep(0.1)
        await append(other, 4)
        await relayed(bus, 4)
    await other.aclose()


async def test_catching_up_goes_in_batches(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    sizes: list[int] = []
    publish = bus.publish_events

    async def count(service: str, messages: Sequence[EventMessage], last_sequence: int) -> int:
        sizes.append(len(messages))
        return await publish(service, messages, last_sequence)

    bus.publish_events = count  # type: ignore[method-assign]
    await append(database, 1234)
    async with running(Relay(log=LOG, database=database, bus=bus, batch=500)):
        await relayed(bus, 1234)
    assert sizes == [500, 500, 234]
    assert positions(await on_bus(bus)) == list(range(1, 1235))


async def test_a_batch_keeps_below_the_size_that_the_bus_takes(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    for _ in range(5):
        await append(database, 1, rows=60_000)
    async with running(Relay(log=LOG, database=database, bus=bus)):
        await relayed(bus, 5)
    assert positions(await on_bus(bus)) == [1, 2, 3, 4, 5]


async def test_an_event_too_large_for_the_bus_goes_by_reference(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    await append(database, 1)
    await append(database, 1, rows=200_000)
    await append(database, 1)
    async with running(Relay(log=LOG, database=database, bus=bus)):
        await relayed(bus, 3)
    first, second, third = await on_bus(bus)
    assert "dataref" not in first
    assert "dataref" not in third
    assert "data" not in second
    assert second["dataref"] == "/events?after=1&limit=1"
    assert second["type"] == "stoa.tables.rows-removed"


async def test_two_relays_race_and_the_stream_has_each_event_once(database: Database, broker: Broker) -> None:
    one, two = await broker.client(), await broker.client()
    async with running(
        Relay(log=LOG, database=database, bus=one, batch=7), Relay(log=LOG, database=database, bus=two, batch=5)
    ):
        for _ in range(100):
            await append(database, 3)
        await relayed(one, 300)
    assert positions(await on_bus(one)) == list(range(1, 301))


async def test_what_was_wiped_is_sent_again(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    await append(database, 20)
    async with running(Relay(log=LOG, database=database, bus=bus, poll=0.2)):
        await relayed(bus, 20)
        await broker.wipe()
        await reached(bus)
        await relayed(bus, 20)
        await append(database, 2)
        await relayed(bus, 22)
    assert positions(await on_bus(bus)) == list(range(1, 23))


async def test_the_broker_is_killed_and_restarted_during_traffic(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    relay = Relay(log=LOG, database=database, bus=bus, poll=0.2)
    async with running(relay):
        for number in range(60):
            await append(database, 5)
            if number in {10, 30}:
                await broker.stop()
                await append(database, 5)
                await until(lambda: relay.problem is not None)
            if number in {20, 40}:
                await broker.start()
        await relayed(bus, 310)
        await until(lambda: relay.problem is None)
    assert positions(await on_bus(bus)) == list(range(1, 311))


async def test_commands_are_taken_while_the_bus_is_gone(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    with bus.break_topic():
        async with running(Relay(log=LOG, database=database, bus=bus)):
            await append(database, 10)
            with database.reading() as connection:
                assert LOG.head(connection) == 10


async def test_a_log_that_is_not_the_one_on_the_bus_is_not_sent(
    database: Database, broker: Broker, tmp_path: Path
) -> None:
    bus = await broker.client()
    await append(database, 3)
    async with running(Relay(log=LOG, database=database, bus=bus)):
        await relayed(bus, 3)
    replaced, _ = create(f"sqlite:///{tmp_path / 'replaced.db'}")
    await append(replaced, 5)
    relay = Relay(log=LOG, database=replaced, bus=bus, poll=0.1)
    async with running(relay):
        await until(lambda: relay.problem is not None)
        await asyncio.sleep(0.3)
        assert relay.problem is not None
        assert "event 3" in relay.problem
    await replaced.aclose()
    assert (await bus.last_position("tables")).position == 3


async def test_it_stops_at_once_while_the_bus_is_gone(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    with bus.break_topic():
        async with running(Relay(log=LOG, database=database, bus=bus, poll=60)):
            await asyncio.sleep(0.5)
            begin = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begin < 1


async def test_it_says_how_far_it_got(database: Database, broker: Broker) -> None:
    bus = await broker.client()
    metrics = Metrics("tables")
    await append(database, 12)
    relay = Relay(log=LOG, database=database, bus=bus, metrics=metrics)
    async with running(relay):
        await until(lambda: relay.position == 12)
    assert metrics.registry.get_sample_value("stoa_relay_position", {"service": "tables"}) == 12
    assert metrics.registry.get_sample_value("stoa_relayed_events_total", {"service": "tables"}) == 12


@pytest.mark.parametrize("abandoned", [False, True], ids=["raised", "killed"])
async def test_a_crash_at_any_await_loses_and_doubles_nothing(database: Database, abandoned: bool) -> None:
    """Crash at the first await, start again and crash at the second, and so on, until a run ends without a crash."""
    bus = MemoryBus(MemoryBroker())
    await bus.connect()
    total = crashes = 0
    async with AsyncExitStack() as abandoned_tasks:
        while True:
            await append(database, 3)
            total += 3
            stop = asyncio.Event()
            crash = Crash(crashes + 1, abandon=abandoned)
            relay = asyncio.create_task(crashing(Relay(log=LOG, database=database, bus=bus, batch=2).run(stop), crash))
            abandoned_tasks.callback(relay.cancel)
            async with asyncio.timeout(10):
                while not crash.happened and (await bus.last_position("tables")).position < total:
                    await asyncio.sleep(0)
            stop.set()
            if not crash.happened:
                # It got to the end and waits: one more append must not find a relay that only seems to live.
                await asyncio.wait_for(relay, 5)
                break
            crashes += 1
            if not abandoned:
                with pytest.raises(Crash.Happened):
                    await relay
        assert crashes > 10
        assert positions(await on_bus(bus)) == list(range(1, total + 1))


@settings(max_examples=20)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 30)),
            st.tuples(st.just("wipe"), st.just(0)),
            st.tuples(st.just("stop"), st.just(0)),
            st.tuples(st.just("start"), st.just(0)),
            st.tuples(st.just("pause"), st.integers(0, 20)),
        ),
        max_size=25,
    )
)
def test_whatever_happens_the_stream_is_the_log(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def scenario() -> None:
        database, _ = create(f"sqlite:///{tmp_path_factory.mktemp('relay') / 'log.db'}")
        broker = MemoryBroker()
        buses = [MemoryBus(broker), MemoryBus(broker)]
        for bus in buses:
            await bus.connect()
        total = 0
        async with running(*(Relay(log=LOG, database=database, bus=bus, batch=4, poll=0.01) for bus in buses)):
            for step, size in steps:
                match step:
                    case "append":
                        await append(database, size)
                        total += size
                    case "wipe":
                        broker.wipe()
                    case "stop":
                        broker.stop()
                    case "start":
                        broker.start()
                    case _:
                        await asyncio.sleep(size / 1000)
            broker.start()
            await relayed(buses[0], total)
        if total:
            assert positions(await on_bus(buses[0])) == list(range(1, total + 1))
        await database.aclose()

    asyncio.run(scenario())


@pytest.mark.slow
async def test_catching_up_with_ten_thousand_events(database: Database, broker: Broker, capsys: Any) -> None:
    bus = await broker.client()
    for _ in range(10):
        await append(database, 1000)
    begin = asyncio.get_running_loop().time()
    async with running(Relay(log=LOG, database=database, bus=bus)):
        await relayed(bus, 10_000)
    seconds = asyncio.get_running_loop().time() - begin
    with capsys.disabled():
        print(f"\nrelay, {type(bus).__name__}: {10_000 / seconds:,.0f} events/s")  # noqa: T201 - the measurement is the point
    assert seconds < 30
