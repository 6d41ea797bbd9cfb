"""Linked tables: no row is computed on inputs that are about to change, in whatever order things are asked for."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from stoa_scheduler.models import awaited
from stoa_scheduler.views import CancellationRequest, RunRequest, TriggerRequest
from tests.scheduler.site import Site, running_site

if TYPE_CHECKING:
    from stoa_chassis.bus import JobMessage
    from stoa_contracts.jobs import JobRequest

CHAIN = {"a": (), "b": ("a",), "c": ("b",)}
DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


class Sheet:
    """A table of one row, as the tables service has it."""

    def __init__(self, table: str, inputs: str) -> None:
        self.table = table
        self.inputs = inputs
        self.revision = 1
        self.suspected = False
        self.computed: str | None = None
        """The inputs from which the outputs were made."""

    @property
    def belongs(self) -> bool:
        return self.computed == self.inputs

    @property
    def settled(self) -> bool:
        return self.belongs and not self.suspected

    @property
    def output(self) -> str | None:
        # Many inputs give the same output, so that much of what is suspected comes out as it was.
        return None if self.computed is None else str(len(self.computed) % 2)


class Graph:
    """Linked tables that run, and the tables service that keeps them as its contract says."""

    def __init__(self, site: Site, parents: Mapping[str, Sequence[str]]) -> None:
        self.site = site
        self.parents = parents
        self.sheets: dict[str, Sheet] = {}
        self.asked: dict[str, str] = {}
        self.computed: list[str] = []
        for name in parents:
            table = site.tables.create(name, project="survey")
            self.sheets[name] = Sheet(table, "")
            site.tables.add(table, {"image": ""})
        self.settle()
        self.deliver()

    def of(self, table: str) -> str:
        return next(name for name, sheet in self.sheets.items() if sheet.table == table)

    def deliver(self) -> None:
        self.site.deliver_all()

    def edit(self, name: str, value: str) -> None:
        """Be a person who edits a table that is filled from no other."""
        sheet = self.sheets[name]
        sheet.inputs = value
        sheet.revision += 1
        self.site.tables.edit(sheet.table, 1, sheet.revision, image=value, current=sheet.settled)
        self.settle()
        self.deliver()

    def settle(self) -> None:
        """Say what an event means for the tables below, parents first."""
        for name, parents in self.parents.items():
            sheet = self.sheets[name]
            outputs = [self.sheets[parent].output for parent in parents]
            if parents and None not in outputs and (derived := "+".join(map(str, outputs))) != sheet.inputs:
                sheet.inputs = derived
                sheet.revision += 1
                self.site.tables.edit(
                    sheet.table, 1, sheet.revision, image=derived, derived=True, current=sheet.settled
                )
                if not sheet.settled and not sheet.suspected:
                    self.site.tables.invalidate(sheet.table, [1])
            suspected = not all(self.sheets[parent].settled for parent in parents)
            if suspected and not sheet.suspected:
                self.site.tables.suspect(sheet.table, 1)
            elif sheet.suspected and not suspected and sheet.belongs:
                self.site.tables.confirm(sheet.table, [1])
            elif sheet.suspected and not suspected:
                self.site.tables.invalidate(sheet.table, [1])
            sheet.suspected = suspected

    async def run(self, *names: str) -> None:
        for name in names:
            await self.site.service().start_run(RunRequest(table=name))

    async def take(self) -> list[tuple[JobMessage, JobRequest]]:
        """Take what an executor would begin with: what was cancelled on its way is dropped."""
        await self.site.dispatch()
        cancelled = {job["job"] for event in self.site.own_events("job-cancelled") for job in event.data["jobs"]}
        taken = []
        for message, request in await self.site.handed_out():
            if request.job in cancelled:
                await message.ack()
                continue
            name = self.of(request.table)
            sheet = self.sheets[name]
            assert not sheet.suspected, f"{name} was begun while something above it was unsettled"
            assert request.inputs["image"] == sheet.inputs
            self.computed.append(name)
            self.site.executor.start(request)
            taken.append((message, request))
        self.deliver()
        return taken

    async def finish(self, message: JobMessage, request: JobRequest) -> None:
        sheet = self.sheets[self.of(request.table)]
        inputs = request.inputs["image"]
        self.site.executor.finish(request)
        belongs = inputs == sheet.inputs
        sheet.computed = inputs if belongs else sheet.computed
        self.site.tables.record(request, belongs=belongs)
        self.settle()
        await message.ack()
        self.deliver()

    async def finish_all(self) -> None:
        while taken := await self.take():
            for message, request in taken:
                await self.finish(message, request)

    def unsettled(self) -> list[str]:
        return [name for name, sheet in self.sheets.items() if not sheet.settled]

    def waiting_rows(self) -> int:
        return len(self.site.query(sa.select(awaited.c.row)))


@pytest.mark.parametrize("parents", [CHAIN, DIAMOND], ids=["chain", "diamond"])
async def test_what_is_asked_for_at_once_runs_from_the_top_down_each_once(
    site: Site, parents: Mapping[str, Sequence[str]]
) -> None:
    graph = Graph(site, parents)
    answer, _ = await site.service().start_run(RunRequest(project="survey"))
    assert (answer.jobs, answer.awaited) == (1, len(parents) - 1)
    await graph.finish_all()
    assert sorted(graph.computed) == sorted(parents)
    assert all(graph.computed.index(above) < graph.computed.index(name) for name in parents for above in parents[name])
    assert graph.unsettled() == []
    assert graph.waiting_rows() == 0
    site.check_counts()
    for started in answer.runs:
        ended = await site.service().run(started.run)
        assert (ended.jobs, ended.awaited, ended.states) == (1, 0, {"succeeded": 1})
        assert ended.finished is not None
    assert site.rebuilt_differently() == []


async def test_equal_outputs_above_need_no_run_below(site: Site) -> None:
    graph = Graph(site, DIAMOND)
    await site.service().start_run(RunRequest(project="survey"))
    await graph.finish_all()
    graph.computed.clear()
    graph.edit("a", "xy")
    answer, _ = await site.service().start_run(RunRequest(project="survey"))
    assert (answer.jobs, answer.awaited) == (1, 3)
    below = next(item.run for item in answer.runs if item.table == graph.sheets["d"].table)
    assert (await site.service().run(below)).finished is None
    await graph.finish_all()
    assert graph.computed == ["a"]
    assert graph.unsettled() == []
    assert graph.waiting_rows() == 0
    dropped = await site.service().run(below)
    assert (dropped.jobs, dropped.awaited) == (0, 0)
    assert dropped.finished is not None


async def test_what_is_queued_below_comes_back_when_something_changes_above(site: Site) -> None:
    graph = Graph(site, CHAIN)
    await graph.run("a")
    await graph.finish_all()
    await graph.run("b")
    await site.dispatch()
    graph.edit("a", "x")
    assert site.states() == {"succeeded": 1, "cancelled": 1}
    assert graph.waiting_rows() == 1
    await graph.run("a")
    await graph.finish_all()
    assert graph.computed == ["a", "a", "b"]
    assert graph.unsettled() == ["c"]
    # The second job of the row belongs to what was asked for first.
    queued = [event.data["run"] for event in site.own_events("job-queued")]
    assert queued[1] == queued[3]
    assert site.rebuilt_differently() == []


async def test_automatic_tables_run_as_soon_as_nothing_above_is_unsettled(site: Site) -> None:
    graph = Graph(site, DIAMOND)
    for name in ("b", "c", "d"):
        await site.service().set_trigger(name, TriggerRequest(mode="automatic"))
    assert site.states() == {}
    await graph.run("a")
    await graph.finish_all()
    assert graph.computed[0] == "a"
    assert sorted(graph.computed[1:3]) == ["b", "c"]
    assert graph.computed[3:] == ["d"]
    assert graph.unsettled() == []


STEP = st.one_of(
    st.tuples(st.just("edit"), st.sampled_from(["", "x", "xy", "xyz"])),
    st.tuples(st.just("run"), st.sampled_from("abcd")),
    st.tuples(st.just("cancel"), st.sampled_from("abcd")),
    st.tuples(st.just("automatic"), st.sampled_from("bcd")),
    st.tuples(st.just("dispatch"), st.none()),
    st.tuples(st.just("take"), st.none()),
    st.tuples(st.just("finish"), st.none()),
)


async def go_through(graph: Graph, steps: Sequence[tuple[str, str | None]]) -> None:
    """Let things happen, and then let everything end that has begun."""
    site = graph.site
    running: list[tuple[JobMessage, JobRequest]] = []
    for what, value in steps:
        if what == "edit":
            graph.edit("a", value or "")
        elif what == "dispatch":
            await site.dispatch()
        elif what == "take":
            running += await graph.take()
        elif what == "finish" and running:
            await graph.finish(*running.pop(0))
        elif value in graph.parents:
            await ask(graph, what, str(value))
    for message, request in running:
        await graph.finish(message, request)


async def ask(graph: Graph, what: str, table: str) -> None:
    service = graph.site.service()
    if what == "run":
        await service.start_run(RunRequest(table=table))
    elif what == "cancel":
        await service.cancel(CancellationRequest(table=table))
    elif what == "automatic":
        await service.set_trigger(table, TriggerRequest(mode="automatic"))


@settings(deadline=None, max_examples=max(1, settings().max_examples // 8))
@given(st.sampled_from([CHAIN, DIAMOND]), st.lists(STEP, max_size=25))
def test_no_row_is_computed_on_inputs_that_are_about_to_change(
    parents: Mapping[str, Sequence[str]], steps: list[tuple[str, str | None]]
) -> None:
    async def history(site: Site) -> None:
        graph = Graph(site, parents)
        await go_through(graph, steps)
        await site.service().start_run(RunRequest(project="survey"))
        await graph.finish_all()
        assert graph.unsettled() == []
        assert graph.waiting_rows() == 0
        site.check_counts()
        assert site.rebuilt_differently() == []
        await site.database.aclose()

    with (
        tempfile.TemporaryDirectory() as folder,
        running_site(f"sqlite:///{folder}/scheduler.sqlite", Path(folder)) as site,
    ):
        asyncio.run(history(site))
