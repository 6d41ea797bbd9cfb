"""The programs that tools run, by content: a program that was replaced gives other outputs under the same name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoa_executor.digests import ContentDigests

__all__ = ["ProgramChangedError", "Software", "WorkflowDescription"]

#: Names in `software` that say what runs jobs; a program of the same name is told apart.
_RESERVED = frozenset({"cwltool", "python", "stoa"})

_INTERPRETER = re.compile(rb"#![ \t]*([^\s]+)[ \t]*([^\n]*)")
_LONGEST_CHAIN = 4
_VERSION_TIMEOUT_S = 10.0
_JAVASCRIPT = ("nodejs", "node")


class ProgramChangedError(RuntimeError):
    """A program was replaced while a job ran it; the text is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowDescription:
    """What a workflow version runs, as `stoa_executor.description.describe` says it."""

    programs: tuple[str, ...]
    expressions: bool
    reuse: bool

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> WorkflowDescription:
        """Read it from the engine's answer."""
        return cls(
            programs=tuple(described["programs"]),
            expressions=bool(described["expressions"]),
            reuse=bool(described["reuse"]),
        )


class Software:
    """Finds the programs of workflows where the engines would find them.

    Parameters
    ----------
    digests
        Looks at the programs' content.
    search_path
        The engines' ``PATH``.
    engine
        Name to version of what runs the tools; part of every job's software.

    Notes
    -----
    A program counts by its own file, and a script by its interpreter's too. What these load while they run, such as shared
    libraries and Python packages, is not looked at, nor are programs that a tool starts by itself.
    """

    def __init__(self, digests: ContentDigests, search_path: str, engine: Mapping[str, str]) -> None:
        self._digests = digests
        self._search_path = search_path
        self._engine = dict(engine)
        self._interpreters: dict[tuple[str, str], str | None] = {}
        self._versions: dict[tuple[str, str], str] = {}

    def of(
        self, workflow: WorkflowDescription, bundle: Path, interrupted: Callable[[], bool] = lambda: False
    ) -> dict[str, str]:
        """Say what a workflow would run now.

        Parameters
        ----------
        workflow
            What it says of itself.
        bundle
            The directory of its files.
        interrupted
            Asked from time to time; once it is true, the look ends.

        Returns
        -------
        dict
            Name to version or digest.

        Raises
        ------
        stoa_executor.digests.InterruptedLookError
            If ``interrupted`` said so.
        """
        found = dict(self._engine)
        for name in self._with_interpreters(workflow.programs, bundle):
            shown = f"{name} (program)" if name in _RESERVED else name
            path = self._find(name)
            found[shown] = "not found" if path is None else self._digest(path, interrupted)
        if workflow.expressions:
            found["node"] = self._javascript()
        return found

    def _with_interpreters(self, programs: Iterable[str], bundle: Path) -> Iterator[str]:
        """Add the interpreters of scripts; leave out what is part of the workflow, because its version says it."""
        seen: set[str] = set()
        for program in programs:
            name: str | None = program
            for _ in range(_LONGEST_CHAIN):
                if name is None or name in seen:
                    break
                seen.add(name)
                if "/" in name and not name.startswith("/"):
                    inside = os.path.normpath(bundle / name)
                    path = inside if inside.startswith(f"{bundle}{os.sep}") and os.path.isfile(inside) else None
                else:
                    path = self._find(name)
                    yield name
                name = None if path is None else self._interpreter(path)

    def _find(self, name: str) -> str | None:
        return shutil.which(name, path=self._search_path)

    def _digest(self, path: str, interrupted: Callable[[], bool]) -> str:
        try:
            return f"sha256:{self._digests.look(path, inside_roots=False, interrupted=interrupted).sha256}"
        except OSError:
            return "not readable"

    def _interpreter(self, path: str) -> str | None:
        try:
            known = (path, self._digests.state(path)[0])
            if known not in self._interpreters:
                with open(path, "rb") as file:
                    self._interpreters[known] = _named_interpreter(file.read(256))
            return self._interpreters[known]
        except OSError:
            return None

    def _javascript(self) -> str:
        """Give the version: the program itself is often a small one that loads the engine from a library."""
        path = next(filter(None, (self._find(name) for name in _JAVASCRIPT)), None)
        if path is None:
            return "not found"
        try:
            known = (path, self._digests.state(path)[0])
            if known not in self._versions:
                done = subprocess.run(  # noqa: S603 - the engines' own Node.js
                    [path, "--version"],
                    capture_output=True,
                    timeout=_VERSION_TIMEOUT_S,
                    check=True,
                    env={"PATH": self._search_path},
                )
                self._versions[known] = done.stdout.decode(errors="replace").strip()
            return self._versions[known]
        except (OSError, subprocess.SubprocessError):
            return "not found"


def _named_interpreter(beginning: bytes) -> str | None:
    match = _INTERPRETER.match(beginning)
    if match is None:
        return None
    program = os.fsdecode(match[1])
    if os.path.basename(program) != "env":
        return program
    words = os.fsdecode(match[2]).split()
    return next((word for word in words if not word.startswith("-") and "=" not in word), None)
