"""``stoa completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from stoa.cli import root

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the code that completes this command in a shell.

    For bash: eval "$(stoa completion bash)"
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(kind(root, {}, "stoa", "_STOA_COMPLETE").source())
