"""What can be wrong with a request to the tables service."""

from __future__ import annotations

from typing import Any, ClassVar

from stoa_chassis.problems import Problem

__all__ = [
    "ChangedSinceError",
    "ConflictError",
    "CycleError",
    "ForbiddenError",
    "InvalidFilterError",
    "InvalidRequestError",
    "InvalidValuesError",
    "LockedError",
    "NameTakenError",
    "NotFoundError",
    "PreconditionError",
    "TooLargeError",
    "UnsupportedMediaError",
]


class NotFoundError(Problem):
    """What the address names does not exist."""

    status: ClassVar[int] = 404
    code: ClassVar[str] = "not-found"
    title: ClassVar[str] = "There is no such thing"


class InvalidRequestError(Problem):
    """The request can be read but makes no sense."""

    status: ClassVar[int] = 422
    code: ClassVar[str] = "invalid-request"
    title: ClassVar[str] = "The request cannot be understood"


class InvalidValuesError(Problem):
    """Cells hold values that their columns do not take."""

    status: ClassVar[int] = 422
    code: ClassVar[str] = "invalid-values"
    title: ClassVar[str] = "Some values do not fit their columns"

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        shown = "; ".join(str(error["message"]) for error in errors[:5])
        more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""  # noqa: PLR2004 - as many as are shown
        super().__init__(f"{shown}{more}", errors=errors[:100])


class InvalidFilterError(Problem):
    """A filter or an order names what is not there."""

    status: ClassVar[int] = 422
    code: ClassVar[str] = "invalid-filter"
    title: ClassVar[str] = "The rows cannot be filtered or sorted like this"


class NameTakenError(Problem):
    """Another table has this name."""

    status: ClassVar[int] = 409
    code: ClassVar[str] = "name-taken"
    title: ClassVar[str] = "The name is taken"


class ConflictError(Problem):
    """The table is in a state that does not allow it."""

    status: ClassVar[int] = 409
    code: ClassVar[str] = "conflict"
    title: ClassVar[str] = "The table does not allow this"


class ChangedSinceError(Problem):
    """Somebody changed since what is to be undone or redone."""

    status: ClassVar[int] = 409
    code: ClassVar[str] = "changed-since"
    title: ClassVar[str] = "Somebody changed this since"


class CycleError(Problem):
    """A link would make a table depend on itself."""

    status: ClassVar[int] = 409
    code: ClassVar[str] = "cycle"
    title: ClassVar[str] = "The link would close a cycle"


class ForbiddenError(Problem):
    """Only somebody else may do that."""

    status: ClassVar[int] = 403
    code: ClassVar[str] = "not-yours"
    title: ClassVar[str] = "Only its author may do this"


class LockedError(Problem):
    """Somebody locked the rows."""

    status: ClassVar[int] = 423
    code: ClassVar[str] = "row-locked"
    title: ClassVar[str] = "The row is locked"


class PreconditionError(Problem):
    """The row has changed since it was read."""

    status: ClassVar[int] = 412
    code: ClassVar[str] = "row-changed"
    title: ClassVar[str] = "The row has changed in the meantime"


class TooLargeError(Problem):
    """The request is larger than what is taken."""

    status: ClassVar[int] = 413
    code: ClassVar[str] = "too-large"
    title: ClassVar[str] = "The request is too large"


class UnsupportedMediaError(Problem):
    """The request has a media type that this route does not take."""

    status: ClassVar[int] = 415
    code: ClassVar[str] = "unsupported-media-type"
    title: ClassVar[str] = "This media type is not taken here"
