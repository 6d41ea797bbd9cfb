"""Limits: how many jobs of a table, or of a person, are in flight at once at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stoa_contracts.events.scheduler import LimitSet

__all__ = ["PEOPLE", "UNLIMITED", "LimitKind", "Limits", "set_limit"]

LimitKind = Literal["table", "person"]

#: The stream of the limits that are a person's.
PEOPLE = "people"


@dataclass(frozen=True)
class Limits:
    """How many jobs are handed out and have not ended, at most; null where there is no limit."""

    tables: Mapping[str, int] = field(default_factory=dict)
    """By table, where it is not the default."""

    people: Mapping[str, int] = field(default_factory=dict)
    """By person, where it is not the default."""

    per_table: int | None = None
    """The default of a table."""

    per_person: int | None = None
    """The default of a person."""

    def leaves_table(self, table: str, in_flight: int) -> bool:
        """Tell whether a table may have another job in flight."""
        limit = self.tables.get(table, self.per_table)
        return limit is None or in_flight < limit

    def leaves_person(self, person: str, in_flight: int) -> bool:
        """Tell whether a person may have another job in flight."""
        limit = self.people.get(person, self.per_person)
        return limit is None or in_flight < limit


#: Nothing is held back.
UNLIMITED = Limits()


def set_limit(kind: LimitKind, name: str, running: int | None, previous: int | None) -> list[LimitSet]:
    """Say how many jobs may be in flight; nothing happens where it is so already.

    Parameters
    ----------
    kind, name
        The table by its id, or the person.
    running
        Null where the default holds again.
    previous
        The limit of its own that there was.
    """
    if running == previous:
        return []
    if kind == "table":
        return [LimitSet(table=name, running=running, previous=previous)]
    return [LimitSet(person=name, running=running, previous=previous)]
