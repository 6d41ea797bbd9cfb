"""Evolve: outputs that came in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoa_contracts.events import tables as events
from stoa_contracts.keys import inputs_digest, job_inputs
from stoa_tables.elements import split

if TYPE_CHECKING:
    from stoa_tables.projection import Batch

__all__ = ["outputs_imported"]


def outputs_imported(batch: Batch, event: events.OutputsImported) -> None:
    """Give rows outputs that were computed elsewhere, as if a run of theirs had made them."""
    numbers = [imported.row for imported in event.rows]
    batch.remember(numbers)
    table = batch.known_table(event.table)
    states, inputs = batch.states(event.table, numbers), batch.inputs(event.table, numbers)
    if table is None:
        return
    parameters = [column for column in table.columns if column.role == "input"]
    for imported in event.rows:
        state = states.get(imported.row)
        own = state and (state.pinned or table.workflow_version)
        if state is None or state.revision != imported.revision or own != event.workflow_version:
            continue
        status = "stale" if state.suspected else "current"
        batch.count([state.status], [status])
        state.status = status
        batch.update(
            batch.statements.reused_outputs,
            imported.row,
            status=status,
            reason=None,
            outputs=imported.outputs,
            elements=imported.elements,
            outputs_revision=state.revision,
            outputs_version=event.workflow_version,
            outputs_job=None,
            outputs_inputs=inputs_digest(job_inputs(parameters, inputs[imported.row].values)),
            outputs_key=None,
            outputs_files=None,
            files_changed=0,
            accepted_revision=None,
            job=state.job,
            attempt=state.attempt,
        )
        batch.replace_files(imported.row, {}, had=state.has_files)
        state.has_files = False
        elements = split(imported.outputs, table.columns)[1] if imported.elements else None
        batch.replace_elements(imported.row, elements or (), had=bool(state.elements))
        state.elements = imported.elements
    batch.index_for_joins(numbers)
