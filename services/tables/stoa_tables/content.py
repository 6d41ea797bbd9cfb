"""Whether outputs belong to a row: decided by what the run read, not by when the row was edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoa_contracts.events import tables as events
from stoa_contracts.keys import inputs_digest, job_inputs
from stoa_contracts.types import Cause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stoa_contracts.events.executor import JobFinished
    from stoa_contracts.registry import Event
    from stoa_tables.domain import Row, Table
    from stoa_tables.store import Parameter, Run, Store

__all__ = ["belongs_to", "cause_of", "restored", "restoring", "touched_rows"]

#: How many rows a cause names before it stands for the whole table.
_MAX_CAUSES = 1000


def restored(run: Run, edit: events.EditedRow, parameters: Sequence[Parameter]) -> bool:
    """Tell whether a row has the inputs again from which its outputs were made.

    Parameters
    ----------
    run
        What is known of that run, and the row's inputs before the edit.
    edit
        What changes.
    parameters
        The inputs of the workflow version that ran.
    """
    return inputs_digest(job_inputs(parameters, {**run.inputs, **edit.changes})) == run.digest


def restoring(store: Store, event: events.RowEdited) -> events.RowEdited:
    """Say of edits whether the outputs that the rows have belong to their new inputs.

    The rows are read as they are before the edit.
    """
    runs = store.runs(event.table, [edit.row for edit in event.rows])
    if not runs:
        return event
    table = store.table(event.table)
    parameters = {run.version: store.parameters(run.version) for run in runs.values() if run.version is not None}
    rows = []
    for edit in event.rows:
        run = runs.get(edit.row)
        known = None if run is None or run.version is None else parameters.get(run.version)
        if table is not None and run is not None and known is not None and restored(run, edit, known):
            right_version = run.version == (run.pinned or table.workflow_version)
            is_current = right_version and not run.files_changed and not run.suspected
            rows.append(edit.model_copy(update={"restored": True, "current": is_current}))
        else:
            rows.append(edit)
    return event.model_copy(update={"rows": rows})


def belongs_to(table: Table, row: Row, event: JobFinished, parameters: Sequence[Parameter] | None) -> bool:
    """Tell whether what a job gave belongs to its row as it is now.

    Parameters
    ----------
    table, row
        As they are.
    event
        Tells of the job.
    parameters
        The inputs of the workflow version that ran.
    """
    own = row.own_version(table.workflow_version)
    if event.workflow_version != own:
        return False
    if event.revision == row.revision:
        return True
    if event.key is None or parameters is None or row.belongs(table.workflow_version):
        return False
    return inputs_digest(job_inputs(parameters, row.inputs)) == event.key.inputs


def touched_rows(event: Event) -> set[int] | None:
    """Tell which rows may be settled after an event and were not, or the other way round; None for all of the table's."""
    match event:
        case events.WorkflowChanged() | events.LinkChanged():
            return None
        case events.TableInvalidated() | events.RowsConfirmed():
            return None if event.rows is None else set(event.rows)
        case events.RowStatusChanged():
            return {change.row for change in event.changes}
        case events.OutputsRecorded():
            return {event.row}
        case (
            events.RowsAdded()
            | events.RowEdited()
            | events.RowsAccepted()
            | events.RowsRestored()
            | events.OutputsImported()
            | events.SourcesMoved()
        ):
            return {row.row for row in event.rows}
    return set()


def cause_of(event: Event) -> Cause:
    """Name an event as the cause of what follows from it in other tables."""
    match event:
        case events.WorkflowChanged():
            return Cause(kind="workflow", table=event.table, workflow_version=event.workflow_version)
        case events.TableInvalidated() | events.RowsConfirmed():
            return event.cause
        case events.RowsAdded() | events.RowEdited() if event.cause is not None:
            return event.cause
        case events.OutputsRecorded() | events.RowStatusChanged() | events.OutputsImported() | events.SourcesMoved():
            kind = "upstream"
        case events.TableUnlinked() | events.TableLinked() | events.LinkChanged():
            kind = "link"
        case _:
            kind = "edit"
    rows = sorted(touched_rows(event) or ())
    table = getattr(event, "table", None)
    return Cause.model_validate({"kind": kind, "table": table, "rows": rows if 0 < len(rows) <= _MAX_CAUSES else None})
