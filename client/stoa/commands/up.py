"""``stoa up``."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from stoa.output import json_option

__all__ = ["up"]

_CLEAR_LINE = "\r\033[K"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8500,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--data",
    default=Path("stoa-data"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for everything that Stoa keeps.",
)
@click.option(
    "--example", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of an example to load."
)
@click.option("--workers", type=click.IntRange(1, 1024), help="Rows that run at the same time; default: one per core.")
@click.option(
    "--files",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="A folder from which rows may read files by their path; may be given several times.",
)
@click.option("--nats-url", help="A NATS server that runs already; default: one of our own.")
@json_option
def up(
    host: str,
    port: int,
    data: Path,
    example: Path | None,
    workers: int | None,
    files: tuple[Path, ...],
    nats_url: str | None,
    as_json: bool,
) -> None:
    """Start all of Stoa on this machine, and stay until Ctrl-C.

    Services that end are started again. The logs of the services are in the folder logs of the data folder.
    """
    from stoa.supervisor.stoa import Options, Supervisor

    options = Options(host=host, port=port, data=data, example=example, workers=workers, files=files, nats_url=nats_url)
    Supervisor(options, JsonReporter() if as_json else PlainReporter()).run()


class PlainReporter:
    """Speaks to a person; on a terminal a line of progress is replaced by the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_place = sys.stdout.isatty()
        self._unfinished = False

    def say(self, text: str) -> None:
        """Show a line that stays."""
        with self._lock:
            self._write(text)

    def progress(self, text: str) -> None:
        """Show a line that the next one replaces where it can."""
        with self._lock:
            self._write(text, nl=not self._in_place)
            self._unfinished = self._in_place

    def ready(self, url: str, data: Path) -> None:
        """Tell that Stoa answers."""
        self.say(f"Stoa answers at {url}")
        self.say(f"Press Ctrl-C to stop it. Its data stay in {data}")

    def _write(self, text: str, *, nl: bool = True) -> None:
        # Who reads may go away: what is supervised goes on.
        with suppress(OSError):
            click.echo((_CLEAR_LINE if self._unfinished else "") + text, nl=nl)
        self._unfinished = False


class JsonReporter:
    """Speaks to a program: one JSON object a line."""

    def say(self, text: str) -> None:
        """Tell a line."""
        self._tell(event="message", text=text)

    def progress(self, text: str) -> None:
        """Tell a line that will be outdated soon."""
        self._tell(event="progress", text=text)

    def ready(self, url: str, data: Path) -> None:
        """Tell that Stoa answers."""
        self._tell(event="ready", url=url, data=str(data), pid=os.getpid())

    def _tell(self, **what: Any) -> None:
        with suppress(OSError):
            click.echo(json.dumps(what, ensure_ascii=False))
