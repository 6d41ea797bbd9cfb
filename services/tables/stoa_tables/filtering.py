"""Turns what a request says of filters, order and page into SQL. Values are always bound parameters."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from stoa_contracts.types import Column
from stoa_tables.domain import Table
from stoa_tables.problems import InvalidFilterError
from stoa_tables.values import element_type, sort_kind

__all__ = ["Cells", "Cursor", "conditions", "order"]

_OPERATORS = ("<=", ">=", "!=", "=", "<", ">", "~")

#: What can be filtered and sorted beside the columns, where no column has the name.
_SPECIAL = {
    "row": "number",
    "status": "text",
    "revision": "number",
    "element": "number",
    "corrected": "text",
    "review": "text",
    "comments": "number",
}

# SQLite's JSON paths cannot say every key; what they can is quicker than looking through all keys.
_PLAIN_NAME = re.compile(r"^[ !#-\[\]-~]+$")

_INT64 = 2**63


@dataclass(frozen=True)
class Cells:
    """Where the values of a view stand in SQL."""

    table: Table
    dialect: str
    inputs: sa.ColumnElement[Any]
    outputs: sa.ColumnElement[Any]
    special: Mapping[str, sa.ColumnElement[Any]]
    elements: bool = False
    """Whether arrays were taken apart."""
    marks: Mapping[str, Callable[[str, str], sa.ColumnElement[bool]]] = field(default_factory=dict)
    """What is no value of a row, by name: gives the condition for an operator and a text."""

    def find(self, name: str) -> tuple[sa.ColumnElement[Any], str]:
        """Give a column's value in SQL and how it is compared.

        Raises
        ------
        InvalidFilterError
            If there is no such column.
        """
        column = self.table.column(name)
        if column is None:
            if name in self.special:
                return self.special[name], _SPECIAL[name]
            known = ", ".join(item.name for item in self.table.columns[:20])
            raise InvalidFilterError(f"The table {self.table.name} has no column {name!r}; it has {known}", column=name)
        kind = self._kind(column)
        source = self.outputs if column.role == "output" else self.inputs
        return self._value(source, column.name, kind), kind

    def _kind(self, column: Column) -> str:
        item = element_type(column.type) if self.elements and column.role == "output" else None
        return sort_kind(column.type if item is None else item)

    def _value(self, source: sa.ColumnElement[Any], name: str, kind: str) -> sa.ColumnElement[Any]:
        if self.dialect == "sqlite":
            return _sqlite_value(source, name)
        key = sa.literal(name, sa.Text())
        text: sa.ColumnElement[Any] = source.op("->>", return_type=sa.Text())(key)
        if kind == "number":
            # The values of a row that is older than its column's type may be anything.
            found = sa.func.json_typeof(source.op("->", return_type=sa.JSON())(key))
            return sa.case((found == "number", sa.cast(text, sa.Numeric())), else_=None)
        return sa.collate(text, "C")


def _sqlite_value(source: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[Any]:
    document = sa.type_coerce(source, sa.Text())
    if _PLAIN_NAME.fullmatch(name):
        return sa.func.json_extract(document, sa.literal(f'$."{name}"', sa.Text()), type_=sa.Text())
    entries = sa.func.json_each(document).table_valued("key", "value")
    return sa.select(entries.c.value).where(entries.c.key == name).scalar_subquery()


def conditions(cells: Cells, filters: Sequence[str]) -> list[sa.ColumnElement[bool]]:
    """Read filters of the form ``column OP value``; all of them must hold.

    Raises
    ------
    InvalidFilterError
        If one cannot be read, or compares what cannot be compared.
    """
    return [_condition(cells, written) for written in filters]


def _condition(cells: Cells, written: str) -> sa.ColumnElement[bool]:
    if "\0" in written:
        raise InvalidFilterError("A filter holds no NUL character", filter=written)
    name, operator, text = _split(cells, written)
    if name in cells.marks and cells.table.column(name) is None:
        return cells.marks[name](operator, text)
    value, kind = cells.find(name)
    if text == "null" and operator in {"=", "!="}:
        return value.is_(None) if operator == "=" else value.is_not(None)
    if operator == "~":
        if kind == "number":
            value = sa.cast(value, sa.Text())
        return sa.func.lower(sa.type_coerce(value, sa.Text())).contains(text.lower(), autoescape=True)
    if kind == "number":
        return _compare(
            value, operator, sa.literal(_number(written, text), sa.Numeric() if cells.dialect != "sqlite" else None)
        )
    if kind == "boolean":
        return _compare(value, operator, _truth(cells, written, text))
    if kind == "json":
        raise InvalidFilterError(
            f"The column {name} holds files, arrays or records; it can be compared with null (=, !=) or searched (~)",
            filter=written,
        )
    return _compare(sa.type_coerce(value, sa.Text()), operator, sa.literal(text, sa.Text()))


def _split(cells: Cells, written: str) -> tuple[str, str, str]:
    names = sorted(
        [*(column.name for column in cells.table.columns), *cells.special, *cells.marks], key=len, reverse=True
    )
    for name in names:
        rest = written.removeprefix(name)
        if rest == written:
            continue
        rest = rest.lstrip()
        for operator in _OPERATORS:
            if rest.startswith(operator):
                return name, operator, rest[len(operator) :].strip()
    unknown = re.split(r"<=|>=|!=|=|<|>|~", written, maxsplit=1)
    if len(unknown) == 1:
        raise InvalidFilterError(
            f"A filter is written 'column OP value' with one of {' '.join(_OPERATORS)}, not {written!r}", filter=written
        )
    cells.find(unknown[0].strip())
    raise InvalidFilterError(f"The filter {written!r} cannot be read", filter=written)


def _compare(value: sa.ColumnElement[Any], operator: str, other: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    if operator == "=":
        return value == other
    if operator == "!=":
        return sa.or_(value != other, value.is_(None))
    if operator == "<":
        return value < other
    if operator == "<=":
        return value <= other
    return value > other if operator == ">" else value >= other


def _number(written: str, text: str) -> float:
    try:
        number: float = int(text)
        if abs(number) >= _INT64:
            number = float(number)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            raise InvalidFilterError(
                f"The filter {written!r} compares numbers, and {text!r} is none", filter=written
            ) from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidFilterError(
            f"The filter {written!r} compares numbers, and {text!r} is no finite one", filter=written
        )
    return number


def _truth(cells: Cells, written: str, text: str) -> sa.ColumnElement[Any]:
    if text not in {"true", "false"}:
        raise InvalidFilterError(
            f"The filter {written!r} compares with true or false, and {text!r} is neither", filter=written
        )
    if cells.dialect == "sqlite":
        return sa.literal(int(text == "true"), sa.Integer())
    return sa.literal(text, sa.Text())


def order(cells: Cells, sort: str | None) -> list[sa.ColumnElement[Any]]:
    """Read an order of the form ``column,-other``; missing values come last in both directions.

    Raises
    ------
    InvalidFilterError
        If a column does not exist.
    """
    written: list[sa.ColumnElement[Any]] = []
    for part in (sort or "").split(","):
        name = part.strip()
        if not name:
            continue
        descending = name.startswith("-") and cells.table.column(name) is None
        value, _ = cells.find(name.removeprefix("-") if descending else name)
        written.append((value.desc() if descending else value.asc()).nulls_last())
    return written


@dataclass(frozen=True)
class Cursor:
    """Where a page begins: behind a row and element, or after so many items where the order is another one."""

    offset: int = 0
    row: int | None = None
    element: int | None = None

    def encode(self) -> str:
        """Write it as text that means nothing to others."""
        content = json.dumps([self.offset, self.row, self.element], separators=(",", ":"))
        return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Read what `encode` wrote.

        Raises
        ------
        InvalidFilterError
            If it is something else.
        """
        try:
            offset, row, element = json.loads(
                base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            )
            if (
                all(value is None or (isinstance(value, int) and abs(value) < _INT64) for value in (row, element))
                and isinstance(offset, int)
                and 0 <= offset < _INT64
            ):
                return cls(offset, row, element)
        except (ValueError, TypeError, binascii.Error):
            pass
        raise InvalidFilterError("The value of `after` is none that an earlier page gave")
