"""The gateway in front of small services that do what is hard to pass on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.responses import StreamingResponse

from stoa_chassis.administration import load_service
from stoa_chassis.problems import PROBLEM_MEDIA_TYPE
from stoa_web.app import SERVICE, WebContext, create_app
from stoa_web.settings import WebSettings
from tests.web.serving import closed_port, serving


class Upstream:
    """A service that remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self.sent = 0
        self.ended = asyncio.Event()
        self.go_on = asyncio.Event()
        self.received = asyncio.Event()
        self.broke = asyncio.Event()
        self.app = FastAPI(openapi_url=None)
        self.app.get("/api/changes")(self.changes)
        self.app.get("/api/files/{name:path}")(self.file)
        self.app.get("/api/logs/{job}")(self.broken)
        self.app.post("/api/files")(self.upload)
        self.app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"])(self.anything)

    async def anything(self, request: Request) -> Response:
        self.requests.append(request)
        self.bodies.append(await request.body())
        headers = {
            "Stoa-Position": "17",
            "ETag": '"3"',
            "Connection": "close, X-Private",
            "X-Private": "between us",
            "Keep-Alive": "timeout=1",
        }
        response = Response("seen", 418, headers)
        response.raw_headers.append((b"set-cookie", b"a=1"))
        response.raw_headers.append((b"set-cookie", b"b=2"))
        return response

    async def changes(self) -> StreamingResponse:
        async def frames() -> AsyncIterator[bytes]:
            try:
                while True:
                    self.sent += 1
                    yield f"id: {self.sent}\ndata: {{}}\n\n".encode()
                    await self.go_on.wait()
                    self.go_on.clear()
            finally:
                self.ended.set()

        return StreamingResponse(frames(), media_type="text/event-stream")

    async def file(self) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a" * 70_000
            await self.go_on.wait()
            yield b"b" * 70_000

        return StreamingResponse(parts(), media_type="application/octet-stream")

    async def broken(self) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"the first half"
            raise ConnectionResetError

        return StreamingResponse(parts(), media_type="text/plain", headers={"Content-Length": "28"})

    async def upload(self, request: Request) -> dict[str, Any]:
        digest, size = hashlib.sha256(), 0
        try:
            async for part in request.stream():
                digest.update(part)
                size += len(part)
                self.received.set()
        except Exception:
            self.broke.set()
            raise
        return {"sha256": digest.hexdigest(), "size": size, "encoding": request.headers.get("transfer-encoding")}


@asynccontextmanager
async def gateway(upstream: Upstream, **settings: Any) -> AsyncIterator[tuple[str, WebContext]]:
    """Put the gateway in front of one service that plays tables and executor; nobody plays the scheduler."""
    async with serving(upstream.app) as url:
        nowhere = f"http://127.0.0.1:{closed_port()}"
        app = create_app(WebSettings(tables_url=url, executor_url=url, scheduler_url=nowhere, **settings))
        async with serving(app, lifespan=True) as address:
            yield address, app.state.context


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
async def stoa(upstream: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(upstream) as (url, _), httpx.AsyncClient(base_url=url, timeout=20) as client:
        yield client


async def within(event: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await event.wait()


async def test_requests_arrive_as_they_were_sent(upstream: Upstream, stoa: httpx.AsyncClient) -> None:
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"]:
        answer = await stoa.request(
            method,
            "/api/tables/a%2Fb/rows?filter=snr%3E5&filter=x",
            headers={"If-Match": '"2"', "X-Correlation-ID": "night-1", "X-Forwarded-For": "10.9.8.7"},
            content=None if method == "GET" else b"{}",
        )
        assert (answer.status_code, answer.text) == (418, "seen")
        seen = upstream.requests[-1]
        assert seen.method == method
        assert seen.scope["raw_path"] == b"/api/tables/a%2Fb/rows"
        assert seen.scope["query_string"] == b"filter=snr%3E5&filter=x"
        assert seen.headers["if-match"] == '"2"'
        assert seen.headers.getlist("x-correlation-id") == ["night-1"]
        # A proxy on this machine in front of the gateway is believed.
        assert seen.headers.getlist("x-forwarded-for") == ["10.9.8.7"]
        assert seen.headers.getlist("host") != seen.headers.getlist("x-forwarded-host")
        assert upstream.bodies[-1] == (b"" if method == "GET" else b"{}")
        assert answer.headers["stoa-position"] == "17"
        assert answer.headers["etag"] == '"3"'
        assert answer.headers.get_list("x-correlation-id") == ["night-1"]
        assert len(answer.headers.get_list("date")) == len(answer.headers.get_list("server")) == 1


async def test_what_concerns_one_connection_stays_there(upstream: Upstream, stoa: httpx.AsyncClient) -> None:
    answer = await stoa.get(
        "/api/graph", headers={"Connection": "keep-alive, X-Hop", "X-Hop": "1", "TE": "trailers", "Upgrade": "h2c"}
    )
    seen = upstream.requests[-1].headers
    assert not {"x-hop", "te", "upgrade"} & set(seen)
    assert not {"x-private", "keep-alive"} & set(answer.headers)
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    await stoa.get("/api/graph")
    assert upstream.requests[-1].headers.get("cookie") == "a=1; b=2", "the client's own cookies"
    async with httpx.AsyncClient(base_url=stoa.base_url) as other:
        await other.get("/api/graph")
    assert "cookie" not in upstream.requests[-1].headers


async def test_each_request_gets_an_id_and_carries_it_on(upstream: Upstream, stoa: httpx.AsyncClient) -> None:
    answer = await stoa.get("/api/tables")
    assert upstream.requests[-1].headers["x-correlation-id"] == answer.headers["x-correlation-id"]


async def test_addresses_lead_to_their_service_and_nowhere_else(upstream: Upstream, stoa: httpx.AsyncClient) -> None:
    for path in ["healthz", "readyz", "metrics", "events", "openapi.json"]:
        await stoa.get(f"/services/tables/{path}?after=2")
        assert upstream.requests[-1].scope["raw_path"] == f"/{path}".encode()
        assert upstream.requests[-1].scope["query_string"] == b"after=2"
    asked = len(upstream.requests)
    for path in ["/services/tables/admin", "/services/web/readyz", "/api/tablespoon", "/api", "/api/nothing"]:
        answer = await stoa.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM_MEDIA_TYPE)
    climbing = await stoa.get("/api/tables/%2e%2e/%2e%2e/metrics")
    assert (climbing.status_code, climbing.json()["type"]) == (400, "urn:stoa:problem:invalid-path")
    assert len(upstream.requests) == asked


async def test_a_service_that_is_down_is_named(stoa: httpx.AsyncClient) -> None:
    answer = await stoa.post("/api/runs", json={}, headers={"X-Correlation-ID": "night-2"})
    assert (answer.status_code, answer.headers["content-type"]) == (502, PROBLEM_MEDIA_TYPE)
    problem = answer.json()
    assert problem["type"] == "urn:stoa:problem:service-unreachable"
    assert problem["service"] == "scheduler"
    assert problem["instance"] == "night-2"
    assert problem["detail"].startswith("The scheduler service does not answer at http://127.0.0.1:")
    ready = await stoa.get("/readyz")
    assert ready.status_code == 503
    assert any(problem.startswith("scheduler does not answer") for problem in ready.json()["problems"])
    assert (await stoa.get("/healthz")).json()["service"] == "web"


async def test_a_silent_service_is_given_up_in_time_but_live_updates_are_not(upstream: Upstream) -> None:
    async with gateway(upstream, answer_timeout=0.2) as (url, _), httpx.AsyncClient(base_url=url) as client:
        async with client.stream("GET", "/api/changes", timeout=20) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "id: 1"
            await asyncio.sleep(0.6)
            upstream.go_on.set()
            async with asyncio.timeout(10):
                while await anext(lines) != "id: 2":
                    pass
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/api/files/slow", timeout=20)


async def test_frames_arrive_when_they_are_sent(upstream: Upstream, stoa: httpx.AsyncClient) -> None:
    async with stoa.stream("GET", "/api/changes") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        for number in range(1, 6):
            async with asyncio.timeout(10):
                while not (line := await anext(lines)).startswith("id"):
                    pass
            assert line == f"id: {number}"
            assert upstream.sent == number, "the next frame is not made before this one arrived"
            upstream.go_on.set()


async def test_a_browser_that_leaves_closes_the_way_behind_it(upstream: Upstream, stoa: httpx.AsyncClient) -> None:
    async with stoa.stream("GET", "/api/changes") as answer:
        await anext(answer.aiter_lines())
        assert not upstream.ended.is_set()
    await within(upstream.ended)


async def test_live_updates_end_when_the_service_stops(upstream: Upstream) -> None:
    async with gateway(upstream) as (url, context), httpx.AsyncClient(base_url=url, timeout=20) as client:
        async with client.stream("GET", "/api/changes") as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            context.background.stop.set()
            async with asyncio.timeout(10):
                assert not [line async for line in lines if line.startswith("id")]
        await within(upstream.ended)


async def test_large_answers_pass_in_parts(upstream: Upstream, stoa: httpx.AsyncClient) -> None:
    async with stoa.stream("GET", "/api/files/abc") as answer:
        parts = answer.aiter_raw()
        size = 0
        async with asyncio.timeout(10):
            while size < 70_000:
                size += len(await anext(parts))
        upstream.go_on.set()
        async for part in parts:
            size += len(part)
    assert size == 140_000


async def test_an_answer_that_breaks_off_is_not_passed_on_as_a_whole_one(stoa: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await stoa.get("/api/logs/1")


@pytest.mark.parametrize("known", [True, False], ids=["content-length", "chunked"])
async def test_uploads_pass_in_parts(upstream: Upstream, stoa: httpx.AsyncClient, known: bool) -> None:
    size = 3_000_000

    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 1_000_000
        # The rest is sent only when the service behind has got the beginning.
        await within(upstream.received)
        yield b"x" * 2_000_000

    headers = {"Content-Length": str(size)} if known else {}
    answer = await stoa.post("/api/files", content=parts(), headers=headers)
    expected = {"sha256": hashlib.sha256(b"x" * size).hexdigest(), "size": size}
    assert answer.json() == {**expected, "encoding": None if known else "chunked"}


async def test_half_an_upload_is_not_passed_on_as_a_whole_one(upstream: Upstream, stoa: httpx.AsyncClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await within(upstream.received)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        await stoa.post("/api/files", content=parts())
    await within(upstream.broke)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 418),
        ({"Sec-Fetch-Site": "same-origin"}, 418),
        ({"Sec-Fetch-Site": "none"}, 418),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_pages_of_other_sites_change_nothing(
    upstream: Upstream, stoa: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    assert (await stoa.post("/api/tables", headers=headers)).status_code == status
    assert len(upstream.requests) == (status == 418)
    assert (await stoa.get("/api/tables", headers=headers)).status_code == 418


async def test_its_own_origin_may_change_things(stoa: httpx.AsyncClient) -> None:
    origin = str(stoa.base_url).rstrip("/")
    assert (await stoa.post("/api/tables", headers={"Origin": origin})).status_code == 418


async def test_metrics_count_by_area(stoa: httpx.AsyncClient) -> None:
    await stoa.get("/api/tables/a/rows")
    text = (await stoa.get("/metrics")).text
    assert 'stoa_request_seconds_count{method="GET",route="/api/tables",service="web",status="418"} 1.0' in text


async def test_the_page_allows_nothing_from_elsewhere(stoa: httpx.AsyncClient) -> None:
    for path in ["/", "/openapi", "/static/main.js", "/static/style.css"]:
        answer = await stoa.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["etag"]
    page = (await stoa.get("/")).text
    assert "<style" not in page
    assert "style=" not in page
    assert "http" not in page.replace("http-equiv", "")
    tag = (await stoa.get("/static/main.js")).headers["etag"]
    assert (await stoa.get("/static/main.js", headers={"If-None-Match": tag})).status_code == 304


async def test_the_process_stops_in_order_while_somebody_listens(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(upstream.app) as url:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            port, fd = listening.getsockname()[1], listening.fileno()
            code = f"import sys; from stoa_web.app import SERVICE; sys.exit(SERVICE.serve(fd={fd}))"
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                code,
                pass_fds=[fd],
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "STOA_DATA": str(tmp_path), "STOA_TABLES_URL": url, "STOA_LOG_FORMAT": "json"},
            )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                assert (await client.get("/healthz")).json()["service"] == "web"
                async with client.stream("GET", "/api/changes") as answer:
                    lines = answer.aiter_lines()
                    assert await anext(lines) == "id: 1"
                    process.send_signal(signal.SIGTERM)
                    async with asyncio.timeout(10):
                        assert not [line async for line in lines if line.startswith("id")]
            async with asyncio.timeout(10):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, said.decode()
        assert b"Traceback" not in said
        assert not list(tmp_path.iterdir()), "it keeps nothing"


def test_wrong_settings_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("STOA_WEB_ANSWER_TIMEOUT", "-1")
    assert SERVICE.serve() == 2
    assert "answer_timeout" in capsys.readouterr().err


async def test_it_is_installed_as_a_service_without_a_database() -> None:
    service: object = load_service("web")
    assert service is SERVICE
    assert SERVICE.migrations is None
