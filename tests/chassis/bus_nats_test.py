"""What only the bus over NATS has to show: its streams' settings, refusals, a broker that hangs."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import nats
import nats.errors
import nats.js.errors
import pytest
from nats.js import api

from stoa_chassis.bus import BusForbiddenError, BusUnavailableError, EventMessage, Tail
from stoa_chassis.nats_bus import NatsBus
from stoa_chassis.nats_server import NatsServer
from tests.support.brokers import reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats.js import JetStreamContext

EVENT = EventMessage("stoa.tables.t1.row-edited", "tables-1", b'{"position":"1","id":"tables-1"}', 1)

#: A service that may do everything but publish jobs.
USERS: dict[str, Any] = {
    "authorization": {
        "users": [
            {"user": "admin", "password": "a"},
            {
                "user": "reader",
                "password": "r",
                "permissions": {"publish": {"deny": ["jobs.>", "live.secret"]}, "subscribe": {"deny": ["live.secret"]}},
            },
        ]
    }
}


@pytest.fixture
async def jetstream(nats_url: str) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(nats_url)
    yield client.jetstream()
    await client.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats", config=USERS) as server:
        yield server


@pytest.fixture
async def reader(guarded: NatsServer) -> AsyncIterator[NatsBus]:
    bus = NatsBus(f"nats://reader:r@127.0.0.1:{guarded.port}")
    await bus.connect()
    yield bus
    await bus.aclose()


async def test_the_streams_are_as_the_design_says(nats_url: str, jetstream: JetStreamContext) -> None:
    bus = NatsBus(nats_url)
    await bus.connect()
    await bus.ensure_streams()
    await bus.aclose()
    events = (await jetstream.stream_info("STOA")).config
    assert events.subjects == ["stoa.>"]
    assert events.max_age == 90 * 86400
    assert (events.deny_delete, events.deny_purge, events.allow_direct, events.allow_atomic) == (True, True, True, True)
    assert (events.compression, events.storage, events.num_replicas) == ("s2", "file", 1)
    jobs = (await jetstream.stream_info("JOBS")).config
    assert (jobs.subjects, jobs.retention, jobs.storage) == (["jobs.>"], "workqueue", "file")


async def test_a_stream_that_differs_is_corrected_and_keeps_its_messages(
    nats_url: str, jetstream: JetStreamContext
) -> None:
    await jetstream.add_stream(name="STOA", subjects=["stoa.>"], max_age=60)
    await jetstream.publish("stoa.tables.t1.row-edited", EVENT.body)
    bus = NatsBus(nats_url)
    await bus.connect()
    assert await bus.last_position("tables") == Tail(1, 1, "tables-1")
    await bus.aclose()
    config = (await jetstream.stream_info("STOA")).config
    assert (config.max_age, config.allow_atomic) == (90 * 86400, True)


async def test_events_cannot_be_deleted_or_purged(nats_url: str, jetstream: JetStreamContext) -> None:
    bus = NatsBus(nats_url)
    await bus.connect()
    await bus.publish_events("tables", [EVENT], 0)
    await bus.aclose()
    with pytest.raises(nats.js.errors.APIError):
        await jetstream.delete_msg("STOA", 1)
    with pytest.raises(nats.js.errors.APIError):
        await jetstream.purge_stream("STOA")


async def test_many_subscriptions_leave_no_consumers_behind(nats_url: str, jetstream: JetStreamContext) -> None:
    bus = NatsBus(nats_url)
    await bus.connect()
    for _ in range(5):
        subscription = await bus.subscribe_events("reader", "tables", 0)
        await subscription.fetch(1, 0.01)
        await subscription.aclose()
    await bus.aclose()
    assert await jetstream.consumers_info("STOA") == []


async def test_the_queue_gives_up_no_job(nats_url: str, jetstream: JetStreamContext) -> None:
    bus = NatsBus(nats_url, ack_wait=7)
    await bus.connect()
    await bus.subscribe_jobs("executor")
    await bus.aclose()
    config = (await jetstream.consumer_info("JOBS", "executor")).config
    assert (config.max_deliver, config.ack_wait, config.ack_policy) == (-1, 7, api.AckPolicy.EXPLICIT)


async def test_a_refused_publish_fails_the_bus_and_names_the_subject(reader: NatsBus) -> None:
    await reader.ensure_streams()
    with pytest.raises(BusForbiddenError, match=r"jobs\.t1"):
        await reader.publish_job("jobs.t1", "a", b"a")
    assert "jobs.t1" in str(reader.failure)


async def test_a_refusal_fails_what_waits_meanwhile(reader: NatsBus) -> None:
    subscription = await reader.subscribe_events("reader", "tables", 0)
    waiting = asyncio.create_task(subscription.fetch(1, 60))
    await asyncio.sleep(0.1)
    # Told in passing, so nobody would answer: only the error callback knows.
    await reader.tell("live.secret", b"x")
    with pytest.raises(BusForbiddenError):
        await asyncio.wait_for(waiting, 5)
    assert reader.failure is not None


async def test_a_refused_subscription_fails_the_bus(reader: NatsBus) -> None:
    async with await reader.listen("live.secret"), asyncio.timeout(5):
        while reader.failure is None:
            await asyncio.sleep(0.01)


async def test_the_bus_connects_again_after_a_refusal_and_forgets_it_in_the_end(
    reader: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoa_chassis.nats_bus._FORBIDDEN_S", 0.2)
    with pytest.raises(BusForbiddenError):
        await reader.publish_job("jobs.t1", "a", b"a")
    await reached(reader)
    assert reader.failure is not None
    await reader.publish_events("tables", [EVENT], 0)
    async with asyncio.timeout(5):
        while reader.failure is not None:
            await asyncio.sleep(0.02)


async def test_a_wrong_password_is_told_without_the_password(guarded: NatsServer) -> None:
    bus = NatsBus(f"nats://reader:wrong@127.0.0.1:{guarded.port}", connect_wait=1)
    await bus.connect()
    with pytest.raises(BusForbiddenError, match="Authorization Violation") as error:
        await bus.last_position("tables")
    await bus.aclose()
    assert "wrong" not in str(error.value)


async def test_an_absent_broker_is_named_with_the_reason(unused_tcp_port: int) -> None:
    bus = NatsBus(f"nats://user:secret@127.0.0.1:{unused_tcp_port}", connect_wait=0.3)
    await bus.connect()
    with pytest.raises(
        BusUnavailableError, match=f"nats://127.0.0.1:{unused_tcp_port} cannot be reached: .*Connect call failed"
    ) as error:
        await bus.last_position("tables")
    assert bus.failure is None
    await bus.aclose()
    assert "secret" not in str(error.value)


async def test_a_broker_that_hangs_is_given_up_in_time(nats_server: NatsServer, nats_url: str) -> None:
    bus = NatsBus(nats_url, request_timeout=0.5)
    await bus.connect()
    await bus.ensure_streams()
    pid = nats_server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        for call in (
            lambda: bus.last_position("tables"),
            lambda: bus.publish_events("tables", [EVENT], 0),
            lambda: bus.subscribe_events("reader", "tables", 0),
            lambda: bus.publish_job("jobs.t1", "a", b"a"),
        ):
            with pytest.raises(BusUnavailableError, match="in time"):
                await asyncio.wait_for(call(), 3)
    finally:
        os.kill(pid, signal.SIGCONT)
    # What the call gave up may have arrived all the same.
    assert (await bus.last_position("tables")).position in {0, 1}
    await bus.aclose()


async def test_closing_does_not_wait_for_a_broker_that_is_not_there(unused_tcp_port: int) -> None:
    bus = NatsBus(f"nats://127.0.0.1:{unused_tcp_port}", connect_wait=0.1)
    await bus.connect()
    await asyncio.wait_for(bus.aclose(), 3)
