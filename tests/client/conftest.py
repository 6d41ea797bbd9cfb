"""A whole Stoa, started as a user starts it, and the command in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from stoa.cli import root
from tests.support.servers import servers_used
from tests.support.stoa import RunningStoa, running_stoa


@pytest.fixture(scope="session")
def stoa(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[RunningStoa]:
    """A running Stoa without tables at first; each test makes its own."""
    pytestconfig.stash[servers_used].add("Stoa with SQLite and a NATS server of its own")
    folder = tmp_path_factory.mktemp("stoa")
    archive = {"STOA_EXECUTOR_INPUT_ROOTS": json.dumps([str(folder / "archive")])}
    (folder / "archive").mkdir()
    with running_stoa(folder / "data", "--workers", "2", environment=archive) as running:
        yield running


@dataclass(frozen=True)
class Answer:
    """What the command said, and its exit status."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """Standard output, which has to be one JSON document and nothing else."""
        assert self.status == 0, self.errors
        return json.loads(self.output)


Command = Callable[..., Answer]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command with arguments, on no Stoa."""
    for name in ("STOA_TOKEN", "STOA_DATA", "STOA_CONFIG"):
        # Set first, so that what the command sets itself is taken back, too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("STOA_URL", "http://127.0.0.1:9")

    def run(*arguments: object, input: str | None = None) -> Answer:  # noqa: A002 - as click calls it
        result = CliRunner().invoke(root, [str(argument) for argument in arguments], input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def at_stoa(stoa: RunningStoa, command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command with arguments, on the running Stoa."""
    monkeypatch.setenv("STOA_URL", stoa.url)
    return command
