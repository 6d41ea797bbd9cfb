"""Errors over HTTP: problem documents (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from stoa_chassis.errors import DatabaseUnavailableError

__all__ = ["PROBLEM_MEDIA_TYPE", "Problem", "ProblemDocument", "install_problem_handlers", "problem_responses"]

PROBLEM_MEDIA_TYPE = "application/problem+json"


class ProblemDocument(BaseModel):
    """What went wrong, and where (RFC 9457, section 3.1)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="A URN that names the kind of problem.")
    title: str = Field(description="The kind of problem, for people.")
    status: int
    detail: str = Field(description="What was wrong this time, and where.")
    instance: str | None = Field(default=None, description="The correlation id of the request.")


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """Something a caller did or asked for cannot be done. Nothing was changed.

    Subclasses set the class attributes; keyword arguments become members of the problem document.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad-request"
    title: ClassVar[str] = "The request cannot be carried out"

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers
        self.members = members


def problem_responses(*kinds: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """Describe the problems a route can answer with, for its ``responses``."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        entry = described.setdefault(
            kind.status, {"description": "", "content": {PROBLEM_MEDIA_TYPE: _schema_reference()}}
        )
        entry["description"] = "; ".join(filter(None, [entry["description"], kind.title]))
    return described


def _schema_reference() -> dict[str, Any]:
    return {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error with a problem document."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> JSONResponse:
        return _answer(request, error.status, error.code, error.title, error.detail, error.headers, **error.members)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"where": "/".join(str(part) for part in item["loc"]), "message": item["msg"]} for item in error.errors()
        ]
        detail = "; ".join(f"{item['where']}: {item['message']}" for item in errors[:5])
        return _answer(
            request,
            422,
            "invalid-request",
            "The request is not in the form that this route takes",
            detail,
            errors=errors,
        )

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        code = status.phrase.lower().replace(" ", "-")
        headers = dict(error.headers) if error.headers else None
        return _answer(request, error.status_code, code, status.phrase, str(error.detail), headers)

    @app.exception_handler(DatabaseUnavailableError)
    async def _unavailable(request: Request, error: DatabaseUnavailableError) -> JSONResponse:
        structlog.get_logger(__name__).error("the database is not available", error=str(error))
        detail = "The service cannot reach its database; nothing was changed. Try again later."
        return _answer(
            request, 503, "database-unavailable", "The database is not available", detail, {"Retry-After": "5"}
        )

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        structlog.get_logger(__name__).error("a request failed unexpectedly", path=request.url.path, exc_info=error)
        detail = "Something unexpected happened; it was written to the service's log under this request's id."
        return _answer(request, 500, "internal-error", "The service made a mistake", detail)


def _answer(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: dict[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    document = ProblemDocument(
        type=f"urn:stoa:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        instance=getattr(request.state, "correlationid", None),
        **members,
    )
    content = document.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, status, headers, media_type=PROBLEM_MEDIA_TYPE)
