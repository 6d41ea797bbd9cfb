"""The types of columns that a person describes, brought into the one form in which types are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoa_tables.problems import InvalidRequestError

__all__ = ["normal_type"]

_NAMES = ("null", "boolean", "int", "long", "float", "double", "string", "File", "Directory", "Any")
_MAX_DEPTH = 10


def normal_type(written: Any, column: str) -> Any:
    """Check a CWL type and write its short forms out.

    Parameters
    ----------
    written
        A name, which may end in ``?`` (null is allowed) and ``[]`` (an array), or a type in CWL's JSON form.
    column
        For the message.

    Returns
    -------
    Any
        The same type in JSON form: null is the first member of a union.

    Raises
    ------
    InvalidRequestError
        If it is no type.
    """
    return _normal(written, column, 0)


def _normal(written: Any, column: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise InvalidRequestError(f"The type of the column {column!r} is nested too deeply", column=column)
    if isinstance(written, str):
        return _named(written, column, depth)
    if isinstance(written, list) and written:
        return _union([_normal(member, column, depth + 1) for member in written])
    if isinstance(written, Mapping):
        kind = written.get("type")
        if kind == "array" and "items" in written:
            return {"type": "array", "items": _normal(written["items"], column, depth + 1)}
        if kind == "enum" and _are_words(written.get("symbols")):
            return {"type": "enum", "symbols": list(written["symbols"])}
        if kind == "record" and isinstance(written.get("fields"), list):
            return {"type": "record", "fields": [_field(entry, column, depth) for entry in written["fields"]]}
    raise _refusal(written, column)


def _named(written: str, column: str, depth: int) -> Any:
    if written.endswith("?"):
        return _union(["null", _normal(written[:-1], column, depth + 1)])
    if written.endswith("[]"):
        return {"type": "array", "items": _normal(written[:-2], column, depth + 1)}
    if written not in _NAMES:
        raise _refusal(written, column)
    return written


def _field(entry: Any, column: str, depth: int) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or "type" not in entry:
        raise _refusal(entry, column)
    return {"name": entry["name"], "type": _normal(entry["type"], column, depth + 1)}


def _union(members: list[Any]) -> Any:
    flat: list[Any] = []
    for member in members:
        flat += [part for part in (member if isinstance(member, list) else [member]) if part not in flat]
    flat.sort(key=lambda member: member != "null")
    return flat[0] if len(flat) == 1 else flat


def _are_words(symbols: Any) -> bool:
    return isinstance(symbols, list) and bool(symbols) and all(isinstance(symbol, str) for symbol in symbols)


def _refusal(written: Any, column: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The column {column!r} has the type {written!r}, which is none; there are {', '.join(_NAMES)}, each also with [] for "
        "an array and ? for values that may be missing, and CWL's enum, record, array and union in JSON",
        column=column,
    )
