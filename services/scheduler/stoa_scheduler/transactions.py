"""What every command of the scheduler has in common: one transaction, carried out once, after what it is to follow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel
from structlog.stdlib import BoundLogger

from stoa_chassis.background import pause
from stoa_chassis.database import Database
from stoa_chassis.idempotency import once
from stoa_chassis.log import Origin, read_checkpoint
from stoa_chassis.projection import EventStore
from stoa_scheduler.models import idempotency
from stoa_scheduler.problems import BehindError
from stoa_scheduler.settings import SchedulerSettings

__all__ = ["AnswerT", "Committed", "Transactions"]

_ANOTHER_LOOK = 0.5

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class Committed(NamedTuple, Generic[AnswerT]):
    """An answer, and the head of our log after what it tells of."""

    answer: AnswerT
    position: int


class Transactions:
    """Carries out commands on behalf of one person.

    Parameters
    ----------
    database, events, settings
        Of the process.
    origin
        Who asks.
    logger
        Bound to the request.
    clock
        Gives the present time.
    """

    def __init__(
        self,
        *,
        database: Database,
        events: EventStore,
        settings: SchedulerSettings,
        origin: Origin,
        logger: BoundLogger,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._events = events
        self._settings = settings
        self._origin = origin
        self._logger = logger
        self._clock = clock

    async def _write(
        self,
        answer: type[AnswerT],
        request: BaseModel,
        key: str | None,
        command: Callable[[sa.Connection], AnswerT],
    ) -> Committed[AnswerT]:
        asked = {"kind": type(request).__name__, **request.model_dump(mode="json")}

        def work(connection: sa.Connection) -> Committed[AnswerT]:
            content = once(
                connection,
                idempotency,
                key,
                self._origin.actor,
                asked,
                lambda: command(connection).model_dump(mode="json"),
            )
            return Committed(answer.model_validate(content), self._events.log.head(connection))

        return await self._database.write(work)

    async def _wait_for(self, position: int | None) -> None:
        """Wait until the events of the tables service were applied up to a position."""
        if position is None:
            return
        name = self._events.projection.name

        def applied(connection: sa.Connection) -> int:
            return read_checkpoint(connection, name, "tables")

        committed = asyncio.Event()
        self._database.on_commit(committed)
        try:
            async with asyncio.timeout(self._settings.after_timeout):
                while True:
                    committed.clear()
                    if await self._database.read(applied) >= position:
                        return
                    # Another replica may be the one that follows.
                    await pause(committed, _ANOTHER_LOOK)
        except TimeoutError:
            msg = (
                f"The scheduler has not heard of position {position} of the tables service within"
                f" {self._settings.after_timeout:g} s; nothing was changed. Try again"
            )
            raise BehindError(msg, headers={"Retry-After": "2"}) from None
        finally:
            self._database.forget(committed)
