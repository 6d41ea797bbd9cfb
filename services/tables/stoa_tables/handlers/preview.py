"""What a change would do, before it is made."""

from __future__ import annotations

from fastapi import APIRouter

from stoa_chassis.problems import problem_responses
from stoa_tables.bundle import InvalidWorkflowError
from stoa_tables.context import Context
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
from stoa_tables.handlers.parameters import TableParameter
from stoa_tables.handlers.tables import MAX_WORKFLOW_BYTES, WORKFLOW_FILES
from stoa_tables.link_service import LinkService
from stoa_tables.link_wire import ChangeLink
from stoa_tables.preview import Preview, PreviewRequest
from stoa_tables.problems import (
    ConflictError,
    CycleError,
    InvalidRequestError,
    InvalidValuesError,
    NotFoundError,
    PreconditionError,
    TooLargeError,
    UnsupportedMediaError,
)
from stoa_tables.versions import VersionService
from stoa_tables.wire import EditRows

__all__ = ["router"]

router = APIRouter(prefix="/api/tables/{table}/preview", tags=["preview"], route_class=LimitedRoute)

_BODY = multipart_body(
    {
        "files": WORKFLOW_FILES,
        "main": {"type": "string", "description": "The file that holds the process, and after # its id."},
    },
    ["files"],
    ("application/json", {"$ref": "#/components/schemas/PreviewRequest"}),
)


@router.post(
    "",
    summary="Tell what a change would do",
    openapi_extra=_BODY,
    responses=problem_responses(
        NotFoundError,
        ConflictError,
        CycleError,
        PreconditionError,
        InvalidRequestError,
        InvalidValuesError,
        InvalidWorkflowError,
        TooLargeError,
        UnsupportedMediaError,
    ),
)
async def preview_change(table: TableParameter, context: Context) -> Preview:
    """Tell how many rows of which tables would have to be computed anew, and how long that took last; nothing changes.

    The change is edits of rows, rows to remove, a workflow version to restore, a link that is made, changed or given up (JSON), or
    the files of a workflow (multipart/form-data). What would be refused is refused here, too. A preview takes as long as the change itself, and other
    changes wait for it.
    """
    rehearsal = context.factory.create_rehearsal()
    service = context.factory.create_rehearsed_service(VersionService, rehearsal)
    if is_multipart(context.request):
        async with form_of(context.request, MAX_WORKFLOW_BYTES) as form:
            await service.change_workflow(table, await files_of(form, "files"), field_of(form, "main"))
    elif media_type(context.request) == "application/json":
        asked = validated(PreviewRequest, await context.request.body(), "body")
        await _rehearse(service, table, asked)
        await _rehearse_link(context.factory.create_rehearsed_service(LinkService, rehearsal), table, asked)
    else:
        raise UnsupportedMediaError(
            "A preview takes application/json, or multipart/form-data with the files of a workflow"
        )
    return context.written(rehearsal.preview)


async def _rehearse(service: VersionService, table: str, asked: PreviewRequest) -> None:
    if asked.edits is not None:
        await service.edit_rows(table, EditRows(edits=asked.edits))
    if asked.remove is not None:
        await service.remove_rows(table, asked.remove)
    if asked.restore is not None:
        await service.restore(table, asked.restore)


async def _rehearse_link(service: LinkService, table: str, asked: PreviewRequest) -> None:
    if asked.link is not None:
        await service.add(table, asked.link)
    if asked.change_link is not None:
        changes = ChangeLink.model_validate(asked.change_link.model_dump(exclude_unset=True, exclude={"link"}))
        await service.change(table, asked.change_link.link, changes)
    if asked.unlink is not None:
        await service.give_up(table, asked.unlink.link, asked.unlink.rows)
