"""Rows that were asked for while something that they depend on is computed anew: they wait, and run when that has settled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import sqlalchemy as sa

from stoa_chassis.log import Origin
from stoa_chassis.projection import EventStore
from stoa_scheduler.commands import await_rows, cancel_jobs, run_rows
from stoa_scheduler.domain import ACTIVE, ActiveJob, AwaitedRow, Request
from stoa_scheduler.store import SchedulerStore

__all__ = ["let_go", "pull_back", "record_cancellation", "release"]


def record_cancellation(
    events: EventStore, connection: sa.Connection, jobs: Iterable[ActiveJob], reason: str, origin: Origin
) -> int:
    """Cancel jobs that have not ended.

    Returns
    -------
    int
        How many there were.
    """
    number = 0
    for cancelled in cancel_jobs(jobs, reason):
        events.record(connection, cancelled.table, [cancelled], origin)
        SchedulerStore(connection).withdraw([reference.job for reference in cancelled.jobs])
        number += len(cancelled.jobs)
    return number


def pull_back(events: EventStore, connection: sa.Connection, jobs: Iterable[ActiveJob], origin: Origin) -> None:
    """Let the rows of jobs wait, because their inputs are about to change or have just changed upstream.

    Jobs that have not started are cancelled. Those that run go on: what they give may be wanted again.

    Parameters
    ----------
    events
        Our log and read model.
    connection
        Of the transaction.
    jobs
        Of one table.
    origin
        Who caused it, and by what.
    """
    jobs = list(jobs)
    waiting = [job for job in jobs if job.state == "waiting"]
    record_cancellation(events, connection, waiting, "what the row depends on is being computed anew", origin)
    asked: dict[tuple[str, Request], set[int]] = defaultdict(set)
    # A row may have two jobs, of which one runs for inputs that it had before: the newer request counts.
    newest = {(job.table, job.row): job for job in sorted(jobs, key=lambda job: job.job)}
    runs = SchedulerStore(connection).requests({job.run for job in newest.values()})
    for job in newest.values():
        asked[job.table, runs[job.run]].add(job.row)
    for (table, request), rows in asked.items():
        events.record(connection, table, await_rows(table, rows, request), origin)


def let_go(events: EventStore, connection: sa.Connection, rows: Iterable[AwaitedRow], origin: Origin) -> int:
    """Let rows wait no longer, without running them.

    Returns
    -------
    int
        How many there were.
    """
    number = 0
    for table, request, group in _together(rows):
        events.record(connection, table, await_rows(table, group, request, awaited=False), origin)
        number += len(group)
    return number


def release(
    events: EventStore, connection: sa.Connection, table: str, rows: Iterable[int] | None, origin: Origin
) -> None:
    """Run the awaited rows of a table that are settled, where they still have to; the others wait no longer.

    Parameters
    ----------
    events
        Our log and read model.
    connection
        Of the transaction.
    table
        The table's id.
    rows
        Only these rows; null for all.
    origin
        What settled them.
    """
    store = SchedulerStore(connection)
    if not store.any_awaited(table):
        return
    state = store.find_table(table)
    settled = store.awaited_rows(table=table, rows=rows, settled_only=True)
    if not settled or state is None:
        return
    known = {row.row: row for row in store.rows(table, rows=[item.row for item in settled])}
    versions = store.versions(table, known.values())
    for _, request, group in _together(settled):
        left = [
            known[row]
            for row in group
            if row in known and known[row].status not in ACTIVE and (known[row].status != "current" or request.force)
        ]
        decision = run_rows(state, left, request, versions=versions)
        asker = replace(origin, actor=request.requested_by)
        events.record(connection, table, decision.events, asker)
        skipped = {item.row for item in decision.skipped}
        dropped = set(group) - {row.row for row in left} | skipped
        events.record(connection, table, await_rows(table, dropped, request, awaited=False), asker)


def _together(rows: Iterable[AwaitedRow]) -> list[tuple[str, Request, list[int]]]:
    asked: dict[tuple[str, Request], list[int]] = defaultdict(list)
    for item in rows:
        asked[item.table, item.request].append(item.row)
    return [(table, request, sorted(group)) for (table, request), group in asked.items()]
