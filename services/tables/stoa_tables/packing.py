"""Puts rows into events: several into one, until it is large enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from stoa_contracts.events.tables import EditedRow
from stoa_contracts.types import RowInputs, Values
from stoa_tables.problems import InvalidRequestError

__all__ = ["MAX_ROW", "pack", "size_of_edit", "size_of_row", "size_of_values"]

_T = TypeVar("_T")

#: How many characters of JSON a row may have: an event has to fit into one message.
MAX_ROW = 512 * 1024


def pack(values: Iterable[_T], size_of: Callable[[_T], int], limit: int) -> Iterator[list[_T]]:
    """Put values together until they are about as large as an event may become."""
    packed: list[_T] = []
    size = 0
    for value in values:
        more = size_of(value)
        if packed and size + more > limit:
            yield packed
            packed, size = [], 0
        packed.append(value)
        size += more
    if packed:
        yield packed


def size_of_row(row: RowInputs) -> int:
    """Estimate how large a new row is in an event.

    Raises
    ------
    InvalidRequestError
        If it is too large for any.
    """
    size = size_of_values(row.inputs) + (400 if row.derived_from else 50)
    if size > MAX_ROW:
        raise InvalidRequestError(
            f"Row {row.row} has {size:,} characters; a row may have {MAX_ROW:,}. Large data belongs into files"
        )
    return size


def size_of_edit(edit: EditedRow) -> int:
    """Estimate how large an edit is in an event.

    Raises
    ------
    InvalidRequestError
        If it is too large for any.
    """
    size = size_of_values(edit.changes)
    if size > MAX_ROW:
        raise InvalidRequestError(
            f"Row {edit.row} has {size:,} characters; a row may have {MAX_ROW:,}. Large data belongs into files"
        )
    return size + size_of_values(edit.previous) + 60


def size_of_values(values: Values) -> int:
    """Estimate how many bytes of JSON values are; writing them would cost more than recording them."""
    size = 0
    for name, value in values.items():
        size += len(name) + 6
        if isinstance(value, str):
            size += len(value) if value.isascii() else 4 * len(value)
        elif isinstance(value, list | dict):
            size += len(json.dumps(value))
        else:
            size += 20
    return size
