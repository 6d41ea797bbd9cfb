"""Undo and redo of one's own edits."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from stoa_chassis.problems import problem_responses
from stoa_tables.context import CommandContext, Context
from stoa_tables.handlers.bodies import LimitedRoute
from stoa_tables.handlers.parameters import TableParameter
from stoa_tables.problems import ChangedSinceError, ConflictError, LockedError, NotFoundError
from stoa_tables.undo_service import StepList, TakeBack, TakenBackAnswer, list_steps

__all__ = ["router"]

router = APIRouter(prefix="/api/tables/{table}", tags=["rows"], route_class=LimitedRoute)

_REFUSED = problem_responses(NotFoundError, ConflictError, ChangedSinceError, LockedError)


@router.get("/steps", summary="List what can be undone", responses=problem_responses(NotFoundError))
async def get_steps(
    table: TableParameter,
    context: Context,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many of each.")] = 50,
) -> StepList:
    """List one's own steps in a table that can be undone or redone. A step is what one request did."""
    person = context.origin.actor
    return await context.factory.ask(lambda queries, position: list_steps(queries, table, position, person, limit))


@router.post("/undo", summary="Undo one's last step", responses=_REFUSED)
async def undo(table: TableParameter, context: CommandContext, asked: TakeBack | None = None) -> TakenBackAnswer:
    """Undo one's last edit, addition or removal of rows; refused where somebody changed its cells since."""
    return context.written(await context.factory.create_undo_service().undo(table, asked or TakeBack()))


@router.post("/redo", summary="Redo what one undid last", responses=_REFUSED)
async def redo(table: TableParameter, context: CommandContext, asked: TakeBack | None = None) -> TakenBackAnswer:
    """Redo the step that one undid last. A new edit of one's own ends what can be redone."""
    return context.written(await context.factory.create_undo_service().redo(table, asked or TakeBack()))
