"""What changed: between two moments, and in one cell."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from stoa_chassis.problems import problem_responses
from stoa_tables.context import Context
from stoa_tables.handlers.bodies import LimitedRoute
from stoa_tables.handlers.parameters import RowParameter, TableParameter, read_moment
from stoa_tables.history_wire import CellHistory, Differences
from stoa_tables.problems import InvalidRequestError, NotFoundError

__all__ = ["router"]

router = APIRouter(prefix="/api/tables/{table}", tags=["history"], route_class=LimitedRoute)

_MOMENT = "A position of the log, or an RFC 3339 time such as `2026-03-01T20:00:00Z`."


@router.get(
    "/diff",
    summary="Compare two moments of a table",
    responses=problem_responses(NotFoundError, InvalidRequestError),
)
async def compare_moments(
    table: TableParameter,
    context: Context,
    before: Annotated[str, Query(alias="from", description=f"The first moment. {_MOMENT}", max_length=50)],
    after: Annotated[
        str | None,
        Query(alias="to", description=f"The second moment; the present without it. {_MOMENT}", max_length=50),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="At most so many rows.")] = 100,
    beyond: Annotated[
        int,
        Query(alias="after", ge=0, lt=2**63, description="Only rows beyond this id: the `next` of the page before."),
    ] = 0,
) -> Differences:
    """Tell what is different: rows, cells, statuses, the workflow, columns, links and the name. Also of a deleted table.

    For a page after the first, give the position `after` of the first page as `to`: the present may have moved on.
    """
    return context.written(
        await context.factory.history.differences(
            table,
            read_moment("from", before),
            None if after is None else read_moment("to", after),
            limit=limit,
            beyond=beyond,
        )
    )


@router.get(
    "/rows/{row}/cells/{column}/history",
    summary="Tell the history of a cell",
    responses=problem_responses(NotFoundError),
)
async def get_cell_history(
    table: TableParameter,
    row: RowParameter,
    column: Annotated[str, Path(description="The column's name, also of one that is gone.", max_length=200)],
    context: Context,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many values, the newest ones.")] = 100,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="Only what happened before this position.")] = None,
) -> CellHistory:
    """Tell what a cell held, the newest last: who gave the value, when, why, and by which run. Also of a removed row."""
    return await context.factory.history.cell(table, row, column, limit=limit, before=before)
