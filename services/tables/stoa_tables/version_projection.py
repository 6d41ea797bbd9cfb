"""Evolve: which workflow versions a table ever had."""

from __future__ import annotations

import sqlalchemy as sa

from stoa_chassis.projection import ReadModel
from stoa_contracts.envelope import Envelope
from stoa_contracts.events.tables import WorkflowChanged

__all__ = ["remember_version"]


def remember_version(connection: sa.Connection, tables: ReadModel, envelope: Envelope, event: WorkflowChanged) -> None:
    """Note that a table got a workflow version, and how its columns were described with the one before.

    It has to be called while the read model still has the columns of the version before.
    """
    version, worktable = tables["table_version"], tables["worktable"]
    mine = version.c.table_id == event.table
    if event.previous_version is not None:
        columns = connection.execute(
            sa.select(worktable.c.columns).where(worktable.c.id == event.table)
        ).scalar_one_or_none()
        left = sa.update(version).where(mine, version.c.version == event.previous_version)
        connection.execute(left.values(columns=columns))
    time = envelope.written_time
    given = {"last_position": envelope.log_position, "last_time": time, "last_actor": envelope.actor}
    known = sa.update(version).where(mine, version.c.version == event.workflow_version).values(given)
    if connection.execute(known).rowcount:
        return
    number = connection.execute(sa.select(sa.func.count()).select_from(version).where(mine)).scalar_one() + 1
    first = {"position": envelope.log_position, "time": time, "actor": envelope.actor}
    new = {"table_id": event.table, "version": event.workflow_version, "number": number, **first, **given}
    connection.execute(sa.insert(version).values(new))
