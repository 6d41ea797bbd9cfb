"""Live changes, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from stoa_chassis.problems import problem_responses
from stoa_tables.context import Context
from stoa_tables.problems import InvalidRequestError, NotFoundError
from stoa_tables.wire import Change

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["changes"])


@dataclass(frozen=True)
class _Interest:
    tables: frozenset[str] | None
    after: int | None


async def _interest(
    context: Context,
    tables: Annotated[
        str | None, Query(description="Ids or names of tables, comma separated; without it, all.")
    ] = None,
    last_event_id: Annotated[
        str | None, Header(description="The id of the last frame that came, to go on behind it.")
    ] = None,
) -> _Interest:
    if last_event_id and not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19):  # noqa: PLR2004 - 2^63
        raise InvalidRequestError(f"The header Last-Event-ID holds a position, not {last_event_id!r}")
    after = int(last_event_id) if last_event_id else None
    if not tables:
        return _Interest(None, after)
    names = [name.strip() for name in tables.split(",")]
    ids = await context.factory.ask(lambda queries, _: frozenset(queries.table(name).id for name in names))
    return _Interest(ids, after)


@router.get(
    "/changes",
    summary="Follow changes",
    response_class=EventSourceResponse,
    responses=problem_responses(NotFoundError, InvalidRequestError),
)
async def follow_changes(
    interest: Annotated[_Interest, Depends(_interest)], context: Context
) -> AsyncIterator[ServerSentEvent]:
    """Tell what changes in tables, as it happens.

    Each frame of the type `change` has the log's position as its id and a `Change` as its data. Frames are told at most
    ten times a second, and what happened between two stands in one. A listener that comes back with `Last-Event-ID` hears
    what it missed.
    """
    async for change in context.changes.listen(interest.tables, interest.after):
        yield _frame(change)


def _frame(change: Change) -> ServerSentEvent:
    return ServerSentEvent(raw_data=change.model_dump_json(), event="change", id=str(change.position))
