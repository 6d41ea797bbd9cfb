"""People's marks: flags, comments, locks and saved views."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from stoa_chassis.problems import problem_responses
from stoa_tables import marks_answers as answers
from stoa_tables.context import POSITION_HEADER, CommandContext, Context
from stoa_tables.handlers.bodies import LimitedRoute
from stoa_tables.handlers.parameters import RowParameter, TableParameter
from stoa_tables.marks_wire import (
    CommentAnswer,
    CommentDetail,
    CommentPage,
    EditComment,
    FlagDefinition,
    FlagList,
    FlagRows,
    LockList,
    LockRows,
    MarkedRows,
    NewComment,
    NewView,
    SavedViewAnswer,
    ViewList,
)
from stoa_tables.problems import (
    ConflictError,
    ForbiddenError,
    InvalidFilterError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
)

__all__ = ["router"]

router = APIRouter(prefix="/api/tables/{table}", tags=["marks"], route_class=LimitedRoute)

FlagParameter = Annotated[str, Path(description="The flag's name.", max_length=63, examples=["suspicious"])]
CommentParameter = Annotated[str, Path(description="The comment's id.", max_length=36)]
ViewParameter = Annotated[str, Path(description="The view's id.", max_length=36)]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]


# --- flags -------------------------------------------------------------------------------------------------------------


@router.get("/flags", summary="List the flags", responses=problem_responses(NotFoundError))
async def list_flags(table: TableParameter, context: Context) -> FlagList:
    """List the flags of a table, with the number of rows that have them."""
    return await context.factory.ask(lambda queries, position: answers.flags(queries, table, position))


@router.put(
    "/flags/{flag}",
    summary="Define a flag",
    responses=problem_responses(NotFoundError, ConflictError, InvalidRequestError),
)
async def define_flag(
    table: TableParameter, flag: FlagParameter, definition: FlagDefinition, context: Context
) -> FlagList:
    """Define a flag, or change its colour and description."""
    return context.written(await context.factory.create_mark_service().define_flag(table, flag, definition))


@router.delete("/flags/{flag}", summary="Give a flag up", responses=problem_responses(NotFoundError))
async def give_up_flag(table: TableParameter, flag: FlagParameter, context: Context) -> FlagList:
    """Give a flag up, and take it off every row."""
    return context.written(await context.factory.create_mark_service().give_up_flag(table, flag))


@router.post("/flags/{flag}/rows", summary="Flag rows", responses=problem_responses(NotFoundError, TooLargeError))
async def flag_rows(table: TableParameter, flag: FlagParameter, rows: FlagRows, context: CommandContext) -> MarkedRows:
    """Put a flag on rows, or take it off. The rows do not become stale."""
    return context.written(await context.factory.create_mark_service().flag_rows(table, flag, rows))


# --- comments ----------------------------------------------------------------------------------------------------------


@router.get("/comments", summary="List the newest comments", responses=problem_responses(NotFoundError))
async def list_comments(
    table: TableParameter,
    context: Context,
    limit: Limit = 100,
    after: Annotated[int | None, Query(ge=1, lt=2**63, description="The `next` of the page before.")] = None,
) -> CommentPage:
    """List the comments on the rows of a table, the newest first."""
    return await context.factory.ask(
        lambda queries, position: answers.comments_of_table(queries, table, position, before=after, limit=limit)
    )


@router.get("/rows/{row}/comments", summary="List the comments on a row", responses=problem_responses(NotFoundError))
async def list_row_comments(
    table: TableParameter,
    row: RowParameter,
    context: Context,
    limit: Limit = 100,
    after: Annotated[int, Query(ge=0, lt=2**63, description="The `next` of the page before.")] = 0,
) -> CommentPage:
    """List the comments on a row and its cells, the oldest first; also on a row that was removed."""
    return await context.factory.ask(
        lambda queries, position: answers.comments_of_row(queries, table, row, position, after=after, limit=limit)
    )


@router.post(
    "/rows/{row}/comments",
    status_code=201,
    summary="Comment on a row",
    responses=problem_responses(NotFoundError, InvalidRequestError),
)
async def comment(table: TableParameter, row: RowParameter, new: NewComment, context: CommandContext) -> CommentAnswer:
    """Write about a row, an element or a cell, or reply to a comment."""
    return context.written(await context.factory.create_mark_service().comment(table, row, new))


@router.get("/comments/{comment}", summary="Show a comment", responses=problem_responses(NotFoundError))
async def get_comment(table: TableParameter, comment: CommentParameter, context: Context) -> CommentDetail:
    """Give a comment with everything that it said before."""
    return await context.factory.ask(lambda queries, position: answers.comment(queries, table, comment, position))


@router.patch(
    "/comments/{comment}",
    summary="Edit a comment",
    responses=problem_responses(NotFoundError, ForbiddenError, ConflictError),
)
async def edit_comment(
    table: TableParameter, comment: CommentParameter, edit: EditComment, context: Context
) -> CommentAnswer:
    """Change what a comment of one's own says; what it said before stays in its history."""
    return context.written(await context.factory.create_mark_service().edit_comment(table, comment, edit.text))


@router.delete(
    "/comments/{comment}", summary="Withdraw a comment", responses=problem_responses(NotFoundError, ForbiddenError)
)
async def withdraw_comment(table: TableParameter, comment: CommentParameter, context: Context) -> CommentAnswer:
    """Withdraw a comment of one's own. Its place in the thread stays, and so do replies."""
    return context.written(await context.factory.create_mark_service().edit_comment(table, comment, None))


# --- locks -------------------------------------------------------------------------------------------------------------


@router.get("/locks", summary="List the locked rows", responses=problem_responses(NotFoundError))
async def list_locks(
    table: TableParameter,
    context: Context,
    limit: Limit = 100,
    after: Annotated[int, Query(ge=0, lt=2**63, description="The `next` of the page before.")] = 0,
) -> LockList:
    """List the locked rows of a table, with what upstream says of them where that is something else."""
    return await context.factory.ask(
        lambda queries, position: answers.locks(queries, table, position, after=after, limit=limit)
    )


@router.post(
    "/locks", summary="Lock or unlock rows", responses=problem_responses(NotFoundError, ConflictError, TooLargeError)
)
async def lock_rows(table: TableParameter, rows: LockRows, context: CommandContext) -> MarkedRows:
    """Lock rows, so that nobody edits, removes or runs them, or unlock them, so that they follow what changed upstream."""
    return context.written(await context.factory.create_mark_service().lock_rows(table, rows))


# --- views -------------------------------------------------------------------------------------------------------------


@router.get("/views", summary="List the views", responses=problem_responses(NotFoundError))
async def list_views(table: TableParameter, context: Context) -> ViewList:
    """List the views of a table: one's own, and those that others share."""
    person = context.origin.actor
    return await context.factory.ask(lambda queries, position: answers.views(queries, table, position, person))


@router.post(
    "/views",
    status_code=201,
    summary="Save a view",
    responses=problem_responses(NotFoundError, ConflictError, InvalidFilterError),
)
async def save_view(table: TableParameter, new: NewView, context: CommandContext) -> SavedViewAnswer:
    """Save filters, an order, shown columns and a status under a name, for oneself or for everybody."""
    return context.written(await context.factory.create_mark_service().save_view(table, new))


@router.get("/views/{view}", summary="Show a view", responses=problem_responses(NotFoundError))
async def get_view(table: TableParameter, view: ViewParameter, context: Context) -> SavedViewAnswer:
    """Give a view."""
    person = context.origin.actor
    return await context.factory.ask(lambda queries, position: answers.view(queries, table, view, position, person))


@router.put(
    "/views/{view}",
    summary="Change a view",
    responses=problem_responses(NotFoundError, ForbiddenError, ConflictError, InvalidFilterError),
)
async def change_view(table: TableParameter, view: ViewParameter, new: NewView, context: Context) -> SavedViewAnswer:
    """Put something else in the place of a view of one's own."""
    return context.written(await context.factory.create_mark_service().save_view(table, new, view))


@router.delete(
    "/views/{view}",
    status_code=204,
    summary="Delete a view",
    response_class=Response,
    responses=problem_responses(NotFoundError, ForbiddenError),
)
async def delete_view(table: TableParameter, view: ViewParameter, context: Context) -> Response:
    """Delete a view of one's own."""
    position = await context.factory.create_mark_service().delete_view(table, view)
    return Response(status_code=204, headers={POSITION_HEADER: str(position)})
