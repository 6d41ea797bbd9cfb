"""Carries out imports: reads a file, tells what would come of it, and records it."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from stoa_chassis.problems import Problem
from stoa_contracts.ids import new_id
from stoa_contracts.types import FileReference
from stoa_tables import commands
from stoa_tables.cascade import Recorder
from stoa_tables.domain import Table
from stoa_tables.import_process import ReadFile, ReadRequest, read_in_process, rows_of
from stoa_tables.import_wire import ImportedRows, ImportPreview, ImportReport, NewTableImported
from stoa_tables.problems import ConflictError, InvalidRequestError
from stoa_tables.queries import Queries
from stoa_tables.service import TableService, refuse_taken_name
from stoa_tables.store import Store
from stoa_tables.wire import CreateTable

__all__ = ["ImportService", "RejectedRowsError"]

_MAX_LISTED = 5


class RejectedRowsError(Problem):
    """Some rows of a file cannot be taken, and the others alone were not asked for."""

    status: ClassVar[int] = 422
    code: ClassVar[str] = "rejected-rows"
    title: ClassVar[str] = "Some rows of the file cannot be taken"

    def __init__(self, found: ReadFile) -> None:
        listed = "; ".join(
            f"{f'line {row.line}' if row.line else f'row {row.row}'}: {' '.join(row.problems)}"
            for row in found.rejected[:_MAX_LISTED]
        )
        more = f"; and {found.rejected_total - _MAX_LISTED:,} more" if found.rejected_total > _MAX_LISTED else ""
        super().__init__(
            f"{found.rejected_total:,} of {found.rows:,} rows cannot be taken, so nothing was imported: {listed}{more}",
            rows=found.rows,
            rejected_total=found.rejected_total,
            rejected=[row.model_dump() for row in found.rejected],
        )


class ImportService(TableService):
    """Imports of files into tables."""

    async def preview(
        self,
        name: str | None,
        path: Path,
        *,
        format: str | None,  # noqa: A002 - the word on the wire
        mapping: Mapping[str, str],
    ) -> ImportPreview:
        """Tell what an import would do, into a table or, without a name, as a new one; nothing is changed."""
        table = None if name is None else await self._table(name)
        with _folder() as folder:
            found = await self._read(path, folder, table, format, mapping)
        position = await self._database.read(self._events.log.head)
        return ImportPreview(
            position=position,
            table_columns=found.table_columns,
            first=found.first,
            name=None if table else found.name,
            description=None if table else found.description,
            **report(found).model_dump(),
        )

    async def import_rows(
        self,
        name: str,
        path: Path,
        *,
        format: str | None,  # noqa: A002 - the word on the wire
        mapping: Mapping[str, str],
        partial: bool,
    ) -> ImportedRows:
        """Add the rows of a file to a table: all of them, or none, or those that can be taken where that is asked for."""
        table = await self._table(name)
        file = await asyncio.to_thread(_reference, path)
        with _folder() as folder:
            found = await self._read(path, folder, table, format, mapping)
            _refuse(found, partial=partial)

            def command(recorder: Recorder) -> ImportedRows:
                present = Queries(recorder.store).table(table.id)
                if present.columns != table.columns:
                    raise ConflictError(
                        f"The columns of {table.name} were changed while the file was read; import it again"
                    )
                added = self._add_all(recorder, present, found, folder, file)
                recorder.follow(table.id, added)
                return ImportedRows(
                    position=self._position(recorder),
                    first_row=added[0] if added else None,
                    last_row=added[-1] if added else None,
                    imported_from=file,
                    **report(found).model_dump(),
                )

            request = {"command": "import-rows", "table": table.id, "file": file.sha256, "mapping": dict(mapping)}
            return await self._carry_out({**request, "format": format, "partial": partial}, command, ImportedRows)

    async def import_table(
        self,
        path: Path,
        new: CreateTable,
        *,
        format: str | None = None,  # noqa: A002 - the word on the wire
        mapping: Mapping[str, str] | None = None,
        partial: bool = False,
    ) -> NewTableImported:
        """Create a plain table from a file."""
        if self._key is None:
            # The same request, sent again, has taken the name itself.
            await self._database.read(lambda connection: refuse_taken_name(self._store(connection), new.name))
        file = await asyncio.to_thread(_reference, path)
        with _folder() as folder:
            found = await self._read(path, folder, None, format, mapping or {})
            _refuse(found, partial=partial)
            described = new if new.description else new.model_copy(update={"description": found.description})

            def command(recorder: Recorder) -> NewTableImported:
                refuse_taken_name(recorder.store, new.name)
                table = new_id()
                recorder.record(table, self._created(table, described, found.table_columns))
                self._add_all(recorder, Queries(recorder.store).table(table), found, folder, file)
                detail = self._detail(recorder, table).model_dump() | {"warnings": found.notes}
                return NewTableImported.model_validate({**detail, "imported_from": file, "report": report(found)})

            request = {"command": "import", "table": new.model_dump(mode="json"), "file": file.sha256}
            asked = {**request, "mapping": dict(mapping or {}), "format": format, "partial": partial}
            return await self._carry_out(asked, command, NewTableImported)

    async def _table(self, name: str) -> Table:
        def find(connection: Any) -> Table:
            table = Queries(self._store(connection)).table(name)
            commands.refuse_derived(table)
            return table

        return await self._database.read(find)

    def _store(self, connection: Any) -> Store:
        return Store(connection, self._events.tables)

    async def _read(
        self,
        path: Path,
        folder: Path,
        table: Table | None,
        format: str | None,  # noqa: A002 - the word on the wire
        mapping: Mapping[str, str],
    ) -> ReadFile:
        request = ReadRequest(
            path=path,
            folder=folder,
            format=format,
            columns=None if table is None else list(table.columns),
            mapping=dict(mapping),
            max_rows=self._settings.max_import_rows,
            max_bytes=self._settings.max_unpacked_bytes,
            memory_bytes=self._settings.import_memory_bytes,
            seconds=self._settings.import_seconds,
        )
        return await asyncio.to_thread(read_in_process, request)

    def _add_all(
        self, recorder: Recorder, table: Table, found: ReadFile, folder: Path, file: FileReference
    ) -> list[int]:
        added: list[int] = []
        rows = rows_of(folder, found.table_columns)
        for event in commands.import_rows(table, rows, file, event_bytes=self._settings.event_bytes):
            recorder.record(table.id, [event])
            added += [row.row for row in event.rows]
            # What was recorded lies in the log; all rows of a large file do not lie in memory.
            del recorder.recorded[:-1]
        return added


def report(found: ReadFile) -> ImportReport:
    """Tell what was found in a file."""
    return ImportReport(
        format=found.format,
        rows=found.rows,
        accepted=found.accepted,
        rejected_total=found.rejected_total,
        rejected=found.rejected,
        columns=found.columns,
        unmatched_file_columns=found.unmatched_file_columns,
        unmatched_columns=found.unmatched_columns,
        notes=found.notes,
    )


def _refuse(found: ReadFile, *, partial: bool) -> None:
    problems = [f"{column.column}: {column.problem}" for column in found.columns if column.problem]
    if problems:
        raise InvalidRequestError(
            " ".join(problems), columns=[column.column for column in found.columns if column.problem]
        )
    if found.rejected_total and not partial:
        raise RejectedRowsError(found)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="stoa-import-") as folder:
        yield Path(folder)


def _reference(path: Path) -> FileReference:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileReference(name=path.name, sha256=digest, size=path.stat().st_size)
