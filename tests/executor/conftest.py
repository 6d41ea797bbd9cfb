"""Parts of the executor, real ones, for its tests."""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import pytest_asyncio

from stoa_executor.pool import EnginePool, EngineRequest, EngineResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_numbers = itertools.count(1)


@dataclass
class Rig:
    """A pool, and a place for workflows and jobs."""

    pool: EnginePool
    directory: Path
    requests: list[EngineRequest] = field(default_factory=list)

    def workflow(self, main: dict[str, Any] | str, **files: str) -> Path:
        """Write a workflow version and give its directory."""
        number = next(_numbers)
        directory = self.directory / f"workflow{number}"
        directory.mkdir()
        text = main if isinstance(main, str) else json.dumps({"cwlVersion": "v1.2", **main})
        (directory / "main.cwl").write_text(text)
        for name, content in files.items():
            (directory / name.replace("__", ".")).write_text(content)
        return directory

    def request(
        self, workflow: Path | dict[str, Any], inputs: dict[str, Any] | None = None, **more: Any
    ) -> EngineRequest:
        """Make a request for a job with a name of its own."""
        number = next(_numbers)
        directory = workflow if not isinstance(workflow, dict) else self.workflow(workflow)
        request = EngineRequest(
            job=f"job{number}",
            workflow=directory,
            main="main.cwl",
            inputs=inputs or {},
            directory=self.directory / f"job{number}",
            **more,
        )
        self.requests.append(request)
        return request

    async def run(
        self, workflow: Path | dict[str, Any], inputs: dict[str, Any] | None = None, **more: Any
    ) -> EngineResult:
        """Run a job to its end."""
        return await self.pool.run(self.request(workflow, inputs, **more))

    def log(self) -> str:
        """Read the log of the last job."""
        return (self.requests[-1].directory / "log").read_text()


def tool(
    command: list[str] | str, inputs: dict[str, Any] | None = None, outputs: Any = None, **more: Any
) -> dict[str, Any]:
    """Write a command line tool; a text is a Python program."""
    base = command if isinstance(command, list) else ["python3", "-c", command]
    return {
        "class": "CommandLineTool",
        "baseCommand": base,
        "inputs": inputs or {},
        "outputs": outputs if outputs is not None else {},
        **more,
    }


def none_lives(pids: list[int]) -> bool:
    """Tell whether processes are gone; one that was killed on another core may still be about to fall."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            gone, _ = psutil.wait_procs([process], timeout=0 if process.status() == psutil.STATUS_ZOMBIE else 5)
            if not gone and process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


@pytest.fixture
def make_pool(tmp_path: Path) -> Callable[..., EnginePool]:
    """Give a maker of pools that work below the test's directory."""

    def make(**options: Any) -> EnginePool:
        options = {"workers": 1, "directory": tmp_path / "engines", **options}
        return EnginePool(**options)

    return make


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """Give a pool with one engine, which all tests of a module share as the rows of a table would."""
    directory = tmp_path_factory.mktemp("rig")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STOA_TOKEN", "very-secret")
        pool = EnginePool(workers=1, directory=directory / "engines")
        await pool.start()
        yield Rig(pool, directory)
        await pool.stop(1.0)
