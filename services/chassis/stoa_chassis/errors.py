"""Errors that are told over HTTP by processes that may have no database, and are raised by those that have one."""

from __future__ import annotations

__all__ = ["DatabaseUnavailableError"]


class DatabaseUnavailableError(Exception):
    """The database cannot be reached or written. Nothing was changed."""
