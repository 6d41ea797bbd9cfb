"""The values of cells: which ones a column takes, and how they are written in JSON and in CSV.

`docs/cwl-types.md` lists the types.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import quote, unquote, urlsplit

from stoa_chassis.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from stoa_contracts.types import Column, ColumnRole, Values

__all__ = [
    "INPUTS",
    "InvalidRowError",
    "InvalidValueError",
    "SortKind",
    "check_default",
    "check_row",
    "coerce",
    "element_type",
    "fill_defaults",
    "from_text",
    "is_array",
    "is_numeric",
    "is_optional",
    "missing_inputs",
    "refers_to_bundle",
    "sort_kind",
    "to_text",
    "type_words",
]

SortKind = Literal["number", "text", "boolean", "json"]

#: The roles of the columns that people write.
INPUTS: tuple[ColumnRole, ...] = ("input",)

_NUMBERS = ("int", "long", "float", "double")
_RANGES = {"int": 2**31, "long": 2**63}
# The largest number that rounds to a finite one of 32 bits.
_LARGEST_FLOAT = float.fromhex("0x1.ffffffp+127")
_SHA256 = re.compile(r"^sha256:([0-9a-fA-F]{64})$")
_WHOLE = re.compile(r"^[+-]?[0-9]+(\.0*)?$")
_DECIMAL = re.compile(r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$")
_NOT_FINITE = re.compile(r"^[+-]?(nan|inf|infinity)$", re.IGNORECASE)
_KEPT_FIELDS = {
    "File": ("basename", "checksum", "size", "format", "contents", "secondaryFiles"),
    "Directory": ("basename", "listing"),
}
# The engine computes the last three anew, wherever the file lies then.
_DROPPED_FIELDS = ("class", "location", "path", "dirname", "nameroot", "nameext")
# Shown in messages.
_MAX_SHOWN = 60
# Beyond this, not the whole list.
_MAX_LISTED = 20


class InvalidValueError(Problem, ValueError):
    """A column does not take a value.

    Parameters
    ----------
    name
        The column, and after it the place within the value: ``sources[2].flux``.
    message
        A sentence that says why.
    """

    status: ClassVar[int] = 422
    code: ClassVar[str] = "invalid-value"
    title: ClassVar[str] = "A column does not take a value"

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}", column=name)
        self.name = name
        self.message = message


class InvalidRowError(InvalidValueError):
    """Some columns do not take their values.

    Parameters
    ----------
    errors
        One per column; at least one.
    """

    def __init__(self, errors: Sequence[InvalidValueError]) -> None:
        super().__init__(errors[0].name, errors[0].message)
        self.errors = tuple(errors)
        self.detail = "\n".join(str(error) for error in errors)
        self.members = {
            "column": errors[0].name,
            "errors": [{"column": error.name, "message": error.message} for error in errors],
        }


# --- what a type is ----------------------------------------------------------------------------------------------------


def is_optional(column_type: Any) -> bool:
    """Tell whether null is one of a type's values."""
    return column_type == "null" or (isinstance(column_type, list) and "null" in column_type)


def _members(column_type: Any) -> list[Any]:
    """List the types that a value may have, without null."""
    return [member for member in (column_type if isinstance(column_type, list) else [column_type]) if member != "null"]


def _kind(member: Any) -> str:
    return member if isinstance(member, str) else str(member["type"])


def is_numeric(column_type: Any) -> bool:
    """Tell whether all values, but for null, are numbers."""
    members = _members(column_type)
    return bool(members) and all(_kind(member) in _NUMBERS for member in members)


def is_array(column_type: Any) -> bool:
    """Tell whether all values, but for null, are arrays."""
    members = _members(column_type)
    return bool(members) and all(_kind(member) == "array" for member in members)


def element_type(column_type: Any) -> Any | None:
    """Give the type of an array's items.

    Returns
    -------
    Any | None
        None if the type is no array. Where null may stand for the array, it does not count.
    """
    if not is_array(column_type):
        return None
    items: list[Any] = []
    for member in _members(column_type):
        entries = member["items"] if isinstance(member["items"], list) else [member["items"]]
        items.extend(entry for entry in entries if entry not in items)
    return items[0] if len(items) == 1 else items


def sort_kind(column_type: Any) -> SortKind:
    """Say how the values of a column are compared.

    Returns
    -------
    {"number", "text", "boolean", "json"}
        ``json`` for files, arrays, records and mixtures, which are equal or not and have no order of their own.
    """
    if is_numeric(column_type):
        return "number"
    kinds = {_kind(member) for member in _members(column_type)}
    if kinds == {"boolean"}:
        return "boolean"
    return "text" if kinds and kinds <= {"string", "enum"} else "json"


def type_words(column_type: Any) -> str:
    """Name a type for people: ``array of int``, ``string or null``."""
    if isinstance(column_type, list):
        return " or ".join(
            type_words(member) for member in [*_members(column_type), *(["null"] if is_optional(column_type) else [])]
        )
    if isinstance(column_type, str):
        return column_type
    if column_type["type"] == "array":
        items = type_words(column_type["items"])
        return f"array of ({items})" if isinstance(column_type["items"], list) else f"array of {items}"
    if column_type["type"] == "enum":
        return "one of " + _listed(column_type["symbols"])
    return "record of " + ", ".join(entry["name"] for entry in column_type["fields"])


# --- coercion ----------------------------------------------------------------------------------------------------------


def coerce(value: Any, column_type: Any, *, name: str) -> Any:
    """Check a value that came as JSON, and bring it into the one form in which it is stored.

    Parameters
    ----------
    value
        What `json.loads` gives.
    column_type
        The CWL type in JSON form, as in `stoa_contracts.types.Column`.
    name
        The column, for the message.

    Returns
    -------
    Any
        The value. Whole numbers in a column of floats become floats, ``3.0`` in a column of integers becomes ``3``, and
        the address or path of a file becomes a CWL object with a ``location``. What was coerced once stays as it is.

    Raises
    ------
    InvalidValueError
        If the type does not have the value.
    """
    return _coerce(value, column_type, name, in_bundle=False)


def _coerce(value: Any, column_type: Any, name: str, *, in_bundle: bool) -> Any:  # noqa: PLR0911 - one per kind of type
    if isinstance(column_type, list):
        return _coerce_union(value, column_type, name, in_bundle=in_bundle)
    if value is None:
        if column_type == "null":
            return None
        raise InvalidValueError(name, f"A value is required here: {type_words(column_type)}.")
    kind = _kind(column_type)
    if kind in _RANGES:
        return _coerce_whole(value, kind, name)
    if kind in ("float", "double"):
        return _coerce_float(value, kind, name)
    if kind in ("File", "Directory"):
        return _coerce_file(value, kind, name, in_bundle=in_bundle)
    if kind == "array":
        if not isinstance(value, list | tuple):
            raise InvalidValueError(name, f"{_shown(value)} is no array.")
        items = column_type["items"]
        return [_coerce(item, items, f"{name}[{index}]", in_bundle=in_bundle) for index, item in enumerate(value)]
    if kind == "record":
        return _coerce_record(value, column_type["fields"], name, in_bundle=in_bundle)
    return _coerce_simple(value, column_type, kind, name)


def _coerce_simple(value: Any, column_type: Any, kind: str, name: str) -> Any:
    if kind == "string":
        if not isinstance(value, str):
            raise InvalidValueError(name, f"{_shown(value)} is no text.")
        return _checked_text(value, name)
    if kind == "boolean":
        if not isinstance(value, bool):
            raise InvalidValueError(name, f"{_shown(value)} is neither true nor false.")
        return value
    if kind == "enum":
        if isinstance(value, str) and value in column_type["symbols"]:
            return str(value)
        raise InvalidValueError(name, f"{_shown(value)} is not one of {_listed(column_type['symbols'])}.")
    if kind == "null":
        raise InvalidValueError(name, f"{_shown(value)} cannot stand here; only null can.")
    return _checked_json(value, name)


def _coerce_whole(value: Any, kind: str, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValueError(name, f"{_shown(value)} is no whole number.")
    if isinstance(value, float) and not value.is_integer():
        raise InvalidValueError(name, f"{_shown(value)} is no whole number.")
    whole = int(value)
    limit = _RANGES[kind]
    if not -limit <= whole < limit:
        advice = "; a column of the type long takes larger ones" if kind == "int" and -(2**63) <= whole < 2**63 else ""
        raise InvalidValueError(name, f"{_shown(value)} is not between {-limit} and {limit - 1}{advice}.")
    return whole


def _coerce_float(value: Any, kind: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValueError(name, f"{_shown(value)} is no number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise InvalidValueError(name, "NaN is no value; leave the cell empty (null) where there is none.")
    if math.isinf(number):
        raise InvalidValueError(name, "The number is infinite, or too large for 64 bits.")
    if kind == "float" and abs(number) >= _LARGEST_FLOAT:
        raise InvalidValueError(
            name, f"{_shown(value)} is too large for 32 bits; a column of the type double takes it."
        )
    return number


def _coerce_record(value: Any, fields: Sequence[Mapping[str, Any]], name: str, *, in_bundle: bool) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidValueError(name, f"{_shown(value)} is no record.")
    known = [entry["name"] for entry in fields]
    for key in value:
        if key not in known:
            raise InvalidValueError(name, f"The record has no field {_shown(key)}{_guess(str(key), known)}.")
    made = {}
    for entry in fields:
        key = entry["name"]
        made[key] = (
            None
            if value.get(key) is None and is_optional(entry["type"])
            else _coerce(value.get(key), entry["type"], f"{name}.{key}", in_bundle=in_bundle)
        )
    return made


def _coerce_union(value: Any, members: Sequence[Any], name: str, *, in_bundle: bool) -> Any:
    if value is None and "null" in members:
        return None
    errors = []
    for member in _members(list(members)):
        try:
            return _coerce(value, member, name, in_bundle=in_bundle)
        except InvalidValueError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise InvalidValueError(name, f"{_shown(value)} is not of the type {type_words(list(members))}.")


def _checked_text(value: str, name: str) -> str:
    if "\0" in value:
        raise InvalidValueError(name, "The text holds a NUL character, which no table can hold.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValueError(name, "The text is no valid Unicode: it holds half of a surrogate pair.") from None
    return str(value)


def _checked_json(value: Any, name: str) -> Any:
    """Check a value of the type Any."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked_text(value, name)
    if isinstance(value, int):
        return _coerce_whole(value, "long", name)
    if isinstance(value, float):
        return _coerce_float(value, "double", name)
    if isinstance(value, list | tuple):
        return [_checked_json(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_checked_text(str(key), name): _checked_json(item, f"{name}.{key}") for key, item in value.items()}
    raise InvalidValueError(name, f"{_shown(value)} is nothing that JSON can hold.")


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more


def _guess(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if not close:
        close = [other for other in known if other.lower() == word.lower()]
    return f"; did you mean {_shown(close[0])}?" if close else ""


# --- files -------------------------------------------------------------------------------------------------------------


def _coerce_file(value: Any, kind: str, name: str, *, in_bundle: bool) -> dict[str, Any]:
    if isinstance(value, str):
        return {"class": kind, "location": _location(value, name, in_bundle=in_bundle)}
    if not isinstance(value, Mapping):
        raise InvalidValueError(name, f"{_shown(value)} is no {kind}: a path, or a CWL object with a location, is.")
    found = value.get("class")
    if found != kind:
        told = "has no class" if found is None else f"is a {found}" if isinstance(found, str) else "has no valid class"
        raise InvalidValueError(name, f"The object {told}; a {kind} is wanted.")
    made: dict[str, Any] = {"class": kind}
    if (location := value.get("location") or value.get("path")) is not None:
        if not isinstance(location, str):
            raise InvalidValueError(name, f"The location {_shown(location)} is no text.")
        made["location"] = _location(location, name, in_bundle=in_bundle)
    elif value.get("contents" if kind == "File" else "listing") is None:
        raise InvalidValueError(name, f"The {kind} has no location.")
    for key, item in value.items():
        # Extension fields have a colon in their names; engines add some, and none of them says what the file is.
        if item is None or key in _DROPPED_FIELDS or ":" in str(key):
            continue
        if key not in _KEPT_FIELDS[kind]:
            raise InvalidValueError(name, f"A {kind} has no field {_shown(key)}{_guess(str(key), _KEPT_FIELDS[kind])}.")
        made[key] = _file_field(key, item, name, in_bundle=in_bundle)
    return made


def _file_field(key: str, value: Any, name: str, *, in_bundle: bool) -> Any:
    where = f"{name}.{key}"
    if key in ("secondaryFiles", "listing"):
        if not isinstance(value, list | tuple):
            raise InvalidValueError(where, f"{_shown(value)} is no list of files.")
        return [
            _coerce_union(item, ["File", "Directory"], f"{where}[{index}]", in_bundle=in_bundle)
            for index, item in enumerate(value)
        ]
    if key == "size":
        return _coerce_whole(value, "long", where)
    if not isinstance(value, str):
        raise InvalidValueError(where, f"{_shown(value)} is no text.")
    if key == "basename" and ("/" in value or value in ("", ".", "..")):
        raise InvalidValueError(where, f"{_shown(value)} is no name of a file.")
    return _checked_text(value, where)


def _location(text: str, name: str, *, in_bundle: bool) -> str:
    """Bring the place of a file into its one form: a file URI, or a digest."""
    _checked_text(text, name)
    if match := _SHA256.match(text):
        return f"sha256:{match[1].lower()}"
    if text.startswith("/"):
        return "file://" + quote("/" + text.lstrip("/"))
    scheme = text.partition(":")[0].lower() if ":" in text else ""
    if scheme == "file":
        split = urlsplit(text)
        if split.netloc not in ("", "localhost"):
            raise InvalidValueError(name, f"The file {_shown(text)} is on another host; give a path on this one.")
        path = unquote(split.path, errors="surrogateescape")
        if not path.startswith("/") or split.query or split.fragment or "\0" in path:
            raise InvalidValueError(
                name, f"{_shown(text)} is no file URI; such a URI looks like file:///data/image.fits."
            )
        return "file://" + quote("/" + path.lstrip("/"), errors="surrogateescape")
    if scheme == "sha256":
        raise InvalidValueError(name, f"{_shown(text)} is no digest: sha256: and 64 hexadecimal digits are.")
    if in_bundle and not re.match(r"^[A-Za-z][A-Za-z0-9+.-]*:", text) and text:
        return text
    if re.match(r"^[A-Za-z][A-Za-z0-9+.-]*:", text):
        raise InvalidValueError(
            name, f"{_shown(text)} cannot be read; a file is given by its path, a file:// URI or sha256:."
        )
    raise InvalidValueError(name, f"{_shown(text)} is no absolute path; such a path begins with '/'.")


def refers_to_bundle(value: Any) -> bool:
    """Tell whether a default names a file of the workflow version, by a location relative to its folder."""
    if isinstance(value, Mapping):
        if value.get("class") in ("File", "Directory"):
            location = value.get("location", value.get("path"))
            relative = (
                isinstance(location, str)
                and not location.startswith("/")
                and not re.match(r"^(file|sha256):", location)
            )
            return relative or any(refers_to_bundle(value.get(key)) for key in ("secondaryFiles", "listing"))
        return any(refers_to_bundle(item) for item in value.values())
    return isinstance(value, list) and any(refers_to_bundle(item) for item in value)


# --- rows --------------------------------------------------------------------------------------------------------------


def check_default(column: Column) -> Any:
    """Check that a column's default is one of its values; files may be named relative to the bundle.

    Returns
    -------
    Any
        The default, coerced; null where there is none.

    Raises
    ------
    InvalidValueError
        If the column does not take it.
    """
    return None if column.default is None else _coerce(column.default, column.type, column.name, in_bundle=True)


def check_row(
    columns: Sequence[Column], values: Mapping[str, Any], *, writable: Collection[ColumnRole] = INPUTS
) -> Values:
    """Check the cells that a person or a program wrote.

    Parameters
    ----------
    columns
        All columns of the table.
    values
        Column to value; columns may be left out.
    writable
        The roles of the columns that may be written. Rows of imported tables and of links write keys.

    Returns
    -------
    Values
        The same cells, coerced. Null is kept, in required columns also: a row may be filled in later, and
        `missing_inputs` tells whether it can run.

    Raises
    ------
    InvalidRowError
        If a column is unknown or not writable, or does not take its value. It names all of them.
    """
    known = {column.name: column for column in columns}
    checked: Values = {}
    errors: list[InvalidValueError] = []
    for name, value in values.items():
        column = known.get(name)
        if column is None:
            errors.append(_unknown_column(str(name), columns, writable))
        elif column.role not in writable:
            errors.append(_not_writable(column))
        elif value is None:
            checked[name] = None
        else:
            try:
                checked[name] = _coerce(value, column.type, name, in_bundle=False)
            except InvalidValueError as error:
                errors.append(error)
    if errors:
        raise InvalidRowError(errors)
    return checked


def _unknown_column(name: str, columns: Sequence[Column], writable: Collection[ColumnRole]) -> InvalidValueError:
    names = [column.name for column in columns if column.role in writable]
    guess = _guess(name, names)
    told = f" There are: {_listed(names)}." if names and not guess else ""
    return InvalidValueError(name, f"The table has no such column{guess or '.'}{told}")


def _not_writable(column: Column) -> InvalidValueError:
    why = "is computed by the workflow" if column.role == "output" else "comes from another table"
    return InvalidValueError(column.name, f"The column {why} and cannot be written.")


def fill_defaults(columns: Sequence[Column], values: Mapping[str, Any]) -> Values:
    """Complete a new row.

    Parameters
    ----------
    columns
        All columns of the table.
    values
        Cells that `check_row` checked.

    Returns
    -------
    Values
        A value for every key and input column, in their order: the one given, else the default, else null. A default
        that names a file of the workflow version stays null: the workflow version that runs brings its own.
    """
    filled: Values = {}
    for column in columns:
        if column.role == "output":
            continue
        if column.name in values:
            filled[column.name] = values[column.name]
        elif column.default is None or refers_to_bundle(column.default):
            filled[column.name] = None
        else:
            filled[column.name] = _coerce(column.default, column.type, column.name, in_bundle=False)
    return filled


def missing_inputs(columns: Sequence[Column], values: Mapping[str, Any]) -> list[str]:
    """Name the inputs without which a row cannot run.

    Returns
    -------
    list of str
        Required inputs that are null and for which the workflow has no default, in the order of the columns.
    """
    return [
        column.name
        for column in columns
        if column.role == "input"
        and values.get(column.name) is None
        and column.default is None
        and not is_optional(column.type)
    ]


# --- text --------------------------------------------------------------------------------------------------------------

# What is most particular is tried first, so that text which can be anything comes last.
_TEXT_RANK = {
    "boolean": 0,
    "int": 1,
    "long": 1,
    "float": 1,
    "double": 1,
    "array": 2,
    "record": 2,
    "File": 2,
    "Directory": 2,
    "Any": 3,
    "enum": 4,
    "string": 5,
}


def from_text(text: str, column_type: Any, *, name: str = "value") -> Any:
    """Read a cell of a CSV file.

    Parameters
    ----------
    text
        The cell. Empty is null; ``""`` (two quotes in the cell itself) is the empty text.
    column_type
        The CWL type in JSON form.
    name
        The column, for the message.

    Returns
    -------
    Any
        The coerced value.

    Raises
    ------
    InvalidValueError
        If the type has no such value.
    """
    if not text:
        return None
    members = _members(column_type)
    if not members:
        raise InvalidValueError(name, f"{_shown(text)} cannot stand here; the cell stays empty.")
    if len(members) == 1:
        return _read(text, members[0], name, optional=is_optional(column_type), alone=True)
    for member in sorted(members, key=lambda member: _TEXT_RANK[_kind(member)]):
        try:
            return _read(text, member, name, optional=False, alone=False)
        except InvalidValueError:
            continue
    if is_optional(column_type) and _NOT_FINITE.match(text.strip()) and "nan" in text.lower():
        return None
    raise InvalidValueError(name, f"{_shown(text)} is not of the type {type_words(column_type)}.")


def _read(text: str, member: Any, name: str, *, optional: bool, alone: bool) -> Any:
    kind = _kind(member)
    if kind in ("string", "enum"):
        return _coerce(_unquoted(text), member, name, in_bundle=False)
    stripped = text.strip()
    if kind in _NUMBERS:
        return _read_number(stripped, kind, name, optional=optional)
    if kind == "boolean":
        return _read_boolean(stripped, name, alone=alone)
    if kind in ("File", "Directory") and not stripped.startswith("{"):
        return _coerce_file(text, kind, name, in_bundle=False)
    return _read_json(stripped, text, member, name)


def _read_number(text: str, kind: str, name: str, *, optional: bool) -> int | float | None:
    if kind in _RANGES:
        # Through float, digits of a long would be lost.
        if _WHOLE.match(text):
            whole = text.partition(".")[0]
            if len(whole) > _MAX_LISTED:
                raise InvalidValueError(name, f"{_shown(text)} has too many digits for a column of the type {kind}.")
            return _coerce_whole(int(whole), kind, name)
        if _DECIMAL.match(text):
            return _coerce_whole(float(text), kind, name) if math.isfinite(float(text)) else _too_large(text, name)
    elif _DECIMAL.match(text):
        return _coerce_float(float(text), kind, name)
    if _NOT_FINITE.match(text):
        if optional and "nan" in text.lower():
            return None
        raise InvalidValueError(name, f"{_shown(text)} is no value here; leave the cell empty where there is none.")
    raise InvalidValueError(name, f"{_shown(text)} is no {'whole ' if kind in _RANGES else ''}number.")


def _too_large(text: str, name: str) -> int:
    raise InvalidValueError(name, f"{_shown(text)} is too large.")


def _read_boolean(text: str, name: str, *, alone: bool) -> bool:
    words = {"true": True, "false": False}
    if alone:
        words |= {"1": True, "0": False, "t": True, "f": False, "yes": True, "no": False}
    if text.lower() not in words:
        raise InvalidValueError(name, f"{_shown(text)} is neither true nor false.")
    return words[text.lower()]


def _read_json(stripped: str, text: str, member: Any, name: str) -> Any:
    try:
        value = json.loads(stripped, parse_constant=_refuse_constant(name))
    except InvalidValueError:
        raise
    except (ValueError, RecursionError) as error:
        if member == "Any":
            return _checked_text(text, name)
        told = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidValueError(name, f"{_shown(text)} is no {_kind(member)} in JSON{told}.") from None
    if value is None and member == "Any":
        return None
    return _coerce(value, member, name, in_bundle=False)


def _refuse_constant(name: str) -> Callable[[str], Any]:
    def refuse(constant: str) -> Any:
        raise InvalidValueError(name, f"{constant} is not JSON; null stands for what has no value.")

    return refuse


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            value = json.loads(text)
        except ValueError:
            return text
        if isinstance(value, str):
            return value
    return text


def to_text(value: Any, column_type: Any) -> str:
    """Write a cell of a CSV file, so that `from_text` reads the same value.

    Parameters
    ----------
    value
        A coerced value.
    column_type
        The CWL type in JSON form.

    Returns
    -------
    str
        Empty for null; arrays, records and mixtures in JSON.
    """
    if value is None:
        return ""
    members = _members(column_type)
    if len(members) == 1:
        return _write(value, _kind(members[0]))
    for member in members:
        try:
            _coerce(value, member, "", in_bundle=False)
        except InvalidValueError:
            continue
        text = _write(value, _kind(member))
        try:
            if _same(from_text(text, column_type), value):
                return text
        except InvalidValueError:
            pass
        break
    return _json(value)


def _write(value: Any, kind: str) -> str:
    if kind in ("string", "enum") and isinstance(value, str):
        quoted = not value or (len(value) > 1 and value[0] == value[-1] == '"')
        return _json(value) if quoted else value
    if kind in ("File", "Directory") and isinstance(value, Mapping) and set(value) == {"class", "location"}:
        location = str(value["location"])
        if not location.startswith("file:///"):
            return location
        path = unquote(location.removeprefix("file://"), errors="surrogateescape")
        return path if path.isprintable() and "file://" + quote(path) == location else location
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _same(one: Any, other: Any) -> bool:
    return _json(one) == _json(other)
