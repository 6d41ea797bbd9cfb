"""Applications on free ports, in the test's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

__all__ = ["closed_port", "serving"]


def _listening() -> socket.socket:
    # With its protocol named, the sockets that come from it do not wait to fill their packets.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(100)
    return listening


def closed_port() -> int:
    """Find a port where nobody answers."""
    with _listening() as probe:
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def serving(app: ASGIApp, *, lifespan: bool = False) -> AsyncIterator[str]:
    """Serve an application, and give its address."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on" if lifespan else "off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    listening = _listening()
    task = asyncio.create_task(server._serve(sockets=[listening]))
    try:
        async with asyncio.timeout(20):
            while not server.started:
                assert not task.done(), task.result()
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listening.close()
