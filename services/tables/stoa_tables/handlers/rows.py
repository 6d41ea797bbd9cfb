"""Rows and their elements."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response

from stoa_chassis.problems import problem_responses
from stoa_tables.context import POSITION_HEADER, CommandContext, Context
from stoa_tables.csv_rows import InvalidCsvError
from stoa_tables.handlers.bodies import LimitedRoute, media_type, validated
from stoa_tables.handlers.parameters import AsOfParameter, IfMatch, PageParameter, RowParameter, TableParameter
from stoa_tables.problems import (
    ConflictError,
    InvalidFilterError,
    InvalidValuesError,
    LockedError,
    NotFoundError,
    PreconditionError,
    TooLargeError,
    UnsupportedMediaError,
)
from stoa_tables.wire import (
    Added,
    Edited,
    EditRows,
    ElementPage,
    History,
    NewRows,
    Reason,
    Removed,
    RemoveRows,
    RowAnswer,
    RowPage,
)

__all__ = ["router"]

router = APIRouter(prefix="/api/tables/{table}", tags=["rows"], route_class=LimitedRoute)

_ROWS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/NewRows"},
                "example": {"rows": [{"object": "Cen A", "ra": 201.365}, {"object": "M 87", "ra": 187.706}]},
            },
            "text/csv": {"schema": {"type": "string"}, "example": "object,ra\nCen A,201.365\nM 87,187.706\n"},
        },
    }
}


@router.get("/rows", summary="List rows", responses=problem_responses(NotFoundError, InvalidFilterError))
async def list_rows(table: TableParameter, page: PageParameter, as_of: AsOfParameter, context: Context) -> RowPage:
    """Give a page of rows, filtered and sorted, as they are or as they were."""
    return context.written(
        await context.factory.ask_about(
            table, as_of, lambda queries, position, found: queries.rows(found, page, position)
        )
    )


@router.get("/elements", summary="List elements", responses=problem_responses(NotFoundError, InvalidFilterError))
async def list_elements(
    table: TableParameter, page: PageParameter, as_of: AsOfParameter, context: Context
) -> ElementPage:
    """Give the flat view: an item for each element of a row's outputs, or for the row where they are no elements."""
    return context.written(
        await context.factory.ask_about(
            table, as_of, lambda queries, position, found: queries.elements(found, page, position)
        )
    )


@router.post(
    "/rows",
    status_code=201,
    summary="Add rows",
    openapi_extra=_ROWS,
    responses=problem_responses(
        NotFoundError, ConflictError, InvalidValuesError, InvalidCsvError, TooLargeError, UnsupportedMediaError
    ),
)
async def add_rows(table: TableParameter, context: CommandContext) -> Added:
    """Add rows from JSON or CSV: all of them, or none. Cells that are left out take their column's default."""
    service, body = context.factory.create_table_service(), await context.request.body()
    if media_type(context.request) == "text/csv":
        return context.written(await service.add_csv(table, body))
    if media_type(context.request) != "application/json":
        raise UnsupportedMediaError("Rows are added from application/json or text/csv")
    return context.written(await service.add_rows(table, validated(NewRows, body, "body").rows))


@router.patch(
    "/rows",
    summary="Edit rows",
    responses=problem_responses(
        NotFoundError, ConflictError, PreconditionError, InvalidValuesError, TooLargeError, LockedError
    ),
)
async def edit_rows(table: TableParameter, edits: EditRows, context: Context) -> Edited:
    """Edit cells of several rows: all of the edits are made, or none."""
    return context.written(await context.factory.create_table_service().edit_rows(table, edits))


@router.delete(
    "/rows",
    summary="Remove rows",
    responses=problem_responses(NotFoundError, ConflictError, TooLargeError, LockedError),
)
async def remove_rows(table: TableParameter, rows: RemoveRows, context: Context) -> Removed:
    """Remove several rows: all of them, or none. Their ids are never used again."""
    return context.written(await context.factory.create_table_service().remove_rows(table, rows.rows))


@router.get("/rows/{row}", summary="Show a row", responses=problem_responses(NotFoundError))
async def get_row(table: TableParameter, row: RowParameter, as_of: AsOfParameter, context: Context) -> RowAnswer:
    """Give a row, with its revision as its ETag, as it is or as it was."""
    found = await context.factory.ask_about(
        table, as_of, lambda queries, position, name: queries.row(name, row, position)
    )
    return context.tag(context.written(found))


@router.patch(
    "/rows/{row}",
    summary="Edit a row",
    responses=problem_responses(NotFoundError, ConflictError, PreconditionError, InvalidValuesError, LockedError),
)
async def edit_row(
    table: TableParameter,
    row: RowParameter,
    values: Annotated[dict[str, Any], Body(description="Column to its new value.", examples=[{"threshold": 5.0}])],
    revision: IfMatch,
    context: Context,
    reason: Annotated[Reason | None, Query(description="Why; it is shown with corrections of derived cells.")] = None,
) -> RowAnswer:
    """Edit cells of a row. It becomes stale, and its old outputs stay visible."""
    edited = await context.factory.create_table_service().edit_row(table, row, values, revision, reason)
    return context.tag(context.written(edited))


@router.delete(
    "/rows/{row}",
    status_code=204,
    summary="Remove a row",
    response_class=Response,
    responses=problem_responses(NotFoundError, ConflictError, PreconditionError, LockedError),
)
async def remove_row(table: TableParameter, row: RowParameter, revision: IfMatch, context: Context) -> Response:
    """Remove a row. Its id is never used again."""
    removed = await context.factory.create_table_service().remove_rows(table, [row], revision)
    return Response(status_code=204, headers={POSITION_HEADER: str(removed.position)})


@router.get("/rows/{row}/history", summary="Tell the history of a row", responses=problem_responses(NotFoundError))
async def get_row_history(
    table: TableParameter,
    row: RowParameter,
    context: Context,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many events, the newest ones.")] = 200,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="Only events before this position.")] = None,
) -> History:
    """Tell what happened to a row, the newest last; also to a row that was removed."""
    log = context.process.log
    return await context.factory.ask(
        lambda queries, position: queries.history(table, row, position, log, limit=limit, before=before)
    )
