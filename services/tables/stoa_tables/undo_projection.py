"""Evolve: which steps of their own people can undo and redo.

A step is what one command of a person did to one table. Undoing a step records events that take its events back; redoing it
records events that take those back. So the step always has live events, those that nothing took back yet, and its state follows
from their side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stoa_contracts.events import tables as events
from stoa_contracts.events.tables import EditedRow

if TYPE_CHECKING:
    from stoa_tables.projection import Batch

__all__ = ["StepBook", "corrections_restored", "forget_steps", "keep_removed", "rows_restored", "touched"]

#: Row, as text, to column to what was known of its correction before an edit; null where it was not corrected.
Before = Mapping[str, Mapping[str, Any]]

_KINDS: dict[type, str] = {
    events.RowEdited: "edited",
    events.RowsAdded: "added",
    events.RowsRemoved: "removed",
}


class StepBook:
    """Keeps the steps of a batch of events, and writes the new ones together.

    Parameters
    ----------
    batch
        The batch.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._newest: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._steps: list[dict[str, Any]] = []
        self._grown: dict[tuple[str, int], dict[str, Any]] = {}
        self._events: list[dict[str, Any]] = []

    def forget(self) -> None:
        """Forget what is known, because it may be wrong now."""
        self._newest.clear()

    def flush(self) -> None:
        """Write the new steps, and those that grew."""
        self._batch.insert("edit_step", self._steps)
        if self._grown:
            names = ("table_id", "position", "last", "rows", "kind")
            grown = [{f"{name}_": step[name] for name in names} for step in self._grown.values()]
            self._batch.connection.execute(self._batch.statements.grow_step, grown)
            self._grown = {}
        self._batch.insert("edit_step_event", self._events)
        self._steps, self._events = [], []

    def before(self, event: str) -> Before:
        """Give what was known of corrections before an event of a step."""
        self.flush()
        item = self._batch.tables["edit_step_event"]
        found = self._batch.connection.execute(sa.select(item.c.corrected).where(item.c.id == event)).first()
        return {} if found is None or found.corrected is None else dict(found.corrected)

    def take(self, event: Any, rows: int, before: Before | None = None) -> None:
        """Take an event of a person.

        Parameters
        ----------
        event
            The event.
        rows
            How many rows it is about.
        before
            What was known before of the corrections that it changed.
        """
        undoes = getattr(event, "undoes", None)
        if undoes is not None:
            self._toggle(undoes, before)
        else:
            self._step(event, rows, before)

    def _step(self, event: Any, rows: int, before: Before | None) -> None:
        envelope, table = self._batch.envelope, self._batch.table
        key = (table, envelope.actor)
        newest = self._find(key)
        kind = _KINDS[type(event)]
        if (
            newest is not None
            and newest["correlationid"] == envelope.correlationid
            and newest["last"] == self._batch.position - 1
            and not newest["undone"]
        ):
            newest["last"] = self._batch.position
            newest["rows"] += rows
            newest["kind"] = kind if newest["kind"] == kind else "changed"
            self._rewrite(newest)
        else:
            if newest is not None and newest["undone"]:
                self._drop_undone(table, envelope.actor)
            newest = {
                "table_id": table,
                "position": self._batch.position,
                "last": self._batch.position,
                "actor": envelope.actor,
                "correlationid": envelope.correlationid,
                "kind": kind,
                "rows": rows,
                "time": envelope.written_time,
                "undone": False,
            }
            self._steps.append(newest)
        self._newest[key] = newest
        self._remember(newest["position"], undone=False, before=before)

    def _remember(self, step: int, *, undone: bool, before: Before | None) -> None:
        self._events.append(
            {
                "id": self._batch.envelope.id,
                "table_id": self._batch.table,
                "step": step,
                "position": self._batch.position,
                "undone": undone,
                "live": True,
                "corrected": dict(before) if before else None,
            }
        )

    def _find(self, key: tuple[str, str]) -> dict[str, Any] | None:
        if key not in self._newest:
            who = {"table": key[0], "actor": key[1]}
            found = self._batch.connection.execute(self._batch.statements.newest_step, who).first()
            self._newest[key] = None if found is None else found._asdict()
        return self._newest[key]

    def _rewrite(self, step: dict[str, Any]) -> None:
        # Those that were not written yet stand at the end, in the order in which they began.
        if not self._steps or step["position"] < self._steps[0]["position"]:
            self._grown[step["table_id"], step["position"]] = step

    def _drop_undone(self, table: str, actor: str) -> None:
        """Give up what could be redone: the steps that are undone are the newest ones."""
        self.flush()
        step, event = self._batch.tables["edit_step"], self._batch.tables["edit_step_event"]
        mine = (step.c.table_id == table, step.c.actor == actor, step.c.undone)
        undone = sa.select(step.c.position).where(*mine)
        self._batch.connection.execute(sa.delete(event).where(event.c.table_id == table, event.c.step.in_(undone)))
        self._batch.connection.execute(sa.delete(step).where(*mine))

    def _toggle(self, undoes: str, before: Before | None) -> None:
        self.flush()
        self.forget()
        step, event = self._batch.tables["edit_step"], self._batch.tables["edit_step_event"]
        found = self._batch.connection.execute(
            sa.select(event.c.step, event.c.undone).where(event.c.id == undoes)
        ).first()
        if found is None:
            return
        undone = not found.undone
        self._batch.connection.execute(sa.update(event).where(event.c.id == undoes).values(live=False))
        mine = (step.c.table_id == self._batch.table, step.c.position == found.step)
        self._batch.connection.execute(sa.update(step).where(*mine).values(undone=undone))
        self._remember(found.step, undone=undone, before=before)


def corrections_restored(
    present: Mapping[str, Mapping[str, Any]], edit: EditedRow, before: Mapping[str, Any]
) -> dict[str, Any]:
    """Give the corrections of a row after an edit was taken back.

    Parameters
    ----------
    present
        Those from before it was taken back.
    edit
        What takes it back.
    before
        Column to what was known of its correction before the edit, null where it was not corrected. What upstream says now
        stays known.
    """
    restored = dict(present)
    for name, known in before.items():
        if name not in edit.changes and name not in edit.reset:
            # Somebody changed the cell in the meantime, and it was left alone.
            continue
        if known is None:
            restored.pop(name, None)
            continue
        now = present.get(name)
        derived = now.get("derived") if now is not None else edit.previous.get(name, known.get("derived"))
        restored[name] = {**known, "derived": derived}
    return restored


def touched(present: Mapping[str, Any], edit: EditedRow, columns: Collection[str]) -> dict[str, Any]:
    """Give what is known of the corrections that an edit may change."""
    return {
        name: present.get(name) for name in sorted({*edit.changes, *edit.reset}) if name in columns or name in present
    }


def keep_removed(batch: Batch, rows: Sequence[int]) -> int:
    """Keep what rows held that a person removes, and count them; derived rows come back by themselves."""
    own = [row for row in batch.store.rows(batch.table, rows).values() if row.link is None]
    batch.insert(
        "removed_row",
        [
            {
                "table_id": batch.table,
                "row": row.row,
                "revision": row.revision,
                "inputs": row.inputs,
                "pinned": row.pinned,
            }
            for row in own
        ],
    )
    return len(own)


def rows_restored(batch: Batch, event: events.RowsRestored) -> None:
    """Put rows back that were removed."""
    table = batch.store.table(event.table)
    status = "stale" if table is None else table.status_of_new_rows
    rows = [row.row for row in event.rows]
    removed = batch.tables["removed_row"]
    mine = (removed.c.table_id == event.table, removed.c.pinned.is_not(None))
    found = batch.connection.execute(sa.select(removed.c.row, removed.c.pinned).where(*mine))
    pinned = {entry.row: entry.pinned for entry in found}
    batch.delete_rows("removed_row", rows)
    batch.insert(
        "row",
        [
            {
                "table_id": event.table,
                "row": row.row,
                "revision": row.revision,
                "status": status,
                "inputs": row.inputs,
                "pinned": pinned.get(row.row),
            }
            for row in event.rows
        ],
    )
    batch.count([], [status] * len(rows))
    batch.remember(rows)
    batch.index_for_joins(rows)
    batch.steps.take(event, len(rows))


def forget_steps(batch: Batch) -> None:
    """Forget the steps in a table that is deleted."""
    batch.delete_all("edit_step", "edit_step_event", "removed_row")
