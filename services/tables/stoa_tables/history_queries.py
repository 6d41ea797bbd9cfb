"""Answers questions that concern more than one moment."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

import sqlalchemy as sa

from stoa_chassis.log import Log
from stoa_chassis.projection import ReadModel
from stoa_tables.cell_history import CellReader
from stoa_tables.comparison import Comparison
from stoa_tables.history_wire import CellHistory, Differences, Summary
from stoa_tables.moments import AsOf, Moments, open_file
from stoa_tables.problems import InvalidRequestError, NotFoundError
from stoa_tables.store import Store

__all__ = ["HistoryQueries"]

_BATCH = 200
_MAX_SUMMARIES = 100


class HistoryQueries:
    """Questions about what changed.

    Parameters
    ----------
    log, tables, moments
        Of the service.
    """

    def __init__(self, log: Log, tables: ReadModel, moments: Moments) -> None:
        self._log = log
        self._tables = tables
        self._moments = moments
        # The past does not change: counts of whole tables are kept for the pages that follow.
        self._summaries: OrderedDict[tuple[str, int, int], Summary] = OrderedDict()

    async def differences(self, name: str, before: AsOf, after: AsOf | None, *, limit: int, beyond: int) -> Differences:
        """Tell what is different in a table between two moments.

        Parameters
        ----------
        name
            The table's id or name.
        before, after
            The moments; the second one is the present if it is left out.
        limit
            At most so many rows.
        beyond
            Only rows beyond this id.

        Raises
        ------
        NotFoundError
            If the table was there at neither moment.
        InvalidRequestError
            If the first moment is the later one, or one has not come yet.
        """

        def work(connection: sa.Connection) -> Differences:
            first = before.resolve(connection, self._log)
            second = self._log.head(connection) if after is None else after.resolve(connection, self._log)
            if first > second:
                raise InvalidRequestError(f"The first moment, position {first}, is later than the second, {second}")
            table = self._find(connection, name, first, second)
            versions = (
                self._log.version_at(connection, table, first),
                self._log.version_at(connection, table, second),
            )
            with (
                self._moments.open(connection, table, versions[0]) as one,
                self._moments.open(connection, table, versions[1]) as other,
                open_file(other.path) as file,
            ):
                comparison = Comparison(file, one.path, table)
                rows = list(islice(comparison.rows(beyond), limit + 1))
                return Differences(
                    position=second,
                    table=table,
                    before=first,
                    after=second,
                    changes=comparison.changes(),
                    summary=self._summary((table, *versions), comparison),
                    rows=rows[:limit],
                    next=rows[limit - 1].row if len(rows) > limit else None,
                )

        return await self._moments.run(work)

    def _find(self, connection: sa.Connection, name: str, first: int, second: int) -> str:
        try:
            return self._moments.find(connection, name, second)
        except NotFoundError:
            return self._moments.find(connection, name, first)

    def _summary(self, key: tuple[str, int, int], comparison: Comparison) -> Summary:
        found = self._summaries.get(key)
        if found is None:
            found = self._summaries[key] = comparison.summary()
            while len(self._summaries) > _MAX_SUMMARIES:
                self._summaries.popitem(last=False)
        return found

    async def cell(self, name: str, row: int, column: str, *, limit: int, before: int | None) -> CellHistory:
        """Tell what a cell held, also one of a row that was removed or of a table that was deleted.

        Parameters
        ----------
        name
            The table's id or name.
        row, column
            The cell.
        limit
            At most so many values, the newest.
        before
            Only what happened before this position.

        Raises
        ------
        NotFoundError
            If there never was such a cell.
        """

        def work(connection: sa.Connection) -> CellHistory:
            head = self._log.head(connection)
            known = self._moments.candidates(connection, name)
            if not known:
                raise NotFoundError(f"There is no table {name!r}, and never was", table=name)
            table = known[0][0]
            return self._cell(connection, table, row, column, head, limit=limit, before=before)

        return await self._moments.run(work)

    def _cell(
        self,
        connection: sa.Connection,
        table: str,
        row: int,
        column: str,
        head: int,
        *,
        limit: int,
        before: int | None,
    ) -> CellHistory:
        item = self._tables["row_event"]
        mine = sa.and_(item.c.table_id == table, item.c.row == row)
        first = connection.execute(sa.select(sa.func.min(item.c.position)).where(mine)).scalar_one()
        described = Store(connection, self._tables).table(table)
        known = described.column(column) if described else None
        if first is None:
            raise NotFoundError(f"The table has no row {row}, and never had", table=table, row=row)
        positions = (
            sa.select(item.c.position)
            .where(item.c.table_id == table, item.c.row.in_([0, row]))
            .order_by(item.c.position.desc())
            .limit(_BATCH)
        )
        reader = CellReader(row, column, known.default if known else None)
        place = head + 1 if before is None else before
        done = False
        # One value more tells what the cell showed before the oldest one, and whether there is more.
        while not done and not reader.suffices(limit):
            batch = list(connection.execute(positions.where(item.c.position < place)).scalars())
            for place in batch:
                reader.read(self._log.read(connection, after=place - 1, until=place)[0])
                if reader.suffices(limit):
                    break
            done = len(batch) < _BATCH
        events = reader.complete()
        if not events and known is None and before is None:
            raise NotFoundError(f"The table has no column {column!r}, and never had", table=table, column=column)
        shown = events[-limit:]
        more = shown[0].position if len(events) > len(shown) else None
        return CellHistory(position=head, table=table, row=row, column=column, events=shown, before=more)
