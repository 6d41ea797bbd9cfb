"""The workflow versions of a table."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query

from stoa_chassis.problems import problem_responses
from stoa_tables.bundle import InvalidWorkflowError
from stoa_tables.context import CommandContext, Context
from stoa_tables.handlers.bodies import LimitedRoute
from stoa_tables.handlers.parameters import TableParameter
from stoa_tables.problems import ConflictError, InvalidRequestError, NotFoundError
from stoa_tables.versions import VersionDifference, VersionList, VersionQueries, compare
from stoa_tables.wire import TableDetail

__all__ = ["router"]

router = APIRouter(prefix="/api/tables/{table}/versions", tags=["versions"], route_class=LimitedRoute)

_Version = Annotated[
    str,
    Path(description="The version's number, its SHA-256, or at least 7 digits of that.", max_length=64, examples=["3"]),
]


@router.get("", summary="List the workflow versions of a table", responses=problem_responses(NotFoundError))
async def list_versions(
    table: TableParameter,
    context: Context,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
    before: Annotated[int | None, Query(ge=1, lt=2**31, description="The `next` of the page before.")] = None,
) -> VersionList:
    """Give every version that the table ever had, the newest first: when, by whom, and how many rows it computed."""
    return await context.factory.ask(
        lambda queries, position: VersionQueries(queries.store).versions(table, position, limit=limit, before=before)
    )


@router.get(
    "/{before}/diff/{after}",
    summary="Compare two workflow versions",
    responses=problem_responses(NotFoundError, InvalidRequestError, InvalidWorkflowError),
)
async def compare_versions(
    table: TableParameter, before: _Version, after: _Version, context: Context
) -> VersionDifference:
    """Tell which files and columns differ, line by line where files are texts; long differences are cut."""
    found, one, other = await context.factory.ask(
        lambda queries, _: (
            queries.table(table),
            VersionQueries(queries.store).content(table, before),
            VersionQueries(queries.store).content(table, after),
        )
    )
    return await asyncio.to_thread(compare, found.id, one, other)


@router.post(
    "/{version}/restore",
    summary="Give a table a version again",
    responses=problem_responses(NotFoundError, ConflictError, InvalidRequestError, InvalidWorkflowError),
)
async def restore_version(table: TableParameter, version: _Version, context: CommandContext) -> TableDetail:
    """Rows whose outputs came from another version become stale; those that came from this one are current again."""
    return context.written(await context.factory.create_version_service().restore(table, version))
