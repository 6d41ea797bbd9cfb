"""Elements: the output rows that one row yields when its outputs are arrays of equal length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stoa_tables.values import is_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from stoa_contracts.types import Column, Values

__all__ = ["split"]


def split(outputs: Mapping[str, Any], columns: Sequence[Column]) -> tuple[int | None, list[Values] | None]:
    """Split a row's outputs into elements.

    The outputs whose type is an array count; null in place of an optional array does not. If there is at least one, and
    all have the same length *k*, the row yields *k* elements. Else it yields none, and every array stays in its cell.

    Parameters
    ----------
    outputs
        The output object of a finished job.
    columns
        The columns of the table.

    Returns
    -------
    k : int or None
        The number of elements, which may be 0; None where the outputs are not elements.
    elements : list of Values or None
        Each a complete output row: of an array its item, of everything else the value itself.
    """
    names = [column.name for column in columns if column.role == "output"]
    arrays = {
        column.name: value
        for column in columns
        if column.role == "output" and is_array(column.type) and isinstance(value := outputs.get(column.name), list)
    }
    lengths = {len(value) for value in arrays.values()}
    if len(lengths) != 1:
        return None, None
    length = lengths.pop()
    common = {name: outputs.get(name) for name in names if name not in arrays}
    return length, [
        {name: arrays[name][index] if name in arrays else common[name] for name in names} for index in range(length)
    ]
