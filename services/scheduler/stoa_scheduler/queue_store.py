"""SQL for what waits and whose it is, for limits, and for progress: read from counts, never from the jobs themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from stoa_scheduler.limits import LimitKind, Limits
from stoa_scheduler.models import awaited, backlog, dispatch, ended, progress, run_limit, table_state
from stoa_scheduler.progress import Ended, pace
from stoa_scheduler.views import (
    Limit,
    LimitList,
    Progress,
    ProgressReport,
    Queue,
    QueueCounts,
    QueueGroup,
    TableProgress,
)

__all__ = ["QueueStore"]

_MOST_GROUPS = 1000
_MOMENTS = 64
_COUNTED = ("stale", "queued", "running", "current", "failed", "cancelled", "awaited")

# Written once, because the dispatcher asks whenever something was committed.
_LIMITS = sa.select(run_limit)


class QueueStore:
    """What is counted of the queue.

    Parameters
    ----------
    connection
        Of the caller's transaction.
    """

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    # --- what waits --------------------------------------------------------------------------------------------------

    def queue(self) -> Queue:
        """Count the jobs that have not ended, and the rows that wait for theirs."""
        groups: dict[tuple[str, str, int], Counter[str]] = {}

        def of(item: Any) -> Counter[str]:
            return groups.setdefault((item.table_id, item.requested_by, item.priority), Counter())

        for item in self._connection.execute(sa.select(backlog).where(backlog.c.waiting > 0)):
            of(item)["waiting"] += item.waiting
        for table in (dispatch, awaited):
            key = (table.c.table_id, table.c.requested_by, table.c.priority)
            also = (table.c.started,) if table is dispatch else ()
            statement = sa.select(*key, *also, sa.func.count().label("number")).group_by(*key, *also)
            for item in self._connection.execute(statement):
                if table is awaited:
                    of(item)["awaited"] += item.number
                elif item.started:
                    of(item)["running"] += item.number
                else:
                    of(item)["dispatched"] += item.number
                    of(item)["waiting"] -= item.number
        names = self._names({table for table, _, _ in groups})
        counts: dict[str, Counter[str]] = {}
        for (table_id, _, _), numbers in groups.items():
            counts.setdefault(table_id, Counter()).update(numbers)
        tables = {table_id: _counts(numbers) for table_id, numbers in counts.items()}
        order = sorted(groups, key=lambda key: (-key[2], key[1], names.get(key[0], key[0])))
        whose = [
            QueueGroup(
                table=key[0],
                name=names.get(key[0], key[0]),
                requested_by=key[1],
                priority=key[2],
                **_counts(groups[key]).model_dump(),
            )
            for key in order[:_MOST_GROUPS]
        ]
        everywhere = _counts(sum(counts.values(), Counter()))
        return Queue(**everywhere.model_dump(), tables=tables, groups=whose)

    def _names(self, ids: Iterable[str]) -> dict[str, str]:
        c = table_state.c
        wanted = sorted(ids)
        return {
            item.id: item.name
            for first in range(0, len(wanted), 500)
            for item in self._connection.execute(sa.select(c.id, c.name).where(c.id.in_(wanted[first : first + 500])))
        }

    # --- limits ------------------------------------------------------------------------------------------------------

    def limit(self, kind: LimitKind, name: str) -> int | None:
        """Give the limit of its own that a table, or a person, has."""
        c = run_limit.c
        statement = sa.select(c.running).where(c.kind == kind, c.name == name)
        return self._connection.execute(statement).scalar_one_or_none()

    def limits(self, *, per_table: int | None, per_person: int | None) -> Limits:
        """Give all limits, for the dispatcher."""
        kinds: dict[str, dict[str, int]] = {"table": {}, "person": {}}
        for item in self._connection.execute(_LIMITS):
            kinds[item.kind][item.name] = item.running
        return Limits(kinds["table"], kinds["person"], per_table, per_person)

    def limit_list(self, *, per_table: int | None, per_person: int | None, after: str | None, most: int) -> LimitList:
        """List the limits of their own, a page at a time."""
        c = run_limit.c
        statement = sa.select(c.kind, c.name, c.running).order_by(c.kind, c.name).limit(most + 1)
        if after is not None:
            kind, _, name = after.partition(":")
            statement = statement.where(sa.or_(c.kind > kind, sa.and_(c.kind == kind, c.name > name)))
        found = self._connection.execute(statement).all()
        names = self._names(item.name for item in found if item.kind == "table")
        limits = [
            Limit(table=item.name, name=names.get(item.name), running=item.running)
            if item.kind == "table"
            else Limit(person=item.name, running=item.running)
            for item in found[:most]
        ]
        last = found[most - 1] if len(found) > most else None
        next_ = None if last is None else f"{last.kind}:{last.name}"
        return LimitList(per_table=per_table, per_person=per_person, limits=limits, next=next_)

    # --- progress ----------------------------------------------------------------------------------------------------

    def progress(
        self, *, table: str | None, project: str | None, now: datetime, after: str | None, most: int
    ) -> ProgressReport:
        """Tell how far tables got.

        Parameters
        ----------
        table, project
            Only this table, by its id, or the tables of this project.
        now
            The present time.
        after
            Only tables beyond this one are listed.
        most
            So many tables are listed at most.
        """
        c = table_state.c
        which: list[sa.ColumnElement[bool]] = [c.deleted.is_(False)]
        if table is not None:
            which.append(c.id == table)
        if project is not None:
            which.append(c.project == project)
        joined = table_state.join(progress, progress.c.table_id == c.id)
        busy = progress.c.queued + progress.c.running > 0
        since = sa.func.min(sa.case((busy, progress.c.busy_since)))
        counts = [sa.func.coalesce(sa.func.sum(progress.c[name]), 0).label(name) for name in _COUNTED]
        whole = sa.select(*counts, since.label("busy_since")).select_from(joined).where(*which)
        total = self._connection.execute(whole).one()
        page = (
            sa.select(c.id, c.name, c.project, *(progress.c[name] for name in _COUNTED), progress.c.busy_since)
            .select_from(joined)
            .where(*which)
            .order_by(c.id)
            .limit(most + 1)
        )
        found = self._connection.execute(page if after is None else page.where(c.id > after)).all()
        tables = [
            TableProgress(
                table=item.id,
                name=item.name,
                project=item.project,
                **_progress(item, self._ended(ended.c.table_id == item.id), now).model_dump(),
            )
            for item in found[:most]
        ]
        of_these = ended.c.table_id.in_(sa.select(c.id).where(*which))
        return ProgressReport(
            **_progress(total, self._ended(of_these), now).model_dump(),
            tables=tables,
            next=tables[-1].table if len(found) > most else None,
        )

    def _ended(self, which: sa.ColumnElement[bool]) -> Iterator[Ended]:
        """Give how many jobs ended when, newest first, and read no more of them than somebody wants."""
        c = ended.c
        statement = sa.select(c.moment, sa.func.sum(c.jobs).label("jobs")).where(which).group_by(c.moment)
        statement = statement.order_by(c.moment.desc()).limit(_MOMENTS)
        page = self._connection.execute(statement).all()
        while page:
            for item in page:
                yield Ended(item.moment, int(item.jobs))
            page = self._connection.execute(statement.where(c.moment < page[-1].moment)).all()


def _counts(numbers: Counter[str]) -> QueueCounts:
    return QueueCounts(**{name: max(0, numbers[name]) for name in ("waiting", "dispatched", "running", "awaited")})


def _progress(item: Any, ended_jobs: Iterator[Ended], now: datetime) -> Progress:
    numbers = {name: int(getattr(item, name)) for name in _COUNTED}
    busy = numbers["queued"] + numbers["running"]
    speed = pace(ended_jobs, left=busy and busy + numbers["awaited"], busy_since=item.busy_since, now=now)
    return Progress(
        rows=sum(numbers[name] for name in _COUNTED if name != "awaited"),
        done=numbers["current"],
        failed=numbers["failed"],
        waiting=numbers["queued"],
        running=numbers["running"],
        awaited=numbers["awaited"],
        stale=numbers["stale"],
        cancelled=numbers["cancelled"],
        rate=speed.per_minute,
        estimated_end=speed.estimated_end,
    )
