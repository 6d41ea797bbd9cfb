"""What people ask about the queue as a whole: what waits, whose it is, how fast it goes, and what is held back."""

from __future__ import annotations

import sqlalchemy as sa

from stoa_scheduler.limits import PEOPLE, LimitKind, set_limit
from stoa_scheduler.queue_store import QueueStore
from stoa_scheduler.store import SchedulerStore
from stoa_scheduler.transactions import Committed, Transactions
from stoa_scheduler.views import Limit, LimitList, LimitRequest, ProgressReport, Queue

__all__ = ["QueueService"]


class QueueService(Transactions):
    """Carries out commands on the queue, and answers questions about it, on behalf of one person."""

    async def queue(self) -> Queue:
        """Count the jobs that have not ended."""
        return await self._database.read(lambda connection: QueueStore(connection).queue())

    async def set_limit(self, request: LimitRequest) -> Committed[Limit]:
        """Set how many jobs of a table, or of a person, are in flight at once at most.

        Raises
        ------
        NotFoundError
            If there is no such table.
        BehindError
            If the change that the request is to follow has not been heard of.
        """
        await self._wait_for(request.after)

        def command(connection: sa.Connection) -> Committed[Limit]:
            table = None if request.table is None else SchedulerStore(connection).table(request.table)
            kind: LimitKind = "person" if table is None else "table"
            name = (request.person or "") if table is None else table.id
            previous = QueueStore(connection).limit(kind, name)
            events = set_limit(kind, name, request.running, previous)
            self._events.record(connection, PEOPLE if table is None else name, events, self._origin)
            if table is None:
                limit = Limit(person=name, running=request.running)
            else:
                limit = Limit(table=table.id, name=table.name, running=request.running)
            return Committed(limit, self._events.log.head(connection))

        return await self._database.write(command)

    async def limits(self, *, after: str | None, limit: int) -> LimitList:
        """List the limits."""
        settings = self._settings

        def query(connection: sa.Connection) -> LimitList:
            return QueueStore(connection).limit_list(
                per_table=settings.limit_per_table, per_person=settings.limit_per_person, after=after, most=limit
            )

        return await self._database.read(query)

    async def progress(
        self, *, table: str | None, project: str | None, after: str | None, limit: int
    ) -> ProgressReport:
        """Tell how far a table got, or the tables of a project, or all; the table is named by its id or its name.

        Raises
        ------
        NotFoundError
            If there is no such table or project.
        """
        now = self._clock()

        def query(connection: sa.Connection) -> ProgressReport:
            store = SchedulerStore(connection)
            if project is not None:
                store.worktables(project)
            return QueueStore(connection).progress(
                table=None if table is None else store.table(table).id,
                project=project,
                now=now,
                after=after,
                most=limit,
            )

        return await self._database.read(query)
