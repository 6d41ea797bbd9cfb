"""Carries out commands: loads the state that a decision needs, decides, records, and tells what is now."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import sqlalchemy as sa

from stoa_contracts.ids import new_id
from stoa_contracts.registry import Event
from stoa_contracts.types import Column, Values
from stoa_tables import commands
from stoa_tables.bundle import Bundle
from stoa_tables.cascade import Recorder
from stoa_tables.column_checks import check_display, check_meaning
from stoa_tables.column_types import normal_type
from stoa_tables.command_service import CommandService
from stoa_tables.commands import DescribedWorkflow, Edit, RowsChangedError
from stoa_tables.csv_rows import parse_csv
from stoa_tables.cwl import describe
from stoa_tables.dependents import remove_with_dependents
from stoa_tables.domain import Row, Table
from stoa_tables.marks import refuse_locked
from stoa_tables.marks_store import MarksStore
from stoa_tables.models import blob
from stoa_tables.problems import InvalidRequestError, NameTakenError, PreconditionError
from stoa_tables.queries import Queries
from stoa_tables.store import Store
from stoa_tables.values import check_default
from stoa_tables.wire import (
    Added,
    CreateTable,
    Edited,
    EditedRevision,
    EditRows,
    NewColumn,
    NewJoin,
    NewWorktable,
    Removed,
    RowAnswer,
    TableDetail,
)

__all__ = ["TableService", "describe_workflow", "keep_files", "refuse_taken_name"]


class TableService(CommandService):
    """The commands of tables, rows and workflows."""

    # --- tables --------------------------------------------------------------------------------------------------------

    async def create_worktable(self, new: NewWorktable, files: Mapping[str, bytes]) -> TableDetail:
        """Create a worktable from the files of a workflow."""
        workflow, warnings = await asyncio.to_thread(describe_workflow, files, new.main)

        def command(recorder: Recorder) -> TableDetail:
            refuse_taken_name(recorder.store, new.name)
            table = new_id()
            created = commands.create_table(
                table,
                name=new.name,
                kind="worktable",
                owner=self._origin.actor,
                project=new.project,
                description=new.description,
            )
            recorder.record(table, created)
            keep_files(recorder.connection, files)
            recorder.record(table, commands.change_workflow(_table(recorder, table), workflow))
            return self._detail(recorder, table).model_copy(update={"warnings": warnings})

        request = {"command": "create-worktable", "table": new.model_dump(), "workflow": workflow.version}
        return await self._carry_out(request, command, TableDetail)

    async def create_table(self, new: CreateTable) -> TableDetail:
        """Create a plain table or a join."""
        for column in new.columns or ():
            await asyncio.to_thread(check_meaning, {"unit": column.unit, "ucd": column.ucd})

        def command(recorder: Recorder) -> TableDetail:
            refuse_taken_name(recorder.store, new.name)
            table = new_id()
            if new.kind == "join":
                if new.join is None or new.columns is not None:
                    raise InvalidRequestError("A join is described by `join`, and its columns in there")
                self._create_join(recorder, table, new, new.join)
            else:
                if new.columns is None or new.join is not None:
                    raise InvalidRequestError("A plain table is described by `columns`")
                columns = [_plain_column(column) for column in new.columns]
                recorder.record(table, self._created(table, new, columns))
            return self._detail(recorder, table)

        return await self._carry_out({"command": "create-table", **new.model_dump(mode="json")}, command, TableDetail)

    def _created(self, table: str, new: CreateTable, columns: Sequence[Column]) -> list[Event]:
        return commands.create_table(
            table,
            name=new.name,
            kind=new.kind,
            owner=self._origin.actor,
            project=new.project,
            description=new.description,
            columns=columns,
        )

    def _create_join(self, recorder: Recorder, table: str, new: CreateTable, join: NewJoin) -> None:
        queries = Queries(recorder.store)
        left, right = queries.table(join.left), queries.table(join.right)
        link = commands.join_specification(new_id(), left, right, kind=join.kind, on=join.on, columns=join.columns)
        columns = commands.join_columns(link, left, right)
        recorder.record(table, [*self._created(table, new, columns), *commands.link_tables(table, link)])
        # Rows of the right parent without a left one give nothing, so the left one tells all rows.
        recorder.follow(left.id, recorder.store.row_ids(left.id), kind="link", only=(table, link))

    async def rename_table(self, name: str, new_name: str | None, description: str | None) -> TableDetail:
        """Change a table's name or description."""

        def command(recorder: Recorder) -> TableDetail:
            table = Queries(recorder.store).table(name)
            events = commands.rename_table(table, name=new_name, description=description)
            if new_name is not None:
                refuse_taken_name(recorder.store, new_name, but=table.id)
            recorder.record(table.id, events)
            return self._detail(recorder, table.id)

        return await self._carry_out(None, command, TableDetail)

    async def delete_table(self, name: str, children: Literal["unlink", "delete"] | None = None) -> int:
        """Delete a table, and unlink or delete what depends on it, if asked; gives the position of the log."""

        def command(recorder: Recorder) -> Removed:
            table = Queries(recorder.store).table(name)
            locked = MarksStore(recorder.connection, recorder.store.tables).all_locks(table.id)
            refuse_locked(table, locked, "deleted with the table")
            if children is not None:
                remove_with_dependents(recorder, table, children)
                return Removed(rows=[], position=self._position(recorder))
            dependents = {child for child, _ in recorder.store.links_from(table.id)}
            names = sorted(found.name for found in map(recorder.store.table, dependents) if found is not None)
            recorder.record(table.id, commands.delete_table(table, names))
            return Removed(rows=[], position=self._position(recorder))

        return (await self._carry_out(None, command, Removed)).position

    async def change_workflow(self, name: str, files: Mapping[str, bytes], main: str | None) -> TableDetail:
        """Give a worktable another workflow version."""
        workflow, warnings = await asyncio.to_thread(describe_workflow, files, main)

        def command(recorder: Recorder) -> TableDetail:
            table = Queries(recorder.store).table(name)
            return self._change_workflow(recorder, table, workflow, files, warnings)

        request = {"command": "change-workflow", "table": name, "workflow": workflow.version}
        return await self._carry_out(request, command, TableDetail)

    def _change_workflow(
        self,
        recorder: Recorder,
        table: Table,
        workflow: DescribedWorkflow,
        files: Mapping[str, bytes],
        warnings: list[str],
    ) -> TableDetail:
        store = recorder.store
        feeds = [(_table(recorder, child).name, link) for child, link in store.links_from(table.id)]
        events = commands.change_workflow(
            table,
            workflow,
            fills=store.links_of(table.id),
            feeds=feeds,
            rows=store.row_ids(table.id),
            stale=store.not_of_version(table.id, workflow.version),
            current=store.of_version(table.id, workflow.version),
        )
        if recorder.record(table.id, events):
            keep_files(recorder.connection, files)
            # The inputs may have other types now, which take other values.
            for link in store.links_of(table.id):
                recorder.follow(link.parents[0], store.row_ids(link.parents[0]), kind="link", only=(table.id, link))
            recorder.settle()
        return self._detail(recorder, table.id).model_copy(update={"warnings": warnings})

    async def describe_column(self, name: str, column: str, changes: Mapping[str, Any]) -> TableDetail:
        """Change what is said of a column."""
        await asyncio.to_thread(check_meaning, changes)

        def command(recorder: Recorder) -> TableDetail:
            table = Queries(recorder.store).table(name)
            recorder.record(table.id, commands.describe_column(table, column, changes))
            return self._detail(recorder, table.id)

        return await self._carry_out(None, command, TableDetail)

    # --- rows ----------------------------------------------------------------------------------------------------------

    async def add_rows(self, name: str, rows: Sequence[Values]) -> Added:
        """Add rows."""
        self._refuse_too_many(rows)
        request = {"command": "add-rows", "table": name, "rows": rows}
        return await self._carry_out(request, partial(self._add, name=name, rows=rows), Added)

    async def add_csv(self, name: str, content: bytes) -> Added:
        """Add the rows of a CSV text."""

        def command(recorder: Recorder) -> Added:
            table = Queries(recorder.store).table(name)
            rows = parse_csv(content, table.columns)
            self._refuse_too_many(rows)
            return self._add(recorder, name=table.id, rows=rows, checked=True)

        request = {"command": "add-csv", "table": name, "content": hashlib.sha256(content).hexdigest()}
        return await self._carry_out(request, command, Added)

    def _add(self, recorder: Recorder, *, name: str, rows: Sequence[Values], checked: bool = False) -> Added:
        table = Queries(recorder.store).table(name)
        events = commands.add_rows(table, rows, event_bytes=self._settings.event_bytes, checked=checked)
        recorder.record(table.id, events)
        ids = [row.row for event in events for row in event.rows]
        recorder.follow(table.id, ids)
        return Added(rows=ids, position=self._position(recorder))

    async def edit_rows(self, name: str, edits: EditRows) -> Edited:
        """Edit cells of several rows: all of the edits are made, or none."""
        self._refuse_too_many(edits.edits)
        wanted = [Edit(edit.row, edit.values, edit.revision) for edit in edits.edits]

        def command(recorder: Recorder) -> Edited:
            table = Queries(recorder.store).table(name)
            self._edit(recorder, table, wanted, edits.reason)
            found = recorder.store.revisions(table.id, [edit.row for edit in wanted])
            revisions = [EditedRevision(row=row, revision=revision) for row, revision in found.items()]
            return Edited(rows=revisions, position=self._position(recorder))

        request = {"command": "edit-rows", "table": name, "edits": edits.model_dump(mode="json")}
        return await self._carry_out(request, command, Edited)

    async def edit_row(
        self, name: str, row: int, values: Values, revision: int | None, reason: str | None = None
    ) -> RowAnswer:
        """Edit cells of one row."""

        def command(recorder: Recorder) -> RowAnswer:
            table = Queries(recorder.store).table(name)
            self._edit(recorder, table, [Edit(row, values, revision)], reason)
            return Queries(recorder.store).row(table.id, row, self._position(recorder))

        return await self._carry_out(None, command, RowAnswer)

    def _edit(self, recorder: Recorder, table: Table, edits: Sequence[Edit], reason: str | None) -> None:
        rows = recorder.store.rows(table.id, [edit.row for edit in edits])
        refuse_locked(table, MarksStore(recorder.connection, recorder.store.tables).locks(table.id, rows), "edited")
        try:
            events = commands.edit_rows(table, rows, edits, event_bytes=self._settings.event_bytes, reason=reason)
        except RowsChangedError as error:
            present = Queries(recorder.store).row(table.id, error.row.row, self._position(recorder))
            raise PreconditionError(
                f"{error}: somebody else changed it first",
                headers={"ETag": f'"{error.row.revision}"'},
                row=present.model_dump(mode="json"),
            ) from None
        recorder.record(table.id, events)
        recorder.follow(table.id, [edit.row for event in events for edit in event.rows])

    async def remove_rows(self, name: str, wanted: Sequence[int], revision: int | None = None) -> Removed:
        """Remove rows; where there is only one, perhaps only at a revision."""
        self._refuse_too_many(wanted)

        def command(recorder: Recorder) -> Removed:
            table = Queries(recorder.store).table(name)
            rows = recorder.store.rows(table.id, wanted)
            refuse_locked(
                table, MarksStore(recorder.connection, recorder.store.tables).locks(table.id, rows), "removed"
            )
            events = commands.remove_rows(table, rows, wanted)
            if revision is not None:
                self._refuse_changed(recorder, table, rows, revision)
            recorder.record(table.id, events)
            recorder.follow(table.id, wanted)
            return Removed(rows=sorted(rows), position=self._position(recorder))

        return await self._carry_out(None, command, Removed)

    def _refuse_changed(self, recorder: Recorder, table: Table, rows: Mapping[int, Row], revision: int) -> None:
        for row in rows.values():
            if row.revision != revision:
                present = Queries(recorder.store).row(table.id, row.row, self._position(recorder))
                raise PreconditionError(
                    f"Row {row.row} is at revision {row.revision}, not at {revision}: somebody else changed it first",
                    headers={"ETag": f'"{row.revision}"'},
                    row=present.model_dump(mode="json"),
                )


def _plain_column(new: NewColumn) -> Column:
    column = Column(**{**new.model_dump(), "role": "input", "type": normal_type(new.type, new.name)})
    check_default(column)
    check_display(column)
    return column


def _table(recorder: Recorder, table: str) -> Table:
    return Queries(recorder.store).table(table)


def describe_workflow(files: Mapping[str, bytes], main: str | None) -> tuple[DescribedWorkflow, list[str]]:
    """Validate the files of a workflow; give what they are, and what a person should know of them."""
    bundle = Bundle.from_files(files, main)
    found = describe(bundle)
    workflow = DescribedWorkflow(
        version=bundle.version,
        main=found.main,
        process_class=found.process_class,
        files=bundle.references,
        columns=found.columns,
        label=found.label,
        description=found.doc,
    )
    return workflow, list(found.warnings)


def refuse_taken_name(store: Store, name: str, *, but: str | None = None) -> None:
    """Refuse what is no name for a table, or that of another one.

    Raises
    ------
    InvalidRequestError
        If it is no name.
    NameTakenError
        If another table has it.
    """
    commands.check_name(name)
    for table in store.all_tables(name=name):
        if table.id != but:
            raise NameTakenError(f"There is a table called {table.name} already", name=table.name, table=table.id)


def keep_files(connection: sa.Connection, files: Mapping[str, bytes]) -> None:
    """Keep the files of a workflow by their content."""
    contents = {hashlib.sha256(content).hexdigest(): content for content in files.values()}
    known = set(connection.execute(sa.select(blob.c.sha256).where(blob.c.sha256.in_(contents))).scalars())
    entries = [
        {"sha256": sha256, "size": len(content), "content": content}
        for sha256, content in contents.items()
        if sha256 not in known
    ]
    if entries:
        connection.execute(sa.insert(blob), entries)
