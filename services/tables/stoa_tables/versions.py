"""The workflow versions that a table ever had: listed, compared, and given to it again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, Field

from stoa_contracts.types import Column, Digest, Timestamp
from stoa_tables.bundle import Bundle
from stoa_tables.cascade import Recorder
from stoa_tables.commands import DescribedWorkflow
from stoa_tables.cwl import ProcessDescription, describe
from stoa_tables.domain import Table
from stoa_tables.models import blob
from stoa_tables.problems import InvalidRequestError, NotFoundError
from stoa_tables.queries import Queries
from stoa_tables.service import TableService
from stoa_tables.store import Store
from stoa_tables.version_difference import ColumnsDifference, FileDifference, compare_columns, compare_files
from stoa_tables.wire import TableDetail

__all__ = [
    "TableVersion",
    "VersionContent",
    "VersionDifference",
    "VersionList",
    "VersionQueries",
    "VersionService",
    "compare",
]

_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_PREFIX = re.compile(r"[0-9a-f]{7,64}")

#: What people say of a column, and keep when the workflow says nothing.
_SAID = ("label", "description", "unit", "ucd", "utype", "display")


# --- what goes over HTTP -----------------------------------------------------------------------------------------------


class Given(BaseModel):
    """When a table got a version, and from whom."""

    position: int
    time: Timestamp
    actor: str


class TableVersion(BaseModel):
    """A workflow version that a table has, or had."""

    number: int = Field(description="Counted from 1, in the order in which the table first had them.")
    version: Digest
    present: bool = Field(description="Whether the table has it now.")
    main: str
    process_class: str
    label: str | None
    files: int
    size: int = Field(description="Bytes of all files.")
    first: Given = Field(description="When the table got it for the first time.")
    last: Given = Field(description="When the table got it for the last time; the same where it was never restored.")
    rows: int = Field(description="Rows whose outputs came from it.")
    pinned: int = Field(description="Rows that are pinned to it, and stay with it whatever version the table has.")


class VersionList(BaseModel):
    """The versions that a table ever had, the newest first."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    table: str
    versions: list[TableVersion]
    next: int | None = Field(description="What to give as `before` for the next page; null on the last one.")


class VersionDifference(BaseModel):
    """What differs between two versions of a table's workflow."""

    table: str
    before: Digest
    after: Digest
    main: tuple[str, str] | None = Field(description="The main process before and after; null where it is the same.")
    process_class: tuple[str, str] | None = Field(description="Its class before and after; null where it is the same.")
    files: list[FileDifference]
    columns: ColumnsDifference = Field(description="As the workflows describe them; what people said does not count.")


# --- questions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VersionContent:
    """A version with its files."""

    version: str
    main: str
    files: Mapping[str, bytes]
    columns: Sequence[Column] = ()
    """The table's columns as people had described them when it got another version."""

    @property
    def bundle(self) -> Bundle:
        """The files as they were uploaded."""
        return Bundle(self.main, self.files)


class VersionQueries:
    """Questions about the versions of a table.

    Parameters
    ----------
    store
        The read model of one transaction.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection = store.connection
        self._version = store.tables["table_version"]
        self._workflow = store.tables["workflow_version"]

    def versions(self, name: str, position: int, *, limit: int, before: int | None) -> VersionList:
        """List the versions that a table ever had, the newest first."""
        table = self._worktable(name)
        item = self._version
        statement = (
            sa.select(item, self._workflow)
            .join(self._workflow, self._workflow.c.version == item.c.version)
            .where(item.c.table_id == table.id)
            .order_by(item.c.number.desc())
            .limit(limit + 1)
        )
        if before is not None:
            statement = statement.where(item.c.number < before)
        found = self._connection.execute(statement).all()
        row, listed = self._store.tables["row"], [entry.version for entry in found]
        rows = self._count(table, row.c.outputs_version, listed)
        pinned = self._count(table, row.c.pinned, listed)
        shown = [
            _shown(entry, table, rows.get(entry.version, 0), pinned.get(entry.version, 0)) for entry in found[:limit]
        ]
        following = shown[-1].number if len(found) > limit else None
        return VersionList(position=position, table=table.id, versions=shown, next=following)

    def _count(self, table: Table, column: sa.Column[Any], versions: Sequence[str]) -> dict[str, int]:
        """Count the rows of a table that have each version in a column."""
        mine = self._store.tables["row"].c.table_id == table.id
        statement = sa.select(column, sa.func.count()).where(mine, column.in_(versions)).group_by(column)
        return {entry[0]: entry[1] for entry in self._connection.execute(statement)}

    def content(self, name: str, version: str) -> VersionContent:
        """Give the files of one version of a table.

        Parameters
        ----------
        name
            Id or name of the table.
        version
            Its number, its digest, or how that begins.

        Raises
        ------
        NotFoundError
            If the table never had such a version.
        """
        table = self._worktable(name)
        found = self._find(table, version)
        names = {file["name"]: file["sha256"] for file in found.files}
        statement = sa.select(blob.c.sha256, blob.c.content).where(blob.c.sha256.in_(set(names.values())))
        contents = {entry.sha256: bytes(entry.content) for entry in self._connection.execute(statement)}
        files = {name: contents[sha256] for name, sha256 in names.items()}
        columns = [Column.model_validate(column) for column in found.columns or ()]
        return VersionContent(found.version, found.main, files, columns)

    def _worktable(self, name: str) -> Table:
        table = Queries(self._store).table(name)
        if table.workflow_version is None:
            raise NotFoundError(f"{table.name} is a {table.kind} table; it has no workflow", table=table.id)
        return table

    def resolve(self, table: Table, version: str) -> str:
        """Find a version that a table ever had by its number or its digest.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        return str(self._find(table, version).version)

    def _find(self, table: Table, version: str) -> Any:
        item = self._version
        if _NUMBER.fullmatch(version):
            where = item.c.number == int(version)
        elif _PREFIX.fullmatch(version):
            where = item.c.version.startswith(version, autoescape=True)
        else:
            raise InvalidRequestError(
                f"{version!r} names no workflow version: it is a number, or at least 7 digits of the SHA-256",
                version=version,
            )
        statement = (
            sa.select(item, self._workflow)
            .join(self._workflow, self._workflow.c.version == item.c.version)
            .where(item.c.table_id == table.id, where)
            .order_by(item.c.number)
            .limit(2)
        )
        found = self._connection.execute(statement).all()
        if not found:
            raise NotFoundError(f"{table.name} never had a workflow version {version}", table=table.id, version=version)
        if len(found) > 1:
            raise InvalidRequestError(f"Several versions of {table.name} begin with {version}", version=version)
        return found[0]


def _shown(entry: Any, table: Table, rows: int, pinned: int) -> TableVersion:
    return TableVersion(
        number=entry.number,
        version=entry.version,
        present=entry.version == table.workflow_version,
        main=entry.main,
        process_class=entry.process_class,
        label=entry.label,
        files=len(entry.files),
        size=sum(file["size"] for file in entry.files),
        first=Given.model_validate({"position": entry.position, "time": entry.time, "actor": entry.actor}),
        last=Given.model_validate(
            {"position": entry.last_position, "time": entry.last_time, "actor": entry.last_actor}
        ),
        rows=rows,
        pinned=pinned,
    )


def compare(table: str, before: VersionContent, after: VersionContent) -> VersionDifference:
    """Tell what differs between two versions.

    Notes
    -----
    Both are read as CWL: the first time in a process that takes a second.
    """
    one, other = before.bundle, after.bundle
    old, new = describe(one), describe(other)
    return VersionDifference(
        table=table,
        before=before.version,
        after=after.version,
        main=_pair(before.main, after.main),
        process_class=_pair(old.process_class, new.process_class),
        files=compare_files(one, other),
        columns=compare_columns(old.columns, new.columns),
    )


def _pair(before: str, after: str) -> tuple[str, str] | None:
    return None if before == after else (before, after)


# --- commands ----------------------------------------------------------------------------------------------------------


class VersionService(TableService):
    """Gives tables their workflow versions again."""

    async def restore(self, name: str, version: str) -> TableDetail:
        """Give a table a version that it had before; nothing changes where it has it now.

        What people said of its columns then holds again for those columns that the table does not have now.
        """
        content = await self._database.read(
            lambda connection: VersionQueries(Store(connection, self._events.tables)).content(name, version)
        )
        found = await asyncio.to_thread(describe, content.bundle)
        restored = _described(content, found)

        def command(recorder: Recorder) -> TableDetail:
            table = Queries(recorder.store).table(name)
            present = {column.name for column in table.columns}
            said = {column.name: column for column in content.columns if column.name not in present}
            workflow = _with_words(restored, said)
            return self._change_workflow(recorder, table, workflow, content.files, list(found.warnings))

        request = {"command": "restore-version", "table": name, "version": content.version}
        return await self._carry_out(request, command, TableDetail)


def _described(content: VersionContent, found: ProcessDescription) -> DescribedWorkflow:
    return DescribedWorkflow(
        # The name under which it is known, whatever it would be called today.
        version=content.version,
        main=content.main,
        process_class=found.process_class,
        files=content.bundle.references,
        columns=found.columns,
        label=found.label,
        description=found.doc,
    )


def _with_words(workflow: DescribedWorkflow, said: Mapping[str, Column]) -> DescribedWorkflow:
    columns = []
    for column in workflow.columns:
        words = said.get(column.name)
        kept = {} if words is None else {name: getattr(words, name) for name in _SAID if getattr(column, name) is None}
        columns.append(column.model_copy(update=kept))
    return DescribedWorkflow(
        version=workflow.version,
        main=workflow.main,
        process_class=workflow.process_class,
        files=workflow.files,
        columns=columns,
        label=workflow.label,
        description=workflow.description,
    )
