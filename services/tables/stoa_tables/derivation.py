"""How a table is filled from its parents: what rows there ought to be, and what has to change for it. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stoa_contracts.canonical import digest
from stoa_contracts.events.tables import GroupMember
from stoa_contracts.types import Column, LinkSpecification, Values
from stoa_tables.corrections import differing
from stoa_tables.domain import Item, Row, Source, same

__all__ = [
    "Coerce",
    "Difference",
    "Wanted",
    "comparable",
    "compare_joined",
    "compare_keyed",
    "join_key",
    "joined_rows",
    "keyed_rows",
    "rematch",
    "same_identity",
    "side_columns",
]

#: Turns a parent's value into one of the child's column, or raises ValueError with a sentence that names the column.
Coerce = Callable[[Any, Column], Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A row that a derived table ought to have."""

    sources: tuple[Source | None, ...]
    """As in a `Row`; none for a row per group."""
    key: str
    values: Values
    problem: str | None = None
    """Why a value is missing that the parent has."""


@dataclass(slots=True)
class Difference:
    """What has to change in a derived table."""

    added: list[Wanted] = field(default_factory=list)
    removed: list[Row] = field(default_factory=list)
    edited: list[tuple[Row, Values, Wanted]] = field(default_factory=list)
    """Rows, their changed values, and what they ought to be."""
    moved: list[tuple[Row, Wanted]] = field(default_factory=list)
    """Rows whose sources stand elsewhere now."""
    under: list[tuple[Row, Values]] = field(default_factory=list)
    """Rows with corrections, and what upstream says of those cells now."""

    members: list[GroupMember] = field(default_factory=list)
    """Rows or elements of the parent that are in other groups now."""

    compared: set[int] = field(default_factory=set)
    """Rows that stay, changed or not."""

    def compare(self, row: Row, wanted: Wanted) -> None:
        """Note what has to change in a row that stays.

        What a person corrected stays corrected.
        """
        self.compared.add(row.row)
        changes = {
            name: value
            for name, value in wanted.values.items()
            if name not in row.corrected and not same(row.inputs.get(name), value)
        }
        if changes:
            self.edited.append((row, changes, wanted))
        if row.corrected and (derived := differing(row, wanted.values)):
            self.under.append((row, derived))
        if row.sources != wanted.sources or row.key != wanted.key:
            self.moved.append((row, wanted))


def keyed_rows(
    link: LinkSpecification,
    columns: Mapping[str, Column],
    offered: Iterable[Item],
    coerce: Coerce,
    *,
    element_key: str | None = None,
) -> list[Wanted]:
    """Give the rows that a keyed link asks for.

    Parameters
    ----------
    link
        The link.
    columns
        The child's columns by name.
    offered
        What the parent's rows offer, in their order.
    coerce
        Makes values fit the child's columns.
    element_key
        The parent's column by whose value its elements are known; None where the values on which the link is keyed count.
    """
    wanted: list[Wanted] = []
    seen: defaultdict[tuple[int, str], int] = defaultdict(int)
    for item in offered:
        values, problems = dict[str, Any](), list[str]()
        for child, parent in link.mapping.items():
            value = item.values.get(parent)
            if value is not None and (column := columns.get(child)) is not None:
                try:
                    value = coerce(value, column)
                except ValueError as error:
                    value = None
                    problems.append(str(error))
            values[child] = value
        keyed_on = [values.get(name) for name in link.keys]
        if element_key is not None and item.source.element is not None:
            keyed_on = [item.values.get(element_key)]
        plain = digest(keyed_on)
        occurrence = seen[item.source.row, plain]
        seen[item.source.row, plain] += 1
        key = digest([keyed_on, occurrence])
        wanted.append(Wanted((item.source, None), key, values, "; ".join(problems) or None))
    return wanted


def compare_keyed(wanted: Sequence[Wanted], existing: Iterable[Row]) -> Difference:
    """Tell what has to change so that the existing rows of some parent rows become the wanted ones.

    A row is known by its parent row and its key, wherever its element stands.
    """
    difference = Difference()
    known = {(_parent_row(row), row.key): row for row in existing}
    for item in wanted:
        row = known.pop((_parent_row(item), item.key), None)
        if row is None:
            difference.added.append(item)
        else:
            difference.compare(row, item)
    difference.removed.extend(known.values())
    return difference


def _parent_row(derived: Row | Wanted) -> int | None:
    source = derived.sources[0] if derived.sources else None
    return None if source is None else source.row


def rematch(link: LinkSpecification, wanted: Sequence[Wanted], existing: Sequence[Row]) -> Difference:
    """Tell what has to change so that the rows of a link become those that it asks for since it was changed.

    Their keys may have been made of other columns. So rows are found again by what they hold in the key columns, then by where
    they come from, and those left over are changed before any are added or removed.
    """
    difference = Difference()
    waiting: list[Wanted | None] = list(wanted)
    free: dict[int, Row] = {row.row: row for row in existing}
    values = {row.row: digest([_derived_value(row, name) for name in link.keys]) for row in existing}
    wanted_values = [digest([item.values.get(name) for name in link.keys]) for item in wanted]
    by: list[tuple[Callable[[Row], Hashable], Callable[[int, Wanted], Hashable]]] = [
        (lambda row: (row.sources, row.key), lambda _, item: (item.sources, item.key)),
        (lambda row: (_parent_row(row), row.key), lambda _, item: (_parent_row(item), item.key)),
        (lambda row: (row.sources, values[row.row]), lambda index, item: (item.sources, wanted_values[index])),
        (
            lambda row: (_parent_row(row), values[row.row]),
            lambda index, item: (_parent_row(item), wanted_values[index]),
        ),
        (lambda row: row.sources, lambda _, item: item.sources or None),
    ]
    if link.per == "group" or not all(row.sources for row in existing):
        # A group has no parent row.
        by.append((lambda row: values[row.row], lambda index, _: wanted_values[index]))
    else:
        by.append((_parent_row, lambda _, item: _parent_row(item)))
    for of_row, of_wanted in by:
        rows: defaultdict[Hashable, deque[Row]] = defaultdict(deque)
        for row in free.values():
            rows[of_row(row)].append(row)
        for index, item in enumerate(waiting):
            if item is not None and (candidates := rows.get(of_wanted(index, item))):
                row = candidates.popleft()
                del free[row.row]
                waiting[index] = None
                difference.compare(row, item)
    difference.added.extend(item for item in waiting if item is not None)
    difference.removed.extend(free.values())
    return difference


def same_identity(link: LinkSpecification, previous: LinkSpecification) -> bool:
    """Tell whether a row of a link that was changed is known by the same values as before."""
    made = [(spec.per, [(name, spec.mapping[name]) for name in spec.keys]) for spec in (link, previous)]
    return made[0] == made[1]


def _derived_value(row: Row, name: str) -> Any:
    corrected = row.corrected.get(name)
    return row.inputs.get(name) if corrected is None else corrected.get("derived")


def side_columns(link: LinkSpecification, side: int) -> list[str]:
    """Give the columns of one parent of a join whose values have to be equal to the other's."""
    return [pair[side] for pair in link.on]


def join_key(values: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Digest the values on which a join compares; None where one is missing, for nothing is equal to nothing."""
    keyed_on = [comparable(values.get(name)) for name in names]
    return None if None in keyed_on else digest(keyed_on)


def comparable(value: Any) -> Any:
    """Give a value in the form in which equal ones are the same: numbers of any type, and files by what they hold."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict) and value.get("class") in {"File", "Directory"}:
        # A file is what it holds, whatever it is called here and there.
        return value.get("checksum") or value.get("location") or value.get("path") or value
    return value


def joined_rows(
    link: LinkSpecification,
    lefts: Iterable[tuple[Item, str | None]],
    rights: Mapping[str, Sequence[Item]],
    *,
    unmatched: bool,
) -> list[Wanted]:
    """Give the rows that a join asks for.

    Parameters
    ----------
    link
        The join.
    lefts
        Items of the left parent with their keys.
    rights
        Items of the right parent by key.
    unmatched
        Whether left items without a right one give a row, too.
    """
    chosen = [(child, *_split(parent)) for child, parent in link.mapping.items()]
    wanted: list[Wanted] = []
    for left, key in lefts:
        partners: Sequence[Item | None] = rights.get(key, ()) if key is not None else ()
        if not partners and unmatched:
            partners = (None,)
        for right in partners:
            sides = (left.values, right.values if right else {})
            values = {child: sides[side].get(name) for child, side, name in chosen}
            wanted.append(Wanted((left.source, right.source if right else None), key or _NOTHING, values))
    return wanted


_NOTHING = digest([None])


def _split(parent: str) -> tuple[int, str]:
    side, _, name = parent.partition(".")
    return int(side), name


def compare_joined(wanted: Sequence[Wanted], existing: Sequence[Row]) -> Difference:
    """Tell what has to change so that the existing rows of a join become the wanted ones.

    Rows of one left row that hold the wanted values stay, wherever they stand now; those left over are changed before
    any are added or removed, so that a value that arrives late fills its cell instead of making a new row.
    """
    difference = Difference()
    if not wanted:
        difference.removed.extend(existing)
        return difference
    waiting: list[Wanted | None] = list(wanted)
    free: dict[int, Row] = {row.row: row for row in existing}
    digests = {row.row: digest([row.inputs.get(name) for name in wanted[0].values]) for row in existing}
    wanted_digests = [digest(list(item.values.values())) for item in wanted]

    def match(of_row: Callable[[Row], Hashable], of_wanted: Callable[[int, Wanted], Hashable]) -> None:
        rows: defaultdict[Hashable, deque[Row]] = defaultdict(deque)
        for row in free.values():
            rows[of_row(row)].append(row)
        for index, item in enumerate(waiting):
            if item is not None and (candidates := rows.get(of_wanted(index, item))):
                row = candidates.popleft()
                del free[row.row]
                waiting[index] = None
                difference.compare(row, item)

    match(lambda row: (row.sources, digests[row.row]), lambda index, item: (item.sources, wanted_digests[index]))
    if free and any(waiting):
        match(
            lambda row: (_rows(row.sources), digests[row.row]),
            lambda index, item: (_rows(item.sources), wanted_digests[index]),
        )
        match(lambda row: row.sources, lambda _, item: item.sources)
        match(lambda row: _rows(row.sources), lambda _, item: _rows(item.sources))
        match(lambda row: _rows(row.sources)[0], lambda _, item: _rows(item.sources)[0])
    difference.added.extend(item for item in waiting if item is not None)
    difference.removed.extend(free.values())
    return difference


def _rows(sources: Sequence[Source | None]) -> tuple[int | None, ...]:
    return tuple(None if source is None else source.row for source in sources)
