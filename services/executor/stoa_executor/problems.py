"""What a request to the executor can fail with."""

from __future__ import annotations

from stoa_chassis.problems import Problem

__all__ = ["FileTooLargeProblem", "InvalidDigestError", "InvalidUploadError", "NotFoundError"]


class NotFoundError(Problem):
    """The executor knows no such file or job."""

    status = 404
    code = "not-found"
    title = "There is no such file or job"


class InvalidDigestError(Problem):
    """What names a file is no digest."""

    status = 422
    code = "invalid-digest"
    title = "This is not a SHA-256 digest"


class FileTooLargeProblem(Problem):
    """The upload is larger than what is taken."""

    status = 413
    code = "file-too-large"
    title = "The file is too large"


class InvalidUploadError(Problem):
    """The upload holds no file."""

    status = 422
    code = "invalid-upload"
    title = "The upload holds no file"
