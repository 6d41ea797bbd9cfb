"""Makes the parts that answer a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa
from structlog.stdlib import BoundLogger

from stoa_chassis.log import Origin
from stoa_tables.acceptance_service import AcceptanceService
from stoa_tables.command_service import CommandService
from stoa_tables.correction_service import CorrectionService
from stoa_tables.history_queries import HistoryQueries
from stoa_tables.import_service import ImportService
from stoa_tables.link_service import LinkService
from stoa_tables.marks_service import MarkService
from stoa_tables.moments import AsOf
from stoa_tables.preview import Rehearsal
from stoa_tables.queries import Queries
from stoa_tables.service import TableService
from stoa_tables.store import Store
from stoa_tables.undo_service import UndoService
from stoa_tables.versions import VersionService
from stoa_tables.worktable_file_service import WorktableFileService

if TYPE_CHECKING:
    from stoa_tables.context import TablesContext

__all__ = ["Factory"]

_A = TypeVar("_A")
_S = TypeVar("_S", bound=CommandService)


class Factory:
    """Makes the parts that answer a request.

    Parameters
    ----------
    context
        Of the process.
    origin
        Who asks.
    key
        The request's idempotency key, if it has one.
    logger
        Bound to the request.
    """

    def __init__(self, context: TablesContext, origin: Origin, key: str | None, logger: BoundLogger) -> None:
        self._context = context
        self._origin = origin
        self._key = key
        self._logger = logger

    def create_table_service(self) -> TableService:
        """Make what carries out commands."""
        return self._create(TableService)

    def create_version_service(self) -> VersionService:
        """Make what restores workflow versions."""
        return self._create(VersionService)

    def create_link_service(self) -> LinkService:
        """Make what carries out commands that concern links."""
        return self._create(LinkService)

    def create_acceptance_service(self) -> AcceptanceService:
        """Make what accepts rows as current and pins them to workflow versions."""
        return self._create(AcceptanceService)

    def create_correction_service(self) -> CorrectionService:
        """Make what carries out commands that concern corrections."""
        return self._create(CorrectionService)

    def create_undo_service(self) -> UndoService:
        """Make what undoes and redoes people's own edits."""
        return self._create(UndoService)

    def create_mark_service(self) -> MarkService:
        """Make what carries out commands of flags, comments, locks and views."""
        return self._create(MarkService)

    def create_worktable_file_service(self) -> WorktableFileService:
        """Make what imports worktable files."""
        return self._create(WorktableFileService)

    def create_rehearsal(self) -> Rehearsal:
        """Make what carries out commands and undoes them."""
        return Rehearsal(self._context.database, self._context.events)

    def create_rehearsed_service(self, service: type[_S], rehearsal: Rehearsal) -> _S:
        """Make a service whose commands are undone."""
        return self._create(service, rehearsal)

    def _create(self, service: type[_S], rehearsal: Rehearsal | None = None) -> _S:
        return service(
            database=rehearsal or self._context.database,
            events=self._context.events,
            settings=self._context.settings,
            origin=self._origin,
            # A rehearsal leaves nothing behind, no key either.
            key=None if rehearsal else self._key,
            logger=self._logger,
        )

    def create_import_service(self) -> ImportService:
        """Make what imports files."""
        return self._create(ImportService)

    async def ask(self, question: Callable[[Queries, int], _A]) -> _A:
        """Answer a question from one consistent view of the read model.

        Parameters
        ----------
        question
            Gets the queries and the position of the log that they show.
        """

        def read(connection: sa.Connection) -> _A:
            store = Store(connection, self._context.events.tables)
            return question(Queries(store), self._context.log.head(connection))

        return await self._context.database.read(read)

    async def ask_about(self, table: str, as_of: AsOf | None, question: Callable[[Queries, int, str], _A]) -> _A:
        """Answer a question about one table, as it is or as it was.

        Parameters
        ----------
        table
            Its id or name.
        as_of
            The moment, or None for the present.
        question
            Gets the queries, the position of the log that they show, and what the table is called there.
        """
        if as_of is None:
            return await self.ask(lambda queries, position: question(queries, position, table))
        return await self._context.moments.ask(
            table, as_of, lambda store, position, found: question(Queries(store), position, found)
        )

    @property
    def history(self) -> HistoryQueries:
        """What compares moments and tells the history of cells."""
        return self._context.history

    def rebind_logger(self, logger: BoundLogger) -> None:
        """Use another logger from now on."""
        self._logger = logger
