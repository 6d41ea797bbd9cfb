"""Set-up of every test: servers, the property tests' profiles, and the closing lines that name the servers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers import (
    database_url,
    nats_server,
    nats_url,
    postgres_server,
    postgres_url,
    servers_used,
    sqlite_url,
)

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

__all__ = ["database_url", "nats_server", "nats_url", "postgres_server", "postgres_url", "sqlite_url"]

# Examples that talk to a database take their time, and on a busy machine longer: a deadline would only measure that.
_unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", _unhurried, max_examples=50)
settings.register_profile("ci", _unhurried, max_examples=50, derandomize=True, print_blob=True)
settings.register_profile("nightly", _unhurried, max_examples=500, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

_WORKER_KEY = "stoa_servers"


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the list of servers."""
    config.stash[servers_used] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that all workers end at about the same time."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the run that distributes the tests which servers this worker used."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        used = session.config.stash[servers_used]
        output[_WORKER_KEY] = sorted(used)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Take over what a worker of a distributed run used."""
    output = getattr(node, "workeroutput", {})
    node.config.stash[servers_used].update(output.get(_WORKER_KEY, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which servers the tests talked to."""
    used = config.stash[servers_used]
    terminalreporter.write_line(f"servers: {', '.join(sorted(used)) or 'none was needed'}")
