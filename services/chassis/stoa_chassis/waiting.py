"""How background loops wait: until an event, for a while, and longer each time something fails."""

from __future__ import annotations

import asyncio
import random

__all__ = ["Backoff", "wait_any"]


class Backoff:
    """Delays that double from failure to failure, with jitter, so that a crowd does not come back in step.

    Parameters
    ----------
    first
        Seconds after the first failure.
    longest
        No delay is longer.
    """

    def __init__(self, first: float = 0.1, longest: float = 5.0) -> None:
        self._first = first
        self._longest = longest
        self.failures = 0

    def next(self) -> float:
        """Count a failure and say how long to wait after it."""
        delay = min(self._longest, self._first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        # Spreading a crowd needs no secrecy.
        return delay * random.uniform(0.5, 1.0)  # noqa: S311

    def reset(self) -> None:
        """Begin with the first delay again, because something succeeded."""
        self.failures = 0


async def wait_any(*events: asyncio.Event, seconds: float | None = None) -> bool:
    """Wait until one of several events is set, or the time is over.

    Parameters
    ----------
    *events
        Of this loop.
    seconds
        How long at most; without it, for ever.

    Returns
    -------
    bool
        Whether an event is set.
    """
    if any(event.is_set() for event in events):
        return True
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return any(event.is_set() for event in events)
