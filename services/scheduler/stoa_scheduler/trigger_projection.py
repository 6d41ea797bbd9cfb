"""Evolve: the triggers of tables, and when they fire next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from stoa_contracts.events import scheduler
from stoa_contracts.types import Trigger
from stoa_scheduler.step import Step
from stoa_scheduler.triggers import next_firing

__all__ = ["TRIGGERS"]


def _trigger_set(step: Step, event: scheduler.TriggerSet) -> None:
    table, trigger = step.s.table, step.s.trigger
    step.execute(sa.update(table).where(table.c.id == event.table).values(mode=event.mode))
    here = trigger.c.table_id == event.table
    known = {found.trigger: found for found in step.execute(sa.select(trigger).where(here))}
    step.execute(sa.delete(trigger).where(here))
    new = []
    for specified in event.triggers:
        specification = specified.model_dump(mode="json")
        before = known.get(specified.trigger)
        if before is not None and before.specification == specification and event.previous == event.mode:
            # What nobody changed goes on as it was.
            new.append(dict(before._mapping))  # noqa: SLF001 - SQLAlchemy's documented accessor
            continue
        new.append(
            {
                "trigger": specified.trigger,
                "table_id": event.table,
                "specification": specification,
                "set_by": step.envelope.actor,
                "next_due": next_firing(specified, step.envelope.time),
                "fired": before and before.fired,
            }
        )
    if new:
        step.execute(sa.insert(trigger), new)


def _trigger_fired(step: Step, event: scheduler.TriggerFired) -> None:
    trigger = step.s.trigger
    statement = sa.select(trigger.c.specification, trigger.c.next_due).where(trigger.c.trigger == event.trigger)
    found = step.execute(statement).first()
    if found is None:
        return
    due = found.next_due
    if event.due is not None:
        specified = Trigger.model_validate(found.specification)
        # An interval goes on from where it ought to have been, so that it keeps its pace.
        due = next_firing(specified, event.due)
    fired = {} if event.run is None else {"fired": step.envelope.time}
    step.execute(sa.update(trigger).where(trigger.c.trigger == event.trigger).values(next_due=due, **fired))


TRIGGERS: Mapping[tuple[str, str], Callable[[Step, Any], None]] = {
    ("scheduler", "trigger-set"): _trigger_set,
    ("scheduler", "trigger-fired"): _trigger_fired,
}
