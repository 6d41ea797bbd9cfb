"""Which rows are suspected: those below a row that is not settled.

A row is unsettled while it is not current, or suspected itself. What takes its outputs may come out otherwise, so it is
suspected until the row above is settled: then it was edited, or is current as it is.

Rows of plain tables and joins are never stale themselves, but they pass suspicion on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from stoa_contracts.registry import Event
from stoa_contracts.types import Cause, LinkSpecification
from stoa_tables.commands import confirm, invalidate
from stoa_tables.domain import Table
from stoa_tables.offers import columns_taken
from stoa_tables.store import Store, belongs, chunks

__all__ = ["Settlement", "downstream", "settle_table", "settle_unlinked", "takes_outputs"]


def downstream(links: Iterable[tuple[str, LinkSpecification]], tables: Iterable[str]) -> list[str]:
    """List tables and all that depend on them, each after all of its parents.

    Parameters
    ----------
    links
        Every link with its child.
    tables
        Where to begin.
    """
    children: dict[str, list[str]] = {}
    for child, link in links:
        for parent in link.parents:
            children.setdefault(parent, []).append(child)
    order: list[str] = []
    seen: set[str] = set()

    def visit(current: str) -> None:
        if current not in seen:
            seen.add(current)
            for child in children.get(current, []):
                visit(child)
            order.append(current)

    for table in tables:
        visit(table)
    return order[::-1]


def takes_outputs(link: LinkSpecification, side: int, parent: Table) -> bool:
    """Tell whether what comes through a link depends on outputs of a parent.

    Elements are outputs: which of them there are is not known before the run has ended.
    """
    outputs = {column.name for column in parent.outputs}
    if not outputs:
        return False
    if link.kind != "keyed" or link.per == "element":
        return True
    return side == 0 and not outputs.isdisjoint(columns_taken(link, parent))


@dataclass
class Settlement:
    """What becomes of a table's rows."""

    suspected: set[int] = field(default_factory=set)
    confirmed: set[int] = field(default_factory=set)
    """No longer suspected, and current if they were only suspected."""
    stale: set[int] = field(default_factory=set)
    """No longer suspected, but stale for sure."""

    def note(self, table: Table, entry: Any) -> None:
        """Take a row of which it is known now whether it is suspected."""
        if entry.now:
            self.suspected.add(entry.row)
        elif table.kind == "worktable" and entry.status == "stale" and not entry.belongs:
            self.stale.add(entry.row)
        else:
            self.confirmed.add(entry.row)

    @property
    def changed(self) -> set[int]:
        """Those that were settled and are not, or the other way round."""
        return self.suspected | self.confirmed | self.stale

    def events(self, table: str, cause: Cause, derived: Cause | None = None, *, total: int) -> list[Event]:
        """Tell it.

        Parameters
        ----------
        table
            The table.
        cause
            What happened.
        derived
            What it is called where rows were derived anew.
        total
            How many rows the table has.
        """
        return [
            *confirm(table, sorted(self.confirmed), cause),
            *invalidate(table, sorted(self.stale), derived or cause, total=total),
            *invalidate(table, sorted(self.suspected), cause, total=total, suspected=True),
        ]


def settle_table(
    store: Store,
    table: Table,
    links: Sequence[LinkSpecification],
    parents: Mapping[str, Table],
    *,
    touched: Iterable[int],
    changed: Mapping[str, set[int]],
) -> Settlement:
    """Find the rows of a derived table that are suspected and were not, and those that no longer are.

    Parameters
    ----------
    store
        The read model.
    table
        The table.
    links
        The links that fill it.
    parents
        The tables from which they do.
    touched
        Rows of the table that may have other sources now.
    changed
        Rows of parents that may have been settled and are not, or the other way round.
    """
    settlement = Settlement()
    own = sorted(touched)
    for link in links:
        query = _Query(store, table, link, parents)
        for side, parent in enumerate(link.parents):
            query.run("left_row" if side == 0 else "right_row", sorted(changed.get(parent, ())), settlement)
        query.run("row", own, settlement)
    return settlement


def settle_unlinked(store: Store, table: Table) -> Settlement:
    """Find the rows of a table that are suspected, but no longer depend on anything."""
    settlement = Settlement()
    row = store.tables["row"]
    version = sa.literal(table.workflow_version, sa.String)
    statement = sa.select(
        row.c.row, row.c.status, sa.false().label("now"), belongs(row, version).label("belongs")
    ).where(row.c.table_id == table.id, row.c.suspected, row.c.link.is_(None))
    for entry in store.connection.execute(statement):
        settlement.note(table, entry)
    return settlement


class _Query:
    """Asks which rows of one link are suspected, where it is not known yet."""

    def __init__(self, store: Store, table: Table, link: LinkSpecification, parents: Mapping[str, Table]) -> None:
        self._store = store
        self._table = table
        row = self._row = store.tables["row"]
        self._members: sa.Select[Any] | None = None
        version = sa.literal(table.workflow_version, sa.String)
        if link.per == "group":
            suspected = self._any_member(link, parents[link.parents[0]])
            self._select = (
                sa.select(row.c.row, row.c.status, suspected.label("now"), belongs(row, version).label("belongs"))
                .select_from(row)
                .where(row.c.link == link.link, row.c.suspected != suspected)
            )
            return
        unsettled: list[sa.ColumnElement[bool]] = []
        source: sa.FromClause = row
        for side, (parent, column) in enumerate(zip(link.parents, (row.c.left_row, row.c.right_row), strict=False)):
            above = row.alias(f"source_{side}")
            source = source.outerjoin(above, sa.and_(above.c.table_id == parent, above.c.row == column))
            unsettled.append(above.c.suspected)
            if takes_outputs(link, side, parents[parent]):
                unsettled.append(above.c.status != "current")
        suspected = sa.func.coalesce(sa.or_(*unsettled), sa.false())
        self._select = (
            sa.select(row.c.row, row.c.status, suspected.label("now"), belongs(row, version).label("belongs"))
            .select_from(source)
            .where(row.c.link == link.link, row.c.suspected != suspected)
        )

    def _any_member(self, link: LinkSpecification, parent: Table) -> sa.ColumnElement[bool]:
        """Tell in SQL whether a member of a row's group is unsettled: the index leads to the group's members alone."""
        index, member = self._store.tables["join_index"], self._row.alias("member")
        self._members = sa.select(index.c.key).where(index.c.link == link.link, index.c.side == 0)
        unsettled: sa.ColumnElement[bool] = member.c.suspected
        if takes_outputs(link, 0, parent):
            unsettled = sa.or_(unsettled, member.c.status != "current")
        of_group = sa.and_(index.c.link == link.link, index.c.side == 0, index.c.key == self._row.c.key)
        found = sa.select(sa.literal(1)).select_from(
            index.join(member, sa.and_(member.c.table_id == parent.id, member.c.row == index.c.row))
        )
        return found.where(of_group, unsettled).correlate(self._row).exists()

    def run(self, column: Literal["left_row", "right_row", "row"], values: Sequence[int], into: Settlement) -> None:
        for some in chunks(values):
            where: list[sa.ColumnElement[bool]] = [self._row.c[column].in_(some)]
            if self._members is not None and column == "left_row":
                keys = self._members.where(self._store.tables["join_index"].c.row.in_(some))
                where = [self._row.c.key.in_(keys)]
            if column == "row":
                where.append(self._row.c.table_id == self._table.id)
            for entry in self._store.connection.execute(self._select.where(*where)):
                into.note(self._table, entry)
