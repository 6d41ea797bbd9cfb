"""What lives as long as the executor's process, and what a request needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from stoa_chassis.service import ProcessContext, process_context
from stoa_executor.agent import Agent
from stoa_executor.ledger import Ledger
from stoa_executor.settings import ExecutorSettings
from stoa_executor.store import FileStore
from stoa_executor.watching import FileWatcher

__all__ = ["Context", "ExecutorContext"]


@dataclass(frozen=True, kw_only=True)
class ExecutorContext(ProcessContext):
    """What lives as long as the executor's process."""

    settings: ExecutorSettings
    """How the process was set up."""

    store: FileStore
    """The files."""

    parts: dict[str, object]
    """The agent, the ledger and the watcher, which need the rest of the context to be made."""

    @property
    def agent(self) -> Agent:
        """What runs the jobs."""
        agent = self.parts["agent"]
        assert isinstance(agent, Agent)  # noqa: S101 - narrows the type
        return agent

    @property
    def ledger(self) -> Ledger:
        """What was written about jobs."""
        ledger = self.parts["ledger"]
        assert isinstance(ledger, Ledger)  # noqa: S101 - narrows the type
        return ledger

    @property
    def watcher(self) -> FileWatcher:
        """What notices changes of files that jobs have read."""
        watcher = self.parts["watcher"]
        assert isinstance(watcher, FileWatcher)  # noqa: S101 - narrows the type
        return watcher

    async def problems(self) -> list[str]:
        """List what keeps the process from doing all its work."""
        found = await super().problems()
        problem = self.agent.problem() if "agent" in self.parts else None
        return [*found, problem] if problem else found


#: For the parameters of handlers.
Context = Annotated[ExecutorContext, Depends(process_context)]
