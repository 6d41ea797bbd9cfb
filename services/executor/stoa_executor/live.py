"""The log of a running job as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from stoa_chassis.bus import Bus
from stoa_chassis.database import DatabaseUnavailableError
from stoa_chassis.waiting import wait_any
from stoa_contracts.subjects import job_log_subject
from stoa_executor.agent import Agent
from stoa_executor.domain import whole_characters
from stoa_executor.ledger import JobRecord, Ledger
from stoa_executor.store import FileStore

__all__ = ["follow_log"]

_LOOK_S = 1.0
_PIECE = 65536


async def follow_log(
    job: str, offset: int, *, bus: Bus, agent: Agent, ledger: Ledger, store: FileStore, stop: asyncio.Event
) -> AsyncIterator[str]:
    """Tell a job's log from an offset on until the job ends.

    Parameters
    ----------
    job
        Its id.
    offset
        How many bytes the listener has already.
    bus, agent, ledger, store
        Of the process.
    stop
        Set when the process stops.

    Yields
    ------
    str
        Server-sent events: ``log`` with the number of bytes so far as its id, at last ``end`` with the outcome.

    Notes
    -----
    While the job runs on another machine, what it said before is not known here; it is made up for at the end, from the
    finished log.
    """
    listener = await bus.listen(job_log_subject(job))
    heard: deque[dict[str, Any]] = deque()
    told = asyncio.Event()

    async def listen() -> None:
        async for message in listener:
            heard.append(json.loads(message.body))
            told.set()

    ears = asyncio.create_task(listen())
    try:
        yield ": the log of a job\n\n"
        while not stop.is_set():
            told.clear()
            for piece in await _news(agent.log_path(job), heard, offset):
                offset += piece.size
                yield _log_event(offset, piece.text)
            record = await _ended(job, ledger)
            if record is not None and agent.log_path(job) is None:
                if record.log_sha256 is not None:
                    for piece in await asyncio.to_thread(_read, store.path(record.log_sha256), offset):
                        offset += piece.size
                        yield _log_event(offset, piece.text)
                end = {"outcome": record.outcome or record.state, "error": record.error}
                yield f"event: end\nid: {offset}\ndata: {json.dumps(end)}\n\n"
                return
            await wait_any(told, stop, seconds=_LOOK_S)
    finally:
        await listener.aclose()
        await ears


class _Piece(NamedTuple):
    size: int
    text: str


async def _news(path: Path | None, heard: deque[dict[str, Any]], offset: int) -> list[_Piece]:
    """Read on where the job runs here, else take what was heard and follows without a hole."""
    if path is not None:
        heard.clear()
        return await asyncio.to_thread(_read, path, offset)
    news = []
    while heard:
        piece = heard.popleft()
        if piece["offset"] == offset:
            offset += piece["size"]
            news.append(_Piece(piece["size"], piece["text"]))
    return news


async def _ended(job: str, ledger: Ledger) -> JobRecord | None:
    try:
        record = await ledger.job(job)
    except DatabaseUnavailableError:
        return None
    return None if record is None or record.state == "running" else record


def _log_event(offset: int, text: str) -> str:
    return f"event: log\nid: {offset}\ndata: {json.dumps({'text': text})}\n\n"


def _read(path: Path, offset: int) -> list[_Piece]:
    pieces = []
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := whole_characters(file.read(_PIECE)):
                pieces.append(_Piece(len(chunk), chunk.decode(errors="replace")))
                file.seek(offset := offset + len(chunk))
    except FileNotFoundError:
        pass
    return pieces
