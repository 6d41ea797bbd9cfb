"""Tables that become files."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse

from stoa_chassis.log import Origin
from stoa_chassis.problems import problem_responses
from stoa_chassis.service import origin_of
from stoa_contracts.types import RowStatus
from stoa_tables.context import POSITION_HEADER, Context
from stoa_tables.exporting import ExportRequest, export
from stoa_tables.handlers.parameters import AsOfParameter, TableParameter
from stoa_tables.importing import FORMATS, MEDIA_TYPES, FileFormat
from stoa_tables.problems import InvalidFilterError, InvalidRequestError, NotFoundError
from stoa_tables.queries import Page

__all__ = ["router"]

router = APIRouter(prefix="/api/tables", tags=["exports"])


def _request(  # noqa: PLR0913, PLR0917 - the parameters of the address
    table: TableParameter,
    origin: Annotated[Origin, Depends(origin_of)],
    format: Annotated[FileFormat, Query(description="The format of the file.")],  # noqa: A002 - the name on the wire
    view: Annotated[
        Literal["rows", "elements"], Query(description="A line for each row, or for each element of its outputs.")
    ] = "rows",
    filter: Annotated[  # noqa: A002 - the name on the wire
        list[str] | None, Query(description="As for a page of rows; may be given several times, and all must hold.")
    ] = None,
    status: Annotated[RowStatus | None, Query(description="Only rows of this status.")] = None,
    sort: Annotated[str | None, Query(description="As for a page of rows.")] = None,
    columns: Annotated[
        list[str] | None,
        Query(
            description="Names of columns, comma separated or given several times, in the order of the file; also row, element, "
            "status and revision. Without it, all columns of the table."
        ),
    ] = None,
    saved_view: Annotated[
        str | None, Query(description="A saved view, whose filters, order and columns hold, too.", max_length=36)
    ] = None,
) -> ExportRequest:
    page = Page(sort=sort, filters=filter or (), status=status, view=saved_view, person=origin.actor)
    return ExportRequest(table, format, view == "elements", page, columns)


@router.get(
    "/{table}/export",
    summary="Export a table as a file",
    response_class=Response,
    responses={
        200: {
            "description": "The file, whole.",
            "content": {
                MEDIA_TYPES[known]: {"schema": {"type": "string", "contentMediaType": MEDIA_TYPES[known]}}
                for known in FORMATS
            },
        },
        304: {"description": "The file that the client has shows the same position of the log."},
        **problem_responses(NotFoundError, InvalidFilterError, InvalidRequestError),
    },
)
async def export_table(
    request: Annotated[ExportRequest, Depends(_request)],
    as_of: AsOfParameter,
    context: Context,
    if_none_match: Annotated[str | None, Header(description="The ETag of a file that the client has.")] = None,
) -> Response:
    """Give the table, as it is or was, as CSV, ECSV, FITS, VOTable or Parquet, with units, UCDs and the log's position.

    The file is written on the disk before its first byte is sent, so that its length is known and an answer that breaks off is
    noticed.
    """
    ask_about = context.factory.ask_about
    if if_none_match is not None:
        position = await ask_about(
            request.table, as_of, lambda queries, position, name: (queries.table(name), position)[1]
        )
        if request.tag(position) in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]:
            return Response(status_code=304, headers={"ETag": request.tag(position)})
    async with context.process.exports:
        made = await ask_about(
            request.table,
            as_of,
            lambda queries, position, name: export(queries, position, replace(request, table=name)),
        )
    headers = {
        "Content-Disposition": f'attachment; filename="{made.name}"',
        "Content-Length": str(made.size),
        "ETag": request.tag(made.position),
        POSITION_HEADER: str(made.position),
        "Vary": "Authorization",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(made.pieces(), headers=headers, media_type=MEDIA_TYPES[request.format])
