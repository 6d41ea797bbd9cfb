"""Puts all services under one address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx
import structlog
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from stoa_web.problems import CrossSiteError, InvalidPathError, UnreachableError, UnresponsiveError
from stoa_web.settings import WebSettings

__all__ = ["Gateway", "gateway_routes"]

#: Which service answers below ``/api/``.
AREAS: Final[Mapping[str, tuple[str, ...]]] = {
    "tables": ("tables", "graph", "changes", "workflows", "actions", "worktable-files"),
    "scheduler": ("runs", "cancellations", "jobs", "triggers", "queue", "progress", "limits"),
    "executor": ("files", "logs"),
}

#: What every service answers, and where it stands below ``/services/{name}/``.
OPERATIONS: Final = ("healthz", "readyz", "metrics", "events", "openapi.json")

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# The host and the way there are ours to say; the server of the connection answers `Expect` by itself.
_NOT_PASSED_ON: Final = frozenset(
    {b"host", b"expect", b"x-correlation-id", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"}
)
# This server writes its own.
_NOT_PASSED_BACK: Final = frozenset({b"date", b"server", b"x-correlation-id"})

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_EVENT_STREAM: Final = b"text/event-stream"

_Headers = list[tuple[bytes, bytes]]


class Gateway:
    """Passes requests on to the services and their answers back, without keeping either in memory.

    Parameters
    ----------
    settings
        Where the services answer.
    stop
        Ends the answers that have no end.
    """

    def __init__(self, settings: WebSettings, stop: asyncio.Event) -> None:
        self.stop = stop
        self._urls = {name: httpx.URL(url) for name, url in settings.service_urls.items()}
        self._patience = {
            "connect": settings.connect_timeout,
            "read": settings.answer_timeout,
            "write": settings.answer_timeout,
            "pool": None,
        }
        # The transport alone: a client would follow redirects, and keep the cookies of one person for the next.
        # Each browser holds one connection open for live updates, so their number has no bound here.
        self._transport = httpx.AsyncHTTPTransport(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30)
        )

    async def aclose(self) -> None:
        """Close the connections to the services."""
        await self._transport.aclose()

    async def problems(self) -> list[str]:
        """Name the services that do not answer."""
        found = await asyncio.gather(*(self._problem(name) for name in self._urls))
        return [problem for problem in found if problem]

    async def _problem(self, service: str) -> str | None:
        url = self._urls[service].join("/healthz")
        patience = {"connect": 2.0, "read": 2.0, "write": 2.0, "pool": 2.0}
        try:
            answer = await self._transport.handle_async_request(
                httpx.Request("GET", url, extensions={"timeout": patience})
            )
            await answer.aclose()
        except httpx.TransportError as error:
            return f"{service} does not answer at {url.scheme}://{_authority(url)}: {_reason(error)}"
        return None if answer.is_success else f"{service} answers {answer.status_code} at {url}"

    async def forward(self, service: str, path: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and its answer back.

        Parameters
        ----------
        service
            Who answers.
        path
            The path there, as it is written in a request.
        scope, receive, send
            The request, as ASGI gives it.

        Raises
        ------
        UnreachableError
            If the service cannot be connected, or breaks off before it answers.
        UnresponsiveError
            If it stays silent for too long.
        """
        body = _Body(receive, scope["headers"])
        work = asyncio.create_task(self._exchange(service, path, scope, body, send))
        gone = asyncio.create_task(body.disconnected())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            await _cancel(work, gone)

    async def _exchange(self, service: str, path: bytes, scope: Scope, body: _Body, send: Send) -> None:
        request = self._request(service, path, scope, body)
        try:
            answer = await self._transport.handle_async_request(request)
        except httpx.TimeoutException as error:
            if isinstance(error, httpx.ConnectTimeout):
                raise self._unreachable(service, error) from error
            detail = f"The {service} service did not answer within {self._patience['read']:g} s"
            raise UnresponsiveError(detail, service=service) from error
        except httpx.TransportError as error:
            raise self._unreachable(service, error) from error
        try:
            await self._answer(service, answer, send)
        finally:
            await answer.aclose()

    async def _answer(self, service: str, answer: httpx.Response, send: Send) -> None:
        headers = _without(answer.headers.raw, _NOT_PASSED_BACK)
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        endless = answer.headers.get("content-type", "").encode("latin-1").startswith(_EVENT_STREAM)
        assert isinstance(answer.stream, httpx.AsyncByteStream)  # noqa: S101 - an asynchronous transport gives no other
        parts = aiter(answer.stream)
        try:
            while (part := await self._next(parts, endless=endless)) is not None:
                if part:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except httpx.TransportError as error:
            # The answer has begun: only a connection that breaks tells that it is not complete.
            structlog.get_logger(__name__).warning("an answer broke off", upstream=service, error=_reason(error))
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self, parts: AsyncIterator[bytes], *, endless: bool) -> bytes | None:
        if not endless:
            return await anext(parts, None)
        part = asyncio.ensure_future(_first(parts))
        stopped = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({part, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return part.result() if part.done() else None
        finally:
            await _cancel(part, stopped)

    def _request(self, service: str, path: bytes, scope: Scope, body: _Body) -> httpx.Request:
        base = self._urls[service]
        target = base.raw_path.rstrip(b"/") + path
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        headers = _without(scope["headers"], _NOT_PASSED_ON)
        if body.chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        client = scope.get("client")
        headers += [
            (b"host", _authority(base).encode("ascii")),
            (b"x-correlation-id", scope["state"]["correlationid"].encode("latin-1")),
            (b"x-forwarded-proto", scope["scheme"].encode("ascii")),
            (b"x-forwarded-host", _header(scope, b"host")),
            *([(b"x-forwarded-for", client[0].encode("ascii"))] if client else []),
        ]
        endless = path == b"/api/changes" or _EVENT_STREAM in _header(scope, b"accept")
        return httpx.Request(
            scope["method"],
            base.copy_with(raw_path=target),
            headers=headers,
            stream=body,
            extensions={"timeout": {**self._patience, "read": None} if endless else self._patience},
        )

    def _unreachable(self, service: str, error: httpx.TransportError) -> UnreachableError:
        url = self._urls[service]
        detail = f"The {service} service does not answer at {url.scheme}://{_authority(url)}: {_reason(error)}"
        return UnreachableError(detail, service=service)


class _Body(httpx.AsyncByteStream):
    """A request's body as it comes in, and afterwards the news that the browser went away."""

    def __init__(self, receive: Receive, headers: _Headers) -> None:
        self._receive = receive
        given = {name for name, _ in headers}
        self.chunked = b"transfer-encoding" in given
        self._read = asyncio.Event()
        self._gone = asyncio.Event()
        self._empty = not self.chunked and b"content-length" not in given
        if self._empty:
            self._read.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._empty:
            return
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._gone.set()
                self._read.set()
                # Whoever waits for `disconnected` cancels this; a half body is never passed on as a whole one.
                await asyncio.Event().wait()
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                break
        self._read.set()

    async def disconnected(self) -> None:
        """Wait until the browser went away."""
        await self._read.wait()
        while not self._gone.is_set():
            if (await self._receive())["type"] == "http.disconnect":
                self._gone.set()


class _Forwarding:
    """The end of a route: a path prefix that belongs to one service."""

    def __init__(self, gateway: Gateway, service: str, label: str, prefix: bytes = b"") -> None:
        self._gateway = gateway
        self._service = service
        self._label = label
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        _check_path(scope["path"])
        _check_origin(scope)
        raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8")
        path = raw.partition(b"?")[0].removeprefix(self._prefix)
        await self._gateway.forward(self._service, path, scope, receive, send)

    @property
    def path(self) -> str:
        """What metrics and log lines call it."""
        return self._label


def gateway_routes(gateway: Gateway) -> list[Route]:
    """List the addresses that belong to the services."""
    routes = []
    for service, areas in AREAS.items():
        for area in areas:
            forwarding = _Forwarding(gateway, service, f"/api/{area}")
            routes.append(Route(f"/api/{area}", forwarding, name=area, include_in_schema=False))
            routes.append(
                Route(f"/api/{area}/{{rest:path}}", forwarding, name=f"{area}-below", include_in_schema=False)
            )
        for operation in OPERATIONS:
            path = f"/services/{service}/{operation}"
            forwarding = _Forwarding(gateway, service, path, f"/services/{service}".encode())
            routes.append(Route(path, forwarding, name=f"{service}-{operation}", include_in_schema=False))
    return routes


def _check_path(path: str) -> None:
    if {".", ".."}.intersection(path.split("/")):
        raise InvalidPathError(f"The address {path} holds steps up or nowhere, which are not followed")


def _check_origin(scope: Scope) -> None:
    """Refuse changes that a page of another site makes through the browser of somebody who may make them."""
    if scope["method"] in _SAFE_METHODS:
        return
    origin, site = _header(scope, b"origin"), _header(scope, b"sec-fetch-site")
    if site:
        foreign = site not in {b"same-origin", b"none"}
    else:
        foreign = bool(origin) and origin.partition(b"://")[2] != _header(scope, b"host")
    if foreign:
        where = origin.decode("latin-1") or "another site"
        raise CrossSiteError(f"Nothing is changed here on behalf of a page of {where}")


def _header(scope: Scope, name: bytes) -> bytes:
    headers: _Headers = scope["headers"]
    return next((value for key, value in headers if key == name), b"")


def _without(headers: _Headers, dropped: frozenset[bytes]) -> _Headers:
    """Leave out what concerns one connection only, and some more."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {token.strip().lower() for name, value in lowered if name == b"connection" for token in value.split(b",")}
    return [
        (name, value)
        for name, value in lowered
        if name not in _HOP_BY_HOP and name not in dropped and name not in named
    ]


def _authority(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _first(parts: AsyncIterator[bytes]) -> bytes | None:
    return await anext(parts, None)


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
