"""The registry of events: name, version, owner, subject, and how old versions are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from stoa_contracts.types import Frozen

__all__ = [
    "Event",
    "EventType",
    "UnknownEventError",
    "event",
    "event_type",
    "event_types",
    "load_event",
    "upcaster",
]

#: Reads the data of one version and gives the data of the next.
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class UnknownEventError(LookupError):
    """The registry holds no event of this name and version."""


class Event(Frozen):
    """A fact that happened, in the past tense, never changed."""

    event_type: ClassVar[EventType]


@dataclass(frozen=True)
class EventType:
    """What a subscriber needs to know of one version of one event."""

    service: str
    """The owner: the only service that emits it."""

    name: str
    """Past tense, in kebab case."""

    version: int
    """Grows with every change of the model; stored bytes keep the version they were written in."""

    model: type[Event]
    """The model of ``data``."""

    @property
    def type(self) -> str:
        """The CloudEvents ``type``."""
        return f"stoa.{self.service}.{self.name}"

    @property
    def dataschema(self) -> str:
        """The CloudEvents ``dataschema``: a URI that ends in the version."""
        return f"urn:stoa:event:{self.service}:{self.name}:{self.version}"

    @property
    def documentation(self) -> str:
        """The docstring that a subscriber reads."""
        return inspect.cleandoc(self.model.__doc__ or "")

    def subject(self, stream: str) -> str:
        """Give the NATS subject of this event in a stream."""
        return f"stoa.{self.service}.{stream}.{self.name}"


_types: dict[tuple[str, str, int], EventType] = {}
_upcasters: dict[tuple[str, str, int], Upcaster] = {}

_E = TypeVar("_E", bound=type[Event])


def _register_all() -> None:
    import stoa_contracts.events  # noqa: F401, PLC0415 - the models register themselves when they are imported


def event(service: str, name: str, version: int = 1) -> Callable[[_E], _E]:
    """Register a model as one version of an event.

    Raises
    ------
    ValueError
        If the name and version are taken, or the model has no docstring.
    """

    def register(model: _E) -> _E:
        key = (service, name, version)
        if key in _types:
            msg = f"The event {service}/{name} version {version} is registered twice"
            raise ValueError(msg)
        if not model.__doc__:
            msg = f"The event {service}/{name} has no docstring for its subscribers"
            raise ValueError(msg)
        model.event_type = _types[key] = EventType(service, name, version, model)
        return model

    return register


def upcaster(service: str, name: str, from_version: int) -> Callable[[Upcaster], Upcaster]:
    """Register the function that reads the data of a version as that of the next one."""

    def register(function: Upcaster) -> Upcaster:
        _upcasters[service, name, from_version] = function
        return function

    return register


def event_types() -> Iterator[EventType]:
    """List every registered version of every event, ordered by owner, name and version."""
    _register_all()
    yield from (_types[key] for key in sorted(_types))


def event_type(service: str, name: str, version: int) -> EventType:
    """Find an event by owner, name and version.

    Raises
    ------
    UnknownEventError
        If there is none.
    """
    _register_all()
    try:
        return _types[service, name, version]
    except KeyError:
        msg = f"There is no event {service}/{name} version {version}"
        raise UnknownEventError(msg) from None


def load_event(service: str, name: str, version: int, data: Mapping[str, Any]) -> Event:
    """Read stored data as the newest version of its event.

    Older data is carried forward by its upcasters; the stored bytes stay as they are.

    Raises
    ------
    UnknownEventError
        If no model and no chain of upcasters leads from this version to a registered one.
    pydantic.ValidationError
        If the data does not fit the model.
    """
    current: dict[str, Any] = dict(data)
    while (step := _upcasters.get((service, name, version))) is not None:
        current, version = step(current), version + 1
    return event_type(service, name, version).model.model_validate(current)
