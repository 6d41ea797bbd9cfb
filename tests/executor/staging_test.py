"""What goes to the engine, and what comes from it."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from stoa_executor.domain import InputRefusedError, local_path
from stoa_executor.staging import (
    InputStager,
    OutputCollector,
    TablesUnavailableError,
    WorkflowCache,
    WorkflowRefusedError,
    keep_log,
)
from stoa_executor.store import FileStore

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


@pytest.fixture
def stager(store: FileStore, tmp_path: Path) -> InputStager:
    root = tmp_path / "archive"
    (root / "sub dir").mkdir(parents=True)
    (root / "sub dir" / "a%b#c.fits").write_text("pixels")
    (root / "out").symlink_to("/etc")
    (tmp_path / "archive-other").mkdir()
    (tmp_path / "archive-other" / "x").touch()
    return InputStager(store, [root])


def file(location: str | None = None, **more: Any) -> dict[str, Any]:
    return {"class": "File"} | ({"location": location} if location is not None else {}) | more


def test_stored_files_become_paths_under_their_names(stager: InputStager, store: FileStore) -> None:
    digest = store.put_bytes(b"content").digest
    given: dict[str, Any] = {
        "image": file(
            f"sha256:{digest}",
            basename="m31.fits",
            size=7,
            checksum=f"sha256${digest}",
            nameroot="../../x",
            path=None,
            secondaryFiles=[file(f"sha256:{digest}", basename="m31.fits.idx")],
        ),
        "many": [file(f"sha256:{digest}", basename="b"), None],
        "record": {"inner": file(f"sha256:{digest}", format="http://edamontology.org/format_2333")},
        "n": 5,
    }
    staged = stager.stage(given)

    places = [staged["image"], staged["image"]["secondaryFiles"][0], staged["many"][0], staged["record"]["inner"]]
    assert [place["basename"] for place in places] == ["m31.fits", "m31.fits.idx", "b", store.path(digest).name]
    for place in places:
        path = local_path(place["location"])
        assert path is not None
        assert Path(path).read_bytes() == b"content"
    assert len({place["location"] for place in places}) == 4
    assert set(staged["image"]) == {"class", "location", "basename", "secondaryFiles"}
    assert staged["record"]["inner"]["format"].endswith("format_2333")
    assert staged["n"] == 5
    assert given["image"]["location"] == f"sha256:{digest}"


def test_files_of_opened_directories_may_be_read(stager: InputStager, tmp_path: Path) -> None:
    path = tmp_path / "archive" / "sub dir" / "a%b#c.fits"
    for location in (path.as_uri(), str(path)):
        staged = stager.stage({"x": file(location)})["x"]
        assert local_path(staged["location"]) == str(path)
        assert staged["basename"] == "a%b#c.fits"
    folder = stager.stage(
        {"x": {"class": "Directory", "location": path.parent.as_uri(), "listing": [file("/etc/passwd")]}}
    )
    assert set(folder["x"]) == {"class", "location", "basename"}


def test_literals_stay_literals(stager: InputStager) -> None:
    assert stager.stage({"x": file(contents="a b", basename="n")}) == {"x": file(contents="a b", basename="n")}
    tree = {"class": "Directory", "basename": "d", "listing": [file(contents="", basename="empty")]}
    assert stager.stage({"x": tree}) == {"x": tree}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (file("sha256:" + "c" * 64, basename="a.fits"), "a.fits (sha256:cccccccccccc…) is not in the file store."),
        (file("sha256:../../etc/passwd"), "sha256:../../etc/passwd is not the location of a stored file."),
        (file("file:///etc/passwd"), "/etc/passwd lies outside the directories that may be read here"),
        (file("/etc/passwd"), "/etc/passwd lies outside"),
        (file("ROOT/../archive-other/x"), "lies outside"),
        (file("ROOT/out/passwd"), "lies outside"),
        (file("ROOT/sub%20dir/missing.fits"), "there is no file"),
        (file("ROOT/sub%20dir"), "there is no file"),
        ({"class": "Directory", "location": "ROOT/none"}, "there is no directory"),
        (file("https://example.org/a.fits"), "locations of the kind 'https' are not fetched; upload the file instead."),
        (file("relative.fits"), "relative.fits is not an absolute location."),
        (file("file://elsewhere/etc/passwd"), "locations of the kind 'file' are not fetched"),
        (file(), "the file has neither a location nor contents."),
        (file(contents="x" * 70_000), "are larger than 64 KiB"),
        (file(contents="x", basename="../x"), "'../x' cannot be the name of a file."),
        (file(contents="x", basename=".."), "'..' cannot be the name of a file."),
        ({"class": "Directory", "listing": []}, "a directory given by its listing needs a basename."),
        (
            {"class": "Directory", "basename": "d", "listing": [file("/etc/passwd")]},
            "/etc/passwd lies outside",
        ),
    ],
)
def test_what_may_not_be_read_is_refused_by_name(
    stager: InputStager, tmp_path: Path, value: Any, sentence: str
) -> None:
    value = json.loads(json.dumps(value).replace("ROOT", (tmp_path / "archive").as_uri()))
    with pytest.raises(InputRefusedError) as refusal:
        stager.stage({"images": [value]})
    assert str(refusal.value).startswith("Input 'images': ")
    assert sentence in str(refusal.value)


def test_outputs_are_moved_into_the_store(store: FileStore, tmp_path: Path) -> None:
    job = tmp_path / "job"
    (job / "out1" / "d").mkdir(parents=True)
    (job / "out1" / "d" / "x").write_text("X")
    (job / "out1" / "link").symlink_to("d/x")
    known = store.put_bytes(b"known").digest
    (job / "out1" / "input").symlink_to(store.path(known))
    collected = OutputCollector(store, job).collect(
        {
            "n": 1.5,
            "twice": [file((job / "out1" / "d" / "x").as_uri(), basename="x"), file((job / "out1" / "link").as_uri())],
            "folder": {"class": "Directory", "location": (job / "out1").as_uri(), "basename": "out1"},
            "literal": file(contents="text", basename="notes.txt"),
        }
    )

    x = sha256(b"X").hexdigest()
    assert collected["n"] == 1.5
    assert [(item["basename"], item["location"]) for item in collected["twice"]] == [
        ("x", f"sha256:{x}"),
        ("link", f"sha256:{x}"),
    ]
    assert collected["folder"]["basename"] == "folder"
    assert [item["basename"] for item in collected["folder"]["listing"]] == ["d", "input", "link"]
    assert collected["folder"]["listing"][1]["location"] == f"sha256:{known}"
    assert store.open(collected["literal"]["location"].removeprefix("sha256:")).read() == b"text"
    assert not (job / "out1" / "d" / "x").exists()


def test_outputs_from_elsewhere_are_copied_or_refused(store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "archive").mkdir()
    source = tmp_path / "archive" / "a"
    source.write_text("A")
    collect = OutputCollector(store, tmp_path / "job", [tmp_path / "archive"]).collect

    assert collect({"a": file(source.as_uri())})["a"]["size"] == 1
    assert source.exists()
    (tmp_path / "job" / "escape").symlink_to("/etc")
    (tmp_path / "job" / "pipe").symlink_to("/dev/null")
    for name in ("escape/passwd", "pipe"):
        with pytest.raises(InputRefusedError, match=r"Output 'a': .* lies outside the job's own directory"):
            collect({"a": file((tmp_path / "job" / name).as_uri())})
    with pytest.raises(InputRefusedError, match="Output 'd': etc lies outside"):
        collect({"d": {"class": "Directory", "location": (tmp_path / "job" / "escape").as_uri()}})
    import os

    os.mkfifo(tmp_path / "job" / "fifo")
    with pytest.raises(InputRefusedError, match="fifo is not a regular file"):
        collect({"a": file((tmp_path / "job" / "fifo").as_uri())})


def test_of_a_long_log_the_ends_are_kept(store: FileStore, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert keep_log(store, log, 100) is None
    log.touch()
    assert keep_log(store, log, 100) is None
    log.write_bytes(b"a" * 500 + b"b" * 500)
    kept = keep_log(store, log, 100)
    assert kept is not None
    text = store.path(kept.digest).read_text()
    assert text == "a" * 50 + "\n… 900 bytes are left out here …\n" + "b" * 50


def cache(tmp_path: Path, handler: Callable[[httpx.Request], httpx.Response]) -> WorkflowCache:
    return WorkflowCache(
        tmp_path / "workflows", "http://tables", httpx.AsyncClient(transport=httpx.MockTransport(handler))
    )


class Tables:
    """The tables service with one workflow version, faithful or not."""

    def __init__(self, **files: bytes) -> None:
        self.files = {name.replace("__", "."): content for name, content in files.items()}
        self.listed = [{"name": name, "sha256": sha256(content).hexdigest()} for name, content in self.files.items()]
        self.main = "main.cwl#find"
        self.requests = 0
        self.status = 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.status != 200:
            return httpx.Response(self.status)
        _, _, name = request.url.path.partition("/files/")
        if name:
            return httpx.Response(200, content=self.files[name])
        return httpx.Response(200, json={"version": VERSION, "main": self.main, "files": self.listed})


async def test_a_workflow_is_fetched_once_and_kept(tmp_path: Path) -> None:
    tables = Tables(main__cwl=b"{}", **{"scripts/run__py": b"#!/usr/bin/python3\n"})
    workflows = cache(tmp_path, tables)
    staged = await workflows.get(VERSION)

    assert (staged.main, staged.process) == ("main.cwl", "find")
    script = staged.directory / "scripts" / "run.py"
    assert (script.read_bytes(), script.stat().st_mode & 0o777) == (b"#!/usr/bin/python3\n", 0o555)
    assert (staged.directory / "main.cwl").stat().st_mode & 0o777 == 0o444
    assert await workflows.get(VERSION) == staged
    assert await cache(tmp_path, tables).get(VERSION) == staged
    assert tables.requests == 3

    script.chmod(0o755)
    script.write_text("changed by somebody")
    again = await cache(tmp_path, tables).get(VERSION)
    assert (again.directory / "scripts" / "run.py").read_bytes() == b"#!/usr/bin/python3\n"
    assert not [path for path in (tmp_path / "workflows").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\b", ""])
async def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    tables = Tables(main__cwl=b"{}")
    tables.listed.append({"name": name, "sha256": "0" * 64})
    with pytest.raises(WorkflowRefusedError, match="leads outside"):
        await cache(tmp_path, tables).get(VERSION)


async def test_content_that_is_not_what_its_digest_says_is_refused(tmp_path: Path) -> None:
    tables = Tables(main__cwl=b"{}")
    tables.files["main.cwl"] = b"{} "
    with pytest.raises(WorkflowRefusedError, match=r"main\.cwl of the workflow version .* is not what its digest says"):
        await cache(tmp_path, tables).get(VERSION)


async def test_an_incomplete_version_is_refused(tmp_path: Path) -> None:
    tables = Tables(other__cwl=b"{}")
    with pytest.raises(WorkflowRefusedError, match=r"does not hold its main document main\.cwl"):
        await cache(tmp_path, tables).get(VERSION)
    with pytest.raises(WorkflowRefusedError, match="not the name of a workflow version"):
        await cache(tmp_path, tables).get("../x")


async def test_silence_is_told_from_ignorance(tmp_path: Path) -> None:
    tables = Tables(main__cwl=b"{}")
    tables.status = 404
    with pytest.raises(WorkflowRefusedError, match="does not know the workflow version"):
        await cache(tmp_path, tables).get(VERSION)
    tables.status = 502
    with pytest.raises(TablesUnavailableError, match="status 502"):
        await cache(tmp_path, tables).get(VERSION)

    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(TablesUnavailableError, match="does not answer: connection refused"):
        await cache(tmp_path, gone).get(VERSION)
