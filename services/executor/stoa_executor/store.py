"""The content-addressed file store: files named by the SHA-256 of their bytes.

A digest is handed out only after the bytes, and the directory entry that names them, have reached the disk.
Whatever process or machine dies at whatever moment, a name under ``sha256/`` holds either the whole file or nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

__all__ = ["FileStore", "FileTooLargeError", "StoredFile", "UnknownFileError", "is_digest"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_READ_ONLY = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_CHUNK = 1024 * 1024


class UnknownFileError(LookupError):
    """The store holds no file of that digest."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"The file store holds no file with the digest sha256:{digest}.")
        self.digest = digest


class FileTooLargeError(ValueError):
    """An upload has more bytes than the store takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The file has more than the {limit} bytes that are taken in one upload.")
        self.limit = limit


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What the store says about a file that it took.

    Attributes
    ----------
    digest
        SHA-256 of the content, 64 hexadecimal digits.
    size
        Number of bytes.
    new
        Whether the content was not in the store before.
    """

    digest: str
    size: int
    new: bool


def is_digest(text: str) -> bool:
    """Tell whether a text is 64 lower-case hexadecimal digits.

    Parameters
    ----------
    text
        What may be a digest.

    Returns
    -------
    bool
        True for a digest.
    """
    return _DIGEST.fullmatch(text) is not None


class FileStore:
    """Files by the SHA-256 of their content, in ``root/sha256/ab/cdef…``.

    Several processes may use one directory at the same time: a file appears under its name in one step, and two writers of
    the same content end with one file.

    Parameters
    ----------
    root
        The directory of the store; made where it is missing.

    Notes
    -----
    Every call does blocking disk work: coroutines call it in a thread (`put_stream` excepted, which sees to that itself).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "sha256"
        self._temporary = root / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        if not (self._objects / "ff").is_dir():
            # All 256 at once, so that a new file costs one synchronised directory and never two.
            for byte in range(256):
                (self._objects / f"{byte:02x}").mkdir(parents=True, exist_ok=True)
            for directory in (self._objects, root, root.parent):
                _sync_directory(directory)

    def path(self, digest: str) -> Path:
        """Say where a file of that digest is or would be.

        Parameters
        ----------
        digest
            64 hexadecimal digits.

        Returns
        -------
        pathlib.Path
            The place; nothing is said about whether the file is there.

        Raises
        ------
        ValueError
            If the text is no digest, so that no text of a user ever becomes a path.
        """
        if not is_digest(digest):
            msg = f"{digest!r} is not a SHA-256 digest of 64 hexadecimal digits."
            raise ValueError(msg)
        return self._objects / digest[:2] / digest[2:]

    def digest_of(self, path: str | os.PathLike[str]) -> str | None:
        """Read the digest off a path that lies inside the store.

        Parameters
        ----------
        path
            An absolute path without symbolic links.

        Returns
        -------
        str or None
            The digest, or None for a path that is no file of this store.
        """
        head, tail = os.path.split(os.fspath(path))
        parent, prefix = os.path.split(head)
        digest = prefix + tail
        return digest if is_digest(digest) and parent == os.path.realpath(self._objects) else None

    def size(self, digest: str) -> int:
        """Return the number of bytes of a stored file.

        Parameters
        ----------
        digest
            64 hexadecimal digits.

        Returns
        -------
        int
            Its size.

        Raises
        ------
        UnknownFileError
            If the store has no such file.
        """
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise UnknownFileError(digest) from None

    def has(self, digest: str) -> bool:
        """Tell whether the store holds a file.

        Parameters
        ----------
        digest
            64 hexadecimal digits.

        Returns
        -------
        bool
            True if it does.
        """
        return self.path(digest).is_file()

    def open(self, digest: str) -> BinaryIO:
        """Open a stored file for reading.

        Parameters
        ----------
        digest
            64 hexadecimal digits.

        Returns
        -------
        typing.BinaryIO
            The open file.

        Raises
        ------
        UnknownFileError
            If the store has no such file.
        """
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise UnknownFileError(digest) from None

    def verify(self, digest: str) -> bool:
        """Read a stored file again and compare its content with its name.

        Parameters
        ----------
        digest
            64 hexadecimal digits.

        Returns
        -------
        bool
            False if the content is no longer what the name says.

        Raises
        ------
        UnknownFileError
            If the store has no such file.
        """
        with self.open(digest) as file:
            return hashlib.file_digest(cast("Any", file), "sha256").hexdigest() == digest

    def state(self, digest: str) -> tuple[int, int] | None:
        """Give what changes when somebody writes to a stored file, whatever its mode says.

        Parameters
        ----------
        digest
            64 hexadecimal digits.

        Returns
        -------
        tuple or None
            Time of the last change in nanoseconds and size; None if there is no such file.
        """
        try:
            now = self.path(digest).stat()
        except FileNotFoundError:
            return None
        return now.st_mtime_ns, now.st_size

    def discard_if_damaged(self, digest: str) -> bool:
        """Take a file out of the store whose content is no longer what its name says.

        Parameters
        ----------
        digest
            64 hexadecimal digits.

        Returns
        -------
        bool
            Whether it was damaged.
        """
        try:
            if self.verify(digest):
                return False
        except UnknownFileError:
            return True
        self.path(digest).unlink(missing_ok=True)
        return True

    def put_path(self, path: str | os.PathLike[str], *, move: bool = True) -> StoredFile:
        """Take a file of the local disk into the store.

        Parameters
        ----------
        path
            A regular file; a symbolic link is refused.
        move
            Take the file itself, so that it is gone afterwards and nothing is copied where both are on one disk. The caller
            vouches that nobody writes to it any more. Otherwise the content is copied.

        Returns
        -------
        StoredFile
            Its digest and size; both are on disk when this returns.
        """
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(source).st_mode):
            os.close(source)
            msg = f"{os.fspath(path)} is not a regular file."
            raise ValueError(msg)
        with open(source, "rb", closefd=True) as file:
            if move and os.stat(source).st_dev == os.stat(self._objects).st_dev:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                stored = self._place(source, digest)
            else:
                stored = self._copy(iter(lambda: file.read(_CHUNK), b""))
        if move:
            os.unlink(path)
        return stored

    def put_bytes(self, content: bytes) -> StoredFile:
        """Take bytes into the store.

        Parameters
        ----------
        content
            The content of the file.

        Returns
        -------
        StoredFile
            Its digest and size; both are on disk when this returns.
        """
        return self._copy([content])

    async def put_stream(self, chunks: AsyncIterator[bytes], *, limit: int | None = None) -> StoredFile:
        """Take a file that arrives piece by piece, such as an upload.

        Parameters
        ----------
        chunks
            The content.
        limit
            The largest number of bytes to take.

        Returns
        -------
        StoredFile
            Its digest and size; both are on disk when this returns.

        Raises
        ------
        FileTooLargeError
            If more than ``limit`` bytes came; nothing stays on disk.
        """
        import asyncio  # noqa: PLC0415 - the engine imports this module and has no use for an event loop

        digest = hashlib.sha256()
        size = 0
        temporary = self._temporary / uuid.uuid4().hex
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            async for chunk in chunks:
                size += len(chunk)
                if limit is not None and size > limit:
                    raise FileTooLargeError(limit)
                await asyncio.to_thread(_write, handle, digest, chunk)
            return await asyncio.to_thread(self._place, handle, digest.hexdigest())
        finally:
            os.close(handle)
            temporary.unlink(missing_ok=True)

    def sweep(self, older_than: float = 86400.0) -> int:
        """Remove what writers that died left unfinished.

        Parameters
        ----------
        older_than
            Age in seconds from which an unfinished file counts as left behind.

        Returns
        -------
        int
            How many were removed.
        """
        removed = 0
        horizon = time.time() - older_than
        for entry in os.scandir(self._temporary):
            try:
                if entry.stat(follow_symlinks=False).st_mtime < horizon:
                    os.unlink(entry.path)
                    removed += 1
            except FileNotFoundError:
                continue
        return removed

    def _copy(self, chunks: Iterable[bytes]) -> StoredFile:
        digest = hashlib.sha256()
        temporary = self._temporary / uuid.uuid4().hex
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for chunk in chunks:
                _write(handle, digest, chunk)
            return self._place(handle, digest.hexdigest())
        finally:
            os.close(handle)
            temporary.unlink(missing_ok=True)

    def _place(self, handle: int, digest: str) -> StoredFile:
        """Give the open file its name in the store; content first, name second, both synchronised."""
        size = os.fstat(handle).st_size
        target = self.path(digest)
        try:
            known = target.stat().st_size == size
        except FileNotFoundError:
            known = False
        if not known:
            os.fchmod(handle, _READ_ONLY)
            os.fsync(handle)
            known = not self._link(handle, target, size)
        # Also when another writer was first: its own synchronisation may not have come yet, and we announce too.
        _sync_directory(target.parent)
        return StoredFile(digest, size, not known)

    def _link(self, handle: int, target: Path, size: int) -> bool:
        """Name the very file that was digested, by its handle: its path may lead elsewhere by now."""
        try:
            _link_open(handle, target)
        except FileExistsError:
            if target.stat().st_size == size:
                return False
            # A file cut short by a failing disk: put the sound one in its place.
            replacement = self._temporary / uuid.uuid4().hex
            _link_open(handle, replacement)
            os.replace(replacement, target)
        except OSError as error:
            if error.errno not in {errno.EMLINK, errno.EPERM, errno.EXDEV, errno.ENOENT}:
                raise
            # A file system without hard links: copy beside the target, then rename, which is as atomic.
            replacement = self._temporary / uuid.uuid4().hex
            try:
                with open(f"/proc/self/fd/{handle}", "rb") as source, replacement.open("xb") as copy:
                    shutil.copyfileobj(source, copy, _CHUNK)
                    copy.flush()
                    os.fchmod(copy.fileno(), _READ_ONLY)
                    os.fsync(copy.fileno())
                os.replace(replacement, target)
            finally:
                replacement.unlink(missing_ok=True)
        return True


def _write(handle: int, digest: hashlib._Hash, chunk: bytes) -> None:
    digest.update(chunk)
    view = memoryview(chunk)
    while view:
        view = view[os.write(handle, view) :]


def _link_open(handle: int, target: Path) -> None:
    # With a directory handle Python calls linkat(), which alone follows the link that /proc offers.
    os.link(f"/proc/self/fd/{handle}", target, src_dir_fd=handle, follow_symlinks=True)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
