"""Whom the supervisor tells what happens."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

__all__ = ["Reporter"]


class Reporter(Protocol):
    """Shows the person at the terminal, or the program that reads it, what happens."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def progress(self, text: str) -> None:
        """Show a line that the next one replaces where it can."""

    def ready(self, url: str, data: Path) -> None:
        """Tell that Stoa answers."""
