"""The tables service and the executor, as the scheduler sees them: their logs, written with the real event models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from stoa_chassis.bus import Bus, EventMessage
from stoa_contracts.canonical import digest
from stoa_contracts.envelope import Envelope
from stoa_contracts.events.executor import JobFinished, JobStarted
from stoa_contracts.events.tables import (
    AcceptedRow,
    EditedRow,
    ImportedOutputs,
    OutputsImported,
    OutputsRecorded,
    RestoredRow,
    RowEdited,
    RowLocked,
    RowsAccepted,
    RowsAdded,
    RowsConfirmed,
    RowsPinned,
    RowsRemoved,
    RowsRestored,
    TableCreated,
    TableDeleted,
    TableInvalidated,
    TableRenamed,
    WorkflowChanged,
)
from stoa_contracts.ids import new_id
from stoa_contracts.jobs import JobRequest
from stoa_contracts.registry import Event
from stoa_contracts.types import Cause, CauseKind, Column, FileReference, Outcome, RowInputs, TableKind, Usage

IMAGE = Column(name="image", role="input", type="string")
SIGMA = Column(name="sigma", role="input", type="float", default=5.0)
NOTE = Column(name="note", role="input", type=["null", "string"])
FLUX = Column(name="flux", role="output", type="float")

USAGE = Usage(wall_s=0.5, cpu_s=0.25, max_rss_bytes=1 << 20)


def version(name: str) -> str:
    """Give the digest that names a workflow version."""
    return digest(name)


class Neighbour:
    """The log of another service."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.envelopes: list[Envelope] = []
        self._versions: dict[str, int] = {}
        self._sent = 0

    def tell(self, stream: str, event: Event, *, actor: str = "jansky", correlationid: str | None = None) -> Envelope:
        self._versions[stream] = self._versions.get(stream, 0) + 1
        envelope = Envelope(
            id=new_id(),
            source=f"urn:stoa:{self.service}",
            type=event.event_type.type,
            subject=stream,
            time=datetime.now(UTC),
            dataschema=event.event_type.dataschema,
            position=str(len(self.envelopes) + 1),
            streamversion=self._versions[stream],
            actor=actor,
            correlationid=correlationid or new_id(),
            data=event.model_dump(mode="json"),
        )
        self.envelopes.append(envelope)
        return envelope

    @property
    def head(self) -> int:
        return len(self.envelopes)

    def fetch(self, source: str, after: int, until: int) -> Sequence[Envelope]:
        assert source == self.service
        return self.envelopes[after:until]

    async def relay(self, bus: Bus) -> None:
        """Put what is new on the bus."""
        new = self.envelopes[self._sent :]
        if not new:
            return
        messages = [EventMessage(item.bus_subject, item.id, item.to_bytes(), item.log_position) for item in new]
        tail = await bus.last_position(self.service)
        await bus.publish_events(self.service, messages, tail.sequence)
        # While the bus answered, more may have been told.
        self._sent += len(new)


class Tables(Neighbour):
    """The tables service."""

    def __init__(self) -> None:
        super().__init__("tables")

    def create(
        self,
        name: str,
        *,
        rows: int = 0,
        kind: TableKind = "worktable",
        workflow: str | None = "one",
        columns: Sequence[Column] = (IMAGE, SIGMA, NOTE, FLUX),
        actor: str = "jansky",
        project: str = "default",
    ) -> str:
        table = new_id()
        created = TableCreated(table=table, name=name, kind=kind, owner=actor, project=project)
        self.tell(table, created, actor=actor)
        if workflow is not None and kind == "worktable":
            self.change_workflow(table, workflow, columns=columns)
        if rows:
            self.add(table, *({"image": f"{name}-{number}.fits"} for number in range(1, rows + 1)))
        return table

    def change_workflow(
        self,
        table: str,
        workflow: str,
        previous: str | None = None,
        *,
        columns: Sequence[Column] = (IMAGE, SIGMA, NOTE, FLUX),
        actor: str = "jansky",
    ) -> None:
        changed = WorkflowChanged(
            table=table,
            workflow_version=version(workflow),
            previous_version=previous and version(previous),
            main="main.cwl",
            process_class="CommandLineTool",
            files=[],
            columns=list(columns),
        )
        self.tell(table, changed, actor=actor)

    def add(self, table: str, *inputs: dict[str, Any], first: int = 1, actor: str = "jansky") -> Envelope:
        rows = [RowInputs(row=row, inputs=values) for row, values in enumerate(inputs, first)]
        return self.tell(table, RowsAdded(table=table, rows=rows), actor=actor)

    def edit(
        self,
        table: str,
        row: int,
        revision: int,
        actor: str = "jansky",
        *,
        derived: bool = False,
        current: bool = False,
        **changes: Any,
    ) -> Envelope:
        edited = EditedRow(
            row=row, revision=revision, changes=changes, previous=dict.fromkeys(changes), current=current
        )
        cause = Cause(kind="upstream") if derived else None
        return self.tell(table, RowEdited(table=table, rows=[edited], cause=cause), actor=actor)

    def remove(self, table: str, *rows: int) -> None:
        self.tell(table, RowsRemoved(table=table, rows=list(rows)))

    def rename(self, table: str, name: str) -> None:
        self.tell(table, TableRenamed(table=table, name=name, description="", previous={}))

    def delete(self, table: str, name: str) -> None:
        self.tell(table, TableDeleted(table=table, name=name))

    def invalidate(self, table: str, rows: list[int] | None, *, suspected: bool = False) -> Envelope:
        cause = Cause(kind="upstream")
        return self.tell(table, TableInvalidated(table=table, cause=cause, rows=rows, suspected=suspected))

    def suspect(self, table: str, *rows: int) -> Envelope:
        return self.invalidate(table, list(rows), suspected=True)

    def confirm(self, table: str, rows: list[int] | None, kind: CauseKind = "upstream") -> Envelope:
        return self.tell(table, RowsConfirmed(table=table, rows=rows, cause=Cause(kind=kind)))

    def accept(self, table: str, row: int, revision: int, workflow: str = "one") -> None:
        accepted = AcceptedRow(row=row, revision=revision, workflow_version=version(workflow))
        self.tell(table, RowsAccepted(table=table, rows=[accepted], reason="only a comment changed"))

    def pin(self, table: str, row: int, workflow: str | None) -> None:
        self.tell(table, RowsPinned(table=table, rows=[row], workflow_version=workflow and version(workflow)))

    def restore(self, table: str, row: int, revision: int, **inputs: Any) -> None:
        restored = RestoredRow(row=row, revision=revision, inputs=inputs)
        self.tell(table, RowsRestored(table=table, rows=[restored], undoes=new_id()))

    def import_outputs(self, table: str, row: int, revision: int = 1) -> None:
        imported = ImportedOutputs(row=row, revision=revision, outputs={"flux": 2.0})
        source = FileReference(name="old.wtx", sha256=version("file"), size=3)
        self.tell(
            table,
            OutputsImported(table=table, workflow_version=version("one"), rows=[imported], imported_from=source),
        )

    def lock(self, table: str, *rows: int, locked: bool = True) -> None:
        self.tell(table, RowLocked(table=table, rows=list(rows), locked=locked))

    def record(self, job: JobRequest, *, belongs: bool | None = None) -> None:
        now = datetime.now(UTC)
        recorded = OutputsRecorded(
            table=job.table,
            row=job.row,
            revision=job.revision,
            workflow_version=job.workflow_version,
            job=job.job,
            attempt=job.attempt,
            outputs={"flux": 1.0},
            elements=None,
            differs=True,
            started=now,
            finished=now,
            usage=USAGE,
            belongs=belongs,
        )
        self.tell(job.table, recorded, actor=job.requested_by, correlationid=job.correlationid)


class Executor(Neighbour):
    """The executor."""

    def __init__(self) -> None:
        super().__init__("executor")

    def start(self, job: JobRequest, host: str = "green-bank") -> None:
        started = JobStarted(
            table=job.table,
            job=job.job,
            attempt=job.attempt,
            row=job.row,
            revision=job.revision,
            workflow_version=job.workflow_version,
            host=host,
            started=datetime.now(UTC),
        )
        self.tell(job.table, started, actor=job.requested_by, correlationid=job.correlationid)

    def finish(
        self,
        job: JobRequest,
        outcome: Outcome = "success",
        *,
        final: bool = True,
        at: datetime | None = None,
        error: str | None = None,
        reused_from: str | None = None,
    ) -> None:
        finished = at or datetime.now(UTC)
        ended = JobFinished(
            table=job.table,
            job=job.job,
            attempt=job.attempt,
            row=job.row,
            revision=job.revision,
            workflow_version=job.workflow_version,
            outcome=outcome,
            final=final,
            exit_code=0 if outcome == "success" else 1,
            outputs={"flux": 1.0} if outcome == "success" else None,
            error=error if outcome != "success" else None,
            host="green-bank",
            started=finished - timedelta(seconds=1),
            finished=finished,
            usage=USAGE,
            reused_from=reused_from,
        )
        self.tell(job.table, ended, actor=job.requested_by, correlationid=job.correlationid)
