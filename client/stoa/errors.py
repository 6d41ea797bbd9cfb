"""What the command says when something cannot be done."""

from __future__ import annotations

from typing import IO, Any

import click

__all__ = ["Failure", "Refused"]


class Refused(click.ClickException):
    """What was given cannot be used: exit status 2, and nothing was changed."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Write one sentence to standard error."""
        click.echo(f"stoa: {self.format_message()}", file=file, err=True)


class Failure(Refused):
    """The server or the machine could not do it: exit status 1."""

    exit_code = 1
