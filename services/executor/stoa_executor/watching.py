"""Notices when a file or directory that jobs have read holds something else, and tells it once.

Three things make it look: the kernel's word that something changed in a folder, the clock, and whoever asks. All lead to the
same comparison of what the location holds with what was last told of it, and SQL decides who tells the difference.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
import structlog
from watchfiles import awatch

from stoa_chassis.database import Database, DatabaseUnavailableError
from stoa_chassis.log import Origin
from stoa_chassis.projection import EventStore
from stoa_chassis.waiting import wait_any
from stoa_contracts.events.executor import FileChanged
from stoa_contracts.ids import new_id
from stoa_contracts.types import InputFile
from stoa_executor.digests import SETTLED_NS, ContentDigests, ContentUnstableError, Remembered
from stoa_executor.domain import local_path, path_id
from stoa_executor.models import file_digest, watched_file

__all__ = ["MOST_CHANGED", "FileWatcher", "Rechecked"]

#: So many changes are given back at the most; all of them are told.
MOST_CHANGED = 1000

#: The stream of its events.
_STREAM = "files"
_ACTOR = "stoa"

_PAGE = 500
_SHARE = 0.1
"""Of a processor's time for looking at files by the clock."""
_QUIET_S = SETTLED_NS / 1e9 + 0.1
_MOST_POSTPONED = 10_000
_MOST_SEEN = 100_000
_RESTART_S = 1.0

#: A file system that is away for a while says nothing about its files.
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP})

_watched = (
    sa.select(
        watched_file.c.id,
        watched_file.c.location,
        watched_file.c.sha256,
        watched_file.c.gone,
        watched_file.c.directory,
        file_digest.c.state,
        file_digest.c.sha256.label("remembered"),
        file_digest.c.size,
    )
    .select_from(watched_file.outerjoin(file_digest, file_digest.c.path == watched_file.c.path))
    .order_by(watched_file.c.id)
)
_by_page = _watched.where(watched_file.c.id > sa.bindparam("b_after")).limit(_PAGE)
_count = sa.select(sa.func.count()).select_from(watched_file)


@dataclass(slots=True)
class Rechecked:
    """What a look at files found."""

    checked: int = 0
    skipped: int = 0
    """Locations outside the folders that this executor may read, or on a file system that does not answer."""
    changes: int = 0
    """Locations of which something was told."""
    changed: list[FileChanged] = field(default_factory=list)
    """The first of what was told."""
    unknown: list[str] = field(default_factory=list)
    """Locations that were asked for and that no job has read."""


@dataclass(frozen=True, slots=True)
class _Finding:
    id: str
    location: str
    seen: tuple[str, bool]
    """What was last told: content, and whether it was gone."""
    sha256: str | None
    size: int | None


_Verdict = _Finding | Literal["same", "later", "skipped"]


class FileWatcher:
    """Looks at the files that jobs have read, and tells what changed.

    Parameters
    ----------
    database, events
        Of the process.
    digests
        Says what files hold.
    roots
        The folders from which jobs may read; nothing is said about what lies outside.
    period
        Seconds in which every location is looked at once.
    folders
        So many folders are watched at the most.
    """

    def __init__(
        self,
        *,
        database: Database,
        events: EventStore,
        digests: ContentDigests,
        roots: Iterable[Path],
        period: float,
        folders: int,
    ) -> None:
        self._database = database
        self._events = events
        self._digests = digests
        self._roots = [os.path.realpath(root) for root in roots]
        self._period = period
        self._most_folders = folders
        self._folders: set[str] = set()
        self._trees: set[str] = set()
        self._more = asyncio.Event()
        self._read: dict[str, str] = {}
        self._noticed: list[str] = []
        self._postponed: dict[str, float] = {}
        """When locations were found gone, or just being written to."""
        self._wake = asyncio.Event()
        self._logger = structlog.get_logger("stoa.executor.watching")

    def notice(self, files: Sequence[InputFile]) -> None:
        """Take up what a job has read: it may differ from what was told of it."""
        for file in files:
            if self._read.get(file.location) == file.sha256:
                continue
            if len(self._read) >= _MOST_SEEN:
                self._read.clear()
            self._read[file.location] = file.sha256
            self._noticed.append(file.location)
            self._add_folder(file.location, directory=file.size is None)
            self._wake.set()

    async def recheck(
        self, locations: Sequence[str] | None, origin: Origin, stop: Callable[[], bool] = lambda: False
    ) -> Rechecked:
        """Look at once, also at what is just being written.

        Parameters
        ----------
        locations
            URIs or absolute paths; a file in a directory that was read counts for that directory. None for all.
        origin
            Who asks.
        stop
            Asked between two pages.
        """
        done = Rechecked()
        if locations is None:
            after = ""
            while (page := await self._page(after)) and not stop():
                after = page[-1].id
                await self._compare(page, origin, done, patient=False)
            return done
        asked = {path_id(path): location for location in locations if (path := local_path(location)) is not None}
        paths = {name: above for name, location in asked.items() for above in [list(_and_above(location))]}
        rows = await self._at([*{each for above in paths.values() for each in above}])
        found = {row.path for row in rows}
        done.unknown = [location for location in locations if local_path(location) is None]
        done.unknown += [asked[name] for name, above in paths.items() if found.isdisjoint(above)]
        for page in _pages(rows):
            await self._compare(page, origin, done, patient=False)
        return done

    # --- loops -------------------------------------------------------------------------------------------------------

    async def look_by_the_clock(self, stop: asyncio.Event) -> None:
        """Look at every location once in a period, a page at a time."""
        while not stop.is_set():
            try:
                total = await self._database.read(lambda connection: connection.execute(_count).scalar_one())
                pages = max(1, -(-total // _PAGE))
                after = ""
                rested = False
                while page := await self._page(after):
                    after = page[-1].id
                    started = time.monotonic()
                    await self._compare(page, _origin(), Rechecked(), patient=True)
                    for row in page:
                        if not row.gone:
                            self._add_folder(row.location, directory=row.directory)
                    took = time.monotonic() - started
                    rested = True
                    if await wait_any(stop, seconds=max(took / _SHARE, self._period / pages)):
                        return
                if not rested:
                    await wait_any(stop, seconds=self._period)
            except DatabaseUnavailableError as error:
                self._logger.warning("files are not looked at without the database", error=str(error))
                await wait_any(stop, seconds=self._period)

    async def look_again(self, stop: asyncio.Event) -> None:
        """Look at what was just read, and once more at what was gone or being written to a moment ago."""
        while not stop.is_set():
            await wait_any(stop, self._wake, seconds=_QUIET_S / 2 if self._postponed else None)
            self._wake.clear()
            noticed, self._noticed = self._noticed, []
            due = [place for place, since in self._postponed.items() if time.monotonic() - since >= _QUIET_S]
            try:
                await self._look_at(noticed, patient=False)
                await self._look_at(due, patient=True)
            except DatabaseUnavailableError as error:
                # All of it comes up again by the clock.
                self._postponed.clear()
                self._logger.warning("files are not looked at without the database", error=str(error))

    async def listen(self, stop: asyncio.Event) -> None:
        """Look at once where the kernel says that something changed in a folder.

        Folders of other machines are not covered by this, nor more folders than the kernel watches: there the clock has to do.
        """
        while not stop.is_set():
            self._more.clear()
            folders, trees = await asyncio.to_thread(self._existing_folders)
            if not folders and not trees:
                await wait_any(self._more, stop)
                continue
            renew = asyncio.Event()
            listeners = [
                asyncio.create_task(self._listen_to(paths, renew, recursive=recursive))
                for paths, recursive in ((folders, False), (trees, True))
                if paths
            ]
            await wait_any(self._more, stop)
            # A table that runs for the first time names a new folder with every row.
            await wait_any(stop, seconds=_RESTART_S)
            renew.set()
            await asyncio.gather(*listeners)

    async def _listen_to(self, paths: Sequence[str], renew: asyncio.Event, *, recursive: bool) -> None:
        try:
            async for changes in awatch(
                *paths,
                watch_filter=None,
                stop_event=renew,
                recursive=recursive,
                ignore_permission_denied=True,
            ):
                names = {each for _, path in changes for each in _and_above(path)}
                for page in _pages(await self._at([*names])):
                    await self._compare(page, _origin(), Rechecked(), patient=True)
        except (OSError, DatabaseUnavailableError) as error:
            self._logger.warning("folders are not watched; their files are looked at by the clock", error=str(error))

    def _existing_folders(self) -> tuple[list[str], list[str]]:
        return [path for path in self._folders if os.path.isdir(path)], [p for p in self._trees if os.path.isdir(p)]

    def _add_folder(self, location: str, *, directory: bool) -> None:
        path = local_path(location)
        if path is None or len(self._folders) + len(self._trees) >= self._most_folders:
            return
        known, folder = (self._trees, path) if directory else (self._folders, os.path.dirname(path))
        if folder not in known and self._is_ours(folder):
            known.add(folder)
            self._more.set()

    # --- looking -----------------------------------------------------------------------------------------------------

    async def _page(self, after: str) -> Sequence[Any]:
        return await self._database.read(lambda connection: connection.execute(_by_page, {"b_after": after}).all())

    async def _at(self, paths: Sequence[str]) -> list[Any]:
        """Find the locations that lead to paths, which are given as `path_id` names them."""
        statement = _watched.add_columns(watched_file.c.path)

        def find(connection: sa.Connection) -> list[Any]:
            return [
                row
                for some in _pages(paths)
                for row in connection.execute(statement.where(watched_file.c.path.in_(some)))
            ]

        return await self._database.read(find)

    async def _look_at(self, locations: Sequence[str], *, patient: bool) -> None:
        paths = [path_id(path) for location in locations if (path := local_path(location)) is not None]
        for page in _pages(await self._at(paths)):
            await self._compare(page, _origin(), Rechecked(), patient=patient)

    async def _compare(self, rows: Sequence[Any], origin: Origin, done: Rechecked, *, patient: bool) -> None:
        """Look at locations, and tell what differs from what was told of them."""
        verdicts = await asyncio.to_thread(lambda: [self._verdict(row) for row in rows])
        told = []
        now = time.monotonic()
        for row, verdict in zip(rows, verdicts, strict=True):
            since = self._postponed.pop(row.location, None)
            done.checked += verdict != "skipped"
            done.skipped += verdict == "skipped"
            if isinstance(verdict, _Finding):
                # Whoever replaces a file may take it away for a moment, and a file that grows is not worth a run.
                if not patient or (_is_quiet(verdict) if verdict.sha256 else _is_past(since, now)):
                    told.append(verdict)
                else:
                    self._postpone(row.location, now if since is None or verdict.sha256 else since)
            elif verdict == "later":
                self._postpone(row.location, now)
        if told:
            changed = await self._database.write(lambda connection: self._tell(connection, told, origin))
            done.changes += len(changed)
            done.changed += changed[: max(0, MOST_CHANGED - len(done.changed))]
        await self._digests.save()

    def _verdict(self, row: Any) -> _Verdict:
        path = local_path(row.location)
        if path is None or not self._is_ours(path):
            return "skipped"
        remembered = None if row.state is None else Remembered(row.state, row.remembered, row.size)
        try:
            held = self._digests.look(path, remembered=remembered, recall=False)
        except ContentUnstableError:
            return "later"
        except OSError as error:
            return self._verdict_on_absence(row, path, error)
        if held.sha256 == row.sha256 and not row.gone:
            return "same"
        return _Finding(row.id, row.location, (row.sha256, row.gone), held.sha256, held.size)

    def _verdict_on_absence(self, row: Any, path: str, error: OSError) -> _Verdict:
        self._digests.forget(path)
        if (error.errno is not None and error.errno not in _GONE) or not self._has_root(path):
            return "skipped"
        return "same" if row.gone else _Finding(row.id, row.location, (row.sha256, False), None, None)

    def _postpone(self, location: str, since: float) -> None:
        if len(self._postponed) < _MOST_POSTPONED:
            self._postponed[location] = since
            self._wake.set()

    def _is_ours(self, path: str) -> bool:
        return any(
            _within(os.path.abspath(path), root) or _within(os.path.realpath(path), root) for root in self._roots
        )

    def _has_root(self, path: str) -> bool:
        """Tell whether the folder is there that was opened for inputs: without it, a disk is missing and no file."""
        places = os.path.abspath(path), os.path.realpath(path)
        return any(os.path.isdir(root) and any(_within(place, root) for place in places) for root in self._roots)

    def _tell(self, connection: sa.Connection, findings: Sequence[_Finding], origin: Origin) -> list[FileChanged]:
        """Record what nobody has told meanwhile."""
        states: dict[str, tuple[str, bool]] = {}
        for some in _pages([finding.id for finding in findings]):
            statement = sa.select(watched_file.c.id, watched_file.c.sha256, watched_file.c.gone)
            for row in connection.execute(statement.where(watched_file.c.id.in_(some))):
                states[row.id] = (row.sha256, row.gone)
        events = [
            FileChanged(location=finding.location, previous=finding.seen[0], sha256=finding.sha256, size=finding.size)
            for finding in findings
            if states.get(finding.id) == finding.seen
        ]
        self._events.record(connection, _STREAM, events, origin)
        return events


def _is_quiet(finding: _Finding) -> bool:
    """Tell whether nobody wrote to a file just now, so that no more is to be expected."""
    path = local_path(finding.location)
    try:
        return path is not None and os.stat(path).st_mtime_ns < time.time_ns() - SETTLED_NS
    except OSError:
        return False


def _is_past(since: float | None, now: float) -> bool:
    return since is not None and now - since >= _QUIET_S


def _origin() -> Origin:
    return Origin(actor=_ACTOR, correlationid=new_id())


def _and_above(location: str) -> Iterator[str]:
    """Name a path and the folders above it, as `path_id` does."""
    path = local_path(location)
    while path is not None:
        yield path_id(path)
        above = os.path.dirname(path)
        path = None if above == path else above


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _pages(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while page := list(islice(iterator, _PAGE)):
        yield page
