"""Carries out commands that concern corrections, and lists them."""

from __future__ import annotations

import sqlalchemy as sa

from stoa_tables import corrections
from stoa_tables.cascade import Recorder
from stoa_tables.command_service import CommandService
from stoa_tables.correction_wire import ChosenCorrections, ConfirmCorrections, Confirmed, CorrectedRow, CorrectionPage
from stoa_tables.marks import refuse_locked
from stoa_tables.marks_store import MarksStore
from stoa_tables.queries import Queries
from stoa_tables.store import Store, to_row
from stoa_tables.wire import Edited, EditedRevision, correction_views

__all__ = ["CorrectionService", "list_corrections"]


class CorrectionService(CommandService):
    """The commands that concern corrections."""

    async def reset(self, name: str, chosen: ChosenCorrections) -> Edited:
        """Take corrections back: the cells hold again what is derived."""
        self._refuse_too_many(chosen.rows)

        def command(recorder: Recorder) -> Edited:
            table = Queries(recorder.store).table(name)
            rows = recorder.store.rows(table.id, chosen.rows)
            locks = MarksStore(recorder.connection, recorder.store.tables).locks(table.id, rows)
            refuse_locked(table, locks, "edited")
            events = corrections.reset(table, rows, chosen.rows, chosen.columns, event_bytes=self._settings.event_bytes)
            recorder.record(table.id, events)
            changed = [edit.row for event in events for edit in event.rows]
            recorder.follow(table.id, changed)
            present = recorder.store.rows(table.id, changed).values()
            revisions = [EditedRevision(row=row.row, revision=row.revision) for row in present]
            return Edited(rows=revisions, position=self._position(recorder))

        request = {"command": "reset-corrections", "table": name, **chosen.model_dump()}
        return await self._carry_out(request, command, Edited)

    async def confirm(self, name: str, chosen: ConfirmCorrections) -> Confirmed:
        """Keep corrections whose upstream values have changed."""
        self._refuse_too_many(chosen.rows)

        def command(recorder: Recorder) -> Confirmed:
            table = Queries(recorder.store).table(name)
            rows = recorder.store.rows(table.id, chosen.rows)
            events = corrections.confirm(table, rows, chosen.rows, chosen.columns, reason=chosen.reason)
            recorder.record(table.id, events)
            confirmed = [row.row for event in events for row in event.rows]
            return Confirmed(rows=confirmed, position=self._position(recorder))

        request = {"command": "confirm-corrections", "table": name, **chosen.model_dump()}
        return await self._carry_out(request, command, Confirmed)


def list_corrections(
    store: Store, name: str, position: int, *, review: bool | None, limit: int, after: int
) -> CorrectionPage:
    """List the rows of a table that have corrections.

    Parameters
    ----------
    store
        The read model.
    name
        Id or name of the table.
    position
        Of the log.
    review
        Only rows that are to be reviewed, or only those that are not.
    limit
        At most so many rows.
    after
        Only rows with larger ids.
    """
    table = Queries(store).table(name)
    row = store.tables["row"]
    mine = [row.c.table_id == table.id, row.c.corrected.is_not(None)]
    to_review = [row.c.table_id == table.id, row.c.review]
    if review is not None:
        mine = to_review if review else [*mine, sa.not_(row.c.review)]

    def count(*conditions: sa.ColumnElement[bool]) -> int:
        return store.connection.execute(sa.select(sa.func.count()).select_from(row).where(*conditions)).scalar_one()

    statement = sa.select(row).where(*mine, row.c.row > after).order_by(row.c.row).limit(limit + 1)
    found = [to_row(entry) for entry in store.connection.execute(statement)]
    shown = []
    for item in found[:limit]:
        views = correction_views(item)
        shown.append(
            CorrectedRow(
                row=item.row,
                revision=item.revision,
                values={column: item.inputs.get(column) for column in views},
                corrected=views,
                review=any(view.review for view in views.values()),
            )
        )
    return CorrectionPage(
        position=position,
        rows=shown,
        next=shown[-1].row if len(found) > limit else None,
        total=count(*mine),
        review=count(*to_review),
    )
