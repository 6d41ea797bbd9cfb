"""The bus on a cluster of three servers, each stream kept by all of them, as in production."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from stoa_chassis.bus import BusUnavailableError, EventMessage, EventSubscription, SupersededError
from stoa_chassis.nats_bus import NatsBus
from stoa_chassis.nats_server import NatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def events(first: int, last: int) -> list[EventMessage]:
    return [
        EventMessage(
            f"stoa.tables.t{position % 5}.row-edited",
            f"e{position}",
            json.dumps({"position": str(position), "id": f"e{position}"}).encode(),
            position,
        )
        for position in range(first, last + 1)
    ]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[NatsServer]]:
    routes = free_ports(3)
    async with AsyncExitStack() as stack:
        servers = []
        for number, route in enumerate(routes):
            settings = {
                "server_name": f"n{number}",
                "cluster": {
                    "name": "stoa",
                    "listen": f"127.0.0.1:{route}",
                    "routes": [f"nats://127.0.0.1:{other}" for other in routes],
                },
            }
            servers.append(NatsServer(tmp_path / f"n{number}", config=settings))
            stack.push_async_callback(asyncio.to_thread, servers[-1].stop)
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
        yield servers


async def _subscribed(bus: NatsBus, after: int) -> EventSubscription:
    while True:
        try:
            return await bus.subscribe_events("reader", "tables", after)
        except BusUnavailableError:
            await asyncio.sleep(0.1)


async def test_guards_batches_and_readers_survive_the_loss_of_a_server(cluster: list[NatsServer]) -> None:
    bus = NatsBus([server.url for server in cluster], replicas=3, request_timeout=2)
    await bus.connect()
    position = refused = 0
    async with asyncio.timeout(60):
        while position < 1200:
            try:
                tail = await bus.last_position("tables")
                position = tail.position
                # Once with a guard that is wrong, once with the right one.
                if tail.sequence:
                    with pytest.raises(SupersededError):
                        await bus.publish_events("tables", events(position + 1, position + 40), tail.sequence - 1)
                    refused += 1
                await bus.publish_events("tables", events(position + 1, position + 40), tail.sequence)
                await bus.publish_events("tables", events(position + 41, position + 41), tail.sequence + 40)
                position += 41
            except (BusUnavailableError, SupersededError):
                await asyncio.sleep(0.1)
            if refused == 10:
                refused += 1
                await asyncio.to_thread(cluster[position % 3].kill)
        found: list[int] = []
        while len(found) < position - 100:
            # The reader's place in the stream may have been kept by the server that was lost: then, as the bus says, the
            # reader subscribes again behind what it has.
            subscription = await _subscribed(bus, found[-1] if found else 100)
            with suppress(BusUnavailableError):
                while len(found) < position - 100:
                    found += [int(json.loads(body)["position"]) for body in await subscription.fetch(500, 1)]
                    await subscription.ack()
            await subscription.aclose()
    await bus.aclose()
    assert found == list(range(101, position + 1))
    assert refused > 11
