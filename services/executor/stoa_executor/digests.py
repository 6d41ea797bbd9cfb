"""What files and directories outside the store hold, by content, looked at as seldom as their states allow.

A digest is remembered for a state of a file: its size, the times of its last changes and its inode. While the state is the
same, the file is not read again. A file that changed less than `SETTLED_NS` before it was read could change once more
without a new time, so nothing is remembered of it, and it is read again the next time.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from stoa_chassis.database import Database, DatabaseUnavailableError
from stoa_contracts.canonical import digest
from stoa_executor.domain import path_id
from stoa_executor.models import file_digest

__all__ = [
    "SETTLED_NS",
    "ContentDigests",
    "ContentUnstableError",
    "Held",
    "InterruptedLookError",
    "Remembered",
]

#: The coarsest clock of a file system in use (FAT's), and of clocks that differ a little between machines.
SETTLED_NS = 2_000_000_000

_CHUNK = 1 << 20
_TRIES = 3
_REMEMBERED = 65_536
_QUERY = 500
_SAVED_AT_ONCE = 5_000
_LOCKS = 64

#: Names in a directory never hold a slash, so these cannot be mistaken for a file's.
_DIRECTORY = "/"
_LINK = "/@"
_UNREADABLE = "/!"


class ContentUnstableError(OSError):
    """The content changes while it is read."""


class InterruptedLookError(Exception):
    """Nobody waits for the digest any more."""


class Remembered(NamedTuple):
    """A digest and the state that it belongs to."""

    state: str
    sha256: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Held:
    """What a file or a directory held."""

    sha256: str
    size: int | None
    """Bytes; None for a directory."""
    state: str
    """Changes with whatever changes the content, and with some of what does not, such as a new hard link."""
    written: str
    """Changes only when somebody writes."""
    settled: bool
    """Whether the state would differ if it had changed since."""


class _State(NamedTuple):
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> _State:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    @property
    def text(self) -> str:
        return f"{self.size} {self.mtime_ns} {self.ctime_ns} {self.inode}"

    @property
    def written(self) -> str:
        return f"{self.size} {self.mtime_ns} {self.inode}"

    def settled_at(self, now_ns: int) -> bool:
        return max(self.mtime_ns, self.ctime_ns) < now_ns - SETTLED_NS


@dataclass(slots=True)
class _Tree:
    """A directory as it is found: what it holds in names, and the states of the files."""

    directories: dict[str, _Tree] = field(default_factory=dict)
    files: dict[str, tuple[str, _State]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    """Marked names of what is not read, with a digest of what can be said about it."""


class _Walk:
    """One look at a directory and all below it, without reading a file.

    A link is followed where it leads to a file or a directory below one of the roots, to each directory once; of any other
    link its text counts.
    """

    def __init__(self, path: str, roots: Sequence[str], interrupted: Callable[[], bool]) -> None:
        self._top = os.path.realpath(path)
        self._roots = roots
        self._interrupted = interrupted
        self._followed: set[tuple[int, int]] = set()
        self._state = hashlib.sha256()
        self._written = hashlib.sha256()
        self.started_ns = time.time_ns()
        self.settled = True
        self.tree = self._directory(path, "")

    @property
    def state(self) -> str:
        """Changes with the state of anything below."""
        return f"/{self._state.hexdigest()}"

    @property
    def written(self) -> str:
        """Changes when anything below is written to, added, removed or renamed."""
        return f"/{self._written.hexdigest()}"

    def _note(self, name: str, state: str, written: str) -> None:
        self._state.update(os.fsencode(f"{name}\0{state}\n"))
        self._written.update(os.fsencode(f"{name}\0{written}\n"))

    def _directory(self, path: str, name: str) -> _Tree:
        if self._interrupted():
            raise InterruptedLookError
        tree = _Tree()
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            self._entry(tree, entry, f"{name}/{entry.name}")
        return tree

    def _entry(self, tree: _Tree, entry: os.DirEntry[str], name: str) -> None:
        shown = os.fsencode(entry.name).decode(errors="backslashreplace")
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                followed = self._behind(entry.path)
                if followed is None:
                    text = os.fsencode(os.readlink(entry.path)).decode(errors="backslashreplace")
                    self._other(tree, shown + _LINK, name, text)
                    return
                status = followed
            if stat.S_ISREG(status.st_mode):
                state = _State.of(status)
                self.settled &= state.settled_at(self.started_ns)
                self._note(name, state.text, state.written)
                tree.files[shown] = (entry.path, state)
            elif stat.S_ISDIR(status.st_mode):
                self._note(name, "/", "/")
                tree.directories[shown] = self._directory(entry.path, name)
            else:
                self._other(tree, shown + _UNREADABLE, name, oct(stat.S_IFMT(status.st_mode)))
        except FileNotFoundError:
            # Gone between the listing and the look: the next look will differ.
            self.settled = False
        except PermissionError:
            self._other(tree, shown + _UNREADABLE, name, "may not be read")

    def _other(self, tree: _Tree, marked: str, name: str, text: str) -> None:
        self._note(name, text, text)
        tree.others[marked] = digest(text)

    def _behind(self, path: str) -> os.stat_result | None:
        """Give what a link leads to, or None if it is not to be followed."""
        real = os.path.realpath(path)
        if not any(_within(real, root) for root in self._roots):
            return None
        try:
            status = os.stat(real)
        except OSError:
            return None
        if stat.S_ISDIR(status.st_mode):
            # Below the top it is seen under its own name; elsewhere once is enough, and ends circles.
            known = (status.st_dev, status.st_ino)
            if known in self._followed or _within(real, self._top) or _within(self._top, real):
                return None
            self._followed.add(known)
        return status


class ContentDigests:
    """Digests of files and directories, remembered in memory and in the executor's database.

    Parameters
    ----------
    database
        Where digests outlive the process.
    roots
        The folders from which jobs may read: nothing outside of them is read on behalf of a directory's links.

    Notes
    -----
    Every call does blocking disk work and belongs in a thread; several threads may call at once. A directory of many files
    costs one look at each file's state, and reads only the files whose states are new.
    """

    def __init__(self, database: Database, roots: Iterable[Path] = ()) -> None:
        self._database = database
        self._roots = [os.path.realpath(root) for root in roots]
        self._known: OrderedDict[str, Remembered] = OrderedDict()
        self._unsaved: dict[str, Remembered] = {}
        self._lock = threading.Lock()
        # Of two jobs that read the same new file, one reads it.
        self._reading = [threading.Lock() for _ in range(_LOCKS)]

    def look(
        self,
        path: str,
        *,
        remembered: Remembered | None = None,
        recall: bool = True,
        inside_roots: bool = True,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Held:
        """Say what a file or a directory holds.

        Parameters
        ----------
        path
            An absolute path; a link at its end is followed.
        remembered
            What the caller read from the database about this path.
        recall
            Whether to ask the database about this path where it is not in memory.
        inside_roots
            Whether the path has to lie below one of the roots, also where a link leads elsewhere just now.
        interrupted
            Asked from time to time; once it is true, the look ends.

        Returns
        -------
        Held
            Its content.

        Raises
        ------
        OSError
            If it cannot be read; `FileNotFoundError` if there is no such file or directory.
        ContentUnstableError
            If it is being written to.
        InterruptedLookError
            If ``interrupted`` said so.
        """
        if remembered is not None:
            self._remember(path, remembered)
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            roots = self._roots if inside_roots else [*self._roots, os.path.realpath(path)]
            return self._look_at_directory(path, roots, interrupted, recall=recall)
        if not stat.S_ISREG(status.st_mode):
            msg = f"{path} is neither a file nor a directory."
            raise PermissionError(msg)
        known = self._recall([path], ask=recall).get(path)
        state = _State.of(status)
        if known is not None and known.state == state.text:
            return Held(known.sha256, known.size, state.text, state.written, settled=True)
        return self._read(path, self._roots if inside_roots else None, interrupted)

    def fetch(self, paths: Sequence[str]) -> None:
        """Ask the database about many paths at once, so that looks at them need not."""
        self._recall(paths)

    def state(self, path: str, *, inside_roots: bool = True) -> tuple[str, str]:
        """Give the state of a file or a directory, and what of it only writing changes, without reading any content.

        Raises
        ------
        OSError
            If it is gone.
        """
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            roots = self._roots if inside_roots else [*self._roots, os.path.realpath(path)]
            walk = _Walk(path, roots, lambda: False)
            return walk.state, walk.written
        state = _State.of(status)
        return state.text, state.written

    @property
    def has_news(self) -> bool:
        """Whether something was learned that is not in the database."""
        return bool(self._unsaved)

    async def save(self) -> None:
        """Write what was learned into the database."""
        with self._lock:
            unsaved, self._unsaved = self._unsaved, {}
        for batch in _batches(unsaved.items(), _SAVED_AT_ONCE):
            rows = [{"path": path_id(path), **item._asdict()} for path, item in batch]
            await self._database.write(lambda connection, rows=rows: _save(connection, rows))  # type: ignore[misc]

    def forget(self, path: str) -> None:
        """Drop a path from memory, because it is gone."""
        with self._lock:
            self._known.pop(path, None)
            self._unsaved.pop(path, None)

    # --- one file ----------------------------------------------------------------------------------------------------

    def _read(self, path: str, roots: Sequence[str] | None, interrupted: Callable[[], bool]) -> Held:
        with self._reading[hash(path) % _LOCKS]:
            known = self._known.get(path)
            for _ in range(_TRIES):
                handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
                with open(handle, "rb", buffering=0) as file:
                    before = os.fstat(handle)
                    if not stat.S_ISREG(before.st_mode):
                        msg = f"{path} is not a regular file."
                        raise PermissionError(msg)
                    state = _State.of(before)
                    if known is not None and known.state == state.text:
                        return Held(known.sha256, known.size, state.text, state.written, settled=True)
                    if roots is not None and not _is_open_within(handle, roots):
                        msg = f"{path} leads outside the directories that may be read."
                        raise PermissionError(msg)
                    started_ns = time.time_ns()
                    sha256 = _hash(file, interrupted)
                    if _State.of(os.fstat(handle)) == state:
                        settled = state.settled_at(started_ns)
                        if settled:
                            self._learn(path, Remembered(state.text, sha256, state.size))
                        return Held(sha256, state.size, state.text, state.written, settled)
        msg = f"{path} is being written to."
        raise ContentUnstableError(msg)

    # --- directories -------------------------------------------------------------------------------------------------

    def _look_at_directory(
        self, path: str, roots: Sequence[str], interrupted: Callable[[], bool], *, recall: bool
    ) -> Held:
        walk = _Walk(path, roots, interrupted)
        for _ in range(_TRIES):
            known = self._recall([path], ask=recall).get(path)
            if known is not None and known.state == walk.state:
                return Held(known.sha256, None, walk.state, walk.written, settled=True)
            try:
                sha256 = self._digest_tree(walk.tree, roots, interrupted)
            except FileNotFoundError:
                sha256 = None
            again = _Walk(path, roots, interrupted)
            if sha256 is not None and again.state == walk.state:
                if walk.settled:
                    self._learn(path, Remembered(walk.state, sha256, None))
                return Held(sha256, None, walk.state, walk.written, walk.settled)
            walk = again
        msg = f"{path} is being written to."
        raise ContentUnstableError(msg)

    def _digest_tree(self, tree: _Tree, roots: Sequence[str], interrupted: Callable[[], bool]) -> str:
        held: dict[str, str] = dict(tree.others)
        known = self._recall([path for path, _ in tree.files.values()])
        for name, (path, state) in tree.files.items():
            item = known.get(path)
            if item is not None and item.state == state.text:
                held[name] = item.sha256
                continue
            try:
                held[name] = self._read(path, roots, interrupted).sha256
            except PermissionError:
                held[name + _UNREADABLE] = digest(state.written)
        for name, below in tree.directories.items():
            held[name + _DIRECTORY] = self._digest_tree(below, roots, interrupted)
        return digest(held)

    # --- what is known -----------------------------------------------------------------------------------------------

    def _recall(self, paths: Sequence[str], *, ask: bool = True) -> Mapping[str, Remembered]:
        found: dict[str, Remembered] = {}
        with self._lock:
            for path in paths:
                item = self._known.get(path)
                if item is not None:
                    self._known.move_to_end(path)
                    found[path] = item
        missing = {path_id(path): path for path in paths if path not in found} if ask else {}
        if missing:
            # Without the database nothing is remembered, and the files are read.
            with suppress(DatabaseUnavailableError), self._database.reading() as connection:
                for batch in _batches(missing, _QUERY):
                    statement = sa.select(file_digest).where(file_digest.c.path.in_(batch))
                    for row in connection.execute(statement):
                        found[missing[row.path]] = Remembered(row.state, row.sha256, row.size)
            for path in missing.values():
                if path in found:
                    self._remember(path, found[path])
        return found

    def _remember(self, path: str, item: Remembered) -> None:
        with self._lock:
            self._known[path] = item
            self._known.move_to_end(path)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def _learn(self, path: str, item: Remembered) -> None:
        self._remember(path, item)
        with self._lock:
            self._unsaved[path] = item


def _save(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    for batch in _batches((row["path"] for row in rows), _QUERY):
        connection.execute(sa.delete(file_digest).where(file_digest.c.path.in_(batch)))
    connection.execute(sa.insert(file_digest), rows)


def _hash(file: Any, interrupted: Callable[[], bool]) -> str:
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    while size := file.readinto(buffer):
        hasher.update(buffer[:size])
        if interrupted():
            raise InterruptedLookError
    return hasher.hexdigest()


def _is_open_within(handle: int, roots: Sequence[str]) -> bool:
    """Tell where an open file lies, whatever its path led to before or leads to by now."""
    real = os.readlink(f"/proc/self/fd/{handle}")
    return any(_within(real, root) for root in roots)


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
