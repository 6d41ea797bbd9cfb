"""The agent with real engines, over the bus in memory and over NATS."""

from __future__ import annotations

import asyncio
import json
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from stoa_chassis.migrations import differences
from stoa_chassis.projection import compare, rebuild
from stoa_contracts.subjects import job_subject
from stoa_executor.models import metadata
from stoa_executor.projection import ExecutorProjection
from tests.executor.conftest import none_lives, tool
from tests.executor.site import Site
from tests.support.brokers import MemoryTestBroker, broker, made_broker, reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.brokers import Broker

__all__ = ["broker", "made_broker"]

HELLO = tool(
    ["sh", "-c", 'echo "hello $0"; echo "said $0" >&2'],
    {"name": {"type": "string", "inputBinding": {}}},
    {"out": {"type": "stdout"}},
)
SLEEP = tool(["sh", "-c", "echo $$ >&2; exec sleep 600"])


@pytest.fixture
async def site(tmp_path: Path, broker: Broker) -> AsyncIterator[Site]:
    """Give the surroundings over each broker."""
    bus = await broker.client()
    await reached(bus)
    async with Site(tmp_path, bus).serving() as site:
        yield site


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[tuple[Site, MemoryTestBroker]]:
    """Give the surroundings over the bus in memory, for what does not depend on the broker."""
    broker = MemoryTestBroker()
    async with Site(tmp_path, await broker.client()).serving() as site:
        yield site, broker
    await broker.aclose()


async def test_jobs_run_from_the_queue(site: Site, broker: Broker) -> None:
    version = site.workflow(HELLO)
    async with site.executor(await broker.client(), workers=2) as executor:
        requests = [await site.queue(site.request(version, {"name": f"row{number}"})) for number in range(8)]
        outcomes = await executor.finished(*requests)

        for number, (request, outcome) in enumerate(zip(requests, outcomes, strict=True)):
            text = f"hello row{number}\n".encode()
            name = sha256(text).hexdigest()
            assert outcome["outcome"] == "success"
            assert outcome["final"] is True
            assert (outcome["exit_code"], outcome["error"]) == (0, None)
            assert outcome["outputs"] == {
                "out": {
                    "class": "File",
                    "location": f"sha256:{name}",
                    "basename": "stdout.txt",
                    "size": len(text),
                    "checksum": f"sha256${name}",
                }
            }
            assert executor.context.store.path(name).read_bytes() == text
            assert executor.context.store.path(outcome["log"]["sha256"]).read_text() == f"said row{number}\n"
            assert outcome["usage"]["wall_s"] > 0
            assert outcome["software"]["cwltool"]
            assert await executor.names(request) == ["job-started", "job-finished"]
        envelopes = await executor.events()
        assert {event.actor for event in envelopes} == {"jansky"}
        assert {event.causationid for event in envelopes} == {request.causationid for request in requests}
        assert site.fetched == [version]
        assert not list((site.directory / "data" / "executor" / "jobs").iterdir())

        # Nothing is left on the queue: it would come at once.
        subscription = await site.bus.subscribe_jobs("executor")
        assert await subscription.fetch(10, 0.3) == []
        await subscription.aclose()


async def test_an_attempt_that_has_its_outcome_is_dropped(site: Site, broker: Broker) -> None:
    version = site.workflow(HELLO)
    async with site.executor(await broker.client()) as executor:
        request = await site.queue(site.request(version, {"name": "x"}))
        await executor.finished(request)
        await site.queue(request, key="again")
        other = await site.queue(site.request(version, {"name": "y"}))
        await executor.finished(other)

        assert await executor.names(request) == ["job-started", "job-finished"]


async def test_cancel_before_the_start_and_while_it_runs(site: Site, broker: Broker) -> None:
    version = site.workflow(SLEEP)
    async with site.executor(await broker.client()) as executor:
        never = site.request(version)
        running = await site.queue(site.request(version))
        await executor.started(running)
        log = executor.context.agent.log_path(running.job)
        assert log is not None
        async with asyncio.timeout(10):
            while not log.exists() or not log.read_text().strip():
                await asyncio.sleep(0.01)
        pid = int(log.read_text())
        assert psutil.pid_exists(pid)

        await site.cancel(never, running)
        (outcome,) = await executor.finished(running)
        await site.queue(never)
        after = await site.queue(site.request(site.workflow(HELLO), {"name": "z"}))
        await executor.finished(after)

        assert (outcome["outcome"], outcome["final"], outcome["outputs"]) == ("cancelled", True, None)
        assert outcome["error"] == "The job was cancelled."
        assert none_lives([pid])
        assert await executor.names(never) == []


async def test_work_goes_on_when_the_broker_comes_back(site: Site, broker: Broker) -> None:
    version = site.workflow(tool(["sleep", "1"]))
    bus = await broker.client()
    async with site.executor(bus) as executor:
        first = await site.queue(site.request(version))
        await executor.started(first)
        await broker.stop()
        (outcome,) = await executor.finished(first)
        assert outcome["outcome"] == "success"
        await broker.start()
        await reached(bus)
        await reached(site.bus)
        second = await site.queue(site.request(version))
        await executor.finished(second)

        assert await executor.names(first) == ["job-started", "job-finished"]


async def test_a_stopping_executor_hands_its_job_to_another(site: Site, broker: Broker) -> None:
    version = site.workflow(tool(["sh", "-c", f"test -e {site.directory}/go || sleep 600"]))
    async with site.executor(await broker.client(), stop_timeout=0.5) as executor:
        request = await site.queue(site.request(version))
        await executor.started(request)
    (site.directory / "go").touch()
    async with site.executor(await broker.client(), work=site.directory / "elsewhere") as executor:
        (outcome,) = await executor.finished(request)

        assert outcome["outcome"] == "success"
        assert await executor.names(request) == ["job-started", "job-started", "job-finished"]


Memory = tuple[Site, MemoryTestBroker]


async def test_what_a_killed_executor_left_is_resumed_without_the_queue(memory: Memory) -> None:
    site, broker = memory
    version = site.workflow(HELLO)
    request = site.request(version, {"name": "again"})
    async with site.executor(await broker.client()) as executor:
        await executor.finished(await site.queue(site.request(version, {"name": "before"})))
        # As far as an executor gets that is killed in the middle: claimed, started, and its message gone with it.
        taken = await executor.context.ledger.take(request)
    async with site.executor(await broker.client()) as executor:
        (outcome,) = await executor.finished(request)
        assert outcome["outcome"] == "success"
        assert await executor.names(request) == ["job-started", "job-started", "job-finished"]
        assert taken.decision == "run"


async def test_a_job_that_ends_its_executor_again_and_again_fails(memory: Memory) -> None:
    site, broker = memory
    request = site.request(site.workflow(HELLO), {"name": "x"})
    async with site.executor(await broker.client(), max_starts=2) as executor:
        for _ in range(2):
            assert (await executor.context.ledger.take(request)).decision == "run"
        await site.queue(request)
        (outcome,) = await executor.finished(request)

    assert (outcome["outcome"], outcome["final"]) == ("permanentFail", True)
    assert outcome["error"].startswith("The executor started the job 2 times and ended each time before the job did")


async def test_a_job_that_runs_elsewhere_is_left_alone_until_that_executor_is_silent(memory: Memory) -> None:
    site, broker = memory
    request = site.request(site.workflow(HELLO), {"name": "x"})
    async with (
        site.executor(await broker.client()) as one,
        site.executor(await broker.client(), work=site.directory / "two") as two,
    ):
        theirs = await one.context.ledger.take(request)
        assert (await two.context.ledger.take(request)).decision == "elsewhere"

        await one.context.ledger.let_go(request, theirs.token)
        ours = await two.context.ledger.take(request)
        assert (ours.decision, ours.starts) == ("run", 2)

        ending = {"started": ours.started, "finished": ours.started}
        from stoa_contracts.types import Usage
        from stoa_executor.ledger import Ending

        end = Ending(outcome="success", usage=Usage(wall_s=0, cpu_s=0, max_rss_bytes=0), outputs={}, **ending)  # type: ignore[arg-type]
        assert not await one.context.ledger.finish(request, theirs.token, end)
        assert await two.context.ledger.finish(request, ours.token, end)
        assert not await two.context.ledger.finish(request, ours.token, end)
        assert (await one.context.ledger.take(request)).decision == "drop"


@pytest.mark.parametrize(("attempt", "final"), [(1, False), (3, True)])
async def test_a_temporary_failure_is_final_with_the_last_attempt(memory: Memory, attempt: int, final: bool) -> None:
    site, broker = memory
    version = site.workflow(tool(["sh", "-c", "echo no licence >&2; exit 75"], temporaryFailCodes=[75]))
    async with site.executor(await broker.client()) as executor:
        request = await site.queue(site.request(version, attempt=attempt))
        (outcome,) = await executor.finished(request)

        assert (outcome["outcome"], outcome["final"], outcome["error"]) == ("temporaryFail", final, "no licence")
        if not final:
            again = request.model_copy(update={"attempt": 2})
            await site.queue(again)
            await executor.finished(again)
            await site.queue(request, key="late")
            assert (await executor.context.ledger.take(request)).decision == "drop"


async def test_refusals_are_sentences(memory: Memory) -> None:
    site, broker = memory
    take = tool(["true"], {"image": "File"})
    link = tool(
        ["ln", "-s", "/etc/hostname", "out"], outputs={"out": {"type": "File", "outputBinding": {"glob": "out"}}}
    )
    image = {"class": "File", "basename": "m31.fits"}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("0" * 64, {}, f"The tables service does not know the workflow version {'0' * 64}."),
        (
            site.workflow(take),
            {"image": image | {"location": f"sha256:{'a' * 64}"}},
            "Input 'image': m31.fits (sha256:aaaaaaaaaaaa…) is not in the file store.",
        ),
        (
            site.workflow(take),
            {"image": image | {"location": "file:///etc/hostname"}},
            "Input 'image': /etc/hostname may not be read: no directory is opened for inputs here (setting input_roots).",
        ),
        (site.workflow(link), {}, "Output 'out': hostname lies outside the job's own directory."),
    ]
    async with site.executor(await broker.client()) as executor:
        requests = [await site.queue(site.request(version, inputs)) for version, inputs, _ in cases]
        outcomes = await executor.finished(*requests)

    for outcome, (_, _, sentence) in zip(outcomes, cases, strict=True):
        assert (outcome["outcome"], outcome["error"], outcome["outputs"]) == ("permanentFail", sentence, None)


async def test_jobs_wait_while_the_tables_service_is_down(memory: Memory) -> None:
    site, broker = memory
    version = site.workflow(HELLO)
    site.tables_down = True
    async with site.executor(await broker.client()) as executor:
        request = await site.queue(site.request(version, {"name": "x"}))
        await asyncio.sleep(0.5)
        assert await executor.names(request) == []
        site.tables_down = False
        (outcome,) = await executor.finished(request)

    assert outcome["outcome"] == "success"


async def test_what_is_no_job_is_taken_off_the_queue(memory: Memory) -> None:
    site, broker = memory
    await site.bus.publish_job(job_subject("x"), "x", b'{"job": 7}')
    async with site.executor(await broker.client()) as executor:
        request = await site.queue(site.request(site.workflow(HELLO), {"name": "x"}))
        await executor.finished(request)
        subscription = await site.bus.subscribe_jobs("executor")
        assert await subscription.fetch(1, 0.1) == []


async def test_files_pass_through_the_store_from_job_to_job(memory: Memory) -> None:
    site, broker = memory
    make = site.workflow(
        tool(
            "import os; os.makedirs('p/q'); open('p/q/a', 'w').write('A'); open('p/b', 'w').write('B'); open('same', 'w').write('A')",
            outputs={
                "product": {"type": "Directory", "outputBinding": {"glob": "p"}},
                "files": {"type": "File[]", "outputBinding": {"glob": ["same", "p/b", "same"]}},
            },
        )
    )
    use = site.workflow(
        tool(
            "import os, sys; print(sorted(os.path.join(d, f)[len(sys.argv[1]) + 1:] for d, _, fs in os.walk(sys.argv[1]) for f in fs))",
            {"product": {"type": "Directory", "inputBinding": {"position": 1}}, "files": "File[]"},
            {"out": {"type": "stdout"}, "back": {"type": "File[]", "outputBinding": {"outputEval": "$(inputs.files)"}}},
        )
    )
    async with site.executor(await broker.client()) as executor:
        first = await site.queue(site.request(make))
        (made,) = await executor.finished(first)
        a, b = (sha256(text).hexdigest() for text in (b"A", b"B"))
        product = made["outputs"]["product"]
        assert [item["location"] for item in made["outputs"]["files"]] == [f"sha256:{a}", f"sha256:{b}", f"sha256:{a}"]
        assert [item["basename"] for item in product["listing"]] == ["b", "q"]
        assert product["listing"][1]["listing"][0]["location"] == f"sha256:{a}"

        second = await site.queue(site.request(use, made["outputs"]))
        (used,) = await executor.finished(second)
        assert used["error"] is None
        listing = executor.context.store.path(used["outputs"]["out"]["location"][7:]).read_text()
        assert json.loads(listing.replace("'", '"')) == ["b", "q/a"]
        assert used["outputs"]["back"] == made["outputs"]["files"]


async def test_prefetched_jobs_go_back_when_long_ones_hold_the_engines(memory: Memory) -> None:
    site, broker = memory
    version = site.workflow(SLEEP)
    async with site.executor(await broker.client(), stop_timeout=0.5) as executor:
        requests = [await site.queue(site.request(version)) for _ in range(2)]
        await executor.started(requests[0])
        begun = time.monotonic()
        subscription = await site.bus.subscribe_jobs("executor")
        messages = await subscription.fetch(1, 10)
        assert [json.loads(message.body)["job"] for message in messages] == [requests[1].job]
        assert time.monotonic() - begun < 8


async def test_a_tool_that_writes_to_a_stored_input_fails_and_the_file_is_gone(memory: Memory) -> None:
    site, broker = memory
    vandal = tool(
        "import os, sys; os.chmod(sys.argv[1], 0o644); open(sys.argv[1], 'r+').write('X')",
        {"image": {"type": "File", "inputBinding": {"position": 1}}},
    )
    version = site.workflow(vandal)
    async with site.executor(await broker.client()) as executor:
        digest = executor.context.store.put_bytes(b"pixels").digest
        image = {"class": "File", "location": f"sha256:{digest}", "basename": "m31.fits"}
        (outcome,) = await executor.finished(await site.queue(site.request(version, {"image": image})))

        assert (outcome["outcome"], outcome["outputs"]) == ("permanentFail", None)
        assert outcome["error"].startswith("The tool changed its input file m31.fits")
        assert not executor.context.store.has(digest)


async def test_jobs_run_with_either_database(memory: Memory, database_url: str) -> None:
    site, broker = memory
    version = site.workflow(HELLO)
    async with site.executor(await broker.client(), database_url=database_url) as executor:
        done, failed = site.request(version, {"name": "x"}), site.request(version, {"name": 7})
        called_off = site.request(version, {"name": "y"})
        await site.cancel(called_off)
        for request in (done, failed):
            await site.queue(request)
        outcomes = await executor.finished(done, failed)
        assert [outcome["outcome"] for outcome in outcomes] == ["success", "permanentFail"]
        async with asyncio.timeout(10):
            while await executor.context.ledger.job(called_off.job) is None:
                await asyncio.sleep(0.01)
        assert (await executor.context.ledger.take(called_off)).decision == "cancelled"
        assert (await executor.context.ledger.take(done)).decision == "drop"
        database = executor.context.database
        assert await asyncio.to_thread(differences, database, metadata) == []

        def fetch(source: str, after: int, until: int) -> list[Any]:
            assert source == "scheduler"
            return site.cancellations[after:until]

        await asyncio.to_thread(rebuild, database, executor.context.log, ExecutorProjection(), fetch, swap=False)
        assert await asyncio.to_thread(lambda: list(compare(database, ExecutorProjection()))) == []
