"""What differs between two workflow versions: files, with the lines of texts, and columns. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from stoa_contracts.types import Column, FileReference
from stoa_tables.bundle import Bundle

__all__ = ["ColumnDifference", "ColumnsDifference", "FileDifference", "compare_columns", "compare_files"]

#: Comparing lines takes time that grows with the square of their number: so many of one file are compared, and of all.
MAX_LINES = 5_000
MAX_LINES_IN_ALL = 20_000

#: So many characters of a file's difference are given, and of all.
MAX_TEXT = 64 * 1024
MAX_TEXT_IN_ALL = 512 * 1024

_CONTEXT_LINES = 3


class FileDifference(BaseModel):
    """A file that only one of two versions has, or that is not the same in both."""

    name: str
    change: Literal["added", "removed", "changed"]
    before: FileReference | None = None
    after: FileReference | None = None
    same_meaning: bool = Field(
        default=False, description="Whether it is a document that says the same, only written otherwise."
    )
    text: str | None = Field(default=None, description="The unified difference of the lines; null for what is no text.")
    left_out: str | None = Field(default=None, description="Why the lines, or some of them, are not given.")


class ColumnDifference(BaseModel):
    """A column that both versions have, but not the same."""

    name: str
    before: Column
    after: Column
    fields: list[str] = Field(description="What differs, such as `type` or `default`.")


class ColumnsDifference(BaseModel):
    """What a change of the version does to the columns of a table."""

    added: list[Column] = []
    removed: list[Column] = []
    changed: list[ColumnDifference] = []


def compare_files(before: Bundle, after: Bundle) -> list[FileDifference]:
    """Tell which files differ, by name.

    Parameters
    ----------
    before, after
        The files of two versions.
    """
    old = {file.name: file for file in before.references}
    new = {file.name: file for file in after.references}
    found: list[FileDifference] = []
    lines_left, text_left = MAX_LINES_IN_ALL, MAX_TEXT_IN_ALL
    for name in sorted(old.keys() | new.keys()):
        one, other = old.get(name), new.get(name)
        if one is not None and other is not None and one.sha256 == other.sha256:
            continue
        contents = [_lines(bundle.files.get(name, b"")) for bundle in (before, after)]
        difference = FileDifference(
            name=name,
            change="changed" if one and other else "removed" if one else "added",
            before=one,
            after=other,
            same_meaning=one is not None and other is not None and before.meaning(name) == after.meaning(name),
        )
        found.append(difference)
        if contents[0] is None or contents[1] is None:
            difference.left_out = "The file is no text."
            continue
        most = max(len(contents[0]), len(contents[1]))
        if most > min(MAX_LINES, lines_left) or text_left <= 0:
            difference.left_out = f"The file has {most:,} lines, too many to compare here."
            continue
        lines_left -= most
        limit = min(MAX_TEXT, text_left)
        text, cut = _cut(_unified(contents[0], contents[1], difference), limit)
        text_left -= len(text)
        difference.text = text
        if cut:
            difference.left_out = f"Only the first {len(text):,} characters of the difference are given."
    return found


def _lines(content: bytes) -> list[str] | None:
    if b"\0" in content:
        return None
    try:
        # Splitting where Python sees lines would split at form feeds and the like, which stand inside of lines.
        return content.decode().split("\n")
    except UnicodeDecodeError:
        return None


def _unified(before: Sequence[str], after: Sequence[str], difference: FileDifference) -> Iterator[str]:
    lines = difflib.unified_diff(
        _ended(before),
        _ended(after),
        f"a/{difference.name}" if difference.before else "/dev/null",
        f"b/{difference.name}" if difference.after else "/dev/null",
        n=_CONTEXT_LINES,
    )
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _ended(lines: Sequence[str]) -> list[str]:
    return [*(f"{line}\n" for line in lines[:-1]), *filter(None, lines[-1:])]


def _cut(lines: Iterable[str], limit: int) -> tuple[str, bool]:
    taken: list[str] = []
    size = 0
    for line in lines:
        if size + len(line) > limit:
            return "".join(taken), True
        taken.append(line)
        size += len(line)
    return "".join(taken), False


def compare_columns(before: Sequence[Column], after: Sequence[Column]) -> ColumnsDifference:
    """Tell which columns are new, gone, or say something else.

    Parameters
    ----------
    before, after
        The columns as the workflows of two versions describe them.
    """
    old = {column.name: column for column in before}
    new = {column.name: column for column in after}
    changed = []
    for name, column in old.items():
        other = new.get(name)
        if other is not None and other != column:
            fields = [field for field in Column.model_fields if getattr(column, field) != getattr(other, field)]
            changed.append(ColumnDifference(name=name, before=column, after=other, fields=fields))
    return ColumnsDifference(
        added=[column for name, column in new.items() if name not in old],
        removed=[column for name, column in old.items() if name not in new],
        changed=changed,
    )
