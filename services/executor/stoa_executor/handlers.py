"""The executor's routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile

from stoa_chassis.problems import problem_responses
from stoa_executor.factory import Context, ExecutorContext
from stoa_executor.live import follow_log
from stoa_executor.media import is_shown, media_type
from stoa_executor.problems import FileTooLargeProblem, InvalidDigestError, InvalidUploadError, NotFoundError
from stoa_executor.store import FileTooLargeError, StoredFile, is_digest

__all__ = ["router"]

_CHUNK = 1024 * 1024
_EVENT_STREAM = "text/event-stream"
_BINARY = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}

router = APIRouter(prefix="/api")

Digest = Annotated[str, Path(description="SHA-256 of the content, 64 hexadecimal digits.")]
Name = Annotated[
    str | None,
    Query(
        max_length=255, pattern=r"^[^/\\\x00-\x1f\x7f]+$", description="What the file is to be called; says its kind."
    ),
]


class UploadedFile(BaseModel):
    """A stored file as a CWL File object: it can stand in an input cell as it is."""

    class_: str = Field("File", alias="class", serialization_alias="class")
    location: str = Field(description="``sha256:`` and the digest.")
    basename: str
    size: int = Field(description="Bytes.")
    checksum: str = Field(description="As CWL writes it: ``sha256$`` and the digest.")


@router.post(
    "/files",
    status_code=201,
    tags=["files"],
    summary="Store a file",
    responses=problem_responses(FileTooLargeProblem, InvalidUploadError),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": {"type": "string", "format": "binary"}},
                    }
                },
            },
        }
    },
)
async def upload_file(context: Context, request: Request, response: Response, name: Name = None) -> UploadedFile:
    """Take the body, or the part ``file`` of a form, into the store; the same content is kept once."""
    limit = context.settings.max_upload_bytes
    try:
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form(max_files=1) as form:
                part = form.get("file")
                if not isinstance(part, UploadFile):
                    msg = "The form has no part 'file'."
                    raise InvalidUploadError(msg)
                name = name or part.filename
                stored = await context.store.put_stream(_pieces(part), limit=limit)
        else:
            stored = await context.store.put_stream(request.stream(), limit=limit)
    except FileTooLargeError as error:
        raise FileTooLargeProblem(str(error)) from error
    response.headers["Location"] = f"/api/files/{stored.digest}"
    return _described(stored, name)


@router.head("/files/{sha256}", name="head_file", include_in_schema=False)
@router.get(
    "/files/{sha256}",
    tags=["files"],
    summary="A file by its content",
    response_class=FileResponse,
    responses={200: _BINARY, 206: _BINARY, 304: {}, **problem_responses(NotFoundError, InvalidDigestError)},
)
async def get_file(
    context: Context,
    sha256: Digest,
    name: Name = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Give the file; it can be asked for in parts (``Range``) and kept for ever."""
    path = await asyncio.to_thread(_stored_path, context, sha256)
    kind = media_type(name or "")
    headers = {
        "ETag": f'"{sha256}"',
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        # Whatever a job wrote must not act with our address, even if somebody opens it there.
        "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    }
    if if_none_match is not None and _matches(if_none_match, sha256):
        return Response(status_code=304, headers=headers)
    return FileResponse(
        path,
        headers=headers,
        media_type=kind,
        filename=name or sha256,
        content_disposition_type="inline" if is_shown(kind) else "attachment",
    )


@router.get(
    "/logs/{job}",
    tags=["logs"],
    summary="What a job's tools said",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}, _EVENT_STREAM: {"schema": {"type": "string"}}}},
        **problem_responses(NotFoundError),
    },
)
async def get_log(
    context: Context,
    job: Annotated[str, Path(description="The job's id.")],
    accept: Annotated[str, Header(description="``text/event-stream`` for a log that grows.")] = "",
    last_event_id: Annotated[int, Header(ge=0, description="How many bytes are known already.")] = 0,
) -> Response:
    """Give the log as text, or follow it until the job ends.

    Events ``log`` carry ``{"text"}`` and as their id the bytes told so far; the last event is ``end`` with
    ``{"outcome", "error"}``. Who comes back with ``Last-Event-ID`` goes on there.
    """
    record = await context.ledger.job(job)
    if record is None:
        msg = f"No job {job} was started here."
        raise NotFoundError(msg)
    if _EVENT_STREAM in accept:
        stream = follow_log(
            job,
            last_event_id,
            bus=context.bus,
            agent=context.agent,
            ledger=context.ledger,
            store=context.store,
            stop=context.background.stop,
        )
        return StreamingResponse(
            stream, media_type=_EVENT_STREAM, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
    headers = {"X-Content-Type-Options": "nosniff"}
    path = context.agent.log_path(job)
    if path is not None and await asyncio.to_thread(path.is_file):
        return Response(await asyncio.to_thread(path.read_bytes), media_type="text/plain", headers=headers)
    if record.log_sha256 is None or record.state == "running":
        return Response("", media_type="text/plain", headers=headers)
    return FileResponse(
        await asyncio.to_thread(_stored_path, context, record.log_sha256), media_type="text/plain", headers=headers
    )


def _stored_path(context: ExecutorContext, digest: str) -> str:
    if not is_digest(digest):
        msg = f"{digest!r} is not 64 lower-case hexadecimal digits."
        raise InvalidDigestError(msg)
    if not context.store.has(digest):
        msg = f"The file store holds no file with the digest sha256:{digest}."
        raise NotFoundError(msg)
    return str(context.store.path(digest))


def _matches(header: str, digest: str) -> bool:
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")}
    return "*" in tags or digest in tags


async def _pieces(part: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await part.read(_CHUNK):
        yield chunk


def _described(stored: StoredFile, name: str | None) -> UploadedFile:
    return UploadedFile.model_validate(
        {
            "class": "File",
            "location": f"sha256:{stored.digest}",
            "basename": (name or stored.digest).replace("/", "_"),
            "size": stored.size,
            "checksum": f"sha256${stored.digest}",
        }
    )
