"""Reads the read model into values of the domain, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from stoa_chassis.projection import ReadModel
from stoa_contracts.types import Column, JobKey, LinkSpecification, Values
from stoa_tables.domain import Row, Source, Table

__all__ = ["Parameter", "Run", "Store", "belongs", "chunks"]

_T = TypeVar("_T")

#: How many values one IN may name; SQLite takes 32,766 parameters.
_IN = 5000


def chunks(values: Sequence[_T], size: int = _IN) -> Iterator[Sequence[_T]]:
    """Cut a sequence into pieces."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


class _Statements:
    """The statements that every command needs, built once: building one costs more than running it."""

    def __init__(self, tables: ReadModel) -> None:
        worktable, row, link, parent = tables["worktable"], tables["row"], tables["link"], tables["link_parent"]
        index, count, event = tables["join_index"], tables["status_count"], tables["row_event"]
        derived = sa.exists().where(link.c.table_id == worktable.c.id).label("derived")
        self.tables = sa.select(worktable, derived).where(sa.not_(worktable.c.deleted)).order_by(worktable.c.id)
        self.table = self.tables.where(worktable.c.id == sa.bindparam("table"))
        self.named = self.tables.where(worktable.c.folded_name == sa.bindparam("name"))
        mine = row.c.table_id == sa.bindparam("table")
        one = row.c.row == sa.bindparam("row")
        some = row.c.row.in_(sa.bindparam("rows", expanding=True))
        self.row = sa.select(row).where(mine, one)
        self.rows = sa.select(row).where(mine, some).order_by(row.c.row)
        self.revisions = sa.select(row.c.row, row.c.revision).where(mine, some).order_by(row.c.row)
        self.inputs = sa.select(row.c.row, row.c.inputs, row.c.corrected, row.c.link).where(mine, some)
        self.row_ids = sa.select(row.c.row).where(mine).order_by(row.c.row)
        self.statuses = sa.select(row.c.row, row.c.status).where(mine, some)
        belonging = belongs(row, sa.bindparam("version", type_=sa.String))
        follows = sa.and_(row.c.pinned.is_(None), sa.not_(row.c.suspected))
        self.not_of_version = sa.select(row.c.row).where(mine, follows, sa.not_(belonging)).order_by(row.c.row)
        self.of_version = sa.select(row.c.row).where(mine, follows, belonging).order_by(row.c.row)
        self.runs = sa.select(
            row.c.row,
            row.c.inputs,
            row.c.outputs_inputs,
            row.c.outputs_version,
            row.c.files_changed,
            row.c.suspected,
            row.c.pinned,
        ).where(mine, some, row.c.outputs_inputs.is_not(None))
        version = tables["workflow_version"]
        self.parameters = sa.select(version.c.inputs).where(version.c.version == sa.bindparam("version"))
        self.stale_with_outputs = (
            sa.select(row.c.row)
            .where(mine, row.c.status == "stale", row.c.outputs_revision.is_not(None))
            .order_by(row.c.row)
        )
        self.surely_stale = sa.select(row.c.row).where(mine, some, row.c.status == "stale", sa.not_(row.c.suspected))
        self.counts = (
            sa.select(count.c.status, count.c.n)
            .where(count.c.table_id == sa.bindparam("table"), count.c.n != 0)
            .order_by(count.c.status)
        )
        self.all_counts = sa.select(count).where(count.c.n != 0).order_by(count.c.table_id, count.c.status)
        self.links = sa.select(link.c.table_id, link.c.specification).order_by(link.c.link)
        self.links_of = self.links.where(link.c.table_id == sa.bindparam("table"))
        feeds = sa.select(parent.c.link).where(parent.c.table_id == sa.bindparam("table"))
        self.links_from = self.links.where(link.c.link.in_(feeds))
        values: sa.BindParameter[Any] = sa.bindparam("values", expanding=True)
        self.derived = {
            column: sa.select(row)
            .where(row.c.link == sa.bindparam("link"), row.c[column].in_(values))
            .order_by(row.c.row)
            for column in ("left_row", "right_row", "key")
        }
        self.joined = (
            sa.select(index.c.row, index.c.element, index.c.key)
            .where(index.c.link == sa.bindparam("link"), index.c.side == sa.bindparam("side"), index.c.key.in_(values))
            .order_by(index.c.row, index.c.element)
        )
        self.of_link = sa.select(row).where(mine, row.c.link == sa.bindparam("link")).order_by(row.c.row)
        self.ids_of_link = sa.select(row.c.row).where(mine, row.c.link == sa.bindparam("link")).order_by(row.c.row)
        self.members = (
            sa.select(index.c.row, index.c.element, index.c.key)
            .where(
                index.c.link == sa.bindparam("link"),
                index.c.side == 0,
                index.c.row.in_(sa.bindparam("rows", expanding=True)),
            )
            .order_by(index.c.row, index.c.element)
        )
        self.outcome = (
            sa.select(event.c.position)
            .where(
                event.c.table_id == sa.bindparam("table"),
                event.c.row == sa.bindparam("row"),
                event.c.job == sa.bindparam("job"),
            )
            .limit(1)
        )


def belongs(row: sa.FromClause, version: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Tell in SQL whether a row's outputs belong to it, in a table that has a workflow version: `Row.belongs`."""
    own = sa.func.coalesce(row.c.pinned, version)
    made = sa.and_(row.c.outputs_version == own, row.c.outputs_revision == row.c.revision, row.c.files_changed == 0)
    accepted = sa.and_(row.c.accepted_version == own, row.c.accepted_revision == row.c.revision)
    return sa.func.coalesce(sa.or_(made, accepted), sa.false())


@dataclass(frozen=True, slots=True)
class Parameter:
    """An input of a workflow version."""

    name: str
    default: Any


@dataclass(frozen=True, slots=True)
class Run:
    """A row's inputs, and what is known of the run that made its outputs."""

    inputs: Values
    digest: str
    version: str | None
    files_changed: int
    suspected: bool
    pinned: str | None


@lru_cache(maxsize=8)
def _statements(row: sa.Table) -> _Statements:
    # The shadows of a rebuild differ from the tables that serve in a prefix of their names.
    prefix = row.name.removesuffix("row")
    return _Statements({name.removeprefix(prefix): table for name, table in row.metadata.tables.items()})


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
        self._statements = _statements(tables["row"])

    def _run(self, statement: sa.Select[Any], **values: Any) -> sa.CursorResult[Any]:
        return self.connection.execute(statement, values)

    def table(self, table: str) -> Table | None:
        """Find a table by its id."""
        found = self._run(self._statements.table, table=table).first()
        return None if found is None else _to_table(found)

    def find(self, name: str) -> Table | None:
        """Find a table by its id or its name; case makes no difference."""
        found = self.table(name)
        if found is not None:
            return found
        entry = self._run(self._statements.named, name=name.casefold()).first()
        return None if entry is None else _to_table(entry)

    def all_tables(self, *, name: str | None = None, project: str | None = None) -> list[Table]:
        """List the tables in the order in which they were created."""
        # Ids are UUIDv7: what was created later sorts later.
        entries = (
            self._run(self._statements.tables)
            if name is None
            else self._run(self._statements.named, name=name.casefold())
        )
        found = [_to_table(entry) for entry in entries]
        return found if project is None else [table for table in found if table.project == project]

    def row(self, table: str, row: int) -> Row | None:
        """Find one row."""
        found = self._run(self._statements.row, table=table, row=row).first()
        return None if found is None else to_row(found)

    def rows(self, table: str, rows: Iterable[int]) -> dict[int, Row]:
        """Find rows by their ids; those that do not exist are left out."""
        found: dict[int, Row] = {}
        for some in chunks(sorted(set(rows))):
            found |= {entry.row: to_row(entry) for entry in self._run(self._statements.rows, table=table, rows=some)}
        return found

    def revisions(self, table: str, rows: Iterable[int]) -> dict[int, int]:
        """Tell at which revisions rows are, in the order of their ids; those that do not exist are left out."""
        found: dict[int, int] = {}
        for some in chunks(sorted(set(rows))):
            entries = self._run(self._statements.revisions, table=table, rows=some)
            found |= {entry.row: entry.revision for entry in entries}
        return found

    def inputs(self, table: str, rows: Iterable[int]) -> Iterator[Any]:
        """Give the columns ``row``, ``inputs``, ``corrected`` and ``link`` of rows: edits of many rows need no more of them."""
        for some in chunks(sorted(set(rows))):
            yield from self._run(self._statements.inputs, table=table, rows=some)

    def row_ids(self, table: str) -> list[int]:
        """List the ids of a table's rows in their order."""
        return list(self._run(self._statements.row_ids, table=table).scalars())

    def not_of_version(self, table: str, version: str) -> list[int]:
        """List the ids of the rows that would be stale with a workflow version; pinned and suspected ones are left out."""
        return list(self._run(self._statements.not_of_version, table=table, version=version).scalars())

    def of_version(self, table: str, version: str) -> list[int]:
        """List the ids of the rows that would be current with a workflow version; pinned and suspected ones are left out."""
        return list(self._run(self._statements.of_version, table=table, version=version).scalars())

    def runs(self, table: str, rows: Iterable[int]) -> dict[int, Run]:
        """Tell from what the outputs of rows were made, where it is known."""
        found: dict[int, Run] = {}
        for some in chunks(sorted(set(rows))):
            for entry in self._run(self._statements.runs, table=table, rows=some):
                found[entry.row] = Run(
                    entry.inputs,
                    entry.outputs_inputs,
                    entry.outputs_version,
                    entry.files_changed,
                    entry.suspected,
                    entry.pinned,
                )
        return found

    def parameters(self, version: str) -> list[Parameter] | None:
        """Give the inputs of a workflow version; None where they are not known."""
        found = self._run(self._statements.parameters, version=version).scalar_one_or_none()
        return None if found is None else [Parameter(item["name"], item["default"]) for item in found]

    def statuses(self, table: str, rows: Iterable[int]) -> dict[int, str]:
        """Give the statuses of rows; those that do not exist are left out."""
        found: dict[int, str] = {}
        for some in chunks(sorted(set(rows))):
            found |= {entry.row: entry.status for entry in self._run(self._statements.statuses, table=table, rows=some)}
        return found

    def stale_with_outputs(self, table: str) -> list[int]:
        """List the ids of the stale rows that were run before."""
        return list(self._run(self._statements.stale_with_outputs, table=table).scalars())

    def surely_stale(self, table: str, rows: Iterable[int]) -> set[int]:
        """Give those of some rows that are stale and not only suspected."""
        found: set[int] = set()
        for some in chunks(sorted(set(rows))):
            found.update(self._run(self._statements.surely_stale, table=table, rows=some).scalars())
        return found

    def counts(self, table: str) -> dict[str, int]:
        """Count a table's rows by status."""
        return {entry.status: entry.n for entry in self._run(self._statements.counts, table=table)}

    def all_counts(self) -> dict[str, dict[str, int]]:
        """Count the rows of every table by status."""
        found: dict[str, dict[str, int]] = {}
        for entry in self._run(self._statements.all_counts):
            found.setdefault(entry.table_id, {})[entry.status] = entry.n
        return found

    def links(self) -> list[tuple[str, LinkSpecification]]:
        """List every link with its child."""
        return [_to_link(entry) for entry in self._run(self._statements.links)]

    def links_of(self, table: str) -> list[LinkSpecification]:
        """List the links that fill a table."""
        return [_to_link(entry)[1] for entry in self._run(self._statements.links_of, table=table)]

    def links_from(self, table: str) -> list[tuple[str, LinkSpecification]]:
        """List the links that a table feeds, with their children."""
        return [_to_link(entry) for entry in self._run(self._statements.links_from, table=table)]

    def derived(self, link: str, column: Literal["left_row", "right_row", "key"], values: Iterable[Any]) -> list[Row]:
        """List the rows that came through a link, by one column of their derivation."""
        found: list[Row] = []
        for some in chunks(sorted(set(values))):
            found += [to_row(entry) for entry in self._run(self._statements.derived[column], link=link, values=some)]
        return found

    def of_link(self, table: str, link: str) -> list[Row]:
        """List all rows of a table that came through a link."""
        return [to_row(entry) for entry in self._run(self._statements.of_link, table=table, link=link)]

    def ids_of_link(self, table: str, link: str) -> list[int]:
        """List the ids of all rows of a table that came through a link."""
        return list(self._run(self._statements.ids_of_link, table=table, link=link).scalars())

    def members(self, link: str, rows: Iterable[int]) -> dict[Source, str]:
        """Tell in which groups rows of the parent, or their elements, are."""
        found: dict[Source, str] = {}
        for some in chunks(sorted(set(rows))):
            for entry in self._run(self._statements.members, link=link, rows=some):
                found[Source(entry.row, None if entry.element < 0 else entry.element)] = entry.key
        return found

    def joined(self, link: str, side: int, keys: Iterable[str]) -> dict[str, list[Source]]:
        """Find what stands on one side of a join, by the digest of the values that have to be equal."""
        found: dict[str, list[Source]] = {}
        for some in chunks(sorted(set(keys))):
            for entry in self._run(self._statements.joined, link=link, side=side, values=some):
                found.setdefault(entry.key, []).append(Source(entry.row, None if entry.element < 0 else entry.element))
        return found

    def has_outcome(self, table: str, row: int, job: str) -> bool:
        """Tell whether the outcome of a job was recorded for a row before."""
        return self._run(self._statements.outcome, table=table, row=row, job=job).first() is not None


def _to_link(entry: Any) -> tuple[str, LinkSpecification]:
    return entry.table_id, LinkSpecification.model_validate(entry.specification)


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
        element_key=entry.element_key,
    )


def to_row(entry: Any) -> Row:
    """Read a row of the table ``row``."""
    sources: tuple[Source | None, ...] = ()
    # The row of a group has no source of its own.
    if entry.link is not None and entry.left_row is not None:
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
        outputs_inputs=entry.outputs_inputs,
        outputs_key=None if entry.outputs_key is None else JobKey.model_construct(**entry.outputs_key),
        outputs_files=entry.outputs_files or {},
        outputs_wall_s=entry.outputs_wall_s,
        files_changed=entry.files_changed,
        accepted_revision=entry.accepted_revision,
        accepted_version=entry.accepted_version,
        suspected=bool(entry.suspected),
        pinned=entry.pinned,
    )
