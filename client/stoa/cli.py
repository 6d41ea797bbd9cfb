"""The ``stoa`` command: names and short helps of all subcommands, which are imported when they are called."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["LazyGroup", "main", "root"]

#: So many characters of a help fit on a line.
_SHORT = 80


class LazyGroup(click.Group):
    """A group that knows what its subcommands do without importing them; those that it has anyway come first.

    Parameters
    ----------
    lazy
        Name to (module, attribute, short help).
    """

    def __init__(self, *arguments: Any, lazy: dict[str, tuple[str, str, str]], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the subcommands in the order in which a newcomer meets them."""
        del ctx
        return [*self.commands, *self._lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, attribute, _ = self._lazy[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a subcommand without importing any."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=short_help)
            for name, short_help in self._short_helps().items()
            if name.startswith(incomplete)
        ]
        # What a command without subcommands completes: its options.
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(self._short_helps().items()))

    def _short_helps(self) -> dict[str, str]:
        own = {
            name: command.get_short_help_str(_SHORT) for name, command in self.commands.items() if not command.hidden
        }
        return own | {name: short_help for name, (_, _, short_help) in self._lazy.items()}


_COMMANDS = {
    "up": ("stoa.commands.up", "up", "Start all of Stoa on this machine."),
    "table": ("stoa.commands.table", "table", "Look at tables, create, fill, edit and run them."),
    "link": ("stoa.commands.link", "link", "Fill tables from others, and change or give up what fills them."),
    "version": ("stoa.commands.version", "version", "List, compare and restore the workflow versions of a table."),
    "why": ("stoa.commands.why", "why", "Explain why a row is stale, waits, failed or is current."),
    "status": ("stoa.commands.status", "status", "Count the rows of every table by status."),
    "flag": ("stoa.commands.marks", "flag", "Mark rows with named, coloured flags."),
    "comment": ("stoa.commands.marks", "comment", "Write about rows and cells, and read what others wrote."),
    "view": ("stoa.commands.marks", "view", "Save filters, an order and shown columns under a name."),
    "undo": ("stoa.commands.undo", "undo", "Undo your last edit of a table."),
    "redo": ("stoa.commands.undo", "redo", "Redo what you undid last in a table."),
    "steps": ("stoa.commands.undo", "steps", "List what you can undo and redo in a table."),
    "queue": ("stoa.commands.queue", "queue", "Tell what waits, whose it is, and what is limited."),
    "cancel": ("stoa.commands.queue", "cancel", "Cancel jobs of a table, of some rows, of a run, or all of mine."),
    "action": ("stoa.commands.action", "action", "Use workflows that come with Stoa, or make one of a command line."),
    "history": ("stoa.commands.history", "history", "Tell what happened to a row, or what a cell held."),
    "wtx": ("stoa.commands.wtx", "wtx", "Import and export worktable files of Stoa's first version."),
    "trigger": ("stoa.commands.trigger", "trigger", "Say what runs a table: people, every change, or triggers."),
    "project": ("stoa.commands.project", "project", "Create the tables of a project file."),
    "files": ("stoa.commands.files", "files", "Look whether files that rows have read have changed."),
    "log": ("stoa.commands.log", "log", "Verify, rebuild and read the logs of the services on this machine."),
    "serve": ("stoa.commands.serve", "serve", "Run one service."),
    "migrate": ("stoa.commands.serve", "migrate", "Bring a service's database to the newest schema."),
    "completion": ("stoa.commands.completion", "completion", "Print the shell code that completes this command."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stoa-client", prog_name="stoa", message="%(prog)s %(version)s")
def root() -> None:
    """Tables in which every row is one run of a workflow.

    STOA_URL names the server (http://127.0.0.1:8500 if it is not set), and STOA_TOKEN the token that it wants.
    """


def main() -> None:
    """Run the command and turn what went wrong into one sentence and an exit status."""
    try:
        root(prog_name="stoa")
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        sys.exit(0)
