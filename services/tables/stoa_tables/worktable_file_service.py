"""Imports worktable files, and exports tables as such."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stoa_contracts.canonical import digest
from stoa_contracts.events.tables import ImportedOutputs, OutputsImported
from stoa_contracts.ids import new_id
from stoa_contracts.types import Column, FileReference, LinkSpecification, Values
from stoa_tables import commands
from stoa_tables.cascade import Recorder
from stoa_tables.command_service import CommandService
from stoa_tables.commands import DescribedWorkflow, Edit
from stoa_tables.domain import Table, items
from stoa_tables.elements import split
from stoa_tables.packing import pack, size_of_values
from stoa_tables.problems import ConflictError, InvalidRequestError
from stoa_tables.queries import Queries
from stoa_tables.service import describe_workflow, keep_files, refuse_taken_name
from stoa_tables.store import chunks
from stoa_tables.values import fill_defaults
from stoa_tables.worktable_conversion import (
    Converted,
    Filling,
    converted_rows,
    file_columns,
    filling_of,
    in_order,
    plain_columns,
    plain_rows,
    table_name,
    workflow_of_file,
    written_rows,
)
from stoa_tables.worktable_file import (
    ServiceFile,
    WorktableFile,
    read_service,
    read_worktable_file,
    write_service,
    write_worktable_file,
)
from stoa_tables.worktable_file_wire import ImportedFile, ImportedFiles

__all__ = ["WorktableFileService", "export_service", "export_worktable"]

_RA, _DEC = "pos.eq.ra;meta.main", "pos.eq.dec;meta.main"


@dataclass(slots=True)
class _Parsed:
    """What was uploaded, read."""

    files: list[WorktableFile]
    services: list[ServiceFile]
    workflows: dict[str, DescribedWorkflow]
    references: dict[str, FileReference]
    """The uploaded files themselves, by the names of the tables' files."""


@dataclass(slots=True)
class _Import:
    """An import on its way."""

    parsed: _Parsed
    project: str
    kept: Mapping[str, Values]
    base: str | None
    tables: dict[str, str] = field(default_factory=dict)
    """Ids of the new tables by the names of their files."""
    imported: list[ImportedFile] = field(default_factory=list)


class WorktableFileService(CommandService):
    """The commands that concern worktable files."""

    async def import_files(
        self, uploads: Mapping[str, bytes], *, project: str, kept: Mapping[str, Values], base: str | None
    ) -> ImportedFiles:
        """Create the tables of worktable files: all of them, or none.

        Parameters
        ----------
        uploads
            ``.wtx`` and ``.service`` files by name.
        project
            The project that the tables belong to.
        kept
            What became of data files in the archives: name to a CWL file object.
        base
            Against which URL other relative names of files are read.
        """
        parsed = await asyncio.to_thread(self._parse, uploads)

        def command(recorder: Recorder) -> ImportedFiles:
            importing = _Import(parsed, project, kept, base)
            for file in parsed.files:
                self._import(recorder, importing, file)
            for service in parsed.services:
                self._describe_positions(recorder, importing, service)
            return ImportedFiles(tables=importing.imported, position=self._position(recorder))

        digests = {name: hashlib.sha256(content).hexdigest() for name, content in uploads.items()}
        request = {"command": "import-worktables", "files": digests, "project": project, "kept": kept, "base": base}
        return await self._carry_out(request, command, ImportedFiles)

    def _parse(self, uploads: Mapping[str, bytes]) -> _Parsed:
        files, services, workflows, references = [], [], {}, {}
        for name, content in uploads.items():
            if name.endswith(".service"):
                services.append(read_service(content, name))
                continue
            file = read_worktable_file(content, name, most_rows=self._settings.max_import_rows)
            files.append(file)
            references[file.name] = FileReference(
                name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content)
            )
            if "workflow.cwl" in file.workflow:
                workflows[file.name], _ = describe_workflow(file.workflow, "workflow.cwl")
        return _Parsed(in_order(files), services, workflows, references)

    # --- one file ------------------------------------------------------------------------------------------------------

    def _import(self, recorder: Recorder, importing: _Import, file: WorktableFile) -> None:
        name = table_name(file.name)
        refuse_taken_name(recorder.store, name)
        table = new_id()
        importing.tables[file.name] = table
        notes = [f"{parent}.wtx is not among the files" for parent in file.parents if parent not in importing.tables]
        columns = {
            known: [column.name for column in _table(recorder, id_).columns]
            for known, id_ in importing.tables.items()
            if id_ != table
        }
        filling = filling_of(file, columns)
        if file.name in importing.parsed.workflows:
            notes += self._import_worktable(recorder, importing, file, name, filling)
        elif filling is not None:
            self._import_join(recorder, importing, file, name, filling)
        else:
            self._create(recorder, importing, table, name, "plain", plain_columns(file))
            rows = plain_rows(file, kept=importing.kept, base=importing.base)
            self._add(recorder, table, rows, importing.parsed.references[file.name])
        self._describe_columns(recorder, table, file, notes)
        detail = self._detail(recorder, table)
        importing.imported.append(
            ImportedFile(
                file=f"{file.name}.wtx", table=table, name=name, rows=detail.rows, counts=detail.counts, notes=notes
            )
        )

    def _create(
        self, recorder: Recorder, importing: _Import, table: str, name: str, kind: Any, columns: Sequence[Column] = ()
    ) -> None:
        events = commands.create_table(
            table, name=name, kind=kind, owner=self._origin.actor, project=importing.project, columns=columns
        )
        recorder.record(table, events)

    def _add(self, recorder: Recorder, table: str, rows: Sequence[Values], source: FileReference) -> list[int]:
        events = commands.add_rows(_table(recorder, table), rows, event_bytes=self._settings.event_bytes, checked=True)
        recorder.record(table, [event.model_copy(update={"imported_from": source}) for event in events])
        return [row.row for event in events for row in event.rows]

    def _import_worktable(
        self, recorder: Recorder, importing: _Import, file: WorktableFile, name: str, filling: Filling | None
    ) -> list[str]:
        table, workflow = importing.tables[file.name], importing.parsed.workflows[file.name]
        converted, notes = converted_rows(file, workflow.columns, kept=importing.kept, base=importing.base)
        self._create(recorder, importing, table, name, "worktable")
        keep_files(recorder.connection, file.workflow)
        recorder.record(table, commands.change_workflow(_table(recorder, table), workflow))
        source = importing.parsed.references[file.name]
        link = None if filling is None else self._link(recorder, importing, table, filling)
        wanted = 0 if link is None else _offered(recorder, link)
        if link is not None and wanted == len(converted):
            ids = self._follow(recorder, table, link, converted)
        else:
            if link is not None:
                notes.append(
                    f"{file.name} has {len(converted)} rows where its parent gives {wanted}, so it was not linked;"
                    " the rows are its own"
                )
            complete = [fill_defaults(workflow.columns, row.inputs) for row in converted]
            ids = self._add(recorder, table, complete, source)
        self._import_outputs(recorder, table, ids, converted, source)
        return notes

    def _link(self, recorder: Recorder, importing: _Import, table: str, filling: Filling) -> LinkSpecification:
        return commands.keyed_specification(
            new_id(),
            _table(recorder, table),
            _table(recorder, importing.tables[filling.parents[0]]),
            per="element",
            mapping=filling.mapping,
            keys=None,
            graph=[(child, link.parents) for child, link in recorder.store.links()],
            names={known.id: known.name for known in recorder.store.all_tables()},
        )

    def _follow(
        self, recorder: Recorder, table: str, link: LinkSpecification, converted: Sequence[Converted]
    ) -> list[int]:
        """Link a table, and give the ids of its rows in the order of the file. Where the file differs, a person corrected it."""
        recorder.record(table, commands.link_tables(table, link))
        parent = link.parents[0]
        recorder.follow(parent, recorder.store.row_ids(parent), kind="link", only=(table, link))
        rows = recorder.store.rows(table, recorder.store.row_ids(table))
        places = defaultdict[str, deque[int]](deque)
        for number, row in rows.items():
            places[_mapped(row.inputs, link)].append(number)
        found = [_take(places[_mapped(row.inputs, link)]) for row in converted]
        left = iter(sorted(number for place in places.values() for number in place))
        ids = [next(left) if number is None else number for number in found]
        edits = [
            Edit(number, {name: value for name, value in row.inputs.items() if name in row.named})
            for number, row in zip(ids, converted, strict=True)
        ]
        self._edit(recorder, table, edits)
        return ids

    def _edit(self, recorder: Recorder, table: str, edits: Sequence[Edit]) -> None:
        for some in chunks(edits):
            rows = recorder.store.rows(table, [edit.row for edit in some])
            events = commands.edit_rows(
                _table(recorder, table),
                rows,
                some,
                event_bytes=self._settings.event_bytes,
                reason="As in the imported file",
            )
            recorder.record(table, events)

    def _import_outputs(
        self, recorder: Recorder, table: str, ids: Sequence[int], converted: Sequence[Converted], source: FileReference
    ) -> None:
        present = _table(recorder, table)
        rows = recorder.store.rows(table, ids)
        outputs = [
            ImportedOutputs(
                row=number,
                revision=rows[number].revision,
                outputs=row.outputs,
                elements=split(row.outputs, present.columns)[0],
            )
            for number, row in zip(ids, converted, strict=True)
            if row.outputs is not None
        ]
        events = [
            OutputsImported(
                table=table, workflow_version=present.workflow_version or "", rows=some, imported_from=source
            )
            for some in pack(outputs, lambda item: size_of_values(item.outputs) + 100, self._settings.event_bytes)
        ]
        recorder.record(table, events)

    def _import_join(
        self, recorder: Recorder, importing: _Import, file: WorktableFile, name: str, filling: Filling
    ) -> None:
        table = importing.tables[file.name]
        left, right = (_table(recorder, importing.tables[parent]) for parent in filling.parents)
        link = commands.join_specification(new_id(), left, right, kind="inner", on=filling.on, columns=filling.mapping)
        self._create(recorder, importing, table, name, "join", commands.join_columns(link, left, right))
        recorder.record(table, commands.link_tables(table, link))
        recorder.follow(left.id, recorder.store.row_ids(left.id), kind="link", only=(table, link))

    def _describe_columns(self, recorder: Recorder, table: str, file: WorktableFile, notes: list[str]) -> None:
        for column in file.columns:
            present = _table(recorder, table)
            if column.ucd is None or present.column(column.name) is None:
                continue
            try:
                recorder.record(table, commands.describe_column(present, column.name, {"ucd": column.ucd}))
            except InvalidRequestError as error:
                notes.append(f"The UCD of {column.name} was left out: {error}")

    def _describe_positions(self, recorder: Recorder, importing: _Import, service: ServiceFile) -> None:
        table = importing.tables.get(service.table)
        if table is None:
            raise InvalidRequestError(f"The service is about {service.table}.wtx, which is not among the files")
        for column, ucd in ((service.ra, _RA), (service.dec, _DEC)):
            recorder.record(table, commands.describe_column(_table(recorder, table), column, {"ucd": ucd}))


def _table(recorder: Recorder, table: str) -> Table:
    return Queries(recorder.store).table(table)


def _offered(recorder: Recorder, link: LinkSpecification) -> int:
    """Count the rows that a parent gives."""
    parent = _table(recorder, link.parents[0])
    needs_outputs = not {column.name for column in parent.outputs}.isdisjoint(link.mapping.values())
    rows = recorder.store.rows(parent.id, recorder.store.row_ids(parent.id)).values()
    return sum(1 for row in rows for _ in items(row, parent.columns, per=link.per, needs_outputs=needs_outputs))


def _mapped(inputs: Values, link: LinkSpecification) -> str:
    return digest([inputs.get(name) for name in link.mapping])


def _take(places: deque[int]) -> int | None:
    return places.popleft() if places else None


# --- export --------------------------------------------------------------------------------------------------------------


def export_worktable(queries: Queries, name: str, *, files_url: str) -> bytes:
    """Write a table as a worktable file.

    Parameters
    ----------
    queries
        The read model.
    name
        Id or name of the table.
    files_url
        Where stored files are served: their digest follows.

    Raises
    ------
    NotFoundError
        If there is no such table.
    ConflictError
        If the format cannot hold its workflow.
    """
    table = queries.table(name)
    store = queries.store
    workflow: dict[str, bytes] = {}
    if table.workflow_version is not None:
        view = queries.workflow(table.workflow_version)
        contents = {file.name: queries.workflow_file(view.version, file.name)[1] for file in view.files}
        workflow = workflow_of_file(view.main, contents, table.name)
    links = store.links_of(table.id)

    def named(ids: Sequence[str]) -> list[str]:
        found = [store.table(id_) for id_ in dict.fromkeys(ids)]
        return [known.name for known in found if known is not None]

    def location(text: str) -> str:
        return f"{files_url}{text.removeprefix('sha256:')}" if text.startswith("sha256:") else text

    file = WorktableFile(
        name=table.name,
        workflow=workflow,
        template={column.name: column.default for column in table.inputs if _is_flat(column.default)},
        columns=file_columns(table.columns, links, joined=table.kind == "join"),
        rows=written_rows(_rows(queries, table), table.columns, location),
        parents=named([parent for link in links for parent in link.parents]),
        children=named([child for child, _ in store.links_from(table.id)]),
    )
    return write_worktable_file(file)


def _is_flat(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _rows(queries: Queries, table: Table) -> Iterator[tuple[bool, Values, Sequence[Values]]]:
    store = queries.store
    for some in chunks(store.row_ids(table.id)):
        for row in store.rows(table.id, some).values():
            inputs = fill_defaults(table.columns, row.inputs)
            if row.outputs is None:
                yield row.status == "current", inputs, ()
            else:
                elements = split(row.outputs, table.columns)[1]
                yield row.status == "current", inputs, [row.outputs] if elements is None else elements


def export_service(queries: Queries, name: str) -> bytes:
    """Write which columns of a table are positions on the sky.

    Raises
    ------
    NotFoundError
        If there is no such table.
    ConflictError
        If its columns do not say it.
    """
    table = queries.table(name)
    found = {column.ucd: column.name for column in table.columns}
    if _RA not in found or _DEC not in found:
        raise ConflictError(f"No columns of {table.name} have the UCDs {_RA} and {_DEC}, so it has no position")
    return write_service(ServiceFile(table.name, found[_RA], found[_DEC]))
