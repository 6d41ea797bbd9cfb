"""What the gateway refuses, and what it tells of a service that does not answer."""

from __future__ import annotations

from stoa_chassis.problems import Problem

__all__ = ["CrossSiteError", "InvalidPathError", "UnreachableError", "UnresponsiveError"]


class UnreachableError(Problem):
    """The service behind an address does not answer."""

    status = 502
    code = "service-unreachable"
    title = "A service does not answer"


class UnresponsiveError(Problem):
    """The service behind an address took the request and stayed silent."""

    status = 504
    code = "service-unresponsive"
    title = "A service took too long"


class CrossSiteError(Problem):
    """A page of somebody else tried to change something here with a visitor's browser."""

    status = 403
    code = "cross-site"
    title = "The request came from another site"


class InvalidPathError(Problem):
    """An address climbs out of the place where it stands."""

    status = 400
    code = "invalid-path"
    title = "The address cannot be used"
