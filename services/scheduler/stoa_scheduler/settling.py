"""Evolve: rows that are suspected, confirmed, accepted, pinned, restored or locked, and rows that are awaited."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from stoa_contracts.events import scheduler, tables
from stoa_scheduler.step import Step, among, pieces

__all__ = ["AWAITING", "SETTLING"]


def _table_invalidated(step: Step, event: tables.TableInvalidated) -> None:
    row = step.s.row
    if event.suspected:
        # What failed or was cancelled stays so, and what is queued or runs is no longer current anyway.
        status = sa.case((row.c.status == "current", "stale"), else_=row.c.status)
        _change(step, event.table, event.rows, suspected=True, status=status)
        return
    # A row that is queued or running computes its present inputs already, and one that failed would fail again unless it
    # reads something else now.
    outdated = ["current"] if event.file is None else ["current", "failed", "cancelled"]
    status = sa.case((row.c.status.in_(outdated), "stale"), else_=row.c.status)
    _change(step, event.table, event.rows, suspected=False, status=status)


def _rows_confirmed(step: Step, event: tables.RowsConfirmed) -> None:
    row = step.s.row
    status = sa.case((row.c.status == "stale", "current"), else_=row.c.status)
    only = () if event.rows is not None else (row.c.suspected.is_(True),)
    _change(step, event.table, event.rows, *only, suspected=False, status=status)


def _rows_accepted(step: Step, event: tables.RowsAccepted) -> None:
    for version in sorted({accepted.workflow_version for accepted in event.rows}):
        rows = [accepted.row for accepted in event.rows if accepted.workflow_version == version]
        _settle(step, event.table, rows, version)


def _outputs_imported(step: Step, event: tables.OutputsImported) -> None:
    _settle(step, event.table, [imported.row for imported in event.rows], event.workflow_version)


def _settle(step: Step, table: str, rows: Sequence[int], version: str) -> None:
    """Let outputs be those of rows as they are; a job that is under way computes nothing that is missing."""
    row = step.s.row
    status = sa.case((row.c.suspected.is_(True), "stale"), else_="current")
    _change(step, table, rows, status=status, job=None, output_version=version)


def _rows_pinned(step: Step, event: tables.RowsPinned) -> None:
    _change(step, event.table, event.rows, pinned=event.workflow_version)


def _rows_restored(step: Step, event: tables.RowsRestored) -> None:
    if not event.rows or not step.is_worktable(event.table):
        return
    rows = [
        {
            "table_id": event.table,
            "row": restored.row,
            "revision": restored.revision,
            "inputs": restored.inputs,
            "status": "stale",
            "job": None,
            "output_version": None,
            "suspected": False,
            "pinned": None,
            "locked": False,
        }
        for restored in event.rows
    ]
    step.execute(sa.insert(step.s.row), rows)
    step.change_progress(event.table, {"stale": len(rows)})


def _row_locked(step: Step, event: tables.RowLocked) -> None:
    row = step.s.row
    for piece in pieces(event.rows):
        statement = sa.update(row).where(row.c.table_id == event.table, row.c.row.in_(piece))
        step.execute(statement.values(locked=event.locked))


def _change(step: Step, table: str, rows: Sequence[int] | None, *only: Any, **values: Any) -> None:
    """Change rows that are named, or all of a table, and count them by their new status."""
    row = step.s.row
    statement = sa.update(row).where(row.c.table_id == table, *only).values(**values)
    with step.counted(table, rows):
        if rows is None:
            step.execute(statement)
        else:
            for some in among(row.c.row, rows):
                step.execute(statement.where(some))


# --- what was asked for and waits ---------------------------------------------------------------------------------------


def _rows_awaited(step: Step, event: scheduler.RowsAwaited) -> None:
    step.no_longer_awaited(event.table, event.rows)
    if not event.awaited or not event.rows:
        return
    if not step.change_run(event.run, awaited=len(event.rows)):
        table = step.s.table
        version = step.execute(sa.select(table.c.workflow_version).where(table.c.id == event.table)).scalar_one()
        new = {
            "id": event.run,
            "table_id": event.table,
            "workflow_version": version,
            "requested_by": event.requested_by,
            "reason": event.reason,
            "priority": event.priority,
            "jobs": 0,
            "queued": step.envelope.time,
            "force": event.force,
            "trigger": event.trigger,
            "awaited": len(event.rows),
            "reused": 0,
        }
        step.execute(sa.insert(step.s.run), new)
    rows = [
        {
            "table_id": event.table,
            "row": row,
            "run": event.run,
            "requested_by": event.requested_by,
            "priority": event.priority,
            "force": event.force,
        }
        for row in event.rows
    ]
    step.execute(sa.insert(step.s.awaited), rows)
    step.change_progress(event.table, {"awaited": len(rows)})


def _limit_set(step: Step, event: scheduler.LimitSet) -> None:
    kind, name = ("table", event.table) if event.table is not None else ("person", event.person)
    limit = step.s.limit
    step.execute(sa.delete(limit).where(limit.c.kind == kind, limit.c.name == name))
    if event.running is not None:
        step.execute(sa.insert(limit), {"kind": kind, "name": name, "running": event.running})


_Handlers = Mapping[tuple[str, str], Callable[[Step, Any], None]]

#: What the tables service says of rows that wait or need not run.
SETTLING: _Handlers = {
    ("tables", "table-invalidated"): _table_invalidated,
    ("tables", "rows-confirmed"): _rows_confirmed,
    ("tables", "rows-accepted"): _rows_accepted,
    ("tables", "outputs-imported"): _outputs_imported,
    ("tables", "rows-pinned"): _rows_pinned,
    ("tables", "rows-restored"): _rows_restored,
    ("tables", "row-locked"): _row_locked,
}

#: What was asked for and waits, and what is held back.
AWAITING: _Handlers = {
    ("scheduler", "rows-awaited"): _rows_awaited,
    ("scheduler", "limit-set"): _limit_set,
}
