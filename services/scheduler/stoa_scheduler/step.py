"""One event on its way into the read model: the statements, and the counts that every change keeps right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar, get_args

import sqlalchemy as sa

from stoa_chassis.projection import ReadModel
from stoa_contracts.envelope import Envelope
from stoa_contracts.types import RowStatus
from stoa_scheduler.progress import KEPT, moment_of

__all__ = ["UNENDED", "Statements", "Step", "among", "pieces"]

#: The states of a job that has not ended, as they stand in the read model.
UNENDED = ("waiting", "running")

_STATUSES: tuple[RowStatus, ...] = get_args(RowStatus)
_MANY = 500
_RUN = 20

_T = TypeVar("_T")


class Statements:
    """The statements of the read model's tables, written once: they run for every job."""

    def __init__(self, model: ReadModel) -> None:
        self.table = model["table_state"]
        self.workflow = model["workflow"]
        self.row = row = model["row_state"]
        self.run = run = model["run"]
        self.job = job = model["job"]
        self.awaited = awaited = model["awaited"]
        self.limit = model["run_limit"]
        self.backlog = backlog = model["backlog"]
        self.progress = progress = model["progress"]
        self.ended = ended = model["ended"]
        self.trigger = model["trigger"]
        p = sa.bindparam
        group = (
            backlog.c.table_id == p("b_table"),
            backlog.c.requested_by == p("b_person"),
            backlog.c.priority == p("b_priority"),
        )
        self.find_job = sa.select(
            job.c.id,
            job.c.run,
            job.c.table_id,
            job.c.row,
            job.c.state,
            job.c.attempt,
            job.c.host,
            job.c.requested_by,
            job.c.priority,
            job.c.earlier,
        ).where(job.c.id == p("b_job"))
        self.change_backlog = sa.update(backlog).where(*group).values(waiting=backlog.c.waiting + p("b_number"))
        self.start_job = (
            sa.update(job)
            .where(job.c.id == p("b_job"))
            .values(state="running", attempt=p("b_attempt"), host=p("b_host"), started=p("b_started"), not_before=None)
        )
        self._job_updates: dict[tuple[str, ...], sa.Update] = {}
        of_row = (row.c.table_id == p("b_table"), row.c.row == p("b_row"))
        self.find_row = sa.select(
            row.c.revision, row.c.status, row.c.job, row.c.suspected, row.c.pinned, self.table.c.workflow_version
        ).where(*of_row, self.table.c.id == row.c.table_id)
        self.row_status = sa.update(row).where(*of_row).values(status=p("b_status"))
        self.queue_row = (
            sa.update(row).where(*of_row, row.c.revision == p("b_revision")).values(status="queued", job=p("b_job"))
        )
        self.row_computed = sa.update(row).where(*of_row).values(status=p("b_status"), output_version=p("b_version"))
        self.edit_row = (
            sa.update(row)
            .where(*of_row)
            .values(
                revision=p("b_revision"),
                inputs=p("b_inputs", type_=sa.JSON),
                status=p("b_status"),
                job=None,
                output_version=None,
            )
        )
        self.add_rows = sa.insert(row)
        self.remove_row = sa.delete(row).where(*of_row)
        self.no_longer_awaited = sa.delete(awaited).where(
            awaited.c.table_id == p("b_table"), awaited.c.row == p("b_row")
        )
        self.change_run = (
            sa.update(run)
            .where(run.c.id == p("b_run"))
            .values(
                jobs=run.c.jobs + p("b_jobs"),
                awaited=run.c.awaited + p("b_awaited"),
                reused=run.c.reused + p("b_reused"),
            )
        )
        counted = (*_STATUSES, "awaited")
        self.change_progress = (
            sa.update(progress)
            .where(progress.c.table_id == p("b_table"))
            .values({name: progress.c[name] + p(f"b_{name}") for name in counted})
        )
        self.begin_work = (
            sa.update(progress)
            .where(progress.c.table_id == p("b_table"), progress.c.queued + progress.c.running == 0)
            .values(busy_since=p("b_time"))
        )
        moment = (ended.c.table_id == p("b_table"), ended.c.moment == p("b_moment"))
        self.count_ended = sa.update(ended).where(*moment).values(jobs=ended.c.jobs + 1)

    def update_job(self, names: Iterable[str]) -> sa.Update:
        """Give the statement that sets these columns of the job ``b_job`` to the parameters of the same names with ``b_``."""
        key = tuple(names)
        found = self._job_updates.get(key)
        if found is None:
            c = self.job.c
            values = {name: sa.bindparam(f"b_{name}", type_=c[name].type) for name in key}
            found = self._job_updates[key] = sa.update(self.job).where(c.id == sa.bindparam("b_job")).values(values)
        return found


class Step:
    """One event on its way into the read model."""

    def __init__(self, connection: sa.Connection, statements: Statements, envelope: Envelope) -> None:
        self.connection = connection
        self.s = statements
        self.envelope = envelope

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        """Carry out a statement."""
        return self.connection.execute(statement, parameters)

    def is_worktable(self, table: str) -> bool:
        """Tell whether a table has rows that can run."""
        c = self.s.table.c
        return self.execute(sa.select(c.kind).where(c.id == table)).scalar_one_or_none() == "worktable"

    # --- jobs --------------------------------------------------------------------------------------------------------

    def count(self, table: str, person: str, priority: int, number: int) -> None:
        """Change how many jobs wait."""
        group = {"b_table": table, "b_person": person, "b_priority": priority}
        changed = self.execute(self.s.change_backlog, {**group, "b_number": number}).rowcount
        if not changed:
            new = {"table_id": table, "requested_by": person, "priority": priority, "waiting": number}
            self.execute(sa.insert(self.s.backlog), new)

    def find(self, job: str) -> Any:
        """Find what a job is and how far it got."""
        return self.execute(self.s.find_job, {"b_job": job}).first()

    def update_job(self, job: str, **values: Any) -> None:
        """Change columns of a job."""
        parameters = {f"b_{name}": value for name, value in values.items()}
        self.execute(self.s.update_job(values), {"b_job": job, **parameters})

    def end(self, job: Any, state: str, *, finished: datetime, reused_from: str | None = None, **values: Any) -> None:
        """End a job that has not ended."""
        ended = {"state": state, "not_before": None, "finished": finished, "reused_from": reused_from}
        self.update_job(job.id, **ended, **values)
        if job.state == "waiting":
            self.count(job.table_id, job.requested_by, job.priority, -1)
        if reused_from is not None:
            self.change_run(job.run, reused=1)
        self._note_end(job.table_id, moment_of(finished))

    def _note_end(self, table: str, moment: int) -> None:
        ended = self.s.ended
        if not self.execute(self.s.count_ended, {"b_table": table, "b_moment": moment}).rowcount:
            self.execute(sa.insert(ended), {"table_id": table, "moment": moment, "jobs": 1})
            self.execute(sa.delete(ended).where(ended.c.table_id == table, ended.c.moment < moment - KEPT))

    # --- runs --------------------------------------------------------------------------------------------------------

    def change_run(self, run: str, *, jobs: int = 0, awaited: int = 0, reused: int = 0) -> bool:
        """Count what a run has more, or fewer.

        Returns
        -------
        bool
            Whether there is such a run.
        """
        change = {"b_run": run, "b_jobs": jobs, "b_awaited": awaited, "b_reused": reused}
        return bool(self.execute(self.s.change_run, change).rowcount)

    def no_longer_awaited(self, table: str, rows: Sequence[int]) -> None:
        """Let rows wait no longer, where they did."""
        c = self.s.awaited.c
        fewer: Counter[str] = Counter()
        for piece in pieces(rows):
            found = self.execute(sa.select(c.row, c.run).where(c.table_id == table, c.row.in_(piece))).all()
            if found:
                fewer.update(item.run for item in found)
                gone = [{"b_table": table, "b_row": item.row} for item in found]
                self.execute(self.s.no_longer_awaited, gone)
        for run, number in sorted(fewer.items()):
            self.change_run(run, awaited=-number)
        if fewer:
            self.change_progress(table, {"awaited": -fewer.total()})

    # --- rows --------------------------------------------------------------------------------------------------------

    def row_status(self, job: Any, status: RowStatus) -> None:
        """Change the status of the row that shows a job."""
        row = self.find_row(job.table_id, job.row)
        if row is not None and row.job == job.id and row.status != status:
            self.execute(self.s.row_status, {"b_table": job.table_id, "b_row": job.row, "b_status": status})
            self.change_progress(job.table_id, {row.status: -1, status: 1})

    def find_row(self, table: str, row: int) -> Any:
        """Find what a row is, and the workflow version of its table."""
        return self.execute(self.s.find_row, {"b_table": table, "b_row": row}).first()

    @contextmanager
    def counted(self, table: str, rows: Sequence[int] | None) -> Iterator[None]:
        """Keep the counts of a table right while the statuses of rows change.

        Parameters
        ----------
        table
            Its id.
        rows
            The rows that may change; null for all.
        """
        change = self._statuses(table, rows)
        change = Counter({status: -number for status, number in change.items()})
        yield
        change.update(self._statuses(table, rows))
        self.change_progress(table, change)

    def _statuses(self, table: str, rows: Sequence[int] | None) -> Counter[str]:
        c = self.s.row.c
        statement = sa.select(c.status, sa.func.count().label("n")).where(c.table_id == table).group_by(c.status)
        parts = [statement] if rows is None else [statement.where(some) for some in among(c.row, rows)]
        counts: Counter[str] = Counter()
        for part in parts:
            for item in self.execute(part):
                counts[item.status] += item.n
        return counts

    def change_progress(self, table: str, change: Mapping[str, int]) -> None:
        """Count the rows of a table that have another status than before."""
        if any(change.values()):
            numbers = {f"b_{name}": change.get(name, 0) for name in (*_STATUSES, "awaited")}
            self.execute(self.s.change_progress, {"b_table": table, **numbers})


def among(column: sa.Column[int], rows: Iterable[int]) -> Iterator[sa.ColumnElement[bool]]:
    """Say in SQL which rows are meant, in pieces that fit into one statement.

    What was done to many rows at once was mostly done to rows that follow each other, and naming the first and the last of
    them is enough.
    """
    single: list[int] = []
    for first, last in _runs(sorted(set(rows))):
        if last - first < _RUN:
            single += range(first, last + 1)
        else:
            yield column.between(first, last)
    for piece in pieces(single):
        yield column.in_(piece)


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """List the first and the last of rows that follow each other, in sorted rows."""
    begin = 0
    for place in range(1, len(rows) + 1):
        if place == len(rows) or rows[place] != rows[place - 1] + 1:
            yield rows[begin], rows[place - 1]
            begin = place


def pieces(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Cut a list into pieces that fit into one statement."""
    for first in range(0, len(items), _MANY):
        yield items[first : first + _MANY]
