"""The executor's routes: files, and logs that grow."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
from openapi_spec_validator import validate

from tests.executor.conftest import tool
from tests.executor.site import RunningExecutor, Site
from tests.support.brokers import MemoryTestBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from stoa_contracts.jobs import JobRequest


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Site, MemoryTestBroker]]:
    broker = MemoryTestBroker()
    async with Site(tmp_path_factory.mktemp("site"), await broker.client()).serving() as site:
        yield site, broker
    await broker.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(site: tuple[Site, MemoryTestBroker]) -> AsyncIterator[RunningExecutor]:
    """Give an executor that the tests share."""
    async with site[0].executor(await site[1].client(), max_upload_bytes=1000, stop_timeout=0.5) as executor:
        yield executor


CONTENT = bytes(range(256))
NAME = sha256(CONTENT).hexdigest()


async def test_a_file_goes_in_and_comes_out(executor: RunningExecutor) -> None:
    client = executor.client
    answer = await client.post("/api/files", params={"name": "m31.fits"}, content=CONTENT)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/files/{NAME}"
    assert answer.json() == {
        "class": "File",
        "location": f"sha256:{NAME}",
        "basename": "m31.fits",
        "size": 256,
        "checksum": f"sha256${NAME}",
    }

    answer = await client.get(f"/api/files/{NAME}", params={"name": "m31.fits"})
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == "application/fits"
    assert answer.headers["content-disposition"] == 'attachment; filename="m31.fits"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["etag"] == f'"{NAME}"'
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-security-policy"].startswith("sandbox")

    answer = await client.head(f"/api/files/{NAME}")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "256", b"")
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_parts_and_known_content(executor: RunningExecutor) -> None:
    client = executor.client
    await client.post("/api/files", content=CONTENT)
    address = f"/api/files/{NAME}"

    part = await client.get(address, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, CONTENT[10:20])
    assert part.headers["content-range"] == "bytes 10-19/256"
    last = await client.get(address, headers={"Range": "bytes=-5"})
    assert last.content == CONTENT[-5:]
    assert (await client.get(address, headers={"Range": "bytes=999-"})).status_code == 416
    same = await client.get(address, headers={"Range": "bytes=0-1", "If-Range": f'"{NAME}"'})
    assert same.status_code == 206
    other = await client.get(address, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert other.status_code == 200
    known = await client.get(address, headers={"If-None-Match": f'"x", W/"{NAME}"'})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", f'"{NAME}"')


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("a.png", "image/png", True),
        ("t.csv", "text/csv; charset=utf-8", True),
        ("page.html", "text/html; charset=utf-8", False),
        ("x.svg", "image/svg+xml", False),
        ("c.vot", "application/x-votable+xml", False),
        ("cube.fits.gz", "application/gzip", False),
        ("noextension", "application/octet-stream", False),
    ],
)
async def test_what_could_carry_a_program_is_a_download(
    executor: RunningExecutor, name: str, kind: str, shown: bool
) -> None:
    await executor.client.post("/api/files", content=CONTENT)
    answer = await executor.client.get(f"/api/files/{NAME}", params={"name": name})
    assert answer.headers["content-type"] == kind
    assert answer.headers["content-disposition"].startswith("inline" if shown else "attachment")


async def test_a_form_is_taken_too(executor: RunningExecutor) -> None:
    answer = await executor.client.post("/api/files", files={"file": ("Größe.fits", CONTENT)})
    assert (answer.status_code, answer.json()["basename"], answer.json()["location"]) == (
        201,
        "Größe.fits",
        f"sha256:{NAME}",
    )
    answer = await executor.client.post("/api/files", files={"other": ("a", b"b")})
    assert (answer.status_code, answer.json()["detail"]) == (422, "The form has no part 'file'.")


async def test_refusals_are_problem_documents(executor: RunningExecutor) -> None:
    client = executor.client
    too_large = await client.post("/api/files", content=b"x" * 1001)
    cases = [
        (too_large, 413, "file-too-large", "1000 bytes"),
        (await client.get(f"/api/files/{'a' * 64}"), 404, "not-found", "sha256:aaaa"),
        (await client.get("/api/files/abc"), 422, "invalid-digest", "'abc'"),
        (await client.get(f"/api/files/{NAME}?name=a/b"), 422, "invalid-request", "name"),
        (await client.get("/api/logs/unheard-of"), 404, "not-found", "unheard-of"),
    ]
    for answer, status, code, detail in cases:
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == f"urn:stoa:problem:{code}"
        assert detail in answer.json()["detail"]
    assert not list((executor.context.store.root / "tmp").iterdir())


def events_of(text: str) -> list[dict[str, Any]]:
    """Read server-sent events."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append({"event": fields["event"], "id": int(fields["id"]), **json.loads(fields["data"])})
    return found


async def follow(executor: RunningExecutor, request: JobRequest, after: int = 0) -> list[dict[str, Any]]:
    """Read the live log to its end."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    answer = await executor.client.get(f"/api/logs/{request.job}", headers=headers, timeout=30)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events_of(answer.text)


@pytest_asyncio.fixture(loop_scope="module")
async def own_site(tmp_path: Path) -> AsyncIterator[tuple[Site, MemoryTestBroker]]:
    """Give surroundings of its own to a test that runs its own executors."""
    broker = MemoryTestBroker()
    async with Site(tmp_path, await broker.client()).serving() as site:
        yield site, broker
    await broker.aclose()


async def test_a_log_is_followed_while_it_grows_by_every_replica(own_site: tuple[Site, MemoryTestBroker]) -> None:
    surroundings, broker = own_site
    script = "printf 'begin \u00fc\\n' >&2; for i in 1 2 3; do sleep 0.4; echo line $i >&2; done"
    version = surroundings.workflow(tool(["sh", "-c", script]))
    whole = "begin \u00fc\nline 1\nline 2\nline 3\n"
    async with (
        surroundings.executor(await broker.client()) as one,
        surroundings.executor(await broker.client(), work=surroundings.directory / "two") as two,
    ):
        request = await surroundings.queue(surroundings.request(version))
        async with asyncio.timeout(20):
            while request.job not in one.context.agent.running + two.context.agent.running:
                await asyncio.sleep(0.01)
        here, there, (outcome,) = await asyncio.gather(
            follow(one, request), follow(two, request), one.finished(request)
        )

        for seen in (here, there):
            logs = [event for event in seen if event["event"] == "log"]
            assert "".join(event["text"] for event in logs) == whole
            assert [event["id"] for event in logs] == sorted({event["id"] for event in logs})
            assert logs[-1]["id"] == len(whole.encode())
            assert seen[-1] | {"id": 0} == {"event": "end", "id": 0, "outcome": "success", "error": None}
        assert max(len(here), len(there)) > 3

        again = await follow(two, request, after=9)
        assert "".join(event["text"] for event in again if event["event"] == "log") == whole[8:]
        text = await two.client.get(f"/api/logs/{request.job}")
        assert (text.text, text.headers["content-type"]) == (whole, "text/plain; charset=utf-8")
        assert outcome["log"]["size"] == len(whole.encode())


async def test_a_silent_job_has_an_empty_log(site: tuple[Site, MemoryTestBroker], executor: RunningExecutor) -> None:
    request = await site[0].queue(site[0].request(site[0].workflow(tool(["false"]))))
    (outcome,) = await executor.finished(request)

    assert outcome["log"] is not None
    assert "exited with status: 1" in (await executor.client.get(f"/api/logs/{request.job}")).text
    assert (await follow(executor, request))[-1]["error"] == "The tool ended with exit status 1 and left no message."


async def test_the_service_describes_itself(executor: RunningExecutor) -> None:
    document = (await executor.client.get("/openapi.json")).json()
    validate(document)
    assert {"/api/files", "/api/files/{sha256}", "/api/logs/{job}"} <= set(document["paths"])
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == len(set(operations))


async def test_readiness_says_why_no_job_can_run(
    own_site: tuple[Site, MemoryTestBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("sys.executable", "/bin/false")
        async with own_site[0].executor(await own_site[1].client()) as executor:

            async def ready() -> httpx.Response:
                return await executor.client.get("/readyz")

            async with asyncio.timeout(10):
                while "Engines cannot be started" not in (await ready()).text:
                    await asyncio.sleep(0.05)
            assert (await ready()).status_code == 503
            broken.undo()
            async with asyncio.timeout(20):
                while (await ready()).status_code != 200:
                    await asyncio.sleep(0.05)
