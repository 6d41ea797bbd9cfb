"""Checks what a person says of a column: units as VOUnits, UCDs as UCD1+, and how its values are shown.

What files and workflows say is taken as it is; it is their authors' to put right.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from stoa_contracts.types import Column, Display
from stoa_tables.problems import InvalidRequestError
from stoa_tables.values import type_words

__all__ = ["check_display", "check_meaning", "check_ucd", "check_unit"]

_LONGEST = 200

#: How close what was meant has to be to what was written.
_CLOSE = 0.8

#: UCDs of 2000 that Simple Cone Search 1.03 asks for, beside UCD1+.
_CONE_SEARCH = frozenset({"ID_MAIN", "POS_EQ_RA_MAIN", "POS_EQ_DEC_MAIN"})

#: Other ways in which astronomers write units.
_OTHER_FORMATS = ("generic", "cds", "fits", "ogip")

_SHOWS: Mapping[Display, tuple[frozenset[str], str]] = {
    "link": (frozenset({"string", "File"}), "string or File"),
    "image": (frozenset({"string", "File"}), "string or File"),
    "fits": (frozenset({"string", "File"}), "string or File"),
    "sexagesimal": (frozenset({"int", "long", "float", "double"}), "numbers"),
}


def check_meaning(said: Mapping[str, Any]) -> None:
    """Check the unit and the UCD among what is said of a column.

    Raises
    ------
    InvalidRequestError
        With what was meant, perhaps.

    Notes
    -----
    The first unit costs most of a second, because astropy is loaded for it.
    """
    if said.get("unit"):
        check_unit(said["unit"])
    if said.get("ucd"):
        check_ucd(said["ucd"])


# --- units -------------------------------------------------------------------------------------------------------------


def check_unit(unit: str) -> None:
    """Check that a text is a unit in the VOUnits syntax.

    Raises
    ------
    InvalidRequestError
        If it is none; names the one that was meant, where it is a unit in another syntax.
    """
    if len(unit) <= _LONGEST and _parsed(unit, "vounit") is not None:
        return
    suggestion = _suggested_unit(unit) if len(unit) <= _LONGEST else None
    guess = f"; did you mean {suggestion!r}?" if suggestion else ", such as 'mJy' or 'km.s**-1'"
    raise InvalidRequestError(
        f"{_shown(unit)} is no unit in the VOUnits syntax{guess}", unit=unit[:_LONGEST], suggestion=suggestion
    )


def _parsed(unit: str, format_: str) -> Any:
    from astropy.units import Unit  # noqa: PLC0415 - astropy takes most of a second

    with warnings.catch_warnings():
        # Deprecated units are units.
        warnings.simplefilter("ignore")
        try:
            return Unit(unit, format=format_, parse_strict="raise")
        except (ValueError, TypeError, ArithmeticError, RecursionError):
            return None


def _suggested_unit(unit: str) -> str | None:
    for format_ in _OTHER_FORMATS:
        found = _parsed(unit, format_)
        if found is not None and (written := _written(found)):
            return written
    return _close_unit(unit)


def _written(unit: Any) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written: str = unit.to_string("vounit")
    except (ValueError, TypeError, ArithmeticError):
        return None
    return written if written and _parsed(written, "vounit") is not None else None


def _close_unit(unit: str) -> str | None:
    from astropy.units import Unit  # noqa: PLC0415 - as above

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Unit(unit, format="vounit", parse_strict="raise")
    except ValueError as error:
        found = re.search(r"Did you mean ([^ ,?]+)", str(error))
        if found is not None and difflib.SequenceMatcher(None, unit, found[1]).ratio() > _CLOSE:
            return found[1] if _parsed(found[1], "vounit") is not None else None
    except (TypeError, ArithmeticError, RecursionError):
        pass
    return None


# --- UCDs --------------------------------------------------------------------------------------------------------------


def check_ucd(ucd: str) -> None:
    """Check that a text is one or several words of the UCD1+ vocabulary, or what a cone search asks for.

    Raises
    ------
    InvalidRequestError
        If it is not; says what is wrong, and what was meant, perhaps.
    """
    if ucd in _CONE_SEARCH:
        return
    from astropy.io.votable.ucd import check_ucd as is_ucd  # noqa: PLC0415 - astropy takes most of a second
    from astropy.io.votable.ucd import parse_ucd  # noqa: PLC0415 - as above

    if len(ucd) <= _LONGEST and is_ucd(ucd, check_controlled_vocabulary=True):
        return
    why = "it is too long"
    if len(ucd) <= _LONGEST:
        try:
            parse_ucd(ucd, check_controlled_vocabulary=True)
        except ValueError as error:
            why = str(error)
            why = why[:1].lower() + why[1:]
    suggestion = _suggested_ucd(ucd) if len(ucd) <= _LONGEST else None
    guess = f"; did you mean {suggestion!r}?" if suggestion else ""
    raise InvalidRequestError(f"{_shown(ucd)} is no UCD1+: {why}{guess}", ucd=ucd[:_LONGEST], suggestion=suggestion)


def _suggested_ucd(ucd: str) -> str | None:
    from astropy.io.votable.ucd import UCDWords  # noqa: PLC0415 - astropy takes most of a second
    from astropy.io.votable.ucd import check_ucd as is_ucd  # noqa: PLC0415 - as above

    vocabulary = UCDWords()
    # astropy tells whether a word is one, but lists them nowhere.
    known: Mapping[str, str] = getattr(vocabulary, "_capitalization", {})
    words = [_close_word(word.strip(), known) for word in ucd.split(";") if word.strip()]
    for first in range(len(words)):
        # What stands first has to be a word that can.
        ordered = ";".join([words[first], *words[:first], *words[first + 1 :]])
        if ordered != ucd and is_ucd(ordered, check_controlled_vocabulary=True):
            return ordered
    return None


def _close_word(word: str, known: Mapping[str, str]) -> str:
    # UCDs of 2000 had the same words in capitals, with other joints.
    plain = word.casefold().replace("_", ".")
    if plain in known:
        return known[plain]
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.75)
    return known[close[0]] if close else word


# --- display -----------------------------------------------------------------------------------------------------------


def check_display(column: Column) -> None:
    """Check that a column's values can be shown as it says.

    Raises
    ------
    InvalidRequestError
        If they cannot.
    """
    if column.display is None:
        return
    takes, words = _SHOWS[column.display]
    if not _kinds(column.type) & {*takes, "Any"}:
        raise InvalidRequestError(
            f"The column {column.name} holds {type_words(column.type)}; what is shown as {column.display} is {words}",
            column=column.name,
        )


def _kinds(column_type: Any) -> set[str]:
    """Name the simple types that a type, or an array's elements, may have."""
    if isinstance(column_type, Sequence) and not isinstance(column_type, str):
        return set[str]().union(*map(_kinds, column_type))
    if isinstance(column_type, Mapping):
        return _kinds(column_type["items"] if column_type.get("type") == "array" else column_type.get("type"))
    text = str(column_type)
    while text.endswith(("?", "[]")):
        text = text.removesuffix("?").removesuffix("[]")
    return {text}


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:40]}…")
