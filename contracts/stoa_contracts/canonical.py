"""The one canonical byte form of JSON, for everything that is hashed or signed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["canonical_json", "digest"]

# Made once: it costs as much to make as to write a small value.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """Write JSON in its canonical form.

    Keys are sorted by code point, there is no white space, text is UTF-8 and a number is the shortest one that reads
    back as the same value.

    Parameters
    ----------
    value
        Anything that JSON can hold.

    Returns
    -------
    bytes
        UTF-8 text.

    Raises
    ------
    ValueError
        If the value holds NaN or an infinity, which JSON cannot carry.

    Notes
    -----
    RFC 8785 (JCS) is the same but for integers beyond 53 bits, which it refuses: identifiers of large surveys, such as
    Gaia's ``source_id``, need 63 bits.
    """
    return _canonical.encode(value).encode()


def digest(value: Any) -> str:
    """Name a JSON value by the SHA-256 of its canonical form.

    Returns
    -------
    str
        64 lower-case hexadecimal digits.
    """
    return hashlib.sha256(canonical_json(value)).hexdigest()
