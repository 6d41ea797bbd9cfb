"""Pure rules of the executor: plain sentences from failures, file locations in values, and who may run a job.

Nothing here does input or output, and nothing beyond the standard library is imported: the engine process uses it too.
"""

from __future__ import annotations

import codecs
import hashlib
import math
import os
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "Claim",
    "InfiniteValueError",
    "InputRefusedError",
    "bool_for_number",
    "claim_decision",
    "clean_message",
    "failure_sentence",
    "file_objects",
    "last_words",
    "local_path",
    "map_files",
    "path_id",
    "plain_value",
    "whole_characters",
]

ENGINE_MARK = "cwltool: "
"""Begins every line that the engine itself writes into a job's log, so that it can be told from the tool's own lines."""

_MAX_SENTENCE = 500
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_POSITION = re.compile(r"(?:file://)?[^\s:'\"]*?([^/\s:'\"]+\.(?:cwl|ya?ml|json))(?:#[^\s:]*)?:(\d+):\d+:\s*")
_BULLET = re.compile(r"(?m)^\s*[*-]\s+")
_COLLECTING = re.compile(r"Error collecting output for parameter '([^']+)':\s*")
_PLAIN_LOCATION = re.compile(r"file://(/[^%?#\x00-\x20]*)")
_NOTHING_SAID = re.compile(r"[\W_]*")


class InputRefusedError(ValueError):
    """An input value cannot be used; the text is one sentence for people."""


class InfiniteValueError(ValueError):
    """An output holds an infinity, which neither JSON nor a table cell can carry."""


# --- sentences -------------------------------------------------------------------------------------------------------


def last_words(text: str) -> str:
    """Find the last meaningful line that a tool wrote to its error stream.

    Parameters
    ----------
    text
        The end of the log; lines of the engine are passed over.

    Returns
    -------
    str
        One line without control characters, or an empty text.
    """
    for line in reversed(text.splitlines()):
        if line.startswith(ENGINE_MARK):
            continue
        # A progress bar overwrites its line: what stood there last counts.
        words = _ANSI.sub("", line.rstrip("\r").rpartition("\r")[2] or line).strip()
        if words and not _NOTHING_SAID.fullmatch(words):
            return _shorten("".join(character for character in words if character.isprintable()))
    return ""


def clean_message(message: str) -> str:
    """Make one sentence of a message of the engine, which may be a tree of lines with file names.

    Parameters
    ----------
    message
        As the CWL engine gives it.

    Returns
    -------
    str
        One line; of a position in a document its file name and line stay.
    """
    first, _, rest = message.strip().partition("\n")
    if first.rstrip(":") in {"Invalid job input record", "Job error"} and rest:
        message = rest
    positions: list[str] = []

    def note(match: re.Match[str]) -> str:
        positions.append(f"{match[1]}, line {match[2]}")
        return ""

    text = " ".join(_BULLET.sub("", _POSITION.sub(note, _ANSI.sub("", message))).split())
    text = _COLLECTING.sub(r"Output '\1': ", text)
    text = text.removeprefix("Error validating output record. ")
    if " in {" in text:
        text = text[: text.index(" in {")]
    if positions and "Output '" not in text:
        text = f"{text.rstrip('.')} ({positions[-1]})."
    return _shorten(text)


def whole_characters(chunk: bytes) -> bytes:
    """Cut a piece of UTF-8 text so that it does not end in the middle of a character.

    Parameters
    ----------
    chunk
        Bytes from the beginning of a character on.

    Returns
    -------
    bytes
        All of it, or up to three bytes less; what is no UTF-8 at all stays as it is.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    decoder.decode(chunk)
    begun = decoder.getstate()[0]
    return chunk.removesuffix(begun)


def failure_sentence(
    *,
    exit_code: int | None,
    said: str,
    messages: Sequence[str] = (),
    step: str | None = None,
) -> str:
    """Say in one sentence why a job failed.

    Parameters
    ----------
    exit_code
        Of the tool that failed, negative for a signal; None where none ran or none failed.
    said
        The end of what the tool wrote to its error stream.
    messages
        What the engine said, in order.
    step
        The step of a workflow in which it happened.

    Returns
    -------
    str
        The tool's last words where it failed itself, else the engine's message.
    """
    if exit_code is not None and exit_code != 0:
        timeout = next((text for text in messages if "exceeded time limit" in text), None)
        if timeout is not None:
            match = re.search(r"time limit of (\d+)", timeout)
            sentence = (
                f"The tool ran longer than its time limit of {match[1]} seconds." if match else clean_message(timeout)
            )
        else:
            sentence = last_words(said)
        if not sentence and exit_code < 0:
            sentence = f"The tool was ended by signal {-exit_code} ({_signal_name(-exit_code)})."
        if not sentence:
            sentence = f"The tool ended with exit status {exit_code} and left no message."
    elif messages:
        missing = re.match(r"'(?P<program>[^']+)' not found: \[Errno 2\]", messages[0])
        sentence = f"The program '{missing['program']}' was not found." if missing else clean_message(messages[0])
    else:
        sentence = last_words(said) or "The workflow failed and left no message."
    return _shorten(f"Step '{step}': {sentence}" if step else sentence)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SENTENCE else f"{text[: _MAX_SENTENCE - 1]}…"


# --- values ----------------------------------------------------------------------------------------------------------


def plain_value(value: Any, where: str = "") -> Any:  # noqa: PLR0911 - one return per kind of value
    """Turn an output value into what JSON can carry.

    Parameters
    ----------
    value
        Of the CWL output object.
    where
        The name of the output, for the message.

    Returns
    -------
    object
        Plain dictionaries, lists and scalars; NaN becomes None.

    Raises
    ------
    InfiniteValueError
        If there is an infinity.
    """
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            msg = (
                f"Output '{where}' holds an infinite number, which a table cannot carry."
                if where
                else "A number is infinite."
            )
            raise InfiniteValueError(msg)
        return float(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, dict):
        return {str(key): plain_value(item, where or str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item, where) for item in value]
    msg = f"Output '{where}' holds a value of the type {type(value).__name__}, which JSON cannot carry."
    raise InfiniteValueError(msg)


def bool_for_number(schema: Any, value: Any) -> bool:
    """Tell whether a truth value stands where the type wants a number, which Python itself would let pass.

    Parameters
    ----------
    schema
        A CWL type in its JSON form.
    value
        The value.

    Returns
    -------
    bool
        True if it does.
    """
    if isinstance(value, bool):
        names = set(_type_names(schema))
        return bool(names & {"int", "long", "float", "double"}) and not names & {"boolean", "Any"}
    if isinstance(value, list):
        items = [
            kind["items"] for kind in _alternatives(schema) if isinstance(kind, dict) and kind.get("type") == "array"
        ]
        return bool(items) and any(all(bool_for_number(kind, item) for kind in items) for item in value)
    return False


def _alternatives(schema: Any) -> Sequence[Any]:
    return schema if isinstance(schema, list) else [schema]


def _type_names(schema: Any) -> Iterator[str]:
    for kind in _alternatives(schema):
        if isinstance(kind, str):
            yield kind.rsplit("#", 1)[-1]
        elif (
            isinstance(kind, dict)
            and isinstance(kind.get("type"), (list, str))
            and kind["type"] not in {"array", "record", "enum"}
        ):
            yield from _type_names(kind["type"])


def file_objects(value: Any) -> Iterator[dict[str, Any]]:
    """Walk over the File and Directory objects in a value, outermost first.

    Parameters
    ----------
    value
        A CWL value.

    Yields
    ------
    dict
        Each object, including secondary files and the entries of listings.
    """
    if isinstance(value, dict):
        if value.get("class") in {"File", "Directory"}:
            yield value
        for item in value.values():
            if isinstance(item, (dict, list)):
                yield from file_objects(item)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, (dict, list)):
                yield from file_objects(item)


def map_files(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Copy a value with its File and Directory objects changed.

    Parameters
    ----------
    value
        A CWL value.
    change
        Gets each File or Directory and gives what stands in its place. It sees the outer one first, and what is inside
        its result (secondary files, listings) is visited afterwards.

    Returns
    -------
    object
        The changed copy; parts without files are shared with the original.
    """
    if isinstance(value, dict):
        if value.get("class") in {"File", "Directory"}:
            value = change(value)
        return {key: map_files(item, change) if isinstance(item, (dict, list)) else item for key, item in value.items()}
    if isinstance(value, list):
        return [map_files(item, change) if isinstance(item, (dict, list)) else item for item in value]
    return value


def local_path(location: str) -> str | None:
    """Read the path out of a location on the local disk.

    Parameters
    ----------
    location
        ``file:///…`` or an absolute path.

    Returns
    -------
    str or None
        The path, or None if the location is of another kind.
    """
    if location.startswith("/"):
        return location
    if match := _PLAIN_LOCATION.fullmatch(location):
        # Nearly all are like this, and there may be a hundred thousand to look at.
        return match[1]
    parts = urlsplit(location)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
        return unquote(parts.path)
    return None


def path_id(path: str) -> str:
    """Name a path in a column of fixed length, whatever bytes it is made of.

    Parameters
    ----------
    path
        An absolute path.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return hashlib.sha256(os.fsencode(path)).hexdigest()


# --- claims ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """What is written down about a job: its newest attempt, and what became of it."""

    attempt: int
    state: Literal["running", "finished", "cancelled"]


def claim_decision(known: Claim | None, attempt: int) -> Literal["run", "drop", "cancelled"]:
    """Decide what a delivered job message means.

    Parameters
    ----------
    known
        What is written down about the job, if anything.
    attempt
        The attempt that the message asks for.

    Returns
    -------
    {"run", "drop", "cancelled"}
        ``run`` for a new attempt and for one whose runner vanished, ``drop`` for one that has its outcome or was
        superseded, ``cancelled`` for one that was called off before it started.
    """
    if known is None or attempt > known.attempt:
        return "cancelled" if known is not None and known.state == "cancelled" else "run"
    if attempt < known.attempt or known.state == "finished":
        return "drop"
    return "cancelled" if known.state == "cancelled" else "run"
