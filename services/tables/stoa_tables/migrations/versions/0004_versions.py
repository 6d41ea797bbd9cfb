"""The workflow versions that a table ever had."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from stoa_contracts.events.tables import ColumnDescribed, WorkflowChanged
from stoa_contracts.registry import load_event
from stoa_contracts.types import Column

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema, and fill the new table from the log."""
    table_version = op.create_table(
        "table_version",
        sa.Column("table_id", sa.String(36), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("time", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("last_time", sa.String(40), nullable=False),
        sa.Column("last_actor", sa.String(200), nullable=False),
        sa.Column("columns", sa.JSON(none_as_null=True)),
        sa.PrimaryKeyConstraint("table_id", "version", name="pk_table_version"),
    )
    found = versions_in(op.get_bind())
    if found:
        op.bulk_insert(table_version, found)


def versions_in(connection: sa.Connection) -> list[dict[str, Any]]:
    """Compute the content of the new table from the log."""
    event = sa.table("event", *map(sa.column, ("position", "type", "schema_version", "time", "actor", "data")))
    statement = (
        sa.select(event)
        .where(event.c.type.in_(["workflow-changed", "column-described"]))
        .order_by(event.c.position)
        .execution_options(yield_per=1000)
    )
    columns: dict[str, list[Column]] = {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in connection.execute(statement):
        fact = load_event("tables", entry.type, entry.schema_version, json.loads(entry.data))
        if isinstance(fact, ColumnDescribed):
            columns[fact.table] = [
                fact.column if column.name == fact.column.name else column for column in columns.get(fact.table, [])
            ]
        elif isinstance(fact, WorkflowChanged):
            versions = found.setdefault(fact.table, {})
            if fact.previous_version in versions:
                left = [column.model_dump(mode="json") for column in columns[fact.table]]
                versions[fact.previous_version]["columns"] = left
            columns[fact.table] = fact.columns
            version = versions.setdefault(fact.workflow_version, _first(fact, len(versions) + 1, entry))
            version |= {"last_position": entry.position, "last_time": entry.time, "last_actor": entry.actor}
    return [version for versions in found.values() for version in versions.values()]


def _first(fact: WorkflowChanged, number: int, entry: Any) -> dict[str, Any]:
    return {
        "table_id": fact.table,
        "version": fact.workflow_version,
        "number": number,
        "position": entry.position,
        "time": entry.time,
        "actor": entry.actor,
        "columns": None,
    }
