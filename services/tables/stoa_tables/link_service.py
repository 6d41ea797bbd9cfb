"""Carries out commands that concern links, and tells where derived rows come from."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa

from stoa_contracts.ids import new_id
from stoa_contracts.types import LinkSpecification
from stoa_tables import commands
from stoa_tables.cascade import Recorder
from stoa_tables.command_service import CommandService
from stoa_tables.dependents import give_up
from stoa_tables.domain import Table
from stoa_tables.link_commands import change_join, change_keyed
from stoa_tables.link_wire import ChangeLink, SourceRow, SourcesPage, Unlinked
from stoa_tables.models import NO_ELEMENT
from stoa_tables.problems import NotFoundError
from stoa_tables.queries import Queries
from stoa_tables.store import Store
from stoa_tables.wire import Linked, NewLink

__all__ = ["LinkService", "list_sources"]


class LinkService(CommandService):
    """The commands that concern links."""

    async def add(self, name: str, new: NewLink) -> Linked:
        """Fill a worktable's inputs from a parent."""

        def command(recorder: Recorder) -> Linked:
            store = recorder.store
            child, parent = Queries(store).table(name), Queries(store).table(new.parent)
            specification = commands.keyed_specification(
                new_id(),
                child,
                parent,
                per=new.per,
                mapping=new.mapping,
                keys=new.keys,
                filter=new.filter,
                graph=[(table, link.parents) for table, link in store.links()],
                names={table.id: table.name for table in store.all_tables()},
            )
            recorder.record(child.id, commands.link_tables(child.id, specification))
            recorder.follow(parent.id, store.row_ids(parent.id), kind="link", only=(child.id, specification))
            return Linked(link=specification, table=child.id, position=self._position(recorder))

        request = {"command": "link", "table": name, **new.model_dump(mode="json")}
        return await self._carry_out(request, command, Linked)

    async def change(self, name: str, link_id: str, new: ChangeLink) -> Linked:
        """Fill a table otherwise from the same parents; its rows follow with the least change."""
        changes: dict[str, Any] = {field: getattr(new, field) for field in new.model_fields_set}

        def command(recorder: Recorder) -> Linked:
            store = recorder.store
            table = Queries(store).table(name)
            link = _link(store, table, link_id)
            parents = [Queries(store).table(parent) for parent in link.parents]
            if link.kind == "keyed":
                events = change_keyed(link, table, parents[0], changes)
            else:
                feeds = [(Queries(store).table(child).name, feed) for child, feed in store.links_from(table.id)]
                events = change_join(link, table, parents[0], parents[1], changes, feeds)
            for event in events:
                recorder.record(table.id, [event])
                rows = store.row_ids(parents[0].id)
                recorder.follow(parents[0].id, rows, kind="link", only=(table.id, event.link), previous=link)
                link = event.link
            return Linked(link=link, table=table.id, position=self._position(recorder))

        return await self._carry_out(None, command, Linked)

    async def give_up(self, name: str, link_id: str, rows: Literal["stay", "go"]) -> Unlinked:
        """Fill a table no longer through a link."""

        def command(recorder: Recorder) -> Unlinked:
            table = Queries(recorder.store).table(name)
            link = _link(recorder.store, table, link_id)
            affected = give_up(recorder, table, link, rows)
            return Unlinked(table=table.id, link=link, rows=rows, affected=affected, position=self._position(recorder))

        return await self._carry_out(None, command, Unlinked)


def _link(store: Store, table: Table, link_id: str) -> LinkSpecification:
    for link in store.links_of(table.id):
        if link.link == link_id:
            return link
    raise NotFoundError(f"The table {table.name} is not filled through a link {link_id!r}", link=link_id)


def list_sources(store: Store, name: str, number: int, position: int, *, limit: int, offset: int) -> SourcesPage:
    """Tell from which rows and elements a row is derived.

    Parameters
    ----------
    store
        The read model.
    name, number
        The table and the row.
    position
        Of the log.
    limit, offset
        Which part of them.

    Raises
    ------
    NotFoundError
        If there is no such row.
    """
    table = Queries(store).table(name)
    row = store.row(table.id, number)
    if row is None:
        raise NotFoundError(f"The table {table.name} has no row {number}", table=table.id, row=number)
    link = next((link for link in store.links_of(table.id) if link.link == row.link), None)
    if link is None or link.per != "group":
        parents = [] if link is None else link.parents
        found = [
            SourceRow(table=parent, row=source.row, element=source.element)
            for parent, source in zip(parents, row.sources, strict=False)
            if source is not None
        ]
        return SourcesPage(position=position, sources=found[offset : offset + limit], next=None, total=len(found))
    index = store.tables["join_index"]
    mine = (index.c.link == link.link, index.c.side == 0, index.c.key == row.key)
    total = store.connection.execute(sa.select(sa.func.count()).where(*mine)).scalar_one()
    statement = (
        sa.select(index.c.row, index.c.element)
        .where(*mine)
        .order_by(index.c.row, index.c.element)
        .limit(limit)
        .offset(offset)
    )
    members = [
        SourceRow(table=link.parents[0], row=entry.row, element=None if entry.element == NO_ELEMENT else entry.element)
        for entry in store.connection.execute(statement)
    ]
    following = offset + limit if offset + limit < total else None
    return SourcesPage(position=position, sources=members, next=following, total=total)
