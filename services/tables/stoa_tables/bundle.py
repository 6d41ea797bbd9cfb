"""Workflow versions: a bundle of CWL documents and scripts, named by its content."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote, urljoin, urlsplit

from stoa_chassis.problems import Problem
from stoa_contracts.canonical import canonical_json
from stoa_contracts.types import FileReference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import Node

__all__ = [
    "MAX_BYTES",
    "MAX_DOCUMENT_BYTES",
    "MAX_FILES",
    "Bundle",
    "InvalidWorkflowError",
    "WorkflowProblem",
    "check_expansion",
    "is_json",
    "parse",
    "without_interpreter",
]

#: How many files a workflow version may have.
MAX_FILES = 1000

#: How many bytes its files may have in all.
MAX_BYTES = 16 * 1024 * 1024

#: How many bytes a CWL document may have, and a YAML file that is compared by its content.
MAX_DOCUMENT_BYTES = 1024 * 1024

_MAX_SEGMENT_BYTES = 255
_MAX_NAME_BYTES = 1024
# Up to here aliases are welcome; beyond, a document that its aliases make ten times larger is a bomb.
_MAX_EXPANDED_NODES = 100_000
_MAX_EXPANSION = 10
_MAX_KEPT_BYTES = 256 * 1024

_DOCUMENT_SUFFIXES = (".cwl", ".json", ".yaml", ".yml")
_PROCESS_CLASSES = ("CommandLineTool", "ExpressionTool", "Operation", "Workflow")
_DUPLICATE_KEY = re.compile(r'found duplicate key "(.*?)" with value')
_FILE_CLASSES = ("File", "Directory")
_LOCATION_KEYS = ("location", "path")
_REFERENCE_KEYS = ("run", "$import", "$include", "$mixin")


@dataclass(frozen=True, slots=True)
class WorkflowProblem:
    """One thing that is wrong with an uploaded workflow, and where.

    Parameters
    ----------
    message
        A sentence for people, without its place.
    file
        Name of the file within the bundle.
    line, column
        Counted from 1.
    """

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Write the place and the message as one sentence."""
        if self.file is None:
            return self.message
        place = self.file
        if self.line is not None:
            place += f", line {self.line}"
            if self.column is not None:
                place += f", column {self.column}"
        return f"{place}: {self.message}"


class InvalidWorkflowError(Problem, ValueError):
    """The uploaded files are no workflow that can be run.

    Parameters
    ----------
    problems
        What is wrong; at least one.

    Attributes
    ----------
    problems
        All that was found wrong, in the order of the documents.
    message, file, line, column
        Those of the first problem.
    """

    status: ClassVar[int] = 422
    code: ClassVar[str] = "invalid-workflow"
    title: ClassVar[str] = "The workflow is not valid"

    def __init__(self, *problems: WorkflowProblem) -> None:
        super().__init__(
            "\n".join(str(problem) for problem in problems),
            problems=[
                {"message": problem.message, "file": problem.file, "line": problem.line, "column": problem.column}
                for problem in problems
            ],
        )
        self.problems = problems
        self.message = problems[0].message
        self.file = problems[0].file
        self.line = problems[0].line
        self.column = problems[0].column


@dataclass(frozen=True)
class Bundle:
    """The files of a workflow version.

    Parameters
    ----------
    main
        The file that holds the process, and after ``#`` the id of the process where the file holds several. The id may
        be left out where it is ``main`` or where only one process of the file is not used by another one.
    files
        Names, relative and with ``/``, to contents.

    Raises
    ------
    InvalidWorkflowError
        If a file has a name that cannot be used, if there are too many files or bytes, or if `main` is not there.
    """

    main: str
    files: Mapping[str, bytes]

    def __post_init__(self) -> None:
        """Check the names and sizes, and complete the name of the main process."""
        _check_files(self.files)
        object.__setattr__(self, "files", MappingProxyType(dict(sorted(self.files.items()))))
        object.__setattr__(self, "main", self._complete_main(self.main))

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], main: str | None = None) -> Bundle:
        """Make a bundle of uploaded files.

        Parameters
        ----------
        files
            Names, relative and with ``/``, to contents.
        main
            The file (and ``#id``) that holds the process. Without it, the one CWL document is taken to which no other
            document refers.

        Raises
        ------
        InvalidWorkflowError
            If the files cannot be used, or if none or several of them may be the main one.
        """
        _check_files(files)
        return cls(main if main is not None else _find_main(files), files)

    @property
    def main_file(self) -> str:
        """The file that holds the process."""
        return self.main.partition("#")[0]

    @property
    def main_id(self) -> str | None:
        """The id of the process in its file, where the file holds several."""
        return self.main.partition("#")[2] or None

    @property
    def canonical(self) -> bytes:
        """The canonical content: what two bundles have in common that are the same workflow version.

        CWL, YAML and JSON documents count by what they say; comments, the order of keys and quoting do not. All other
        files count by their bytes, and so do documents that JSON cannot hold: several documents in one file, keys that
        are not text, NaN, YAML beyond `MAX_DOCUMENT_BYTES`, and text that is no YAML or JSON at all. Documents count by
        their bytes, too, where a tool gets to see these: where a File or a Directory of a document names them, or
        `$include` takes their text.
        """
        parsed = {name: _parse(name, content) for name, content in self.files.items()}
        exact = {
            target
            for name, document in parsed.items()
            if document is not None
            for target in _seen_as_bytes(name, document.content)
        }
        described: dict[str, Any] = {}
        for name, content in self.files.items():
            document = parsed[name]
            # The folder of all files has no name.
            if document is None or not exact.isdisjoint([name, *_parents(name), ""]):
                described[name] = {"sha256": hashlib.sha256(content).hexdigest()}
            else:
                described[name] = {"document": document.content}
        return canonical_json({"main": self.main, "files": described})

    def meaning(self, name: str) -> str:
        """Digest what a file says: two writings of one document are equal, other files only where their bytes are.

        Raises
        ------
        KeyError
            If there is no such file.
        """
        content = self.files[name]
        parsed = _parse(name, content)
        return hashlib.sha256(content if parsed is None else canonical_json(parsed.content)).hexdigest()

    @cached_property
    def version(self) -> str:
        """The name of the workflow version: SHA-256 of the canonical content, in hexadecimal."""
        return hashlib.sha256(self.canonical).hexdigest()

    @property
    def references(self) -> list[FileReference]:
        """The files by their content, sorted by name."""
        return [
            FileReference(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
            for name, content in self.files.items()
        ]

    def __hash__(self) -> int:
        """Agree with equality, which compares the bytes of all files."""
        return hash((self.main, tuple(self.files.items())))

    def _complete_main(self, main: str) -> str:
        name, _, wanted = main.partition("#")
        if name not in self.files:
            there = ", ".join(list(self.files)[:20])
            raise InvalidWorkflowError(
                WorkflowProblem(f"The main file {name!r} is not among the uploaded files ({there}).")
            )
        parsed = _parse(name, self.files[name], required=True)
        document = parsed.content if parsed else None
        if not isinstance(document, dict):
            raise InvalidWorkflowError(WorkflowProblem("This is no CWL document: a CWL document is a mapping.", name))
        if "$graph" in document:
            return f"{name}#{_process_in_graph(name, document['$graph'], wanted)}"
        if wanted and wanted != str(document.get("id", "")).removeprefix("#"):
            raise InvalidWorkflowError(
                WorkflowProblem(f"There is no process with the id {wanted!r} in this file.", name)
            )
        return name


# --- names and sizes -------------------------------------------------------------------------------------------------


def _check_files(files: Mapping[str, bytes]) -> None:
    problems: list[WorkflowProblem] = []
    if not files:
        problems.append(WorkflowProblem("No file was uploaded."))
    if len(files) > MAX_FILES:
        problems.append(WorkflowProblem(f"A workflow may have {MAX_FILES} files; these are {len(files)}."))
    total = sum(len(content) for content in files.values())
    if total > MAX_BYTES:
        problems.append(
            WorkflowProblem(
                f"The files of a workflow may have {MAX_BYTES // 2**20} MiB in all; these have {total / 2**20:.1f} MiB. "
                "Data belongs into the rows, as File inputs."
            )
        )
    names = set(files)
    for name in files:
        if message := _name_problem(name):
            problems.append(WorkflowProblem(message))
        else:
            problems.extend(
                WorkflowProblem(f"{parent!r} cannot be a file and, in {name!r}, a folder.")
                for parent in _parents(name)
                if parent in names
            )
    if problems:
        raise InvalidWorkflowError(*problems[:20])


def _name_problem(name: str) -> str | None:  # noqa: PLR0911 - one per thing that is wrong
    shown = repr(name if len(name) <= 80 else name[:77] + "...")  # noqa: PLR2004 - just what fits on a line
    if not name:
        return "A file has no name."
    if "\0" in name or any(ord(character) < 0x20 or ord(character) == 0x7F for character in name):  # noqa: PLR2004 - ASCII
        return f"The file name {shown} holds a control character."
    if "\\" in name:
        return f"The file name {shown} holds a backslash; folders are separated by '/'."
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return f"The file name {shown} is absolute; names are relative to the main folder of the workflow."
    if found := next((character for character in "#?%" if character in name), None):
        return f"The file name {shown} holds {found!r}, which means something else in a CWL reference."
    segments = name.split("/")
    if ".." in segments:
        return f"The file name {shown} leads out of the workflow's folder with '..'."
    if "" in segments or "." in segments:
        return f"The file name {shown} has an empty or '.' folder in it."
    try:
        encoded = [len(segment.encode()) for segment in segments]
    except UnicodeEncodeError:
        return f"The file name {shown} is no valid Unicode."
    if max(encoded) > _MAX_SEGMENT_BYTES or sum(encoded) + len(encoded) > _MAX_NAME_BYTES:
        return f"The file name {shown} is too long."
    return None


def _parents(name: str) -> Iterator[str]:
    while name := posixpath.dirname(name):
        yield name


# --- documents -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parsed:
    content: Any


class _NotJsonError(ValueError):
    """The content is well-formed, but JSON cannot hold it."""


def _parse(name: str, content: bytes, *, required: bool = False) -> _Parsed | None:
    """Parse a document; None where the file counts by its bytes.

    Notes
    -----
    The answers are kept, because making, naming and describing a bundle each look at its documents.
    """
    if not name.endswith(_DOCUMENT_SUFFIXES) and not required:
        return None
    is_cwl = required or name.endswith(".cwl")
    if len(content) > _MAX_KEPT_BYTES:
        return _parse_content(name, content, is_cwl)
    return _parse_kept(name, content, is_cwl)


@lru_cache(maxsize=64)
def _parse_kept(name: str, content: bytes, is_cwl: bool) -> _Parsed | None:  # noqa: FBT001 - the cache's key
    return _parse_content(name, content, is_cwl)


def _parse_content(name: str, content: bytes, is_cwl: bool) -> _Parsed | None:  # noqa: FBT001 - as above
    if is_cwl and len(content) > MAX_DOCUMENT_BYTES:
        limit = (
            f"A CWL document may have {MAX_DOCUMENT_BYTES // 2**20} MiB; this one has {len(content) / 2**20:.1f} MiB."
        )
        raise InvalidWorkflowError(WorkflowProblem(limit, name))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not is_cwl:
            return None
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidWorkflowError(WorkflowProblem("The text is not UTF-8.", name, line)) from None
    try:
        value = _load(name, text, is_cwl=is_cwl)
        return None if value is _BY_BYTES else _Parsed(_plain(value))
    except RecursionError:
        if not is_cwl:
            return None
        raise InvalidWorkflowError(WorkflowProblem("The document is nested too deeply.", name)) from None
    except _NotJsonError as error:
        if not is_cwl:
            return None
        raise InvalidWorkflowError(WorkflowProblem(str(error), name)) from None


_BY_BYTES = object()


def _load(name: str, text: str, *, is_cwl: bool) -> Any:
    if name.endswith(".json") or (is_cwl and is_json(text)):
        try:
            return json.loads(without_interpreter(text), object_pairs_hook=_unique_object)
        except _DuplicateKeyError as error:
            if len(text) > MAX_DOCUMENT_BYTES:
                raise InvalidWorkflowError(WorkflowProblem(f"The key {error.key!r} stands twice.", name)) from None
            # Only the YAML parser, slow but able to read JSON, knows the line.
        except ValueError:
            if not is_cwl:
                return _BY_BYTES
    if len(text) > MAX_DOCUMENT_BYTES:
        return _BY_BYTES
    return _load_yaml(name, text, is_cwl=is_cwl)


class _DuplicateKeyError(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return made


def without_interpreter(text: str) -> str:
    """Leave out a first line that names the program for a script."""
    return text.partition("\n")[2] if text.startswith("#!") else text


def is_json(text: str) -> bool:
    """Tell whether text looks like a JSON object."""
    return without_interpreter(text[:1000]).lstrip().startswith("{")


def check_expansion(name: str, content: bytes) -> None:
    """Refuse content whose YAML aliases would blow it up; content that is no YAML passes.

    Raises
    ------
    InvalidWorkflowError
        If the aliases expand the content beyond reason.
    """
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415 - parsing is rarely needed when the service starts

    if b"*" not in content or b"&" not in content or len(content) > MAX_DOCUMENT_BYTES:
        return
    try:
        node = _yaml().compose(content.decode("utf-8-sig"))
        if node is not None:
            _refuse_bomb(name, node)
    except InvalidWorkflowError:
        raise
    except (YAMLError, ValueError, RecursionError):
        return


def parse(name: str, content: bytes) -> Any:
    """Parse a CWL document, which must be one.

    Returns
    -------
    Any
        What JSON can hold. It is shared: do not change it.

    Raises
    ------
    InvalidWorkflowError
        If the content cannot be read, with its line where that is known.
    """
    parsed = _parse(name, content, required=True)
    return parsed.content if parsed else None


def _load_yaml(name: str, text: str, *, is_cwl: bool) -> Any:
    from ruamel.yaml.composer import ComposerError  # noqa: PLC0415 - parsing is rarely needed when the service starts
    from ruamel.yaml.constructor import DuplicateKeyError  # noqa: PLC0415 - likewise
    from ruamel.yaml.error import MarkedYAMLError, YAMLError  # noqa: PLC0415 - likewise

    try:
        constructor, parser = _yaml().get_constructor_parser(text)
        try:
            node = constructor.composer.get_single_node()
            if node is None:
                return None
            _refuse_bomb(name, node)
            return constructor.construct_document(node)
        finally:
            parser.dispose()
    except DuplicateKeyError as error:
        found = _DUPLICATE_KEY.search(error.problem or "")
        key = f"The key {found[1]!r}" if found else "A key"
        raise InvalidWorkflowError(_at_mark(name, f"{key} stands twice in the same mapping.", error)) from None
    except (MarkedYAMLError, YAMLError) as error:
        if not is_cwl:
            return _BY_BYTES
        if isinstance(error, ComposerError) and "single document" in str(error.context):
            message = "The file holds several YAML documents; a CWL file holds one."
        else:
            said = str(getattr(error, "problem", None) or error).strip()
            message = f"This is not valid YAML: {said[:1].lower()}{said[1:]}."
        raise InvalidWorkflowError(_at_mark(name, message, error)) from None
    except InvalidWorkflowError:
        raise
    except (ValueError, OverflowError) as error:
        if not is_cwl:
            return _BY_BYTES
        raise InvalidWorkflowError(WorkflowProblem(f"A value cannot be read: {error}.", name)) from None


def _at_mark(name: str, message: str, error: Exception) -> WorkflowProblem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return WorkflowProblem(message, name, mark.line + 1, mark.column + 1) if mark else WorkflowProblem(message, name)


def _yaml() -> YAML:
    from ruamel.yaml import YAML  # noqa: PLC0415 - parsing is rarely needed when the service starts
    from ruamel.yaml.constructor import SafeConstructor  # noqa: PLC0415 - likewise

    class Constructor(SafeConstructor):
        """YAML 1.2's core schema knows no dates: CWL engines read them as text."""

    Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Constructor
    yaml.allow_duplicate_keys = False
    return yaml


def _refuse_bomb(name: str, root: Node) -> None:
    """Refuse a document whose aliases blow it up, or make it contain itself."""
    from ruamel.yaml.nodes import MappingNode, SequenceNode  # noqa: PLC0415 - parsing is rarely needed at the start

    sizes: dict[int, int | None] = {}

    def size(node: Node) -> int:
        known = sizes.get(id(node), 0)
        if known is None:
            mark = node.start_mark
            raise InvalidWorkflowError(
                WorkflowProblem("An alias makes the document contain itself.", name, mark.line + 1, mark.column + 1)
            )
        if known:
            return known
        sizes[id(node)] = None
        if isinstance(node, MappingNode):
            counted = 1 + sum(size(key) + size(value) for key, value in node.value)
        elif isinstance(node, SequenceNode):
            counted = 1 + sum(size(item) for item in node.value)
        else:
            counted = 1
        sizes[id(node)] = counted
        return counted

    expanded = size(root)
    if expanded > _MAX_EXPANDED_NODES and expanded > _MAX_EXPANSION * len(sizes):
        raise InvalidWorkflowError(
            WorkflowProblem(f"Its aliases would expand {len(sizes):,} values to {expanded:,}; this is refused.", name)
        )


def _plain(value: Any) -> Any:
    """Check that JSON can hold a value."""
    if isinstance(value, str):
        return _plain_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if value != value or value in {float("inf"), float("-inf")}:  # noqa: PLR0124 - only NaN differs from itself
            raise _NotJsonError("It holds NaN or an infinity, which CWL does not know.")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise _NotJsonError(f"The key {key!r} is not text; write it in quotes.")
        return {_plain_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(item) for item in value]
    raise _NotJsonError(f"It holds a value of the type {type(value).__name__}, which CWL does not know.")


def _plain_text(text: str) -> str:
    """Join the pairs of escapes by which JSON writes one character, and which YAML takes for two."""
    try:
        return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _NotJsonError("It holds text that is no valid Unicode: half of a surrogate pair.") from None


# --- the main document -----------------------------------------------------------------------------------------------


def _find_main(files: Mapping[str, bytes]) -> str:
    documents: dict[str, dict[str, Any]] = {}
    for name, content in files.items():
        parsed = _parse(name, content)
        if parsed is not None and isinstance(parsed.content, dict):
            documents[name] = parsed.content
    candidates = sorted(name for name, document in documents.items() if "cwlVersion" in document)
    if not candidates:
        if without := sorted(name for name, document in documents.items() if document.get("class") in _PROCESS_CLASSES):
            raise InvalidWorkflowError(
                WorkflowProblem("The field `cwlVersion` is missing; write `cwlVersion: v1.2` at its top.", without[0])
            )
        raise InvalidWorkflowError(
            WorkflowProblem(f"None of the uploaded files ({_listed(sorted(files))}) is a CWL document.")
        )
    referred = {
        target for name, document in documents.items() for target in _references(name, document) if target != name
    }
    roots = [name for name in candidates if name not in referred]
    if len(roots) == 1:
        return roots[0]
    if roots:
        message = f"Several CWL documents may be the main one: {_listed(roots)}. Say which."
    else:
        message = (
            f"The CWL documents refer to each other in a circle: {_listed(candidates)}. Say which is the main one."
        )
    raise InvalidWorkflowError(WorkflowProblem(message))


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _references(name: str, value: Any) -> Iterator[str]:
    """Yield the files of the bundle to which a document refers."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _REFERENCE_KEYS and isinstance(item, str):
                if target := _target(name, item):
                    yield target
            else:
                yield from _references(name, item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(name, item)


def _seen_as_bytes(name: str, value: Any) -> Iterator[str]:
    """Yield the files and folders of the bundle that a document hands to a tool as they are."""
    if isinstance(value, dict):
        is_file = value.get("class") in _FILE_CLASSES
        for key, item in value.items():
            if not isinstance(item, str):
                yield from _seen_as_bytes(name, item)
                continue
            if (key == "$include" or (is_file and key in _LOCATION_KEYS)) and (
                target := _target(name, item)
            ) is not None:
                yield target.rstrip("/")
    elif isinstance(value, list):
        for item in value:
            yield from _seen_as_bytes(name, item)


def _target(name: str, reference: str) -> str | None:
    try:
        split = urlsplit(urljoin(f"file:///{name}", reference))
    except ValueError:
        return None
    return unquote(split.path).removeprefix("/") if split.scheme == "file" else None


def _process_in_graph(name: str, graph: Any, wanted: str) -> str:
    if not isinstance(graph, list) or not all(isinstance(item, dict) for item in graph):
        raise InvalidWorkflowError(WorkflowProblem("`$graph` is not a list of processes.", name))
    ids: list[str] = []
    used: set[str] = set()
    for process in graph:
        if "class" not in process or process["class"] in _PROCESS_CLASSES:
            identity = str(process.get("id", "")).removeprefix("#")
            if not identity:
                raise InvalidWorkflowError(WorkflowProblem("A process in `$graph` has no id.", name))
            ids.append(identity)
        used.update(_graph_references(process))
    if wanted:
        if wanted in ids:
            return wanted
        raise InvalidWorkflowError(
            WorkflowProblem(f"There is no process with the id {wanted!r} in `$graph`; there are {_listed(ids)}.", name)
        )
    if "main" in ids:
        return "main"
    roots = [identity for identity in ids if identity not in used]
    if len(roots) == 1:
        return roots[0]
    listed = _listed([f"{name}#{identity}" for identity in roots or ids])
    raise InvalidWorkflowError(WorkflowProblem(f"Several processes may be the main one: {listed}. Say which.", name))


def _graph_references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "run" and isinstance(item, str):
                yield item.rpartition("#")[2]
            else:
                yield from _graph_references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _graph_references(item)
