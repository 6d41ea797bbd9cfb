"""Evolve: which rows are suspected, accepted or pinned, and whose files hold something else now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stoa_contracts.canonical import digest
from stoa_contracts.events import tables as events
from stoa_contracts.types import ChangedFile
from stoa_tables.store import belongs, chunks

if TYPE_CHECKING:
    from stoa_tables.projection import Batch

__all__ = ["element_key_set", "rows_accepted", "rows_confirmed", "rows_pinned", "table_invalidated"]

#: What becomes of a row's status; every other one stays as it is.
_INVALIDATED: Mapping[str, str] = {"current": "stale"}
_CONFIRMED: Mapping[str, str] = {"stale": "current"}
_FILE_CHANGED: Mapping[str, str] = {"current": "stale", "failed": "stale", "cancelled": "stale"}


def table_invalidated(batch: Batch, event: events.TableInvalidated) -> None:
    """Make rows stale, or suspected."""
    if event.file is not None:
        _change_file(batch, event.file)
    _settle(batch, event.rows, _INVALIDATED if event.file is None else _FILE_CHANGED, suspected=event.suspected)
    if event.suspected or event.file is not None:
        # Else the edit or the workflow version that made them stale stands in their history.
        batch.remember([0] if event.rows is None else event.rows)


def rows_confirmed(batch: Batch, event: events.RowsConfirmed) -> None:
    """Lift the suspicion from rows."""
    if event.file is not None:
        _change_file(batch, event.file)
    _settle(batch, event.rows, _CONFIRMED, suspected=False, only_suspected=event.rows is None)
    batch.remember([0] if event.rows is None else event.rows)


def _settle(
    batch: Batch,
    rows: list[int] | None,
    statuses: Mapping[str, str],
    *,
    suspected: bool,
    only_suspected: bool = False,
) -> None:
    table = batch.known_table(batch.table)
    if table is None or table.kind != "worktable":
        statuses = {}
    if rows is None:
        batch.flush()
        row = batch.tables["row"]
        new = sa.case(statuses, value=row.c.status, else_=row.c.status) if statuses else row.c.status
        statement = sa.update(row).where(row.c.table_id == batch.table).values(status=new, suspected=suspected)
        batch.connection.execute(statement.where(row.c.suspected) if only_suspected else statement)
        batch.count_anew()
        batch.forget()
        return
    for number, state in batch.states(batch.table, rows).items():
        status = statuses.get(state.status, state.status)
        if (status, suspected) != (state.status, state.suspected):
            batch.count([state.status], [status])
            state.status, state.suspected = status, suspected
            batch.update(batch.statements.suspicion, number, status=status, suspected=suspected)


def _change_file(batch: Batch, changed: ChangedFile) -> None:
    """Note what a file holds now, for all rows whose outputs were made from it."""
    batch.flush()
    file, row = batch.tables["row_file"], batch.tables["row"]
    here = sa.and_(file.c.place == digest(changed.location), file.c.table_id == batch.table)
    # What is gone holds nothing.
    differs = file.c.sha256 != (changed.sha256 or "")
    concerned = sa.select(file.c.row).where(here, sa.or_(file.c.changed, differs))
    rows = list(batch.connection.execute(concerned).scalars())
    batch.connection.execute(sa.update(file).where(here).values(changed=differs))
    of_row = sa.and_(file.c.table_id == row.c.table_id, file.c.row == row.c.row, file.c.changed)
    number = sa.select(sa.func.count()).select_from(file).where(of_row).scalar_subquery()
    for some in chunks(sorted(rows)):
        mine = sa.and_(row.c.table_id == batch.table, row.c.row.in_(some))
        batch.connection.execute(sa.update(row).where(mine).values(files_changed=number, accepted_revision=None))


def rows_accepted(batch: Batch, event: events.RowsAccepted) -> None:
    """Let outputs belong to their rows as they are, as a person declared."""
    states = batch.states(event.table, [accepted.row for accepted in event.rows])
    for accepted in event.rows:
        state = states.get(accepted.row)
        if state is None:
            continue
        status = "stale" if state.suspected else "current"
        batch.count([state.status], [status])
        state.status = status
        batch.update(
            batch.statements.accepted,
            accepted.row,
            status=status,
            reason=None,
            accepted_revision=accepted.revision,
            accepted_version=accepted.workflow_version,
        )
    batch.remember(sorted(states))


def rows_pinned(batch: Batch, event: events.RowsPinned) -> None:
    """Let rows stay with a workflow version."""
    row = batch.tables["row"]
    table = batch.known_table(event.table)
    follows = sa.literal(None if table is None else table.workflow_version, sa.String)
    new = sa.literal(event.workflow_version or (table and table.workflow_version), sa.String)
    is_current = sa.and_(belongs(batch.tables["row"], follows), sa.not_(row.c.suspected))
    status = sa.case((is_current, "current"), else_="stale")
    for some in chunks(event.rows):
        mine = sa.and_(row.c.table_id == event.table, row.c.row.in_(some))
        others = list(
            batch.connection.execute(
                sa.select(row.c.row).where(mine, sa.func.coalesce(row.c.pinned, follows) != new)
            ).scalars()
        )
        batch.connection.execute(sa.update(row).where(mine).values(pinned=event.workflow_version))
        # A job of another version no longer concerns its row.
        changed = sa.and_(row.c.table_id == event.table, row.c.row.in_(others))
        batch.connection.execute(sa.update(row).where(changed).values(status=status, reason=None))
    batch.count_anew()
    batch.remember(event.rows)


def element_key_set(batch: Batch, event: events.ElementKeySet) -> None:
    """Let elements be known by the value of a column."""
    batch.update_table(element_key=event.column)
