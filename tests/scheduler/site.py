"""The scheduler without its process: each part by itself, and the time in the test's hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import httpx
import sqlalchemy as sa
import structlog

from stoa_chassis.database import Database
from stoa_chassis.follower import Follower, http_feed
from stoa_chassis.log import Log, Origin, read_checkpoint
from stoa_chassis.memory_bus import MemoryBroker, MemoryBus
from stoa_chassis.metrics import Metrics
from stoa_chassis.migrations import upgrade
from stoa_chassis.projection import EventStore, compare, rebuild
from stoa_contracts.envelope import Envelope
from stoa_contracts.jobs import JobRequest
from stoa_contracts.types import RowStatus
from stoa_scheduler.app import SERVICE
from stoa_scheduler.dispatcher import Dispatcher
from stoa_scheduler.models import awaited, backlog, dispatch, job, progress, row_state, run
from stoa_scheduler.policy import Policy
from stoa_scheduler.projection import SchedulerProjection
from stoa_scheduler.queue_service import QueueService
from stoa_scheduler.service import SchedulerService
from stoa_scheduler.settings import SchedulerSettings
from tests.scheduler.neighbours import Executor, Neighbour, Tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stoa_chassis.bus import JobMessage


class Site:
    """The scheduler's parts on a database, a bus in memory, and neighbours whose events come when the test says so."""

    def __init__(self, url: str, folder: Path, *, migrate: bool = True, **settings: Any) -> None:
        self.settings = SchedulerSettings(data=folder, actor="jansky", **settings)
        self.database = Database(url)
        if migrate:
            upgrade(self.database, SERVICE.migrations)
        self.projection = SchedulerProjection()
        self.events = EventStore(Log("scheduler"), self.projection)
        self.broker = MemoryBroker()
        self.tables = Tables()
        self.executor = Executor()
        self.now = datetime.now(UTC)
        self.starts = 0
        self.restart()

    def restart(self) -> None:
        """Begin anew, as after a crash: what was only in memory is gone."""
        self.bus = MemoryBus(self.broker, ack_wait=0)
        self.dispatcher = Dispatcher(
            database=self.database,
            events=self.events,
            bus=self.bus,
            settings=self.settings,
            metrics=Metrics("scheduler"),
            clock=lambda: self.now,
        )
        self.policy = Policy(
            self.events,
            run_lease=timedelta(seconds=self.settings.run_lease),
            on_start=self.dispatcher.note_start,
        )
        self.follower = Follower(
            self.projection.name,
            ["tables", "executor"],
            bus=self.bus,
            database=self.database,
            log=self.events.log,
            apply=self.policy.apply,
            feed=http_feed({}, httpx.AsyncClient()),
        )

    def service(self, actor: str = "jansky") -> SchedulerService:
        return SchedulerService(
            database=self.database,
            events=self.events,
            settings=self.settings,
            origin=Origin(actor=actor, correlationid="c"),
            logger=structlog.get_logger("test"),
        )

    def queue_service(self, actor: str = "jansky") -> QueueService:
        return QueueService(
            database=self.database,
            events=self.events,
            settings=self.settings,
            origin=Origin(actor=actor, correlationid="c"),
            logger=structlog.get_logger("test"),
            clock=lambda: self.now,
        )

    def deliver(self, neighbour: Neighbour, limit: int = 1_000_000) -> int:
        """Apply a neighbour's next events, as the follower does it."""
        source = neighbour.service
        with self.database.reading() as connection:
            begin = position = read_checkpoint(connection, self.projection.name, source)
        while batch := neighbour.envelopes[position : min(position + 500, begin + limit)]:
            with self.database.writing() as connection:
                position = self.follower._sources[source]._apply(connection, batch).position
        return position - begin

    def deliver_all(self) -> None:
        self.deliver(self.tables)
        self.deliver(self.executor)

    def take(self) -> list[str]:
        """Choose the next jobs and lose them before they are on the bus."""
        with self.database.writing() as connection:
            return [item.job for item in self.dispatcher.take(connection, self.now)]

    async def dispatch(self) -> None:
        """Hand out until there is nothing to hand out."""
        await self.bus.connect()
        for _ in range(100):
            if await self.dispatcher.step() > 0.2:
                return

    async def handed_out(self, limit: int = 10_000) -> list[tuple[JobMessage, JobRequest]]:
        """Take jobs off the bus."""
        await self.bus.connect()
        subscription = await self.bus.subscribe_jobs("executors")
        messages = await subscription.fetch(limit, 0)
        return [(message, JobRequest.model_validate_json(message.body)) for message in messages]

    async def finish_all(self, limit: int = 10_000) -> list[JobRequest]:
        """Be an executor and a tables service for which everything goes well."""
        done = []
        for message, request in await self.handed_out(limit):
            self.executor.start(request)
            self.executor.finish(request)
            self.tables.record(request)
            await message.ack()
            done.append(request)
        self.deliver(self.executor)
        self.deliver(self.tables)
        return done

    def query(self, statement: sa.Select[Any]) -> Sequence[Any]:
        with self.database.reading() as connection:
            return connection.execute(statement).all()

    def own_events(self, name: str | None = None) -> list[Envelope]:
        with self.database.reading() as connection:
            return [item for item in self.events.log.read(connection) if name in {None, item.name}]

    def states(self) -> dict[str, int]:
        return {
            item.state: item.n
            for item in self.query(sa.select(job.c.state, sa.func.count().label("n")).group_by(job.c.state))
        }

    def fetch(self, source: str, after: int, until: int) -> Sequence[Envelope]:
        return {"tables": self.tables, "executor": self.executor}[source].fetch(source, after, until)

    def rebuilt_differently(self) -> list[str]:
        """Rebuild beside the read model and name the tables that come out differently."""
        rebuild(self.database, self.events.log, SchedulerProjection(), self.fetch, swap=False)
        return list(compare(self.database, self.projection))

    def check_counts(self) -> None:
        """Compare what is counted with what is there."""
        c = job.c
        counted = self.query(
            sa.select(c.table_id, c.requested_by, c.priority, sa.func.count().label("n"))
            .where(c.state == "waiting")
            .group_by(c.table_id, c.requested_by, c.priority)
        )
        kept = self.query(sa.select(backlog).where(backlog.c.waiting != 0))
        assert {tuple(item[:3]): item.n for item in counted} == {tuple(item[:3]): item.waiting for item in kept}
        handed = self.query(
            sa.select(c.state, c.attempt, dispatch.c.attempt.label("handed"), dispatch.c.started).select_from(
                dispatch.outerjoin(job, c.id == dispatch.c.job)
            )
        )
        for item in handed:
            assert item.state == ("running" if item.started else "waiting")
            assert item.attempt == item.handed
        self.check_progress()

    def check_progress(self) -> None:
        """Compare what is counted of rows with the rows."""
        counted: dict[str, Counter[str]] = {}
        for item in self.query(sa.select(row_state.c.table_id, row_state.c.status)):
            counted.setdefault(item.table_id, Counter())[item.status] += 1
        for item in self.query(sa.select(awaited.c.table_id)):
            counted.setdefault(item.table_id, Counter())["awaited"] += 1
        for item in self.query(sa.select(progress)):
            kept = {name: getattr(item, name) for name in (*get_args(RowStatus), "awaited")}
            assert {name: number for name, number in kept.items() if number} == counted.pop(item.table_id, {})
        assert not counted
        of_runs = Counter(item.run for item in self.query(sa.select(awaited.c.run)))
        kept_of_runs = {
            item.id: item.awaited for item in self.query(sa.select(run.c.id, run.c.awaited)) if item.awaited
        }
        assert kept_of_runs == of_runs

    def close(self) -> None:
        self.database.engine.dispose()


@contextmanager
def running_site(url: str, folder: Path, **settings: Any) -> Iterator[Site]:
    """Open a site, and close it afterwards with all its connections."""
    site = Site(url, folder, **settings)
    try:
        yield site
    finally:
        asyncio.run(site.database.aclose())
