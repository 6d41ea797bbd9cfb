"""Writes a CWL document for a command line: what stands in it becomes the inputs of a table.

A command line says which values were given, and not what else the program takes, so the document is a beginning: the notes
tell where it had to guess.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from stoa_tables.problems import InvalidRequestError

__all__ = ["Wrapped", "wrap"]

#: What a shell does and a tool does not: the tool sees only the words between.
_OF_A_SHELL = {
    "|": "a pipe",
    ";": "several commands",
    "&": "several commands",
    "(": "a subshell",
    ")": "a subshell",
}

_INTERPRETERS = frozenset({"python", "python3", "sh", "bash", "perl", "Rscript", "julia", "node", "tclsh"})
_SCRIPT = re.compile(r"\.(py|sh|bash|pl|r|R|jl|js|tcl)$")
_INTEGER = re.compile(r"[+-]?\d+$")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_FILE = re.compile(r".*\.[A-Za-z][A-Za-z0-9_]{0,9}$|.*/.*|^~")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
#: Options that most programs name their outputs by; the last ones are those of the AstrOmatic software.
_OUTPUT = re.compile(
    r"^-+((.*[-_])?(o|out|output|outfile)([-_]?(file|name|image|table|catalog))?|(image|weight)out_name|(catalog|checkimage)_name)$",
    re.IGNORECASE,
)
_CHANGED = re.compile(r"[^A-Za-z0-9]+")
_INT32 = 2**31
_SHORT = len("-v")


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A CWL document, and what its author should know."""

    name: str
    """What the program is called, as the name of a file."""
    document: str
    """CWL v1.2 in YAML."""
    needs: Sequence[str]
    """Files that belong beside the document, because the command line runs them."""
    notes: Sequence[str]


@dataclass(slots=True)
class _Tool:
    names: set[str] = field(default_factory=set)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stdin: str | None = None
    stdout: str | None = None

    def name(self, wish: str, otherwise: str) -> str:
        """Give a parameter a name that no other one has."""
        plain = _CHANGED.sub("_", wish).strip("_").lower() or otherwise
        if plain[0].isdigit():
            plain = f"{otherwise}_{plain}"
        name, number = plain, 2
        while name in self.names:
            name, number = f"{plain}_{number}", number + 1
        self.names.add(name)
        return name


def wrap(command: str) -> Wrapped:
    """Write a CWL document that runs a command line.

    Numbers and texts become inputs with what was given as their default, files become inputs without one, and what follows
    ``>`` or an option such as ``-o`` becomes an output.

    Parameters
    ----------
    command
        As it is typed in a shell, such as ``sex img.fits -c default.sex``.

    Returns
    -------
    Wrapped
        The document.

    Raises
    ------
    InvalidRequestError
        If it is no single command.
    """
    words = list(_words(command))
    if not words:
        raise InvalidRequestError("There is no command to wrap")
    program, *rest = words
    if not program.plain or "=" in program.text:
        raise InvalidRequestError(f"A command begins with its program, not with {program.text!r}")
    tool = _Tool()
    base = [program.text]
    needs = []
    if PurePosixPath(program.text).name in _INTERPRETERS and rest and rest[0].plain and _SCRIPT.search(rest[0].text):
        script = PurePosixPath(rest.pop(0).text).name
        needs.append(script)
        base.append(script)
    elif "/" in program.text and _SCRIPT.search(program.text):
        script = PurePosixPath(program.text).name
        needs.append(script)
        base = [
            {"py": "python3", "sh": "sh", "bash": "bash", "pl": "perl"}.get(script.rpartition(".")[2], "sh"),
            script,
        ]
    _take_arguments(tool, rest)
    name = PurePosixPath(base[-1]).name
    return Wrapped(
        name=_CHANGED.sub("_", name.rpartition(".")[0] if needs else name).strip("_") or "tool",
        document=_document(tool, command, base, needs),
        needs=needs,
        notes=tool.notes,
    )


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    plain: bool
    """False for what a shell redirects with."""


def _words(command: str) -> Iterator[_Word]:
    for mark in ("$(", "`", "${"):
        if mark in command:
            raise InvalidRequestError(
                f"{mark!r} is replaced by a shell, and a tool is run without one: write the value itself"
            )
    if "\n" in command.strip().replace("\\\n", " "):
        raise InvalidRequestError("The command has several lines; one command is wrapped at a time")
    lexer = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        found = list(lexer)
    except ValueError as error:
        raise InvalidRequestError(f"The command cannot be read: {str(error).lower()}") from None
    for text in found:
        if text and set(text) <= set("();<>|&"):
            if text not in {"<", ">", ">>"}:
                meaning = _OF_A_SHELL.get(text[0], "a redirection")
                raise InvalidRequestError(
                    f"{text!r} is {meaning}; a tool is one command. Several of them are steps of a CWL Workflow"
                )
            yield _Word(text, plain=False)
        else:
            yield _Word(text, plain=True)


def _take_arguments(tool: _Tool, words: Sequence[_Word]) -> None:
    waiting = list(words)
    position, has_file = 0, False
    while waiting:
        word = waiting.pop(0)
        if not word.plain:
            if not waiting or not waiting[0].plain:
                raise InvalidRequestError(f"After {word.text!r} comes the name of a file")
            _redirect(tool, word.text, waiting.pop(0).text)
            continue
        position += 1
        if not _is_option(word.text):
            _value(tool, _stem(word.text), word.text, {"position": position})
            has_file = has_file or _is_file(word.text)
            continue
        option, sign, given = word.text.partition("=")
        if sign:
            _value(tool, option, given, {"position": position, "prefix": f"{option}=", "separate": False}, option)
        elif _takes_next(option, waiting, has_file=has_file):
            _value(tool, option, waiting.pop(0).text, {"position": position, "prefix": option}, option)
        else:
            name = tool.name(option, "option")
            binding = {"position": position, "prefix": option}
            tool.inputs[name] = {"type": "boolean", "default": True, "inputBinding": binding}


def _is_option(text: str) -> bool:
    return text.startswith("-") and text not in {"-", "--"} and not _NUMBER.match(text)


def _takes_next(option: str, waiting: Sequence[_Word], *, has_file: bool) -> bool:
    """Tell whether the next word is an option's value. Nobody but the program knows.

    Most options take one, but a command without any file otherwise most likely works on the last one.
    """
    if not waiting or not waiting[0].plain or _is_option(waiting[0].text):
        return False
    is_last = not any(word.plain for word in waiting[1:])
    is_switch = len(option) == _SHORT and not _OUTPUT.match(option)
    return not (is_last and is_switch and not has_file and _is_file(waiting[0].text))


def _redirect(tool: _Tool, sign: str, path: str) -> None:
    if sign == "<":
        name = tool.name("stdin", "stdin")
        tool.inputs[name] = {"type": "File", "doc": f"What the tool reads, such as {path}."}
        tool.stdin = name
        return
    if sign == ">>":
        tool.notes.append(f"{path} is written anew for every row: there is nothing to append to.")
    tool.stdout = PurePosixPath(path).name
    tool.outputs[tool.name(_stem(path), "output")] = {"type": "stdout", "doc": "What the tool prints."}


def _value(tool: _Tool, wish: str, text: str, binding: dict[str, Any], option: str | None = None) -> None:
    name = tool.name(wish.lstrip("-"), "input")
    if option is not None and _OUTPUT.match(option) and not _NUMBER.match(text):
        file = PurePosixPath(text).name or "output"
        if file != text:
            tool.notes.append(f"The output {text} is written as {file} into the directory of the run.")
        tool.inputs[name] = {"type": "string", "default": file, "doc": "Name of the output.", "inputBinding": binding}
        output = tool.name(f"{name}_file", "output")
        tool.outputs[output] = {"type": "File", "outputBinding": {"glob": f"$(inputs.{name})"}}
        return
    if option is not None and binding.get("separate", True):
        tool.notes.append(
            f"{text} is taken as the value of {option}; if {option} is a switch of its own, make it a boolean and"
            f" {text} an argument."
        )
    tool.inputs[name] = {**_type_of(text), "inputBinding": binding}


def _type_of(text: str) -> dict[str, Any]:
    if _INTEGER.match(text):
        return {"type": "int" if -_INT32 <= int(text) < _INT32 else "long", "default": int(text)}
    if _NUMBER.match(text):
        return {"type": "double", "default": float(text)}
    if _is_file(text):
        return {"type": "File", "doc": f"Such as {PurePosixPath(text).name}."}
    return {"type": "string", "default": text}


def _is_file(text: str) -> bool:
    return bool(_FILE.match(text)) and not _URL.match(text) and not _NUMBER.match(text)


def _stem(text: str) -> str:
    if _URL.match(text):
        return "url"
    if _NUMBER.match(text):
        return "number"
    return PurePosixPath(text).name.partition(".")[0] or "input"


def _document(tool: _Tool, command: str, base: list[str], needs: Sequence[str]) -> str:
    document: dict[str, Any] = {
        "cwlVersion": "v1.2",
        "class": "CommandLineTool",
        "label": base[-1],
        "doc": f"Runs: {' '.join(command.split())}",
    }
    if needs:
        listing = [{"entryname": script, "entry": {"$include": script}} for script in needs]
        document["requirements"] = {"InitialWorkDirRequirement": {"listing": listing}}
    document["baseCommand"] = base
    document["inputs"] = tool.inputs
    if tool.stdin is not None:
        document["stdin"] = f"$(inputs.{tool.stdin}.path)"
    if not tool.outputs:
        tool.stdout = "stdout.txt"
        tool.outputs[tool.name("printed", "output")] = {"type": "stdout", "doc": "What the tool prints."}
        tool.notes.append(
            "The command names no output, so what it prints is taken. For a file that it writes, add an output with a glob."
        )
    document["outputs"] = tool.outputs
    if tool.stdout is not None:
        document["stdout"] = tool.stdout
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 120
    written = StringIO()
    yaml.dump(document, written)
    return written.getvalue()
