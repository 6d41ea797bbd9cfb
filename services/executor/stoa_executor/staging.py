"""What a job needs on the local disk before it runs, and what it leaves there afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import httpx

from stoa_executor.domain import InputRefusedError, file_objects, local_path, map_files
from stoa_executor.store import FileStore, StoredFile, is_digest

__all__ = [
    "InputGuard",
    "InputStager",
    "OutputCollector",
    "StagedWorkflow",
    "TablesUnavailableError",
    "WorkflowCache",
    "WorkflowRefusedError",
    "bundled_path",
    "keep_log",
]

_KEPT_INPUT_FIELDS = ("class", "basename", "format", "secondaryFiles", "listing")
_MAX_LITERAL_BYTES = 64 * 1024
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class TablesUnavailableError(Exception):
    """The tables service does not answer; the same request may succeed later."""


class WorkflowRefusedError(ValueError):
    """The workflow version cannot be had or is not what its name says; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class StagedWorkflow:
    """A workflow version on the local disk."""

    directory: Path
    main: str
    """The CWL document."""
    process: str | None
    """The process within the document, where the version names one."""


class WorkflowCache:
    """Workflow versions, fetched once from the tables service and kept on disk.

    Parameters
    ----------
    root
        The directory of the cache.
    tables_url
        Where the tables service answers.
    http
        The client for it.
    """

    def __init__(self, root: Path, tables_url: str, http: httpx.AsyncClient) -> None:
        self._root = root
        self._tables_url = tables_url.rstrip("/")
        self._http = http
        self._staged: dict[str, StagedWorkflow] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, version: str) -> StagedWorkflow:
        """Give a workflow version on the local disk, fetching it where it is missing.

        Parameters
        ----------
        version
            Its digest.

        Returns
        -------
        StagedWorkflow
            Read-only files, each of which has the digest that the version names.

        Raises
        ------
        TablesUnavailableError
            If the tables service does not answer.
        WorkflowRefusedError
            If it knows no such version, or gives other content than the version names.
        """
        known = self._staged.get(version)
        if known is not None:
            return known
        async with self._locks.setdefault(version, asyncio.Lock()):
            known = self._staged.get(version)
            if known is None:
                known = await asyncio.to_thread(self._from_disk, version) or await self._fetch(version)
                self._staged[version] = known
        self._locks.pop(version, None)
        return known

    def _from_disk(self, version: str) -> StagedWorkflow | None:
        """Trust what an earlier process left only after looking at every byte of it."""
        if not is_digest(version):
            msg = f"'{version}' is not the name of a workflow version."
            raise WorkflowRefusedError(msg)
        try:
            manifest = json.loads((self._root / f"{version}.json").read_bytes())
            for entry in manifest["files"]:
                with (self._root / version / entry["name"]).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                        return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return _staged(self._root / version, manifest["main"])

    async def _fetch(self, version: str) -> StagedWorkflow:
        address = f"{self._tables_url}/api/workflows/{version}"
        document = (await self._get(address, version)).json()
        main, files = str(document["main"]), list(document["files"])
        if document.get("version") != version:
            msg = f"The tables service answered with another workflow version than {version}."
            raise WorkflowRefusedError(msg)
        contents: dict[str, bytes] = {}
        for entry in files:
            name = str(entry["name"])
            if not _is_inside(name):
                msg = f"The workflow version {version} holds a file with the name {name!r}, which leads outside of it."
                raise WorkflowRefusedError(msg)
            content = (await self._get(f"{address}/files/{name}", version)).content
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                msg = f"The file {name} of the workflow version {version} is not what its digest says."
                raise WorkflowRefusedError(msg)
            contents[name] = content
        if main.partition("#")[0] not in contents:
            msg = f"The workflow version {version} does not hold its main document {main}."
            raise WorkflowRefusedError(msg)
        manifest = {"main": main, "files": [{"name": entry["name"], "sha256": entry["sha256"]} for entry in files]}
        return await asyncio.to_thread(self._write, version, manifest, contents)

    async def _get(self, address: str, version: str) -> httpx.Response:
        try:
            response = await self._http.get(address)
        except httpx.TransportError as error:
            msg = f"The tables service at {self._tables_url} does not answer: {str(error) or type(error).__name__}."
            raise TablesUnavailableError(msg) from error
        if response.status_code == httpx.codes.NOT_FOUND:
            msg = f"The tables service does not know the workflow version {version}."
            raise WorkflowRefusedError(msg)
        if response.is_error:
            msg = f"The tables service at {self._tables_url} answered with status {response.status_code}."
            raise TablesUnavailableError(msg)
        return response

    def _write(self, version: str, manifest: dict[str, Any], contents: dict[str, bytes]) -> StagedWorkflow:
        self._root.mkdir(parents=True, exist_ok=True)
        temporary = self._root / f".{uuid.uuid4().hex}"
        temporary.mkdir()
        try:
            for name, content in contents.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_file(path, content)
                path.chmod(0o555 if content.startswith(b"#!") else 0o444)
            target = self._root / version
            _remove(target)
            # Another process may have put the same content there just now.
            with contextlib.suppress(FileExistsError, OSError):
                temporary.rename(target)
            written = self._root / f".{uuid.uuid4().hex}.json"
            _write_file(written, json.dumps(manifest).encode())
            written.rename(self._root / f"{version}.json")
        finally:
            _remove(temporary)
        staged = self._from_disk(version)
        if staged is None:
            msg = f"The workflow version {version} could not be written to {self._root}."
            raise OSError(msg)
        return staged


def _staged(directory: Path, main: str) -> StagedWorkflow:
    document, _, process = main.partition("#")
    return StagedWorkflow(directory, document, process or None)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name and "\\" not in name
    )


def _write_file(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


class InputStager:
    """Turns the files in a job's inputs into files of the local disk.

    Parameters
    ----------
    store
        Where ``sha256:…`` locations lie.
    roots
        The directories from which ``file:///…`` locations may be read.
    """

    def __init__(self, store: FileStore, roots: Sequence[Path]) -> None:
        self._store = store
        self._roots = [os.path.realpath(root) for root in roots]

    def stage(self, inputs: dict[str, Any], bundle: Path | None = None) -> dict[str, Any]:
        """Give the inputs as the engine takes them.

        Parameters
        ----------
        inputs
            The input object of the job.
        bundle
            The directory of the workflow's files, to which the defaults of its inputs may refer.

        Returns
        -------
        dict
            The same with local paths, and with nothing in File and Directory objects but what CWL asks for.

        Raises
        ------
        stoa_executor.domain.InputRefusedError
            If a file is missing or may not be read; says which input it is.
        """
        staged = {}
        uses: Counter[str] = Counter()
        for name, value in inputs.items():
            with _named("Input", name):
                staged[name] = (
                    map_files(value, partial(self._stage, uses, bundle)) if isinstance(value, (dict, list)) else value
                )
        return staged

    def _stage(self, uses: Counter[str], bundle: Path | None, value: dict[str, Any]) -> dict[str, Any]:
        result = {key: value[key] for key in _KEPT_INPUT_FIELDS if value.get(key) is not None}
        basename = value.get("basename")
        if basename is not None and (
            not isinstance(basename, str) or basename in {"", ".", ".."} or re.search(r"[/\0]", basename)
        ):
            msg = f"{basename!r} cannot be the name of a file."
            raise InputRefusedError(msg)
        location = value.get("location") or value.get("path")
        if not location:
            return self._stage_literal(value, result)
        if not isinstance(location, str):
            msg = f"the location {location!r} is not a text."
            raise InputRefusedError(msg)
        if location.startswith("sha256:"):
            path = self._from_store(value, location)
        else:
            path = self._from_bundle(value, location, bundle) or self._from_disk(value, location)
        # cwltool knows a file by its location alone, and of two with the same content it would stage one name: another
        # spelling of the same path keeps them apart.
        folder, name = os.path.split(path)
        result["location"] = Path(folder).as_uri() + "/" + "./" * uses[path] + quote(name)
        uses[path] += 1
        result.setdefault("basename", os.path.basename(local_path(location) or path))
        if value["class"] == "Directory":
            # What lies on disk is the truth; a listing beside a location could name files that are not in it.
            result.pop("listing", None)
        return result

    @staticmethod
    def _stage_literal(value: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        if value["class"] == "Directory":
            result.setdefault("listing", [])
            if "basename" not in result:
                msg = "a directory given by its listing needs a basename."
                raise InputRefusedError(msg)
            return result
        contents = value.get("contents")
        if not isinstance(contents, str):
            msg = f"the file {value.get('basename') or ''} has neither a location nor contents.".replace("  ", " ")
            raise InputRefusedError(msg)
        if len(contents.encode()) > _MAX_LITERAL_BYTES:
            msg = f"the contents of the file {value.get('basename') or ''} are larger than 64 KiB; upload it instead."
            raise InputRefusedError(msg)
        return {**result, "contents": contents}

    def _from_store(self, value: dict[str, Any], location: str) -> str:
        digest = location.removeprefix("sha256:")
        if value["class"] != "File" or not is_digest(digest):
            msg = f"{location} is not the location of a stored file."
            raise InputRefusedError(msg)
        if not self._store.has(digest):
            name = value.get("basename") or "the file"
            msg = f"{name} ({location[:19]}…) is not in the file store."
            raise InputRefusedError(msg)
        return os.path.realpath(self._store.path(digest))

    @staticmethod
    def _from_bundle(value: dict[str, Any], location: str, bundle: Path | None) -> str | None:
        path = None if bundle is None else bundled_path(location, bundle)
        if path is None or not (os.path.isdir(path) if value["class"] == "Directory" else os.path.isfile(path)):
            return None
        return os.path.realpath(path)

    def _from_disk(self, value: dict[str, Any], location: str) -> str:
        given = local_path(location)
        if given is None:
            scheme = _SCHEME.match(location)
            if scheme:
                msg = f"{location} cannot be read: locations of the kind {scheme[1]!r} are not fetched; upload the file instead."
            else:
                msg = f"{location} is not an absolute location."
            raise InputRefusedError(msg)
        path = os.path.realpath(given)
        if not any(_within(path, root) for root in self._roots):
            if self._roots:
                msg = f"{given} lies outside the directories that may be read here ({', '.join(self._roots)})."
            else:
                msg = f"{given} may not be read: no directory is opened for inputs here (setting input_roots)."
            raise InputRefusedError(msg)
        if value["class"] == "File" and not os.path.isfile(path):
            msg = f"there is no file {given}."
            raise InputRefusedError(msg)
        if value["class"] == "Directory" and not os.path.isdir(path):
            msg = f"there is no directory {given}."
            raise InputRefusedError(msg)
        return path


class InputGuard:
    """Notices when a tool wrote to a stored input: as root, a program passes over a file's mode.

    Parameters
    ----------
    store
        The file store.
    inputs
        The input object of the job, with ``sha256:…`` locations.
    """

    def __init__(self, store: FileStore, inputs: dict[str, Any]) -> None:
        self._store = store
        self._names: dict[str, str] = {}
        for value in file_objects(inputs):
            digest = str(value.get("location", "")).removeprefix("sha256:")
            if is_digest(digest):
                self._names.setdefault(digest, str(value.get("basename") or digest))
        self._states = {digest: store.state(digest) for digest in self._names}

    def check(self) -> None:
        """Look again.

        Raises
        ------
        stoa_executor.domain.InputRefusedError
            If a file was changed; it is no longer in the store.
        """
        for digest, state in self._states.items():
            if self._store.state(digest) != state and self._store.discard_if_damaged(digest):
                msg = (
                    f"The tool changed its input file {self._names[digest]}, which other rows read too;"
                    " the file was taken out of the file store."
                )
                raise InputRefusedError(msg)


class OutputCollector:
    """Takes the files that a job left into the store.

    Parameters
    ----------
    store
        The file store.
    directory
        The job's own directory; files in it are moved.
    readable
        Further directories whose files a job may hand through; they are copied.
    """

    def __init__(self, store: FileStore, directory: Path, readable: Sequence[Path] = ()) -> None:
        self._store = store
        self._directory = os.path.realpath(directory)
        self._readable = [os.path.realpath(path) for path in readable]
        self._taken: dict[str, StoredFile] = {}

    def collect(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Store every file in the outputs.

        Parameters
        ----------
        outputs
            The CWL output object with local paths.

        Returns
        -------
        dict
            The same with ``sha256:…`` locations, sizes and checksums; directories as listings.

        Raises
        ------
        stoa_executor.domain.InputRefusedError
            If an output is a file that the job may not hand out.
        """
        for name, value in outputs.items():
            # All directories are read before the first file is moved out of one.
            with _named("Output", name):
                for found in list(file_objects(value)):
                    self._expand(found)
        collected = {}
        for name, value in outputs.items():
            with _named("Output", name):
                collected[name] = self._visit(value, name) if isinstance(value, (dict, list)) else value
        return collected

    def _visit(self, value: Any, name: str) -> Any:
        if isinstance(value, list):
            return [self._visit(item, name) for item in value]
        if not isinstance(value, dict):
            return value
        if value.get("class") == "File":
            return self._file(value, name)
        if value.get("class") == "Directory":
            return self._folder(value, name)
        return {key: self._visit(item, name) for key, item in value.items()}

    def _file(self, value: dict[str, Any], name: str) -> dict[str, Any]:
        location = value.get("location")
        path = local_path(location) if isinstance(location, str) else None
        if path is not None:
            stored = self._take(path)
            basename = value.get("basename") or os.path.basename(path)
        elif isinstance(value.get("contents"), str):
            stored = self._store.put_bytes(value["contents"].encode())
            basename = value.get("basename") or name
        else:
            msg = f"the file {value.get('basename') or location} has no local path."
            raise InputRefusedError(msg)
        result: dict[str, Any] = {
            "class": "File",
            "location": f"sha256:{stored.digest}",
            "basename": basename,
            "size": stored.size,
            "checksum": f"sha256${stored.digest}",
        }
        if value.get("format"):
            result["format"] = value["format"]
        if value.get("secondaryFiles"):
            result["secondaryFiles"] = [self._visit(item, name) for item in value["secondaryFiles"]]
        return result

    def _expand(self, value: dict[str, Any]) -> None:
        """Write what a directory holds into its listing."""
        location = value.get("location")
        path = local_path(location) if isinstance(location, str) else None
        if value["class"] != "Directory" or value.get("listing") is not None or path is None:
            return
        self._allow(os.path.realpath(path))
        value["listing"] = [
            {
                "class": "Directory" if entry.is_dir() else "File",
                "location": Path(entry.path).as_uri(),
                "basename": entry.name,
            }
            for entry in os.scandir(path)
        ]
        for entry in value["listing"]:
            self._expand(entry)

    def _folder(self, value: dict[str, Any], name: str) -> dict[str, Any]:
        location = value.get("location")
        path = local_path(location) if isinstance(location, str) else None
        basename = value.get("basename") or name
        if path is not None and os.path.dirname(os.path.realpath(path)) == self._directory:
            # The whole output directory, whose own name is drawn by chance.
            basename = name
        entries = [self._visit(item, name) for item in value.get("listing") or []]
        return {
            "class": "Directory",
            "basename": basename,
            "listing": sorted(entries, key=lambda item: str(item["basename"])),
        }

    def _take(self, path: str) -> StoredFile:
        real = os.path.realpath(path)
        known = self._taken.get(real)
        if known is None:
            digest = self._store.digest_of(real)
            if digest is not None:
                known = StoredFile(digest, self._store.size(digest), new=False)
            else:
                own = self._allow(real)
                if not os.path.isfile(real):
                    msg = f"{os.path.basename(path)} is not a regular file."
                    raise InputRefusedError(msg)
                known = self._store.put_path(real, move=own)
            self._taken[real] = known
        return known

    def _allow(self, real: str) -> bool:
        """Tell whether the path is the job's own; refuse it if the job may not hand it out at all."""
        if _within(real, self._directory):
            return True
        if any(_within(real, root) for root in self._readable):
            return False
        msg = f"{os.path.basename(real)} lies outside the job's own directory."
        raise InputRefusedError(msg)


def bundled_path(location: str, bundle: Path) -> str | None:
    """Say where a location relative to a workflow's files leads, or None for one that is no such location."""
    if _SCHEME.match(location) or not _is_inside(location):
        return None
    return str(bundle / location)


def keep_log(store: FileStore, path: Path, limit: int) -> StoredFile | None:
    """Take a job's log into the store; of a very long one, its beginning and its end.

    Parameters
    ----------
    store
        The file store.
    path
        The log; it may be missing.
    limit
        The most bytes to keep.

    Returns
    -------
    StoredFile or None
        None where nothing was said.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    if size == 0:
        return None
    if size <= limit:
        return store.put_path(path, move=True)
    with path.open("rb") as file:
        head = file.read(limit // 2)
        file.seek(size - limit // 2)
        tail = file.read(limit // 2)
    left_out = size - len(head) - len(tail)
    return store.put_bytes(head + f"\n… {left_out} bytes are left out here …\n".encode() + tail)


@contextlib.contextmanager
def _named(kind: str, name: str) -> Iterator[None]:
    """Say in a refusal which input or output it is about."""
    try:
        yield
    except InputRefusedError as error:
        msg = f"{kind} '{name}': {error}"
        raise InputRefusedError(msg) from None


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
