"""The files that jobs have read where their content may change: the read model of them, and how it evolves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from stoa_executor.domain import local_path, path_id

__all__ = ["location_id", "note_change", "watch_files"]


def location_id(location: str) -> str:
    """Name a location in a column of fixed length."""
    return hashlib.sha256(location.encode(errors="surrogatepass")).hexdigest()


def watch_files(connection: sa.Connection, table: sa.Table, files: Iterable[Mapping[str, Any]]) -> None:
    """Take up what a job has read and is not known yet.

    Of a known location nothing changes here, because what it holds has to be told first, as a change.

    Parameters
    ----------
    connection
        Of the transaction that records the job's end.
    table
        ``watched_file``, or its shadow.
    files
        As `job-finished` names them.
    """
    wanted = {}
    for file in files:
        path = local_path(file["location"])
        # What is named relative to the workflow's files changes only with the workflow.
        if path is not None:
            wanted[location_id(file["location"])] = {
                "location": file["location"],
                "path": path_id(path),
                "directory": file.get("size") is None,
                "sha256": file["sha256"],
                "gone": False,
            }
    names = list(wanted)
    for start in range(0, len(names), 500):
        some = names[start : start + 500]
        known = set(connection.execute(sa.select(table.c.id).where(table.c.id.in_(some))).scalars())
        new = [{"id": name, **wanted[name]} for name in some if name not in known]
        if new:
            connection.execute(sa.insert(table), new)


def note_change(connection: sa.Connection, table: sa.Table, data: Mapping[str, Any]) -> None:
    """Take over what was told of a location.

    Parameters
    ----------
    connection
        Of the transaction that records the change.
    table
        ``watched_file``, or its shadow.
    data
        Of `file-changed`.
    """
    values: dict[str, Any] = {"gone": data["sha256"] is None}
    if data["sha256"] is not None:
        values["sha256"] = data["sha256"]
        values["directory"] = data.get("size") is None
    connection.execute(sa.update(table).where(table.c.id == location_id(data["location"])).values(**values))
