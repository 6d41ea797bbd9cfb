"""Columns come from CWL, and what is wrong with it is said in sentences."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_tables.bundle import Bundle, InvalidWorkflowError
from stoa_tables.cwl import ProcessDescription, describe

VERSIONS = ("v1.0", "v1.1", "v1.2")


def described(main: str, **others: str) -> ProcessDescription:
    files = {"main.cwl": main, **{name.replace("__", "/").replace("_", "."): text for name, text in others.items()}}
    return describe(Bundle("main.cwl", {name: text.encode() for name, text in files.items()}))


def problems(main: str, **others: str) -> list[str]:
    with pytest.raises(InvalidWorkflowError) as caught:
        described(main, **others)
    for problem in caught.value.problems:
        assert "\x1b" not in problem.message
        assert "/bundle/" not in problem.message
        assert "object at 0x" not in problem.message
        assert problem.message.endswith((".", "?"))
    return [str(problem) for problem in caught.value.problems]


def tool(inputs: str = "{}", outputs: str = "{}", more: str = "", version: str = "v1.2") -> str:
    return f"cwlVersion: {version}\nclass: CommandLineTool\nbaseCommand: echo\ninputs: {inputs}\noutputs: {outputs}\n{more}\n"


def types(description: ProcessDescription) -> dict[str, Any]:
    return {column.name: column.type for column in description.columns}


# --- columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("null", "null"),
        ("boolean", "boolean"),
        ("int", "int"),
        ("long", "long"),
        ("float", "float"),
        ("double", "double"),
        ("string", "string"),
        ("File", "File"),
        ("Directory", "Directory"),
        ("Any", "Any"),
        ("int?", ["null", "int"]),
        ("string[]", {"type": "array", "items": "string"}),
        ("File[]?", ["null", {"type": "array", "items": "File"}]),
        (
            "{type: array, items: {type: array, items: int}}",
            {"type": "array", "items": {"type": "array", "items": "int"}},
        ),
        ("[int, 'null', string]", ["null", "int", "string"]),
        ("[int, int]", "int"),
        ("[int?, string?]", ["null", "int", "string"]),
        ("{type: enum, symbols: [u, g, x y]}", {"type": "enum", "symbols": ["u", "g", "x y"]}),
        ("{type: array, items: [int, string]}", {"type": "array", "items": ["int", "string"]}),
        (
            "{type: record, fields: {flux: double, band: {type: {type: enum, symbols: [g]}}, images: 'File[]?'}}",
            {
                "type": "record",
                "fields": [
                    {"name": "flux", "type": "double"},
                    {"name": "band", "type": {"type": "enum", "symbols": ["g"]}},
                    {"name": "images", "type": ["null", {"type": "array", "items": "File"}]},
                ],
            },
        ),
    ],
)
def test_every_type_has_its_normal_form(written: str, kind: Any, version: str) -> None:
    inputs = f"{{x: {{type: {json.dumps(written) if not written.startswith(('{', '[')) else written}}}}}"
    outputs = inputs.replace("x:", "y:", 1)
    assert types(described(tool(inputs, outputs, version=version))) == {"x": kind, "y": kind}


def test_the_streams_are_files() -> None:
    description = described(tool("{x: stdin}", "{y: stdout, z: {type: stderr}}"))
    assert types(description) == {"x": "File", "y": "File", "z": "File"}


def test_arrays_of_arrays_have_no_short_form() -> None:
    assert "The type 'int[][]' of `x` is not known" in problems(tool("{x: 'int[][]'}"))[0]


def test_inputs_come_first_in_the_order_of_the_document_with_their_words() -> None:
    description = described(
        """
cwlVersion: v1.2
class: CommandLineTool
label: Flux
doc: [Measures the flux., Badly.]
inputs:
  sigma: {type: float, label: Threshold, doc: in units of the noise, default: 5}
  image: File
outputs:
  b: {type: double, outputBinding: {outputEval: $(1.0)}}
  a: {type: stdout, doc: what it said}
baseCommand: echo
"""
    )
    assert [(column.role, column.name) for column in description.columns] == [
        ("input", "sigma"),
        ("input", "image"),
        ("output", "b"),
        ("output", "a"),
    ]
    sigma = description.columns[0]
    assert (sigma.label, sigma.description, sigma.default) == ("Threshold", "in units of the noise", 5.0)
    assert (description.label, description.doc) == ("Flux", "Measures the flux.\nBadly.")
    assert (description.process_class, description.cwl_version, description.main) == (
        "CommandLineTool",
        "v1.2",
        "main.cwl",
    )


def test_units_and_ucds_are_taken_from_extension_fields() -> None:
    more = "$namespaces: {votable: 'http://www.ivoa.net/xml/VOTable/v1.3#'}"
    description = described(
        tool("{ra: {type: double, votable:unit: deg, votable:ucd: pos.eq.ra;meta.main}}", more=more)
    )
    assert (description.columns[0].unit, description.columns[0].ucd, description.columns[0].utype) == (
        "deg",
        "pos.eq.ra;meta.main",
        None,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_named_types_are_resolved(version: str) -> None:
    more = """
requirements:
  SchemaDefRequirement:
    types:
      - $import: types/bands.yml
      - {name: source, type: record, fields: {flux: double, band: 'types/bands.yml#band'}}
"""
    band = {"type": "enum", "symbols": ["g", "r"]}
    description = described(
        tool("{b: 'types/bands.yml#band', s: source, l: 'source[]'}", more=more, version=version),
        types__bands_yml="name: band\ntype: enum\nsymbols: [g, r]\n",
    )
    source = {"type": "record", "fields": [{"name": "flux", "type": "double"}, {"name": "band", "type": band}]}
    assert types(description) == {"b": band, "s": source, "l": {"type": "array", "items": source}}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", ["location", "path"])
def test_a_script_of_the_bundle_may_be_a_default(version: str, key: str) -> None:
    description = described(
        tool(f"{{script: {{type: File, default: {{class: File, {key}: scripts/flux.py}}}}}}", version=version),
        scripts__flux_py="print(1)",
    )
    assert description.columns[0].default == {"class": "File", "location": "scripts/flux.py"}


def test_a_default_is_named_from_the_folder_of_the_bundle() -> None:
    files = {
        "cwl/main.cwl": tool(
            "{script: {type: File, default: {class: File, location: ../my scripts/flux.py}}}"
        ).encode(),
        "my scripts/flux.py": b"",
    }
    (column,) = describe(Bundle("cwl/main.cwl", files)).columns
    assert column.default == {"class": "File", "location": "my scripts/flux.py"}


def test_a_folder_of_the_bundle_and_a_file_of_the_archive_may_be_defaults() -> None:
    description = described(
        tool(
            "{a: {type: Directory, default: {class: Directory, location: data}},"
            " b: {type: File, default: {class: File, location: /archive/a b.fits}}}"
        ),
        data__x_txt="",
    )
    assert [column.default for column in description.columns] == [
        {"class": "Directory", "location": "data"},
        {"class": "File", "location": "file:///archive/a%20b.fits"},
    ]


def test_names_that_mean_something_elsewhere_may_name_inputs() -> None:
    assert list(types(described(tool("{class: File, path: string, run: string, location: string}")))) == [
        "class",
        "path",
        "run",
        "location",
    ]


# --- workflows ---------------------------------------------------------------------------------------------------------

WORKFLOW = """
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
inputs:
  images: File[]
  sigma: {type: float, default: 5}
outputs:
  fluxes: {type: "double[]", outputSource: measure/flux}
steps:
  measure:
    run: tools/flux.cwl
    scatter: image
    in: {image: images, sigma: sigma}
    out: [flux]
"""
FLUX = """
cwlVersion: v1.2
class: CommandLineTool
hints: {DockerRequirement: {dockerPull: "debian:12"}}
inputs: {image: File, sigma: float, name: string?}
outputs: {flux: {type: double, outputBinding: {outputEval: $(1.0)}}}
baseCommand: echo
"""


def test_a_workflow_is_described_with_what_it_runs() -> None:
    description = described(WORKFLOW, tools__flux_cwl=FLUX)
    assert description.process_class == "Workflow"
    assert types(description) == {
        "images": {"type": "array", "items": "File"},
        "sigma": "float",
        "fluxes": {"type": "array", "items": "double"},
    }
    assert description.requirements == ("DockerRequirement", "ScatterFeatureRequirement")
    assert description.containers == ("debian:12",)
    assert description.warnings == [
        "It runs in the container image debian:12: a container engine is needed where it runs."
    ]


def test_a_tool_takes_the_version_of_its_workflow() -> None:
    assert described(WORKFLOW, tools__flux_cwl=FLUX.replace("cwlVersion: v1.2", "")).process_class == "Workflow"


def test_a_packed_document_is_described_by_its_main_process() -> None:
    packed = {
        "cwlVersion": "v1.2",
        "$graph": [
            {
                "id": "#flux",
                "class": "CommandLineTool",
                "requirements": [
                    {
                        "class": "SchemaDefRequirement",
                        "types": [
                            {"name": "#t.yml/band", "id": "#t.yml", "type": "enum", "symbols": ["#t.yml/band/g"]}
                        ],
                    }
                ],
                "inputs": [{"id": "#flux/band", "type": "#t.yml/band"}],
                "outputs": [{"id": "#flux/out", "type": "stdout"}],
                "baseCommand": "echo",
            },
            {
                "id": "#main",
                "class": "Workflow",
                "requirements": [{"class": "SchemaDefRequirement", "types": [{"$import": "#t.yml"}]}],
                "inputs": [{"id": "#main/band", "type": "#t.yml/band", "label": "Sternwarte \U0001f52d"}],
                "outputs": [{"id": "#main/out", "type": "File", "outputSource": "#main/s/out"}],
                "steps": [
                    {
                        "id": "#main/s",
                        "run": "#flux",
                        "in": [{"id": "#main/s/band", "source": "#main/band"}],
                        "out": ["#main/s/out"],
                    }
                ],
            },
        ],
    }
    for padding in ("", " " * 30_000):
        files = {"packed.cwl": ("#!/usr/bin/env cwl-runner\n" + json.dumps(packed) + padding).encode()}
        description = describe(Bundle.from_files(files))
        assert description.main == "packed.cwl#main"
        assert types(description) == {"band": {"type": "enum", "symbols": ["g"]}, "out": "File"}
        assert description.columns[0].label == "Sternwarte \U0001f52d"
        assert list(types(describe(Bundle.from_files(files, "packed.cwl#flux")))) == ["band", "out"]


def test_an_expression_tool_is_described() -> None:
    description = described(
        """
cwlVersion: v1.2
class: ExpressionTool
requirements: {InlineJavascriptRequirement: {}}
hints: {WorkReuse: {enableReuse: false}, cwltool:Secrets: {secrets: []}}
$namespaces: {cwltool: "http://commonwl.org/cwltool#"}
inputs: {x: int}
outputs: {y: int}
expression: "${return {y: inputs.x + 1};}"
"""
    )
    assert description.process_class == "ExpressionTool"
    assert not description.work_reuse
    assert description.warnings[0] == "It evaluates expressions in JavaScript: Node.js is needed where it runs."
    assert "an extension of CWL" in description.warnings[1]


# --- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (tool("{x: itn}"), "main.cwl, line 4, column 10: The type 'itn' of `x` is not known; did you mean 'int'?"),
        (
            "cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {}\n",
            "main.cwl, line 1, column 1: The required field `outputs` is missing.",
        ),
        (
            tool(more="baseComand: x"),
            "main.cwl, line 6, column 1: There is no field `baseComand` here; did you mean 'baseCommand'?",
        ),
        (
            "cwlVersion: v1.2\nclass: Tol\ninputs: []\noutputs: []\n",
            "main.cwl, line 2, column 1: The class 'Tol' is not known",
        ),
        (tool("abc"), "main.cwl, line 4, column 1: In `inputs`: there is a text where a list is wanted."),
        (
            tool("{x: {type: int, inputBinding: {prefx: -x}}}"),
            "main.cwl, line 4, column 40: In `inputs` / `x` / `inputBinding`: there is no field `prefx` here; did you mean 'prefix'?",
        ),
        (tool("{x: {type: {type: enum}}}"), "In `inputs` / `x` / `type`: the required field `symbols` is missing."),
        (
            tool(more="requirements: {Docker: {}}"),
            "main.cwl, line 6, column 16: The requirement 'Docker' is not known here",
        ),
        (
            tool(more="requirements: [{class: cwltool:Loop}]"),
            "An extension that the process can do without may stand in `hints`.",
        ),
        (
            tool(more="requirements:"),
            "main.cwl, line 6, column 1: `requirements` is empty; leave it out, or fill it in.",
        ),
        (tool(more="hints: [{a: 1}]"), "main.cwl, line 6, column 1: An entry of `hints` has no class."),
        (tool("[{id: a, type: int}, {id: a, type: int}]"), "duplicate field 'a'"),
        (
            tool("{x: {type: int, default: a}}"),
            'line 4, column 10: The default of the input `x` does not fit its type: "a" is no whole number.',
        ),
        (tool("{x: int}", "{x: stdout}"), "`x` is the name of an input and an output; a table needs different names."),
        (tool(version="v1.3"), "main.cwl: The cwlVersion 'v1.3' is not known here; v1.0, v1.1, v1.2 are."),
        (tool(version="draft-3"), "The cwlVersion 'draft-3' is not known here"),
        (
            tool("{x: {type: File, default: {class: File, location: flux.py}}}"),
            "main.cwl, line 4, column 49: 'flux.py' is not among the uploaded files.",
        ),
        (
            tool("{x: {type: File, default: {class: File, location: ../../etc/passwd}}}"),
            "The location '../../etc/passwd' leads out of the workflow's folder.",
        ),
        (
            tool("{x: {type: File, default: {class: File, location: 'http://example.org/x'}}}"),
            "nothing is read from the network",
        ),
        (
            "cwlVersion: v1.2\nclass: Operation\ninputs: []\noutputs: []\n",
            "describes something abstract, which cannot be run.",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(main: str, said: str) -> None:
    assert said in problems(main)[0]


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = problems(
        tool("{x: {type: int, inputBinding: {prefx: -x}}, y: {type: int, deflt: 3}}", "{o: {type: File, globb: x}}")
    )
    assert [sentence.split("; did")[0].split(" here")[0].rpartition("no field ")[2] for sentence in said] == [
        "`prefx`",
        "`deflt`",
        "`globb`",
    ]


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (
            "http://example.org/tool.cwl",
            "'http://example.org/tool.cwl' is on the network, and nothing is read from there",
        ),
        ("https://example.org/tool.cwl#main", "is on the network"),
        ("file:///etc/passwd", "'file:///etc/passwd' is outside of the uploaded files"),
        ("/etc/passwd", "'/etc/passwd' is outside of the uploaded files"),
        ("../../../etc/passwd", "'../../../etc/passwd' is outside of the uploaded files"),
        ("missing.cwl", "'missing.cwl' is not among the uploaded files."),
    ],
)
def test_references_lead_nowhere_but_to_uploaded_files(reference: str, said: str) -> None:
    for main in (
        WORKFLOW.replace("tools/flux.cwl", reference),
        tool(more=f"requirements: {{SchemaDefRequirement: {{types: [{{$import: '{reference}'}}]}}}}"),
        tool(more=f"doc: {{$include: '{reference}'}}"),
    ):
        (sentence,) = problems(main, tools__flux_cwl=FLUX)
        assert said in sentence
        assert "line" in sentence


def test_an_absolute_base_does_not_open_the_disk() -> None:
    main = "$base: file:///etc/\n" + WORKFLOW.replace("tools/flux.cwl", "passwd")
    assert problems(main)


def test_schemas_on_the_network_are_not_fetched() -> None:
    more = "$schemas: ['http://127.0.0.1:1/edam.owl']\n$namespaces: {edam: 'http://edamontology.org/'}"
    description = described(tool("{x: {type: File, format: edam:format_1}}", more=more))
    assert types(description) == {"x": "File"}


def test_a_bomb_behind_an_import_is_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{previous}'] * 9)}]")
    main = tool(more="requirements: {SchemaDefRequirement: {types: [{$import: bomb.dat}]}}")
    assert "aliases would expand" in problems(main, bomb_dat="\n".join(lines))[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "sigma: sigma}",
            "sigma: sigam}",
            "The input `sigma` of the step `measure` comes from `sigam`, which is not there; did you mean 'sigma'?",
        ),
        (
            "measure/flux}",
            "measure/flx}",
            "The output `fluxes` comes from `measure/flx`, which is not there; did you mean 'measure/flux'?",
        ),
        (
            "out: [flux]",
            "out: [flux, error]",
            "The step `measure` names the output `error`, which what it runs does not have.",
        ),
        (
            "{image: images, sigma: sigma}",
            "{image: images}",
            "The step `measure` gives no value to the required input `sigma` of what it runs.",
        ),
        (
            "scatter: image",
            "scatter: picture",
            "The step `measure` scatters over `picture`, which is none of its inputs.",
        ),
        (
            "    scatter: image\n",
            "",
            "The input `image` of the step `measure` takes File, but comes from `images`, which gives array of File.",
        ),
        (
            '"double[]"',
            "double",
            "The output `fluxes` takes double, but comes from `measure/flux`, which gives array of double.",
        ),
        (
            "sigma: {type: float, default: 5}",
            "sigma: string",
            "takes float, but comes from `sigma`, which gives string.",
        ),
    ],
)
def test_wiring_that_cannot_work_is_refused(old: str, new: str, said: str) -> None:
    assert old in WORKFLOW
    sentences = problems(WORKFLOW.replace(old, new), tools__flux_cwl=FLUX)
    assert any(said in sentence and "main.cwl, line " in sentence for sentence in sentences), sentences


def test_steps_that_wait_for_each_other_are_refused() -> None:
    main = """
cwlVersion: v1.2
class: Workflow
inputs: []
outputs: []
steps:
  a: {run: t.cwl, in: {x: b/y}, out: [y]}
  b: {run: t.cwl, in: {x: a/y}, out: [y]}
"""
    assert (
        "The steps `a`, `b` wait for each other in a circle."
        in problems(main, t_cwl=tool("{x: File}", "{y: stdout}"))[0]
    )


def test_a_workflow_that_runs_itself_is_refused() -> None:
    main = (
        "cwlVersion: v1.2\nclass: Workflow\ninputs: []\noutputs: []\nsteps: {again: {run: main.cwl, in: [], out: []}}\n"
    )
    assert "The step `again` runs the workflow that it is part of." in problems(main)[0]


def test_a_type_that_contains_itself_is_refused() -> None:
    more = "requirements: {SchemaDefRequirement: {types: [{name: tree, type: record, fields: {left: tree}}]}}"
    assert "The type 'tree' of `x.left` contains itself." in problems(tool("{x: tree}", more=more))[0]


def test_a_problem_in_another_file_is_reported_there() -> None:
    sentences = problems(WORKFLOW, tools__flux_cwl=FLUX.replace("outputs:", "outputz:"))
    assert all(sentence.startswith("tools/flux.cwl, line ") for sentence in sentences)


# --- robustness --------------------------------------------------------------------------------------------------------


def test_describing_is_quick_once_the_parser_is_loaded() -> None:
    files = {"main.cwl": WORKFLOW.encode(), "tools/flux.cwl": FLUX.encode()}
    describe(Bundle("main.cwl", files))
    best = 10.0
    for number in range(3):
        fresh = {**files, "main.cwl": files["main.cwl"] + b"# %d\n" % number}
        start = time.perf_counter()
        describe(Bundle("main.cwl", fresh))
        best = min(best, time.perf_counter() - start)
    assert best < 0.3


@given(st.data())
def test_damaged_documents_are_described_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([WORKFLOW, FLUX]))
    lines = text.strip().split("\n")
    for _ in range(data.draw(st.integers(1, 2))):
        index = data.draw(st.integers(0, len(lines) - 1))
        lines[index] = data.draw(
            st.sampled_from(
                [lines[index][:-2], lines[index].replace(":", ": [", 1), lines[index] + " {a: [1]}", "x: 1", "", "- a"]
            )
        )
    files = {"main.cwl": "\n".join(lines).encode(), "tools/flux.cwl": FLUX.encode()}
    try:
        description = describe(Bundle("main.cwl", files))
    except InvalidWorkflowError as error:
        said = [str(problem) for problem in error.problems]
    else:
        said = [description.process_class]
    assert said
    assert all(said)


def test_the_parsers_own_examples_are_described_or_refused_for_a_reason() -> None:
    spec = importlib.util.find_spec("cwl_utils")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "testdata"
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix in (".cwl", ".yml", ".js", ".txt", ".py", ".json")
        and path.stat().st_size < 50_000
    }
    accepted = 0
    refused: list[str] = []
    for name in sorted(file for file in files if file.endswith(".cwl") and "/" not in file):
        try:
            describe(Bundle(name, files))
        except InvalidWorkflowError as error:
            refused.extend(problem.message for problem in error.problems)
        else:
            accepted += 1
    assert all(refused)
    assert accepted > 60
