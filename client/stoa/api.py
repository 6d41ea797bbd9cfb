"""A thin client for Stoa's HTTP interface."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

import httpx

from stoa.address import DEFAULT_URL
from stoa.marks import Marks

__all__ = ["DEFAULT_URL", "Stoa", "StoaError", "UnreachableError"]

_SERVER_ERRORS = 500
_COME_BACK_S = 1.0

_LOOK_EVERY_S = 0.3

#: What a service says that will soon be back.
_PASSING = frozenset({502, 503})
_PAUSES_S = (0.3, 1.0)


class StoaError(Exception):
    """Stoa refused something, and says why in a problem document (RFC 9457).

    Attributes
    ----------
    status
        The HTTP status.
    problem
        The whole document.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP status {status}"))
        self.status = status
        self.problem = dict(problem)


class UnreachableError(Exception):
    """No Stoa answers."""


class Stoa(Marks):
    """One Stoa, as one user sees it.

    Parameters
    ----------
    url
        The server; default: the environment's ``STOA_URL``, or `DEFAULT_URL`.
    token
        Default: the environment's ``STOA_TOKEN``.

    Examples
    --------
    >>> stoa = Stoa()
    >>> stoa.add_rows("sources", [{"threshold": 5.0}])
    >>> stoa.run("sources")
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.url = (url or os.environ.get("STOA_URL") or DEFAULT_URL).rstrip("/")
        token = token or os.environ.get("STOA_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # No proxy leads to this machine, whatever the environment says.
        local = any(self.url.startswith(f"http://{host}") for host in ("127.", "localhost", "[::1]"))
        self.http = httpx.Client(
            base_url=self.url, headers=headers, timeout=httpx.Timeout(120, connect=10), trust_env=not local
        )

    def __enter__(self) -> Self:
        """Open nothing: connections are made when they are needed."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close every connection."""
        self.http.close()

    def request(self, method: str, path: str, **more: Any) -> Any:
        """Send a request and give the answer's JSON, or None where it has none.

        Raises
        ------
        StoaError
            If Stoa refuses.
        UnreachableError
            If no Stoa answers.
        """
        if method == "POST":
            # Under one key a request is carried out once, however often it is sent.
            more["headers"] = {"Idempotency-Key": str(uuid.uuid4())} | more.get("headers", {})
        try:
            answer = self._sent(method, path, **more)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise self._refused(answer)
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise UnreachableError(f"{self.url} answers, but not as a Stoa does; does STOA_URL name one?") from error

    def download(self, path: str) -> bytes:
        """Give the bytes of an answer that is no JSON.

        Raises
        ------
        StoaError
            If Stoa refuses.
        UnreachableError
            If no Stoa answers.
        """
        try:
            answer = self._sent("GET", path)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise self._refused(answer)
        return answer.content

    def _sent(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request, again where a service was just started anew and sending it twice does no harm."""
        pauses = _PAUSES_S if method in {"GET", "POST"} and "files" not in more else ()
        for pause in pauses:
            try:
                answer = self.http.request(method, path, **more)
            except (httpx.ReadError, httpx.RemoteProtocolError):
                time.sleep(pause)
                continue
            if answer.status_code not in _PASSING:
                return answer
            time.sleep(pause)
        return self.http.request(method, path, **more)

    def _unreachable(self, error: Exception) -> UnreachableError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return UnreachableError(f"No Stoa answers at {self.url}; start it with 'stoa up', or set STOA_URL")
        if isinstance(error, httpx.TimeoutException):
            return UnreachableError(f"The Stoa at {self.url} did not answer in time; what was asked may still be done")
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            return UnreachableError(f"'{self.url}' is not the address of a Stoa, such as {DEFAULT_URL}; set STOA_URL")
        return UnreachableError(f"The connection to {self.url} broke off; what was asked may have been done: {error}")

    def _refused(self, answer: httpx.Response) -> StoaError:
        try:
            problem = answer.json()
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            problem = {"detail": f"{self.url} answered with status {answer.status_code}, and not as a Stoa does"}
        return StoaError(answer.status_code, problem)

    # --- tables ----------------------------------------------------------------------------------------------------

    def tables(self) -> list[dict[str, Any]]:
        """List the tables."""
        tables: list[dict[str, Any]] = self.request("GET", "/api/tables")["tables"]
        return tables

    def table(self, table: str, *, as_of: str | int | None = None) -> dict[str, Any]:
        """Give a table with its columns, workflow, links and counts, as it is or as it was at a position or a time."""
        asked = {} if as_of is None else {"as_of": as_of}
        detail: dict[str, Any] = self.request("GET", f"/api/tables/{_quoted(table)}", params=asked)
        return detail

    def create_worktable(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        main: str | None = None,
        description: str = "",
        project: str = "default",
    ) -> dict[str, Any]:
        """Create a worktable from the files of its workflow."""
        new = {"name": name, "main": main, "description": description, "project": project}
        upload = [("files", (file, content)) for file, content in files.items()]
        created: dict[str, Any] = self.request("POST", "/api/tables", data={"table": json.dumps(new)}, files=upload)
        return created

    def create_table(self, name: str, **more: Any) -> dict[str, Any]:
        """Create a plain table (``columns``) or a join (``join``)."""
        created: dict[str, Any] = self.request("POST", "/api/tables", json={"name": name, **more})
        return created

    def import_table(
        self, file: Path, name: str, *, mapping: Mapping[str, str] | None = None, partial: bool = False, **more: str
    ) -> dict[str, Any]:
        """Create a plain table from a FITS, VOTable, CSV, ECSV or Parquet file.

        Parameters
        ----------
        file
            The file.
        name
            What the table is called.
        mapping
            What columns of the file are called in the table.
        partial
            Take the rows that can be taken, where others cannot.
        **more
            ``format``, ``description``, ``project``.
        """
        asked = {"name": name, "partial": "true" if partial else "false", **more}
        return self._sent_file("/api/tables/import", file, asked, mapping)

    def import_rows(
        self,
        table: str,
        file: Path,
        *,
        mapping: Mapping[str, str] | None = None,
        partial: bool = False,
        format: str | None = None,  # noqa: A002 - the word on the wire
    ) -> dict[str, Any]:
        """Add the rows of a file to a table: all of them, or none; with ``partial`` those that can be taken."""
        asked = {"partial": "true" if partial else "false"} | ({"format": format} if format else {})
        return self._sent_file(f"/api/tables/{_quoted(table)}/import", file, asked, mapping)

    def preview_import(
        self,
        file: Path,
        table: str | None = None,
        *,
        mapping: Mapping[str, str] | None = None,
        format: str | None = None,  # noqa: A002 - the word on the wire
    ) -> dict[str, Any]:
        """Tell what an import into a table, or without one of a new table, would do."""
        path = "/api/tables/import/preview" if table is None else f"/api/tables/{_quoted(table)}/import/preview"
        return self._sent_file(path, file, {"format": format} if format else {}, mapping)

    def _sent_file(
        self, path: str, file: Path, asked: Mapping[str, str], mapping: Mapping[str, str] | None
    ) -> dict[str, Any]:
        data = {**asked, "mapping": json.dumps(dict(mapping or {}))}
        with file.open("rb") as content:
            answer: dict[str, Any] = self.request(
                "POST", path, data=data, files={"file": (file.name, content)}, timeout=3600
            )
        return answer

    def export(self, table: str, file: IO[bytes], *, format: str, **more: Any) -> int:  # noqa: A002 - the word on the wire
        """Write a table into a file, a piece at a time, and give its size.

        Parameters
        ----------
        table
            Id or name.
        file
            Where it is written.
        format
            csv, ecsv, fits, votable or parquet.
        **more
            ``view`` (rows or elements), ``filter`` (one or a list), ``status``, ``sort``, ``columns``, ``as_of`` (a position or a
            time).

        Raises
        ------
        StoaError
            If Stoa refuses.
        UnreachableError
            If no Stoa answers, or the answer breaks off.
        """
        size = 0
        path, parameters = f"/api/tables/{_quoted(table)}/export", {"format": format, **more}
        try:
            with self.http.stream("GET", path, params=parameters, timeout=3600) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._refused(answer)
                for piece in answer.iter_bytes():
                    file.write(piece)
                    size += len(piece)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        return size

    def delete_table(self, table: str, *, children: str | None = None) -> None:
        """Delete a table, and ``unlink`` or ``delete`` what depends on it; else it is refused if anything does."""
        self.request(
            "DELETE", f"/api/tables/{_quoted(table)}", params={} if children is None else {"children": children}
        )

    def describe_column(self, table: str, column: str, **changes: str | None) -> dict[str, Any]:
        """Change a column's label, unit, UCD, utype, description or display."""
        changed: dict[str, Any] = self.request(
            "PATCH", f"/api/tables/{_quoted(table)}/columns/{_quoted(column)}", json=changes
        )
        return changed

    def link(
        self,
        table: str,
        parent: str,
        mapping: Mapping[str, str],
        *,
        per: str = "element",
        keys: Sequence[str] | None = None,
        filter: str | None = None,  # noqa: A002 - the word on the wire
    ) -> Any:
        """Fill a worktable's inputs from a parent's columns."""
        new = {
            "parent": parent,
            "per": per,
            "mapping": dict(mapping),
            "keys": None if keys is None else list(keys),
            "filter": filter,
        }
        return self.request(
            "POST",
            f"/api/tables/{_quoted(table)}/links",
            json={key: value for key, value in new.items() if value is not None},
        )

    def change_link(self, table: str, link: str, **changes: Any) -> dict[str, Any]:
        """Change a link: mapping, keys, per and filter, or kind, on and columns of a join."""
        changed: dict[str, Any] = self.request(
            "PATCH", f"/api/tables/{_quoted(table)}/links/{_quoted(link)}", json=changes
        )
        return changed

    def unlink(self, table: str, link: str, rows: str) -> dict[str, Any]:
        """Give a link up; its rows ``stay``, as ordinary rows, or ``go``."""
        told: dict[str, Any] = self.request(
            "DELETE", f"/api/tables/{_quoted(table)}/links/{_quoted(link)}", params={"rows": rows}
        )
        return told

    def graph(self) -> dict[str, Any]:
        """Give all tables and links."""
        graph: dict[str, Any] = self.request("GET", "/api/graph")
        return graph

    def dependents(self, table: str) -> dict[str, Any]:
        """Tell what depends on a table, and what deleting it would do."""
        told: dict[str, Any] = self.request("GET", f"/api/tables/{_quoted(table)}/dependents")
        return told

    # --- corrections -----------------------------------------------------------------------------------------------

    def corrections(self, table: str, *, review: bool | None = None) -> Iterator[dict[str, Any]]:
        """Give the rows with corrections, page by page; perhaps only those that are to be reviewed."""
        after = 0
        while True:
            asked = {"after": after, "limit": 1000} | ({} if review is None else {"review": review})
            page = self.request("GET", f"/api/tables/{_quoted(table)}/corrections", params=asked)
            yield from page["rows"]
            if page["next"] is None:
                return
            after = page["next"]

    def reset_corrections(
        self, table: str, rows: Sequence[int], columns: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Let corrected cells hold again what is derived."""
        told: dict[str, Any] = self.request(
            "POST",
            f"/api/tables/{_quoted(table)}/corrections/reset",
            json={"rows": list(rows), "columns": None if columns is None else list(columns)},
        )
        return told

    def confirm_corrections(
        self, table: str, rows: Sequence[int], columns: Sequence[str] | None = None, *, reason: str | None = None
    ) -> dict[str, Any]:
        """Keep corrections whose upstream values have changed."""
        told: dict[str, Any] = self.request(
            "POST",
            f"/api/tables/{_quoted(table)}/corrections/confirm",
            json={"rows": list(rows), "columns": None if columns is None else list(columns), "reason": reason},
        )
        return told

    # --- workflow versions -----------------------------------------------------------------------------------------

    def change_workflow(self, table: str, files: Mapping[str, bytes], *, main: str | None = None) -> dict[str, Any]:
        """Give a worktable another workflow version."""
        changed: dict[str, Any] = self.request(
            "PUT", f"/api/tables/{_quoted(table)}/workflow", **_workflow(files, main)
        )
        return changed

    def versions(self, table: str) -> Iterator[dict[str, Any]]:
        """Give every workflow version that a table ever had, the newest first."""
        parameters: dict[str, Any] = {}
        while True:
            page = self.request("GET", f"/api/tables/{_quoted(table)}/versions", params=parameters)
            yield from page["versions"]
            if page["next"] is None:
                return
            parameters["before"] = page["next"]

    def compare_versions(self, table: str, before: str, after: str) -> dict[str, Any]:
        """Tell which files and columns differ between two versions, given by number or digest."""
        path = f"/api/tables/{_quoted(table)}/versions/{_quoted(before)}/diff/{_quoted(after)}"
        difference: dict[str, Any] = self.request("GET", path)
        return difference

    def restore_version(self, table: str, version: str) -> dict[str, Any]:
        """Give a table a workflow version again that it had before."""
        path = f"/api/tables/{_quoted(table)}/versions/{_quoted(version)}/restore"
        restored: dict[str, Any] = self.request("POST", path)
        return restored

    def accept(self, table: str, rows: Sequence[int] | None, reason: str) -> dict[str, Any]:
        """Declare the outputs of stale rows to be those of their present inputs; ``None`` for all that are stale."""
        body = {"rows": None if rows is None else list(rows), "reason": reason}
        accepted: dict[str, Any] = self.request("POST", f"/api/tables/{_quoted(table)}/accept", json=body)
        return accepted

    def pin(self, table: str, rows: Sequence[int], version: str | None) -> dict[str, Any]:
        """Let rows stay with a workflow version, or follow the table again (``None``)."""
        body = {"rows": list(rows), "version": version}
        pinned: dict[str, Any] = self.request("POST", f"/api/tables/{_quoted(table)}/pin", json=body)
        return pinned

    def preview(self, table: str, **change: Any) -> dict[str, Any]:
        """Tell what a change would do: ``edits``, ``remove``, ``restore``, ``link``, ``change_link`` or ``unlink``.

        Examples
        --------
        >>> stoa.preview("sources", edits=[{"row": 7, "values": {"threshold": 4.0}}])["stale"]
        1
        """
        told: dict[str, Any] = self.request("POST", f"/api/tables/{_quoted(table)}/preview", json=change, timeout=3600)
        return told

    def preview_workflow(self, table: str, files: Mapping[str, bytes], *, main: str | None = None) -> dict[str, Any]:
        """Tell what another workflow would do; nothing is changed."""
        path = f"/api/tables/{_quoted(table)}/preview"
        told: dict[str, Any] = self.request("POST", path, **_workflow(files, main), timeout=3600)
        return told

    # --- rows ------------------------------------------------------------------------------------------------------

    def rows(self, table: str, *, elements: bool = False, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Give rows, or elements, page by page.

        Parameters
        ----------
        table
            Id or name.
        elements
            One item per element instead of one per row.
        **parameters
            ``filter`` (one or a list), ``sort``, ``status``, ``as_of`` (a position or a time), ``limit`` (at most so many in
            all).
        """
        path = f"/api/tables/{_quoted(table)}/{'elements' if elements else 'rows'}"
        left = parameters.pop("limit", None)
        while left is None or left > 0:
            page = self.request("GET", path, params={"limit": min(left or 500, 500), **parameters})
            items = page["elements" if elements else "rows"]
            yield from items
            if page["next"] is None:
                return
            left = None if left is None else left - len(items)
            parameters["after"] = page["next"]

    def row(self, table: str, row: int) -> dict[str, Any]:
        """Give one row."""
        found: dict[str, Any] = self.request("GET", f"/api/tables/{_quoted(table)}/rows/{row}")
        return found

    def add_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Add rows: all of them, or none."""
        added: dict[str, Any] = self.request("POST", f"/api/tables/{_quoted(table)}/rows", json={"rows": list(rows)})
        return added

    def add_csv(self, table: str, content: bytes) -> dict[str, Any]:
        """Add rows from CSV: all of them, or none."""
        added: dict[str, Any] = self.request(
            "POST", f"/api/tables/{_quoted(table)}/rows", content=content, headers={"Content-Type": "text/csv"}
        )
        return added

    def edit_row(
        self,
        table: str,
        row: int,
        values: Mapping[str, Any],
        *,
        revision: int | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Edit cells of a row, perhaps with a reason; with a revision, only if nobody else has edited it since."""
        headers = {} if revision is None else {"If-Match": f'"{revision}"'}
        edited: dict[str, Any] = self.request(
            "PATCH",
            f"/api/tables/{_quoted(table)}/rows/{row}",
            json=dict(values),
            headers=headers,
            params={} if reason is None else {"reason": reason},
        )
        return edited

    def remove_rows(self, table: str, rows: Sequence[int]) -> dict[str, Any]:
        """Remove rows: all of them, or none."""
        removed: dict[str, Any] = self.request(
            "DELETE", f"/api/tables/{_quoted(table)}/rows", json={"rows": list(rows)}
        )
        return removed

    def history(self, table: str, row: int) -> list[dict[str, Any]]:
        """Tell what happened to a row."""
        told: list[dict[str, Any]] = self.request("GET", f"/api/tables/{_quoted(table)}/rows/{row}/history")["events"]
        return told

    def cell_history(self, table: str, row: int, column: str) -> list[dict[str, Any]]:
        """Tell what a cell held, the newest last."""
        path = f"/api/tables/{_quoted(table)}/rows/{row}/cells/{_quoted(column)}/history"
        events: list[dict[str, Any]] = []
        asked: dict[str, int] = {"limit": 1000}
        while True:
            page = self.request("GET", path, params=asked)
            events = page["events"] + events
            if page["before"] is None:
                return events
            asked["before"] = page["before"]

    def diff(
        self, table: str, before: str | int, after: str | int | None = None, *, limit: int | None = None
    ) -> dict[str, Any]:
        """Tell what is different in a table between two moments, each a position or a time; the second one may be now."""
        path = f"/api/tables/{_quoted(table)}/diff"
        asked = {"from": before, "limit": min(limit or 1000, 1000)}
        whole: dict[str, Any] = self.request("GET", path, params=asked if after is None else {**asked, "to": after})
        while whole["next"] is not None and (limit is None or len(whole["rows"]) < limit):
            # The present moves on: the further pages are of the same moments.
            pinned = {**asked, "from": whole["before"], "to": whole["after"], "after": whole["next"]}
            page = self.request("GET", path, params=pinned)
            whole = {**whole, "rows": whole["rows"] + page["rows"], "next": page["next"]}
        return {**whole, "rows": whole["rows"][:limit]}

    def why(self, table: str, row: int) -> dict[str, Any]:
        """Explain why a row is what it is: a sentence, what differs, and the events that led there.

        Examples
        --------
        >>> stoa.why("sources", 7)["component"]["name"]
        'threshold'
        """
        explained: dict[str, Any] = self.request("GET", f"/api/tables/{_quoted(table)}/rows/{row}/why")
        return explained

    # --- files -----------------------------------------------------------------------------------------------------

    def upload(self, file: Path) -> dict[str, Any]:
        """Bring a file to Stoa and give the value that stands for it in a cell."""
        with file.open("rb") as content:
            stored = self.request("POST", "/api/files", files={"file": (file.name, content)}, timeout=3600)
        return {
            "class": "File",
            "location": stored["location"],
            "basename": stored["basename"],
            "size": stored["size"],
        }

    # --- runs ------------------------------------------------------------------------------------------------------

    def triggers(self, table: str) -> dict[str, Any]:
        """Tell what starts a table's runs, and when its triggers fire next."""
        position = self.request("GET", "/api/tables")["position"]
        found: dict[str, Any] = self.request("GET", f"/api/triggers/{_quoted(table)}", params={"after": position})
        return found

    def set_triggers(
        self, table: str, mode: str, triggers: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Set what starts a table's runs: `manual`, `automatic` or `scheduled`; without triggers, those stay as they are.

        Examples
        --------
        >>> stoa.set_triggers("sources", "scheduled", [{"kind": "cron", "schedule": "30 2 * * *"}])
        """
        position = self.request("GET", "/api/tables")["position"]
        content = {"mode": mode, "triggers": None if triggers is None else list(triggers), "after": position}
        found: dict[str, Any] = self.request("PUT", f"/api/triggers/{_quoted(table)}", json=content)
        return found

    def run(
        self,
        table: str,
        scope: str = "stale",
        *,
        rows: Sequence[int] | None = None,
        priority: int = 0,
        force: bool = False,
    ) -> dict[str, Any]:
        """Run rows: the stale ones, the failed ones, all, or those that are named.

        What this client changed before is part of the run.

        Parameters
        ----------
        table
            Id or name.
        scope
            ``stale``, ``failed`` or ``all``.
        rows
            These rows instead.
        priority
            Higher goes first.
        force
            Whether they run even where an equal job has ended, instead of taking its outputs.
        """
        asked: dict[str, Any] = {"table": table, "scope": scope, "priority": priority, "force": force}
        if rows is not None:
            asked |= {"scope": "rows", "rows": list(rows)}
        answer: dict[str, Any] = self.request("POST", "/api/runs", json=asked | self._after())
        return answer

    def run_project(
        self, project: str, scope: str = "stale", *, priority: int = 0, force: bool = False
    ) -> dict[str, Any]:
        """Run what is stale, or what failed, in all tables of a project; parameters as with `run`."""
        asked = {"project": project, "scope": scope, "priority": priority, "force": force}
        answer: dict[str, Any] = self.request("POST", "/api/runs", json=asked | self._after())
        return answer

    def cancel(self, table: str, rows: Sequence[int] | None = None) -> int:
        """Cancel the jobs of a table, or of some rows, and give their number; rows that wait for their jobs count, too."""
        return self._cancel({"table": table} | ({} if rows is None else {"rows": list(rows)}))

    def cancel_run(self, run: str) -> int:
        """Cancel what is left of a run, as with `cancel`."""
        return self._cancel({"run": run})

    def cancel_mine(self) -> int:
        """Cancel everything that this user asked for, in every table, as with `cancel`."""
        return self._cancel({"scope": "mine"})

    def _cancel(self, what: dict[str, Any]) -> int:
        answer = self.request("POST", "/api/cancellations", json=what | self._after())
        cancelled: int = answer["cancelled"] + answer["awaited"]
        return cancelled

    def _after(self) -> dict[str, Any]:
        """Say which changes a command is to follow: all that the tables have seen."""
        return {"after": self.request("GET", "/api/tables")["position"]}

    def queue(self) -> dict[str, Any]:
        """Tell what waits, whose it is, and how much of it runs."""
        queue: dict[str, Any] = self.request("GET", "/api/queue")
        return queue

    def progress(self, *, table: str | None = None, project: str | None = None) -> dict[str, Any]:
        """Tell how far a table got, or a project, or all tables: rows by state, the rate, and when all will be done."""
        given = {"table": table, "project": project}
        parameters = {key: value for key, value in given.items() if value is not None}
        report: dict[str, Any] = self.request("GET", "/api/progress", params=parameters)
        tables, page = report["tables"], report
        while page["next"] is not None:
            page = self.request("GET", "/api/progress", params={**parameters, "after": page["next"]})
            tables += page["tables"]
        return report

    def limits(self) -> dict[str, Any]:
        """Tell how many jobs of a table, and of a person, are in flight at once at most."""
        report: dict[str, Any] = self.request("GET", "/api/limits")
        limits, page = report["limits"], report
        while page["next"] is not None:
            page = self.request("GET", "/api/limits", params={"after": page["next"]})
            limits += page["limits"]
        return report

    def set_limit(self, running: int | None, *, table: str | None = None, person: str | None = None) -> dict[str, Any]:
        """Limit how many jobs of a table, or of a person, are in flight at once; None takes the limit away."""
        asked = {"table": table, "person": person, "running": running}
        limit: dict[str, Any] = self.request("PUT", "/api/limits", json=asked | self._after())
        return limit

    def run_state(self, run: str) -> dict[str, Any]:
        """Tell how far a run got: its jobs by state, and when it began and ended."""
        state: dict[str, Any] = self.request("GET", f"/api/runs/{_quoted(run)}")
        return state

    def wait(self, started: Mapping[str, Any], timeout: float = 3600) -> dict[str, Any]:
        """Wait until a run has ended, and give its state.

        Parameters
        ----------
        started
            What `run` answered.
        timeout
            So many seconds at the most.

        Raises
        ------
        TimeoutError
            If it has not ended in time; it runs on.

        Examples
        --------
        >>> ended = stoa.wait(stoa.run("sources"))
        >>> ended["states"]
        {'succeeded': 24}
        """
        if started["run"] is None:
            return {"jobs": 0, "states": {}}
        deadline = time.monotonic() + timeout
        while True:
            state = self.run_state(started["run"])
            if state["finished"] is not None:
                return state
            if time.monotonic() > deadline:
                raise TimeoutError(f"The run {started['run']} has not ended after {timeout:g} s; it runs on")
            time.sleep(_LOOK_EVERY_S)

    def set_mode(self, table: str, mode: str) -> None:
        """Set whether stale rows run by themselves (``automatic``) or by hand (``manual``)."""
        position = self.request("GET", "/api/tables")["position"]
        self.request("PUT", f"/api/triggers/{_quoted(table)}", json={"mode": mode, "after": position})

    def changes(self, tables: Sequence[str] | None = None, *, after: int | None = None) -> Iterator[dict[str, Any]]:
        """Give changes of tables as they happen, for ever; goes on by itself after a lost connection.

        Parameters
        ----------
        tables
            Ids of tables; all, if it is not given.
        after
            The position of the log behind which they begin; without it, now.
        """
        from httpx_sse import SSEError, connect_sse

        last = None if after is None else str(after)
        parameters = {} if tables is None else {"tables": ",".join(tables)}
        connected_once = False
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            timeout = httpx.Timeout(30, read=60)
            try:
                with connect_sse(
                    self.http, "GET", "/api/changes", params=parameters, headers=headers, timeout=timeout
                ) as source:
                    if source.response.is_error:
                        source.response.read()
                        raise self._refused(source.response)
                    connected_once = True
                    for event in source.iter_sse():
                        last = event.id or last
                        if event.event == "change":
                            yield event.json()
            except (httpx.TransportError, SSEError) as error:
                if not connected_once:
                    raise self._unreachable(error) from error
            except StoaError as error:
                # A service that is started again is back soon; what is refused now is refused later, too.
                if not connected_once or error.status < _SERVER_ERRORS:
                    raise
            time.sleep(_COME_BACK_S)


def _workflow(files: Mapping[str, bytes], main: str | None) -> dict[str, Any]:
    """Write the files of a workflow as a form."""
    form = {"files": [("files", (name, content)) for name, content in files.items()]}
    return form if main is None else {**form, "data": {"main": main}}


def _quoted(part: str) -> str:
    return quote(part, safe="")
