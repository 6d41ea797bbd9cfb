"""Links between tables."""

from __future__ import annotations

from fastapi import APIRouter

from stoa_chassis.problems import problem_responses
from stoa_tables.context import CommandContext, Context
from stoa_tables.handlers.bodies import LimitedRoute
from stoa_tables.handlers.parameters import TableParameter
from stoa_tables.problems import ConflictError, CycleError, InvalidRequestError, NotFoundError
from stoa_tables.wire import Graph, Linked, NewLink

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["links"], route_class=LimitedRoute)


@router.post(
    "/tables/{table}/links",
    status_code=201,
    summary="Fill a table from another one",
    responses=problem_responses(NotFoundError, ConflictError, CycleError, InvalidRequestError),
)
async def link_table(table: TableParameter, link: NewLink, context: CommandContext) -> Linked:
    """Fill a worktable's inputs from a parent's columns, and keep them up to date from now on."""
    return context.written(await context.factory.create_table_service().link(table, link))


@router.get("/graph", summary="Show how the tables are linked")
async def get_graph(context: Context) -> Graph:
    """Give every table and every link."""
    return await context.factory.ask(lambda queries, position: queries.graph(position))
