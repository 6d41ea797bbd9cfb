"""Several people at one tables service, before there are accounts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI, Request

from stoa_chassis.log import Origin
from stoa_chassis.service import origin_of
from tests.tables.harness import Harness

__all__ = ["Person", "people"]

_HEADER = "Test-Person"


@dataclass
class Person:
    """What one person asks of the service."""

    name: str
    stoa: Harness
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, body: Any = None, *, expect: int | None = 200, **parameters: Any
    ) -> Any:
        more: dict[str, Any] = {} if body is None else {"json": body}
        headers = {_HEADER: self.name, **self.headers}
        response = await self.stoa.request(method, path, expect=expect, headers=headers, params=parameters, **more)
        return response.json() if response.content else None


def people(stoa: Harness, *names: str) -> list[Person]:
    """Let people of these names ask: who asks stands in a header that only tests understand."""
    transport = stoa.client._transport
    assert isinstance(transport, httpx.ASGITransport)
    app = transport.app
    assert isinstance(app, FastAPI)

    def origin(request: Request) -> Origin:
        told = origin_of(request)
        return Origin(request.headers.get(_HEADER, told.actor), told.correlationid, told.causationid, told.traceparent)

    app.dependency_overrides[origin_of] = origin
    return [Person(name, stoa) for name in names]
