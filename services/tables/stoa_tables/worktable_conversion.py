"""Turns what worktable files hold into tables, rows and links of Stoa, and back. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import quote, urljoin, urlsplit

from stoa_contracts.types import Column, LinkSpecification, Values
from stoa_tables.problems import ConflictError, InvalidRequestError
from stoa_tables.values import InvalidValueError, coerce, element_type, from_text, is_array, to_text
from stoa_tables.worktable_file import FileColumn, FileRow, WorktableFile

__all__ = [
    "Converted",
    "Filling",
    "converted_rows",
    "file_columns",
    "filling_of",
    "in_order",
    "plain_columns",
    "plain_rows",
    "table_name",
    "workflow_of_file",
    "written_rows",
]

_PLAIN_TYPES = {"int": "long", "unique": "long", "float": "double", "str": "string", "file": "File"}
_FILE_TYPES = {"int": "int", "long": "int", "float": "float", "double": "float", "File": "file", "Directory": "file"}
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 63
_MOST_ERRORS = 20
_MAIN = "workflow.cwl"
#: What Stoa itself writes for a file that it keeps.
_STORED = re.compile(r"^https?://.*/api/files/([0-9a-f]{64})$")


# --- what tables there will be -----------------------------------------------------------------------------------------


def table_name(stem: str) -> str:
    """Make a name for a table of a file's name."""
    name = _NOT_IN_A_NAME.sub("_", stem).strip("_-") or "table"
    return (name if name[0].isalpha() else f"t_{name}")[:_LONGEST_NAME]


def in_order(files: Sequence[WorktableFile]) -> list[WorktableFile]:
    """Put parents before their children.

    Raises
    ------
    InvalidRequestError
        If two files have one name, or files are each other's parents.
    """
    by_name: dict[str, WorktableFile] = {}
    for file in files:
        if by_name.setdefault(file.name, file) is not file:
            raise InvalidRequestError(f"Two of the files are called {file.name}.wtx")
    ordered: list[WorktableFile] = []
    state: dict[str, Literal["open", "done"]] = {}

    def visit(file: WorktableFile, path: tuple[str, ...]) -> None:
        if state.get(file.name) == "done":
            return
        if state.get(file.name) == "open":
            raise InvalidRequestError(f"The files depend on each other: {' -> '.join([*path, file.name])}")
        state[file.name] = "open"
        for parent in file.parents:
            if parent in by_name:
                visit(by_name[parent], (*path, file.name))
        state[file.name] = "done"
        ordered.append(file)

    for file in by_name.values():
        visit(file, ())
    return ordered


@dataclass(frozen=True, slots=True)
class Filling:
    """How a file's rows come from other tables."""

    kind: Literal["keyed", "inner"]
    parents: tuple[str, ...]
    """Names of files."""
    mapping: Mapping[str, str]
    """As a link has it."""
    on: Sequence[tuple[str, str]] = ()


def filling_of(file: WorktableFile, columns: Mapping[str, Sequence[str]]) -> Filling | None:
    """Find out how a table is filled: the file says from which tables, and the names of the columns say the rest.

    Parameters
    ----------
    file
        The child.
    columns
        The names of the columns of every table that may be a parent, by the name of its file.

    Returns
    -------
    Filling or None
        None where the rows are the file's own.
    """
    parents = [parent for parent in file.parents if parent in columns]
    own = [column.name for column in file.columns]
    if "workflow.cwl" in file.workflow:
        for parent in parents:
            inputs = [column.name for column in file.columns if column.role != "O"]
            shared = [name for name in inputs if name in columns[parent]]
            if shared:
                return Filling("keyed", (parent,), {name: name for name in shared})
        return None
    if len(parents) != len(("left", "right")):
        return None
    left, right = parents
    mapping = {name: f"0.{name}" for name in columns[left]}
    on = []
    for name in columns[right]:
        renamed = name if name not in mapping else _renamed(name)
        if renamed in own and renamed not in mapping:
            mapping[renamed] = f"1.{name}"
        elif name in columns[left]:
            on.append((name, name))
    return Filling("inner", (left, right), mapping, on) if on and set(mapping) == set(own) else None


def _renamed(name: str) -> str:
    """Give the name that a clashing column got: the number at its end grows, and where there is none it is 1."""
    found = re.search(r"_(\d+)", name)
    return f"{name}_1" if found is None else re.sub(r"_(\d+)", lambda match: f"_{int(match[1]) + 1}", name)


def plain_columns(file: WorktableFile) -> list[Column]:
    """Give the columns of a table without a workflow."""
    return [
        Column(name=column.name, role="input", type=["null", _PLAIN_TYPES[column.type]], ucd=column.ucd)
        for column in file.columns
    ]


# --- rows --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Converted:
    """A row of a file as a row of a table."""

    line: int
    inputs: Values
    outputs: Values | None = None
    """None where the row is pending."""
    named: set[str] = field(default_factory=set)
    """The inputs that the file gives."""


def converted_rows(
    file: WorktableFile, columns: Sequence[Column], *, kept: Mapping[str, Values], base: str | None
) -> tuple[list[Converted], list[str]]:
    """Read the rows of a worktable.

    Parameters
    ----------
    file
        The file.
    columns
        Those of its workflow.
    kept
        What became of the archive's own data files: name to a CWL file object.
    base
        Against which URL relative names of files are read.

    Returns
    -------
    rows : list of Converted
        In the order of the file.
    notes : list of str
        What could not be taken over.

    Raises
    ------
    InvalidRequestError
        Names the values that cannot be read, with their lines.
    """
    known = {column.name: column for column in columns}
    notes = [
        f"The column {column.name} of {file.name} is no parameter of its workflow and was left out"
        for column in file.columns
        if column.name not in known
    ]
    reader = _Reader(file, kept, base)
    template = {name: value for name, value in file.template.items() if name in known and known[name].role != "output"}
    converted = []
    for row in file.rows:
        inputs: Values = {}
        named = set()
        for at, column in enumerate(file.columns):
            target = known.get(column.name)
            if target is not None and target.role != "output":
                word = row.elements[0][at]
                inputs[column.name] = reader.value(word, target.type, column.name, row.line)
                if word is not None:
                    named.add(column.name)
        for name, value in template.items():
            if inputs.get(name) is None:
                inputs[name] = reader.template(value, known[name])
        outputs = reader.outputs(row, known) if row.complete and any(c.role == "output" for c in columns) else None
        converted.append(Converted(row.line, inputs, outputs, named))
    reader.finish()
    return converted, notes


def plain_rows(file: WorktableFile, *, kept: Mapping[str, Values], base: str | None) -> list[Values]:
    """Read the rows of a table without a workflow: one for each line.

    Raises
    ------
    InvalidRequestError
        Names the values that cannot be read, with their lines.
    """
    reader = _Reader(file, kept, base)
    types = [["null", _PLAIN_TYPES[column.type]] for column in file.columns]
    rows = [
        {
            column.name: reader.value(word, type_, column.name, row.line + at)
            for column, type_, word in zip(file.columns, types, element, strict=True)
        }
        for row in file.rows
        for at, element in enumerate(row.elements)
    ]
    reader.finish()
    return rows


class _Reader:
    """Reads words, and gathers what is wrong with them."""

    def __init__(self, file: WorktableFile, kept: Mapping[str, Values], base: str | None) -> None:
        self._file = file
        self._kept = kept
        self._base = base
        self._errors: list[str] = []

    def value(self, word: str | None, type_: Any, name: str, line: int) -> Any:
        if word is None:
            return None
        try:
            return self._read(word, type_, name)
        except InvalidValueError as error:
            self._errors.append(f"line {line}, {name}: {error.message}")
            return None

    def _read(self, word: str, type_: Any, name: str) -> Any:
        item = element_type(type_) if is_array(type_) else None
        if item is not None:
            return [self._read(word, item, name)]
        simple = [member for member in (type_ if isinstance(type_, list) else [type_]) if member != "null"]
        if simple and simple[0] in {"File", "Directory"}:
            return self._file_object(word, type_, name)
        if not word and "string" in simple:
            return ""
        return from_text(word, type_, name=name)

    def _file_object(self, word: str, type_: Any, name: str) -> Any:
        known = self._kept.get(word)
        if known is not None:
            return coerce(known, type_, name=name)
        if match := _STORED.search(word):
            word = f"sha256:{match[1]}"
        elif self._base is not None and not urlsplit(word).scheme and not word.startswith("/"):
            word = urljoin(self._base.rstrip("/") + "/", quote(word))
        return coerce(word, type_, name=name)

    def template(self, value: Any, column: Column) -> Any:
        try:
            return (
                from_text(value, column.type, name=column.name)
                if isinstance(value, str)
                else self._plain(value, column)
            )
        except InvalidValueError as error:
            self._errors.append(f"template.yml, {column.name}: {error.message}")
            return None

    @staticmethod
    def _plain(value: Any, column: Column) -> Any:
        return coerce(value, column.type, name=column.name)

    def outputs(self, row: FileRow, known: Mapping[str, Column]) -> Values:
        outputs: Values = {column.name: None for column in known.values() if column.role == "output"}
        for at, column in enumerate(self._file.columns):
            target = known.get(column.name)
            if target is None or target.role != "output":
                continue
            item = element_type(target.type) if is_array(target.type) else None
            if item is None:
                outputs[column.name] = self.value(row.elements[0][at], target.type, column.name, row.line)
            else:
                outputs[column.name] = [
                    self.value(element[at], item, column.name, row.line + number)
                    for number, element in enumerate(row.elements)
                ]
        return outputs

    def finish(self) -> None:
        if self._errors:
            shown = "; ".join(self._errors[:_MOST_ERRORS])
            more = len(self._errors) - _MOST_ERRORS
            told = f"; and {more} more" if more > 0 else ""
            raise InvalidRequestError(
                f"table.txt in {self._file.name}.wtx: {shown}{told}", errors=self._errors[: 5 * _MOST_ERRORS]
            )


# --- writing -------------------------------------------------------------------------------------------------------------


def workflow_of_file(main: str, files: Mapping[str, bytes], table: str) -> dict[str, bytes]:
    """Give the files of a workflow as a worktable file holds them, with the main document as ``workflow.cwl``.

    Raises
    ------
    ConflictError
        If the format cannot hold them.
    """
    document, _, process = main.partition("#")
    folder = document.rpartition("/")[0]
    prefix = f"{folder}/" if folder else ""
    if process not in {"", "main"}:
        raise ConflictError(f"The workflow of {table} is {main}; a worktable file takes the process called main alone")
    if any(not name.startswith(prefix) for name in files):
        raise ConflictError(f"The workflow of {table} lies in the folder {folder} and needs files beside it")
    moved = {name.removeprefix(prefix): content for name, content in files.items()}
    name = document.removeprefix(prefix)
    if name != _MAIN and _MAIN in moved:
        raise ConflictError(f"The workflow of {table} has a file {_MAIN} that is not its main document")
    moved[_MAIN] = moved.pop(name)
    return moved


def file_columns(columns: Sequence[Column], links: Sequence[LinkSpecification], *, joined: bool) -> list[FileColumn]:
    """Give the columns of a worktable file."""
    filled = {name for link in links for name in link.mapping}
    return [
        FileColumn(
            column.name,
            "O" if column.role == "output" else "K" if joined or column.name in filled else "I",
            cast(Any, _file_type(column.type)),
            column.ucd,
        )
        for column in columns
    ]


def _file_type(type_: Any) -> str:
    item = element_type(type_) if is_array(type_) else type_
    members = [member for member in (item if isinstance(item, list) else [item]) if member != "null"]
    return _FILE_TYPES.get(members[0], "str") if len(members) == 1 and isinstance(members[0], str) else "str"


def written_rows(
    rows: Iterable[tuple[bool, Values, Sequence[Values]]], columns: Sequence[Column], location: Callable[[str], str]
) -> list[FileRow]:
    """Write the rows of a table.

    Parameters
    ----------
    rows
        Whether a row is current, its inputs, and its outputs: one for each element, or one.
    columns
        Of the table.
    location
        Says how the location of a file is written.
    """
    written = []
    line = 4
    for index, (complete, inputs, elements) in enumerate(rows):
        lines: list[list[str | None]] = [
            [
                _word(element.get(column.name), column, location)
                if column.role == "output"
                else _word(inputs.get(column.name), column, location)
                for column in columns
            ]
            for element in (elements or [{}])
        ]
        written.append(FileRow(index, line, lines, complete))
        line += len(lines)
    return written


def _word(value: Any, column: Column, location: Callable[[str], str]) -> str | None:
    if value is None:
        return None
    if isinstance(value, dict) and value.get("class") in {"File", "Directory"}:
        return location(str(value.get("location", "")))
    if isinstance(value, str):
        return value
    item = element_type(column.type) if is_array(column.type) and not isinstance(value, list) else None
    return (
        to_text(value, item if item is not None else column.type)
        if not isinstance(value, list | dict)
        else json.dumps(value)
    )
