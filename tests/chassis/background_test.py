"""Loops stop by an event, and a failing one is started again."""

from __future__ import annotations

import asyncio

import pytest

from stoa_chassis import background as background_module
from stoa_chassis.background import Background, pause


async def test_a_loop_ends_by_the_event_and_not_in_the_middle() -> None:
    steps: list[str] = []

    async def loop(stop: asyncio.Event) -> None:
        while not stop.is_set():
            steps.append("commit")
            await asyncio.sleep(0.01)
            steps.append("acknowledge")

    background = Background()
    background.start("loop", loop)
    await asyncio.sleep(0.035)
    await background.aclose()
    assert steps
    assert steps[-1] == "acknowledge"


async def test_a_failing_loop_is_reported_and_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, "_RESTART_AFTER", 0.02)
    runs: list[int] = []
    healthy = asyncio.Event()

    async def loop(stop: asyncio.Event) -> None:
        runs.append(1)
        if len(runs) < 3:
            raise OSError("the disk is full")
        healthy.set()
        await stop.wait()

    background = Background()
    background.start("loop", loop)
    await asyncio.sleep(0.01)
    assert background.failures == {"loop": "the disk is full"}
    await asyncio.wait_for(healthy.wait(), 5)
    assert background.failures == {}
    await background.aclose()
    assert len(runs) == 3


async def test_a_pause_ends_early_when_told_to_stop() -> None:
    stop = asyncio.Event()
    assert not await pause(stop, 0.001)
    asyncio.get_running_loop().call_later(0.01, stop.set)
    assert await asyncio.wait_for(pause(stop, 60), 5)
