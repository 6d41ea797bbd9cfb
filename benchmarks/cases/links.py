"""What a link costs: a keyed child of 300,000 rows, and one changed element in it."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, case
from tests.support.stoa import RunningStoa, running_stoa

PARENTS = {"1k": 1_000, "100k": 100_000}
CHANGES = 10

#: Three elements, of which the first one follows the input.
PARENT = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [sh, -c, 'echo "{\\"y\\": [$0, -1, -2]}" > cwl.output.json']
inputs:
  x: {type: int, inputBinding: {position: 1}}
outputs:
  y: {type: 'int[]'}
"""

CHILD = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [sh, -c, 'echo "{\\"z\\": $(($0 * 2))}" > cwl.output.json']
inputs:
  y: {type: int, inputBinding: {position: 1}}
outputs:
  z: {type: int}
"""


@case("link_300k_s", "element_ms_1k", "element_ms_100k", "comment_ms_100k")
def links(folder: Path) -> Iterator[Result]:
    """Link a child to parents of 1,000 and 100,000 rows, change single elements in both, and a comment of the workflow."""
    linked, elements, comments = {}, {}, {}
    for name, size in PARENTS.items():
        with running_stoa(folder / name) as stoa:
            parent = _import_parent(stoa, size)
            child = stoa.create_worktable("child", CHILD)
            link = {"parent": parent, "per": "element", "mapping": {"y": "y"}}
            linked[name] = _seconds(lambda: _post(stoa, f"/api/tables/{child}/links", **link))  # noqa: B023 - called at once
            _expect(stoa.checked(stoa.client.get(f"/api/tables/{child}"))["rows"], 3 * size)
            # An element with another value is another row of the child.
            durations = [_change_element(stoa, parent, child, row, 3 * size + row) for row in range(1, CHANGES + 2)][1:]
            elements[name] = 1000 * sorted(durations)[len(durations) // 2]
            jobs = len(stoa.events("executor"))
            comments[name] = 1000 * _seconds(lambda: _change_comment(stoa, parent))  # noqa: B023 - called at once
            counts = stoa.counts(parent)
            _expect((counts, len(stoa.events("executor"))), ({"current": size}, jobs))
    yield Result(
        "link_300k_s",
        linked["100k"],
        "s",
        "the same for 3,000 rows, times 100",
        linked["100k"] / (100 * linked["1k"]),
        note="create a keyed link from 100,000 rows with three elements each",
    )
    for name, value in elements.items():
        yield Result(
            f"element_ms_{name}",
            value,
            "ms",
            "the same in a parent of 1,000 rows",
            value / elements["1k"],
            note="edit a parent's row, run it, run the one row of the child that changed: 2 jobs",
        )
    yield Result(
        "comment_ms_100k",
        comments["100k"],
        "ms",
        "the same in a parent of 1,000 rows",
        comments["100k"] / comments["1k"],
        note="upload the workflow with another comment: 0 jobs, no row is stale",
    )


def _import_parent(stoa: RunningStoa, size: int) -> str:
    """Bring a table in that was computed elsewhere: running 100,000 rows would measure something else."""
    lines = [f"{row} {row} {y}" for row in range(size) for y in (row, -1, -2)]
    members = {
        "workflow.cwl": PARENT,
        "template.yml": "{}\n",
        "table.txt": "\n".join(["__bindex__ x y", "K_int I_int O_int", "", *lines, ""]),
        "links.txt": "\n\n",
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    upload = [("files", ("parent.wtx", file.getvalue()))]
    answer = stoa.checked(stoa.client.post("/api/worktable-files", files=upload, timeout=600))
    (imported,) = answer["tables"]
    _expect(imported["counts"], {"current": size})
    table: str = imported["table"]
    return table


def _change_element(stoa: RunningStoa, parent: str, child: str, row: int, appears: int) -> float:
    """Change the first element of a parent's row, and compute what follows; give the seconds."""
    before = len(stoa.events("executor"))
    new = 1_000_000 + row
    started = time.perf_counter()
    stoa.checked(stoa.client.patch(f"/api/tables/{parent}/rows/{row}", json={"x": new}))
    stoa.run(parent, "rows", rows=[row], after=_head(stoa, parent))
    _wait(lambda: _status(stoa, child, appears) is not None)
    stoa.run(child, "rows", rows=[appears], after=_head(stoa, child))
    _wait(lambda: _status(stoa, child, appears) == "current")
    seconds = time.perf_counter() - started
    finished = [event for event in stoa.events("executor")[before:] if event.name == "job-finished"]
    _expect(len(finished), 2)
    return seconds


def _change_comment(stoa: RunningStoa, parent: str) -> None:
    files = [("files", ("workflow.cwl", f"# changed\n{PARENT}".encode()))]
    stoa.checked(stoa.client.put(f"/api/tables/{parent}/workflow", files=files))


def _head(stoa: RunningStoa, table: str) -> int:
    position: int = stoa.checked(stoa.client.get(f"/api/tables/{table}"))["position"]
    return position


def _post(stoa: RunningStoa, path: str, **content: Any) -> None:
    stoa.checked(stoa.client.post(path, json=content, timeout=600))


def _status(stoa: RunningStoa, table: str, row: int) -> str | None:
    answer = stoa.client.get(f"/api/tables/{table}/rows/{row}")
    return None if answer.status_code == 404 else stoa.checked(answer)["status"]


def _wait(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if look():
            return
        time.sleep(0.005)
    message = "What was to be computed did not come"
    raise TimeoutError(message)


def _expect(found: object, wanted: object) -> None:
    if found != wanted:
        message = f"{found} where {wanted} was expected"
        raise RuntimeError(message)


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
