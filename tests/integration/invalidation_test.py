"""The specification of invalidation, as a model that runs: random graphs of tables, random histories, a whole Stoa.

After every step each cell is what a computation from scratch gives, and what was executed is exactly what nobody had
computed before.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoa_contracts.keys import inputs_digest
from tests.support.stoa import RunningStoa, running_stoa

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

#: Small, so that values meet again: in other rows, in other tables, and after an edit is taken back.
NUMBERS = st.integers(0, 9)

_histories = itertools.count()

#: How far the executor's log was read, by address: the next history begins there.
_seen: dict[str, int] = {}


@dataclass(frozen=True)
class Version:
    """A workflow: elements and a total of one number; many numbers have the same ones."""

    step: int
    reversed: bool = False

    def __call__(self, x: int) -> tuple[tuple[int, ...], int]:
        ys = tuple((x // 2 + j * self.step) % 7 for j in range(x % 3 + 1))
        return ys[::-1] if self.reversed else ys, (x + self.step) // 3

    def document(self, history: int, comment: str = "") -> str:
        put = 'ys="$y${ys:+, }$ys"' if self.reversed else 'ys="$ys${ys:+, }$y"'
        script = (
            f"x=$1; : history {history}; ys=; j=0; while [ $j -le $((x % 3)) ]; do y=$(( (x / 2 + j * {self.step}) % 7 )); "
            f'{put}; j=$((j + 1)); done; echo "{{\\"ys\\": [$ys], \\"total\\": $(( (x + {self.step}) / 3 ))}}" > cwl.output.json'
        )
        document = {
            "cwlVersion": "v1.2",
            "class": "CommandLineTool",
            "baseCommand": ["sh", "-c", script, "sh"],
            "inputs": {"x": {"type": "int", "inputBinding": {"position": 1}}},
            "outputs": {"ys": "int[]", "total": "int"},
        }
        return f"# {comment}\n{json.dumps(document)}\n"


@dataclass
class Table:
    """A table of the model: what fills it, and which version computes it."""

    name: str
    kind: str
    """`plain`, `own` (a worktable with rows of its own), `element`, `row`, `input` (from its one parent) or `join`."""
    parents: tuple[int, ...] = ()
    version: Version | None = None
    rows: dict[int, int] = field(default_factory=dict)
    """Row id to the number that a person put there."""
    corrections: dict[Any, int] = field(default_factory=dict)
    id: str = ""

    @property
    def correctable(self) -> bool:
        return self.kind in {"element", "row", "input"}


# --- the reference model ---------------------------------------------------------------------------------------------


def compute(tables: list[Table]) -> tuple[list[dict[Any, dict[str, Any]]], set[tuple[Version, int]]]:
    """Compute every cell from scratch; give the cells by row identity, and what had to be computed for them."""
    cells: list[dict[Any, dict[str, Any]]] = []
    needed = set()
    for table in tables:
        numbers: dict[Any, int] = derived(table, cells)
        table.corrections = {key: x for key, x in table.corrections.items() if key in numbers}
        numbers |= table.corrections
        rows: dict[Any, dict[str, Any]] = {key: {"x": x} for key, x in numbers.items()}
        if table.version is not None:
            for row in rows.values():
                needed.add((table.version, row["x"]))
                row["ys"], row["total"] = table.version(row["x"])
        cells.append(rows)
    return cells, needed


def derived(table: Table, cells: list[dict[Any, dict[str, Any]]]) -> dict[Any, int]:
    """Give the numbers of a table's rows by their identity."""
    if not table.parents:
        return dict(table.rows)
    first = cells[table.parents[0]]
    if table.kind == "join":
        left, right = (elements(cells[parent]) for parent in table.parents)
        return {(a, b): one for a, one in left.items() for b, two in right.items() if one == two}
    if table.kind == "element":
        seen: Counter[Any] = Counter()
        found: dict[Any, int] = {}
        for parent, row in first.items():
            for y in row["ys"]:
                found[parent, y, seen[parent, y]] = y
                seen[parent, y] += 1
        return found
    return {parent: row["total" if table.kind == "row" else "x"] for parent, row in first.items()}


def elements(rows: dict[Any, dict[str, Any]]) -> dict[Any, int]:
    """Give the numbers on which a table is joined: a join takes rows apart into their elements."""
    return {(key, at): row["x"] for key, row in rows.items() for at in range(len(row.get("ys", "1")))}


# --- a history of a whole Stoa -----------------------------------------------------------------------------------------


class History:
    """Does the same to the model and to Stoa, and compares them."""

    def __init__(self, stoa: RunningStoa, tables: list[Table]) -> None:
        self.stoa = stoa
        self.tables = tables
        self.number = next(_histories)
        self.known: set[tuple[Version, int]] = set()
        self.position = self.executor_head()
        for table in tables:
            table.name = f"{table.name}_{self.number}"
            self.create(table)

    def post(self, path: str, **content: Any) -> dict[str, Any]:
        return self.stoa.checked(self.stoa.client.post(path, json=content))

    def executor_head(self) -> int:
        return _seen.get(self.stoa.url, 0)

    def create(self, table: Table) -> None:
        if table.kind == "plain":
            columns = [{"name": "x", "type": "int"}]
            table.id = self.post("/api/tables", name=table.name, kind="plain", columns=columns)["id"]
        elif table.kind == "join":
            left, right = (self.tables[parent].id for parent in table.parents)
            join = {"left": left, "right": right, "kind": "inner", "on": [["x", "x"]], "columns": {"x": "0.x"}}
            table.id = self.post("/api/tables", name=table.name, kind="join", join=join)["id"]
        else:
            assert table.version is not None
            table.id = self.stoa.create_worktable(table.name, table.version.document(self.number))
            if table.kind != "own":
                column = {"element": "ys", "row": "total", "input": "x"}[table.kind]
                per = "element" if table.kind == "element" else "row"
                parent = self.tables[table.parents[0]].id
                self.post(f"/api/tables/{table.id}/links", parent=parent, per=per, mapping={"x": column})
            answer = self.stoa.client.put(
                f"/api/triggers/{table.id}", json={"mode": "automatic", "after": self.tables_head()}
            )
            self.stoa.checked(answer)

    def tables_head(self) -> int:
        position: int = self.stoa.checked(self.stoa.client.get(f"/api/tables/{self.tables[0].id}"))["position"]
        return position

    def settle(self) -> None:
        """Wait until nothing is to be done any more, as the logs say."""
        deadline = time.monotonic() + 60
        ids = [table.id for table in self.tables]
        while time.monotonic() < deadline:
            before = self.tables_head()
            if all(self.stoa.counts(table).keys() <= {"current"} for table in ids):
                # Once the scheduler has heard of all that happened, what it wanted to run is in its queue.
                for table in self.tables:
                    if table.version is not None:
                        self.stoa.checked(
                            self.stoa.client.put(
                                f"/api/triggers/{table.id}", json={"mode": "automatic", "after": before}
                            )
                        )
                        break
                queue = self.stoa.checked(self.stoa.client.get("/api/queue"))
                if not (queue["waiting"] or queue["dispatched"] or queue["running"]) and self.tables_head() == before:
                    return
            time.sleep(0.01)
        pytest.fail(f"no end: {[(table.name, self.stoa.counts(table.id)) for table in self.tables]}")

    def check(self, doing: str) -> None:
        """Compare every cell, and what was executed."""
        self.settle()
        cells, needed = compute(self.tables)
        for table, wanted in zip(self.tables, cells, strict=True):
            found = Counter(
                (row["values"]["x"], *([tuple(row["values"]["ys"]), row["values"]["total"]] if table.version else []))
                for row in self.stoa.rows(table.id)
            )
            assert found == Counter(tuple(row.values()) for row in wanted.values()), f"{table.name} after {doing}"
        executed = []
        ids = {table.id for table in self.tables}
        for event in self.stoa.events("executor", self.position):
            self.position = event.log_position
            if event.name == "job-finished" and event.subject in ids:
                assert event.data["outcome"] == "success", event.data
                if event.data["reused_from"] is None:
                    executed.append(event.data["key"]["digest"])
                    self.check_key(event.data["key"], needed)
        _seen[self.stoa.url] = self.position
        assert len(executed) == len(set(executed)), f"something was executed twice after {doing}"
        assert len(executed) == len(needed - self.known), f"{len(executed)} jobs were executed after {doing}"
        self.known |= needed

    def check_key(self, key: dict[str, str], needed: set[tuple[Version, int]]) -> None:
        """What was executed is among what had to be."""
        assert key["inputs"] in {inputs_digest({"x": x}) for _, x in needed - self.known}

    # --- what people do ---

    def add(self, table: Table, x: int) -> None:
        (row,) = self.post(f"/api/tables/{table.id}/rows", rows=[{"x": x}])["rows"]
        table.rows[row] = x

    def edit(self, table: Table, numbers: dict[int, int]) -> None:
        edits = [{"row": row, "values": {"x": x}} for row, x in numbers.items()]
        self.stoa.checked(self.stoa.client.patch(f"/api/tables/{table.id}/rows", json={"edits": edits}))
        table.rows |= numbers

    def remove(self, table: Table, row: int) -> None:
        self.stoa.checked(self.stoa.client.request("DELETE", f"/api/tables/{table.id}/rows", json={"rows": [row]}))
        del table.rows[row]

    def identities(self, at: int) -> dict[Any, int]:
        """Match the rows that Stoa shows with those of the model: row identity to row id."""
        table = self.tables[at]
        if not table.parents:
            return {row: row for row in table.rows}
        (parent,) = table.parents
        above = {row: key for key, row in self.identities(parent).items()}
        seen: Counter[Any] = Counter()
        found: dict[Any, int] = {}
        cells = compute(self.tables)[0][parent]
        for row in sorted(self.stoa.rows(table.id), key=lambda row: row["derived_from"]["sources"][0]["element"] or 0):
            source = row["derived_from"]["sources"][0]
            key = above[source["row"]]
            if table.kind != "element":
                found[key] = row["row"]
                continue
            y = cells[key]["ys"][source["element"]]
            found[key, y, seen[key, y]] = row["row"]
            seen[key, y] += 1
        return found

    def correct(self, at: int, key: Any, row: int, x: int) -> None:
        table = self.tables[at]
        self.stoa.checked(self.stoa.client.patch(f"/api/tables/{table.id}/rows/{row}", json={"x": x}))
        table.corrections.pop(key, None)
        # What is as it was derived is no correction.
        if compute(self.tables)[0][at][key]["x"] != x:
            table.corrections[key] = x

    def reset(self, at: int, key: Any, row: int) -> None:
        table = self.tables[at]
        self.post(f"/api/tables/{table.id}/corrections/reset", rows=[row], columns=["x"])
        del table.corrections[key]

    def change(self, table: Table, version: Version, comment: str) -> None:
        files = [("files", ("tool.cwl", version.document(self.number, comment).encode()))]
        self.stoa.checked(self.stoa.client.put(f"/api/tables/{table.id}/workflow", files=files))
        table.version = version


VERSIONS = st.builds(Version, st.integers(0, 2), st.booleans())


@st.composite
def graphs(draw: st.DrawFn) -> list[Table]:
    """Draw tables, each after its parents; the first is a plain one."""
    tables = [Table("numbers", "plain")]
    for place in range(1, draw(st.integers(2, 5))):
        filled = [at for at, table in enumerate(tables) if table.version is not None]
        kinds = ["own", "input", *(["element", "row"] if filled else []), *(["join"] if place > 1 else [])]
        kind = draw(st.sampled_from(kinds))
        if kind == "join":
            parents: tuple[int, ...] = tuple(draw(st.permutations(range(place)))[:2])
        elif kind == "own":
            parents = ()
        else:
            parents = (draw(st.sampled_from(filled if kind in {"element", "row"} else range(place))),)
        version = None if kind == "join" else draw(VERSIONS)
        tables.append(Table(f"{kind}{place}", kind, parents, version))
    return tables


def without_joins(tables: list[Table], at: int) -> bool:
    """Tell whether a row's identity follows from values: a join may give equal rows to one another."""
    table = tables[at]
    return table.kind != "join" and all(without_joins(tables, parent) for parent in table.parents)


def step(history: History, data: st.DataObject) -> str:
    """Draw something that a person does, and do it."""
    tables = history.tables
    own = [table for table in tables if not table.parents]
    doings = ["add", "add", "change"]
    if any(table.rows for table in own):
        doings += ["edit", "edit", "edit", "remove"]
    correctable = [at for at, table in enumerate(tables) if table.correctable and without_joins(tables, at)]
    if correctable:
        doings += ["correct", "reset"]
    doing = data.draw(st.sampled_from(doings), label="doing")
    if doing == "add":
        history.add(data.draw(st.sampled_from(own), label="table"), data.draw(NUMBERS))
    elif doing == "change":
        worktables = [table for table in tables if table.version is not None]
        if not worktables:
            return "nothing"
        table = data.draw(st.sampled_from(worktables), label="table")
        history.change(table, data.draw(VERSIONS), comment=data.draw(st.sampled_from(["one", "two"])))
    elif doing in {"edit", "remove"}:
        table = data.draw(st.sampled_from([table for table in own if table.rows]), label="table")
        rows = sorted(table.rows)
        if doing == "remove":
            history.remove(table, data.draw(st.sampled_from(rows), label="row"))
        else:
            chosen = data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=3, unique=True), label="rows")
            history.edit(table, {row: data.draw(NUMBERS) for row in chosen})
    else:
        at = data.draw(st.sampled_from(correctable), label="table")
        rows_by_key = history.identities(at)
        keys = [key for key in rows_by_key if doing == "correct" or key in tables[at].corrections]
        if not keys:
            return "nothing"
        key = data.draw(st.sampled_from(keys), label="row")
        if doing == "correct":
            history.correct(at, key, rows_by_key[key], data.draw(NUMBERS))
        else:
            history.reset(at, key, rows_by_key[key])
    return doing


@pytest.fixture(scope="module")
def stoa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStoa]:
    with running_stoa(tmp_path_factory.mktemp("stoa") / "data") as running:
        yield running


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], print_blob=True)
@given(data=st.data())
def test_cells_are_as_computed_from_scratch_and_nothing_is_computed_twice(
    stoa: RunningStoa, data: st.DataObject
) -> None:
    history = History(stoa, data.draw(graphs(), label="tables"))
    for number in range(data.draw(st.integers(1, 8), label="steps")):
        history.check(f"step {number}: {step(history, data)}")
