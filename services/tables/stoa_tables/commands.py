"""Decide: what follows from a command and the present state. Pure functions; nothing here reads or writes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from stoa_contracts.events.tables import (
    ColumnDescribed,
    DerivedValues,
    DerivedValuesChanged,
    EditedRow,
    GroupMembersChanged,
    MovedRow,
    RowEdited,
    RowsAdded,
    RowsConfirmed,
    RowsRemoved,
    RowStatusChanged,
    SourcesMoved,
    StatusChange,
    TableCreated,
    TableDeleted,
    TableInvalidated,
    TableLinked,
    TableRenamed,
    WorkflowChanged,
)
from stoa_contracts.registry import Event
from stoa_contracts.types import (
    Cause,
    Column,
    Derivation,
    FileReference,
    LinkSpecification,
    RowInputs,
    SourceElement,
    TableKind,
    Values,
    table_name_pattern,
)
from stoa_tables.column_checks import check_display
from stoa_tables.corrections import taken_back
from stoa_tables.derivation import Difference, Wanted
from stoa_tables.domain import Row, Source, Table, find_path, same
from stoa_tables.offers import Offer, columns_taken
from stoa_tables.packing import pack, size_of_edit, size_of_row, size_of_values
from stoa_tables.problems import (
    ConflictError,
    CycleError,
    InvalidFilterError,
    InvalidRequestError,
    InvalidValuesError,
    NotFoundError,
)
from stoa_tables.values import InvalidRowError, InvalidValueError, check_row, element_type, fill_defaults

__all__ = [
    "DescribedWorkflow",
    "Edit",
    "RowsChangedError",
    "add_rows",
    "apply_difference",
    "change_workflow",
    "check_name",
    "create_table",
    "delete_table",
    "describe_column",
    "edit_rows",
    "import_rows",
    "join_columns",
    "join_specification",
    "keyed_specification",
    "refuse_derived",
    "remove_rows",
    "rename_table",
]

#: How many row ids an event may list.
_MAX_IDS = 20_000

#: How many rows a cause names before it stands for the whole table.
_MAX_CAUSES = 1000


@dataclass(frozen=True, slots=True)
class DescribedWorkflow:
    """A workflow version that was found valid."""

    version: str
    main: str
    process_class: str
    files: Sequence[FileReference]
    columns: Sequence[Column]
    label: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """New values for cells of a row."""

    row: int
    values: Values
    revision: int | None = None
    """The revision that the editor saw."""


class RowsChangedError(Exception):
    """Somebody else changed a row first."""

    def __init__(self, edit: Edit, row: Row) -> None:
        super().__init__(f"Row {row.row} is at revision {row.revision}, not at {edit.revision}")
        self.edit = edit
        self.row = row


# --- tables ------------------------------------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """Check what a table is to be called.

    Raises
    ------
    InvalidRequestError
        If it is no name for a table.
    """
    if not table_name_pattern.fullmatch(name):
        raise InvalidRequestError(
            f"{name!r} is no name for a table: it begins with a letter and has up to 63 letters, digits, _ and -",
            name=name,
        )
    return name


def create_table(
    table: str,
    *,
    name: str,
    kind: TableKind,
    owner: str,
    project: str = "default",
    description: str = "",
    columns: Sequence[Column] = (),
) -> list[Event]:
    """Create a table.

    Raises
    ------
    InvalidRequestError
        If the name is no name, or two columns have the same one.
    """
    names = [column.name for column in columns]
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise InvalidRequestError(f"Two columns are called {twice[0]!r}; every column needs a name of its own")
    check_name(name)
    return [
        TableCreated(
            table=table,
            name=name,
            kind=kind,
            owner=owner,
            project=project,
            description=description,
            columns=list(columns),
        )
    ]


def rename_table(table: Table, *, name: str | None, description: str | None) -> list[Event]:
    """Change what a table is called and described as."""
    new_name = table.name if name is None else check_name(name)
    new_description = table.description if description is None else description
    if (new_name, new_description) == (table.name, table.description):
        return []
    previous = {"name": table.name, "description": table.description}
    return [TableRenamed(table=table.id, name=new_name, description=new_description, previous=previous)]


def delete_table(table: Table, children: Sequence[str]) -> list[Event]:
    """Delete a table.

    Parameters
    ----------
    table
        The table.
    children
        The names of the tables that are filled from it.

    Raises
    ------
    ConflictError
        If there are any.
    """
    if children:
        raise ConflictError(
            f"{table.name} cannot be deleted, because {_listed(children)} {'is' if len(children) == 1 else 'are'} filled from it: "
            "delete what depends on it first, or say with `children` what becomes of it",
            children=list(children),
        )
    return [TableDeleted(table=table.id, name=table.name)]


def describe_column(table: Table, name: str, changes: Mapping[str, Any]) -> list[Event]:
    """Change what is said of a column.

    Parameters
    ----------
    table
        The table.
    name
        The column's name.
    changes
        Any of label, unit, ucd, utype, description and display.

    Raises
    ------
    NotFoundError
        If the table has no such column.
    InvalidRequestError
        If its values cannot be shown like this.
    """
    column = table.column(name)
    if column is None:
        raise NotFoundError(f"The table {table.name} has no column {name!r}{_guess(name, table)}")
    described = column.model_copy(update=dict(changes))
    if described == column:
        return []
    check_display(described)
    return [ColumnDescribed(table=table.id, column=described, previous=column)]


def change_workflow(
    table: Table,
    workflow: DescribedWorkflow,
    *,
    fills: Sequence[LinkSpecification] = (),
    feeds: Sequence[tuple[str, LinkSpecification]] = (),
    rows: Sequence[int] = (),
    stale: Sequence[int] = (),
    current: Sequence[int] = (),
) -> list[Event]:
    """Give a worktable another workflow version.

    What people said of columns stays with them, where the new version says nothing else.

    Parameters
    ----------
    table
        The table.
    workflow
        The new version.
    fills
        The links that fill the table.
    feeds
        The links that the table feeds, with the names of their children.
    rows
        The ids of all rows.
    stale
        The ids of those whose outputs came from another version.
    current
        The ids of those whose outputs came from the new version.

    Raises
    ------
    ConflictError
        If the table takes no workflow, or a link needs a column that would vanish.
    """
    if table.kind != "worktable":
        raise ConflictError(f"{table.name} is a {table.kind} table; only worktables have a workflow")
    if workflow.version == table.workflow_version:
        return []
    _check_links(table, workflow, fills, feeds)
    known = {column.name: column for column in table.columns}
    columns = [keep_description(column, known.get(column.name)) for column in workflow.columns]
    changed = WorkflowChanged(
        table=table.id,
        workflow_version=workflow.version,
        previous_version=table.workflow_version,
        main=workflow.main,
        process_class=workflow.process_class,
        files=list(workflow.files),
        columns=columns,
        label=workflow.label,
        description=workflow.description,
    )
    cause = Cause(kind="workflow", table=table.id, workflow_version=workflow.version)
    return [changed, *confirm(table.id, current, cause), *invalidate(table.id, stale, cause, total=len(rows))]


def _check_links(
    table: Table,
    workflow: DescribedWorkflow,
    fills: Sequence[LinkSpecification],
    feeds: Sequence[tuple[str, LinkSpecification]],
) -> None:
    inputs = {column.name for column in workflow.columns if column.role == "input"}
    described = replace(table, columns=tuple(workflow.columns))
    for link in fills:
        for name in link.mapping:
            if name not in inputs:
                raise ConflictError(
                    f"The new workflow of {table.name} has no input {name!r}, which a link fills", column=name
                )
        try:
            check_filled(link, described)
        except InvalidRequestError as error:
            raise ConflictError(f"The new workflow of {table.name} does not fit its link: {error}") from None
    names = {column.name for column in workflow.columns}
    for child, link in feeds:
        for name in needed_columns(link, table):
            if name not in names:
                raise ConflictError(
                    f"The new workflow of {table.name} has no column {name!r}, from which {child} is filled",
                    column=name,
                )
        try:
            Offer.through(link, described)
        except InvalidFilterError as error:
            raise ConflictError(
                f"The new workflow of {table.name} does not fit the link that fills {child}: {error}"
            ) from None


def needed_columns(link: LinkSpecification, table: Table) -> set[str]:
    """Name the columns of a parent without which a link cannot be."""
    if link.kind == "keyed":
        return columns_taken(link, table)
    needed = set()
    for side, parent in enumerate(link.parents):
        if parent == table.id:
            needed |= {name.partition(".")[2] for name in link.mapping.values() if name.startswith(f"{side}.")}
            needed |= {pair[side] for pair in link.on}
    return needed


def keep_description(column: Column, known: Column | None) -> Column:
    """Keep what people said of a column, where nothing else is said of it now."""
    if known is None:
        return column
    kept = {
        name: getattr(known, name)
        for name in ("label", "description", "unit", "ucd", "utype", "display")
        if getattr(column, name) is None and getattr(known, name) is not None
    }
    return column.model_copy(update=kept) if kept else column


def invalidate(table: str, rows: Sequence[int], cause: Cause, *, total: int, suspected: bool = False) -> list[Event]:
    """Tell which rows became stale, or are suspected, and why; nothing where none did."""
    if not rows:
        return []
    if len(rows) >= total:
        return [TableInvalidated(table=table, cause=cause, rows=None, suspected=suspected)]
    return [
        TableInvalidated(table=table, cause=cause, rows=list(rows[start : start + _MAX_IDS]), suspected=suspected)
        for start in range(0, len(rows), _MAX_IDS)
    ]


def confirm(table: str, rows: Sequence[int], cause: Cause) -> list[Event]:
    """Tell which rows are current without a run, and why; nothing where none is."""
    return [
        RowsConfirmed(table=table, rows=list(rows[start : start + _MAX_IDS]), cause=cause)
        for start in range(0, len(rows), _MAX_IDS)
    ]


# --- rows --------------------------------------------------------------------------------------------------------------


def add_rows(table: Table, rows: Iterable[Values], *, event_bytes: int, checked: bool = False) -> list[RowsAdded]:
    """Add rows that a person or a file brings.

    Parameters
    ----------
    table
        The table.
    rows
        Column to value.
    event_bytes
        About how large an event may become.
    checked
        Whether the rows are complete and hold only what their columns take.

    Raises
    ------
    ConflictError
        If the table's rows come from other tables.
    InvalidValuesError
        Names every cell whose value cannot be taken.
    """
    refuse_derived(table)
    if not checked:
        rows = _check_rows(table, rows)
    numbered = (RowInputs(row=row, inputs=inputs) for row, inputs in enumerate(rows, table.next_row))
    return [RowsAdded(table=table.id, rows=some) for some in pack(numbered, size_of_row, event_bytes)]


def import_rows(table: Table, rows: Iterable[Values], file: FileReference, *, event_bytes: int) -> Iterator[RowsAdded]:
    """Add rows that were read from a file, complete and checked, one event after the other.

    Raises
    ------
    ConflictError
        If the table's rows come from other tables.
    """
    refuse_derived(table)
    numbered = (RowInputs.model_construct(row=row, inputs=inputs) for row, inputs in enumerate(rows, table.next_row))
    for some in pack(numbered, size_of_row, event_bytes):
        yield RowsAdded.model_construct(table=table.id, rows=some, cause=None, imported_from=file)


def refuse_derived(table: Table) -> None:
    """Refuse rows that a person or a file brings, where a table's rows come from other tables.

    Raises
    ------
    ConflictError
        If they do.
    """
    if table.kind == "join" or table.derived:
        raise ConflictError(f"The rows of {table.name} come from other tables; rows cannot be added by hand")


def _check_rows(table: Table, rows: Iterable[Values]) -> list[Values]:
    checked, errors = list[Values](), list[dict[str, Any]]()
    for index, values in enumerate(rows):
        try:
            checked.append(fill_defaults(table.columns, check_row(table.columns, values)))
        except InvalidRowError as error:
            errors += _errors(error, f"row {index + 1} of the request", index=index)
    if errors:
        raise InvalidValuesError(errors)
    return checked


def _errors(error: InvalidRowError, where: str, **place: Any) -> list[dict[str, Any]]:
    return [{**place, "column": item.name, "message": f"{where}, {item.name}: {item.message}"} for item in error.errors]


def edit_rows(
    table: Table, rows: Mapping[int, Row], edits: Sequence[Edit], *, event_bytes: int, reason: str | None = None
) -> list[RowEdited]:
    """Change cells of rows: all of them, or none.

    A derived cell that gets another value is corrected, and one that gets the derived value is corrected no longer.

    Parameters
    ----------
    table
        The table.
    rows
        Those of the rows that exist.
    edits
        What is to change. A cell that has the value already does not change.
    event_bytes
        About how large an event may become.
    reason
        Why, in the editor's words.

    Raises
    ------
    ConflictError
        If the table is a join.
    NotFoundError
        If a row does not exist.
    RowsChangedError
        If a row has another revision than the editor saw.
    InvalidValuesError
        Names every cell whose value cannot be taken.
    """
    if table.kind == "join":
        raise ConflictError(f"{table.name} is a join: its cells are edited in the tables that they come from")
    errors = list[dict[str, Any]]()
    changed: dict[int, EditedRow] = {}
    for edit in edits:
        row = rows.get(edit.row)
        if row is None:
            raise NotFoundError(f"The table {table.name} has no row {edit.row}", row=edit.row)
        if edit.revision is not None and edit.revision != row.revision:
            raise RowsChangedError(edit, row)
        if edit.row in changed:
            raise InvalidRequestError(f"Row {edit.row} is edited twice in one request")
        try:
            values = check_row(table.columns, edit.values)
        except InvalidRowError as error:
            errors += _errors(error, f"row {edit.row}", row=edit.row)
            continue
        changes = {name: value for name, value in values.items() if not same(row.inputs.get(name), value)}
        if changes:
            previous = {name: row.inputs.get(name) for name in changes}
            changed[edit.row] = EditedRow(
                row=edit.row,
                revision=row.revision + 1,
                changes=changes,
                previous=previous,
                reset=taken_back(row, changes),
            )
    if errors:
        raise InvalidValuesError(errors)
    packed = pack(changed.values(), size_of_edit, event_bytes)
    return [RowEdited(table=table.id, rows=some, reason=reason) for some in packed]


def remove_rows(table: Table, rows: Mapping[int, Row], wanted: Sequence[int]) -> list[RowsRemoved]:
    """Remove rows.

    Raises
    ------
    ConflictError
        If a row comes from another table.
    NotFoundError
        If a row does not exist.
    """
    for number in wanted:
        row = rows.get(number)
        if row is None:
            raise NotFoundError(f"The table {table.name} has no row {number}", row=number)
        if row.link is not None:
            raise ConflictError(
                f"Row {number} of {table.name} comes from another table and cannot be removed by hand: remove its source there",
                row=number,
            )
    ids = sorted(set(wanted))
    return [RowsRemoved(table=table.id, rows=ids[start : start + _MAX_IDS]) for start in range(0, len(ids), _MAX_IDS)]


# --- links -------------------------------------------------------------------------------------------------------------


def keyed_specification(  # noqa: PLR0913 - a link says so much
    link: str,
    child: Table,
    parent: Table,
    *,
    per: Literal["row", "element", "group"],
    mapping: Mapping[str, str],
    keys: Sequence[str] | None,
    filter: str | None = None,  # noqa: A002 - the word on the wire
    graph: Sequence[tuple[str, Sequence[str]]],
    names: Mapping[str, str],
) -> LinkSpecification:
    """Check a link that fills a worktable's inputs from a parent.

    Parameters
    ----------
    link
        Its id.
    child, parent
        The tables.
    per
        Whether each row, each element or each group of the parent gives a row.
    mapping
        Child column to parent column.
    keys
        The child columns that make a row's identity; None for all mapped ones where elements give rows, else none. Groups
        need some.
    filter
        What has to hold for a row or an element of the parent.
    graph
        Child and parents of every link there is.
    names
        Names of tables by id, to write the path of a cycle.

    Raises
    ------
    CycleError
        With the path that the link would close.
    ConflictError
        If the child is no worktable.
    InvalidRequestError
        If a column does not exist or cannot be filled.
    InvalidFilterError
        If the filter cannot be read.
    """
    if child.kind != "worktable":
        raise ConflictError(
            f"{child.name} is a {child.kind} table; only the inputs of a worktable can be filled from another table"
        )
    path = find_path(graph, child.id, parent.id)
    if path is not None:
        written = [names.get(table, table) for table in [*path, child.id]]
        raise CycleError(f"{child.name} would depend on itself: {' -> '.join(written)}", path=written)
    if not mapping:
        raise InvalidRequestError("A link has to fill at least one column")
    for to, source in mapping.items():
        column = child.column(to)
        if column is None:
            raise InvalidRequestError(f"The table {child.name} has no column {to!r}{_guess(to, child)}", column=to)
        if column.role != "input":
            raise InvalidRequestError(
                f"The column {to!r} of {child.name} is computed by its workflow; a link fills inputs", column=to
            )
        _check_column(parent, source)
    chosen = list(mapping) if keys is None and per == "element" else list(keys or ())
    for name in chosen:
        if name not in mapping:
            raise InvalidRequestError(f"The key {name!r} is not among the columns that the link fills", column=name)
    specification = LinkSpecification(
        link=link,
        kind="keyed",
        parents=[parent.id],
        per=per,
        mapping=dict(mapping),
        keys=chosen,
        filter=filter if filter and filter.strip() else None,
    )
    check_filled(specification, child)
    Offer.through(specification, parent)
    return specification


def check_filled(link: LinkSpecification, child: Table) -> None:
    """Check that a table's columns take what a link gives.

    Raises
    ------
    InvalidRequestError
        If rows are to be derived per group, and there is no key, or a column takes no array.
    """
    if link.per != "group":
        return
    if not link.keys:
        raise InvalidRequestError(
            "Rows per group need keys: the columns in which all rows or elements of a group are equal"
        )
    for name in link.mapping:
        column = child.column(name)
        if name not in link.keys and column is not None and element_type(column.type) is None:
            raise InvalidRequestError(
                f"The column {name!r} of {child.name} takes no array, but in a row per group it holds the values of the whole "
                "group: make it a key, or an array",
                column=name,
            )


def join_specification(
    link: str,
    left: Table,
    right: Table,
    *,
    kind: Literal["inner", "left"],
    on: Sequence[tuple[str, str]],
    columns: Mapping[str, str] | None,
) -> LinkSpecification:
    """Check a join, and choose its columns where nobody did.

    Without a choice a join has all columns of the left parent and those of the right one on which it does not join. Where
    both have a name, the right one is called ``<right table>_<name>``.

    Raises
    ------
    InvalidRequestError
        If a column does not exist.
    """
    if not on:
        raise InvalidRequestError("A join needs at least one pair of columns that have to be equal")
    for left_name, right_name in on:
        _check_column(left, left_name)
        _check_column(right, right_name)
    if columns is None:
        mapping = {column.name: f"0.{column.name}" for column in left.columns}
        for column in right.columns:
            if column.name in {pair[1] for pair in on}:
                continue
            name = column.name
            while name in mapping:
                name = f"{right.name}_{name}"
            mapping[name] = f"1.{column.name}"
    else:
        mapping = dict(columns)
        for source in mapping.values():
            side, _, name = source.partition(".")
            if side not in {"0", "1"}:
                raise InvalidRequestError(
                    f"A column of a join is written 0.column or 1.column, not {source!r}", column=source
                )
            _check_column(left if side == "0" else right, name)
    return LinkSpecification(
        link=link,
        kind=kind,
        parents=[left.id, right.id],
        per="element",
        mapping=mapping,
        on=[(one, other) for one, other in on],
    )


def join_columns(link: LinkSpecification, left: Table, right: Table) -> list[Column]:
    """Give the columns of a join: what its parents say of theirs, with one element's type where they hold arrays."""
    columns = []
    for name, source in link.mapping.items():
        side, _, parent_name = source.partition(".")
        column = (left if side == "0" else right).column(parent_name)
        if column is None:
            raise InvalidRequestError(f"There is no column {parent_name!r}", column=parent_name)
        item = element_type(column.type) if column.role == "output" else None
        columns.append(
            column.model_copy(
                update={"name": name, "role": "key", "type": column.type if item is None else item, "default": None}
            )
        )
    return columns


def _check_column(table: Table, name: str) -> None:
    if table.column(name) is None:
        raise InvalidRequestError(f"The table {table.name} has no column {name!r}{_guess(name, table)}", column=name)


def link_tables(child: str, link: LinkSpecification) -> list[Event]:
    """Fill a table from others from now on."""
    return [TableLinked(table=child, link=link)]


# --- what follows downstream -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """What a difference does to a derived table."""

    events: list[Event]
    changed: set[int]
    """Rows that are new, gone or have other inputs."""
    stale: list[int]
    """Those that have to be computed anew."""


def apply_difference(
    table: Table, link: LinkSpecification, difference: Difference, cause: Cause, *, event_bytes: int
) -> Applied:
    """Bring a derived table up to date.

    Parameters
    ----------
    table
        The child.
    link
        The link through which it is filled.
    difference
        What has to change.
    cause
        What happened upstream.
    event_bytes
        About how large an event may become.
    """
    events: list[Event] = [
        GroupMembersChanged(table=table.id, link=link.link, members=some)
        for some in pack(difference.members, lambda _: 120, event_bytes)
    ]
    removed = sorted(row.row for row in difference.removed)
    events += [
        RowsRemoved(table=table.id, rows=removed[start : start + _MAX_IDS], cause=cause)
        for start in range(0, len(removed), _MAX_IDS)
    ]
    problems: list[StatusChange] = []
    edits: list[EditedRow] = []
    for row, changes, wanted in difference.edited:
        previous = {name: row.inputs.get(name) for name in changes}
        edits.append(EditedRow(row=row.row, revision=row.revision + 1, changes=changes, previous=previous))
        if wanted.problem:
            problems.append(StatusChange(row=row.row, revision=row.revision + 1, status="stale", reason=wanted.problem))
    edits.sort(key=lambda edit: edit.row)
    events += [RowEdited(table=table.id, rows=some, cause=cause) for some in pack(edits, size_of_edit, event_bytes)]
    under = [DerivedValues(row=row.row, values=values) for row, values in difference.under]
    under.sort(key=lambda item: item.row)
    events += [
        DerivedValuesChanged(table=table.id, rows=some, cause=cause)
        for some in pack(under, lambda item: size_of_values(item.values) + 40, event_bytes)
    ]
    added: list[RowInputs] = []
    for number, wanted in enumerate(difference.added, table.next_row):
        # Values of a join are taken as they are, and those of a keyed link were made to fit.
        inputs = fill_defaults(table.columns, wanted.values)
        added.append(RowInputs(row=number, inputs=inputs, derived_from=_derivation(link, wanted)))
        if wanted.problem:
            problems.append(StatusChange(row=number, revision=1, status="stale", reason=wanted.problem))
    events += [RowsAdded(table=table.id, rows=some, cause=cause) for some in pack(added, size_of_row, event_bytes)]
    moved = sorted(
        (MovedRow(row=row.row, derived_from=_derivation(link, wanted)) for row, wanted in difference.moved),
        key=lambda item: item.row,
    )
    events += [SourcesMoved(table=table.id, rows=some) for some in pack(moved, lambda _: 400, event_bytes)]
    if table.kind == "worktable":
        events += [
            RowStatusChanged(table=table.id, changes=some) for some in pack(problems, lambda _: 400, event_bytes)
        ]
    new = [row.row for row in added]
    edited = [edit.row for edit in edits]
    stale = sorted([*new, *edited]) if table.kind == "worktable" else []
    return Applied(events, {*removed, *new, *edited}, stale)


def upstream_cause(table: str, rows: Sequence[int], kind: Literal["upstream", "link"] = "upstream") -> Cause:
    """Name the table and the rows where a change happened."""
    named = list(rows) if len(rows) <= _MAX_CAUSES and kind == "upstream" else None
    return Cause(kind=kind, table=table, rows=named)


def _derivation(link: LinkSpecification, wanted: Wanted) -> Derivation:
    sources = [
        _source(parent, source)
        for parent, source in zip(link.parents, wanted.sources, strict=False)
        if source is not None
    ]
    return Derivation(link=link.link, key=wanted.key, sources=sources)


def _source(table: str, source: Source) -> SourceElement:
    return SourceElement(table=table, row=source.row, element=source.element)


# --- helpers -----------------------------------------------------------------------------------------------------------


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _guess(name: str, table: Table) -> str:
    names = [column.name for column in table.columns]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; it has {_listed(names[:20])}" if names else ""


__all__ += [
    "Applied",
    "InvalidValueError",
    "check_filled",
    "confirm",
    "invalidate",
    "keep_description",
    "link_tables",
    "needed_columns",
    "upstream_cause",
]
