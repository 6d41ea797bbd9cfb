"""The actions that come with Stoa do what they say, and a command line becomes a document that runs."""

from __future__ import annotations

import hashlib
import http.server
import os
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from cwltool.context import RuntimeContext
from cwltool.factory import Factory, WorkflowStatus

from stoa_tables.actions.library import list_actions
from stoa_tables.actions.wrap import wrap
from stoa_tables.bundle import Bundle
from stoa_tables.cwl import describe
from stoa_tables.problems import InvalidRequestError
from tests.tables.harness import Harness

Run = Callable[..., dict[str, Any]]

_VOTABLE = """<?xml version="1.0"?>
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">
<INFO name="QUERY_STATUS" value="{status}">{message}</INFO>
<TABLE><FIELD name="ra" datatype="double" unit="deg" ucd="pos.eq.ra;meta.main"/>
<FIELD name="name" datatype="unicodeChar" arraysize="*"/>
<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"""


def votable(*rows: tuple[float, str], status: str = "OK", message: str = "") -> bytes:
    cells = "".join(f"<TR><TD>{ra}</TD><TD>{name}</TD></TR>" for ra, name in rows)
    return _VOTABLE.format(status=status, message=message, rows=cells).encode()


class Server:
    """A server on the loopback interface that answers with what a test gave it, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, bytes]] = {}
        self.asked: list[dict[str, str]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(urllib.parse.urlsplit(self.path).query)

            def do_POST(self) -> None:
                self.answer(self.rfile.read(int(self.headers["content-length"])).decode())

            def answer(self, query: str) -> None:
                outer.asked.append(dict(urllib.parse.parse_qsl(query)))
                path = urllib.parse.urlsplit(self.path).path
                status, media_type, body = outer.answers.get(path, (404, "text/plain", b""))
                self.send_response(status)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def as_cwl(value: Any) -> Any:
    if isinstance(value, Path):
        return {"class": "Directory" if value.is_dir() else "File", "location": value.as_uri()}
    return value


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the files of a workflow with cwltool's library, as the executor does."""
    # This interpreter's programs come first, as they do for the executor.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def run(main: str, files: dict[str, str], **inputs: Any) -> dict[str, Any]:
        folder = tmp_path / "bundle"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content)
        factory = Factory(runtime_context=RuntimeContext({"use_container": False, "outdir": str(tmp_path / "out")}))
        outputs = factory.make(str(folder / main))(**{name: as_cwl(value) for name, value in inputs.items()})
        return cast("dict[str, Any]", outputs)

    return run


@pytest.fixture
def action(run: Run) -> Run:
    def act(name: str, **inputs: Any) -> dict[str, Any]:
        (found,) = [action for action in list_actions() if action.name == name]
        return run(found.main, dict(found.files), **inputs)

    return act


def located(file: dict[str, Any]) -> Path:
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(file["location"]).path))


@pytest.mark.parametrize("name", [action.name for action in list_actions()])
async def test_an_action_is_a_worktable_with_labels(quick: Harness, name: str) -> None:
    found = (await quick.client.get(f"/api/actions/{name}")).raise_for_status().json()
    files = [("files", (file["name"], file["content"].encode())) for file in found["files"]]
    upload = {"table": f'{{"name": "{name}", "main": "{found["main"]}"}}'}
    answer = await quick.client.post("/api/tables", data=upload, files=files)
    assert answer.status_code == 201, answer.text
    created = answer.json()
    # Who runs it should know that it reaches out, and what it needs.
    assert all(
        warning.startswith(("It asks for access to the network", "It names the software"))
        for warning in created["warnings"]
    ), created["warnings"]
    assert all(column["label"] and column["description"] for column in created["columns"])


async def test_actions_are_listed_and_an_unknown_one_is_a_problem(quick: Harness) -> None:
    listed = (await quick.client.get("/api/actions")).json()["actions"]
    assert [item["name"] for item in listed] == sorted(item["name"] for item in listed)
    assert all(item["description"].endswith((".", "script.")) for item in listed)
    answer = await quick.client.get("/api/actions/astrology")
    assert answer.status_code == 404
    assert "cone_search" in answer.json()["detail"]


def test_files_are_found_below_a_directory(action: Run, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / "deep").mkdir(parents=True)
    for name in ("b.fits", "a.txt", "deep/a.fits"):
        (archive / name).write_bytes(b"12")
    found = action("find_files", directory=archive)
    assert found["path"] == [str(archive / "b.fits"), str(archive / "deep" / "a.fits")]
    assert (found["name"], found["size"]) == (["b.fits", "a.fits"], [2, 2])
    assert action("find_files", directory=archive, pattern="*.txt")["name"] == ["a.txt"]


def test_a_header_is_read(action: Run, tmp_path: Path) -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [187.5, 12.25]
    wcs.wcs.crpix, wcs.wcs.cdelt = [6.0, 6.0], [-1e-4, 1e-4]
    header = wcs.to_header()
    header["RADESYS"], header["EXPOSURE"], header["FILTER1"] = "ICRS", 30, "r"
    primary = fits.PrimaryHDU()
    primary.header["OBJECT"], primary.header["TELESCOP"] = "M 87", " "
    path = tmp_path / "image.fits"
    fits.HDUList([primary, fits.ImageHDU(np.zeros((11, 11)), header)]).writeto(path)
    found = action("fits_header", file=path, hdu=1)
    assert (found["object"], found["telescope"], found["filter"], found["exposure"]) == ("M 87", None, "r", 30.0)
    assert (found["ra"], found["dec"]) == (pytest.approx(187.5), pytest.approx(12.25))
    bare = action("fits_header", file=path)
    assert (bare["ra"], bare["object"]) == (None, "M 87")
    with pytest.raises(WorkflowStatus):
        action("fits_header", file=path, hdu=2)


def test_a_cone_search_gives_the_rows_of_the_service(action: Run, server: Server) -> None:
    server.answers["/scs"] = (200, "application/x-votable+xml", votable((187.7, "M 87"), (187.8, "Détection")))
    found = action("cone_search", service=f"{server.url}/scs?", ra=187.7, dec=-12.4, radius=0.1)
    assert found["matches"] == 2
    assert [float(server.asked[-1][name]) for name in ("RA", "DEC", "SR")] == [187.7, -12.4, 0.1]
    assert list(Table.read(located(found["table"]), format="votable")["name"]) == ["M 87", "Détection"]


def test_a_query_tells_whether_the_service_had_more(action: Run, server: Server) -> None:
    answer = votable((1.5, "a"), status="OVERFLOW")
    server.answers["/tap/sync"] = (200, "application/x-votable+xml", answer)
    found = action("tap_query", service=f"{server.url}/tap", query="SELECT TOP 1 * FROM t", maxrec=1)
    assert (found["rows"], found["overflow"]) == (1, True)
    assert server.asked[-1]["QUERY"] == "SELECT TOP 1 * FROM t"
    assert server.asked[-1]["MAXREC"] == "1"


@pytest.mark.parametrize(
    ("name", "inputs", "path", "refusal"),
    [
        ("cone_search", {"ra": 1.0, "dec": 2.0}, "/scs", b'<VOTABLE><INFO name="Error" value="no"/></VOTABLE>'),
        ("tap_query", {"query": "SELECT 1"}, "/tap/sync", votable(status="ERROR", message="no such column")),
    ],
)
def test_what_a_service_refuses_fails_and_what_it_cannot_do_now_may_pass(
    action: Run,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    name: str,
    inputs: dict[str, Any],
    path: str,
    refusal: bytes,
) -> None:
    service = server.url + path.removesuffix("/sync")
    server.answers[path] = (200, "application/x-votable+xml", refusal)
    with pytest.raises(WorkflowStatus):
        action(name, service=service, **inputs)
    assert "exited with status: 1" in caplog.text
    server.answers[path] = (503, "text/plain", b"later")
    with pytest.raises(WorkflowStatus):
        action(name, service=service, **inputs)
    assert "exited with status: 75" in caplog.text


def test_a_file_is_downloaded_and_checked(action: Run, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    content = b"SIMPLE  ="
    server.answers["/data/image%201.fits"] = (200, "application/fits", content)
    url = f"{server.url}/data/image%201.fits"
    found = action("download", url=url, sha256=hashlib.sha256(content).hexdigest())
    assert located(found["file"]).read_bytes() == content
    assert (found["file"]["basename"], found["size"], found["media_type"]) == ("image 1.fits", 9, "application/fits")
    for broken in ({"url": url, "sha256": "0" * 64}, {"url": f"{server.url}/gone"}, {"url": "file:///etc/passwd"}):
        caplog.clear()
        with pytest.raises(WorkflowStatus):
            action("download", **broken)
        assert "exited with status: 1" in caplog.text
    server.answers["/busy"] = (503, "text/plain", b"")
    with pytest.raises(WorkflowStatus):
        action("download", url=f"{server.url}/busy")
    assert "exited with status: 75" in caplog.text


def test_catalogues_are_matched_across_formats_and_the_origin(action: Run, tmp_path: Path) -> None:
    left = Table({"ra": [359.9999, 10.0, np.nan], "dec": [0.0, 89.9999, 0.0], "name": ["a", "b", "c"]})
    left.write(tmp_path / "left.fits")
    right = Table({"RAJ2000": [190.0, 0.0000], "DEJ2000": [89.9999, 0.0], "mag": [12.5, 13.5]})
    right.write(tmp_path / "right.ecsv")
    names = {"right_ra": "RAJ2000", "right_dec": "DEJ2000"}
    found = action("match_sky", left=tmp_path / "left.fits", right=tmp_path / "right.ecsv", **names)
    matched = Table.read(located(found["table"]), format="votable")
    assert (found["matches"], list(matched["name"]), list(matched["mag"])) == (2, ["a", "b"], [13.5, 12.5])
    assert list(matched["separation"]) == pytest.approx([0.36, 0.72], rel=1e-3)
    assert str(matched["separation"].unit) == "arcsec"
    with pytest.raises(WorkflowStatus):
        action("match_sky", left=tmp_path / "left.fits", right=tmp_path / "right.ecsv")


# --- a command line ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "inputs", "outputs"),
    [
        ("sex img.fits -c default.sex", {"img": "File", "c": "File"}, {"printed": "stdout"}),
        ("tool -v img.fits", {"v": "boolean", "img": "File"}, {"printed": "stdout"}),
        (
            "swarp a.fits -IMAGEOUT_NAME coadd.fits -n 3 --offset -1.5",
            {"a": "File", "imageout_name": "string", "n": "int", "offset": "double"},
            {"imageout_name_file": "File"},
        ),
        ("sort -r < in.txt > sorted.txt", {"r": "boolean", "stdin": "File"}, {"sorted": "stdout"}),
        ("curl https://example.org/a.fits -o a.fits", {"url": "string", "o": "string"}, {"o_file": "File"}),
        ("find --source 6917528997577384320 --timeout=30", {"source": "long", "timeout": "int"}, {"printed": "stdout"}),
        ("cat a.txt b/a.txt 3", {"a": "File", "a_2": "File", "number": "int"}, {"printed": "stdout"}),
    ],
)
def test_the_words_of_a_command_become_inputs_and_outputs(
    command: str, inputs: dict[str, str], outputs: dict[str, str]
) -> None:
    wrapped = wrap(command)
    described = describe(Bundle.from_files({"tool.cwl": wrapped.document.encode()}, None))
    found = {column.name: column for column in described.columns}
    assert {name for name, column in found.items() if column.role == "input"} == set(inputs)
    assert {name: found[name].type for name in inputs} == inputs
    assert {name for name, column in found.items() if column.role == "output"} == set(outputs)


def test_a_script_belongs_beside_its_document(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("3\n4\n")
    wrapped = wrap("python3 bin/total.py in.txt --factor 2 --out total.txt")
    assert (wrapped.name, wrapped.needs) == ("total", ["total.py"])
    script = (
        "import argparse; p = argparse.ArgumentParser(); p.add_argument('path'); p.add_argument('--factor', type=int);"
        "p.add_argument('--out'); a = p.parse_args();"
        "open(a.out, 'w').write(str(a.factor * sum(map(int, open(a.path)))))"
    )
    files = {"total.cwl": wrapped.document, "total.py": script}
    outputs = run("total.cwl", files, **{"in": tmp_path / "in.txt", "factor": 3})
    assert located(outputs["out_file"]).read_text() == "21"


def test_what_is_redirected_is_read_and_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("b\na\n")
    outputs = run("sort.cwl", {"sort.cwl": wrap("sort < in.txt > out/sorted.txt").document}, stdin=tmp_path / "in.txt")
    assert located(outputs["sorted"]).read_text() == "a\nb\n"
    assert located(outputs["sorted"]).name == "sorted.txt"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("", "no command"),
        ("ls | wc", "pipe"),
        ("a && b", "several commands"),
        ("echo $(date)", "shell"),
        ("echo `date`", "shell"),
        ("sex 'img.fits", "cannot be read"),
        ("X=3 sex", "program"),
        ("sort <", "name of a file"),
        ("a\nb", "several lines"),
    ],
)
def test_what_is_no_single_command_is_refused(command: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        wrap(command)


async def test_a_command_is_wrapped_over_http(quick: Harness) -> None:
    answer = await quick.client.post("/api/actions/wrap", json={"command": "sex img.fits -c default.sex"})
    assert answer.json()["main"] == "sex.cwl"
    assert any("-c" in note for note in answer.json()["notes"])
    refused = await quick.client.post("/api/actions/wrap", json={"command": "ls | wc"})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
