"""From a job message to what an engine takes, and to the key that says what decides the outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stoa_contracts.jobs import JobRequest
from stoa_contracts.keys import changeable_locations, job_key
from stoa_contracts.types import InputFile, JobKey
from stoa_executor.digests import ContentDigests, ContentUnstableError, Held
from stoa_executor.domain import InputRefusedError, file_objects, local_path
from stoa_executor.software import ProgramChangedError, Software, WorkflowDescription
from stoa_executor.staging import InputGuard, InputStager, StagedWorkflow, bundled_path
from stoa_executor.store import FileStore

__all__ = ["InputUnstableError", "Preparation", "Preparer"]


class InputUnstableError(RuntimeError):
    """An input changed while it was needed as it was; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A file or directory as a job found it."""

    name: str
    """Of the input."""
    path: str
    real: str
    bundled: bool
    held: Held


@dataclass(slots=True, kw_only=True)
class Preparation:
    """A job that is ready to run."""

    inputs: dict[str, Any]
    """As the engine takes them."""
    files: list[InputFile] = field(default_factory=list)
    software: dict[str, str] = field(default_factory=dict)
    key: JobKey | None = None
    """None where it cannot be computed, because the engine could not load the workflow."""
    may_reuse: bool = False
    """Whether the workflow allows to take the outputs of an earlier run."""
    guard: InputGuard | None = None
    read: list[_Read] = field(default_factory=list)


class Preparer:
    """Stages the inputs of jobs, looks at what they hold, and computes keys.

    Parameters
    ----------
    store
        The file store.
    stager
        Turns locations into local paths.
    digests
        Looks at files outside the store.
    software
        Looks at programs.
    """

    def __init__(self, store: FileStore, stager: InputStager, digests: ContentDigests, software: Software) -> None:
        self._store = store
        self._stager = stager
        self._digests = digests
        self._software = software

    def prepare(
        self,
        request: JobRequest,
        workflow: StagedWorkflow,
        description: WorkflowDescription | None,
        interrupted: Callable[[], bool],
    ) -> Preparation:
        """Make a job ready; runs in a thread, because large files may have to be read.

        Raises
        ------
        stoa_executor.domain.InputRefusedError
            If an input cannot be used.
        InputUnstableError
            If an input is being written to.
        stoa_executor.digests.InterruptedLookError
            If ``interrupted`` said so.
        """
        inputs = request.inputs
        prepared = Preparation(inputs=inputs)
        known = True
        if any(True for _ in file_objects(inputs)):
            places = list(_places(inputs, workflow))
            prepared.inputs = self._stager.stage(inputs, workflow.directory)
            prepared.guard = InputGuard(self._store, inputs)
            self._digests.fetch([path for _, _, path in places])
            for name, location, path in places:
                held = self._held(name, path, workflow, interrupted)
                if held is None:
                    # It stands in a listing that the tool does not get to see.
                    known = False
                    continue
                prepared.read.append(held)
                prepared.files.append(InputFile(location=location, sha256=held.held.sha256, size=held.held.size))
        if description is not None:
            prepared.software = self._software.of(description, workflow.directory, interrupted)
            prepared.may_reuse = description.reuse
            if known:
                prepared.key = job_key(
                    workflow_version=request.workflow_version,
                    inputs=inputs,
                    files=prepared.files,
                    software=prepared.software,
                )
        return prepared

    @property
    def has_news(self) -> bool:
        """Whether something was learned of files that is not in the database."""
        return self._digests.has_news

    async def save(self) -> None:
        """Write what was learned of files into the database, so that they are not read again."""
        await self._digests.save()

    def check(self, prepared: Preparation, workflow: StagedWorkflow, description: WorkflowDescription | None) -> None:
        """Look again after the run: what was digested has to be what the tool read.

        Raises
        ------
        stoa_executor.domain.InputRefusedError
            If the tool wrote to a stored file.
        InputUnstableError
            If a file outside the store changed.
        stoa_executor.software.ProgramChangedError
            If a program did.
        """
        if prepared.guard is not None:
            prepared.guard.check()
        for item in prepared.read:
            if not self._is_as_before(item):
                msg = f"Input '{item.name}': {item.path} changed while the job ran, so its result is not kept."
                raise InputUnstableError(msg)
        if description is not None:
            now = self._software.of(description, workflow.directory)
            for name, what in prepared.software.items():
                if now.get(name) != what:
                    msg = f"The program {name} was replaced while the job ran, so its result is not kept."
                    raise ProgramChangedError(msg)

    def _held(self, name: str, path: str, workflow: StagedWorkflow, interrupted: Callable[[], bool]) -> _Read | None:
        real = os.path.realpath(path)
        bundled = path.startswith(f"{workflow.directory}{os.sep}")
        try:
            held = self._digests.look(path, recall=False, inside_roots=not bundled, interrupted=interrupted)
        except ContentUnstableError as error:
            msg = f"Input '{name}': {error}"
            raise InputUnstableError(msg) from error
        except FileNotFoundError:
            return None
        except PermissionError as error:
            msg = f"Input '{name}': {path} cannot be read: {error.strerror or error}."
            raise InputRefusedError(msg) from error
        except OSError as error:
            msg = f"Input '{name}': {path} cannot be read just now: {error.strerror or error}."
            raise InputUnstableError(msg) from error
        return _Read(name, path, real, bundled, held)

    def _is_as_before(self, item: _Read) -> bool:
        try:
            inside_roots = not item.bundled
            state, written = self._digests.state(item.path, inside_roots=inside_roots)
            if written != item.held.written or os.path.realpath(item.path) != item.real:
                return False
            if state == item.held.state and item.held.settled:
                return True
            # Written to within the grain of the clock, or not written to at all: only the content tells.
            return self._digests.look(item.path, inside_roots=inside_roots).sha256 == item.held.sha256
        except OSError:
            return False


def _places(inputs: dict[str, Any], workflow: StagedWorkflow) -> Iterator[tuple[str, str, str]]:
    """List inputs by name, location and path, each location once."""
    seen = set()
    for name, value in inputs.items():
        for location in changeable_locations(value):
            if location not in seen:
                seen.add(location)
                path = local_path(location) or bundled_path(location, workflow.directory)
                if path is not None:
                    yield name, location, path
