"""The worktable file ``.wtx`` of the year 2018: one zip archive that holds a workflow, its rows, and what became of them.

Members
-------
``workflow.cwl``
    The workflow, CWL v1.0; further CWL documents and scripts lie beside it.
``template.yml``
    ``name: value`` for inputs that a row leaves open.
``table.txt``
    A line of names, of which the first is ``__bindex__``; a line of types; a line of UCDs; then one line for each element.
    Lines with an equal ``__bindex__`` are the elements of one execution.
``tracking.txt``
    ``COMPLETE`` or ``PENDING`` for each line of the table; what it does not mention is complete.
``links.txt``
    A line with the names of the parents' files, and one with those of the children.

A ``.service`` file beside it has three lines: the table's file, the column of the right ascension, that of the declination.
"""

from __future__ import annotations

import io
import re
import shlex
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stoa_tables.problems import InvalidRequestError

__all__ = [
    "FileColumn",
    "FileRow",
    "ServiceFile",
    "WorktableFile",
    "members_of",
    "read_service",
    "read_worktable_file",
    "write_service",
    "write_worktable_file",
]

Role = Literal["I", "O", "K"]
ValueType = Literal["int", "unique", "float", "str", "file"]

_INDEX = "__bindex__"
_TYPE = re.compile(r"([IOK])_(int|unique|float|str|file)$")
_OWN = frozenset({"workflow.cwl", "template.yml", "table.txt", "tracking.txt", "links.txt"})
_MOST_MEMBERS = 10_000
_MOST_MEMBER_BYTES = 64 * 1024 * 1024
_MOST_BYTES = 256 * 1024 * 1024
_MOST_LINE = 1024 * 1024
_CHUNK = 256 * 1024
#: A member that unpacks to more than so many times its size is no table.
_MOST_RATIO = 200


@dataclass(frozen=True, slots=True)
class FileColumn:
    """A column of the table, but for the index."""

    name: str
    role: Role
    type: ValueType
    ucd: str | None = None


@dataclass(slots=True)
class FileRow:
    """One execution: the lines that have one index."""

    index: int
    line: int
    """Where its first line stands in table.txt, from 1."""
    elements: list[list[str | None]] = field(default_factory=list)
    """The words of each line but the index; None for nothing."""
    complete: bool = True


@dataclass(frozen=True, slots=True)
class WorktableFile:
    """What a worktable file holds."""

    name: str
    """The file's name without its suffix."""
    workflow: Mapping[str, bytes]
    """CWL documents and scripts by name; without `workflow.cwl` where the table has no workflow."""
    template: Mapping[str, Any]
    columns: Sequence[FileColumn]
    rows: Sequence[FileRow]
    parents: Sequence[str]
    """Names of files, without their suffix."""
    children: Sequence[str]


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """Which columns of a table are positions on the sky."""

    table: str
    ra: str
    dec: str


# --- reading -------------------------------------------------------------------------------------------------------------


def members_of(content: bytes, name: str) -> dict[str, bytes]:
    """Unpack an archive into memory, within bounds.

    Raises
    ------
    InvalidRequestError
        If it is no zip archive, is cut off or damaged, is larger than a worktable file may be, or has a member whose name
        leads out of it.
    """
    members: dict[str, bytes] = {}
    size = 0
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_MEMBERS:
                raise InvalidRequestError(f"{name} has {len(entries):,} members; {_MOST_MEMBERS:,} are read")
            for entry in entries:
                if entry.is_dir():
                    continue
                member = _member_name(entry.filename, name)
                if member in members:
                    raise InvalidRequestError(f"{name} holds {member} twice")
                size += entry.file_size
                _refuse_large(entry, size, name)
                members[member] = _unpack(archive, entry, name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise InvalidRequestError(f"{name} is no worktable file that can be read: {error}") from None
    return members


def _member_name(name: str, archive: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in path.parts[0]:
        raise InvalidRequestError(f"{archive} holds {name!r}, a name that leads out of it; nothing was read")
    return str(path)


def _refuse_large(entry: zipfile.ZipInfo, size: int, name: str) -> None:
    if entry.file_size > _MOST_MEMBER_BYTES or size > _MOST_BYTES:
        raise InvalidRequestError(
            f"{entry.filename} in {name} is too large: a member may have {_MOST_MEMBER_BYTES >> 20} MB,"
            f" all of them {_MOST_BYTES >> 20} MB"
        )
    if entry.file_size > _CHUNK and entry.file_size > _MOST_RATIO * max(1, entry.compress_size):
        raise InvalidRequestError(
            f"{entry.filename} in {name} unpacks to {entry.file_size:,} bytes, far more than it is"
        )


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> bytes:
    """Read a member; its header may lie about its size."""
    content = bytearray()
    with archive.open(entry) as member:
        while chunk := member.read(_CHUNK):
            content += chunk
            if len(content) > entry.file_size:
                raise InvalidRequestError(f"{entry.filename} in {name} is larger than the archive says")
    return bytes(content)


def read_worktable_file(content: bytes, name: str, *, most_rows: int) -> WorktableFile:
    """Read a worktable file.

    Parameters
    ----------
    content
        Of the file.
    name
        Of the file, with its suffix.
    most_rows
        How many lines the table may have.

    Raises
    ------
    InvalidRequestError
        Says what is wrong with it, in which member and line.
    """
    members = members_of(content, name)
    if "table.txt" not in members:
        raise InvalidRequestError(f"{name} has no table.txt, so it is no worktable file")
    tracking = _text(members.get("tracking.txt", b""), name, "tracking.txt").splitlines()
    columns, rows = _read_table(_text(members["table.txt"], name, "table.txt"), tracking, name, most_rows)
    links = _text(members.get("links.txt", b""), name, "links.txt").splitlines()
    parents, children = (_names(links[at]) if len(links) > at else [] for at in (0, 1))
    workflow = {member: data for member, data in members.items() if member not in _OWN}
    if _is_workflow(members.get("workflow.cwl", b""), name):
        workflow["workflow.cwl"] = members["workflow.cwl"]
    template = _yaml(members.get("template.yml", b""), name, "template.yml")
    if not isinstance(template, dict | None):
        raise InvalidRequestError(f"template.yml in {name} holds no 'name: value' lines")
    return WorktableFile(_stem(name), workflow, dict(template or {}), columns, rows, parents, children)


def _text(content: bytes, name: str, member: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{member} in {name} is no UTF-8 text: byte {error.start}") from None


def _yaml(content: bytes, name: str, member: str) -> Any:
    yaml = YAML(typ="safe", pure=True)
    try:
        return yaml.load(_text(content, name, member))
    except (YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidRequestError(f"{member} in {name} is no YAML: {reason}") from None


def _is_workflow(content: bytes, name: str) -> bool:
    """Tell whether there is a workflow: joined tables and catalogues come with an empty document."""
    document = _yaml(content, name, "workflow.cwl")
    return isinstance(document, dict) and ("class" in document or "$graph" in document)


def _names(line: str) -> list[str]:
    return [_stem(word.strip()) for word in line.split(",") if word.strip()]


def _stem(name: str) -> str:
    # Old files name their children with the folder in which they lay.
    return PurePosixPath(name.replace("\\", "/")).name.removesuffix(".wtx")


def _read_table(
    text: str, tracking: Sequence[str], name: str, most_rows: int
) -> tuple[list[FileColumn], list[FileRow]]:
    lines = _Lines(text, name)
    names = lines.words(lines.header("names"))
    types = lines.words(lines.header("types"))
    if not names or names[0] != _INDEX:
        raise InvalidRequestError(f"The first column in table.txt of {name} has to be {_INDEX}")
    if len(types) != len(names):
        raise InvalidRequestError(f"table.txt in {name} names {len(names)} columns and {len(types)} types")
    ucds = lines.ucds(len(names))
    columns = [_column(*item, where=name) for item in zip(names[1:], types[1:], ucds[1:], strict=True)]
    twice = sorted({column.name for column in columns if sum(other.name == column.name for other in columns) > 1})
    if twice:
        raise InvalidRequestError(f"table.txt in {name} has two columns called {twice[0]}")
    rows: dict[int, FileRow] = {}
    for number, (line, raw) in enumerate(lines):
        if number >= most_rows:
            raise InvalidRequestError(f"table.txt in {name} has more than {most_rows:,} lines")
        words = lines.words(raw, line)
        if len(words) != len(names):
            raise InvalidRequestError(
                f"Line {line} of table.txt in {name} has {len(words)} values where there are {len(names)} columns"
            )
        try:
            index = int(words[0])
        except ValueError:
            raise InvalidRequestError(f"Line {line} of table.txt in {name}: {words[0]!r} is no index") from None
        row = rows.setdefault(index, FileRow(index, line))
        row.elements.append([None if word == "-" else word for word in words[1:]])
        if number < len(tracking) and "PENDING" in tracking[number].partition(" ")[0]:
            row.complete = False
    return columns, list(rows.values())


def _column(name: str, type_: str, ucd: str, *, where: str) -> FileColumn:
    match = _TYPE.fullmatch(type_)
    if match is None:
        kinds = ", ".join(get_args(ValueType))
        raise InvalidRequestError(
            f"The column {name} in table.txt of {where} has the type {type_!r}; it is one of I, O and K, an underscore, and"
            f" one of {kinds}"
        )
    role: Any
    kind: Any
    role, kind = match.groups()
    return FileColumn(name, role, kind, ucd or None)


class _Lines:
    """The lines of a table, each with its number; comments and blank ones are left out."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._lines = list(enumerate(text.replace("\r\n", "\n").removesuffix("\n").split("\n"), 1)) if text else []
        self._at = 0

    def __iter__(self) -> Iterator[tuple[int, str]]:
        while self._at < len(self._lines):
            number, line = self._lines[self._at]
            self._at += 1
            if line.strip() and not line.startswith("#"):
                yield number, line

    def header(self, what: str) -> str:
        for _, line in self:
            return line
        raise InvalidRequestError(f"table.txt in {self._name} ends before its {what}")

    def ucds(self, number: int) -> list[str]:
        """Read the line of UCDs, in which a blank stands for none, if it is there."""
        while self._at < len(self._lines) and self._lines[self._at][1].startswith("#"):
            self._at += 1
        if self._at < len(self._lines):
            line = self._lines[self._at][1]
            if re.match(r"[+-]?\d+(\s|$)", line):
                return [""] * number
            self._at += 1
            found = line.rstrip("\r\n").split(" ")
            return [word.strip() for word in (found + [""] * number)[:number]]
        return [""] * number

    def words(self, line: str, number: int | None = None) -> list[str]:
        """Split a line as a shell would, but for apostrophes, which stand in names."""
        where = "" if number is None else f"Line {number} of "
        if len(line) > _MOST_LINE:
            raise InvalidRequestError(f"{where}table.txt in {self._name} has more than {_MOST_LINE:,} characters")
        if '"' not in line and "\\" not in line:
            return line.split()
        lexer = shlex.shlex(line, posix=True)
        lexer.whitespace_split, lexer.commenters, lexer.quotes = True, "", '"'
        try:
            return list(lexer)
        except ValueError as error:
            raise InvalidRequestError(f"{where}table.txt in {self._name}: {str(error).lower()}") from None


def read_service(content: bytes, name: str) -> ServiceFile:
    """Read a ``.service`` file.

    Raises
    ------
    InvalidRequestError
        If it does not have its three lines.
    """
    lines = [line.strip() for line in _text(content, name, "The text").splitlines() if line.strip()]
    if len(lines) != len(("table", "ra", "dec")):
        raise InvalidRequestError(
            f"{name} has {len(lines)} lines; a service has three: its table, its RA and its Dec column"
        )
    return ServiceFile(_stem(lines[0]), lines[1], lines[2])


# --- writing -------------------------------------------------------------------------------------------------------------


def write_worktable_file(file: WorktableFile) -> bytes:
    """Write a worktable file; the same content gives the same bytes.

    Raises
    ------
    InvalidRequestError
        If a name cannot be written, because the format parts names by blanks.
    """
    for column in file.columns:
        if re.search(r"\s", column.name):
            raise InvalidRequestError(
                f"The column {column.name!r} has a blank in its name, which a worktable file cannot hold"
            )
    lines = [
        " ".join([_INDEX, *(column.name for column in file.columns)]),
        " ".join(["K_int", *(f"{column.role}_{column.type}" for column in file.columns)]),
        " ".join(["", *((column.ucd or "").replace(" ", "") for column in file.columns)]),
    ]
    tracking = []
    for row in file.rows:
        for element in row.elements:
            lines.append(" ".join([str(row.index), *map(_word, element)]))
            tracking.append("COMPLETE" if row.complete else "PENDING")
    yaml = YAML()
    yaml.default_flow_style = False
    template = io.StringIO()
    yaml.dump(dict(file.template), template)
    suffixed = [",".join(f"{name}.wtx" for name in names) for names in (file.parents, file.children)]
    members = {
        "workflow.cwl": b"{}\n",
        **file.workflow,
        "template.yml": template.getvalue().encode(),
        "table.txt": _joined(lines),
        "tracking.txt": _joined(tracking),
        "links.txt": _joined(suffixed),
    }
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            # The epoch of zip archives: what was written when says nothing about what it is.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return written.getvalue()


def _joined(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _word(value: str | None) -> str:
    if value is None:
        return "-"
    one_line = re.sub(r"[\r\n]+", " ", value)
    if one_line and not re.search(r'[\s"\\]', one_line):
        return one_line
    escaped = one_line.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def write_service(service: ServiceFile) -> bytes:
    """Write a ``.service`` file."""
    return _joined([f"{service.table}.wtx", service.ra, service.dec])
