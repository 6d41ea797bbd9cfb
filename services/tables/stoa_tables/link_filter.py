"""The filter of a link: which of a parent's rows or elements give rows in the child. Pure.

The conditions are those of `stoa_tables.filtering`, for values at hand instead of SQL. Several are joined with `and` and `or`, `not`
turns one round, and parentheses group; `and` binds closer than `or`. A value or a column's name may stand in quotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stoa_contracts.types import Column
from stoa_tables.problems import InvalidFilterError
from stoa_tables.values import element_type, sort_kind

__all__ = ["LinkFilter", "read_filter"]

#: Tells whether values pass.
_Test = Callable[[Mapping[str, Any]], bool]

_SPACE = re.compile(r"\s*")
_OPERATOR = re.compile(r"<=|>=|!=|=|<|>|~")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")

#: What ends a value without quotes.
_END = re.compile(r"\s+(?:and|or)(?=[\s(])|\s*\)|\s*$", re.IGNORECASE)

_WORD = re.compile(r"(and|or|not)(?=[\s(])", re.IGNORECASE)

_MAX_LENGTH = 10_000
_MAX_DEPTH = 50


@dataclass(frozen=True, slots=True)
class LinkFilter:
    """A filter that was read."""

    columns: frozenset[str]
    """The columns that it asks for."""

    passes: _Test
    """Tells whether the values of a row or an element pass."""


def read_filter(text: str, columns: Sequence[Column], *, taken_apart: bool) -> LinkFilter:
    """Read a filter.

    Parameters
    ----------
    text
        The filter.
    columns
        Of the parent.
    taken_apart
        Whether the values are those of elements: then an array column of outputs holds one item.

    Raises
    ------
    InvalidFilterError
        If it cannot be read; it says where.
    """
    return _Reader(text, columns, taken_apart=taken_apart).read()


class _Reader:
    def __init__(self, text: str, columns: Sequence[Column], *, taken_apart: bool) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.kinds = {column.name: _kind(column, taken_apart=taken_apart) for column in columns}
        # Of two names of which one begins like the other, the longer one is meant.
        self.names = sorted(self.kinds, key=len, reverse=True)
        self.used: set[str] = set()

    def read(self) -> LinkFilter:
        if len(self.text) > _MAX_LENGTH:
            self.at = _MAX_LENGTH
            raise self.error(f"it is longer than {_MAX_LENGTH:,} characters")
        test = self.any()
        self.skip()
        if self.at < len(self.text):
            raise self.error("this closes nothing" if self.text[self.at] == ")" else "'and' or 'or' is missing")
        return LinkFilter(frozenset(self.used), test)

    def error(self, what: str, at: int | None = None) -> InvalidFilterError:
        place = self.at if at is None else at
        here = self.text[place : place + 20]
        where = f"at character {place + 1}, before {here!r}" if here else "at its end"
        return InvalidFilterError(f"The filter cannot be read {where}: {what}", filter=self.text, character=place + 1)

    def skip(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def word(self, *wanted: str) -> str | None:
        self.skip()
        found = _WORD.match(self.text, self.at)
        if found is None or found[1].lower() not in wanted or self.is_condition():
            return None
        self.at = found.end()
        return found[1].lower()

    def is_condition(self) -> bool:
        """Tell whether a column of this name is compared here, as in ``not = 1``."""
        return any(
            self.text.startswith(name, self.at) and _OPERATOR.match(self.text[self.at + len(name) :].lstrip())
            for name in self.names
        )

    def any(self) -> _Test:
        tests = [self.all()]
        while self.word("or"):
            tests.append(self.all())
        return tests[0] if len(tests) == 1 else lambda values: any(test(values) for test in tests)

    def all(self) -> _Test:
        tests = [self.one()]
        while self.word("and"):
            tests.append(self.one())
        return tests[0] if len(tests) == 1 else lambda values: all(test(values) for test in tests)

    def one(self) -> _Test:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.error(f"more than {_MAX_DEPTH} parentheses or 'not' stand in each other")
        try:
            if self.word("not"):
                inner = self.one()
                return lambda values: not inner(values)
            if self.text.startswith("(", self.at) and not self.is_condition():
                opened = self.at
                self.at += 1
                inner = self.any()
                self.skip()
                if not self.text.startswith(")", self.at):
                    raise self.error("this is never closed", opened)
                self.at += 1
                return inner
            return self.condition()
        finally:
            self.depth -= 1

    def condition(self) -> _Test:
        self.skip()
        name = self.name()
        self.used.add(name)
        self.skip()
        operator = _OPERATOR.match(self.text, self.at)
        if operator is None:
            raise self.error("one of = != < <= > >= ~ is missing")
        self.at = operator.end()
        self.skip()
        begin = self.at
        value, quoted = self.value()
        return self.test(name, operator[0], value, quoted=quoted, begin=begin)

    def name(self) -> str:
        found = _QUOTED.match(self.text, self.at)
        if found is not None and (name := _unquoted(found[0])) in self.kinds:
            self.at = found.end()
            return name
        for name in self.names:
            rest = self.text[self.at + len(name) :].lstrip()
            if self.text.startswith(name, self.at) and (_OPERATOR.match(rest) or not rest):
                self.at += len(name)
                return name
        if self.at >= len(self.text):
            raise self.error("a column is missing")
        for name in self.names:
            if re.compile(rf"{re.escape(name)}\s").match(self.text, self.at):
                # What follows is no operator, and that is what has to be said.
                self.at += len(name)
                return name
        unknown = re.split(r"[<>=!~\s()]", self.text[self.at :], maxsplit=1)[0]
        known = ", ".join(list(self.kinds)[:20])
        raise self.error(f"there is no column {unknown!r}; there are {known}")

    def value(self) -> tuple[str, bool]:
        found = _QUOTED.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
            return _unquoted(found[0]), True
        if self.text[self.at : self.at + 1] in {"'", '"'}:
            raise self.error("the quotes are never closed")
        end = _END.search(self.text, self.at)
        stop = end.start() if end else len(self.text)
        value, self.at = self.text[self.at : stop], stop
        return value, False

    def test(self, name: str, operator: str, text: str, *, quoted: bool, begin: int) -> _Test:
        kind = self.kinds[name]
        if text == "null" and not quoted and operator in {"=", "!="}:
            missing = operator == "="
            return lambda values: (values.get(name) is None) is missing
        if operator == "~":
            folded = text.lower()
            return lambda values: values.get(name) is not None and folded in _searched(values[name]).lower()
        if kind == "json":
            raise self.error(
                f"the column {name} holds files, arrays or records; it can be compared with null (=, !=) or searched (~)",
                begin,
            )
        wanted = self.wanted(kind, text, begin)
        compare = _COMPARE[operator]
        if operator == "!=":
            return lambda values: not _fits(values.get(name), kind) or compare(values[name], wanted)
        return lambda values: _fits(values.get(name), kind) and compare(values[name], wanted)

    def wanted(self, kind: str, text: str, begin: int) -> Any:
        if kind == "boolean":
            if text not in {"true", "false"}:
                raise self.error(f"{text!r} is neither true nor false", begin)
            return text == "true"
        if kind == "text":
            return text
        for read in (int, float):
            try:
                number = read(text)
            except (ValueError, OverflowError):
                continue
            if number - number == 0:
                return number
        raise self.error(f"{text!r} is no number" if text else "a number is missing", begin)


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: bool(one == other),
    "!=": lambda one, other: bool(one != other),
    "<": lambda one, other: bool(one < other),
    "<=": lambda one, other: bool(one <= other),
    ">": lambda one, other: bool(one > other),
    ">=": lambda one, other: bool(one >= other),
}


def _kind(column: Column, *, taken_apart: bool) -> str:
    item = element_type(column.type) if taken_apart and column.role == "output" else None
    return sort_kind(column.type if item is None else item)


def _fits(value: Any, kind: str) -> bool:
    """Tell whether a value can be compared; those of a row that is older than its column's type may be anything."""
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, bool if kind == "boolean" else str)


def _searched(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unquoted(text: str) -> str:
    return text[1:-1].replace(text[0] * 2, text[0])
