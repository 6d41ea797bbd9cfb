"""Bodies of requests: their limits, and those that are not JSON."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.types import Message

from stoa_chassis.service import ProcessContext
from stoa_tables.problems import InvalidRequestError, TooLargeError
from stoa_tables.settings import TablesSettings

__all__ = [
    "LimitedRoute",
    "field_of",
    "files_of",
    "form_of",
    "is_multipart",
    "media_type",
    "multipart_body",
    "saved_upload",
    "settings_of",
    "validated",
]

_M = TypeVar("_M", bound=BaseModel)

_MULTIPART = "multipart/form-data"
_MAX_PARTS = 2000
_MAX_FILE_NAME = 60
_MAX_FIELD_BYTES = 1024 * 1024


def settings_of(request: Request) -> TablesSettings:
    """Give the limits that hold for a request."""
    context: ProcessContext = request.app.state.context
    assert isinstance(context.settings, TablesSettings)  # noqa: S101 - create_app sees to it
    return context.settings


def media_type(request: Request) -> str:
    """Give the media type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_multipart(request: Request) -> bool:
    """Tell whether a request brings files."""
    return media_type(request) == _MULTIPART


class LimitedRoute(APIRoute):
    """A route that refuses a body which is larger than the settings allow, before it is in memory.

    Bodies with files are read by their handlers, with limits of their own.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Read the body before FastAPI does."""
        handler = super().get_route_handler()

        async def limited(request: Request) -> Response:
            if request.method in {"POST", "PUT", "PATCH", "DELETE"} and not is_multipart(request):
                # What FastAPI looks at before it would read the stream.
                request._body = await _read(request, settings_of(request).max_body_bytes)  # noqa: SLF001
            return await handler(request)

        return limited


async def _read(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in _limited(request, limit).stream():
        body += chunk
    return bytes(body)


def _limited(request: Request, limit: int) -> Request:
    given = request.headers.get("content-length", "")
    if given.isdigit() and int(given) > limit:
        raise TooLargeError(f"The request has {int(given):,} bytes; {limit:,} are taken here", limit=limit)
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise TooLargeError(f"The request has more than {limit:,} bytes", limit=limit)
        return message

    return Request(request.scope, receive)


@asynccontextmanager
async def form_of(request: Request, limit: int) -> AsyncIterator[FormData]:
    """Read a body of the type multipart/form-data; its files lie on the disk until the end."""
    if not is_multipart(request):
        raise InvalidRequestError(
            f"This address takes {_MULTIPART}, not {media_type(request) or 'a body without a type'}"
        )
    limited = _limited(request, limit)
    async with limited.form(max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=_MAX_FIELD_BYTES) as form:
        yield form


def field_of(form: FormData, name: str) -> str | None:
    """Give a text field of a form."""
    value = form.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequestError(f"The field {name!r} of the form is a file; text is expected", field=name)
    return value


async def files_of(form: FormData, name: str) -> dict[str, bytes]:
    """Give the files of a form by their names, which may hold folders."""
    files: dict[str, bytes] = {}
    for value in form.getlist(name):
        if not isinstance(value, UploadFile) or not value.filename:
            raise InvalidRequestError(f"The field {name!r} of the form holds files, each with its name", field=name)
        if value.filename in files:
            raise InvalidRequestError(f"The file {value.filename!r} was uploaded twice", field=name)
        files[value.filename] = await value.read()
    if not files:
        raise InvalidRequestError(f"The form has no files in the field {name!r}", field=name)
    return files


@asynccontextmanager
async def saved_upload(form: FormData, name: str) -> AsyncIterator[Path]:
    """Save an uploaded file on the disk, under its own name, for as long as it is needed."""
    value = form.get(name)
    if not isinstance(value, UploadFile) or not value.filename:
        raise InvalidRequestError(f"The form has no file in the field {name!r}", field=name)
    # The name tells the format where the content does not.
    base = Path(value.filename.replace("\\", "/").replace("\0", "")).name[-_MAX_FILE_NAME:]
    if base in {"", ".", ".."}:
        base = "upload"
    with tempfile.TemporaryDirectory(prefix="stoa-import-") as folder:
        path = Path(folder) / base
        await asyncio.to_thread(_save, value, path)
        yield path


def _save(upload: UploadFile, path: Path) -> None:
    upload.file.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file, 1024 * 1024)


def validated(model: type[_M], content: str | bytes, where: str) -> _M:
    """Read JSON that stands in a form or in a body that has several types.

    Raises
    ------
    fastapi.exceptions.RequestValidationError
        If it does not fit the model.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise RequestValidationError([{**item, "loc": (where, *item["loc"])} for item in error.errors()]) from None


def multipart_body(
    properties: dict[str, Any], required: list[str], *others: tuple[str, dict[str, Any]]
) -> dict[str, Any]:
    """Describe a body with files, and perhaps its alternatives, for the OpenAPI document."""
    schema = {"type": "object", "properties": properties, "required": required}
    content = {_MULTIPART: {"schema": schema}, **{kind: {"schema": other} for kind, other in others}}
    return {"requestBody": {"required": True, "content": content}}
