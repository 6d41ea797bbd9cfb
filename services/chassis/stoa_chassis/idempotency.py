"""``Idempotency-Key``: a command that is sent twice is carried out once.

See draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from stoa_chassis.problems import Problem
from stoa_contracts.canonical import digest

__all__ = ["KeyReusedError", "idempotency_key", "once"]

_KEPT = timedelta(days=2)


class KeyReusedError(Problem):
    """An idempotency key came with another request than the first time."""

    status = 422
    code = "idempotency-key-reused"
    title = "The idempotency key belongs to another request"


def idempotency_key(metadata: sa.MetaData) -> sa.Table:
    """Define the table of keys in a service's metadata; it is no part of a read model."""
    return sa.Table(
        "idempotency_key",
        metadata,
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("actor", sa.String(200), primary_key=True),
        sa.Column("request", sa.String(64), nullable=False, doc="Digest of what was asked for"),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
    )


def once(
    connection: sa.Connection, table: sa.Table, key: str | None, actor: str, request: Any, command: Callable[[], Any]
) -> Any:
    """Carry out a command, or give the answer that it gave the first time.

    Parameters
    ----------
    connection
        Of the write transaction in which the command does its work.
    table
        Made by `idempotency_key`.
    key
        What the caller sent, if anything.
    actor
        Keys of different people do not meet.
    request
        What was asked for, as JSON.
    command
        Does the work and gives the answer, as JSON.

    Raises
    ------
    KeyReusedError
        If the key came with another request.
    """
    if key is None:
        return command()
    asked = digest(request)
    where = (table.c.key == key, table.c.actor == actor)
    known = connection.execute(sa.select(table.c.request, table.c.answer).where(*where)).first()
    if known is not None:
        if known.request != asked:
            msg = f"The idempotency key {key!r} was used before, with another request"
            raise KeyReusedError(msg)
        return json.loads(known.answer)
    answer = command()
    now = datetime.now(UTC)
    connection.execute(sa.delete(table).where(table.c.time < now - _KEPT))
    connection.execute(
        sa.insert(table).values(key=key, actor=actor, request=asked, answer=json.dumps(answer), time=now)
    )
    return answer
