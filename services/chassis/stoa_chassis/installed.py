"""Which services are installed here."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

__all__ = ["UnknownServiceError", "installed_services", "load_service"]

_GROUP = "stoa.services"


class UnknownServiceError(LookupError):
    """No service of this name is installed here."""


def installed_services() -> list[str]:
    """Name the services that are installed here."""
    return sorted(point.name for point in entry_points(group=_GROUP))


def load_service(name: str) -> Any:
    """Find an installed service by its name: a `stoa_chassis.service.ServiceDefinition`, or what is run like one.

    Raises
    ------
    UnknownServiceError
        Names those that are installed.
    """
    for point in entry_points(group=_GROUP, name=name):
        return point.load()
    msg = f"There is no service '{name}' here; installed are: {', '.join(installed_services())}"
    raise UnknownServiceError(msg)
