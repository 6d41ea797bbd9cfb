"""Workflow versions are named by their content."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stoa_tables.bundle import MAX_BYTES, MAX_FILES, Bundle, InvalidWorkflowError

TOOL = b"""\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [python, flux.py]
inputs:
  image: {type: File, doc: "The image: beam-corrected"}
  level: {type: float, default: 5.0}
outputs:
  flux: {type: stdout}
"""

SAME_TOOL = b"""\
#!/usr/bin/env cwl-runner
# The same, by somebody else.
class: CommandLineTool
cwlVersion: 'v1.2'
outputs:
  flux:
    type: "stdout"
inputs:
  level:
    default: 5.0   # sigma
    type: float
  image:
    doc: 'The image: beam-corrected'
    type: File
baseCommand:
  - python
  - flux.py
"""

WORKFLOW = b"""\
cwlVersion: v1.2
class: Workflow
inputs: {image: File}
outputs: []
steps:
  measure: {run: tools/flux.cwl, in: {image: image}, out: []}
"""


def refusal(files: dict[str, bytes], main: str | None = None) -> InvalidWorkflowError:
    with pytest.raises(InvalidWorkflowError) as caught:
        Bundle.from_files(files, main)
    return caught.value


def graph(*processes: Mapping[str, object]) -> bytes:
    return json.dumps({"cwlVersion": "v1.2", "$graph": processes}).encode()


# --- the version -------------------------------------------------------------------------------------------------------


def test_comments_order_and_quoting_do_not_make_a_new_version() -> None:
    one = Bundle("flux.cwl", {"flux.cwl": TOOL, "flux.py": b"print(1)\n"})
    other = Bundle("flux.cwl", {"flux.py": b"print(1)\n", "flux.cwl": SAME_TOOL})
    assert one.version == other.version
    assert one.canonical == other.canonical


def test_a_document_in_json_is_the_same_as_in_yaml() -> None:
    as_json = json.dumps(YAML(typ="safe", pure=True).load(TOOL), indent=3).encode()
    assert Bundle("flux.cwl", {"flux.cwl": as_json}).version == Bundle("flux.cwl", {"flux.cwl": TOOL}).version


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("flux.cwl", TOOL.replace(b"5.0", b"5.5")),
        ("flux.cwl", TOOL.replace(b"level", b"sigma")),
        ("flux.py", b"print(1) \n"),
        ("parameters.yml", b"gain: 2\n"),
        ("further.txt", b""),
    ],
)
def test_every_other_change_makes_a_new_version(name: str, content: bytes) -> None:
    files = {"flux.cwl": TOOL, "flux.py": b"print(1)\n", "parameters.yml": b"gain: 1\n"}
    assert Bundle("flux.cwl", {**files, name: content}).version != Bundle("flux.cwl", files).version


def test_another_name_of_a_file_makes_a_new_version() -> None:
    assert (
        Bundle("flux.cwl", {"flux.cwl": TOOL, "a.py": b"1"}).version
        != Bundle("flux.cwl", {"flux.cwl": TOOL, "b.py": b"1"}).version
    )


def test_another_main_document_makes_a_new_version() -> None:
    files = {"a.cwl": TOOL, "b.cwl": TOOL}
    assert Bundle("a.cwl", files).version != Bundle("b.cwl", files).version


def test_scripts_count_by_their_bytes_even_where_they_look_like_yaml() -> None:
    one = Bundle("flux.cwl", {"flux.cwl": TOOL, "run.sh": b"a: 1\nb: 2\n"})
    assert one.version != Bundle("flux.cwl", {"flux.cwl": TOOL, "run.sh": b"b: 2\na: 1\n"}).version


@pytest.mark.parametrize(
    "content",
    [b"a: .nan\n", b"1: one\n", b"a: 1\n---\na: 2\n", b"{{ template }}: [\n", b"\xff\xfe", b"when: !mine 3\n"],
    ids=["nan", "number as key", "two documents", "no yaml", "no utf-8", "tag"],
)
def test_a_data_file_that_json_cannot_hold_counts_by_its_bytes(content: bytes) -> None:
    one = Bundle("flux.cwl", {"flux.cwl": TOOL, "data.yml": content})
    other = Bundle("flux.cwl", {"flux.cwl": TOOL, "data.yml": content + b"# end\n"})
    assert one.version != other.version


SETTINGS = b"gain: 2  # e/ADU\nseeing: 0.8\n"
SAME_SETTINGS = b"seeing: 0.8\ngain: 2\n"


@pytest.mark.parametrize(
    "part",
    [
        b"  settings: {type: File, default: {class: File, location: conf/a.yml}}\n",
        b"  settings: {type: File, default: {class: File, path: ./conf/a.yml}}\n",
        b"  settings: {type: Directory, default: {class: Directory, location: conf}}\n",
        b"  settings: {type: Directory, default: {class: Directory, location: conf/}}\n",
        b"  settings: {type: Directory, default: {class: Directory, location: .}}\n",
        b"  settings: {type: string, default: {$include: conf/a.yml}}\n",
    ],
)
def test_a_document_that_a_tool_gets_to_see_counts_by_its_bytes(part: bytes) -> None:
    tool = TOOL.replace(b"inputs:\n", b"inputs:\n" + part)
    one = Bundle("flux.cwl", {"flux.cwl": tool, "conf/a.yml": SETTINGS})
    other = Bundle("flux.cwl", {"flux.cwl": tool, "conf/a.yml": SAME_SETTINGS})
    assert one.version != other.version


def test_a_document_that_another_file_names_is_found_from_where_that_lies() -> None:
    tool = TOOL.replace(
        b"inputs:\n", b"inputs:\n  settings: {type: File, default: {class: File, location: ../a.yml}}\n"
    )
    files = {"main.cwl": WORKFLOW, "tools/flux.cwl": tool, "a.yml": SETTINGS, "b.yml": SETTINGS}
    version = Bundle("main.cwl", files).version
    assert Bundle("main.cwl", {**files, "a.yml": SAME_SETTINGS}).version != version
    assert Bundle("main.cwl", {**files, "b.yml": SAME_SETTINGS}).version == version


def test_a_document_that_is_imported_counts_by_what_it_says() -> None:
    tool = TOOL.replace(b"{type: float, default: 5.0}", b"{$import: a.yml}")
    one, other = b"type: float\ndefault: 1.0\n", b"default: 1.0 # sigma\ntype: float\n"
    assert (
        Bundle("flux.cwl", {"flux.cwl": tool, "a.yml": one}).version
        == Bundle("flux.cwl", {"flux.cwl": tool, "a.yml": other}).version
    )


def test_what_a_file_says_is_compared_file_by_file() -> None:
    one = Bundle("flux.cwl", {"flux.cwl": TOOL, "run.py": b"a = 1\n", "a.yml": SETTINGS})
    other = Bundle("flux.cwl", {"flux.cwl": SAME_TOOL, "run.py": b"a = 1 \n", "a.yml": SAME_SETTINGS})
    assert [one.meaning(name) == other.meaning(name) for name in one.files] == [True, True, False]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(TOOL.replace(b"\n", b"\r\n"), id="line ends of Windows"),
        pytest.param(b"\xef\xbb\xbf" + TOOL, id="byte order mark"),
        pytest.param(b"---\n" + TOOL + b"...\n", id="marks of a document"),
        pytest.param(TOOL.replace(b"5.0", b"5.00"), id="digits"),
        pytest.param(TOOL.replace(b"5.0", b"0.5e1"), id="exponent"),
        pytest.param(TOOL.replace(b"[python, flux.py]", b"\n  - python\n  - flux.py"), id="block style"),
        pytest.param(TOOL.replace(b"{type: stdout}", b"&kind {type: stdout}"), id="anchor"),
    ],
)
def test_another_writing_of_a_cwl_document_is_the_same_version(other: bytes) -> None:
    assert Bundle("flux.cwl", {"flux.cwl": other}).version == Bundle("flux.cwl", {"flux.cwl": TOOL}).version


def test_a_script_inside_a_cwl_document_counts_to_the_letter() -> None:
    def expression(code: str) -> bytes:
        return (
            TOOL
            + f"hints:\n  - class: InlineJavascriptRequirement\n    expressionLib:\n      - |\n        {code}\n".encode()
        )

    one, other = (Bundle("flux.cwl", {"flux.cwl": expression(code)}) for code in ("f(1) // a", "f(1) // b"))
    assert one.version != other.version


def test_dates_are_text_as_in_cwl() -> None:
    one = Bundle("flux.cwl", {"flux.cwl": TOOL, "data.yml": b"night: 2024-01-02\n"})
    other = Bundle("flux.cwl", {"flux.cwl": TOOL, "data.yml": b"night: '2024-01-02'\n"})
    assert one.version == other.version


def test_references_name_each_file_by_its_digest() -> None:
    (reference,) = Bundle("flux.cwl", {"flux.cwl": TOOL}).references
    assert (reference.name, reference.size, len(reference.sha256)) == ("flux.cwl", len(TOOL), 64)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(alphabet="abcdefgh_", min_size=1, max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
documents = st.dictionaries(st.text(alphabet="abcdefgh_", min_size=1, max_size=6), json_values, max_size=5)


def _reordered(value: object, draw: st.DrawFn) -> object:
    if isinstance(value, dict):
        return {key: _reordered(value[key], draw) for key in draw(st.permutations(list(value)))}
    return [_reordered(item, draw) for item in value] if isinstance(value, list) else value


def _read_again(content: bytes) -> object:
    try:
        return YAML(typ="safe", pure=True).load(content)
    except YAMLError:
        return None


@st.composite
def two_writings(draw: st.DrawFn) -> tuple[bytes, bytes]:
    value = draw(documents)
    other = _reordered(value, draw)
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = draw(st.booleans())
    stream = io.BytesIO()
    yaml.dump(other, stream)
    # The library writes some texts, such as ?0, so that it cannot read them itself.
    assume(_read_again(stream.getvalue()) == other)
    return json.dumps(value).encode(), b"# written twice\n" + stream.getvalue()


@given(two_writings())
def test_the_version_does_not_depend_on_how_content_is_written(writings: tuple[bytes, bytes]) -> None:
    one, other = writings
    assert (
        Bundle("flux.cwl", {"flux.cwl": TOOL, "p.yml": one}).version
        == Bundle("flux.cwl", {"flux.cwl": TOOL, "p.yml": other}).version
    )


@given(documents, documents)
def test_the_version_depends_on_the_content(one: dict[str, object], other: dict[str, object]) -> None:
    versions = {
        Bundle("flux.cwl", {"flux.cwl": TOOL, "p.json": json.dumps(value).encode()}).version for value in (one, other)
    }
    assert (len(versions) == 1) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


# --- names and sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "is absolute"),
        ("C:/x.py", "is absolute"),
        ("../x.py", "leads out of the workflow's folder"),
        ("a/../../x.py", "leads out of the workflow's folder"),
        ("a\0.py", "control character"),
        ("a\n.py", "control character"),
        ("a\\b.py", "backslash"),
        ("a//b.py", "empty or '.' folder"),
        ("./b.py", "empty or '.' folder"),
        ("a#b.py", "means something else"),
        ("\ud800.py", "no valid Unicode"),
        ("n" * 256, "too long"),
        ("", "no name"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, message: str) -> None:
    assert message in str(refusal({"flux.cwl": TOOL, name: b""}))


def test_a_file_cannot_be_a_folder_as_well() -> None:
    assert "'a' cannot be a file and, in 'a/b.py', a folder" in str(
        refusal({"flux.cwl": TOOL, "a": b"", "a/b.py": b""})
    )


def test_too_many_files_are_refused() -> None:
    files = {"flux.cwl": TOOL, **{f"{number}.txt": b"" for number in range(MAX_FILES)}}
    assert f"may have {MAX_FILES} files; these are {MAX_FILES + 1}" in str(refusal(files))


def test_too_many_bytes_are_refused() -> None:
    assert "16 MiB in all" in str(refusal({"flux.cwl": TOOL, "image.fits": bytes(MAX_BYTES)}))


def test_a_cwl_document_of_megabytes_is_refused() -> None:
    assert "A CWL document may have 1 MiB" in str(refusal({"flux.cwl": TOOL + b"#" * 2**20}))


def test_no_file_at_all_is_refused() -> None:
    assert str(refusal({})) == "No file was uploaded."


# --- broken documents --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"cwlVersion: v1.2\nlabel: a\nclass: Workflow\nlabel: b\n", 4, "The key 'label' stands twice"),
        (b'{"cwlVersion": "v1.2",\n"label": 1,\n"label": 2}', 3, "The key 'label' stands twice"),
        (b"cwlVersion: v1.2\nlabel: [a\nclass: b\n", 3, "not valid YAML"),
        (b"cwlVersion: v1.2\nlabel: a\n---\nlabel: b\n", 3, "several YAML documents"),
        (b"cwlVersion: v1.2\nlabel: &a [1, *a]\n", 2, "contain itself"),
        (b"cwlVersion: v1.2\nlabel: \xff\n", 2, "not UTF-8"),
        (b"cwlVersion: v1.2\n1: x\n", None, "The key 1 is not text"),
        (b"cwlVersion: v1.2\nx: .inf\n", None, "NaN or an infinity"),
        (b"cwlVersion: v1.2\nx: " + b"[" * 50_000, None, "nested too deeply"),
        (b"- cwlVersion\n", None, "a CWL document is a mapping"),
        (b"cwlVersion: v1.2\nx: !!python/object/apply:os.system [id]\n", 2, "not valid YAML"),
    ],
)
def test_a_broken_document_is_refused_with_its_line(content: bytes, line: int | None, message: str) -> None:
    error = refusal({"broken.cwl": content}, "broken.cwl")
    assert message in error.message
    assert (error.file, error.line) == ("broken.cwl", line)


@pytest.mark.parametrize("merge", [False, True])
def test_a_bomb_of_aliases_is_refused_at_once(merge: bool) -> None:
    lines = ["cwlVersion: v1.2", "a: &a {x: 1}" if merge else "a: &a [x, x, x, x, x, x, x, x, x]"]
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True):
        aliases = ", ".join([f"*{previous}"] * 9)
        lines.append(f"{name}: &{name} {{<<: [{aliases}]}}" if merge else f"{name}: &{name} [{aliases}]")
    content = "\n".join(lines).encode()
    assert "aliases would expand" in str(refusal({"bomb.cwl": content}, "bomb.cwl"))
    assert "aliases would expand" in str(refusal({"flux.cwl": TOOL, "bomb.yml": content}))


def test_a_few_aliases_are_welcome() -> None:
    with_aliases = TOOL + b"label: &l beam\ndoc: *l\n"
    without = TOOL + b"label: beam\ndoc: beam\n"
    assert Bundle("flux.cwl", {"flux.cwl": with_aliases}).version == Bundle("flux.cwl", {"flux.cwl": without}).version


# --- the main document -------------------------------------------------------------------------------------------------


def test_the_document_that_no_other_refers_to_is_the_main_one() -> None:
    assert Bundle.from_files({"tools/flux.cwl": TOOL, "a.cwl": WORKFLOW, "flux.py": b""}).main == "a.cwl"


def test_the_only_document_is_the_main_one() -> None:
    assert Bundle.from_files({"flux.cwl": TOOL, "data.yml": b"a: 1"}).main == "flux.cwl"


def test_the_main_document_can_be_named() -> None:
    bundle = Bundle.from_files({"tools/flux.cwl": TOOL, "a.cwl": WORKFLOW}, "tools/flux.cwl")
    assert (bundle.main, bundle.main_file, bundle.main_id) == ("tools/flux.cwl", "tools/flux.cwl", None)


def test_several_possible_main_documents_are_listed() -> None:
    error = refusal({"b.cwl": WORKFLOW, "a.cwl": WORKFLOW, "tools/flux.cwl": TOOL})
    assert error.message == "Several CWL documents may be the main one: a.cwl, b.cwl. Say which."


def test_documents_that_refer_to_each_other_need_a_named_main() -> None:
    files = {
        "a.cwl": b"cwlVersion: v1.2\nsteps: {s: {run: b.cwl}}\n",
        "b.cwl": b"cwlVersion: v1.2\nsteps: {s: {run: a.cwl}}\n",
    }
    assert "in a circle: a.cwl, b.cwl" in str(refusal(files))


def test_a_name_that_was_not_uploaded_is_refused() -> None:
    assert "'b.cwl' is not among the uploaded files (flux.cwl)" in str(refusal({"flux.cwl": TOOL}, "b.cwl"))


def test_files_without_a_cwl_document_are_refused() -> None:
    assert str(refusal({"flux.py": b""})) == "None of the uploaded files (flux.py) is a CWL document."
    assert "`cwlVersion` is missing" in str(refusal({"flux.cwl": b"class: CommandLineTool\n"}))


def test_the_main_process_of_a_packed_document_is_found() -> None:
    tool = {"class": "CommandLineTool", "id": "#flux"}
    workflow = {"class": "Workflow", "id": "#all", "steps": [{"run": "#flux"}]}
    assert Bundle.from_files({"p.cwl": graph(tool, workflow)}).main == "p.cwl#all"
    assert Bundle.from_files({"p.cwl": graph(tool, workflow)}, "p.cwl#flux").main_id == "flux"
    assert Bundle.from_files({"p.cwl": graph(tool, {"class": "Workflow", "id": "main"})}).main == "p.cwl#main"


def test_several_possible_main_processes_are_listed() -> None:
    tools = graph({"class": "CommandLineTool", "id": "a"}, {"class": "CommandLineTool", "id": "b"})
    assert "Several processes may be the main one: p.cwl#a, p.cwl#b. Say which." in str(refusal({"p.cwl": tools}))
    assert "There is no process with the id 'c'" in str(refusal({"p.cwl": tools}, "p.cwl#c"))
