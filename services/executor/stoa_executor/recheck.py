"""The route by which a user has the files looked at that jobs have read where they stand."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from stoa_chassis.service import origin_of
from stoa_executor.factory import Context
from stoa_executor.watching import MOST_CHANGED

__all__ = ["recheck_router"]

_MOST_LOCATIONS = 10_000

recheck_router = APIRouter(prefix="/api")


class RecheckRequest(BaseModel):
    """Which files are to be looked at."""

    model_config = ConfigDict(extra="forbid")

    locations: list[Annotated[str, StringConstraints(min_length=1, max_length=8192)]] | None = Field(
        default=None,
        max_length=_MOST_LOCATIONS,
        description=(
            "URIs ``file:///…`` or absolute paths; a path inside a directory that a job has read counts for that directory."
            " All files that jobs have read, if it is not given."
        ),
    )


class ChangedFile(BaseModel):
    """A file or directory that holds something else than was told before."""

    location: str
    previous: str = Field(description="SHA-256 of what it held.")
    sha256: str | None = Field(description="Of what it holds now; null where it is gone or cannot be read.")


class RecheckResult(BaseModel):
    """What was found."""

    checked: int = Field(description="Locations that were looked at.")
    skipped: int = Field(description="Locations that this executor may not read, or whose file system does not answer.")
    changed: int = Field(description="Locations that hold something else than was told before; each gave an event.")
    changes: list[ChangedFile] = Field(description=f"The first {MOST_CHANGED:,} of them.")
    unknown: list[str] = Field(description="Locations in the request that no job has read.")


@recheck_router.post("/files/recheck", tags=["files"], summary="Look whether files that jobs have read have changed")
async def recheck_files(context: Context, request: Request, asked: RecheckRequest | None = None) -> RecheckResult:
    """Compare files with what jobs have read, and record ``file-changed`` for each that differs.

    It is done by itself now and then; this does it at once, and answers when it is done. A second request finds nothing new.
    """
    done = await context.watcher.recheck(
        None if asked is None else asked.locations, origin_of(request), context.background.stop.is_set
    )
    return RecheckResult(
        checked=done.checked,
        skipped=done.skipped,
        changed=done.changes,
        changes=[
            ChangedFile(location=change.location, previous=change.previous, sha256=change.sha256)
            for change in done.changed
        ],
        unknown=done.unknown,
    )
