"""What a request to the scheduler can fail with."""

from __future__ import annotations

from stoa_chassis.problems import Problem

__all__ = ["AmbiguousNameError", "BehindError", "InvalidTriggerError", "NotFoundError", "NothingToRunError"]


class NotFoundError(Problem):
    """The scheduler knows no such table, run or job."""

    status = 404
    code = "not-found"
    title = "There is no such table, run or job"


class AmbiguousNameError(Problem):
    """Several tables have the name."""

    status = 409
    code = "ambiguous-name"
    title = "Several tables have this name"


class NothingToRunError(Problem):
    """The table has no workflow whose rows could run."""

    status = 409
    code = "nothing-to-run"
    title = "The table has no workflow"


class InvalidTriggerError(Problem):
    """A trigger that can never fire."""

    status = 422
    code = "invalid-trigger"
    title = "The trigger makes no sense"


class BehindError(Problem):
    """The scheduler has not heard yet of the change that the request is to follow."""

    status = 503
    code = "behind"
    title = "The scheduler has not caught up yet"
