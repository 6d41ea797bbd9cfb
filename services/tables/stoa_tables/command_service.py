"""What every service that carries out commands shares: one transaction for each command, once for each request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel
from structlog.stdlib import BoundLogger

from stoa_chassis.idempotency import once
from stoa_chassis.log import Origin
from stoa_chassis.projection import EventStore
from stoa_tables.cascade import Recorder
from stoa_tables.models import idempotency_key
from stoa_tables.problems import TooLargeError
from stoa_tables.queries import Queries
from stoa_tables.settings import TablesSettings
from stoa_tables.wire import TableDetail

__all__ = ["CommandService", "Transactions"]

_A = TypeVar("_A", bound=BaseModel)
_T = TypeVar("_T")


class Transactions(Protocol):
    """A database, as far as commands need one."""

    async def read(self, function: Callable[[sa.Connection], _T]) -> _T:
        """Run a function in a read transaction."""

    async def write(self, function: Callable[[sa.Connection], _T]) -> _T:
        """Run a function in a write transaction."""


class CommandService:
    """Carries out commands.

    Parameters
    ----------
    database
        The service's database.
    events
        Its log and read model.
    settings
        Its limits.
    origin
        Who asks.
    key
        The request's idempotency key, if it has one.
    logger
        Bound to the request.
    """

    def __init__(
        self,
        *,
        database: Transactions,
        events: EventStore,
        settings: TablesSettings,
        origin: Origin,
        key: str | None,
        logger: BoundLogger,
    ) -> None:
        self._database = database
        self._events = events
        self._settings = settings
        self._origin = origin
        self._key = key
        self._logger = logger

    async def _carry_out(self, request: Any, command: Callable[[Recorder], _A], answer: type[_A]) -> _A:
        """Carry out a command in one transaction, once for each idempotency key."""

        def work(connection: sa.Connection) -> _A:
            recorder = Recorder(connection, self._events, self._origin, event_bytes=self._settings.event_bytes)

            def carry_out() -> _A:
                told = command(recorder)
                recorder.settle()
                return told

            if self._key is None or request is None:
                return carry_out()
            known = once(
                connection,
                idempotency_key,
                self._key,
                self._origin.actor,
                request,
                lambda: carry_out().model_dump(mode="json"),
            )
            return answer.model_validate(known)

        return await self._database.write(work)

    def _refuse_too_many(self, rows: Sequence[Any]) -> None:
        limit = self._settings.max_rows_per_request
        if len(rows) > limit:
            raise TooLargeError(f"The request has {len(rows):,} rows; one request may have {limit:,}", limit=limit)

    def _position(self, recorder: Recorder) -> int:
        if recorder.recorded:
            return recorder.recorded[-1].log_position
        return self._events.log.head(recorder.connection)

    def _detail(self, recorder: Recorder, table: str) -> TableDetail:
        return Queries(recorder.store).detail(table, self._position(recorder))
