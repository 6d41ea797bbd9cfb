"""What decides the outputs of a job, as digests.

Every service that speaks of keys computes them here: the executor when a job runs, the tables service when it asks whether
a row's outputs still belong to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from stoa_contracts.canonical import digest
from stoa_contracts.types import Digest, InputFile, JobKey, Values

__all__ = [
    "InputParameter",
    "changeable_locations",
    "content_digest",
    "inputs_digest",
    "job_inputs",
    "job_key",
]

#: Begins the location of a file that is named by its content.
_BY_CONTENT = "sha256:"

_FILES = frozenset({"File", "Directory"})

#: What a tool can see of a file beside its content.
_VISIBLE = ("class", "basename", "format")


class InputParameter(Protocol):
    """An input of a workflow."""

    @property
    def name(self) -> str:
        """The parameter's name."""

    @property
    def default(self) -> Any:
        """The value where nobody filled one in."""


def job_inputs(parameters: Iterable[InputParameter], values: Values) -> Values:
    """Give the input object of a job: one value for each parameter, its default where nobody filled in a value."""
    filled = {}
    for parameter in parameters:
        value = values.get(parameter.name)
        filled[parameter.name] = parameter.default if value is None else value
    return filled


def inputs_digest(inputs: Values) -> Digest:
    """Digest an input object as it is written, files by their locations.

    Parameters
    ----------
    inputs
        As `job_inputs` gives it.
    """
    return digest({name: _as_written(value) for name, value in inputs.items()})


def content_digest(inputs: Values, files: Mapping[str, Digest]) -> Digest:
    """Digest an input object by content: it makes no difference where files lie.

    Parameters
    ----------
    inputs
        As `job_inputs` gives it.
    files
        What the files and directories hold whose locations do not say it.

    Raises
    ------
    KeyError
        If the content of a file is not known.
    """
    return digest({name: _by_content(value, files) for name, value in inputs.items()})


def changeable_locations(inputs: Any) -> Iterator[str]:
    """List the locations of files and directories in values whose content may change, in their order."""
    if isinstance(inputs, dict):
        if inputs.get("class") in _FILES:
            location = _location(inputs)
            if location is not None and not location.startswith(_BY_CONTENT):
                yield location
            yield from changeable_locations([inputs.get("secondaryFiles"), inputs.get("listing")])
        else:
            yield from changeable_locations(list(inputs.values()))
    elif isinstance(inputs, list):
        for item in inputs:
            yield from changeable_locations(item)


def job_key(
    *, workflow_version: Digest, inputs: Values, files: Iterable[InputFile], software: Mapping[str, str]
) -> JobKey:
    """Compute the key of a job.

    Parameters
    ----------
    workflow_version
        The version that runs.
    inputs
        As `job_inputs` gives it.
    files
        What the files and directories hold whose locations do not say it.
    software
        Name to version or digest of the container images or programs that run.

    Raises
    ------
    KeyError
        If the content of a file is not known.
    """
    held = {file.location: file.sha256 for file in files}
    by_software = digest(dict(software))
    return JobKey(
        digest=digest([workflow_version, content_digest(inputs, held), by_software]),
        workflow=workflow_version,
        inputs=inputs_digest(inputs),
        files=digest(held),
        software=by_software,
    )


def _location(file: Mapping[str, Any]) -> str | None:
    location = file.get("location") or file.get("path")
    return location if isinstance(location, str) else None


def _as_written(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_written(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class") not in _FILES:
        return {name: _as_written(item) for name, item in value.items()}
    written = _visible(value)
    if (location := _location(value)) is not None:
        written["location"] = location
    else:
        written["contents"] = value.get("contents")
    return written | _together(value, _as_written)


def _by_content(value: Any, files: Mapping[str, Digest]) -> Any:
    if isinstance(value, list):
        return [_by_content(item, files) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class") not in _FILES:
        return {name: _by_content(item, files) for name, item in value.items()}
    held = _visible(value)
    location = _location(value)
    if location is None:
        held["contents"] = value.get("contents")
    elif location.startswith(_BY_CONTENT):
        held["sha256"] = location.removeprefix(_BY_CONTENT)
    else:
        held["sha256"] = files[location]
    return held | _together(value, lambda item: _by_content(item, files))


def _visible(file: Mapping[str, Any]) -> dict[str, Any]:
    seen = {name: file[name] for name in _VISIBLE if file.get(name) is not None}
    location = _location(file)
    if "basename" not in seen and location is not None and not location.startswith(_BY_CONTENT):
        # A tool sees the name of the file that it reads.
        seen["basename"] = location.rstrip("/").rpartition("/")[2]
    return seen


def _together(file: Mapping[str, Any], of: Any) -> dict[str, Any]:
    return {name: of(file[name]) for name in ("secondaryFiles", "listing") if file.get(name)}
