"""The dispatcher feeds the bus from the queue in SQL, a few jobs at a time.

What is handed out can be neither overtaken nor shared anew, so only as much is handed out as will start soon. Everything
else waits in the database, where priority, fairness and cancellation cost nothing. An attempt is noted before it is
published. If it is lost on the way, because this process ends or the broker forgets, it is published again under the same
id: after the lease, or as soon as this process or the broker is back. The executor drops what it has already.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
import structlog
from prometheus_client import Gauge, Histogram

from stoa_chassis.background import pause
from stoa_chassis.bus import Bus, BusUnavailableError, MessageTooLargeError
from stoa_chassis.database import Database
from stoa_chassis.log import Origin
from stoa_chassis.metrics import Metrics
from stoa_chassis.projection import EventStore
from stoa_chassis.waiting import wait_any
from stoa_contracts.jobs import JobRequest
from stoa_contracts.subjects import job_subject
from stoa_scheduler.awaiting import record_cancellation
from stoa_scheduler.domain import Group, Turns, share, window_size
from stoa_scheduler.limits import Limits
from stoa_scheduler.models import backlog, dispatch, job
from stoa_scheduler.queue_store import QueueStore
from stoa_scheduler.settings import SchedulerSettings
from stoa_scheduler.store import SchedulerStore

__all__ = ["Dispatcher", "Handout"]

_LONGEST_LEASE = timedelta(hours=1)
_IDLE = 5.0
_WITHOUT_BUS = 0.5
_COLLECT = 0.01
_AT_ONCE = 32


@dataclass(frozen=True)
class Handout:
    """A job that is handed to the bus."""

    subject: str
    id: str
    body: bytes
    job: str


@dataclass(frozen=True)
class _Look:
    """Whether there is something to hand out, and when there will be."""

    work: bool
    next: datetime | None


@dataclass(frozen=True)
class _State:
    """What waits and may be handed out, and what was handed out."""

    groups: list[Group]
    in_flight: Counter[tuple[str, str]]
    running: int
    unstarted: int
    limits: Limits


_not_handed = ~sa.exists(sa.select(dispatch.c.job).where(dispatch.c.job == job.c.id))
_waiting = sa.and_(job.c.state == "waiting", _not_handed)
# Each order is that of an index, null though one column may be: else PostgreSQL would sort all that waits.
_first_retry = (
    sa.select(job.c.not_before).where(_waiting, job.c.not_before.is_not(None)).order_by(job.c.not_before).limit(1)
)
_next_retry = _first_retry.where(job.c.not_before > sa.bindparam("b_now"))

# Written once, because they run whenever something was committed.
_numbers = sa.select(
    sa.select(sa.func.coalesce(sa.func.sum(backlog.c.waiting), 0)).scalar_subquery(),
    sa.select(sa.func.count()).where(dispatch.c.started.is_(False)).scalar_subquery(),
    sa.select(sa.func.count()).where(dispatch.c.started).scalar_subquery(),
    sa.select(sa.func.min(dispatch.c.due)).scalar_subquery(),
)
_group = (dispatch.c.table_id, dispatch.c.requested_by, dispatch.c.priority, dispatch.c.started)
_handed_out = sa.select(*_group, sa.func.count().label("number")).group_by(*_group)
_backlog = sa.select(backlog).where(backlog.c.waiting > 0)

# Written once, because they run for each table that has jobs waiting.
_of_group = (
    sa.select(job.c.id, job.c.attempt)
    .where(
        _waiting,
        job.c.table_id == sa.bindparam("b_table"),
        job.c.requested_by == sa.bindparam("b_person"),
        job.c.priority == sa.bindparam("b_priority"),
    )
    .limit(sa.bindparam("b_limit", type_=sa.Integer))
)
_retries = _of_group.where(job.c.not_before <= sa.bindparam("b_now")).order_by(job.c.not_before)
_fresh = _of_group.where(job.c.not_before.is_(None)).order_by(job.c.not_before, job.c.row)
_requests = sa.select(
    job.c.id,
    job.c.attempt,
    job.c.table_id,
    job.c.row,
    job.c.revision,
    job.c.workflow_version,
    job.c.inputs,
    job.c.requested_by,
    job.c.correlationid,
    job.c.causationid,
    job.c.traceparent,
    job.c.force,
).where(job.c.id.in_(sa.bindparam("b_jobs", expanding=True)))


class Dispatcher:
    """Hands jobs to the bus.

    Parameters
    ----------
    database
        Of the scheduler.
    events
        Our log and read model.
    bus
        Where the executors listen.
    settings
        The window and the leases.
    metrics
        Of the process.
    clock
        Gives the present time.
    """

    def __init__(
        self,
        *,
        database: Database,
        events: EventStore,
        bus: Bus,
        settings: SchedulerSettings,
        metrics: Metrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._events = events
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._turns = Turns()
        self._starts: deque[float] = deque(maxlen=20_000)
        self._was_connected = False
        self._logger = structlog.get_logger(__name__)
        registry = metrics.registry
        self._picking = Histogram("stoa_scheduler_pick_seconds", "Time to choose the next jobs.", registry=registry)
        self._waiting = Gauge("stoa_scheduler_waiting_jobs", "Jobs in the queue, as last seen.", registry=registry)
        self._handed = Gauge("stoa_scheduler_dispatched_jobs", "Jobs on the bus, as last seen.", registry=registry)

    def note_start(self) -> None:
        """Learn that a job started somewhere."""
        self._starts.append(time.monotonic())

    async def run(self, stop: asyncio.Event) -> None:
        """Hand out jobs until told to stop."""
        changed = asyncio.Event()
        self._database.on_commit(changed)
        self._was_connected = False
        try:
            while not stop.is_set():
                changed.clear()
                await self._wait(stop, changed, await self.step())
                # Commits come in flocks: looking once after several of them is enough.
                await pause(stop, _COLLECT)
        finally:
            self._database.forget(changed)

    async def _wait(self, stop: asyncio.Event, changed: asyncio.Event, seconds: float) -> None:
        """Wait for a commit, for the time that was said, or for the broker to go or come."""
        until = time.monotonic() + seconds
        while (rest := until - time.monotonic()) > 0 and self._bus.connected == self._was_connected:
            if await wait_any(stop, changed, seconds=min(rest, _WITHOUT_BUS)):
                return

    async def step(self) -> float:
        """Hand out what there is room for.

        Returns
        -------
        float
            After how many seconds to look again if nothing happens.
        """
        if not self._bus.connected:
            self._was_connected = False
            return _WITHOUT_BUS
        if not self._was_connected:
            await self._database.write(self._hurry)
            self._was_connected = True
        now = self._clock()
        look = await self._database.read(lambda connection: self._look(connection, now))
        if look.work:
            handouts = await self._database.write(lambda connection: self.take(connection, now))
            if not await self._publish(handouts):
                return _WITHOUT_BUS
            return _COLLECT
        if look.next is None:
            return _IDLE
        return min(_IDLE, max(_COLLECT, (look.next - now).total_seconds()))

    def _hurry(self, connection: sa.Connection) -> None:
        """Publish again soon what this process or the broker may have lost."""
        now = self._clock()
        soon = now + timedelta(seconds=self._settings.start_lease)
        connection.execute(sa.update(dispatch).where(dispatch.c.started.is_(False)).values(due=now))
        connection.execute(sa.update(dispatch).where(dispatch.c.started, dispatch.c.due > soon).values(due=soon))

    def _look(self, connection: sa.Connection, now: datetime) -> _Look:
        waiting, handed, running, due = connection.execute(_numbers).one()
        self._waiting.set(float(waiting - handed))
        self._handed.set(handed)
        if due is not None and due <= now:
            return _Look(work=True, next=None)
        window = self._window(running)
        # Topping up one by one would cost a transaction for each job.
        if waiting <= handed or handed > window * 3 // 4:
            return _Look(work=False, next=due)
        state = self._state(connection)
        retry = connection.execute(_first_retry).scalar_one_or_none()
        retries = retry is not None and retry <= now
        for group in state.groups:
            group.taken = 1
            if self._choose(connection, group, now, retries=retries):
                return _Look(work=True, next=None)
        later = connection.execute(_next_retry, {"b_now": now}).scalar_one_or_none() if retries else retry
        return _Look(work=False, next=min((item for item in (due, later) if item is not None), default=None))

    def _state(self, connection: sa.Connection) -> _State:
        """Find what is in flight, and what waits of those who are below their limits."""
        settings = self._settings
        limits = QueueStore(connection).limits(per_table=settings.limit_per_table, per_person=settings.limit_per_person)
        in_flight: Counter[tuple[str, str]] = Counter()
        unstarted: Counter[tuple[str, str, int]] = Counter()
        people: Counter[str] = Counter()
        tables: Counter[str] = Counter()
        running = 0
        for item in connection.execute(_handed_out):
            in_flight[item.requested_by, item.table_id] += item.number
            people[item.requested_by] += item.number
            tables[item.table_id] += item.number
            if item.started:
                running += item.number
            else:
                unstarted[item.table_id, item.requested_by, item.priority] += item.number
        groups = []
        for item in connection.execute(_backlog):
            left = item.waiting - unstarted[item.table_id, item.requested_by, item.priority]
            person, table = item.requested_by, item.table_id
            if left > 0 and limits.leaves_person(person, people[person]) and limits.leaves_table(table, tables[table]):
                groups.append(Group(table, person, item.priority, left))
        return _State(groups, in_flight, running, unstarted.total(), limits)

    def _window(self, running: int) -> int:
        horizon = time.monotonic() - 2.0
        starts = self._starts
        while starts and starts[0] < horizon:
            starts.popleft()
        return window_size(
            smallest=self._settings.smallest_window, largest=self._settings.window, running=running, starts=len(starts)
        )

    def take(self, connection: sa.Connection, now: datetime) -> list[Handout]:
        """Choose the next jobs and note that they are handed out.

        Parameters
        ----------
        connection
            Of a write transaction.
        now
            The present time.

        Returns
        -------
        list of Handout
            To be published after the commit.

        Notes
        -----
        The work grows with the window and with the number of tables and people that have jobs waiting, not with the
        number of jobs.
        """
        with self._picking.time():
            return [*self._take_again(connection, now), *self._take_new(connection, now)]

    def _take_again(self, connection: sa.Connection, now: datetime) -> list[Handout]:
        statement = (
            sa.select(dispatch.c.job, dispatch.c.started, dispatch.c.published)
            .where(dispatch.c.due <= now)
            .order_by(dispatch.c.due)
            .limit(self._settings.window)
        )
        due = connection.execute(statement).all()
        if not due:
            return []
        again = []
        for item in due:
            lease = timedelta(seconds=self._settings.run_lease if item.started else self._settings.start_lease)
            lease = max(lease, min(_LONGEST_LEASE, lease * 2 ** min(item.published, 20)))
            again.append({"b_job": item.job, "b_due": now + lease, "b_published": item.published + 1})
        connection.execute(
            sa.update(dispatch)
            .where(dispatch.c.job == sa.bindparam("b_job"))
            .values(due=sa.bindparam("b_due"), published=sa.bindparam("b_published")),
            again,
        )
        return self._handouts(connection, [item.job for item in due])

    def _take_new(self, connection: sa.Connection, now: datetime) -> list[Handout]:
        state = self._state(connection)
        groups, in_flight = state.groups, state.in_flight
        room = self._window(state.running) - state.unstarted
        people = [(group.requested_by,) for group in groups]
        self._turns.forget_all_but([*people, *((group.requested_by, group.table) for group in groups)])
        retry = connection.execute(_first_retry).scalar_one_or_none() if groups else None
        retries = retry is not None and retry <= now
        picked: list[tuple[int, int, str]] = []
        while room > 0 and groups:
            share(groups, room, in_flight, self._turns, state.limits)
            if not any(group.taken for group in groups):
                # All who wait are at their limits.
                break
            new = []
            for group in groups:
                if not group.taken:
                    continue
                chosen = self._choose(connection, group, now, retries=retries)
                new += [self._entry(group, item, now) for item in chosen]
                picked += [(-group.priority, place, item.id) for place, item in enumerate(chosen)]
                in_flight[group.requested_by, group.table] += len(chosen)
                # A group may have fewer than it seems, because failed jobs pause before the next attempt.
                group.waiting = group.waiting - len(chosen) if len(chosen) == group.taken else 0
                group.taken = 0
            if new:
                connection.execute(sa.insert(dispatch), new)
            room -= len(new)
            groups = [group for group in groups if group.waiting > 0]
        # The bus keeps the order: the highest priority first, and the tables by turns.
        picked.sort(key=itemgetter(0, 1))
        return self._handouts(connection, [id_ for _, _, id_ in picked])

    def _choose(self, connection: sa.Connection, group: Group, now: datetime, *, retries: bool) -> list[sa.Row[Any]]:
        """Find the next jobs of a group: attempts that are due again, then new jobs in the order of their rows."""
        of = {"b_table": group.table, "b_person": group.requested_by, "b_priority": group.priority}
        chosen: list[sa.Row[Any]] = []
        if retries:
            chosen += connection.execute(_retries, {**of, "b_limit": group.taken, "b_now": now})
        if len(chosen) < group.taken:
            chosen += connection.execute(_fresh, {**of, "b_limit": group.taken - len(chosen)})
        return chosen

    def _entry(self, group: Group, item: sa.Row[Any], now: datetime) -> dict[str, Any]:
        return {
            "job": item.id,
            "attempt": item.attempt,
            "table_id": group.table,
            "requested_by": group.requested_by,
            "priority": group.priority,
            "started": False,
            "published": 1,
            "due": now + timedelta(seconds=self._settings.start_lease),
        }

    def _handouts(self, connection: sa.Connection, jobs: Sequence[str]) -> list[Handout]:
        if not jobs:
            return []
        found = {item.id: item for item in connection.execute(_requests, {"b_jobs": jobs})}
        handouts = []
        for id_ in jobs:
            item = found[id_]
            request = JobRequest(
                job=item.id,
                attempt=item.attempt,
                max_attempts=self._settings.max_attempts,
                table=item.table_id,
                row=item.row,
                revision=item.revision,
                workflow_version=item.workflow_version,
                inputs=item.inputs,
                requested_by=item.requested_by,
                correlationid=item.correlationid,
                causationid=item.causationid,
                traceparent=item.traceparent,
                force=item.force,
            )
            body = request.model_dump_json().encode()
            handouts.append(Handout(job_subject(item.table_id), f"{item.id}:{item.attempt}", body, item.id))
        return handouts

    async def _publish(self, handouts: Sequence[Handout]) -> bool:
        """Put jobs on the bus.

        Returns
        -------
        bool
            Whether all of them arrived; the others are handed out again later.
        """
        failed: list[str] = []
        too_large: list[str] = []
        for first in range(0, len(handouts), _AT_ONCE):
            some = handouts[first : first + _AT_ONCE]
            results = await asyncio.gather(*(self._publish_one(handout) for handout in some), return_exceptions=True)
            for handout, result in zip(some, results, strict=True):
                if isinstance(result, MessageTooLargeError):
                    too_large.append(handout.job)
                elif isinstance(result, BusUnavailableError):
                    failed.append(handout.job)
                elif isinstance(result, BaseException):
                    raise result
        if too_large:
            await self._database.write(lambda connection: self._refuse(connection, too_large))
        if failed:
            self._logger.warning("jobs could not be put on the bus and are kept for later", jobs=len(failed))
            await self._database.write(lambda connection: self._keep(connection, failed))
        return not failed

    async def _publish_one(self, handout: Handout) -> None:
        await self._bus.publish_job(handout.subject, id=handout.id, body=handout.body)

    def _keep(self, connection: sa.Connection, jobs: Sequence[str]) -> None:
        soon = self._clock() + timedelta(seconds=_WITHOUT_BUS)
        connection.execute(sa.update(dispatch).where(dispatch.c.job.in_(jobs)).values(due=soon))

    def _refuse(self, connection: sa.Connection, jobs: Sequence[str]) -> None:
        """Cancel jobs that this broker does not take, although they passed our own limit."""
        statement = sa.select(job.c.id, job.c.requested_by, job.c.correlationid, job.c.causationid)
        for item in connection.execute(statement.where(job.c.id.in_(jobs))).all():
            origin = Origin(actor=item.requested_by, correlationid=item.correlationid, causationid=item.causationid)
            active = SchedulerStore(connection).active_jobs(jobs=[item.id])
            record_cancellation(
                self._events, connection, active, "its inputs are larger than what the broker takes", origin
            )
