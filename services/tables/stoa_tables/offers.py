"""What a parent offers through a link: its rows or elements that pass the link's filter. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stoa_contracts.types import LinkSpecification
from stoa_tables.domain import Item, Row, Table, items
from stoa_tables.link_filter import LinkFilter, read_filter

__all__ = ["Offer", "columns_taken"]


@dataclass(frozen=True, slots=True)
class Offer:
    """A keyed link, seen from its parent."""

    parent: Table
    per: str
    """``row`` or ``element``. A group is made of elements where it takes outputs, else of rows."""
    needs_outputs: bool
    filter: LinkFilter | None

    @classmethod
    def through(cls, link: LinkSpecification, parent: Table) -> Offer:
        """Read what a link says.

        Raises
        ------
        InvalidFilterError
            If its filter cannot be read.
        """
        outputs = {column.name for column in parent.outputs}
        found = _filter_of(link, parent)
        needs_outputs = not outputs.isdisjoint(columns_taken(link, parent))
        per = link.per
        if per == "group":
            per = "element" if needs_outputs else "row"
        return cls(parent, per, needs_outputs, found)

    def items(self, row: Row) -> Iterator[Item]:
        """Give what a row of the parent offers."""
        for item in items(row, self.parent.columns, per=self.per, needs_outputs=self.needs_outputs):
            if self.filter is None or self.filter.passes(item.values):
                yield item


def columns_taken(link: LinkSpecification, parent: Table) -> set[str]:
    """Name the parent's columns that a keyed link needs: those that it takes, and those of its filter."""
    found = _filter_of(link, parent)
    return set(link.mapping.values()) | (found.columns if found is not None else set())


def _filter_of(link: LinkSpecification, parent: Table) -> LinkFilter | None:
    if link.filter is None:
        return None
    return read_filter(link.filter, parent.columns, taken_apart=link.per != "row")
