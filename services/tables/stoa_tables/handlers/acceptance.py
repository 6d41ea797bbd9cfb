"""What people say of rows: accepted as current, pinned to a workflow version."""

from __future__ import annotations

from fastapi import APIRouter

from stoa_chassis.problems import problem_responses
from stoa_tables.acceptance_wire import Accepted, AcceptRows, ElementKey, Pinned, PinRows
from stoa_tables.context import CommandContext
from stoa_tables.handlers.bodies import LimitedRoute
from stoa_tables.handlers.parameters import TableParameter
from stoa_tables.problems import ConflictError, InvalidRequestError, NotFoundError, TooLargeError
from stoa_tables.wire import TableDetail

__all__ = ["router"]

router = APIRouter(prefix="/api/tables/{table}", tags=["rows"], route_class=LimitedRoute)

_PROBLEMS = problem_responses(NotFoundError, ConflictError, InvalidRequestError, TooLargeError)


@router.post("/accept", summary="Accept rows as current", responses=_PROBLEMS)
async def accept_rows(table: TableParameter, wanted: AcceptRows, context: CommandContext) -> Accepted:
    """Declare the outputs of stale rows to be those of their present inputs and workflow version.

    It holds until the inputs, the workflow version or a file that was read change again. What is below them and was only
    suspected is current without a run, too.
    """
    return context.written(await context.factory.create_acceptance_service().accept(table, wanted))


@router.post("/pin", summary="Pin rows to a workflow version", responses=_PROBLEMS)
async def pin_rows(table: TableParameter, wanted: PinRows, context: CommandContext) -> Pinned:
    """Let rows stay with a workflow version, whatever version the table has, or follow the table again."""
    return context.written(await context.factory.create_acceptance_service().pin(table, wanted))


@router.put("/element-key", summary="Say by what elements are known", responses=_PROBLEMS)
async def set_element_key(table: TableParameter, wanted: ElementKey, context: CommandContext) -> TableDetail:
    """Let elements of a table's rows be known by the value of one output column.

    Rows that stand for an element in a linked table (`per: element`) follow it then, wherever it stands and whatever else
    of it changes.
    """
    return context.written(await context.factory.create_acceptance_service().set_element_key(table, wanted))
