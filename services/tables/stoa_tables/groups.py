"""Rows per group: each holds the values of all rows or elements of a parent that are equal in the key columns.

Which of them are in which group stands in the index of joins, as `group-members-changed` said. So what changes upstream costs the
groups that it leaves or enters, and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stoa_contracts.canonical import digest
from stoa_contracts.events.tables import GroupMember
from stoa_contracts.types import Column, LinkSpecification, Values
from stoa_tables.derivation import Coerce, Difference, Wanted, comparable
from stoa_tables.domain import Item, Source, Table
from stoa_tables.offers import Offer
from stoa_tables.packing import size_of_values
from stoa_tables.store import Store, chunks

__all__ = ["group_differences", "group_key", "grouped_row", "regroup", "wanted_groups"]

#: An edit tells what a row's cells hold and what they held, and has to fit into one message.
_MAX_CHARACTERS = 384 * 1024

#: How many parent rows are looked at, and how many members are gathered, at a time.
_BATCH = 2000
_MAX_MEMBERS = 20_000


def group_key(link: LinkSpecification, values: Mapping[str, Any]) -> str:
    """Digest the values that tell one group from another; those that are missing are equal here."""
    return digest([comparable(values.get(link.mapping[name])) for name in link.keys])


def grouped_row(
    link: LinkSpecification, columns: Mapping[str, Column], key: str, members: Sequence[Item], coerce: Coerce
) -> Wanted:
    """Give the row of a group.

    Parameters
    ----------
    link
        The link.
    columns
        The child's columns by name.
    key
        The group's.
    members
        In the order of the parent's rows.
    coerce
        Makes values fit the child's columns.
    """
    values: Values = {}
    problems = list[str]()
    size = 0
    for child, parent in link.mapping.items():
        if child in link.keys:
            value = members[0].values.get(parent)
        else:
            value = [member.values.get(parent) for member in members]
            size += size_of_values({child: value})
            if size > _MAX_CHARACTERS:
                value = None
                problems.append(
                    f"{child}: the {len(members):,} values of the group have more than {_MAX_CHARACTERS:,} characters; "
                    "large data belongs into files, and a filter or further keys make groups smaller"
                )
        if value is not None and (column := columns.get(child)) is not None:
            try:
                value = coerce(value, column)
            except ValueError as error:
                value = None
                problems.append(str(error))
        values[child] = value
    return Wanted((), key, values, "; ".join(problems) or None)


def group_differences(
    store: Store, link: LinkSpecification, parent: Table, child: Table, rows: Sequence[int], coerce: Coerce
) -> Iterator[Difference]:
    """Tell what has to change in the rows of groups.

    Each difference has to be recorded before the next one is asked for: the first ones say who is in which group.

    Parameters
    ----------
    store
        The read model.
    link, parent, child
        The link and its tables.
    rows
        Of the parent: those that changed.
    coerce
        Makes values fit the child's columns.
    """
    # A dictionary keeps the order of the parent's rows.
    keys: dict[str, None] = {}
    yield from regroup(store, link, parent, rows, keys)
    for some in chunks(list(keys), _BATCH):
        known = {row.key: row for row in store.derived(link.link, "key", some)}
        for wanted in wanted_groups(store, link, parent, child, some, coerce):
            difference = Difference()
            for item in wanted:
                row = known.pop(item.key, None)
                if row is None:
                    difference.added.append(item)
                else:
                    difference.compare(row, item)
            yield difference
        yield Difference(removed=list(known.values()))


def regroup(
    store: Store, link: LinkSpecification, parent: Table, rows: Sequence[int], keys: dict[str, None]
) -> Iterator[Difference]:
    """Tell which rows or elements enter and leave groups, and gather the keys of all groups that are concerned."""
    offer = Offer.through(link, parent)
    left: dict[str, None] = {}
    for some in chunks(rows, _BATCH):
        before = store.members(link.link, some)
        now: dict[Source, str] = {}
        for row in store.rows(parent.id, some).values():
            for item in offer.items(row):
                now[item.source] = group_key(link, item.values)
        keys |= dict.fromkeys(now.values())
        left |= dict.fromkeys(before.values())
        changed = [source for source in {**before, **now} if before.get(source) != now.get(source)]
        members = [GroupMember(row=item.row, element=item.element, key=now.get(item)) for item in changed]
        if members:
            yield Difference(members=members)
    keys |= left


def wanted_groups(
    store: Store, link: LinkSpecification, parent: Table, child: Table, keys: Iterable[str], coerce: Coerce
) -> Iterator[list[Wanted]]:
    """Give the rows of groups, some at a time; a group without members has none."""
    columns = {column.name: column for column in child.columns}
    offer = Offer.through(link, parent)
    gathered: dict[str, Sequence[Source]] = {}
    count = 0

    def rows() -> list[Wanted]:
        found = store.rows(parent.id, {source.row for sources in gathered.values() for source in sources})
        members = {item.source: item for row in found.values() for item in offer.items(row)}
        present = {key: [members[item] for item in sources if item in members] for key, sources in gathered.items()}
        return [grouped_row(link, columns, key, group, coerce) for key, group in present.items() if group]

    places = store.joined(link.link, 0, keys)
    for key in keys:
        if sources := places.get(key):
            gathered[key] = sources
            count += len(sources)
            if count > _MAX_MEMBERS:
                yield rows()
                gathered, count = {}, 0
    if gathered:
        yield rows()
