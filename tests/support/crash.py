"""Crashes at a chosen await: a coroutine is stopped where it gives way for the n-th time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

__all__ = ["Crash", "crash_tasks", "crashing"]

#: Coroutines that were killed. Were they collected, Python would run their ``finally`` clauses, which a killed process does not.
_graveyard: list[Any] = []


@dataclass
class Crash:
    """A crash to come.

    Parameters
    ----------
    at
        At which await: 1 is the first.
    abandon
        Whether the coroutine simply never goes on, as in a killed process: no ``finally`` of it runs. Otherwise an
        exception is raised at that await which nobody expects.
    """

    class Happened(BaseException):
        """Raised at the await."""

    at: int
    abandon: bool = False
    awaits: int = 0
    happened: bool = field(default=False, init=False)


class _Crashing:
    def __init__(self, coroutine: Coroutine[Any, Any, Any], crash: Crash) -> None:
        self._coroutine = coroutine
        self._crash = crash

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._coroutine.__await__()
        crash = self._crash
        step: Callable[[], Any] = partial(inner.send, None)
        while True:
            try:
                # What this yields is under way already: the crash comes while the awaited thing goes on.
                waited = step()
            except StopIteration as done:
                return done.value
            crash.awaits += 1
            if crash.awaits >= crash.at:
                crash.happened = True
                if crash.abandon:
                    _graveyard.append(inner)
                    yield from asyncio.Event().wait().__await__()
                # Cleaning up gets no further than to its own first await.
                step = partial(inner.throw, Crash.Happened())
                continue
            try:
                step = partial(inner.send, (yield waited))
            except BaseException as thrown:  # noqa: BLE001 - handed on to the coroutine
                step = partial(inner.throw, thrown)


async def crashing(coroutine: Coroutine[Any, Any, Any], crash: Crash) -> Any:
    """Run a coroutine until it crashes."""
    return await _Crashing(coroutine, crash)


def crash_tasks(crash: Crash) -> Any:
    """Make a task factory under which every new task of the loop counts towards one crash, and all crash together."""

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(crashing(coroutine, crash), loop=loop, **options)

    return factory
