"""Keys of jobs, and outputs that are taken instead of being computed again, with real engines."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import threading
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from stoa_chassis.projection import compare, rebuild
from stoa_contracts.ids import new_id
from stoa_contracts.keys import inputs_digest, job_key
from stoa_contracts.types import InputFile
from stoa_executor import digests
from stoa_executor.digests import InterruptedLookError
from stoa_executor.projection import ExecutorProjection
from tests.executor.conftest import tool
from tests.executor.site import Site
from tests.support.brokers import MemoryTestBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from stoa_contracts.jobs import JobRequest
    from tests.executor.site import RunningExecutor


pytestmark = pytest.mark.asyncio(loop_scope="module")


class Observatory:
    """An archive, an executor that may read it, and tools that count how often they run."""

    def __init__(self, site: Site, broker: MemoryTestBroker, executor: RunningExecutor | None = None) -> None:
        self.site = site
        self.broker = broker
        self.shared = executor
        self.bin = site.directory / "bin"
        self.directory = site.directory / new_id()
        self.archive = self.directory / "archive"
        self.runs = self.directory / "runs"
        self.archive.mkdir(parents=True)

    @asynccontextmanager
    async def executor(self, **options: Any) -> AsyncIterator[RunningExecutor]:
        """Give the executor that the tests share, or with options one of the test's own."""
        if self.shared is not None and not options:
            yield self.shared
            return
        options = {
            "data": self.directory / "data",
            "input_roots": [self.archive],
            "tool_path": f"{self.bin}:{os.environ['PATH']}",
            **options,
        }
        async with self.site.executor(await self.broker.client(), **options) as executor:
            yield executor

    def workflow(self, script: str = "", **more: Any) -> str:
        """Publish a tool that notes that it ran, and says its inputs."""
        body = f'echo "$0" >> {self.runs}; {script or ":"}; cat "$1" 2>/dev/null; echo "$0"'
        inputs = {
            "name": {"type": "string", "inputBinding": {"position": 1}},
            "image": {"type": ["null", "File"], "inputBinding": {"position": 2}},
        }
        return self.site.workflow(tool(["sh", "-c", body], inputs, {"out": {"type": "stdout"}}, **more))

    def file(self, name: str, content: str) -> dict[str, str]:
        """Write a file into the archive, and give it as an input."""
        path = self.archive / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return {"class": "File", "location": path.as_uri()}

    def program(self, name: str, text: str) -> Path:
        """Install a script on the engines' path."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def count(self) -> int:
        """Count how often the tools ran."""
        return len(self.runs.read_text().splitlines()) if self.runs.exists() else 0

    async def ask(self, version: str, inputs: dict[str, Any], **more: Any) -> JobRequest:
        return await self.site.queue(self.site.request(version, inputs, **more))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Observatory]:
    """Give an executor with two engines that the tests share."""
    broker = MemoryTestBroker()
    async with Site(tmp_path_factory.mktemp("site"), await broker.client()).serving() as site:
        (site.directory / "bin").mkdir()
        whole = Observatory(site, broker)
        async with whole.executor(input_roots=[site.directory], workers=2, stop_timeout=0.5) as executor:
            yield Observatory(site, broker, executor)
    await broker.aclose()


@pytest.fixture
def observatory(shared: Observatory) -> Observatory:
    """Give the shared executor, and folders of the test's own."""
    return Observatory(shared.site, shared.broker, shared.shared)


@pytest_asyncio.fixture(loop_scope="module")
async def alone(tmp_path: Path) -> AsyncIterator[Observatory]:
    """Give surroundings of its own to a test that runs its own executors."""
    broker = MemoryTestBroker()
    async with Site(tmp_path, await broker.client()).serving() as site:
        yield Observatory(site, broker)
    await broker.aclose()


async def test_what_decides_the_outputs_is_recorded(observatory: Observatory) -> None:
    version = observatory.workflow()
    image = observatory.file("a.fits", "pixels")
    async with observatory.executor() as executor:
        inputs = {"name": "x", "image": image}
        (outcome,) = await executor.finished(await observatory.ask(version, inputs))

    held = sha256(b"pixels").hexdigest()
    assert outcome["files"] == [{"location": image["location"], "sha256": held, "size": 6}]
    software = outcome["software"]
    assert software.keys() == {"cwltool", "python", "stoa", "sh"}
    shell = shutil.which("sh")
    assert shell is not None
    assert software["sh"] == f"sha256:{sha256(Path(shell).read_bytes()).hexdigest()}"
    expected = job_key(
        workflow_version=version,
        inputs=inputs,
        files=[InputFile(location=image["location"], sha256=held, size=6)],
        software={name: software[name] for name in ("cwltool", "sh")},
    )
    assert outcome["key"] == expected.model_dump()
    assert outcome["key"]["inputs"] == inputs_digest(inputs)
    assert outcome["reused_from"] is None


async def test_an_equal_job_takes_the_outputs_of_the_one_that_ran(observatory: Observatory) -> None:
    version = observatory.workflow("echo said >&2")
    here, there = observatory.file("a.fits", "pixels"), observatory.file("copy/a.fits", "pixels")
    async with observatory.executor() as executor:
        requests: list[JobRequest] = []
        for image in (here, there, here):
            requests.append(
                await observatory.ask(version, {"name": "x", "image": image}, table=f"table-{len(requests)}")
            )
            await executor.finished(requests[-1])
        ran, second, third = await executor.finished(*requests)

        assert observatory.count() == 1
        assert [second["reused_from"], third["reused_from"]] == [ran["job"], ran["job"]]
        for outcome in (second, third):
            for same in ("outputs", "exit_code", "log", "software"):
                assert outcome[same] == ran[same]
            assert (outcome["outcome"], outcome["final"], outcome["usage"]["cpu_s"]) == ("success", True, 0.0)
            assert outcome["key"]["digest"] == ran["key"]["digest"]
        assert second["key"]["inputs"] != ran["key"]["inputs"]
        assert second["files"][0]["location"] == there["location"]
        assert await executor.names(requests[1]) == ["job-started", "job-finished"]
        log = await executor.client.get(f"/api/logs/{requests[2].job}")
        assert log.text == "said\n"

        other = await observatory.ask(version, {"name": "y", "image": here})
        changed = await observatory.ask(version, {"name": "x", "image": observatory.file("a.fits", "other pixels")})
        for outcome in await executor.finished(other, changed):
            assert outcome["reused_from"] is None
        assert observatory.count() == 3


async def test_by_force_it_runs_and_later_ones_take_the_newest_outputs(observatory: Observatory) -> None:
    version = observatory.workflow()
    async with observatory.executor() as executor:
        await executor.finished(await observatory.ask(version, {"name": "x"}))
        (forced,) = await executor.finished(await observatory.ask(version, {"name": "x"}, force=True))
        assert (forced["reused_from"], observatory.count()) == (None, 2)
        (later,) = await executor.finished(await observatory.ask(version, {"name": "x"}))
        assert (later["reused_from"], observatory.count()) == (forced["job"], 2)


REFUSALS: dict[str, dict[str, Any]] = {
    "requirement": {"requirements": {"WorkReuse": {"enableReuse": False}}},
    "hint": {"hints": {"WorkReuse": {"enableReuse": False}}},
    "expression": {
        "requirements": {"WorkReuse": {"enableReuse": "$(inputs.name != 'x')"}, "InlineJavascriptRequirement": {}}
    },
}


@pytest.mark.parametrize("why", REFUSALS)
async def test_a_workflow_may_refuse(observatory: Observatory, why: str) -> None:
    version = observatory.workflow(**REFUSALS[why])
    async with observatory.executor() as executor:
        outcomes = []
        for _ in range(2):
            outcomes += await executor.finished(await observatory.ask(version, {"name": "x"}))
    assert observatory.count() == 2
    assert outcomes[0]["key"] == outcomes[1]["key"]
    assert outcomes[1]["reused_from"] is None
    if why == "expression":
        assert outcomes[0]["software"]["node"].startswith("v")


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_step_may_refuse_for_the_whole(observatory: Observatory, enabled: bool) -> None:
    step = tool(["sh", "-c", f"echo ran >> {observatory.runs}; echo 1"], outputs={"out": {"type": "stdout"}})
    version = observatory.site.workflow(
        {
            "class": "Workflow",
            "inputs": {},
            "outputs": {"out": {"type": "File", "outputSource": "only/out"}},
            "steps": {
                "only": {
                    "in": {},
                    "out": ["out"],
                    "run": {"cwlVersion": "v1.2", **step},
                    "hints": {"WorkReuse": {"enableReuse": enabled}},
                }
            },
        }
    )
    async with observatory.executor() as executor:
        for _ in range(2):
            (outcome,) = await executor.finished(await observatory.ask(version, {}))
            assert outcome["error"] is None
            assert "sh" in outcome["software"]
    assert observatory.count() == (1 if enabled else 2)


async def test_only_success_with_all_its_files_is_taken(observatory: Observatory) -> None:
    failing = observatory.workflow("exit 3")
    version = observatory.workflow()
    async with observatory.executor() as executor:
        for _ in range(2):
            (outcome,) = await executor.finished(await observatory.ask(failing, {"name": "x"}))
            assert (outcome["outcome"], outcome["reused_from"]) == ("permanentFail", None)
        assert observatory.count() == 2

        (made,) = await executor.finished(await observatory.ask(version, {"name": "y"}))
        executor.context.store.path(made["outputs"]["out"]["location"].removeprefix("sha256:")).unlink()
        (again,) = await executor.finished(await observatory.ask(version, {"name": "y"}))
        assert (again["reused_from"], observatory.count()) == (None, 4)
        assert executor.context.store.has(again["outputs"]["out"]["location"].removeprefix("sha256:"))


WAIT = "while ! test -e {go}; do sleep 0.02; done"


async def test_of_two_equal_jobs_at_once_one_waits_and_leaves_its_engine_to_others(observatory: Observatory) -> None:
    go = observatory.directory / "go"
    version = observatory.workflow(WAIT.format(go=go))
    quick = observatory.workflow()
    async with observatory.executor() as executor:
        equal = [await observatory.ask(version, {"name": "x"}) for _ in range(5)]
        agent = executor.context.agent
        async with asyncio.timeout(20):
            while agent.waiting != 4:
                await asyncio.sleep(0.01)
        assert len(agent.running) == 1
        (other,) = await executor.finished(await observatory.ask(quick, {"name": "q"}))
        assert other["outcome"] == "success"
        assert [await executor.names(request) for request in equal] == [["job-started"]] * 5

        go.touch()
        outcomes = await executor.finished(*equal)
    ran = [outcome for outcome in outcomes if outcome["reused_from"] is None]
    assert len(ran) == 1
    assert {outcome["reused_from"] for outcome in outcomes} == {None, ran[0]["job"]}
    assert observatory.count() == 2


async def test_who_waited_runs_itself_where_the_first_fails_or_is_cancelled(observatory: Observatory) -> None:
    go = observatory.directory / "go"
    version = observatory.workflow(f"{WAIT.format(go=go)}; mkdir {observatory.directory}/failed-once || exit 0; exit 1")
    sleeper = observatory.workflow("sleep 600")
    async with observatory.executor() as executor:
        agent = executor.context.agent
        first = await observatory.ask(version, {"name": "x"})
        await executor.started(first)
        second = await observatory.ask(version, {"name": "x"})
        async with asyncio.timeout(20):
            while agent.waiting != 1:
                await asyncio.sleep(0.01)
        go.touch()
        outcomes = await executor.finished(first, second)
        assert [outcome["outcome"] for outcome in outcomes] == ["permanentFail", "success"]
        assert [outcome["reused_from"] for outcome in outcomes] == [None, None]

        one = await observatory.ask(sleeper, {"name": "x"})
        await executor.started(one)
        two, three = [await observatory.ask(sleeper, {"name": "x"}) for _ in range(2)]
        async with asyncio.timeout(20):
            while agent.waiting != 2:
                await asyncio.sleep(0.01)
        await observatory.site.cancel(two)
        (cancelled,) = await executor.finished(two)
        assert (cancelled["outcome"], cancelled["error"]) == ("cancelled", "The job was cancelled.")
        await observatory.site.cancel(one)
        await executor.started(three)
        assert agent.waiting == 0


async def test_a_stopping_executor_hands_on_what_waited(alone: Observatory) -> None:
    go = alone.directory / "go"
    version = alone.workflow(WAIT.format(go=go))
    async with alone.executor(workers=2, stop_timeout=0.5) as executor:
        requests = [await alone.ask(version, {"name": "x"}) for _ in range(2)]
        async with asyncio.timeout(20):
            while executor.context.agent.waiting != 1:
                await asyncio.sleep(0.01)
    go.touch()
    async with alone.executor(work=alone.directory / "elsewhere") as executor:
        outcomes = await executor.finished(*requests)
    assert sorted(outcome["reused_from"] is None for outcome in outcomes) == [False, True]


async def test_a_long_look_at_a_file_ends_with_the_job_and_with_the_executor(
    alone: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = threading.Event()

    def look_for_ever(_: Any, interrupted: Callable[[], bool]) -> str:
        looking.set()
        while not interrupted():
            threading.Event().wait(0.01)
        raise InterruptedLookError

    version = alone.workflow()
    image = alone.file("a.fits", "pixels")
    async with alone.executor(workers=2, stop_timeout=0.5) as executor:
        await executor.finished(await alone.ask(version, {"name": "x"}))
        with monkeypatch.context() as slow:
            slow.setattr(digests, "_hash", look_for_ever)
            # One after the other: a job that is cancelled before it is taken ends without a word of the executor.
            cancelled = await alone.ask(version, {"name": "c", "image": image}, max_attempts=1)
            assert await asyncio.to_thread(looking.wait, 20)
            await alone.site.cancel(cancelled)
            (outcome,) = await executor.finished(cancelled)
            assert (outcome["outcome"], outcome["key"]) == ("cancelled", None)
            looking.clear()
            other = await alone.ask(version, {"name": "s", "image": image}, max_attempts=1)
            assert await asyncio.to_thread(looking.wait, 20)
            executor.context.background.stop.set()
            async with asyncio.timeout(20):
                while executor.context.agent.held:
                    await asyncio.sleep(0.01)
    async with alone.executor(work=alone.directory / "elsewhere") as executor:
        (outcome,) = await executor.finished(other)
    assert outcome["outcome"] == "success"


async def test_a_file_that_is_being_written_to_is_tried_again_later(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = observatory.file("a.fits", "pixels")
    original = digests._hash

    def growing(file: Any, interrupted: Callable[[], bool]) -> str:
        observatory.file("a.fits", f"pixels {new_id()}")
        return original(file, interrupted)

    version = observatory.workflow()
    async with observatory.executor() as executor:
        await executor.finished(await observatory.ask(version, {"name": "x"}))
        with monkeypatch.context() as busy:
            busy.setattr(digests, "_hash", growing)
            (outcome,) = await executor.finished(await observatory.ask(version, {"name": "y", "image": image}))
        path = observatory.archive / "a.fits"
        assert (outcome["outcome"], outcome["error"]) == (
            "temporaryFail",
            f"Input 'image': {path} is being written to.",
        )
        assert observatory.count() == 1


async def test_a_result_is_refused_where_an_input_changed_meanwhile(observatory: Observatory) -> None:
    image = observatory.file("a.fits", "pixels")
    product = observatory.archive / "product"
    product.mkdir()
    (product / "b.fits").write_text("pixels")
    folder = {"class": "Directory", "location": product.as_uri()}
    write = observatory.workflow(f"echo more >> {observatory.archive}/a.fits")
    failing = observatory.workflow(f"echo more >> {observatory.archive}/a.fits; exit 1")
    touch = observatory.workflow(f"ln {observatory.archive}/a.fits {observatory.archive}/second-name")
    add = observatory.site.workflow(tool(["touch", str(product / "new")], {"product": "Directory"}))
    async with observatory.executor() as executor:
        for version in (write, failing):
            (outcome,) = await executor.finished(await observatory.ask(version, {"name": "x", "image": image}))
            assert (outcome["outcome"], outcome["final"], outcome["outputs"]) == ("temporaryFail", False, None)
            assert outcome["error"] == (
                f"Input 'image': {observatory.archive}/a.fits changed while the job ran, so its result is not kept."
            )
        (outcome,) = await executor.finished(await observatory.ask(add, {"product": folder}))
        assert outcome["error"] == f"Input 'product': {product} changed while the job ran, so its result is not kept."
        # Another name for a file changes its state, and not what it holds.
        (outcome,) = await executor.finished(await observatory.ask(touch, {"name": "x", "image": image}))
        assert outcome["outcome"] == "success"


async def test_programs_count_by_content(observatory: Observatory) -> None:
    observatory.program("interpreter", "#!/bin/sh\necho ran >> $RUNS\n".replace("$RUNS", str(observatory.runs)))
    find = observatory.program("findsources", "#!/usr/bin/env interpreter\nfirst\n")
    version = observatory.site.workflow(tool(["findsources"], {"x": "int"}))
    async with observatory.executor() as executor:

        async def run(x: int = 1) -> dict[str, Any]:
            (outcome,) = await executor.finished(await observatory.ask(version, {"x": x}))
            assert outcome["error"] is None
            return outcome

        first = await run()
        assert first["software"].keys() == {"cwltool", "python", "stoa", "findsources", "interpreter", "/bin/sh"}
        assert (await run())["reused_from"] == first["job"]

        find.write_text("#!/usr/bin/env interpreter\nsecond\n")
        second = await run()
        assert second["reused_from"] is None
        assert second["key"]["software"] != first["key"]["software"]
        assert second["key"]["inputs"] == first["key"]["inputs"]

        observatory.program("interpreter", f"#!/bin/sh\necho again >> {observatory.runs}\n")
        assert (await run())["reused_from"] is None
        find.write_text("#!/usr/bin/env interpreter\nfirst\n")
        observatory.program("interpreter", f"#!/bin/sh\necho ran >> {observatory.runs}\n")
        assert (await run())["reused_from"] == first["job"]
    assert observatory.count() == 3


async def test_a_program_that_is_replaced_meanwhile_spoils_the_result(observatory: Observatory) -> None:
    observatory.program(
        "findsources", f"#!/bin/sh\necho '#!/bin/sh' > {observatory.bin}/new; mv {observatory.bin}/new $0\n"
    )
    version = observatory.site.workflow(tool(["findsources"]))
    async with observatory.executor() as executor:
        (outcome,) = await executor.finished(await observatory.ask(version, {}))
    assert (outcome["outcome"], outcome["error"]) == (
        "temporaryFail",
        "The program findsources was replaced while the job ran, so its result is not kept.",
    )


async def test_a_program_named_by_its_arguments_or_in_a_shell_line_counts(observatory: Observatory) -> None:
    observatory.program("findsources", "#!/bin/sh\n")
    by_argument = {"class": "CommandLineTool", "inputs": {}, "outputs": {}, "arguments": ["findsources", "-v"]}
    in_shell = by_argument | {
        "requirements": {"ShellCommandRequirement": {}},
        "arguments": [{"shellQuote": False, "valueFrom": "findsources -v | cat"}],
    }
    by_input = {
        "class": "CommandLineTool",
        "inputs": {"program": "string"},
        "outputs": {},
        "arguments": ["$(inputs.program)"],
    }
    async with observatory.executor() as executor:
        for process, inputs, expected in (
            (by_argument, {}, {"findsources", "/bin/sh"}),
            (in_shell, {}, {"findsources", "/bin/sh"}),
            (by_input, {"program": "findsources"}, set()),
        ):
            (outcome,) = await executor.finished(await observatory.ask(observatory.site.workflow(process), inputs))
            assert outcome["error"] is None
            assert outcome["software"].keys() - {"cwltool", "python", "stoa"} == expected


async def test_a_default_file_of_the_workflow_is_read_from_it(observatory: Observatory) -> None:
    main = tool(["cat"], {"settings": {"type": "File", "inputBinding": {}}}, {"out": {"type": "stdout"}})
    version = observatory.site.workflow(main, default__sex=b"DETECT_THRESH 5")
    default = {"class": "File", "location": "default.sex"}
    missing = {"class": "File", "location": "missing.sex"}
    async with observatory.executor() as executor:
        (outcome,) = await executor.finished(await observatory.ask(version, {"settings": default}))
        name = sha256(b"DETECT_THRESH 5").hexdigest()
        assert outcome["outputs"]["out"]["location"] == f"sha256:{name}"
        assert outcome["files"] == [{"location": "default.sex", "sha256": name, "size": 15}]
        (outcome,) = await executor.finished(await observatory.ask(version, {"settings": missing}))
        assert outcome["error"] == "Input 'settings': missing.sex is not an absolute location."


async def test_a_listing_beside_a_location_leaves_the_job_without_a_key(observatory: Observatory) -> None:
    observatory.file("product/a", "A")
    folder = {
        "class": "Directory",
        "location": (observatory.archive / "product").as_uri(),
        "listing": [{"class": "File", "location": (observatory.archive / "nowhere").as_uri()}],
    }
    version = observatory.site.workflow(tool(["true"], {"product": "Directory"}))
    async with observatory.executor() as executor:
        (outcome,) = await executor.finished(await observatory.ask(version, {"product": folder}))
    assert (outcome["outcome"], outcome["key"]) == ("success", None)


async def test_the_read_model_of_keys_and_files_is_made_of_the_log(alone: Observatory, database_url: str) -> None:
    version = alone.workflow()
    image = alone.file("a.fits", "pixels")
    async with alone.executor(database_url=database_url) as executor:
        for content in ("pixels", "pixels", "others"):
            alone.file("a.fits", content)
            await executor.finished(await alone.ask(version, {"name": "x", "image": image}))
        async with asyncio.timeout(20):
            while not any(event.name == "file-changed" for event in await executor.events()):
                await asyncio.sleep(0.02)
        context = executor.context
        await asyncio.to_thread(rebuild, context.database, context.log, ExecutorProjection(), lambda *_: [], swap=False)
        assert await asyncio.to_thread(lambda: list(compare(context.database, ExecutorProjection()))) == []
