"""Brokers for tests: the one in memory and a real NATS server behind the same few switches."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from stoa_chassis.bus import BusUnavailableError
from stoa_chassis.memory_bus import MemoryBroker, MemoryBus
from stoa_chassis.nats_bus import NatsBus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stoa_chassis.bus import Bus
    from stoa_chassis.nats_server import NatsServer

__all__ = ["Broker", "MemoryTestBroker", "NatsTestBroker", "broker", "made_broker", "reached"]


class Broker(Protocol):
    """What a test may do to a broker."""

    async def client(self, **options: Any) -> Bus:
        """Connect one more process; it is closed after the test."""
        ...

    async def stop(self) -> None:
        """End the broker as a crash would."""
        ...

    async def start(self) -> None:
        """Start it again, with what it kept."""
        ...

    async def wipe(self) -> None:
        """Lose everything, and run again."""
        ...


class MemoryTestBroker:
    def __init__(self) -> None:
        self._broker = MemoryBroker()
        self._clients = AsyncExitStack()

    async def client(self, **options: Any) -> Bus:
        bus = MemoryBus(self._broker, **options)
        self._clients.push_async_callback(bus.aclose)
        await bus.connect()
        return bus

    async def stop(self) -> None:
        self._broker.stop()

    async def start(self) -> None:
        self._broker.start()

    async def wipe(self) -> None:
        self._broker.wipe()

    async def aclose(self) -> None:
        await self._clients.aclose()


class NatsTestBroker:
    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self._clients = AsyncExitStack()

    async def client(self, **options: Any) -> Bus:
        bus = NatsBus(self.server.url, **options)
        self._clients.push_async_callback(bus.aclose)
        await bus.connect()
        # For a moment after a stream was deleted, the server cannot make one of the same name.
        deadline = asyncio.get_running_loop().time() + 5
        while self.server.is_running:
            try:
                await bus.ensure_streams()
                break
            except BusUnavailableError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.05)
        return bus

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def wipe(self) -> None:
        await self.stop()
        shutil.rmtree(self.server.store / "jetstream")
        await self.start()

    async def aclose(self) -> None:
        await self._clients.aclose()


async def reached(bus: Bus, seconds: float = 15.0) -> None:
    """Wait until a bus is connected."""
    async with asyncio.timeout(seconds):
        while not bus.connected:
            await asyncio.sleep(0.01)


@pytest.fixture(params=["memory", "nats"])
def made_broker(request: pytest.FixtureRequest) -> MemoryTestBroker | NatsTestBroker:
    """Make an empty broker, once in memory and once of NATS."""
    if request.param == "memory":
        return MemoryTestBroker()
    request.getfixturevalue("nats_url")
    return NatsTestBroker(request.getfixturevalue("nats_server"))


@pytest.fixture
async def broker(made_broker: MemoryTestBroker | NatsTestBroker) -> AsyncIterator[Broker]:
    """Give an empty broker, and close its clients afterwards."""
    yield made_broker
    await made_broker.aclose()
