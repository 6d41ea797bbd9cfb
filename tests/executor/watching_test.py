"""Files that jobs have read are looked at again, and each change is told once."""

from __future__ import annotations

import asyncio
import shutil
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stoa_chassis.database import Database
from stoa_chassis.log import Log, Origin
from stoa_chassis.migrations import upgrade
from stoa_chassis.projection import EventStore
from stoa_contracts.events.executor import JobFinished
from stoa_contracts.ids import new_id
from stoa_contracts.types import InputFile
from stoa_executor import digests, watching
from stoa_executor.app import SERVICE
from stoa_executor.digests import ContentDigests
from stoa_executor.projection import ExecutorProjection
from stoa_executor.watching import FileWatcher
from tests.executor.conftest import tool
from tests.executor.site import Site
from tests.support.brokers import MemoryTestBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

JANSKY = Origin(actor="jansky", correlationid="c")


def hexdigest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


class Archive:
    """An archive, the log that says what was read from it, and a watcher."""

    def __init__(self, database: Database, root: Path) -> None:
        self.database = database
        self.root = root
        self.events = EventStore(Log("executor"), ExecutorProjection())
        self.watcher = self.another()

    def another(self, **options: Any) -> FileWatcher:
        """Make a watcher, as a further executor has one."""
        roots = options.pop("roots", [self.root])
        made = {"period": 0.2, "folders": 100, **options}
        contents = ContentDigests(self.database, roots)
        return FileWatcher(database=self.database, events=self.events, digests=contents, roots=roots, **made)

    def write(self, name: str, content: str) -> str:
        """Write a file, and give its location."""
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return path.as_uri()

    async def read(self, *locations: str) -> list[InputFile]:
        """Record that a job has read files."""
        contents = ContentDigests(self.database, [self.root])
        files = []
        contents.fetch([location.removeprefix("file://") for location in locations])
        for location in locations:
            held = contents.look(location.removeprefix("file://"), recall=False)
            files.append(InputFile(location=location, sha256=held.sha256, size=held.size))
        finished = JobFinished.model_validate(
            {
                "table": "t",
                "job": new_id(),
                "attempt": 1,
                "row": 1,
                "revision": 1,
                "workflow_version": "0" * 64,
                "outcome": "success",
                "final": True,
                "host": "h",
                "started": "2026-01-01T00:00:00Z",
                "finished": "2026-01-01T00:00:00Z",
                "usage": {"wall_s": 0, "cpu_s": 0, "max_rss_bytes": 0},
                "files": files,
            }
        )
        await self.database.write(lambda connection: self.events.record(connection, "t", [finished], JANSKY))
        return files

    async def told(self) -> list[tuple[str, str, str | None]]:
        """List what was told: name, what it held, what it holds."""
        found = await self.database.read(self.events.log.read)
        return [
            (Path(event.data["location"]).name, event.data["previous"], event.data["sha256"])
            for event in found
            if event.name == "file-changed"
        ]

    async def until(self, count: int, seconds: float = 20) -> list[tuple[str, str, str | None]]:
        """Wait until so much was told."""
        async with asyncio.timeout(seconds):
            while len(told := await self.told()) < count:
                await asyncio.sleep(0.02)
        return told


@pytest.fixture
async def archive(tmp_path: Path, database_url: str) -> AsyncIterator[Archive]:
    database = Database(database_url)
    await asyncio.to_thread(upgrade, database, SERVICE.migrations)
    root = tmp_path / "archive"
    root.mkdir()
    yield Archive(database, root)
    await database.aclose()


async def running(loop: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> asyncio.Task[None]:
    return asyncio.ensure_future(loop(stop))


A, B = hexdigest("A"), hexdigest("B")


async def test_a_change_is_told_once_and_so_is_the_way_back(archive: Archive) -> None:
    location = archive.write("a", "A")
    await archive.read(location)
    watcher, second = archive.watcher, archive.another()
    assert (await watcher.recheck(None, JANSKY)).changed == []

    archive.write("a", "B")
    done = await asyncio.gather(watcher.recheck(None, JANSKY), second.recheck([location], JANSKY))
    assert sum(len(each.changed) for each in done) == 1
    assert [each.checked for each in done] == [1, 1]
    assert (await watcher.recheck(None, JANSKY)).changed == []
    archive.write("a", "A")
    assert len((await second.recheck([location[7:]], JANSKY)).changed) == 1
    (archive.root / "a").unlink()
    assert len((await watcher.recheck(None, JANSKY)).changed) == 1
    assert (await second.recheck(None, JANSKY)).changed == []
    archive.write("a", "A")
    assert [change.size for change in (await watcher.recheck(None, JANSKY)).changed] == [1]

    assert await archive.told() == [("a", A, B), ("a", B, A), ("a", A, None), ("a", A, A)]
    envelopes = await archive.database.read(lambda connection: archive.events.log.read(connection, stream="files"))
    assert [envelope.streamversion for envelope in envelopes] == [1, 2, 3, 4]
    assert {envelope.actor for envelope in envelopes} == {"jansky"}


async def test_a_directory_changes_with_what_lies_in_it(archive: Archive) -> None:
    archive.write("product/a", "A")
    folder = (archive.root / "product").as_uri()
    (file,) = await archive.read(folder)
    archive.write("product/b", "B")
    done = await archive.watcher.recheck([str(archive.root / "product" / "b")], JANSKY)
    assert [(change.location, change.previous, change.size) for change in done.changed] == [(folder, file.sha256, None)]
    shutil.rmtree(archive.root / "product")
    archive.write("product", "now a file")
    (change,) = (await archive.watcher.recheck(None, JANSKY)).changed
    assert (change.sha256, change.size) == (hexdigest("now a file"), 10)


async def test_what_was_not_read_or_cannot_be_said_changes_nothing(archive: Archive, tmp_path: Path) -> None:
    location = archive.write("a", "A")
    await archive.read(location)
    archive.write("a", "B")
    unread = archive.write("unread", "x")
    done = await archive.watcher.recheck([unread, "http://example.org/a", "a"], JANSKY)
    assert (done.checked, sorted(done.unknown)) == (0, sorted([unread, "http://example.org/a", "a"]))
    elsewhere = archive.another(roots=[tmp_path / "other"])
    done = await elsewhere.recheck(None, JANSKY)
    assert (done.checked, done.skipped, done.changed) == (0, 1, [])

    # A disk that is not there says nothing about its files.
    archive.root.rename(tmp_path / "unmounted")
    done = await archive.watcher.recheck(None, JANSKY)
    assert (done.checked, done.skipped, done.changed) == (0, 1, [])
    (tmp_path / "unmounted").rename(archive.root)
    assert len((await archive.watcher.recheck(None, JANSKY)).changed) == 1


async def test_a_job_that_reads_something_else_makes_the_change_known(archive: Archive) -> None:
    location = archive.write("a", "A")
    await archive.read(location)
    archive.write("a", "B")
    files = await archive.read(location)
    stop = asyncio.Event()
    task = await running(archive.watcher.look_again, stop)
    archive.watcher.notice(files)
    assert await archive.until(1) == [("a", A, B)]
    archive.watcher.notice(files)
    stop.set()
    await task
    assert len(await archive.told()) == 1


async def test_by_the_clock_every_file_is_looked_at_when_it_rests(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PAGE", 3)
    monkeypatch.setattr(watching, "_QUIET_S", 0.3)
    monkeypatch.setattr(watching, "SETTLED_NS", 300_000_000)
    locations = [archive.write(str(number), "A") for number in range(10)]
    await archive.read(*locations)
    stop = asyncio.Event()
    tasks = [await running(loop, stop) for loop in (archive.watcher.look_by_the_clock, archive.watcher.look_again)]
    archive.write("3", "B")
    (archive.root / "7").unlink()
    # Taken away for a moment, and written to in pieces: neither is told before it rests.
    (archive.root / "5").unlink()
    archive.write("5", "A")
    assert sorted(await archive.until(2)) == [("3", A, B), ("7", A, None)]
    stop.set()
    await asyncio.gather(*tasks)


async def test_the_kernel_says_where_to_look(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SETTLED_NS", 0)
    monkeypatch.setattr(watching, "_RESTART_S", 0.05)
    one = archive.write("one/a", "A")
    archive.write("two/b", "A")
    folder = (archive.root / "two").as_uri()
    files = await archive.read(one, folder)
    archive.watcher.notice(files)
    stop = asyncio.Event()
    task = await running(archive.watcher.listen, stop)

    async def until_told(change: Callable[[int], object], count: int) -> None:
        async with asyncio.timeout(30):
            for number in range(1000):
                # The first changes may come before the kernel was asked.
                change(number)
                for _ in range(20):
                    if len(await archive.told()) >= count:
                        return
                    await asyncio.sleep(0.02)

    await until_told(lambda number: archive.write("one/a", f"B{number}"), 1)
    names = [name for name, _, _ in await archive.told()]
    assert set(names) == {"a"}
    await until_told(lambda number: archive.write(f"two/sub{number}", "new"), len(names) + 1)
    assert {name for name, _, _ in (await archive.told())[len(names) :]} <= {"a", "two"}
    assert (await archive.told())[-1][0] == "two"
    stop.set()
    await task


async def test_many_files_cost_a_look_at_their_states_and_no_reading(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    locations = [archive.write(f"{number % 10}/{number}", str(number)) for number in range(2000)]
    await archive.read(*locations)
    watcher = archive.watcher
    assert (await watcher.recheck(None, JANSKY)).checked == 2000
    reads: list[Any] = []
    original = digests._hash

    def counting(file: Any, interrupted: Any) -> str:
        reads.append(file)
        return original(file, interrupted)

    monkeypatch.setattr(digests, "_hash", counting)
    assert (await archive.another().recheck(None, JANSKY)).checked == 2000
    assert reads == []
    for number in range(0, 2000, 2):
        archive.write(f"{number % 10}/{number}", f"changed {number}")
    assert (await watcher.recheck(None, JANSKY)).changes == 1000
    assert len(reads) == 1000


async def test_the_address_and_the_events_of_a_running_executor(tmp_path: Path) -> None:
    broker = MemoryTestBroker()
    root = tmp_path / "archive"
    root.mkdir()
    file = root / "a.fits"
    file.write_text("A")
    async with Site(tmp_path, await broker.client()).serving() as site:
        version = site.workflow(tool(["cat"], {"x": {"type": "File", "inputBinding": {}}}, {"out": {"type": "stdout"}}))
        async with site.executor(await broker.client(), input_roots=[root], watched_folders=0) as executor:
            inputs = {"x": {"class": "File", "location": str(file)}}
            await executor.finished(await site.queue(site.request(version, inputs)))
            async with asyncio.timeout(10):
                # The look that follows the job by itself would tell the change before we ask.
                while executor.context.watcher._noticed:
                    await asyncio.sleep(0.01)
            first = (await executor.client.post("/api/files/recheck")).json()
            assert (first["checked"], first["changed"]) == (1, 0)
            file.write_text("B")
            answer = await executor.client.post("/api/files/recheck", json={"locations": [file.as_uri(), "/nothing"]})
            assert answer.json() == {
                "checked": 1,
                "skipped": 0,
                "changed": 1,
                "changes": [{"location": str(file), "previous": A, "sha256": B}],
                "unknown": ["/nothing"],
            }
            again = (await executor.client.post("/api/files/recheck")).json()
            assert (again["checked"], again["changed"]) == (1, 0)
            bad = await executor.client.post("/api/files/recheck", json={"location": []})
            assert (bad.status_code, bad.headers["content-type"]) == (422, "application/problem+json")

            # The stream of these events passes the bus as any other does.
            head = (await executor.events())[-1]
            assert (head.name, head.subject, head.bus_subject) == (
                "file-changed",
                "files",
                "stoa.executor.files.file-changed",
            )
            async with asyncio.timeout(10):
                while (await site.bus.last_position("executor")).position != head.log_position:
                    await asyncio.sleep(0.02)
    assert head.actor == site.settings().actor
    await broker.aclose()
