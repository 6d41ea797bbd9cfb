"""The contract of the bus, the same for every implementation."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from stoa_chassis.bus import (
    MAX_BATCH,
    BusUnavailableError,
    EventMessage,
    JobMessage,
    Message,
    MessageTooLargeError,
    SupersededError,
    Tail,
)
from tests.support.brokers import reached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stoa_chassis.bus import EventSubscription, JobSubscription
    from tests.support.brokers import Broker


def event(position: int, service: str = "tables", padding: int = 0) -> EventMessage:
    body = {"position": str(position), "id": f"{service}-{position}", "data": {"n": position, "padding": "x" * padding}}
    return EventMessage(
        f"stoa.{service}.t{position % 5}.row-edited", f"{service}-{position}", json.dumps(body).encode(), position
    )


def events(first: int, last: int, service: str = "tables") -> list[EventMessage]:
    return [event(position, service) for position in range(first, last + 1)]


def positions(bodies: list[bytes]) -> list[int]:
    return [int(json.loads(body)["position"]) for body in bodies]


async def fetch_all(subscription: EventSubscription, count: int, seconds: float = 10.0) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            found += positions(await subscription.fetch(500, 1))
            await subscription.ack()
    return found


async def fetch_jobs(subscription: JobSubscription, count: int, seconds: float = 10.0) -> list[JobMessage]:
    found: list[JobMessage] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            found += await subscription.fetch(count - len(found), 1)
    return found


async def eventually(call: Callable[[], Awaitable[object]], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                await call()
            except BusUnavailableError:
                await asyncio.sleep(0.02)
            else:
                return


class TestEvents:
    async def test_an_empty_stream_ends_at_zero(self, broker: Broker) -> None:
        bus = await broker.client()
        assert await bus.last_position("tables") == Tail(0, 0, None)

    async def test_what_was_published_is_read_in_order(self, broker: Broker) -> None:
        bus = await broker.client()
        sequence = await bus.publish_events("tables", [event(1)], 0)
        sequence = await bus.publish_events("tables", events(2, 40), sequence)
        sequence = await bus.publish_events("tables", [event(41)], sequence)
        assert await bus.last_position("tables") == Tail(41, sequence, "tables-41")
        subscription = await bus.subscribe_events("reader", "tables", 0)
        assert await fetch_all(subscription, 41) == list(range(1, 42))

    async def test_the_bytes_stay_as_they_are(self, broker: Broker) -> None:
        bus = await broker.client()
        body = '{"position":"1","id":"tables-1","data":{"name":"ζ Pup","z":1e-7}}'.encode()
        await bus.publish_events("tables", [EventMessage("stoa.tables.t1.x", "tables-1", body, 1)], 0)
        subscription = await bus.subscribe_events("reader", "tables", 0)
        assert await subscription.fetch(10, 5) == [body]

    @pytest.mark.parametrize("count", [1, 2, 5])
    @pytest.mark.parametrize("wrong", [0, 2, 99])
    async def test_a_wrong_guard_appends_nothing(self, broker: Broker, count: int, wrong: int) -> None:
        bus = await broker.client()
        last = await bus.publish_events("tables", events(1, 3), 0)
        with pytest.raises(SupersededError):
            await bus.publish_events("tables", events(4, 3 + count), wrong)
        assert await bus.last_position("tables") == Tail(3, last, "tables-3")

    async def test_the_guard_of_a_service_does_not_see_the_others(self, broker: Broker) -> None:
        bus = await broker.client()
        tables = await bus.publish_events("tables", events(1, 3), 0)
        executor = await bus.publish_events("executor", events(1, 2, "executor"), 0)
        tables = await bus.publish_events("tables", events(4, 5), tables)
        assert await bus.last_position("tables") == Tail(5, tables, "tables-5")
        assert await bus.last_position("executor") == Tail(2, executor, "executor-2")

    async def test_an_event_published_again_is_superseded(self, broker: Broker) -> None:
        bus = await broker.client()
        await bus.publish_events("tables", [event(1)], 0)
        with pytest.raises(SupersededError):
            await bus.publish_events("tables", [event(1)], 0)

    async def test_the_largest_batch(self, broker: Broker) -> None:
        bus = await broker.client()
        last = await bus.publish_events("tables", events(1, MAX_BATCH), 0)
        assert (await bus.last_position("tables")) == Tail(MAX_BATCH, last, f"tables-{MAX_BATCH}")

    async def test_the_largest_event(self, broker: Broker) -> None:
        bus = await broker.client()
        room = bus.max_message_bytes - len(event(1).body)
        await bus.publish_events("tables", [event(1, padding=room)], 0)
        with pytest.raises(MessageTooLargeError, match="larger than"):
            await bus.publish_events("tables", [event(2, padding=room + 1)], 1)
        subscription = await bus.subscribe_events("reader", "tables", 0)
        assert len((await subscription.fetch(10, 5))[0]) == bus.max_message_bytes

    @pytest.mark.parametrize(
        "batch",
        [[], events(1, MAX_BATCH + 1), [event(1), event(3)], events(1, 2, "executor"), [event(1, padding=600_000)] * 2],
        ids=["empty", "too many", "a gap", "another service's", "too large"],
    )
    async def test_what_is_no_batch_is_refused(self, broker: Broker, batch: list[EventMessage]) -> None:
        bus = await broker.client()
        with pytest.raises(ValueError):
            await bus.publish_events("tables", batch, 0)
        assert await bus.last_position("tables") == Tail(0, 0, None)

    async def test_of_two_publishers_one_wins(self, broker: Broker) -> None:
        one, two = await broker.client(), await broker.client()
        answers = await asyncio.gather(
            one.publish_events("tables", events(1, 3), 0),
            two.publish_events("tables", events(1, 3), 0),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers].count(SupersededError) == 1
        subscription = await one.subscribe_events("reader", "tables", 0)
        assert await fetch_all(subscription, 3) == [1, 2, 3]


class TestEventSubscription:
    @pytest.mark.parametrize("after", [0, 1, 7, 29, 30, 59, 60, 99])
    async def test_it_begins_behind_a_position(self, broker: Broker, after: int) -> None:
        bus = await broker.client()
        tables = executor = 0
        for first in range(1, 61, 10):
            tables = await bus.publish_events("tables", events(first, first + 9), tables)
            executor = await bus.publish_events("executor", events(first, first + 9, "executor"), executor)
        subscription = await bus.subscribe_events("reader", "tables", after)
        await bus.publish_events("tables", events(61, 62), tables)
        expected = list(range(min(after, 60) + 1, 63))
        assert await fetch_all(subscription, len(expected)) == expected

    async def test_what_is_not_acknowledged_comes_again(self, broker: Broker) -> None:
        bus = await broker.client(ack_wait=0.5)
        subscription = await bus.subscribe_events("reader", "tables", 0)
        last = await bus.publish_events("tables", events(1, 4), 0)
        assert positions(await subscription.fetch(2, 5)) == [1, 2]
        await subscription.ack()
        assert positions(await subscription.fetch(2, 5)) == [3, 4]
        assert positions(await subscription.fetch(2, 5)) == [3, 4]
        await subscription.ack()
        await bus.publish_events("tables", [event(5)], last)
        assert positions(await subscription.fetch(9, 5)) == [5]

    async def test_every_subscriber_gets_every_event(self, broker: Broker) -> None:
        one, two = await broker.client(), await broker.client()
        await one.publish_events("tables", events(1, 20), 0)
        for bus in (one, two):
            assert await fetch_all(await bus.subscribe_events("reader", "tables", 0), 20) == list(range(1, 21))

    async def test_an_event_arrives_at_once(self, broker: Broker) -> None:
        bus = await broker.client()
        subscription = await bus.subscribe_events("reader", "tables", 0)
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(subscription.fetch(500, 10))
        await asyncio.sleep(0.1)
        begin = loop.time()
        await bus.publish_events("tables", [event(1)], 0)
        assert positions(await waiting) == [1]
        assert loop.time() - begin < 2

    async def test_a_fetch_without_events_ends_empty(self, broker: Broker) -> None:
        bus = await broker.client()
        subscription = await bus.subscribe_events("reader", "tables", 0)
        begin = asyncio.get_running_loop().time()
        assert await subscription.fetch(10, 0.2) == []
        assert 0.1 < asyncio.get_running_loop().time() - begin < 2

    async def test_it_is_lost_with_the_broker_and_begun_again(self, broker: Broker) -> None:
        bus = await broker.client()
        last = await bus.publish_events("tables", events(1, 3), 0)
        subscription = await bus.subscribe_events("reader", "tables", 0)
        assert await fetch_all(subscription, 3) == [1, 2, 3]
        await broker.stop()
        await broker.start()
        await reached(bus)
        with pytest.raises(BusUnavailableError):
            await subscription.fetch(10, 1)
        await subscription.aclose()
        await eventually(lambda: bus.publish_events("tables", [event(4)], last))
        again = await bus.subscribe_events("reader", "tables", 3)
        assert await fetch_all(again, 1) == [4]

    async def test_it_is_lost_when_the_streams_are_wiped(self, broker: Broker) -> None:
        bus = await broker.client()
        await bus.publish_events("tables", events(1, 3), 0)
        subscription = await bus.subscribe_events("reader", "tables", 0)
        await fetch_all(subscription, 3)
        await broker.wipe()
        await reached(bus)
        with pytest.raises(BusUnavailableError):
            await subscription.fetch(10, 1)
        assert await bus.last_position("tables") == Tail(0, 0, None)
        await bus.publish_events("tables", events(1, 5), 0)
        again = await bus.subscribe_events("reader", "tables", 3)
        assert await fetch_all(again, 2) == [4, 5]


class TestJobs:
    async def test_a_job_goes_to_one_of_the_subscribers(self, broker: Broker) -> None:
        one, two = await broker.client(), await broker.client()
        for number in range(20):
            await one.publish_job(f"jobs.t{number % 3}", f"job-{number}", b"%d" % number)
        shares = [await one.subscribe_jobs("executor"), await two.subscribe_jobs("executor")]
        found = await fetch_jobs(shares[0], 10) + await fetch_jobs(shares[1], 10)
        assert sorted(int(job.body) for job in found) == list(range(20))
        assert {job.deliveries for job in found} == {1}
        assert found[0].subject == f"jobs.t{int(found[0].body) % 3}"

    async def test_an_acknowledged_job_never_comes_again(self, broker: Broker) -> None:
        bus = await broker.client(ack_wait=0.3)
        await bus.publish_job("jobs.t1", "a", b"a")
        subscription = await bus.subscribe_jobs("executor")
        (job,) = await fetch_jobs(subscription, 1)
        await job.ack()
        assert await subscription.fetch(1, 1) == []

    async def test_a_job_of_the_same_id_is_taken_once(self, broker: Broker) -> None:
        bus = await broker.client()
        for _ in range(3):
            await bus.publish_job("jobs.t1", "a", b"a")
        subscription = await bus.subscribe_jobs("executor")
        (job,) = await fetch_jobs(subscription, 1)
        assert await subscription.fetch(5, 0.3) == []
        await job.ack()

    async def test_a_silent_worker_loses_its_job(self, broker: Broker) -> None:
        bus = await broker.client(ack_wait=0.3)
        await bus.publish_job("jobs.t1", "a", b"a")
        subscription = await bus.subscribe_jobs("executor")
        assert (await fetch_jobs(subscription, 1))[0].deliveries == 1
        (again,) = await fetch_jobs(subscription, 1)
        assert again.deliveries == 2
        await again.ack()

    async def test_a_sign_of_life_keeps_the_job(self, broker: Broker) -> None:
        bus = await broker.client(ack_wait=0.6)
        await bus.publish_job("jobs.t1", "a", b"a")
        subscription = await bus.subscribe_jobs("executor")
        (job,) = await fetch_jobs(subscription, 1)
        for _ in range(6):
            assert await subscription.fetch(1, 0.25) == []
            await job.in_progress()
        await job.ack()

    async def test_a_job_is_put_back_with_a_delay(self, broker: Broker) -> None:
        bus = await broker.client()
        await bus.publish_job("jobs.t1", "a", b"a")
        subscription = await bus.subscribe_jobs("executor")
        (job,) = await fetch_jobs(subscription, 1)
        begin = asyncio.get_running_loop().time()
        await job.retry(0.5)
        (again,) = await fetch_jobs(subscription, 1)
        assert asyncio.get_running_loop().time() - begin > 0.4
        assert again.deliveries == 2
        await again.retry()
        begin = asyncio.get_running_loop().time()
        (third,) = await fetch_jobs(subscription, 1)
        assert asyncio.get_running_loop().time() - begin < 2
        assert third.deliveries == 3
        await third.ack()

    async def test_a_rejected_job_never_comes_again(self, broker: Broker) -> None:
        bus = await broker.client(ack_wait=0.3)
        await bus.publish_job("jobs.t1", "a", b"a")
        subscription = await bus.subscribe_jobs("executor")
        await (await fetch_jobs(subscription, 1))[0].reject()
        assert await subscription.fetch(1, 1) == []

    async def test_the_queue_survives_the_broker(self, broker: Broker) -> None:
        bus = await broker.client(ack_wait=1.0)
        for name in ("a", "b"):
            await bus.publish_job("jobs.t1", name, name.encode())
        subscription = await bus.subscribe_jobs("executor")
        (held,) = await fetch_jobs(subscription, 1)
        await broker.stop()
        with pytest.raises(BusUnavailableError):
            await held.ack()
        await broker.start()
        await reached(bus)
        await eventually(held.ack)
        found: list[JobMessage] = []

        async def fetch() -> None:
            found.extend(await subscription.fetch(5, 2))

        await eventually(fetch)
        assert [job.body for job in found] == [b"b"]
        await found[0].ack()

    async def test_a_subscription_heals_when_the_queue_was_wiped(self, broker: Broker) -> None:
        bus = await broker.client()
        subscription = await bus.subscribe_jobs("executor")
        await broker.wipe()
        await reached(bus)
        await eventually(lambda: bus.publish_job("jobs.t1", "a", b"a"))
        found: list[JobMessage] = []

        async def fetch() -> None:
            found.extend(await subscription.fetch(5, 2))

        await eventually(fetch)
        assert [job.body for job in found] == [b"a"]

    async def test_a_job_that_is_too_large_is_refused(self, broker: Broker) -> None:
        bus = await broker.client()
        with pytest.raises(MessageTooLargeError, match=r"jobs\.t1"):
            await bus.publish_job("jobs.t1", "a", b"x" * (bus.max_message_bytes + 1))


class TestTelling:
    async def test_who_listens_hears(self, broker: Broker) -> None:
        one, two = await broker.client(), await broker.client()
        async with await one.listen("live.*.log") as first, await two.listen("live.>") as second:
            await two.tell("live.a.log", b"1")
            await two.tell("live.a.b.log", b"2")
            await two.tell("live.b.log", b"3")
            assert [await anext(first), await anext(first)] == [
                Message("live.a.log", b"1"),
                Message("live.b.log", b"3"),
            ]
            assert [(await anext(second)).body for _ in range(3)] == [b"1", b"2", b"3"]

    async def test_nobody_listening_is_no_error(self, broker: Broker) -> None:
        bus = await broker.client()
        await bus.tell("live.a.log", b"1")

    async def test_a_slow_listener_misses_the_oldest(self, broker: Broker) -> None:
        one, two = await broker.client(), await broker.client()
        async with await one.listen("live.>", limit=3) as listener, await one.listen("live.>") as fast:
            for number in range(10):
                await two.tell("live.a", b"%d" % number)
            while (await anext(fast)).body != b"9":
                pass
            assert [(await anext(listener)).body for _ in range(3)] == [b"7", b"8", b"9"]
            assert listener.dropped == 7

    async def test_a_closed_listener_ends(self, broker: Broker) -> None:
        bus = await broker.client()
        listener = await bus.listen("live.>")

        async def count() -> int:
            return sum([1 async for _ in listener])

        waiting = asyncio.create_task(count())
        await asyncio.sleep(0.05)
        await listener.aclose()
        assert await asyncio.wait_for(waiting, 5) == 0
        await bus.tell("live.a", b"nobody")

    async def test_a_listener_hears_again_after_the_broker_came_back(self, broker: Broker) -> None:
        one, two = await broker.client(), await broker.client()
        async with await one.listen("live.>") as listener:
            await broker.stop()
            with pytest.raises(BusUnavailableError):
                await two.tell("live.a", b"lost")
            await broker.start()
            await reached(one)
            await reached(two)
            await two.tell("live.a", b"heard")
            assert (await asyncio.wait_for(anext(listener), 10)).body == b"heard"


class TestFailure:
    async def test_every_call_fails_at_once_while_the_topic_is_broken(self, broker: Broker) -> None:
        bus = await broker.client()
        last = await bus.publish_events("tables", events(1, 2), 0)
        await bus.publish_job("jobs.t1", "a", b"a")
        subscription = await bus.subscribe_events("reader", "tables", 0)
        jobs = await bus.subscribe_jobs("executor")
        (job,) = await fetch_jobs(jobs, 1)
        with bus.break_topic():
            assert not bus.connected
            for call in (
                lambda: bus.last_position("tables"),
                lambda: bus.publish_events("tables", [event(3)], last),
                lambda: bus.publish_events("tables", events(3, 5), last),
                lambda: bus.subscribe_events("reader", "tables", 0),
                lambda: bus.publish_job("jobs.t1", "b", b"b"),
                lambda: bus.subscribe_jobs("executor"),
                lambda: bus.tell("live.a", b"x"),
                lambda: subscription.fetch(1, 5),
                lambda: jobs.fetch(1, 5),
                job.ack,
                job.in_progress,
                job.retry,
                job.reject,
                bus.ensure_streams,
            ):
                begin = asyncio.get_running_loop().time()
                with pytest.raises(BusUnavailableError):
                    await call()
                assert asyncio.get_running_loop().time() - begin < 1
        await reached(bus)
        assert (await bus.last_position("tables")).position == 2
        await job.ack()

    async def test_waiting_calls_fail_when_the_topic_breaks(self, broker: Broker) -> None:
        bus = await broker.client()
        subscription = await bus.subscribe_events("reader", "tables", 0)
        jobs = await bus.subscribe_jobs("executor")
        waiting = [asyncio.create_task(subscription.fetch(1, 60)), asyncio.create_task(jobs.fetch(1, 60))]
        await asyncio.sleep(0.2)
        with bus.break_topic():
            answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
        assert [type(answer) for answer in answers] == [BusUnavailableError] * 2

    async def test_a_broken_topic_breaks_for_one_client_only(self, broker: Broker) -> None:
        one, two = await broker.client(), await broker.client()
        with one.break_topic():
            assert (await two.last_position("tables")).position == 0

    async def test_a_bus_that_starts_without_its_broker_gets_ready_when_it_comes(self, broker: Broker) -> None:
        await broker.stop()
        bus = await broker.client()
        assert not bus.connected
        with pytest.raises(BusUnavailableError):
            await bus.last_position("tables")
        async with await bus.listen("live.>") as listener:
            await broker.start()
            await reached(bus)
            assert await bus.publish_events("tables", events(1, 3), 0) > 0
            await bus.tell("live.a", b"x")
            assert (await asyncio.wait_for(anext(listener), 5)).body == b"x"

    async def test_a_closed_bus_says_so(self, broker: Broker) -> None:
        bus = await broker.client()
        await bus.aclose()
        with pytest.raises(BusUnavailableError):
            await bus.last_position("tables")
        assert not bus.connected
