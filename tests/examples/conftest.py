"""The example's archive, made once, and its tools, run in the two ways that people run them."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from astropy.io import fits
from astropy.table import Table
from cwltool.context import RuntimeContext
from cwltool.factory import Factory, WorkflowStatus

EXAMPLE = Path(__file__).parents[2] / "examples" / "alma-survey"


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    """The script that makes the archive, as a module."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        importlib.import_module("simulation")
        return importlib.import_module("make_archive")
    finally:
        sys.path.remove(str(EXAMPLE))


@dataclass(frozen=True)
class Archive:
    """An archive and what it was made from."""

    directory: Path

    def products(self) -> dict[str, Path]:
        """Product directories by target."""
        listed = Table.read(self.directory / "truth" / "files.ecsv")
        return {str(row["object"]): self.directory / str(row["product"]) for row in listed}

    def roles(self, target: str) -> dict[str, str]:
        """What the files of a target really are: file name by role."""
        listed = Table.read(self.directory / "truth" / "files.ecsv")
        return {str(row["role"]): str(row["file"]) for row in listed if row["object"] == target}

    def sources(self, target: str) -> Table:
        """The simulated sources of a target."""
        listed = Table.read(self.directory / "truth" / "sources.ecsv")
        return listed[listed["object"] == target]

    def beam(self, target: str) -> float:
        """Major axis of a target's beam in arcsec."""
        path = next(self.products()[target].glob("*.fits"))
        return float(fits.getheader(path)["BMAJ"]) * 3600


@pytest.fixture(scope="session")
def archive(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The archive as `make up` makes it."""
    directory = tmp_path_factory.mktemp("alma") / "archive"
    generator.make_archive(directory)
    return Archive(directory)


class ToolError(Exception):
    """A tool failed; the message is what it wrote."""


class Script:
    """Runs the tools' scripts inside this process, which saves their start: for tests over all observations."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._monkeypatch = monkeypatch
        self._runs = 0

    def __call__(self, script: str, *arguments: object) -> dict[str, Any]:
        """Run a script in a directory of its own and read what it gives, with files as paths."""
        self._runs += 1
        work = self._directory / str(self._runs)
        work.mkdir()
        with self._monkeypatch.context() as patch:
            patch.chdir(work)
            patch.setattr(sys, "argv", [script, *map(str, arguments)])
            try:
                runpy.run_path(str(EXAMPLE / script), run_name="__main__")
            except SystemExit as end:
                raise ToolError(end.code) from end
        result: dict[str, Any] = json.loads((work / "cwl.output.json").read_text())
        return {name: work / v["path"] if isinstance(v, dict) else v for name, v in result.items()}


@pytest.fixture
def script(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Runs a tool's script in this process."""
    return Script(tmp_path_factory.mktemp("script"), monkeypatch)


class Engine:
    """Runs the CWL documents with cwltool's library, as the executor does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tools: dict[str, Any] = {}
        self._runs = 0

    def __call__(self, document: str, **inputs: Any) -> dict[str, Any]:
        """Run a document; a path among the inputs is a directory."""
        if document not in self._tools:
            factory = Factory(runtime_context=RuntimeContext({"use_container": False}))
            self._tools[document] = factory, factory.make(str(EXAMPLE / document))
        factory, tool = self._tools[document]
        self._runs += 1
        factory.runtime_context.outdir = str(self._directory / str(self._runs))
        try:
            outputs: dict[str, Any] = tool(**{name: as_cwl(value) for name, value in inputs.items()})
        except WorkflowStatus as failure:
            raise ToolError(str(failure)) from failure
        return outputs


def as_cwl(value: Any) -> Any:
    """Write a value as in a CWL job."""
    return {"class": "Directory", "location": value.as_uri()} if isinstance(value, Path) else value


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment in which the executor runs tools: this interpreter's programs come first."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def engine(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> Engine:
    """Runs a CWL document in this process's cwltool."""
    monkeypatch.setenv("PATH", environment["PATH"])
    return Engine(tmp_path_factory.mktemp("engine"))


@pytest.fixture
def command_line(tmp_path: Path, environment: dict[str, str]) -> Any:
    """Runs a CWL document with the cwltool command, as a person does; gives the ended process."""

    def run(document: str, **inputs: Any) -> subprocess.CompletedProcess[str]:
        job = tmp_path / "job.json"
        job.write_text(json.dumps({name: as_cwl(value) for name, value in inputs.items()}))
        # The command, not `python -m cwltool`, which ends with code 0 whatever happened.
        command = ["cwltool", "--quiet", "--outdir", str(tmp_path / "out"), str(EXAMPLE / document), str(job)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run
