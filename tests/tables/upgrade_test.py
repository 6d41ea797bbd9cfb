"""A database that an earlier version made, with what happened in it, is brought to the newest schema."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from stoa_chassis import administration
from stoa_chassis.database import Database
from stoa_chassis.log import Log, Origin, read_model
from stoa_chassis.migrations import differences
from stoa_contracts.canonical import digest
from stoa_contracts.events import earlier
from stoa_contracts.types import FileReference, RowInputs, Usage
from stoa_tables.app import SERVICE
from tests.tables.harness import running

_VERSION = digest("workflow")
_TABLE = "0190c0de-0000-7000-8000-000000000001"


def _first_events() -> list[Any]:
    now = datetime.now(UTC)
    columns = [
        earlier.Column(name="x", role="input", type="int"),
        earlier.Column(name="y", role="output", type="int"),
    ]
    run: dict[str, Any] = {
        "table": _TABLE,
        "workflow_version": _VERSION,
        "attempt": 1,
        "elements": None,
        "differs": True,
    }
    return [
        earlier.TableCreated(table=_TABLE, name="runs", kind="worktable", owner="ada", project="default"),
        earlier.WorkflowChanged(
            table=_TABLE,
            workflow_version=_VERSION,
            previous_version=None,
            main="main.cwl",
            process_class="CommandLineTool",
            files=[FileReference(name="main.cwl", sha256=digest("file"), size=1)],
            columns=columns,
        ),
        earlier.RowsAdded(table=_TABLE, rows=[RowInputs(row=row, inputs={"x": row}) for row in (1, 2, 3)]),
        *(
            earlier.OutputsRecorded(
                row=row,
                revision=1,
                job=f"j{row}",
                outputs={"y": 10 * row},
                started=now,
                finished=now,
                usage=Usage(wall_s=1, cpu_s=1, max_rss_bytes=1),
                **run,
            )
            for row in (1, 2)
        ),
        earlier.RowEdited(
            table=_TABLE, rows=[earlier.EditedRow(row=2, revision=2, changes={"x": 7}, previous={"x": 2})]
        ),
        earlier.RowsRemoved(table=_TABLE, rows=[3]),
    ]


def _at_first_revision(url: str) -> Database:
    """Make a database as the first version made it, with events, and a read model that holds something else."""
    database = Database(url)
    config = Config()
    config.set_main_option("script_location", str(SERVICE.migrations))
    config.set_main_option("path_separator", "os")
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        read_model.drop(connection)
        Log("tables").append(connection, _TABLE, _first_events(), Origin("ada", "c"))
        connection.execute(
            sa.text(
                "INSERT INTO worktable (id, name, folded_name, kind, owner, project, description, columns, next_row, created, "
                "deleted) VALUES ('other', 'other', 'other', 'plain', 'ada', 'default', '', '[]', 1, '', false)"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO \"row\" (table_id, \"row\", revision, status, inputs) VALUES ('other', 1, 1, 'stale', '{}')"
            )
        )
    return database


async def test_what_an_earlier_version_recorded_is_shown_by_this_one(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = _at_first_revision(database_url)
    monkeypatch.setenv("STOA_TABLES_DATABASE_URL", database_url)
    administration.migrate("tables")
    assert not differences(database, SERVICE.metadata)
    database.engine.dispose()
    async with running(database_url, tmp_path) as stoa:
        assert [table["name"] for table in (await stoa.get("/tables"))["tables"]] == ["runs"]
        rows = await stoa.rows("runs")
        assert [(row["row"], row["revision"], row["status"], row["values"]) for row in rows] == [
            (1, 1, "current", {"x": 1, "y": 10}),
            (2, 2, "stale", {"x": 7, "y": 20}),
        ]
        assert stoa.rebuilt()[1] == []
        await stoa.patch("/tables/runs/rows/1", {"x": 5})
        assert [row["status"] for row in await stoa.rows("runs")] == ["stale", "stale"]


def test_a_second_upgrade_computes_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = _at_first_revision(database_url)
    monkeypatch.setenv("STOA_TABLES_DATABASE_URL", database_url)
    replayed: list[int] = []
    administration.migrate("tables", replayed.append)
    assert replayed == [len(_first_events())]
    administration.migrate("tables", replayed.append)
    assert len(replayed) == 1
    database.engine.dispose()


def test_another_projection_leads_to_a_new_read_model(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = _at_first_revision(database_url)
    monkeypatch.setenv("STOA_TABLES_DATABASE_URL", database_url)
    administration.migrate("tables")
    replayed: list[int] = []
    from stoa_tables.projection import TablesProjection

    monkeypatch.setattr(TablesProjection, "version", TablesProjection.version + 1)
    administration.migrate("tables", replayed.append)
    assert replayed == [len(_first_events())]
    database.engine.dispose()
