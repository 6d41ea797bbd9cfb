"""Carries out what people say of rows: accepted as current, pinned to a workflow version."""

from __future__ import annotations

from stoa_contracts.types import Cause
from stoa_tables import acceptance
from stoa_tables.acceptance_wire import Accepted, AcceptRows, ElementKey, Pinned, PinRows
from stoa_tables.cascade import Recorder
from stoa_tables.command_service import CommandService
from stoa_tables.commands import confirm, invalidate
from stoa_tables.domain import Table
from stoa_tables.queries import Queries
from stoa_tables.versions import VersionQueries
from stoa_tables.wire import TableDetail

__all__ = ["AcceptanceService"]


class AcceptanceService(CommandService):
    """The commands that decide by hand to what outputs belong."""

    async def accept(self, name: str, wanted: AcceptRows) -> Accepted:
        """Declare the outputs of stale rows to be those of their present inputs and workflow version."""
        self._refuse_too_many(wanted.rows or ())

        def command(recorder: Recorder) -> Accepted:
            store = recorder.store
            table = Queries(store).table(name)
            chosen = store.stale_with_outputs(table.id) if wanted.rows is None else wanted.rows
            rows = store.rows(table.id, chosen)
            events = acceptance.accept_rows(table, rows, wanted.rows, reason=wanted.reason)
            recorder.record(table.id, events)
            recorder.settle()
            accepted = [row.row for event in events for row in event.rows]
            suspected = [number for number in accepted if rows[number].suspected]
            return Accepted(rows=accepted, suspected=suspected, position=self._position(recorder))

        request = {"command": "accept", "table": name, **wanted.model_dump()}
        return await self._carry_out(request, command, Accepted)

    async def pin(self, name: str, wanted: PinRows) -> Pinned:
        """Let rows stay with a workflow version, or follow the table again."""
        self._refuse_too_many(wanted.rows)

        def command(recorder: Recorder) -> Pinned:
            table = Queries(recorder.store).table(name)
            version = wanted.version and VersionQueries(recorder.store).resolve(table, wanted.version)
            rows = recorder.store.rows(table.id, wanted.rows)
            events = acceptance.pin_rows(table, rows, wanted.rows, version)
            recorder.record(table.id, events)
            chosen = [row for event in events for row in event.rows]
            counts = version or table.workflow_version
            changed = [number for number in chosen if rows[number].own_version(table.workflow_version) != counts]
            self._tell_statuses(recorder, table, changed, version)
            return Pinned(rows=chosen, workflow_version=version, position=self._position(recorder))

        request = {"command": "pin", "table": name, **wanted.model_dump()}
        return await self._carry_out(request, command, Pinned)

    async def set_element_key(self, name: str, wanted: ElementKey) -> TableDetail:
        """Let elements be known by the value of an output column."""

        def command(recorder: Recorder) -> TableDetail:
            table = Queries(recorder.store).table(name)
            if events := acceptance.set_element_key(table, wanted.column):
                recorder.know_elements(table, wanted.column)
                recorder.record(table.id, events)
                recorder.settle()
            return self._detail(recorder, table.id)

        return await self._carry_out(None, command, TableDetail)

    @staticmethod
    def _tell_statuses(recorder: Recorder, table: Table, rows: list[int], version: str | None) -> None:
        """Say what rows are now that another version counts for them."""
        store = recorder.store
        cause = Cause(kind="workflow", table=table.id, workflow_version=version or table.workflow_version)
        present = store.rows(table.id, rows).values()
        current = [row.row for row in present if row.status == "current"]
        stale = [row.row for row in present if row.status == "stale" and not row.suspected]
        total = sum(store.counts(table.id).values())
        recorder.record(
            table.id, [*confirm(table.id, current, cause), *invalidate(table.id, stale, cause, total=total)]
        )
        recorder.settle()
