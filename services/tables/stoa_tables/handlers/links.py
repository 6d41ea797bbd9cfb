"""Links between tables."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from stoa_chassis.problems import problem_responses
from stoa_tables.context import CommandContext, Context
from stoa_tables.dependents import find_dependents
from stoa_tables.handlers.bodies import LimitedRoute
from stoa_tables.handlers.parameters import RowParameter, TableParameter
from stoa_tables.link_service import list_sources
from stoa_tables.link_wire import ChangeLink, Dependents, SourcesPage, Unlinked
from stoa_tables.problems import ConflictError, CycleError, InvalidFilterError, InvalidRequestError, NotFoundError
from stoa_tables.wire import Graph, Linked, NewLink

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["links"], route_class=LimitedRoute)

_LinkParameter = Annotated[str, Path(description="The link's id.", max_length=100)]


@router.post(
    "/tables/{table}/links",
    status_code=201,
    summary="Fill a table from another one",
    responses=problem_responses(NotFoundError, ConflictError, CycleError, InvalidRequestError, InvalidFilterError),
)
async def link_table(table: TableParameter, link: NewLink, context: CommandContext) -> Linked:
    """Fill a worktable's inputs from a parent's columns, and keep them up to date from now on.

    A table may be filled through several links: each has rows of its own.
    """
    return context.written(await context.factory.create_link_service().add(table, link))


@router.patch(
    "/tables/{table}/links/{link}",
    summary="Change a link",
    responses=problem_responses(NotFoundError, ConflictError, InvalidRequestError, InvalidFilterError),
)
async def change_link(table: TableParameter, link: _LinkParameter, changes: ChangeLink, context: Context) -> Linked:
    """Fill a table otherwise from the same parents. Rows stay the same rows where they can, and corrections stay in filled columns."""
    return context.written(await context.factory.create_link_service().change(table, link, changes))


@router.delete(
    "/tables/{table}/links/{link}",
    summary="Unlink a table",
    responses=problem_responses(NotFoundError, InvalidRequestError),
)
async def unlink_table(
    table: TableParameter,
    link: _LinkParameter,
    rows: Annotated[
        Literal["stay", "go"],
        Query(description="Whether the rows that came through it stay, as ordinary rows, or are removed."),
    ],
    context: Context,
) -> Unlinked:
    """Fill a table no longer through a link. A join is a plain table afterwards."""
    return context.written(await context.factory.create_link_service().give_up(table, link, rows))


@router.get(
    "/tables/{table}/dependents",
    summary="Tell what depends on a table",
    responses=problem_responses(NotFoundError),
)
async def get_dependents(table: TableParameter, context: Context) -> Dependents:
    """Tell which tables are filled from a table, and what would become of them if it were deleted."""
    return await context.factory.ask(lambda queries, position: find_dependents(queries.store, table, position))


@router.get(
    "/tables/{table}/rows/{row}/sources",
    summary="Tell where a row comes from",
    responses=problem_responses(NotFoundError),
)
async def get_sources(
    table: TableParameter,
    row: RowParameter,
    context: Context,
    limit: Annotated[int, Query(ge=1, le=10_000, description="At most so many sources.")] = 100,
    offset: Annotated[int, Query(ge=0, lt=2**63, description="So many are left out.")] = 0,
) -> SourcesPage:
    """Tell from which rows and elements of its parents a row is derived; a row per group may have very many."""
    return await context.factory.ask(
        lambda queries, position: list_sources(queries.store, table, row, position, limit=limit, offset=offset)
    )


@router.get("/graph", summary="Show how the tables are linked")
async def get_graph(context: Context) -> Graph:
    """Give every table and every link."""
    return await context.factory.ask(lambda queries, position: queries.graph(position))
