"""Carries out what people do with their marks: flags, comments, locks and saved views."""

from __future__ import annotations

from collections.abc import Sequence

from stoa_contracts.events.tables import RowsRemoved, View
from stoa_contracts.ids import new_id
from stoa_contracts.types import Cause, LinkSpecification
from stoa_tables import marks
from stoa_tables.cascade import Recorder
from stoa_tables.command_service import CommandService
from stoa_tables.domain import Row, Table
from stoa_tables.filtering import Cells, conditions, order
from stoa_tables.marks_answers import find_comment, find_view, flag_list
from stoa_tables.marks_queries import comment_count, mark_filters
from stoa_tables.marks_store import MarksStore
from stoa_tables.marks_wire import (
    CommentAnswer,
    FlagDefinition,
    FlagList,
    FlagRows,
    LockRows,
    MarkedRows,
    NewComment,
    NewView,
    SavedViewAnswer,
    comment_view,
    saved_view,
)
from stoa_tables.queries import Queries
from stoa_tables.store import Store

__all__ = ["MarkService"]


class MarkService(CommandService):
    """The commands of people's marks."""

    # --- flags ---------------------------------------------------------------------------------------------------------

    async def define_flag(self, name: str, flag: str, definition: FlagDefinition) -> FlagList:
        """Define a flag, or change its colour and description."""

        def command(recorder: Recorder) -> FlagList:
            table = Queries(recorder.store).table(name)
            events = marks.define_flag(
                table,
                _marks(recorder).flags(table.id),
                flag,
                colour=definition.colour,
                description=definition.description,
            )
            recorder.record(table.id, events)
            return flag_list(recorder.store, table, self._position(recorder))

        return await self._carry_out(None, command, FlagList)

    async def give_up_flag(self, name: str, flag: str) -> FlagList:
        """Give a flag up, and take it off every row."""

        def command(recorder: Recorder) -> FlagList:
            table = Queries(recorder.store).table(name)
            recorder.record(table.id, marks.give_up_flag(table, _marks(recorder).flags(table.id), flag))
            return flag_list(recorder.store, table, self._position(recorder))

        return await self._carry_out(None, command, FlagList)

    async def flag_rows(self, name: str, flag: str, asked: FlagRows) -> MarkedRows:
        """Put a flag on rows, or take it off."""
        self._refuse_too_many(asked.rows)

        def command(recorder: Recorder) -> MarkedRows:
            table, store = Queries(recorder.store).table(name), _marks(recorder)
            rows = recorder.store.rows(table.id, asked.rows)
            having = store.flagged(table.id, flag, asked.rows) if "\0" not in flag else set[int]()
            events = marks.flag_rows(
                table, store.flags(table.id), rows, having, flag, asked.rows, flagged=asked.flagged
            )
            recorder.record(table.id, events)
            return self._marked(recorder)

        request = {"command": "flag-rows", "table": name, "flag": flag, **asked.model_dump(mode="json")}
        return await self._carry_out(request, command, MarkedRows)

    def _marked(self, recorder: Recorder) -> MarkedRows:
        rows = [
            row
            for envelope in recorder.recorded
            if envelope.name in {"row-flagged", "row-locked"}
            for row in envelope.data["rows"]
        ]
        return MarkedRows(rows=rows, position=self._position(recorder))

    # --- comments ------------------------------------------------------------------------------------------------------

    async def comment(self, name: str, row: int, new: NewComment) -> CommentAnswer:
        """Write about a row, an element or a cell, or reply."""

        def command(recorder: Recorder) -> CommentAnswer:
            table = Queries(recorder.store).table(name)
            replied = None if new.replies_to is None else find_comment(recorder.store, table, new.replies_to)
            comment = new_id()
            events = marks.comment_on(
                table,
                recorder.store.row(table.id, row),
                row,
                comment=comment,
                text=new.text,
                element=new.element,
                column=new.column,
                replied=replied,
            )
            recorder.record(table.id, events)
            return self._answer(recorder, table, comment)

        request = {"command": "comment", "table": name, "row": row, **new.model_dump(mode="json")}
        return await self._carry_out(request, command, CommentAnswer)

    async def edit_comment(self, name: str, comment: str, text: str | None) -> CommentAnswer:
        """Change what a comment says, or withdraw it."""

        def command(recorder: Recorder) -> CommentAnswer:
            table = Queries(recorder.store).table(name)
            known = find_comment(recorder.store, table, comment)
            recorder.record(table.id, marks.edit_comment(known, self._origin.actor, text))
            return self._answer(recorder, table, comment)

        return await self._carry_out(None, command, CommentAnswer)

    def _answer(self, recorder: Recorder, table: Table, comment: str) -> CommentAnswer:
        view = comment_view(find_comment(recorder.store, table, comment))
        return CommentAnswer(position=self._position(recorder), **dict(view))

    # --- locks ---------------------------------------------------------------------------------------------------------

    async def lock_rows(self, name: str, asked: LockRows) -> MarkedRows:
        """Lock rows, or unlock them: then they become what upstream says."""
        self._refuse_too_many(asked.rows)

        def command(recorder: Recorder) -> MarkedRows:
            table = Queries(recorder.store).table(name)
            rows, locks = recorder.store.rows(table.id, asked.rows), _marks(recorder).locks(table.id, asked.rows)
            events = marks.lock_rows(table, rows, locks, asked.rows, lock=asked.locked, reason=asked.reason)
            recorder.record(table.id, events)
            marked = self._marked(recorder)
            if not asked.locked:
                behind = [row for row in marked.rows if locks[row].withheld or locks[row].gone]
                _catch_up(recorder, table, behind)
            return marked.model_copy(update={"position": self._position(recorder)})

        request = {"command": "lock-rows", "table": name, **asked.model_dump(mode="json")}
        return await self._carry_out(request, command, MarkedRows)

    # --- views ---------------------------------------------------------------------------------------------------------

    async def save_view(self, name: str, new: NewView, view: str | None = None) -> SavedViewAnswer:
        """Save a view, or change one."""

        def command(recorder: Recorder) -> SavedViewAnswer:
            table, store = Queries(recorder.store).table(name), _marks(recorder)
            if view is not None:
                find_view(recorder.store, table, view, self._origin.actor)
            saved = View(view=view or new_id(), **new.model_dump())
            _check_view(recorder.store, table, saved)
            recorder.record(table.id, marks.save_view(table, store.views(table.id), saved, self._origin.actor))
            shown = find_view(recorder.store, table, saved.view, self._origin.actor)
            return SavedViewAnswer(position=self._position(recorder), **dict(saved_view(shown)))

        request = {"command": "save-view", "table": name, **new.model_dump(mode="json")} if view is None else None
        return await self._carry_out(request, command, SavedViewAnswer)

    async def delete_view(self, name: str, view: str) -> int:
        """Delete a view; gives the position of the log."""

        def command(recorder: Recorder) -> MarkedRows:
            table = Queries(recorder.store).table(name)
            saved = find_view(recorder.store, table, view, self._origin.actor)
            recorder.record(table.id, marks.delete_view(table, saved, self._origin.actor))
            return MarkedRows(rows=[], position=self._position(recorder))

        return (await self._carry_out(None, command, MarkedRows)).position


def _marks(recorder: Recorder) -> MarksStore:
    return MarksStore(recorder.connection, recorder.store.tables)


def _check_view(store: Store, table: Table, view: View) -> None:
    row = store.tables["row"]
    special = {"row": row.c.row, "status": row.c.status, "revision": row.c.revision, "comments": comment_count(store)}
    # A view may be meant for elements; their number is a column there.
    special["element"] = row.c.elements
    dialect = store.connection.dialect.name
    cells = Cells(table, dialect, row.c.inputs, row.c.outputs, special, elements=True, marks=mark_filters(store))
    conditions(cells, view.filters)
    order(cells, view.sort)


def _catch_up(recorder: Recorder, table: Table, rows: Sequence[int]) -> None:
    """Let rows follow what changed upstream while they were locked."""
    found = recorder.store.rows(table.id, rows).values()
    for link in recorder.store.links_of(table.id):
        derived = [row for row in found if row.link == link.link]
        if link.per == "group":
            _catch_up_groups(recorder, table, link, derived)
            continue
        for side, parent in enumerate(link.parents):
            sources = {source.row for row in derived if (source := row.sources[side]) is not None}
            recorder.follow(parent, sources, only=(table.id, link))


def _catch_up_groups(recorder: Recorder, table: Table, link: LinkSpecification, rows: Sequence[Row]) -> None:
    (parent,) = link.parents
    members = recorder.store.joined(link.link, 0, [row.key for row in rows if row.key is not None])
    # One member tells the group.
    recorder.follow(parent, [found[0].row for found in members.values()], only=(table.id, link))
    gone = sorted(row.row for row in rows if row.key not in members)
    if gone:
        recorder.record(table.id, [RowsRemoved(table=table.id, rows=gone, cause=Cause(kind="upstream", table=parent))])
        recorder.follow(table.id, gone)
