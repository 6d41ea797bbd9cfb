"""What depends on a table, and what becomes of it when the table is deleted."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa

from stoa_contracts.types import LinkSpecification
from stoa_tables import commands
from stoa_tables.cascade import Recorder
from stoa_tables.domain import Table
from stoa_tables.link_commands import plan_removal, unlink
from stoa_tables.link_wire import Consequences, Dependent, Dependents, KeptTable, LostTable
from stoa_tables.marks import Lock, refuse_locked
from stoa_tables.marks_store import MarksStore
from stoa_tables.queries import Queries
from stoa_tables.store import Store

__all__ = ["find_dependents", "remove_with_dependents"]


def remove_with_dependents(recorder: Recorder, table: Table, children: Literal["unlink", "delete"]) -> None:
    """Delete a table, and unlink or delete what depends on it."""
    store = recorder.store
    links = store.links()
    removal = plan_removal(table.id, children, links, lambda child: _own_rows(store, child) > 0)
    for gone in removal.deleted:
        found = store.table(gone)
        if found is not None:
            refuse_locked(found, _locks(recorder, gone), "deleted with the table")
    for child_id, link, rows in removal.unlinked:
        child = store.table(child_id)
        if child is not None:
            give_up(recorder, child, link, rows)
    for gone in removal.deleted:
        found = store.table(gone)
        if found is not None:
            recorder.record(gone, commands.delete_table(found, []))


def give_up(recorder: Recorder, child: Table, link: LinkSpecification, rows: Literal["stay", "go"]) -> int:
    """Fill a table no longer through a link; tells how many rows had come through it."""
    derived = recorder.store.ids_of_link(child.id, link.link)
    if rows == "go":
        locks = _locks(recorder, child.id)
        refuse_locked(child, {row: locks[row] for row in derived if row in locks}, "removed")
    recorder.record(child.id, unlink(child, link, derived, rows))
    recorder.follow(child.id, derived if rows == "go" else [])
    return len(derived)


def _locks(recorder: Recorder, table: str) -> dict[int, Lock]:
    return MarksStore(recorder.connection, recorder.store.tables).all_locks(table)


def find_dependents(store: Store, name: str, position: int) -> Dependents:
    """Tell what depends on a table, and what deleting the table would do."""
    table = Queries(store).table(name)
    links = store.links()
    counts = store.all_counts()

    def named(table_id: str) -> Table:
        return Queries(store).table(table_id)

    def rows_of(table_id: str) -> int:
        return sum(counts.get(table_id, {}).values())

    below = [found for found in _downstream(table.id, links) if found != table.id]
    dependents = []
    for found in below:
        concerned = [
            link for child, link in links if child == found and not {table.id, *below}.isdisjoint(link.parents)
        ]
        child = named(found)
        dependents.append(
            Dependent(
                table=child.id,
                name=child.name,
                kind=child.kind,
                rows=rows_of(child.id),
                direct=any(table.id in link.parents for link in concerned),
                links=concerned,
            )
        )

    def consequences(children: Literal["unlink", "delete"]) -> Consequences:
        removal = plan_removal(table.id, children, links, lambda child: _own_rows(store, child) > 0)
        deleted = [LostTable(table=gone, name=named(gone).name, rows=rows_of(gone)) for gone in removal.deleted]
        unlinked = [
            KeptTable(
                table=kept, name=named(kept).name, link=link.link, rows=_rows_through(store, kept, link), becomes=rows
            )
            for kept, link, rows in removal.unlinked
        ]
        removed = sum(item.rows for item in deleted) + sum(item.rows for item in unlinked if item.becomes == "go")
        return Consequences(deleted=deleted, unlinked=unlinked, rows_removed=removed)

    return Dependents(
        position=position,
        table=table.id,
        name=table.name,
        dependents=dependents,
        unlink=consequences("unlink"),
        delete=consequences("delete"),
    )


def _downstream(table: str, links: list[tuple[str, LinkSpecification]]) -> list[str]:
    order: list[str] = []
    seen: set[str] = set()

    def visit(current: str) -> None:
        if current in seen:
            return
        seen.add(current)
        for child, link in links:
            if current in link.parents:
                visit(child)
        order.append(current)

    visit(table)
    return order[::-1]


def _rows_through(store: Store, table: str, link: LinkSpecification) -> int:
    row = store.tables["row"]
    statement = sa.select(sa.func.count()).where(row.c.table_id == table, row.c.link == link.link)
    return store.connection.execute(statement).scalar_one()


def _own_rows(store: Store, table: str) -> int:
    row = store.tables["row"]
    statement = sa.select(sa.func.count()).where(row.c.table_id == table, row.c.link.is_(None))
    return store.connection.execute(statement).scalar_one()
