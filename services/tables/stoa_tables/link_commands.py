"""Decide: what follows when a link is changed or given up, or a table is deleted from which others are filled. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stoa_contracts.events.tables import LinkChanged, RowsRemoved, TableUnlinked
from stoa_contracts.registry import Event
from stoa_contracts.types import Cause, LinkSpecification
from stoa_tables.commands import join_columns, join_specification, keep_description, keyed_specification, needed_columns
from stoa_tables.domain import Table
from stoa_tables.problems import ConflictError, InvalidRequestError

__all__ = ["Removal", "change_join", "change_keyed", "plan_removal", "unlink"]

_MAX_IDS = 20_000

_KEYED = ("mapping", "keys", "per", "filter")
_JOIN = ("kind", "on", "columns")


def change_keyed(link: LinkSpecification, child: Table, parent: Table, changes: Mapping[str, Any]) -> list[LinkChanged]:
    """Change how a worktable is filled; its parent stays.

    Parameters
    ----------
    link
        The link as it is.
    child, parent
        Its tables.
    changes
        Any of mapping, keys, per and filter. Keys that were not chosen before follow the mapping.

    Raises
    ------
    InvalidRequestError, InvalidFilterError
        If the link would make no sense.
    """
    _refuse_foreign(changes, _KEYED, "a keyed link has a mapping, keys, per and a filter")
    mapping = changes.get("mapping", link.mapping)
    per = changes.get("per", link.per)
    keys = changes.get("keys")
    if "keys" not in changes and link.keys and not (link.per == "element" and set(link.keys) == set(link.mapping)):
        # They were chosen.
        keys = link.keys
    changed = keyed_specification(
        link.link,
        child,
        parent,
        per=per,
        mapping=mapping,
        keys=keys,
        filter=changes.get("filter", link.filter),
        graph=[],
        names={},
    )
    return [] if changed == link else [LinkChanged(table=child.id, link=changed, previous=link)]


def change_join(
    link: LinkSpecification,
    table: Table,
    left: Table,
    right: Table,
    changes: Mapping[str, Any],
    feeds: Sequence[tuple[str, LinkSpecification]],
) -> list[LinkChanged]:
    """Change what a join joins on, which columns it has, and whether rows without a partner stand in it.

    Parameters
    ----------
    link
        The join as it is.
    table, left, right
        Its table and its parents, which stay.
    changes
        Any of kind, on and columns.
    feeds
        The links that the table feeds, with the names of their children.

    Raises
    ------
    ConflictError
        If a child needs a column that would vanish.
    InvalidRequestError
        If the join would make no sense.
    """
    _refuse_foreign(changes, _JOIN, "a join has a kind, columns, and pairs of columns on which it joins")
    kind: Literal["inner", "left"] = changes.get("kind") or ("left" if link.kind == "left" else "inner")
    changed = join_specification(
        link.link,
        left,
        right,
        kind=kind,
        on=changes.get("on") or link.on,
        columns=changes.get("columns", link.mapping),
    )
    if changed == link:
        return []
    known = {column.name: column for column in table.columns}
    columns = [keep_description(column, known.get(column.name)) for column in join_columns(changed, left, right)]
    for child, feed in feeds:
        for name in sorted(needed_columns(feed, table) - {column.name for column in columns}):
            raise ConflictError(
                f"{table.name} cannot lose its column {name!r}, because {child} is filled from it", column=name
            )
    return [LinkChanged(table=table.id, link=changed, previous=link, columns=columns)]


def _refuse_foreign(changes: Mapping[str, Any], known: Sequence[str], words: str) -> None:
    foreign = sorted(changes.keys() - set(known))
    if foreign:
        raise InvalidRequestError(f"This link has no {foreign[0]!r}: {words}", field=foreign[0])
    if not changes:
        raise InvalidRequestError(f"Nothing is to change: {words}")


def unlink(table: Table, link: LinkSpecification, derived: Sequence[int], rows: Literal["stay", "go"]) -> list[Event]:
    """Fill a table no longer from others.

    Parameters
    ----------
    table
        The table.
    link
        What fills it.
    derived
        The rows that came through the link.
    rows
        Whether they stay, as ordinary rows, or go.
    """
    unlinked = TableUnlinked(table=table.id, link=link, rows=rows)
    if rows == "stay":
        return [unlinked]
    cause = Cause(kind="link", table=table.id)
    removed = [
        RowsRemoved(table=table.id, rows=list(derived[start : start + _MAX_IDS]), cause=cause)
        for start in range(0, len(derived), _MAX_IDS)
    ]
    return [*removed, unlinked]


@dataclass(slots=True)
class Removal:
    """What happens when a table is deleted."""

    unlinked: list[tuple[str, LinkSpecification, Literal["stay", "go"]]] = field(default_factory=list)
    """Tables that stay, the links that they lose, and what becomes of the rows that came through them."""
    deleted: list[str] = field(default_factory=list)
    """Tables, each before those from which it is filled."""


def plan_removal(
    table: str,
    children: Literal["unlink", "delete"],
    links: Sequence[tuple[str, LinkSpecification]],
    has_own_rows: Callable[[str], bool],
) -> Removal:
    """Decide what happens to the tables that depend on one that is deleted.

    To unlink leaves their rows as they are. To delete takes everything away that came from the table: tables that are filled
    from nothing else, and of other tables those rows.

    Parameters
    ----------
    table
        The table that is deleted.
    children
        What happens to those that depend on it.
    links
        Every link with its child.
    has_own_rows
        Tells whether a table has rows that came through no link.
    """
    if children == "unlink":
        return Removal([(child, link, "stay") for child, link in links if table in link.parents], [table])
    filled: dict[str, list[LinkSpecification]] = {}
    for child, link in links:
        filled.setdefault(child, []).append(link)
    doomed = [table]
    for parent in doomed:
        for child in [child for child, link in links if parent in link.parents]:
            lost = [link for link in filled[child] if not set(doomed).isdisjoint(link.parents)]
            if child not in doomed and len(lost) == len(filled[child]) and not has_own_rows(child):
                doomed.append(child)
    unlinked: list[tuple[str, LinkSpecification, Literal["stay", "go"]]] = [
        (child, link, "go") for child, link in links if child not in doomed and not set(doomed).isdisjoint(link.parents)
    ]
    return Removal(unlinked, _children_first(doomed, links))


def _children_first(tables: Sequence[str], links: Sequence[tuple[str, LinkSpecification]]) -> list[str]:
    order: list[str] = []

    def visit(table: str) -> None:
        if table in order:
            return
        for child, link in links:
            if table in link.parents and child in tables and child != table:
                visit(child)
        order.append(table)

    for table in tables:
        visit(table)
    return order
