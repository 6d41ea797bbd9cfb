"""The client at a server that misbehaves as servers do: it breaks off, is away for a moment, or is no Stoa at all."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import stoa
from stoa import Stoa, StoaError
from stoa.api import UnreachableError


class Peer(ThreadingHTTPServer):
    """Answers each request as the test says, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Callable[[Handler], None]] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Takes the next answer."""

    server: Peer
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.server.answers.pop(0)(self)

    do_GET = do_POST = do_PATCH = answer  # noqa: N815 - as the base class looks for them

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class calls it
        pass

    def say(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def says(value: Any, status: int = 200) -> Callable[[Handler], None]:
    return lambda handler: handler.say(status, json.dumps(value).encode())


def breaks_off(handler: Handler) -> None:
    handler.close_connection = True


def streams(*frames: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write("".join(f"{frame}\n\n" for frame in frames).encode())
        handler.close_connection = True

    return answer


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setattr("stoa.api._PAUSES_S", (0.01, 0.02))
    monkeypatch.setattr("stoa.api._COME_BACK_S", 0.01)
    server = Peer()
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


ROWS = {"rows": [1], "position": 7}


def test_a_request_is_sent_again_where_a_service_is_just_started_anew(peer: Peer) -> None:
    peer.answers = [breaks_off, says({"detail": "tables does not answer"}, 502), says(ROWS)]
    with Stoa(peer.url) as client:
        assert client.add_rows("t", [{"a": 1}]) == ROWS
    keys = Counter(headers["idempotency-key"] for _, _, headers, _ in peer.asked)
    # The same key each time: the server carries it out once.
    assert list(keys.values()) == [3]


def test_two_requests_have_two_keys(peer: Peer) -> None:
    peer.answers = [says(ROWS), says(ROWS)]
    with Stoa(peer.url) as client:
        client.add_rows("t", [{"a": 1}])
        client.add_rows("t", [{"a": 1}])
    assert len({headers["idempotency-key"] for _, _, headers, _ in peer.asked}) == 2


def test_an_edit_that_broke_off_is_not_sent_twice(peer: Peer) -> None:
    peer.answers = [breaks_off, says({})]
    with Stoa(peer.url) as client, pytest.raises(UnreachableError, match="may have been done"):
        client.edit_row("t", 1, {"a": 2})
    assert len(peer.asked) == 1


def test_a_problem_is_told_with_its_document(peer: Peer) -> None:
    problem = {"type": "urn:stoa:problem:no-table", "title": "No such table", "detail": "There is no t", "status": 404}
    peer.answers = [says(problem, 404)]
    with Stoa(peer.url) as client, pytest.raises(StoaError, match="There is no t") as told:
        client.table("t")
    assert told.value.status == 404
    assert told.value.problem == problem


@pytest.mark.parametrize("status", [200, 404, 500])
def test_something_that_is_no_stoa_is_recognised(peer: Peer, status: int) -> None:
    peer.answers = [lambda handler: handler.say(status, b"<h1>It works!</h1>", "text/html")]
    with Stoa(peer.url) as client, pytest.raises((StoaError, UnreachableError), match="not as a Stoa does"):
        client.tables()


def test_the_token_is_sent_and_names_are_quoted(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOA_URL", f"{peer.url}/")
    monkeypatch.setenv("STOA_TOKEN", "secret")
    peer.answers = [says({})]
    with Stoa() as client:
        client.table("a/../ü?b#c")
    ((_, path, headers, _),) = peer.asked
    assert path == "/api/tables/a%2F..%2F%C3%BC%3Fb%23c"
    assert headers["authorization"] == "Bearer secret"


def test_no_proxy_is_asked_for_a_stoa_on_this_machine(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    peer.answers = [says({"tables": []})]
    with Stoa(peer.url) as client:
        assert client.tables() == []


def test_pages_are_followed_to_the_limit(peer: Peer) -> None:
    def page(first: int, count: int, following: str | None) -> Callable[[Handler], None]:
        return says(
            {"rows": [{"row": first + i} for i in range(count)], "next": following, "total": 1200, "position": 1}
        )

    peer.answers = [page(1, 500, "c1"), page(501, 500, "c2"), page(1001, 50, "c3")]
    with Stoa(peer.url) as client:
        rows = list(client.rows("t", limit=1050, filter=["a>1", "b=2"]))
    assert [row["row"] for row in rows] == list(range(1, 1051))
    assert "after=c2" in peer.asked[2][1]
    assert "limit=50" in peer.asked[2][1]
    assert all("filter=a%3E1&filter=b%3D2" in path for _, path, _, _ in peer.asked)


def test_a_run_is_waited_for(peer: Peer) -> None:
    running = {"run": "r1", "jobs": 2, "states": {"running": 2}, "finished": None}
    ended = running | {"states": {"succeeded": 2}, "finished": "2026-01-01T00:00:00Z"}
    peer.answers = [says(running), says(ended), says(running)]
    with Stoa(peer.url) as client:
        assert client.wait({"run": "r1", "jobs": 2})["states"] == {"succeeded": 2}
        with pytest.raises(TimeoutError, match="it runs on"):
            client.wait({"run": "r1", "jobs": 2}, timeout=0)
        assert client.wait({"run": None, "jobs": 0})["states"] == {}


def frame(position: int) -> str:
    return f'id: {position}\nevent: change\ndata: {{"position": {position}, "tables": {{}}}}'


def test_changes_go_on_behind_the_last_one_after_a_lost_connection(peer: Peer) -> None:
    peer.answers = [
        streams(frame(5), ": still here", frame(6)),
        breaks_off,
        says({"detail": "tables does not answer"}, 502),
        streams(frame(7)),
    ]
    with Stoa(peer.url) as client:
        changes = client.changes(["t"], after=4)
        assert [next(changes)["position"] for _ in range(3)] == [5, 6, 7]
    assert [headers.get("last-event-id") for _, _, headers, _ in peer.asked] == ["4", "6", "6", "6"]


def test_changes_of_no_server_and_of_no_table_are_errors(peer: Peer) -> None:
    peer.answers = [says({"detail": "There is no table t"}, 404)]
    with Stoa(peer.url) as client, pytest.raises(StoaError, match="no table t"):
        next(client.changes(["t"]))
    with Stoa("http://127.0.0.1:9") as client, pytest.raises(UnreachableError, match="stoa up"):
        next(client.changes())


def test_the_package_offers_the_client_and_nothing_else() -> None:
    assert stoa.Stoa is Stoa
    with pytest.raises(AttributeError, match="nothing"):
        _ = stoa.nothing
