"""The words of the domain as values, and the rules that need no database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stoa_contracts.canonical import canonical_json
from stoa_contracts.events.tables import OutputsRecorded, StatusChange
from stoa_contracts.types import Column, JobKey, RowStatus, TableKind, Values
from stoa_tables.elements import split

__all__ = [
    "Item",
    "Row",
    "Source",
    "Table",
    "find_path",
    "items",
    "same",
]


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the commands see it."""

    id: str
    name: str
    kind: TableKind
    owner: str
    project: str
    description: str
    columns: tuple[Column, ...]
    workflow_version: str | None
    next_row: int
    created: str
    derived: bool = False
    """Whether a link fills it."""
    element_key: str | None = None
    """The output column by whose value elements are known; None where their place counts."""

    def column(self, name: str) -> Column | None:
        """Find a column by its name."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def inputs(self) -> tuple[Column, ...]:
        """The columns that hold a row's inputs; keys of a join stand there too."""
        return tuple(column for column in self.columns if column.role != "output")

    @property
    def outputs(self) -> tuple[Column, ...]:
        """The columns that a run fills."""
        return tuple(column for column in self.columns if column.role == "output")

    @property
    def status_of_new_rows(self) -> RowStatus:
        """What a row is that nobody ran yet."""
        return "stale" if self.kind == "worktable" else "current"


@dataclass(frozen=True, slots=True)
class Source:
    """A row of a parent, and the element in it where it was taken apart."""

    row: int
    element: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row as the commands see it."""

    row: int
    revision: int
    status: RowStatus
    inputs: Values
    outputs: Values | None = None
    reason: str | None = None
    elements: int | None = None
    outputs_revision: int | None = None
    outputs_version: str | None = None
    outputs_job: str | None = None
    job: str | None = None
    attempt: int | None = None
    link: str | None = None
    key: str | None = None
    sources: tuple[Source | None, ...] = ()
    """The left and the right source; a keyed row has only the left one."""
    corrected: Mapping[str, Any] = field(default_factory=dict)
    outputs_inputs: str | None = None
    """The digest of the inputs from which the outputs were made."""
    outputs_key: JobKey | None = None
    outputs_files: Mapping[str, str] = field(default_factory=dict)
    """What the run read from places whose content may change: location to digest."""
    outputs_wall_s: float | None = None
    files_changed: int = 0
    accepted_revision: int | None = None
    accepted_version: str | None = None
    suspected: bool = False
    """Whether something that the row depends on is not settled."""
    pinned: str | None = None
    """The workflow version with which the row stays."""

    def own_version(self, workflow_version: str | None) -> str | None:
        """Give the workflow version that counts for this row, in a table that has this one."""
        return self.pinned or workflow_version

    def belongs(self, workflow_version: str | None) -> bool:
        """Tell whether the outputs belong to the row as it is, in a table that has this workflow version."""
        if self.outputs is None:
            return False
        own = self.own_version(workflow_version)
        made = (self.outputs_revision, self.outputs_version) == (self.revision, own) and not self.files_changed
        return made or (self.accepted_revision, self.accepted_version) == (self.revision, own)

    def outdated(self, workflow_version: str | None) -> bool:
        """Tell whether outputs are shown that belong to other inputs, files, or another workflow version."""
        return self.outputs is not None and not self.belongs(workflow_version)

    def settled(self, job: str) -> bool:
        """Tell whether a job has said its last word about this row."""
        if self.status in {"failed", "cancelled"}:
            return self.job == job
        return self.outputs_job == job

    def superseded(self, job: str) -> bool:
        """Tell whether the row has a newer job: ids of jobs sort by the time they were made."""
        return self.job is not None and job < self.job

    def with_status(self, change: StatusChange) -> Row:
        """Give the row as it is after a change of its status."""
        job = (self.job, self.attempt) if change.job is None else (change.job, change.attempt)
        return replace(self, status=change.status, reason=change.reason, job=job[0], attempt=job[1])

    def with_outputs(self, event: OutputsRecorded) -> Row:
        """Give the row as it is after outputs were recorded that belong to it."""
        newest = self.job is None or event.job >= self.job
        return replace(
            self,
            status="stale" if self.suspected else "current",
            reason=None,
            outputs=event.outputs,
            elements=event.elements,
            outputs_revision=self.revision,
            outputs_files={file.location: file.sha256 for file in event.files},
            files_changed=0,
            accepted_revision=None,
            outputs_version=event.workflow_version,
            outputs_job=event.job,
            job=event.job if newest else self.job,
            attempt=event.attempt if newest else self.attempt,
        )


@dataclass(frozen=True, slots=True)
class Item:
    """What a parent offers to its children: a row as a whole, or one of its elements."""

    source: Source
    values: Values


def items(row: Row, columns: Sequence[Column], *, per: str, needs_outputs: bool = True) -> Iterator[Item]:
    """Take a row apart into what children see.

    Parameters
    ----------
    row
        Of the parent.
    columns
        The parent's columns.
    per
        ``row`` or ``element``.
    needs_outputs
        Whether a child takes any output column: then a row that never ran offers nothing yet. How many elements such a
        row has is not known either.
    """
    has_outputs = any(column.role == "output" for column in columns)
    if row.outputs is None:
        if not has_outputs or (per == "row" and not needs_outputs):
            yield Item(Source(row.row), row.inputs)
        return
    elements = split(row.outputs, columns)[1] if per == "element" else None
    if elements is None:
        yield Item(Source(row.row), {**row.inputs, **row.outputs})
        return
    for number, outputs in enumerate(elements):
        yield Item(Source(row.row, number), {**row.inputs, **outputs})


#: Values of these types are the same as JSON where they are equal and of one type. A float is not: 0.0 equals -0.0.
_WRITTEN_ALIKE = frozenset({str, int, bool, type(None)})


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same, as JSON: 1 is not true, and not 1.0."""
    if one is other:
        return True
    if type(one) in _WRITTEN_ALIKE and type(other) in _WRITTEN_ALIKE:
        return type(one) is type(other) and bool(one == other)
    return canonical_json(one) == canonical_json(other)


def find_path(links: Iterable[tuple[str, Sequence[str]]], start: str, goal: str) -> list[str] | None:
    """Find a way down the graph of tables.

    Parameters
    ----------
    links
        Child and parents of each link.
    start, goal
        Tables.

    Returns
    -------
    list of str
        The tables from start to goal, each a parent of the next; None where there is no way.
    """
    children: dict[str, list[str]] = {}
    for child, parents in links:
        for parent in parents:
            children.setdefault(parent, []).append(child)
    came_from: dict[str, str | None] = {start: None}
    waiting = [start]
    for table in waiting:
        if table == goal:
            path = [table]
            while (before := came_from[path[-1]]) is not None:
                path.append(before)
            return path[::-1]
        for child in children.get(table, []):
            if child not in came_from:
                came_from[child] = table
                waiting.append(child)
    return None
