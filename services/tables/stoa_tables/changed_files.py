"""Rows whose outputs were made from files that hold something else now."""

from __future__ import annotations

from collections import defaultdict

import sqlalchemy as sa

from stoa_contracts.canonical import digest
from stoa_contracts.events.executor import FileChanged
from stoa_contracts.events.tables import RowsConfirmed, TableInvalidated
from stoa_contracts.registry import Event
from stoa_contracts.types import Cause, ChangedFile
from stoa_tables.cascade import Recorder
from stoa_tables.domain import Row, Table

__all__ = ["after_change", "follow_file"]

_MAX_CAUSES = 1000
_MAX_IDS = 20_000


def follow_file(recorder: Recorder, event: FileChanged) -> None:
    """Make rows stale whose outputs were made from what a file held before, and those current that were made from what it holds now.

    Parameters
    ----------
    recorder
        Of the transaction.
    event
        Tells of the file.
    """
    file = recorder.store.tables["row_file"]
    statement = sa.select(file.c.table_id, file.c.row, file.c.sha256, file.c.changed).where(
        file.c.place == digest(event.location)
    )
    of_tables: defaultdict[str, dict[int, tuple[bool, bool]]] = defaultdict(dict)
    for entry in recorder.connection.execute(statement):
        of_tables[entry.table_id][entry.row] = (entry.changed, entry.sha256 != event.sha256)
    now = ChangedFile(location=event.location, sha256=event.sha256, size=event.size)
    for table_id in sorted(of_tables):
        table = recorder.store.table(table_id)
        if table is not None:
            rows = recorder.store.rows(table_id, of_tables[table_id])
            recorder.record(table_id, after_change(table, rows, of_tables[table_id], now))
    recorder.settle()


def after_change(
    table: Table, rows: dict[int, Row], changed: dict[int, tuple[bool, bool]], now: ChangedFile
) -> list[Event]:
    """Decide what another content of a file means for the rows of a table that were made from it.

    Parameters
    ----------
    table
        The table.
    rows
        The rows.
    changed
        For each row whether the file held something else before than for its run, and whether it does now.
    now
        The file.
    """
    version = table.workflow_version
    stale, current = [], []
    for number, row in sorted(rows.items()):
        before, after = changed[number]
        accepted = (row.accepted_revision, row.accepted_version) == (row.revision, row.own_version(version))
        if row.suspected or not (before or after):
            continue
        belongs = _made(row, version) and row.files_changed + after - before == 0
        if not belongs and (accepted or not before):
            stale.append(number)
        elif belongs and row.status == "stale":
            current.append(number)
    if not stale and not current and all(before == after for before, after in changed.values()):
        return []

    def cause(found: list[int]) -> Cause:
        return Cause(kind="file", table=table.id, rows=found if len(found) <= _MAX_CAUSES else None)

    events: list[Event] = [
        RowsConfirmed(table=table.id, rows=some, cause=cause(current), file=now) for some in _pieces(current)
    ]
    events += [TableInvalidated(table=table.id, rows=some, cause=cause(stale), file=now) for some in _pieces(stale)]
    # The read model learns what the file holds even where no row is another one for it now.
    return events or [RowsConfirmed(table=table.id, rows=[], cause=cause([]), file=now)]


def _made(row: Row, version: str | None) -> bool:
    return (row.outputs_revision, row.outputs_version) == (row.revision, row.own_version(version))


def _pieces(rows: list[int]) -> list[list[int]]:
    return [rows[start : start + _MAX_IDS] for start in range(0, len(rows), _MAX_IDS)]
