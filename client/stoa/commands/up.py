"""``stoa up``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["up"]


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
@click.option("--nats-url", help="A NATS server that runs already; default: one of our own.")
def up(host: str, port: int, data: Path, example: Path | None, workers: int | None, nats_url: str | None) -> None:
    """Start all of Stoa on this machine, and stay until Ctrl-C.

    Services that end are started again. The logs of the services are in the folder logs of the data folder.
    """
    from stoa.supervisor.stoa import Options, Supervisor

    options = Options(host=host, port=port, data=data, example=example, workers=workers, nats_url=nats_url)
    Supervisor(options, click.echo).run()
