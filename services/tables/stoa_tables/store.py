"""Reads the read model into values of the domain, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from stoa_chassis.projection import ReadModel
from stoa_contracts.types import Column, LinkSpecification
from stoa_tables.domain import Row, Source, Table

__all__ = ["Store", "chunks"]

_T = TypeVar("_T")

#: How many values one IN may name; SQLite takes 32,766 parameters.
_IN = 5000


def chunks(values: Sequence[_T], size: int = _IN) -> Iterator[Sequence[_T]]:
    """Cut a sequence into pieces."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


class Store:
    """The read model of one transaction.

    Parameters
    ----------
    connection
        Of the transaction.
    tables
        The tables that serve, or their shadows during a rebuild.
    """

    def __init__(self, connection: sa.Connection, tables: ReadModel) -> None:
        self.connection = connection
        self.tables = tables

    def table(self, table: str) -> Table | None:
        """Find a table by its id."""
        worktable = self.tables["worktable"]
        return self._one_table(worktable.c.id == table)

    def find(self, name: str) -> Table | None:
        """Find a table by its id or its name; case makes no difference."""
        worktable = self.tables["worktable"]
        return self.table(name) or self._one_table(worktable.c.folded_name == name.casefold())

    def all_tables(self, *, name: str | None = None, project: str | None = None) -> list[Table]:
        """List the tables in the order in which they were created."""
        worktable = self.tables["worktable"]
        where = [sa.not_(worktable.c.deleted)]
        if name is not None:
            where.append(worktable.c.folded_name == name.casefold())
        if project is not None:
            where.append(worktable.c.project == project)
        # Ids are UUIDv7: what was created later sorts later.
        return [
            _to_table(item) for item in self.connection.execute(self._tables().where(*where).order_by(worktable.c.id))
        ]

    def _tables(self) -> sa.Select[Any]:
        worktable, link = self.tables["worktable"], self.tables["link"]
        derived = sa.exists().where(link.c.table_id == worktable.c.id).label("derived")
        return sa.select(worktable, derived)

    def _one_table(self, where: sa.ColumnElement[bool]) -> Table | None:
        worktable = self.tables["worktable"]
        item = self.connection.execute(self._tables().where(where, sa.not_(worktable.c.deleted))).first()
        return None if item is None else _to_table(item)

    def row(self, table: str, row: int) -> Row | None:
        """Find one row."""
        return self.rows(table, [row]).get(row)

    def rows(self, table: str, rows: Iterable[int]) -> dict[int, Row]:
        """Find rows by their ids; those that do not exist are left out."""
        item = self.tables["row"]
        found: dict[int, Row] = {}
        for some in chunks(sorted(set(rows))):
            which = item.c.row == some[0] if len(some) == 1 else item.c.row.in_(some)
            statement = sa.select(item).where(item.c.table_id == table, which).order_by(item.c.row)
            found |= {entry.row: to_row(entry) for entry in self.connection.execute(statement)}
        return found

    def row_ids(self, table: str) -> list[int]:
        """List the ids of a table's rows in their order."""
        item = self.tables["row"]
        statement = sa.select(item.c.row).where(item.c.table_id == table).order_by(item.c.row)
        return list(self.connection.execute(statement).scalars())

    def not_of_version(self, table: str, version: str) -> list[int]:
        """List the ids of the rows whose outputs do not come from a workflow version and their present inputs."""
        item = self.tables["row"]
        belongs = sa.and_(item.c.outputs_version == version, item.c.outputs_revision == item.c.revision)
        statement = (
            sa.select(item.c.row)
            .where(item.c.table_id == table, sa.not_(sa.func.coalesce(belongs, sa.false())))
            .order_by(item.c.row)
        )
        return list(self.connection.execute(statement).scalars())

    def statuses(self, table: str, rows: Iterable[int]) -> dict[int, str]:
        """Give the statuses of rows; those that do not exist are left out."""
        item = self.tables["row"]
        found: dict[int, str] = {}
        for some in chunks(sorted(set(rows))):
            which = item.c.row == some[0] if len(some) == 1 else item.c.row.in_(some)
            statement = sa.select(item.c.row, item.c.status).where(item.c.table_id == table, which)
            found |= {entry.row: entry.status for entry in self.connection.execute(statement)}
        return found

    def counts(self, table: str) -> dict[str, int]:
        """Count a table's rows by status."""
        count = self.tables["status_count"]
        statement = (
            sa.select(count.c.status, count.c.n)
            .where(count.c.table_id == table, count.c.n != 0)
            .order_by(count.c.status)
        )
        return {entry.status: entry.n for entry in self.connection.execute(statement)}

    def all_counts(self) -> dict[str, dict[str, int]]:
        """Count the rows of every table by status."""
        count = self.tables["status_count"]
        found: dict[str, dict[str, int]] = {}
        for entry in self.connection.execute(
            sa.select(count).where(count.c.n != 0).order_by(count.c.table_id, count.c.status)
        ):
            found.setdefault(entry.table_id, {})[entry.status] = entry.n
        return found

    def links(self) -> list[tuple[str, LinkSpecification]]:
        """List every link with its child."""
        link = self.tables["link"]
        found = self.connection.execute(sa.select(link.c.table_id, link.c.specification).order_by(link.c.link))
        return [(entry.table_id, LinkSpecification.model_validate(entry.specification)) for entry in found]

    def links_of(self, table: str) -> list[LinkSpecification]:
        """List the links that fill a table."""
        link = self.tables["link"]
        statement = sa.select(link.c.specification).where(link.c.table_id == table).order_by(link.c.link)
        return [LinkSpecification.model_validate(entry) for entry in self.connection.execute(statement).scalars()]

    def links_from(self, table: str) -> list[tuple[str, LinkSpecification]]:
        """List the links that a table feeds, with their children."""
        link, parent = self.tables["link"], self.tables["link_parent"]
        feeds = sa.select(parent.c.link).where(parent.c.table_id == table)
        statement = sa.select(link.c.table_id, link.c.specification).where(link.c.link.in_(feeds)).order_by(link.c.link)
        return [
            (entry.table_id, LinkSpecification.model_validate(entry.specification))
            for entry in self.connection.execute(statement)
        ]

    def derived(self, link: str, column: str, values: Iterable[Any]) -> list[Row]:
        """List the rows that came through a link, by one column of their derivation (``left_row``, ``right_row``, ``key``)."""
        item = self.tables["row"]
        found: list[Row] = []
        for some in chunks(sorted(set(values))):
            statement = sa.select(item).where(item.c.link == link, item.c[column].in_(some)).order_by(item.c.row)
            found += [to_row(entry) for entry in self.connection.execute(statement)]
        return found

    def joined(self, link: str, side: int, keys: Iterable[str]) -> dict[str, list[Source]]:
        """Find what stands on one side of a join, by the digest of the values that have to be equal."""
        index = self.tables["join_index"]
        found: dict[str, list[Source]] = {}
        for some in chunks(sorted(set(keys))):
            statement = (
                sa.select(index.c.row, index.c.element, index.c.key)
                .where(index.c.link == link, index.c.side == side, index.c.key.in_(some))
                .order_by(index.c.row, index.c.element)
            )
            for entry in self.connection.execute(statement):
                found.setdefault(entry.key, []).append(Source(entry.row, None if entry.element < 0 else entry.element))
        return found

    def has_outcome(self, table: str, row: int, job: str) -> bool:
        """Tell whether the outcome of a job was recorded for a row before."""
        event = self.tables["row_event"]
        statement = sa.select(event.c.position).where(event.c.table_id == table, event.c.row == row, event.c.job == job)
        return self.connection.execute(statement.limit(1)).first() is not None


def _to_table(entry: Any) -> Table:
    return Table(
        id=entry.id,
        name=entry.name,
        kind=entry.kind,
        owner=entry.owner,
        project=entry.project,
        description=entry.description,
        columns=tuple(Column.model_validate(column) for column in entry.columns),
        workflow_version=entry.workflow_version,
        next_row=entry.next_row,
        created=entry.created,
        derived=bool(entry.derived),
    )


def to_row(entry: Any) -> Row:
    """Read a row of the table ``row``."""
    sources: tuple[Source | None, ...] = ()
    if entry.link is not None:
        left = Source(entry.left_row, entry.left_element)
        right = None if entry.right_row is None else Source(entry.right_row, entry.right_element)
        sources = (left, right)
    return Row(
        row=entry.row,
        revision=entry.revision,
        status=entry.status,
        inputs=entry.inputs,
        outputs=entry.outputs,
        reason=entry.reason,
        elements=entry.elements,
        outputs_revision=entry.outputs_revision,
        outputs_version=entry.outputs_version,
        outputs_job=entry.outputs_job,
        job=entry.job,
        attempt=entry.attempt,
        link=entry.link,
        key=entry.key,
        sources=sources,
        corrected=entry.corrected or {},
    )
