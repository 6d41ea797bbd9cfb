"""The loops that run beside the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

__all__ = ["Background", "pause"]

#: Runs until the event is set, then ends by itself.
Loop = Callable[[asyncio.Event], Awaitable[None]]

_RESTART_AFTER = 1.0


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for some seconds, or less if the stop event is set.

    Returns
    -------
    bool
        Whether to stop.
    """
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True


class Background:
    """All background loops of a process.

    Loops end by an event, never by cancellation: a cancelled loop could stop between a commit and its acknowledgement,
    or leave a half-read message behind. A loop that fails is reported and started again.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, str] = {}

    def start(self, name: str, loop: Loop) -> None:
        """Start a loop under a name."""
        self._tasks[name] = asyncio.create_task(self._keep(name, loop), name=name)

    @property
    def failures(self) -> dict[str, str]:
        """Loops that failed and have not run well since, with the reason."""
        return dict(self._failures)

    async def _keep(self, name: str, loop: Loop) -> None:
        logger = structlog.get_logger(__name__)
        while not self.stop.is_set():
            try:
                await loop(self.stop)
                self._failures.pop(name, None)
                if not self.stop.is_set():
                    logger.error("a background loop ended before it was told to", loop=name)
            except Exception as error:
                self._failures[name] = str(error) or type(error).__name__
                logger.exception("a background loop failed and is started again", loop=name)
            if await pause(self.stop, _RESTART_AFTER):
                return
            self._failures.pop(name, None)

    async def aclose(self) -> None:
        """Tell every loop to stop, and wait until each has."""
        self.stop.set()
        await asyncio.gather(*self._tasks.values())
