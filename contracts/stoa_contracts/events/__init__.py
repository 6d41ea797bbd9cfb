"""Every event that a service of Stoa emits, by owner."""

from __future__ import annotations

from stoa_contracts.events import earlier, executor, scheduler, tables
from stoa_contracts.registry import Event, EventType, event_types, load_event

__all__ = ["Event", "EventType", "earlier", "event_types", "executor", "load_event", "scheduler", "tables"]
