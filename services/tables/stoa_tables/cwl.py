"""What a CWL process wants and gives: its columns, its requirements, and what is wrong with it.

Nothing is read from the network or from the disk: references lead to files of the bundle, or are refused.
"""

from __future__ import annotations

import difflib
import json
import posixpath
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from pydantic import ValidationError

from stoa_contracts.types import Column
from stoa_tables.bundle import (
    Bundle,
    InvalidWorkflowError,
    WorkflowProblem,
    check_expansion,
    is_json,
    parse,
    without_interpreter,
)
from stoa_tables.values import InvalidValueError, check_default, is_optional, type_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from schema_salad.exceptions import SchemaSaladException

    from stoa_contracts.types import ColumnRole

__all__ = ["CWL_VERSIONS", "InvalidWorkflowError", "ProcessDescription", "WorkflowProblem", "describe"]

#: The versions of CWL that can be read.
CWL_VERSIONS = ("v1.0", "v1.1", "v1.2")

_ROOT = "file:///bundle/"
_MAX_PROBLEMS = 20
# Up to so many characters, JSON is parsed as YAML, which takes long but knows the lines.
_MAX_LINED = 20_000
_PROCESS_CLASSES = ("CommandLineTool", "ExpressionTool", "Workflow", "Operation")
_STREAMS = ("stdin", "stdout", "stderr")
_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "string", "File", "Directory", "Any")

_SURROGATES = re.compile(r"(?<!\\)\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")

# Attributes of VOTable's FIELD, as extension fields of CWL's parameters.
_VOTABLE = re.compile(r"^http://www\.ivoa\.net/xml/VOTable/v[0-9.]+#(unit|ucd|utype)$")


@dataclass(frozen=True, slots=True)
class ProcessDescription:
    """What a workflow version wants and gives.

    Parameters
    ----------
    process_class
        ``CommandLineTool``, ``Workflow`` or ``ExpressionTool``.
    main
        The file of the bundle that holds the process, and after ``#`` its id where the file holds several.
    cwl_version
        The version of CWL of the main document.
    columns
        The inputs in the order of the document, then the outputs.
    label, doc
        The words of the document, for people.
    requirements
        The classes of all requirements and hints of the process and of everything that it runs, sorted.
    containers
        The container images they name, sorted.
    work_reuse
        Whether the results of an earlier run with equal inputs may be taken (false only where the document says so).
    warnings
        What a person should know before running it, one sentence each.
    """

    process_class: str
    main: str
    cwl_version: str
    columns: list[Column]
    label: str | None = None
    doc: str | None = None
    requirements: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    work_reuse: bool = True
    warnings: list[str] = field(default_factory=list)


def describe(bundle: Bundle) -> ProcessDescription:
    """Validate a workflow version and derive the columns of its table.

    Parameters
    ----------
    bundle
        The files of the workflow version.

    Returns
    -------
    ProcessDescription
        The columns and the rest of what a table needs to know.

    Raises
    ------
    InvalidWorkflowError
        If the CWL is not valid or cannot be run, with all problems that were found and their places.

    Notes
    -----
    Loading the parser takes about a second, once per process; afterwards a document takes some 20 ms.
    """
    library = _Library(bundle)
    try:
        main = library.process(_ROOT + bundle.main)
        visit = _Visit(library)
        visit.process(main, ())
        columns = _columns(main, library)
    except RecursionError:
        message = "The document is nested too deeply, or refers to itself."
        raise InvalidWorkflowError(WorkflowProblem(message, bundle.main_file)) from None
    if visit.problems:
        raise InvalidWorkflowError(*visit.problems[:_MAX_PROBLEMS])
    return ProcessDescription(
        process_class=_class_of(main),
        main=bundle.main,
        cwl_version=library.version,
        columns=columns,
        label=main.label,
        doc=_text(main.doc),
        requirements=tuple(sorted(visit.requirements)),
        containers=tuple(sorted(visit.containers)),
        work_reuse=visit.work_reuse,
        warnings=visit.warnings(),
    )


# --- loading ---------------------------------------------------------------------------------------------------------


@cache
def _fetcher_class() -> type[Any]:
    from schema_salad.exceptions import ValidationException  # noqa: PLC0415 - takes a second, at the first upload
    from schema_salad.fetcher import MemoryCachingFetcher  # noqa: PLC0415 - likewise

    class BundleFetcher(MemoryCachingFetcher):
        """Fetch from the bundle and from nowhere else."""

        def __init__(self, bundle: Bundle) -> None:
            super().__init__({})
            self._files = bundle.files
            self._folders = {parent for name in bundle.files for parent in _folders(name)}

        def fetch_text(self, url: str, content_types: list[str] | None = None) -> str:  # noqa: ARG002 - the interface
            name = _name_in_bundle(url)
            if name is None:
                raise ValidationException(_refusal(url))
            content = self._files.get(name)
            if content is None:
                raise ValidationException(f"{name!r} is not among the uploaded files")
            check_expansion(name, content)
            try:
                return content.decode("utf-8-sig")
            except UnicodeDecodeError:
                raise ValidationException(f"the text of {name!r} is not UTF-8") from None

        def check_exists(self, url: str) -> bool:
            name = _name_in_bundle(url)
            if name is None:
                # The parser takes this for "cannot be known", as for terms of a vocabulary.
                raise ValidationException(_refusal(url))
            return name in self._files or name.rstrip("/") in self._folders

        def urljoin(self, base_url: str, url: str) -> str:
            return url if url.startswith("_:") else urljoin(base_url, url)

    return BundleFetcher


def _folders(name: str) -> Iterator[str]:
    while name := posixpath.dirname(name):
        yield name


def _name_in_bundle(url: str) -> str | None:
    try:
        split = urlsplit(url)
    except ValueError:
        return None
    if split.scheme != "file" or split.netloc or not split.path.startswith("/bundle/"):
        return None
    return unquote(split.path.removeprefix("/bundle/"))


def _refusal(url: str, written: str | None = None) -> str:
    if url.startswith(("http:", "https:", "ftp:")):
        return f"{url!r} is on the network, and nothing is read from there; upload that file with the others"
    if url.startswith("file:"):
        return f"{written or unquote(urlsplit(url).path)!r} is outside of the uploaded files; upload that file with the others"
    return f"{url!r} is not among the uploaded files"


class _Library:
    """The documents of a bundle, each validated once."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._fetcher = _fetcher_class()(bundle)
        self._documents: dict[str, dict[str, Any]] = {}
        self._places: dict[str, dict[str, tuple[int, int]]] = {}
        #: The requirements that the versions of CWL define which the documents use.
        self.standard: set[str] = set()
        self.version = _version_of(parse(bundle.main_file, bundle.files[bundle.main_file]), bundle.main_file)

    def process(self, uri: str) -> Any:
        """Load a process.

        Raises
        ------
        InvalidWorkflowError
            If the document is not valid, or has no such process.
        """
        name = _name_in_bundle(uri)
        if name is None or name not in self._bundle.files:
            raise InvalidWorkflowError(
                WorkflowProblem(
                    f"{_refusal(uri) if name is None else repr(name) + ' is not among the uploaded files'}."
                )
            )
        if name not in self._documents:
            self._documents[name] = self._load(name)
        processes = self._documents[name]
        wanted = unquote(urlsplit(uri).fragment)
        if wanted in processes:
            return processes[wanted]
        if not wanted and len(processes) == 1:
            return next(iter(processes.values()))
        if not wanted and "main" in processes:
            return processes["main"]
        there = ", ".join(repr(identity) for identity in processes if identity)
        message = (
            f"There is no process {wanted!r}; the file has {there}." if there else f"There is no process {wanted!r}."
        )
        raise InvalidWorkflowError(WorkflowProblem(message, name))

    def problem(self, identity: str | None, message: str) -> WorkflowProblem:
        """Say of something, by its identifier, what is wrong with it."""
        name = _name_in_bundle((identity or "").partition("#")[0])
        if name is None:
            return WorkflowProblem(message)
        return WorkflowProblem(message, name, *self._places.get(name, {}).get(_fragment(identity or ""), ()))

    def _load(self, name: str) -> dict[str, Any]:
        from cwl_utils.parser import cwl_v1_0, cwl_v1_1, cwl_v1_2  # noqa: PLC0415 - takes a second, at the first upload
        from schema_salad.exceptions import SchemaSaladException  # noqa: PLC0415 - likewise
        from schema_salad.runtime import LoadingOptions  # noqa: PLC0415 - likewise

        content = self._bundle.files[name]
        parsed = parse(name, content)
        # A tool without a version has that of the workflow that runs it.
        version = _version_of(parsed, name, self.version if self._documents else None)
        module = {"v1.0": cwl_v1_0, "v1.1": cwl_v1_1, "v1.2": cwl_v1_2}[version]
        document = _with_lines(content.decode("utf-8-sig"))
        document.setdefault("cwlVersion", version)
        # The parser knows cwltool's extensions too, under names that the engine does not take.
        known = {
            requirement.__name__
            for requirement in module.ProcessRequirement.__subclasses__()
            if str(module._vocab.get(requirement.__name__)).startswith("https://w3id.org/cwl/cwl#")  # noqa: SLF001 - nowhere else
        }
        self.standard |= known
        if problems := list(_raw_problems(document, name, self._bundle, known)):
            raise InvalidWorkflowError(*problems[:_MAX_PROBLEMS])
        self._places[name] = dict(_index(document))
        loaded: dict[str, Any] = {}
        try:
            # One by one, for of a list the parser does not say what is wrong with its items.
            for process in _processes(document):
                options = LoadingOptions(fetcher=self._fetcher, fileuri=_ROOT + name, baseuri=_ROOT + name)
                made = module.load_document_by_yaml(process, _ROOT + name, options)
                loaded[_fragment(made.id)] = made
        except SchemaSaladException as error:
            raise InvalidWorkflowError(*_problems_of(error, name)) from None
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            # The generated parser trips over some documents where it ought to refuse them.
            message = f"This is not valid CWL {version}: the parser stops at it ({_clean(str(error))})."
            raise InvalidWorkflowError(WorkflowProblem(message, name)) from None
        # The only process of a plain document is known by its file alone, whatever id it gives itself.
        return loaded if "$graph" in document else {"": next(iter(loaded.values())), **loaded}


def _processes(document: Any) -> list[Any]:
    """Take a packed document apart."""
    if "$graph" not in document:
        return [document]
    graph = document["$graph"]
    if not isinstance(graph, list):
        return []
    types = [
        entry
        for process in graph
        for requirement in _requirements(process, "SchemaDefRequirement")
        for entry in _list(requirement.get("types"))
        if isinstance(entry, Mapping) and "name" in entry
    ]
    made = []
    for process in graph:
        if not isinstance(process, MutableMapping) or process.get("class") not in _PROCESS_CLASSES:
            # Whatever else is packed with them has been put where it is used, or is of no use.
            continue
        for requirement in _requirements(process, "SchemaDefRequirement"):
            requirement["types"] = [
                found for entry in _list(requirement.get("types")) for found in _packed_types(entry, types)
            ]
        for key in ("cwlVersion", "$namespaces", "$schemas"):
            if key in document:
                process.setdefault(key, document[key])
        made.append(process)
    return made


def _requirements(process: Any, name: str) -> list[Any]:
    listed = process.get("requirements") if isinstance(process, Mapping) else None
    if isinstance(listed, Mapping):
        return [listed[name]] if isinstance(listed.get(name), Mapping) else []
    return [entry for entry in _list(listed) if isinstance(entry, Mapping) and entry.get("class") == name]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _packed_types(entry: Any, types: list[Any]) -> list[Any]:
    """Resolve an import from within the same packed document; packing leaves a type only where it is used first."""
    target = entry.get("$import") if isinstance(entry, Mapping) else None
    found = [entry]
    if isinstance(target, str) and target.startswith("#"):
        found = [
            known
            for known in types
            if target in (known.get("id"), known["name"]) or str(known["name"]).startswith(f"{target}/")
        ]
    # The file that a type came from is noted in a field that CWL does not know.
    return [
        {key: value for key, value in one.items() if key != "id"} if isinstance(one, Mapping) else one for one in found
    ]


def _version_of(parsed: Any, name: str, default: str | None = None) -> str:
    if not isinstance(parsed, Mapping):
        raise InvalidWorkflowError(WorkflowProblem("This is no CWL document: a CWL document is a mapping.", name))
    version = parsed.get("cwlVersion", default)
    if version is None:
        message = "The field `cwlVersion` is missing; write `cwlVersion: v1.2` at its top."
        raise InvalidWorkflowError(WorkflowProblem(message, name))
    if version not in CWL_VERSIONS:
        message = f"The cwlVersion {version!r} is not known here; {', '.join(CWL_VERSIONS)} are."
        raise InvalidWorkflowError(WorkflowProblem(message, name))
    return str(version)


def _with_lines(text: str) -> Any:
    """Parse a document in the way of CWL's engines, with the line of each value."""
    from schema_salad.utils import yaml_no_ts  # noqa: PLC0415 - takes a second, at the first upload

    if len(text) > _MAX_LINED and is_json(text):
        try:
            # Packed documents are large, and YAML is slow. They come from a program: their lines help nobody.
            return json.loads(without_interpreter(text))
        except ValueError:
            pass
    # YAML takes the two escapes by which JSON writes one character for two characters.
    return yaml_no_ts().load(_SURROGATES.sub(lambda pair: json.loads(f'"{pair[0]}"'), text))


def _index(document: Any) -> Iterator[tuple[str, tuple[int, int]]]:
    """Find the place of each process, parameter and step by its identifier."""
    processes = document.get("$graph", [document])
    for process in processes if isinstance(processes, list) else []:
        if not isinstance(process, Mapping):
            continue
        base = str(process.get("id", "")).removeprefix("#")
        if base and (place := _place(process, "id")):
            yield base, place
        for section in ("inputs", "outputs", "steps"):
            entries = process.get(section)
            if isinstance(entries, Mapping):
                found = [(key, _place(entries, key)) for key in entries]
            else:
                listed = entries if isinstance(entries, list) else []
                found = [
                    (item["id"], _place(item, "id")) for item in listed if isinstance(item, Mapping) and "id" in item
                ]
            for key, place in found:
                if place:
                    short = str(key).removeprefix("#").removeprefix(f"{base}/")
                    yield f"{base}/{short}" if base else short, place


def _fragment(identity: str) -> str:
    return unquote(identity.partition("#")[2])


def _short(identity: str) -> str:
    """Give the name of a parameter, field or symbol, as the engines take it from an identifier."""
    fragment = identity.partition("#")[2] or identity
    return fragment.rsplit("/", 1)[-1]


def _class_of(process: Any) -> str:
    return str(getattr(process, "class_", type(process).__name__))


def _text(doc: Any) -> str | None:
    if doc is None or isinstance(doc, str):
        return doc
    return "\n".join(str(part) for part in doc)


# --- checks of the text, before the parser -----------------------------------------------------------------------------


def _raw_problems(  # noqa: C901 - one walk over all that a document may hold
    value: Any, name: str, bundle: Bundle, known: set[str]
) -> Iterator[WorkflowProblem]:
    """Find what the generated parser does not look at, or explains badly."""
    if isinstance(value, Mapping):
        if value.get("class") in ("File", "Directory"):
            written = [(key, value[key]) for key in ("location", "path") if isinstance(value.get(key), str)]
            for key, location in written:
                if message := _literal_problem(location, name, bundle):
                    yield WorkflowProblem(message, name, *_place(value, key))
        if value.get("class") in _PROCESS_CLASSES or "run" in value:
            yield from _requirement_problems(value, name, known)
        for key, item in value.items():
            if key in ("run", "$import", "$include") and isinstance(item, str):
                if message := _reference_problem(item, name, bundle):
                    yield WorkflowProblem(message, name, *_place(value, key))
            else:
                # The keys of these mappings are names, which may be "class" or "run" too.
                named = key in ("inputs", "outputs", "steps", "in") and isinstance(item, Mapping)
                for part in item.values() if named else [item]:
                    yield from _raw_problems(part, name, bundle, known)
    elif isinstance(value, list):
        for item in value:
            yield from _raw_problems(item, name, bundle, known)


def _reference_problem(reference: str, name: str, bundle: Bundle) -> str | None:
    if reference.startswith("#"):
        return None
    try:
        url = urljoin(_ROOT + name, reference)
    except ValueError:
        return f"{reference!r} is no reference."
    target = _name_in_bundle(url)
    if target is None:
        return f"{_refusal(url, reference)}."
    return None if target in bundle.files else f"{target!r} is not among the uploaded files."


def _literal_problem(location: str, name: str, bundle: Bundle) -> str | None:  # noqa: PLR0911 - one per thing that is wrong
    if "$(" in location or "${" in location:
        return None
    try:
        split = urlsplit(location)
    except ValueError:
        return f"{location!r} is no location."
    if split.scheme in ("file", "sha256") or location.startswith("/"):
        return None
    if split.scheme:
        return f"The location {location!r} cannot be read: nothing is read from the network. Upload that file with the others."
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(location)))
    if target.startswith(".."):
        return f"The location {location!r} leads out of the workflow's folder."
    if target not in bundle.files and not any(other.startswith(target + "/") for other in bundle.files):
        return f"{target!r} is not among the uploaded files."
    return None


def _requirement_problems(process: Mapping[str, Any], name: str, known: set[str]) -> Iterator[WorkflowProblem]:
    for section in ("requirements", "hints"):
        listed = process.get(section)
        if section in process and listed is None:
            yield WorkflowProblem(
                f"`{section}` is empty; leave it out, or fill it in.", name, *_place(process, section)
            )
        if isinstance(listed, Mapping):
            places = [(requirement, _place(listed, requirement)) for requirement in listed]
        else:
            places = []
            for item in _list(listed):
                if isinstance(item, Mapping) and "class" in item:
                    places.append((item["class"], _place(item, "class")))
                elif not isinstance(item, Mapping) or not {"$import", "$include"} & set(item):
                    yield WorkflowProblem(f"An entry of `{section}` has no class.", name, *_place(process, section))
        for requirement, place in places:
            if section == "hints" or requirement in known or requirement in ("$import", "$include"):
                continue
            message = f"The requirement {requirement!r} is not known here{_guess(str(requirement), known)}"
            if ":" in str(requirement):
                message += " An extension that the process can do without may stand in `hints`."
            yield WorkflowProblem(message, name, *place)


def _guess(word: str, known: Sequence[str] | set[str]) -> str:
    """End a sentence, with what was probably meant."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.65)
    return f"; did you mean {close[0]!r}?" if close else "."


def _place(value: Any, key: Any) -> tuple[int, int] | tuple[()]:
    try:
        line, column = value.lc.key(key)
    except (AttributeError, KeyError, TypeError):
        return ()
    return line + 1, column + 1


# --- the parser's errors, for people -----------------------------------------------------------------------------------

_FIELD = re.compile(r"^the `(.+?)` field(?: with value .*)? is not valid because", re.DOTALL)
_OBJECT = re.compile(r"^checking object `(.+?)`")
_TRIED = re.compile(r"^tried `(.+)` but$", re.DOTALL)
_MISSING = re.compile(r"^missing required field `(.+?)`")
_INVALID = re.compile(r"^invalid field `(.+?)`, expected one of: (.*)$", re.DOTALL)
_UNDEFINED = re.compile(r"^(?:Field `(.+?)` )?contains undefined reference to `(.+?)`", re.DOTALL)
_EXPECTED = re.compile(r"^Expected one of \((.*)\)", re.DOTALL)
_WRONG_KIND = re.compile(r"^(Expected one of|Expected a|Value is a|Value `)")
_MISPLACED = re.compile(
    r"^Value is an? (\w+), but valid types? for this field (?:is|are) (?:an? )?\(?(.*?)\)?\.?$", re.DOTALL
)
_PYTHON = re.compile(r"<(?:class ')?([\w.]+?)(?:'| object at 0x[0-9a-f]+)>")
_KINDS = {
    "NoneType": "nothing",
    "null": "nothing",
    "str": "a text",
    "string": "a text",
    "array": "a list",
    "list": "a list",
    "CommentedSeq": "a list",
    "CommentedMap": "a mapping",
    "dict": "a mapping",
    "object": "a mapping",
    "int": "a whole number",
    "bool": "true or false",
    "boolean": "true or false",
    "float": "a number",
}


def _problems_of(error: SchemaSaladException, name: str) -> list[WorkflowProblem]:
    found = list(dict.fromkeys(_leaves(error, (), name)))
    return found[:_MAX_PROBLEMS] or [WorkflowProblem(_clean(str(error)) or "This is not valid CWL.", name)]


def _leaves(error: SchemaSaladException, trail: tuple[str, ...], name: str) -> Iterator[WorkflowProblem]:
    message = error.message.strip()
    if match := _FIELD.match(message):
        trail = (*trail, f"`{match[1]}`")
    elif match := _OBJECT.match(message):
        identity = _short(match[1])
        if "#" in match[1] and f"`{identity}`" not in trail:
            trail = (*trail, f"`{identity}`")
    if error.children:
        for child in _best(error.children):
            yield from _leaves(child, trail, name)
        return
    if not message:
        return
    where = f"In {' / '.join(trail)}: " if trail else ""
    line, column = error.start or (None, None)
    sentence = _sentence(message)
    if where:
        sentence = sentence[:1].lower() + sentence[1:]
    yield WorkflowProblem(f"{where}{sentence}", _file_of(error) or name, line, column)


def _best(children: Sequence[SchemaSaladException]) -> list[SchemaSaladException]:
    """Of several forms that were tried, keep the one that was most likely meant."""
    tried = [child for child in children if _TRIED.match(child.message.strip())]
    others = [child for child in children if not _TRIED.match(child.message.strip())]
    if len(tried) > 1:
        tried = [min(tried, key=_distance)]
    return others + tried


def _distance(error: SchemaSaladException) -> tuple[int, int]:
    wrong = 0
    for child in error.children:
        is_tag = child.message.strip().startswith(("the `type` field", "the `class` field"))
        leaves = child.leaves()
        wrong += bool(
            _WRONG_KIND.match(child.message.strip())
            or (is_tag and all(_WRONG_KIND.match(leaf.message.strip()) for leaf in leaves))
            or ("`class`" in child.message and "undefined reference" in child.message)
        )
    return wrong, len(error.leaves())


def _sentence(message: str) -> str:  # noqa: PLR0911 - one per kind of message
    if match := _MISSING.match(message):
        return f"The required field `{match[1]}` is missing."
    if match := _INVALID.match(message):
        known = re.findall(r"`([^`]+)`", match[2])
        return f"There is no field `{_clean(match[1])}` here{_guess(match[1], known)} There are {', '.join(known)}."
    if match := _UNDEFINED.match(message):
        target = _clean(match[2])
        if match[1] == "class":
            return f"The class {target!r} is not known{_guess(target, _PROCESS_CLASSES)}"
        subject = f"`{match[1]}`" if match[1] else "It"
        return f"{subject} refers to {target!r}, which is not among the uploaded files."
    if match := _MISPLACED.match(message):
        wanted = " or ".join(_KINDS.get(word, word) for word in re.findall(r"[\w.]+", match[2].replace("<class", "")))
        return f"There is {_KINDS.get(match[1], match[1])} where {wanted} is wanted."
    if message == "Expected a <class 'NoneType'> but got list":
        return "One of these entries is not valid."
    if match := _EXPECTED.match(message):
        return f"This is not one of {_clean(match[1]).replace(chr(39), '').rstrip(',')}."
    cleaned = _clean(message)
    return cleaned if cleaned.endswith((".", "?", "!")) else cleaned + "."


def _clean(text: str) -> str:
    """Take out what only the parser's authors understand."""
    text = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text)
    text = re.sub(r"(?:file://)?(?:\.\./)*/?\bbundle/", "", text)
    text = _PYTHON.sub(lambda match: _KINDS.get(match[1], match[1].rpartition(".")[2].strip("_")), text)
    return " ".join(text.split())


def _file_of(error: SchemaSaladException) -> str | None:
    # schema-salad makes names relative to the working directory, by way of the root.
    marker = "bundle/"
    if error.file is None or marker not in error.file:
        return None
    return unquote(error.file.partition(marker)[2])


# --- everything that the process runs ----------------------------------------------------------------------------------


class _Visit:
    """A walk over the process and all that it runs: collects requirements and checks the wiring."""

    def __init__(self, library: _Library) -> None:
        self._library = library
        self._done: set[int] = set()
        self.problems: list[WorkflowProblem] = []
        self.requirements: set[str] = set()
        self.containers: set[str] = set()
        self.work_reuse = True

    def process(self, process: Any, stack: tuple[int, ...]) -> None:
        if id(process) in self._done:
            return
        self._requirements(process)
        kind = _class_of(process)
        if kind == "Workflow":
            self._workflow(process, (*stack, id(process)))
        elif kind not in ("CommandLineTool", "ExpressionTool"):
            self._report(process, f"A process of the class {kind} describes something abstract, which cannot be run.")
        self._done.add(id(process))

    def warnings(self) -> list[str]:
        """Say what a person should know before running the process."""
        said = [
            f"It runs in the container image {image}: a container engine is needed where it runs."
            for image in sorted(self.containers)
        ]
        if "InlineJavascriptRequirement" in self.requirements:
            said.append("It evaluates expressions in JavaScript: Node.js is needed where it runs.")
        if "NetworkAccess" in self.requirements:
            said.append("It asks for access to the network.")
        if "SoftwareRequirement" in self.requirements:
            said.append("It names the software that it needs; that has to be installed where it runs.")
        if "InplaceUpdateRequirement" in self.requirements:
            said.append("It asks to change its input files in place; it gets copies.")
        extensions = sorted(name for name in self.requirements if ":" in name or "#" in name)
        said.extend(f"The hint {name} is an extension of CWL, which may have no effect here." for name in extensions)
        return said

    def _requirements(self, process: Any) -> None:
        for requirement in [*(process.requirements or []), *(process.hints or [])]:
            # A hint that the parser does not know stays a mapping.
            is_known = not isinstance(requirement, Mapping)
            name = type(requirement).__name__ if is_known else str(requirement.get("class", ""))
            if name:
                self.requirements.add(f"cwltool:{name}" if is_known and name not in self._library.standard else name)
            if (
                name == "DockerRequirement"
                and is_known
                and (image := requirement.dockerPull or requirement.dockerImageId)
            ):
                self.containers.add(str(image))
            if name == "WorkReuse" and is_known and requirement.enableReuse is False:
                self.work_reuse = False

    def _report(self, subject: Any, message: str) -> None:
        self.problems.append(self._library.problem(subject.id, message))

    def _workflow(self, workflow: Any, stack: tuple[int, ...]) -> None:
        wiring = _Wiring(workflow, self._library, self._report)
        for step in workflow.steps:
            if step.requirements or step.hints:
                self._requirements(step)
            name = _short(step.id)
            if isinstance(step.run, str):
                try:
                    run = self._library.process(step.run)
                except InvalidWorkflowError as error:
                    self.problems.extend(
                        problem
                        if problem.file is not None
                        else self._library.problem(step.id, f"In the step `{name}`: {problem.message}")
                        for problem in error.problems
                    )
                    continue
            else:
                run = step.run
            if id(run) in stack:
                self._report(step, f"The step `{name}` runs the workflow that it is part of.")
                continue
            self.process(run, stack)
            try:
                wiring.step(step, name, run)
            except InvalidWorkflowError as error:
                self.problems.extend(error.problems)
        wiring.check()


class _Wiring:
    """The connections between the steps of a workflow."""

    def __init__(self, workflow: Any, library: _Library, report: Callable[[Any, str], None]) -> None:
        self._workflow = workflow
        self._library = library
        self._report = report
        types = _Types(workflow, library)
        # What a name gives: a type, or None where it cannot be known before the run.
        self._given: dict[str, Any] = {}
        for parameter in workflow.inputs:
            given = types.of(parameter)
            if getattr(parameter, "default", None) is not None and isinstance(given, list):
                given = _simplify([member for member in given if member != "null"])
            self._given[_fragment(parameter.id)] = given
        self._sinks: list[tuple[Any, str, list[str], Any]] = []
        self._before: dict[str, set[str]] = {}
        self._complete = True

    def step(self, step: Any, name: str, run: Any) -> None:
        """Take up a step and what it runs."""
        types = _Types(run, self._library)
        wanted = {_short(parameter.id): parameter for parameter in run.inputs}
        given = {_short(parameter.id): parameter for parameter in run.outputs}
        inputs = {_short(entry.id): entry for entry in step.in_ or []}
        scatter = [_short(entry) for entry in ([step.scatter] if isinstance(step.scatter, str) else step.scatter or [])]
        for scattered in scatter:
            if scattered not in inputs:
                self._report(step, f"The step `{name}` scatters over `{scattered}`, which is none of its inputs.")
        for key, parameter in wanted.items():
            entry = inputs.get(key)
            supplied = entry is not None and (entry.source or entry.default is not None or entry.valueFrom is not None)
            default = getattr(parameter, "default", None)
            if not supplied and default is None and not is_optional(types.of(parameter)):
                self._report(step, f"The step `{name}` gives no value to the required input `{key}` of what it runs.")
        before = self._before.setdefault(_fragment(step.id), set())
        for key, entry in inputs.items():
            sources = _sources(entry.source)
            before.update(sources)
            sink = types.of(wanted[key]) if key in wanted else None
            if key in scatter and sink is not None:
                sink = {"type": "array", "items": sink}
            plain = entry.valueFrom is None and _passes_on(entry)
            self._sinks.append((step, f"The input `{key}` of the step `{name}`", sources, sink if plain else None))
        depth = len(scatter) if step.scatterMethod == "nested_crossproduct" else min(len(scatter), 1)
        for out in step.out:
            identity = out if isinstance(out, str) else out.id
            key = _short(identity)
            if key not in given:
                guess = _guess(key, list(given))
                self._report(
                    step, f"The step `{name}` names the output `{key}`, which what it runs does not have{guess}"
                )
                self._given[_fragment(identity)] = None
                continue
            made = types.of(given[key])
            for _ in range(depth):
                made = {"type": "array", "items": made}
            self._given[_fragment(identity)] = None if getattr(step, "when", None) is not None else made

    def check(self) -> None:
        """Report every connection that leads nowhere, in a circle, or to something of another type."""
        types = _Types(self._workflow, self._library)
        for output in self._workflow.outputs:
            sink = types.of(output)
            where = f"The output `{_short(output.id)}`"
            self._sinks.append((output, where, _sources(output.outputSource), sink if _passes_on(output) else None))
        steps = {_fragment(step.id): _short(step.id) for step in self._workflow.steps}
        base = _fragment(self._workflow.id)
        for subject, where, sources, sink in self._sinks:
            for source in sources:
                shown = source.removeprefix(base + "/") if base else source
                if source not in self._given:
                    # Where the step itself could not be loaded, that was reported already.
                    if source.rpartition("/")[0] in steps and source.rpartition("/")[0] not in self._before:
                        continue
                    known = [name.removeprefix(base + "/") if base else name for name in self._given]
                    self._report(subject, f"{where} comes from `{shown}`, which is not there{_guess(shown, known)}")
                elif len(sources) == 1 and not _may_fit(self._given[source], sink):
                    told = f"`{shown}`, which gives {type_words(self._given[source])}"
                    self._report(subject, f"{where} takes {type_words(sink)}, but comes from {told}.")
        self._circles(steps)

    def _circles(self, steps: dict[str, str]) -> None:
        after = {
            step: {source.rpartition("/")[0] for source in self._before.get(step, ())} & set(steps) for step in steps
        }
        while ready := [step for step, before in after.items() if not before & set(after)]:
            for step in ready:
                del after[step]
        if after:
            names = ", ".join(f"`{steps[step]}`" for step in after)
            self._report(self._workflow, f"The steps {names} wait for each other in a circle.")


def _passes_on(sink: Any) -> bool:
    """Tell whether a value arrives as it was sent."""
    return getattr(sink, "linkMerge", None) is None and getattr(sink, "pickValue", None) is None


def _sources(source: Any) -> list[str]:
    return [_fragment(entry) for entry in ([source] if isinstance(source, str) else source or [])]


def _may_fit(source: Any, sink: Any) -> bool:
    """Tell whether some value of one type is a value of the other; null alone does not count."""
    if source is None or sink is None:
        return True
    sources = [member for member in (source if isinstance(source, list) else [source]) if member != "null"]
    sinks = [member for member in (sink if isinstance(sink, list) else [sink]) if member != "null"]
    if not sources or not sinks:
        return True
    return any(_one_may_fit(one, other) for one in sources for other in sinks)


_WIDER = {
    "int": ("long", "float", "double"),
    "long": ("int", "float", "double"),
    "float": ("double",),
    "double": ("float",),
}


def _one_may_fit(source: Any, sink: Any) -> bool:
    if "Any" in (source, sink):
        return True
    if isinstance(source, str) and isinstance(sink, str):
        return source == sink or sink in _WIDER.get(source, ())
    kinds = [one if isinstance(one, str) else one["type"] for one in (source, sink)]
    if kinds[0] != kinds[1]:
        return set(kinds) == {"enum", "string"}
    if kinds[0] == "array":
        return _may_fit(source["items"], sink["items"])
    if kinds[0] == "record":
        given = {entry["name"]: entry["type"] for entry in source["fields"]}
        return all(
            _may_fit(given[entry["name"]], entry["type"]) if entry["name"] in given else is_optional(entry["type"])
            for entry in sink["fields"]
        )
    return True


# --- columns -----------------------------------------------------------------------------------------------------------


def _columns(process: Any, library: _Library) -> list[Column]:
    types = _Types(process, library)
    columns: list[Column] = []
    problems: list[WorkflowProblem] = []
    seen: dict[str, str] = {}
    parameters: list[tuple[ColumnRole, Any]] = [
        *(("input", parameter) for parameter in process.inputs),
        *(("output", parameter) for parameter in process.outputs),
    ]
    for role, parameter in parameters:
        identity = _short(parameter.id)
        if identity in seen:
            both = "two parameters" if seen[identity] == role else "an input and an output"
            problems.append(
                library.problem(parameter.id, f"`{identity}` is the name of {both}; a table needs different names.")
            )
            continue
        seen[identity] = role
        try:
            column = Column(
                name=identity,
                role=role,
                type=types.of(parameter),
                label=parameter.label,
                description=_text(parameter.doc),
                default=_default(getattr(parameter, "default", None)),
                **_votable(parameter),
            )
            column = column.model_copy(update={"default": check_default(column)})
        except InvalidWorkflowError as error:
            problems.extend(error.problems)
        except InvalidValueError as error:
            problems.append(
                library.problem(
                    parameter.id, f"The default of the input `{identity}` does not fit its type: {error.message}"
                )
            )
        except ValidationError:
            problems.append(
                library.problem(parameter.id, f"`{identity[:50]}...` is too long for the name of a column.")
            )
        else:
            columns.append(column)
    if problems:
        raise InvalidWorkflowError(*problems[:_MAX_PROBLEMS])
    return columns


def _votable(parameter: Any) -> dict[str, Any]:
    found = {}
    for key, value in (getattr(parameter, "extension_fields", None) or {}).items():
        if (match := _VOTABLE.match(key)) and isinstance(value, str):
            found[match[1]] = value
    return found


def _default(value: Any) -> Any:
    """Write a default as JSON. Files of the bundle are named relative to the bundle."""
    if hasattr(value, "save"):
        value = value.save()
    if isinstance(value, Mapping):
        made = {str(key): _default(item) for key, item in value.items()}
        if made.get("class") in ("File", "Directory"):
            location = made.pop("path", None) if made.get("location") is None else made["location"]
            if isinstance(location, str):
                made["location"] = unquote(location.removeprefix(_ROOT)) if location.startswith(_ROOT) else location
        return made
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Sequence):
        return [_default(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    # The parser keeps how a number was written; only the number counts.
    return int(value) if isinstance(value, int) else float(value)


def _simplify(members: list[Any]) -> Any:
    return members[0] if len(members) == 1 else members


class _Types:
    """The types of one process's parameters, in the normal form of `stoa_contracts.types.Column`."""

    def __init__(self, process: Any, library: _Library) -> None:
        self._library = library
        self._parameter = ""
        self._named: dict[str, Any] = {}
        self._resolving: list[str] = []
        for requirement in [*(process.requirements or []), *(process.hints or [])]:
            if type(requirement).__name__ == "SchemaDefRequirement":
                for schema in _flat(requirement.types):
                    if getattr(schema, "name", None):
                        self._named[schema.name] = schema

    def of(self, parameter: Any) -> Any:
        """Normalise a parameter's type.

        Raises
        ------
        InvalidWorkflowError
            If the type is not known, or contains itself.
        """
        self._parameter = parameter.id
        return self._normal(parameter.type_, _short(parameter.id))

    def _normal(self, given: Any, where: str) -> Any:
        if isinstance(given, str):
            return self._named_type(given, where)
        if isinstance(given, Sequence):
            return self._union(given, where)
        kind = str(given.type_)
        if kind == "array":
            return {"type": "array", "items": self._normal(given.items, where)}
        if kind == "enum":
            return {"type": "enum", "symbols": [_short(symbol) for symbol in given.symbols]}
        fields = [
            {"name": _short(entry.name), "type": self._normal(entry.type_, f"{where}.{_short(entry.name)}")}
            for entry in given.fields or []
        ]
        return {"type": "record", "fields": fields}

    def _named_type(self, name: str, where: str) -> Any:
        if name in _PRIMITIVES:
            return str(name)
        if name in _STREAMS:
            return "File"
        if name not in self._named:
            shown = name.rpartition("#")[2] or name
            guess = _guess(shown, [*_PRIMITIVES[:-1], *(entry.rpartition("#")[2] for entry in self._named)])
            raise self._problem(f"The type {shown!r} of `{where}` is not known{guess}")
        if name in self._resolving:
            raise self._problem(f"The type {name.rpartition('#')[2]!r} of `{where}` contains itself.")
        self._resolving.append(name)
        try:
            return self._normal(self._named[name], where)
        finally:
            self._resolving.pop()

    def _union(self, members: Sequence[Any], where: str) -> Any:
        flat: list[Any] = []
        for member in members:
            normal = self._normal(member, where)
            flat.extend(entry for entry in (normal if isinstance(normal, list) else [normal]) if entry not in flat)
        if not flat:
            raise self._problem(f"`{where}` has no type.")
        if "null" in flat:
            flat = ["null", *(entry for entry in flat if entry != "null")]
        return _simplify(flat)

    def _problem(self, message: str) -> InvalidWorkflowError:
        return InvalidWorkflowError(self._library.problem(self._parameter, message))


def _flat(items: Any) -> Iterator[Any]:
    for item in items:
        if isinstance(item, Sequence) and not isinstance(item, str):
            yield from _flat(item)
        else:
            yield item
