"""Identifiers: UUIDv7, so that what was made later sorts later."""

from __future__ import annotations

import uuid_utils

__all__ = ["new_id"]


def new_id() -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7) in its canonical text form.

    Returns
    -------
    str
        36 characters; ids made later in one process sort after earlier ones.
    """
    return str(uuid_utils.uuid7())
