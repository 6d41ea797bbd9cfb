"""The queue under anything that may happen, in any order: each job ends once, and no row runs twice at once."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stoa_contracts.jobs import JobRequest
from stoa_scheduler.models import awaited, job, row_state, run, table_state
from stoa_scheduler.problems import NotFoundError, NothingToRunError
from stoa_scheduler.views import CancellationRequest, LimitRequest, RunRequest, TriggerRequest
from tests.scheduler.neighbours import version
from tests.scheduler.site import Site

if TYPE_CHECKING:
    from stoa_chassis.bus import JobMessage

ENDED = {"succeeded", "failed", "cancelled"}
ROWS = st.integers(1, 4)
SEED = st.integers(0, 1_000_000)


class Sheet:
    """A worktable as the tables service has it."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.workflow = "one"
        self.rows: dict[int, int] = {}
        self.next_row = 1
        self.recorded: set[str] = set()
        self.suspected: set[int] = set()
        self.confirmed: set[int] = set()
        """Rows of which the tables said that they are current, whether or not they were computed here."""


class Queue(RuleBasedStateMachine):
    """One scheduler, a tables service and an executor whose news arrive late, and processes that die."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.sheets: dict[str, Sheet] = {}
        self.ended: dict[str, str] = {}
        self.fenced: set[tuple[str, int]] = set()
        self.done: set[tuple[str, int]] = set()
        self.running: dict[tuple[str, int], tuple[JobMessage, JobRequest]] = {}
        self.seen_by_tables = 0

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        folder = Path(self.folder.name)
        self.site = Site(f"sqlite:///{folder}/scheduler.sqlite", folder, smallest_window=3, window=3)
        for name in ("a", "b"):
            table = self.site.tables.create(name)
            self.sheets[name] = Sheet(table)
            self.add(name, 2)
        self.site.deliver_all()

    # --- what people do ------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from("ab"), number=st.integers(1, 3))
    def add(self, name: str, number: int) -> None:
        sheet = self.sheets[name]
        first = sheet.next_row
        self.site.tables.add(sheet.table, *({"image": f"{row}.fits"} for row in range(number)), first=first)
        sheet.next_row += number
        sheet.rows.update(dict.fromkeys(range(first, sheet.next_row), 1))

    @rule(name=st.sampled_from("ab"), row=ROWS, value=st.sampled_from([None, "m31.fits", "m87.fits"]))
    def edit(self, name: str, row: int, value: str | None) -> None:
        sheet = self.sheets[name]
        if row in sheet.rows:
            sheet.rows[row] += 1
            self.site.tables.edit(sheet.table, row, sheet.rows[row], image=value)

    @rule(name=st.sampled_from("ab"), row=ROWS)
    def remove(self, name: str, row: int) -> None:
        sheet = self.sheets[name]
        if sheet.rows.pop(row, None) is not None:
            sheet.suspected.discard(row)
            self.site.tables.remove(sheet.table, row)

    @rule(name=st.sampled_from("ab"), rows=st.none() | st.lists(ROWS, min_size=1, max_size=3, unique=True))
    def invalidate(self, name: str, rows: list[int] | None) -> None:
        sheet = self.sheets[name]
        sheet.suspected -= set(sheet.rows if rows is None else rows)
        self.site.tables.invalidate(sheet.table, rows)

    @rule(name=st.sampled_from("ab"), row=ROWS)
    def suspect(self, name: str, row: int) -> None:
        sheet = self.sheets[name]
        if row in sheet.rows:
            sheet.suspected.add(row)
            self.site.tables.suspect(sheet.table, row)

    @rule(name=st.sampled_from("ab"), row=st.none() | ROWS)
    def confirm(self, name: str, row: int | None) -> None:
        sheet = self.sheets[name]
        rows = {row} if row is not None else set(sheet.rows)
        sheet.suspected -= rows
        sheet.confirmed |= rows
        self.site.tables.confirm(sheet.table, None if row is None else [row])

    @rule(
        name=st.sampled_from("ab"), row=ROWS, value=st.sampled_from(["m31.fits", "m87.fits"]), suspected=st.booleans()
    )
    def derive(self, name: str, row: int, value: str, suspected: bool) -> None:
        """Be upstream: an edit of derived cells, and what that makes of the row."""
        sheet = self.sheets[name]
        if row in sheet.rows:
            sheet.rows[row] += 1
            self.site.tables.edit(sheet.table, row, sheet.rows[row], derived=True, image=value)
            self.site.tables.invalidate(sheet.table, [row], suspected=suspected)
            (sheet.suspected.add if suspected else sheet.suspected.discard)(row)

    @rule(name=st.sampled_from("ab"), row=ROWS, locked=st.booleans())
    def lock(self, name: str, row: int, locked: bool) -> None:
        self.site.tables.lock(self.sheets[name].table, row, locked=locked)

    @rule(name=st.sampled_from("ab"), running=st.none() | st.integers(0, 2))
    def limit(self, name: str, running: int | None) -> None:
        self.wait(self.site.queue_service().set_limit(LimitRequest(table=self.sheets[name].table, running=running)))

    @rule(name=st.sampled_from("ab"), workflow=st.sampled_from(["one", "two"]))
    def change_workflow(self, name: str, workflow: str) -> None:
        sheet = self.sheets[name]
        if workflow != sheet.workflow:
            self.site.tables.change_workflow(sheet.table, workflow, sheet.workflow)
            self.site.tables.invalidate(sheet.table, None)
            sheet.suspected.clear()
            sheet.workflow = workflow

    @rule(
        name=st.sampled_from("ab"),
        scope=st.sampled_from(["stale", "failed", "all", "rows"]),
        rows=st.lists(ROWS, min_size=1, max_size=3),
        priority=st.integers(0, 1),
        actor=st.sampled_from(["jansky", "reber"]),
    )
    def run(self, name: str, scope: Any, rows: list[int], priority: int, actor: str) -> None:
        request = RunRequest(
            table=self.sheets[name].table, scope=scope, rows=rows if scope == "rows" else None, priority=priority
        )
        answer, position = self.wait(self.site.service(actor).start_run(request))
        assert (answer.jobs + answer.awaited == 0) == (answer.run is None)
        assert position == len(self.site.own_events())

    @rule(name=st.sampled_from("ab"), rows=st.none() | st.lists(ROWS, min_size=1, max_size=2))
    def cancel(self, name: str, rows: list[int] | None) -> None:
        request = CancellationRequest(table=self.sheets[name].table, rows=rows)
        before = Counter(self.site.states())
        answer, _ = self.wait(self.site.service().cancel(request))
        after = Counter(self.site.states())
        assert after["cancelled"] - before["cancelled"] == answer.cancelled

    @rule(name=st.sampled_from("ab"), mode=st.sampled_from(["manual", "automatic"]))
    def set_trigger(self, name: str, mode: Any) -> None:
        self.wait(self.site.service().set_trigger(self.sheets[name].table, TriggerRequest(mode=mode)))

    # --- what machines do ----------------------------------------------------------------------------------------

    @rule(number=st.integers(1, 5))
    def hear_of_tables(self, number: int) -> None:
        self.site.deliver(self.site.tables, number)

    @rule(number=st.integers(1, 5))
    def hear_of_the_executor(self, number: int) -> None:
        self.site.deliver(self.site.executor, number)

    @rule()
    def dispatch(self) -> None:
        self.wait(self.site.dispatch())

    @rule()
    def die_before_the_bus(self) -> None:
        self.site.take()
        self.site.restart()

    @rule()
    def lose_the_bus(self) -> None:
        self.site.broker.wipe()

    @rule(seconds=st.sampled_from([1, 10, 70, 4000]))
    def pass_time(self, seconds: int) -> None:
        self.site.now += timedelta(seconds=seconds)

    @rule(number=st.integers(1, 3))
    def start(self, number: int) -> None:
        for message, request in self.wait(self.site.handed_out(number)):
            attempt = (request.job, request.attempt)
            if attempt in self.done:
                self.wait(message.ack())
            elif attempt in self.fenced:
                # It runs here, or ran on a host that is gone: a new host begins the same attempt again.
                self.running[attempt] = (message, request)
            else:
                self.fenced.add(attempt)
                self.site.executor.start(request)
                self.running[attempt] = (message, request)

    @precondition(lambda self: self.running)
    @rule(seed=SEED, outcome=st.sampled_from(["success", "success", "permanentFail", "temporaryFail", "cancelled"]))
    def finish(self, seed: int, outcome: Any) -> None:
        attempt = sorted(self.running)[seed % len(self.running)]
        message, request = self.running.pop(attempt)
        final = outcome != "temporaryFail" or request.attempt >= request.max_attempts
        self.site.executor.finish(request, outcome, final=final, at=self.site.now, error=f"it ended as {outcome}")
        self.done.add(attempt)
        self.wait(message.ack())

    @rule(number=st.integers(1, 4))
    def let_tables_record(self, number: int) -> None:
        """Be the tables service that hears of what ended."""
        events = self.site.executor.envelopes[self.seen_by_tables :][:number]
        self.seen_by_tables += len(events)
        for envelope in events:
            data = envelope.data
            if envelope.name != "job-finished" or data["outcome"] != "success":
                continue
            sheet = next(sheet for sheet in self.sheets.values() if sheet.table == data["table"])
            if data["row"] not in sheet.rows or data["job"] in sheet.recorded:
                continue
            sheet.recorded.add(data["job"])
            request = JobRequest(
                **{name: data[name] for name in ("job", "attempt", "table", "row", "revision", "workflow_version")},
                max_attempts=3,
                inputs={},
                requested_by=envelope.actor,
                correlationid=envelope.correlationid,
                causationid="",
            )
            self.site.tables.record(request)

    @rule()
    def rebuild(self) -> None:
        assert self.site.rebuilt_differently() == []

    # --- what holds whatever happens -----------------------------------------------------------------------------

    @invariant()
    def counts_are_right(self) -> None:
        self.site.check_counts()
        counted: dict[str, int] = {
            item.run: item.n
            for item in self.site.query(sa.select(job.c.run, sa.func.count().label("n")).group_by(job.c.run))
        }
        assert counted == {item.id: item.jobs for item in self.site.query(sa.select(run)) if item.jobs}
        for item in self.site.query(sa.select(run)):
            summary = self.wait(self.site.service().run(item.id))
            assert sum(summary.states.values()) == item.jobs
            assert (summary.finished is None) == bool(set(summary.states) - ENDED or summary.awaited)
        states = Counter(self.site.states())
        queue = self.wait(self.site.queue_service().queue())
        assert (queue.waiting + queue.dispatched, queue.running) == (states["waiting"], states["running"])
        assert queue.dispatched <= 3

    @invariant()
    def no_row_has_two_jobs_at_once(self) -> None:
        c = job.c
        active = self.site.query(
            sa.select(c.table_id, c.row, c.revision, c.workflow_version).where(c.state.not_in(ENDED))
        )
        assert not [item for item, number in Counter(map(tuple, active)).items() if number > 1]

    @invariant()
    def what_is_suspected_or_locked_does_not_wait_in_the_queue(self) -> None:
        c = row_state.c
        held = self.site.query(
            sa.select(c.table_id, c.row)
            .join(job, job.c.id == c.job)
            .where(job.c.state == "waiting", sa.or_(c.suspected.is_(True), c.locked.is_(True)))
        )
        assert held == []

    @invariant()
    def each_job_ends_once(self) -> None:
        now = {item.id: item.state for item in self.site.query(sa.select(job.c.id, job.c.state))}
        for job_id, state in self.ended.items():
            assert now[job_id] == state
        self.ended = {job_id: state for job_id, state in now.items() if state in ENDED}

    @invariant()
    def rows_tell_of_their_jobs(self) -> None:
        c = row_state.c
        statement = sa.select(
            c.status, job.c.state, job.c.workflow_version, table_state.c.workflow_version.label("present")
        )
        rows = self.site.query(
            statement.select_from(row_state)
            .join(table_state, table_state.c.id == c.table_id)
            .outerjoin(job, sa.and_(job.c.id == c.job, job.c.revision == c.revision))
        )
        expected: dict[str, Callable[[Any], bool]] = {
            "stale": lambda row: row.state is None,
            "queued": lambda row: row.state == "waiting" and row.workflow_version == row.present,
            # What has succeeded is running until the tables service has its outputs.
            "running": lambda row: row.state in {"running", "succeeded"} and row.workflow_version == row.present,
            "current": lambda row: row.state in {None, "succeeded", "cancelled"},
            "failed": lambda row: row.state == "failed",
            "cancelled": lambda row: row.state == "cancelled",
        }
        assert not [row for row in rows if not expected[row.status](row)]

    def teardown(self) -> None:
        """Let everything go well from now on: then everything ends, and every row of an automatic table is up to date."""
        try:
            if self.sheets:
                self.settle()
        finally:
            if self.sheets:
                self.wait(self.site.database.aclose())
            self.runner.close()
            self.folder.cleanup()

    def settle(self) -> None:
        for name, sheet in self.sheets.items():
            self.limit(name, None)
            self.site.tables.lock(sheet.table, *sorted(sheet.rows), locked=False)
            if sheet.suspected:
                self.site.tables.invalidate(sheet.table, sorted(sheet.suspected))
            try:
                self.set_trigger(name, "automatic")
            except (NotFoundError, NothingToRunError):
                continue
        for _ in range(200):
            self.site.deliver_all()
            self.site.now += timedelta(seconds=4000)
            self.dispatch()
            self.start(10)
            while self.running:
                self.finish(0, "success")
            self.let_tables_record(1000)
            self.site.deliver_all()
            queue = self.wait(self.site.queue_service().queue())
            if not (queue.waiting or queue.dispatched or queue.running):
                break
        assert not set(self.site.states()) - ENDED
        assert self.site.query(sa.select(awaited.c.row)) == []
        self.counts_are_right()
        self.each_job_ends_once()
        rows = self.site.query(sa.select(row_state))
        for row in rows:
            sheet = next(sheet for sheet in self.sheets.values() if sheet.table == row.table_id)
            assert row.revision == sheet.rows[row.row]
            if row.inputs["image"] is None:
                assert row.status in {"stale", "failed", "current", "cancelled"}
            else:
                assert row.status in {"current", "failed", "cancelled"}
            if row.status == "current" and row.row not in sheet.confirmed:
                assert row.output_version == version(sheet.workflow)
        assert len(rows) == sum(len(sheet.rows) for sheet in self.sheets.values())
        assert self.site.rebuilt_differently() == []


Queue.TestCase.settings = settings(
    settings(),
    deadline=None,
    max_examples=max(1, settings().max_examples // 6),
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)

TestQueue = Queue.TestCase
