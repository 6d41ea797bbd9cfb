"""Which column of a file fills which column of a table, and how its values are brought into the table's type and unit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from stoa_tables.column_types import normal_type
from stoa_tables.file_metadata import unescaped
from stoa_tables.problems import InvalidRequestError
from stoa_tables.values import coerce, element_type, from_text, is_array, is_optional

if TYPE_CHECKING:
    from stoa_contracts.types import Column
    from stoa_tables.file_metadata import CellForm

__all__ = ["Convert", "FileField", "Match", "Matched", "MatchedBy", "described_type", "match_columns"]

MatchedBy = Literal["mapping", "name", "similar name", "ucd", "new"]

Convert = Callable[[Any], Any]

_FACTOR_ONE = 1.0
_SHAPES = {"boolean": "boolean", "int": "whole", "long": "whole", "float": "real", "double": "real"}


@dataclass(frozen=True, slots=True)
class FileField:
    """A column of a file, as it matters for matching."""

    name: str
    type: Any
    unit: str | None = None
    ucd: str | None = None
    cells: CellForm = "plain"


@dataclass(slots=True)
class Match:
    """A column of a file, and the column of the table that it fills.

    Parameters
    ----------
    index
        The place of the file's column.
    field
        The file's column.
    column
        The table's.
    by
        What brought them together.
    factor
        What numbers are multiplied by.
    note
        What is done with units, as a sentence; empty where nothing is to be said.
    problem
        Why the column cannot be taken; empty where it can.
    """

    index: int
    field: FileField
    column: Column
    by: MatchedBy
    factor: float = _FACTOR_ONE
    note: str = ""
    problem: str = ""

    def converter(self) -> Convert:
        """Give what brings a cell of the file into the column's type."""
        kind, name = self.column.type, self.column.name
        # What stood in JSON says by itself what it is.
        fit = partial(_exactly, kind=kind, name=name) if self.field.cells == "json" else _fitting(kind, name)
        return _with_unit(_decoded(self.field.cells, fit), self)


@dataclass(slots=True)
class Matched:
    """What fits what, and what is left over."""

    matches: list[Match] = field(default_factory=list)
    unmatched_fields: dict[str, str] = field(default_factory=dict)
    """Columns of the file that are not read, and why."""
    unmatched_columns: list[Column] = field(default_factory=list)
    """Columns of the table that the file does not fill."""


def match_columns(fields: Sequence[FileField], columns: Sequence[Column], mapping: Mapping[str, str]) -> Matched:
    """Match the columns of a file with those of a table.

    A mapping that was given wins; then equal names, then names that differ only in case, blanks and underscores, then UCDs
    that only one column on each side has.

    Parameters
    ----------
    fields
        The file's columns.
    columns
        All columns of the table.
    mapping
        File column to table column.

    Raises
    ------
    InvalidRequestError
        If the mapping names a column that is not there, is not written to, or stands in it twice.
    """
    writable = {column.name: column for column in columns if column.role == "input"}
    found: dict[int, tuple[Column, MatchedBy]] = {}
    for name, target in mapping.items():
        index = _find_field(fields, name)
        found[index] = (_find_column(columns, target), "mapping")
    _refuse_doubles(mapping)
    left = [column for column in writable.values() if column.name not in mapping.values()]
    ways: list[tuple[MatchedBy, Callable[[Any], str]]] = [
        ("name", lambda item: item.name),
        ("similar name", lambda item: re.sub(r"[\s_]+", "", item.name).casefold()),
        ("ucd", lambda item: (item.ucd or "").lower().replace(" ", "")),
    ]
    for by, key in ways:
        waiting = [index for index in range(len(fields)) if index not in found]
        ours, theirs = _unique(waiting, lambda index: key(fields[index])), _unique(left, key)  # noqa: B023 - used at once
        for word in [word for word in ours if word in theirs]:
            found[ours[word]] = (theirs[word], by)
            left.remove(theirs[word])
    made = Matched(unmatched_columns=left)
    known = {column.name: column for column in columns}
    for index, item in enumerate(fields):
        if index in found:
            column, by = found[index]
            match = Match(index, item, column, by)
            _settle_unit(match)
            made.matches.append(match)
        else:
            made.unmatched_fields[item.name] = _why_unmatched(item, known)
    return made


def _find_field(fields: Sequence[FileField], name: str) -> int:
    for index, item in enumerate(fields):
        if item.name == name:
            return index
    there = ", ".join(item.name for item in fields[:20])
    raise InvalidRequestError(f"The file has no column {name!r}; it has {there}", column=name)


def _find_column(columns: Sequence[Column], name: str) -> Column:
    column = next((column for column in columns if column.name == name), None)
    if column is None:
        there = ", ".join(column.name for column in columns if column.role == "input")
        raise InvalidRequestError(f"The table has no column {name!r}; rows are imported into {there}", column=name)
    if column.role != "input":
        raise InvalidRequestError(f"The column {name!r} {_why_not(column)} and cannot be imported", column=name)
    return column


def _why_not(column: Column) -> str:
    return "is computed by the workflow" if column.role == "output" else "comes from another table"


def _refuse_doubles(mapping: Mapping[str, str]) -> None:
    targets = list(mapping.values())
    twice = next((name for name in targets if targets.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequestError(f"Two columns of the file are to fill the column {twice!r}", column=twice)


def _unique(items: Sequence[Any], key: Callable[[Any], str]) -> dict[str, Any]:
    """Map what only one item has to that item."""
    found: dict[str, list[Any]] = {}
    for item in items:
        if word := key(item):
            found.setdefault(word, []).append(item)
    return {word: some[0] for word, some in found.items() if len(some) == 1}


def _why_unmatched(item: FileField, known: Mapping[str, Column]) -> str:
    column = known.get(item.name)
    if column is not None and column.role != "input":
        return f"The column {_why_not(column)}."
    return "The table has no such column."


# --- units -------------------------------------------------------------------------------------------------------------


def _settle_unit(match: Match) -> None:
    theirs, ours = match.field.unit, match.column.unit
    if not theirs or not ours or theirs == ours:
        if theirs and not ours:
            match.note = f"The file says {theirs}, the table names no unit; the values stay as they are."
        elif ours and not theirs:
            match.note = f"The file names no unit; the values are taken as {ours}."
        return
    factor = conversion(theirs, ours)
    if factor is None:
        match.problem = f"The file says {theirs}, which cannot be converted to the table's {ours}."
    elif factor != _FACTOR_ONE:
        match.factor = factor
        match.note = f"The values are converted from {theirs} to {ours}: multiplied by {factor!r}."


@cache
def conversion(theirs: str, ours: str) -> float | None:
    """Give the factor between two units; None where there is none, or one of them is not known."""
    from astropy import units  # noqa: PLC0415 - imported when needed

    def parsed(text: str) -> Any:
        for known in ("vounit", "generic", "fits", "cds", "ogip"):
            try:
                return units.Unit(text, format=known)
            except (ValueError, TypeError):
                continue
        return None

    one, other = parsed(theirs), parsed(ours)
    if one is None or other is None:
        return None
    if one == other:
        return _FACTOR_ONE
    try:
        # Logarithmic units have no factor.
        return float(one.to(other)) if type(one) is not units.MagUnit and hasattr(one, "bases") else None
    except (units.UnitConversionError, ValueError, TypeError, AttributeError):
        return None


def _with_unit(convert: Convert, match: Match) -> Convert:
    if match.factor == _FACTOR_ONE:
        return convert
    factor = match.factor

    def scaled(value: Any) -> Any:
        if isinstance(value, list):
            return [scaled(item) for item in value]
        return value * factor if isinstance(value, int | float) and not isinstance(value, bool) else value

    def read(value: Any) -> Any:
        if isinstance(value, str):
            # The numbers of a text are numbers only once they were read.
            value = from_text(
                value, ["null", "double", {"type": "array", "items": ["null", "double"]}], name=match.column.name
            )
        return convert(scaled(value))

    return read


# --- types -------------------------------------------------------------------------------------------------------------


def _decoded(cells: CellForm, convert: Convert) -> Convert:
    if cells == "plain":
        return convert

    if cells == "empty":
        return _never_null(convert)

    def decode(value: Any) -> Any:
        if value in ("", [], None):
            return None
        if cells == "blank" or not isinstance(value, str):
            return convert(value)
        return convert(unescaped(value)) if cells == "escaped" else convert(json.loads(value))

    return decode


def _never_null(convert: Convert) -> Convert:
    def decode(value: Any) -> Any:
        if value is not None:
            return convert(value)
        try:
            return convert("")
        except ValueError:
            return convert([])

    return decode


def _fitting(kind: Any, name: str) -> Convert:
    """Give what brings a value into a type, the usual ones quickly."""
    alone = _alone(kind)
    if alone == "string":
        return _text(name)
    native = {"double": float, "boolean": bool}.get(alone) if isinstance(alone, str) else None

    def fit(value: Any) -> Any:
        return value if value is None or type(value) is native else _fit(value, kind, name)

    return fit


def _alone(kind: Any) -> Any | None:
    """Give the one type that a value may have beside null."""
    members = [member for member in (kind if isinstance(kind, list) else [kind]) if member != "null"]
    return members[0] if len(members) == 1 else None


def _exactly(value: Any, *, kind: Any, name: str) -> Any:
    return None if value is None else coerce(value, kind, name=name)


def _text(name: str) -> Convert:
    def fit(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, int | float):
            value = repr(value)
        elif isinstance(value, list | dict):
            value = json.dumps(value, ensure_ascii=False)
        return coerce(value, "string", name=name)

    return fit


def _fit(value: Any, kind: Any, name: str) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        alone = _alone(kind)
        if alone == "string" or (isinstance(alone, dict) and alone["type"] == "enum"):
            return coerce(value, kind, name=name)
        stripped = value.strip()
        return from_text(stripped, kind, name=name) if stripped else None
    if isinstance(value, list) and is_array(kind):
        items = element_type(kind)
        return [
            None
            if item is None and is_optional(items)
            else coerce(None, items, name=f"{name}[{index}]")
            if item is None
            else _fit(item, items, f"{name}[{index}]")
            for index, item in enumerate(value)
        ]
    if type(value) is int and value in (0, 1) and kind in ("boolean", ["null", "boolean"]):
        return bool(value)
    return coerce(value, kind, name=name)


def described_type(kind: Any, written: Any, cells: CellForm) -> Any | None:
    """Give the type that an exported file names for a column, where the column still looks like it.

    Parameters
    ----------
    kind
        What the file stores.
    written
        The CWL type that the export wrote down.
    cells
        How the cells were written.
    """
    try:
        named = normal_type(written, "")
    except InvalidRequestError:
        return None
    if cells in {"json", "escaped"} or _shape(kind) in {"text", _shape(named)}:
        return named
    return None


def _shape(kind: Any) -> str:
    """Tell what a file can know of a type."""
    member = _alone(kind)
    if isinstance(member, str):
        return _SHAPES.get(member, "text")
    if isinstance(member, dict) and member["type"] == "array":
        return f"list of {_shape(member['items'])}"
    return "text" if isinstance(member, dict) and member["type"] == "enum" else "mixed"
