"""What the client asks of people's marks: flags, comments, locks, views, undo and redo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

__all__ = ["Marks"]


class Marks:
    """The part of the client that is about people's marks."""

    def request(self, method: str, path: str, **more: Any) -> Any:
        """Send a request and give the answer's JSON."""
        raise NotImplementedError

    # --- flags -----------------------------------------------------------------------------------------------------

    def flags(self, table: str) -> list[dict[str, Any]]:
        """List the flags of a table, with the number of rows that have them."""
        flags: list[dict[str, Any]] = self.request("GET", _path(table, "flags"))["flags"]
        return flags

    def define_flag(self, table: str, flag: str, *, colour: str, description: str | None = None) -> None:
        """Define a flag, or change its colour (``#rrggbb``) and description."""
        self.request("PUT", _path(table, "flags", flag), json={"colour": colour, "description": description})

    def give_up_flag(self, table: str, flag: str) -> None:
        """Give a flag up, and take it off every row."""
        self.request("DELETE", _path(table, "flags", flag))

    def flag_rows(self, table: str, flag: str, rows: Sequence[int], *, flagged: bool = True) -> dict[str, Any]:
        """Put a flag on rows, or take it off; tells those for which something changed."""
        asked = {"rows": list(rows), "flagged": flagged}
        marked: dict[str, Any] = self.request("POST", _path(table, "flags", flag, "rows"), json=asked)
        return marked

    # --- comments --------------------------------------------------------------------------------------------------

    def comments(self, table: str, row: int | None = None, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Give the comments on a row, the oldest first, or those on a table's rows, the newest first."""
        path = _path(table, "comments") if row is None else _path(table, "rows", str(row), "comments")
        parameters: dict[str, Any] = {}
        while limit is None or limit > 0:
            page = self.request("GET", path, params={"limit": min(limit or 500, 500), **parameters})
            yield from page["comments"]
            if page["next"] is None:
                return
            limit = None if limit is None else limit - len(page["comments"])
            parameters["after"] = page["next"]

    def comment(self, table: str, row: int, text: str, **about: Any) -> dict[str, Any]:
        """Write about a row (Markdown), or about one of its cells (``column``, ``element``), or reply (``replies_to``)."""
        path = _path(table, "rows", str(row), "comments")
        written: dict[str, Any] = self.request("POST", path, json={"text": text, **about})
        return written

    def comment_versions(self, table: str, comment: str) -> dict[str, Any]:
        """Give a comment with everything that it said before."""
        found: dict[str, Any] = self.request("GET", _path(table, "comments", comment))
        return found

    def edit_comment(self, table: str, comment: str, text: str | None) -> dict[str, Any]:
        """Change what a comment of one's own says, or withdraw it (None)."""
        path = _path(table, "comments", comment)
        edited: dict[str, Any] = (
            self.request("DELETE", path) if text is None else self.request("PATCH", path, json={"text": text})
        )
        return edited

    # --- locks -----------------------------------------------------------------------------------------------------

    def lock_rows(
        self, table: str, rows: Sequence[int], *, locked: bool = True, reason: str | None = None
    ) -> dict[str, Any]:
        """Lock rows, so that nobody edits, removes or runs them, or unlock them."""
        asked = {"rows": list(rows), "locked": locked, "reason": reason}
        marked: dict[str, Any] = self.request("POST", _path(table, "locks"), json=asked)
        return marked

    # --- views -----------------------------------------------------------------------------------------------------

    def views(self, table: str) -> list[dict[str, Any]]:
        """List the views of a table: one's own, and those that others share."""
        views: list[dict[str, Any]] = self.request("GET", _path(table, "views"))["views"]
        return views

    def save_view(self, table: str, view: Mapping[str, Any], *, replaces: str | None = None) -> dict[str, Any]:
        """Save a view (``name``, ``shared``, ``filters``, ``status``, ``sort``, ``columns``), or put it in another one's place."""
        if replaces is None:
            saved: dict[str, Any] = self.request("POST", _path(table, "views"), json=dict(view))
        else:
            saved = self.request("PUT", _path(table, "views", replaces), json=dict(view))
        return saved

    def delete_view(self, table: str, view: str) -> None:
        """Delete a view of one's own."""
        self.request("DELETE", _path(table, "views", view))

    # --- undo ------------------------------------------------------------------------------------------------------

    def steps(self, table: str) -> dict[str, Any]:
        """List what can be undone (``undo``) and redone (``redo``) in a table, the next step first."""
        steps: dict[str, Any] = self.request("GET", _path(table, "steps"))
        return steps

    def undo(self, table: str, *, skip_changed: bool = False) -> dict[str, Any]:
        """Undo one's last step in a table."""
        undone: dict[str, Any] = self.request("POST", _path(table, "undo"), json={"skip_changed": skip_changed})
        return undone

    def redo(self, table: str, *, skip_changed: bool = False) -> dict[str, Any]:
        """Redo the step that one undid last in a table."""
        redone: dict[str, Any] = self.request("POST", _path(table, "redo"), json={"skip_changed": skip_changed})
        return redone


def _path(table: str, *parts: str) -> str:
    return "/".join(["/api/tables", *(quote(part, safe="") for part in (table, *parts))])
