"""Fires triggers when they are due: once, however many schedulers look at the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import structlog

from stoa_chassis.background import pause
from stoa_chassis.database import Database, DatabaseUnavailableError
from stoa_chassis.log import Origin
from stoa_chassis.projection import EventStore
from stoa_chassis.waiting import wait_any
from stoa_contracts.events.scheduler import TriggerFired
from stoa_contracts.ids import new_id
from stoa_contracts.types import RowStatus, Trigger
from stoa_scheduler.commands import run_rows
from stoa_scheduler.domain import Request
from stoa_scheduler.models import table_state, trigger
from stoa_scheduler.store import SchedulerStore
from stoa_scheduler.triggers import due_firing

__all__ = ["Alarm", "fire"]

#: What a trigger means by its scope; None for every status.
_STATUSES: dict[str, list[RowStatus] | None] = {"stale": ["stale", "cancelled"], "failed": ["failed"], "all": None}

_LONGEST_SLEEP_S = 60.0
_WITHOUT_DATABASE_S = 1.0
_MOST_AT_ONCE = 20
_COLLECT_S = 0.1


class Alarm:
    """Looks at the clock.

    Parameters
    ----------
    database, events
        Of the process.
    clock
        Gives the present time.

    Notes
    -----
    A firing is decided in a write transaction, which the database admits one after the other: whoever comes second finds
    that the trigger fires later.
    """

    def __init__(
        self, *, database: Database, events: EventStore, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._logger = structlog.get_logger(__name__)

    async def run(self, stop: asyncio.Event) -> None:
        """Fire what is due until told to stop."""
        changed = asyncio.Event()
        self._database.on_commit(changed)
        try:
            while not stop.is_set():
                changed.clear()
                try:
                    seconds = await self.step()
                except DatabaseUnavailableError as error:
                    self._logger.warning("triggers wait for the database", error=str(error))
                    seconds = _WITHOUT_DATABASE_S
                await wait_any(stop, changed, seconds=seconds)
                # Commits come in flocks, and hardly one of them sets a trigger.
                await pause(stop, min(seconds, _COLLECT_S))
        finally:
            self._database.forget(changed)

    async def step(self) -> float:
        """Fire what is due.

        Returns
        -------
        float
            After how many seconds to look again if nothing changes.
        """
        due = await self._database.read(_next_due)
        now = self._clock()
        if due is not None and due <= now:
            await self._database.write(lambda connection: self._fire_due(connection, now))
            due = await self._database.read(_next_due)
        if due is None:
            return _LONGEST_SLEEP_S
        return min(_LONGEST_SLEEP_S, max(0.0, (due - self._clock()).total_seconds()))

    def _fire_due(self, connection: sa.Connection, now: datetime) -> None:
        c = trigger.c
        statement = _scheduled(sa.select(c.specification, c.table_id, c.set_by, c.next_due)).where(c.next_due <= now)
        for found in connection.execute(statement.order_by(c.next_due).limit(_MOST_AT_ONCE)).all():
            specified = Trigger.model_validate(found.specification)
            firing = due_firing(specified, found.next_due, now)
            origin = Origin(actor=found.set_by, correlationid=new_id())
            jobs = fire(
                self._events,
                connection,
                found.table_id,
                specified,
                origin,
                due=firing.due,
                missed=firing.missed,
                runs=firing.runs,
            )
            self._logger.info("a trigger fired", table=found.table_id, trigger=specified.trigger, jobs=jobs)


def _scheduled(statement: sa.Select[Any]) -> sa.Select[Any]:
    joined = trigger.join(table_state, table_state.c.id == trigger.c.table_id)
    return statement.select_from(joined).where(table_state.c.mode == "scheduled", table_state.c.deleted.is_(False))


_earliest = _scheduled(sa.select(sa.func.min(trigger.c.next_due)))


def _next_due(connection: sa.Connection) -> datetime | None:
    due: datetime | None = connection.execute(_earliest).scalar_one()
    return due


def fire(
    events: EventStore,
    connection: sa.Connection,
    table: str,
    specified: Trigger,
    origin: Origin,
    *,
    due: datetime | None = None,
    missed: int = 0,
    runs: bool = True,
) -> int:
    """Tell that a trigger fired, and queue what it runs.

    Parameters
    ----------
    events
        Our log and read model.
    connection
        Of the write transaction.
    table
        The table's id.
    specified
        The trigger.
    origin
        On whose behalf, and by what.
    due
        When it ought to fire; null where something happened that it watches.
    missed
        How many earlier firings this one makes up for.
    runs
        Whether it starts a run, or only goes on to its next moment.

    Returns
    -------
    int
        How many jobs were queued or are awaited.
    """
    store = SchedulerStore(connection)
    state = store.find_table(table)
    decided = None
    request = Request(new_id(), origin.actor, "trigger", trigger=specified.trigger)
    if runs and state is not None and state.workflow_version is not None:
        found = store.rows(table, statuses=_STATUSES[specified.scope])
        decided = run_rows(state, found, request, versions=store.versions(table, found))
    started = decided is not None and bool(decided.jobs or decided.awaited)
    told = TriggerFired(
        table=table, trigger=specified.trigger, due=due, missed=missed, run=request.run if started else None
    )
    (envelope,) = events.record(connection, table, [told], origin)
    if decided is None or not started:
        return 0
    caused = Origin(
        actor=origin.actor,
        correlationid=origin.correlationid,
        causationid=envelope.id,
        traceparent=origin.traceparent,
    )
    events.record(connection, table, decided.events, caused)
    return decided.jobs + decided.awaited
