"""Brings linked tables up to date, in the transaction of the change that they follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from stoa_chassis.log import Origin
from stoa_chassis.projection import EventStore
from stoa_contracts.envelope import Envelope
from stoa_contracts.events.tables import RowEdited, TableUnlinked
from stoa_contracts.registry import Event
from stoa_contracts.types import Cause, Column, LinkSpecification
from stoa_tables.commands import apply_difference, upstream_cause
from stoa_tables.content import cause_of, restoring, touched_rows
from stoa_tables.derivation import (
    Difference,
    Wanted,
    compare_joined,
    compare_keyed,
    join_key,
    joined_rows,
    keyed_rows,
    rematch,
    same_identity,
    side_columns,
)
from stoa_tables.domain import Item, Row, Source, Table, items
from stoa_tables.groups import group_differences, regroup, wanted_groups
from stoa_tables.marks import withhold
from stoa_tables.marks_store import MarksStore
from stoa_tables.offers import Offer
from stoa_tables.store import Store, chunks
from stoa_tables.suspicion import downstream, settle_table, settle_unlinked
from stoa_tables.values import coerce

__all__ = ["Recorder"]

#: How many parent rows are compared at a time.
_BATCH = 2000


class Recorder:
    """Records what was decided, and what follows from it in other tables.

    Parameters
    ----------
    connection
        Of the write transaction.
    events
        The service's log and read model.
    origin
        Who and why.
    event_bytes
        About how large an event may become.
    """

    def __init__(self, connection: sa.Connection, events: EventStore, origin: Origin, *, event_bytes: int) -> None:
        self.connection = connection
        self.events = events
        self.origin = origin
        self.event_bytes = event_bytes
        self.store = Store(connection, events.tables)
        self.recorded: list[Envelope] = []
        self._touched: dict[str, set[int]] = {}
        self._cause: Cause | None = None

    def record(self, stream: str, events: Sequence[Event]) -> list[Envelope]:
        """Append events to a stream and change the read model by them."""
        events = [restoring(self.store, event) if isinstance(event, RowEdited) else event for event in events]
        envelopes = self._append(stream, events)
        for event in events:
            if isinstance(event, TableUnlinked):
                self._settle_unlinked(event.table, cause_of(event))
            rows = touched_rows(event)
            if rows is None or rows:
                self.touch(stream, self.store.row_ids(stream) if rows is None else rows, cause_of(event))
        return envelopes

    def touch(self, table: str, rows: Iterable[int], cause: Cause | None) -> None:
        """Note that rows may have been settled and no longer are, or the other way round."""
        self._touched.setdefault(table, set()).update(rows)
        self._cause = self._cause or cause

    def _append(self, stream: str, events: Sequence[Event]) -> list[Envelope]:
        envelopes = self.events.record(self.connection, stream, events, self.origin)
        self.recorded += envelopes
        return envelopes

    def settle(self, stale: Mapping[str, set[int]] | None = None, cause: Cause | None = None) -> None:
        """Tell which rows are suspected from now on and which no longer are, in all tables below what was touched.

        Parameters
        ----------
        stale
            Rows that were derived anew; those of them that are not suspected have to be computed.
        cause
            Why.
        """
        touched, self._touched = self._touched, {}
        suspicious, self._cause = self._cause or cause, None
        links = self.store.links() if touched else []
        if not links or suspicious is None:
            return
        filled: dict[str, list[LinkSpecification]] = {}
        for child, link in links:
            filled.setdefault(child, []).append(link)
        changed: dict[str, set[int]] = {}
        for table_id in downstream(links, touched):
            own, filling = touched.get(table_id, set()), filled.get(table_id, [])
            parents = {parent for link in filling for parent in link.parents}
            table = self.store.table(table_id)
            if table is None or not ((own and filling) or not changed.keys().isdisjoint(parents)):
                if own:
                    changed[table_id] = own
                continue
            settlement = settle_table(
                self.store,
                table,
                filling,
                {parent: self._table(parent) for parent in parents},
                touched=own,
                changed=changed,
            )
            if found := own | settlement.changed:
                changed[table_id] = found
            # What was derived anew and came out as it was before is current, and what was removed again is gone.
            derived = (stale or {}).get(table_id, set()) - settlement.suspected
            settlement.stale |= self.store.surely_stale(table_id, derived)
            total = sum(self.store.counts(table_id).values()) if settlement.changed else 0
            self._append(table_id, settlement.events(table_id, suspicious, cause, total=total))

    def _settle_unlinked(self, table_id: str, cause: Cause) -> None:
        table = self._table(table_id)
        settlement = settle_unlinked(self.store, table)
        self._append(
            table_id, settlement.events(table_id, cause, None, total=sum(self.store.counts(table_id).values()))
        )
        self.touch(table_id, settlement.changed, cause)

    def follow(
        self,
        table: str,
        rows: Iterable[int],
        *,
        kind: Literal["upstream", "link"] = "upstream",
        only: tuple[str, LinkSpecification] | None = None,
        previous: LinkSpecification | None = None,
    ) -> None:
        """Bring every table up to date that depends on rows which have changed, and what depends on those.

        Parameters
        ----------
        table
            Where the change happened.
        rows
            What was added, edited, removed, or got other outputs.
        kind
            What the cause is called.
        only
            Follow this link alone, with its child: it is new, or was changed.
        previous
            That link as it was before.
        """
        origin_rows = sorted(set(rows))
        first = [only] if only is not None else self.store.links_from(table)
        if not origin_rows or not first:
            self.settle()
            return
        if self.recorded and self.origin.causationid is None:
            cause_id = self.recorded[-1].id
            self.origin = Origin(self.origin.actor, self.origin.correlationid, cause_id, self.origin.traceparent)
        cause = upstream_cause(table, origin_rows, kind)
        waiting: dict[str, set[int]] = {table: set(origin_rows)}
        stale: dict[str, set[int]] = {}
        # A table comes after all of its parents, so that it is brought up to date once.
        for parent in downstream(self.store.links(), [table]):
            changed = waiting.pop(parent, None)
            if not changed:
                continue
            for child_id, link in first if parent == table else self.store.links_from(parent):
                was = previous if parent == table else None
                for some in _batches(sorted(changed), link, was):
                    for difference in self._differences(parent, child_id, link, some, was):
                        child = self._table(child_id)
                        self._withhold(child, link, parent, some, difference, cause)
                        applied = apply_difference(child, link, difference, cause, event_bytes=self.event_bytes)
                        self.record(child_id, applied.events)
                        if link.per == "group":
                            # Who is in a group decides whether it is settled, also where its values stay the same.
                            self.touch(child_id, difference.compared, cause)
                        waiting.setdefault(child_id, set()).update(applied.changed)
                        stale.setdefault(child_id, set()).update(applied.stale)
        self.settle(stale, cause)

    def _withhold(
        self,
        child: Table,
        link: LinkSpecification,
        parent: str,
        rows: Sequence[int],
        difference: Difference,
        cause: Cause,
    ) -> None:
        """Leave locked rows as they are."""
        marks = MarksStore(self.connection, self.store.tables)
        if not marks.has_locks(child.id):
            return
        concerned = [*(row.row for row, _, _ in difference.edited), *(row.row for row in difference.removed)]
        locked = marks.locks(child.id, concerned) | marks.locks_behind(child.id)
        parents, sides = set(rows), [side for side, known in enumerate(link.parents) if known == parent]
        compared = [
            row
            for row in self.store.rows(child.id, locked).values()
            if row.link == link.link
            and (
                row.row in difference.compared
                or any(
                    (source := row.sources[side]) is not None and source.row in parents for side in sides if row.sources
                )
            )
        ]
        self.record(child.id, withhold(child, difference, locked, compared, cause, event_bytes=self.event_bytes))

    def _table(self, table: str) -> Table:
        found = self.store.table(table)
        if found is None:
            msg = f"The table {table} is linked but does not exist"
            raise LookupError(msg)
        return found

    def _differences(
        self,
        parent: str,
        child: str,
        link: LinkSpecification,
        rows: Sequence[int],
        previous: LinkSpecification | None,
    ) -> Iterator[Difference]:
        if link.kind == "keyed":
            if previous is not None and not same_identity(link, previous):
                yield from self._rematched(parent, child, link, rows, previous)
            elif link.per == "group":
                tables = self._table(parent), self._table(child)
                yield from group_differences(self.store, link, *tables, rows, _coerce)
            else:
                wanted = self._wanted(parent, child, link, rows)
                yield compare_keyed(wanted, self.store.derived(link.link, "left_row", rows))
            return
        # A table joined with itself stands on both sides; the second comparison sees what the first one did.
        if link.parents[0] == parent:
            yield self._joined_from_left(link, rows)
        if link.parents[1] == parent:
            yield self._joined_from_right(link, rows)

    def _wanted(self, parent: str, child: str, link: LinkSpecification, rows: Sequence[int]) -> list[Wanted]:
        parent_table = self._table(parent)
        return self._keyed_rows(parent_table, child, link, rows, parent_table.element_key)

    def _keyed_rows(
        self, parent: Table, child: str, link: LinkSpecification, rows: Sequence[int], element_key: str | None
    ) -> list[Wanted]:
        offer = Offer.through(link, parent)
        offered = (item for row in self.store.rows(parent.id, rows).values() for item in offer.items(row))
        columns = {column.name: column for column in self._table(child).columns}
        return keyed_rows(link, columns, offered, _coerce, element_key=element_key)

    def know_elements(self, parent: Table, element_key: str | None) -> None:
        """Let the rows of children that stand for elements be known by another column, and stay the rows that they are."""
        for child_id, link in self.store.links_from(parent.id):
            if link.kind != "keyed" or link.per != "element":
                continue
            for some in chunks(self.store.row_ids(parent.id), _BATCH):
                before = self._keyed_rows(parent, child_id, link, some, parent.element_key)
                after = self._keyed_rows(parent, child_id, link, some, element_key)
                existing = self.store.derived(link.link, "left_row", some)
                present = {(row.sources[0].row, row.key): row for row in existing if row.sources[0] is not None}
                # The same elements in the same order, named in two ways.
                pairs = zip(before, after, strict=True)
                moved = [(present.get((old.sources[0].row, old.key)), new) for old, new in pairs if old.sources[0]]
                difference = Difference(moved=[(row, new) for row, new in moved if row is not None])
                cause = upstream_cause(parent.id, [], "link")
                applied = apply_difference(self._table(child_id), link, difference, cause, event_bytes=self.event_bytes)
                self.record(child_id, applied.events)

    def _rematched(
        self, parent: str, child: str, link: LinkSpecification, rows: Sequence[int], previous: LinkSpecification
    ) -> Iterator[Difference]:
        """Compare what a changed link asks for with all rows that came through it."""
        if link.per == "group":
            tables, keys = (self._table(parent), self._table(child)), dict[str, None]()
            yield from regroup(self.store, link, tables[0], rows, keys)
            wanted = [item for some in wanted_groups(self.store, link, *tables, keys, _coerce) for item in some]
        else:
            wanted = self._wanted(parent, child, link, rows)
        if "group" in {link.per, previous.per}:
            existing = self.store.of_link(child, link.link)
        else:
            existing = self.store.derived(link.link, "left_row", rows)
        yield rematch(link, wanted, existing)

    def _joined_from_left(self, link: LinkSpecification, rows: Sequence[int]) -> Difference:
        lefts = [item for entry in self._offered(link, 0, self.store.rows(link.parents[0], rows)) for item in entry]
        keys = {key for _, key in lefts if key is not None}
        rights = self._find(link, 1, self.store.joined(link.link, 1, keys))
        wanted = joined_rows(link, lefts, rights, unmatched=link.kind == "left")
        return compare_joined(wanted, self.store.derived(link.link, "left_row", rows))

    def _joined_from_right(self, link: LinkSpecification, rows: Sequence[int]) -> Difference:
        rights: dict[str, list[Item]] = {}
        for entry in self._offered(link, 1, self.store.rows(link.parents[1], rows)):
            for item, key in entry:
                if key is not None:
                    rights.setdefault(key, []).append(item)
        existing = self.store.derived(link.link, "right_row", rows)
        lost = {row.key for row in existing if row.key is not None} - rights.keys()
        keys = set(rights)
        if link.kind == "left":
            # Left rows without a partner give way to those with one, and the other way round.
            gone = lost - self.store.joined(link.link, 1, lost).keys()
            keys |= gone
            existing += [row for row in self.store.derived(link.link, "key", keys) if row.sources[1] is None]
        lefts = self._find(link, 0, self.store.joined(link.link, 0, keys))
        wanted = joined_rows(
            link,
            [(item, key) for key, found in lefts.items() for item in found],
            rights,
            unmatched=link.kind == "left",
        )
        wanted.sort(key=_left_place)
        return compare_joined(wanted, existing)

    def _offered(
        self, link: LinkSpecification, side: int, rows: Mapping[int, Row]
    ) -> Iterator[list[tuple[Item, str | None]]]:
        columns = self._table(link.parents[side]).columns
        names = side_columns(link, side)
        for row in rows.values():
            yield [(item, join_key(item.values, names)) for item in items(row, columns, per="element")]

    def _find(
        self, link: LinkSpecification, side: int, wanted: Mapping[str, Sequence[Source]]
    ) -> dict[str, list[Item]]:
        """Fetch the items that the index of a join names."""
        table = link.parents[side]
        columns = self._table(table).columns if wanted else ()
        rows = self.store.rows(table, {source.row for sources in wanted.values() for source in sources})
        found = {item.source: item for row in rows.values() for item in items(row, columns, per="element")}
        return {key: [found[source] for source in sources if source in found] for key, sources in wanted.items()}


def _left_place(wanted: Wanted) -> tuple[int, int]:
    left = wanted.sources[0]
    return (left.row, left.element or 0) if left else (0, 0)


def _batches(
    rows: Sequence[int], link: LinkSpecification, previous: LinkSpecification | None
) -> Iterable[Sequence[int]]:
    # What is in a group is known when all rows were looked at.
    if "group" in {link.per, previous.per if previous else None}:
        return [rows]
    return chunks(rows, _BATCH)


def _coerce(value: Any, column: Column) -> Any:
    return coerce(value, column.type, name=column.name)
