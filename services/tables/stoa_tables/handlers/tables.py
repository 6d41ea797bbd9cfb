"""Tables as such: made, listed, described, deleted."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from stoa_chassis.problems import problem_responses
from stoa_tables.bundle import InvalidWorkflowError
from stoa_tables.context import POSITION_HEADER, CommandContext, Context
from stoa_tables.handlers.bodies import (
    LimitedRoute,
    field_of,
    files_of,
    form_of,
    is_multipart,
    media_type,
    multipart_body,
    validated,
)
from stoa_tables.handlers.parameters import AsOfParameter, TableParameter
from stoa_tables.problems import (
    ConflictError,
    InvalidRequestError,
    LockedError,
    NameTakenError,
    NotFoundError,
    TooLargeError,
    UnsupportedMediaError,
)
from stoa_tables.wire import (
    ColumnDescription,
    CreateTable,
    NewWorktable,
    RenameTable,
    TableDetail,
    TableList,
    WorkflowView,
)

__all__ = ["MAX_WORKFLOW_BYTES", "WORKFLOW_FILES", "router"]

router = APIRouter(prefix="/api/tables", tags=["tables"], route_class=LimitedRoute)

#: How large a request with the files of a workflow may be.
MAX_WORKFLOW_BYTES = 32 * 1024 * 1024

#: Describes the files of a workflow in the OpenAPI document.
WORKFLOW_FILES = {
    "type": "array",
    "items": {"type": "string", "contentMediaType": "application/octet-stream"},
    "description": "CWL documents and scripts; their names may hold folders.",
}
_WORKTABLE = multipart_body(
    {"files": WORKFLOW_FILES, "table": {"$ref": "#/components/schemas/NewWorktable"}},
    ["files", "table"],
    ("application/json", {"$ref": "#/components/schemas/CreateTable"}),
)
_WORKFLOW = multipart_body(
    {
        "files": WORKFLOW_FILES,
        "main": {"type": "string", "description": "The file that holds the process, and after # its id."},
    },
    ["files"],
)


@router.get("", summary="List the tables")
async def list_tables(
    context: Context,
    name: Annotated[str | None, Query(description="Only the table of this name.")] = None,
    project: Annotated[str | None, Query(description="Only tables of this project.")] = None,
) -> TableList:
    """List the tables in the order in which they were created, with their rows counted by status."""
    return await context.factory.ask(lambda queries, position: queries.tables(position, name=name, project=project))


@router.post(
    "",
    status_code=201,
    summary="Create a table",
    openapi_extra=_WORKTABLE,
    responses=problem_responses(
        NameTakenError, InvalidWorkflowError, InvalidRequestError, NotFoundError, TooLargeError, UnsupportedMediaError
    ),
)
async def create_table(context: CommandContext) -> TableDetail:
    """Create a worktable from the files of its workflow, or a plain table or a join from a description in JSON."""
    service = context.factory.create_table_service()
    if is_multipart(context.request):
        async with form_of(context.request, MAX_WORKFLOW_BYTES) as form:
            new = validated(NewWorktable, field_of(form, "table") or "", "table")
            return context.written(await service.create_worktable(new, await files_of(form, "files")))
    if media_type(context.request) != "application/json":
        raise UnsupportedMediaError(
            "A table is created from multipart/form-data (files and `table`) or application/json"
        )
    return context.written(await service.create_table(validated(CreateTable, await context.request.body(), "body")))


@router.get("/{table}", summary="Show a table", responses=problem_responses(NotFoundError))
async def get_table(table: TableParameter, as_of: AsOfParameter, context: Context) -> TableDetail:
    """Give a table with its columns, workflow, links, and its rows counted by status, as it is or as it was.

    With `as_of` also a table that was deleted since, by its id or by the name that it had last.
    """
    return context.written(
        await context.factory.ask_about(table, as_of, lambda queries, position, found: queries.detail(found, position))
    )


@router.patch("/{table}", summary="Rename a table", responses=problem_responses(NotFoundError, NameTakenError))
async def rename_table(table: TableParameter, new: RenameTable, context: Context) -> TableDetail:
    """Change a table's name or description. Its id, and its address by id, stay."""
    service = context.factory.create_table_service()
    return context.written(await service.rename_table(table, new.name, new.description))


@router.delete(
    "/{table}",
    status_code=204,
    summary="Delete a table",
    response_class=Response,
    responses=problem_responses(NotFoundError, ConflictError, LockedError),
)
async def delete_table(
    table: TableParameter,
    context: Context,
    children: Annotated[
        Literal["unlink", "delete"] | None,
        Query(
            description="What becomes of tables that are filled from it: their rows stay as ordinary rows, or what came from the "
            "table is deleted, too. Without it the table is not deleted if there are any."
        ),
    ] = None,
) -> Response:
    """Delete a table. Its history stays in the log; what it would do to others, `dependents` tells before."""
    position = await context.factory.create_table_service().delete_table(table, children)
    return Response(status_code=204, headers={POSITION_HEADER: str(position)})


@router.get("/{table}/workflow", summary="Show the workflow of a table", responses=problem_responses(NotFoundError))
async def get_table_workflow(table: TableParameter, context: Context) -> WorkflowView:
    """Give the workflow version that the table's rows are run with."""
    return await context.factory.ask(lambda queries, _: queries.workflow_of(table))


@router.put(
    "/{table}/workflow",
    summary="Give a table another workflow version",
    openapi_extra=_WORKFLOW,
    responses=problem_responses(NotFoundError, ConflictError, InvalidWorkflowError, InvalidRequestError, TooLargeError),
)
async def change_workflow(table: TableParameter, context: Context) -> TableDetail:
    """Rows whose outputs came from another version become stale; files that mean the same are the same version."""
    async with form_of(context.request, MAX_WORKFLOW_BYTES) as form:
        service = context.factory.create_table_service()
        changed = await service.change_workflow(table, await files_of(form, "files"), field_of(form, "main"))
        return context.written(changed)


@router.patch(
    "/{table}/columns/{column}",
    summary="Describe a column",
    responses=problem_responses(NotFoundError, InvalidRequestError),
)
async def describe_column(
    table: TableParameter,
    column: Annotated[str, Path(description="The column's name.", max_length=200)],
    description: ColumnDescription,
    context: Context,
) -> TableDetail:
    """Change a column's label, unit, UCD, utype, description, or how its values are shown."""
    service = context.factory.create_table_service()
    changes = description.model_dump(exclude_unset=True)
    return context.written(await service.describe_column(table, column, changes))
