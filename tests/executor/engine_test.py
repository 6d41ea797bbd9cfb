"""The engine, with real cwltool and real tools."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from stoa_executor.domain import local_path
from tests.executor.conftest import Rig, none_lives, tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from stoa_executor.pool import EnginePool

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON_OUT = "import json, sys; json.dump(json.loads(sys.argv[1]), open('cwl.output.json', 'w'))"
"""A tool that gives back what it gets."""


def text_of(value: dict[str, Any]) -> str:
    path = local_path(value["location"])
    assert path is not None
    return Path(path).read_text()


def echo_tool(kind: Any) -> dict[str, Any]:
    """Make a tool that gives its one input back."""
    return tool(
        JSON_OUT,
        inputs={"x": kind},
        outputs={"x": kind},
        requirements={"InlineJavascriptRequirement": {}},
        arguments=[{"valueFrom": "$(JSON.stringify({x: inputs.x}))"}],
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ({"type": "boolean"}, True),
        ({"type": "int"}, -7),
        ({"type": "long"}, 4295806720 * 1000),
        ({"type": "float"}, 1.5),
        ({"type": "double"}, 83.633083333333333),
        ({"type": "string"}, "NGC 1068, Zürich\n'quoted'"),
        ({"type": "string?"}, None),
        ({"type": "double[]"}, [1.0, 2.25, -3e300]),
        ({"type": ["null", {"type": "array", "items": ["null", "int"]}]}, [1, None, 3]),
        ({"type": {"type": "enum", "symbols": ["clean", "pb"]}}, "pb"),
        (
            {"type": {"type": "record", "fields": {"ra": "double", "names": "string[]"}}},
            {"ra": 1.5, "names": ["a", "b"]},
        ),
        ({"type": {"type": "array", "items": {"type": "array", "items": "int"}}}, [[1, 2], [], [3]]),
        ({"type": "Any"}, {"free": ["form", 1, None]}),
    ],
)
async def test_every_type_goes_in_and_comes_out(rig: Rig, kind: Any, value: Any) -> None:
    result = await rig.run(echo_tool(kind), {"x": value})

    assert (result.outcome, result.error, result.outputs) == ("success", None, {"x": value})
    assert result.exit_code == 0


async def test_files_directories_and_secondary_files(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "m31.fits").write_text("pixels")
    (tmp_path / "m31.fits.idx").write_text("index")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("a")
    program = (
        "import os, shutil, sys; image, folder = sys.argv[1:]\n"
        "os.makedirs('product/deep'); shutil.copy(image, 'product/deep/copy.fits')\n"
        "open('product/listing', 'w').write(','.join(os.listdir(folder)))\n"
        "open('out.fits', 'w').write(open(image).read() + open(image + '.idx').read()); open('out.fits.idx', 'w').write('i')"
    )
    workflow = tool(
        program,
        inputs={
            "image": {"type": "File", "secondaryFiles": [".idx"], "inputBinding": {"position": 1}},
            "folder": {"type": "Directory", "inputBinding": {"position": 2}},
        },
        outputs={
            "image": {"type": "File", "secondaryFiles": [".idx"], "outputBinding": {"glob": "out.fits"}},
            "product": {"type": "Directory", "outputBinding": {"glob": "product"}},
            "same": {"type": "File", "outputBinding": {"outputEval": "$(inputs.image)"}},
        },
    )
    uri = (tmp_path / "m31.fits").as_uri()

    result = await rig.run(
        workflow,
        {
            "image": {
                "class": "File",
                "location": uri,
                "basename": "my image.fits",
                "secondaryFiles": [{"class": "File", "location": uri + ".idx", "basename": "my image.fits.idx"}],
            },
            "folder": {"class": "Directory", "location": (tmp_path / "sub").as_uri()},
        },
    )

    assert result.error is None
    outputs = result.outputs
    assert outputs is not None
    assert text_of(outputs["image"]) == "pixelsindex"
    assert text_of(outputs["image"]["secondaryFiles"][0]) == "i"
    assert local_path(outputs["same"]["location"]) == str(tmp_path / "m31.fits")
    product = Path(local_path(outputs["product"]["location"]) or "")
    assert (product / "listing").read_text() == "a.txt"
    assert (product / "deep" / "copy.fits").read_text() == "pixels"


async def test_captured_streams_have_lasting_names(rig: Rig) -> None:
    document = tool(
        "import sys; print('out'); print('err', file=sys.stderr)",
        outputs={"out": {"type": "stdout"}, "err": {"type": "stderr"}},
    )

    first = await rig.run(document)
    second = await rig.run(document)

    for result in (first, second):
        assert result.outputs is not None
        assert {name: (value["basename"], text_of(value)) for name, value in result.outputs.items()} == {
            "out": ("stdout.txt", "out\n"),
            "err": ("stderr.txt", "err\n"),
        }


async def test_a_workflow_with_steps_scatter_and_expressions(rig: Rig) -> None:
    double = tool(
        "import sys; print(2 * int(sys.argv[1]))",
        {"n": {"type": "int", "inputBinding": {}}},
        {"out": {"type": "stdout"}},
    )
    read = {
        "class": "ExpressionTool",
        "requirements": {"InlineJavascriptRequirement": {}},
        "inputs": {"file": {"type": "File", "loadContents": True}},
        "outputs": {"n": "int"},
        "expression": "${return {n: parseInt(inputs.file.contents)}}",
    }
    workflow = {
        "class": "Workflow",
        "requirements": {"ScatterFeatureRequirement": {}},
        "inputs": {"numbers": "int[]"},
        "outputs": {"doubled": {"type": "int[]", "outputSource": "read/n"}},
        "steps": {
            "double": {"run": double, "scatter": "n", "in": {"n": "numbers"}, "out": ["out"]},
            "read": {"run": read, "scatter": "file", "in": {"file": "double/out"}, "out": ["n"]},
        },
    }

    result = await rig.run(workflow, {"numbers": [1, 2, 30]})

    assert result.error is None
    assert result.outputs == {"doubled": [2, 4, 60]}


async def test_a_process_of_a_packed_document_is_chosen(rig: Rig) -> None:
    graph = {
        "cwlVersion": "v1.2",
        "$graph": [
            tool(["echo", "one"], outputs={"out": {"type": "stdout"}}) | {"id": "one"},
            tool(["echo", "two"], outputs={"out": {"type": "stdout"}}) | {"id": "two"},
        ],
    }
    result = await rig.run(rig.workflow(json.dumps(graph)), process="two")

    assert result.outputs is not None
    assert text_of(result.outputs["out"]) == "two\n"


FAILURES: list[tuple[str, dict[str, Any], dict[str, Any], str, str, int | None]] = [
    (
        "what the tool says last",
        tool("import sys; print('reading', file=sys.stderr); sys.exit('No primary beam image in product 12.')"),
        {},
        "permanentFail",
        "No primary beam image in product 12.",
        1,
    ),
    ("the exception of a Python tool", tool("raise KeyError('CRVAL1')"), {}, "permanentFail", "KeyError: 'CRVAL1'", 1),
    (
        "a silent tool",
        tool(["sh", "-c", "exit 3"]),
        {},
        "permanentFail",
        "The tool ended with exit status 3 and left no message.",
        3,
    ),
    (
        "a tool ended by a signal",
        tool("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"),
        {},
        "permanentFail",
        "The tool was ended by signal 11 (SIGSEGV).",
        -11,
    ),
    (
        "a tool that was killed from outside",
        tool("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        {},
        "temporaryFail",
        "The tool was ended by signal 9 (SIGKILL).",
        -9,
    ),
    (
        "a temporary failure",
        tool(
            "import sys; sys.exit('no licence') if 0 else (print('busy', file=sys.stderr), sys.exit(75))",
            temporaryFailCodes=[75],
            outputs={"image": {"type": "File", "outputBinding": {"glob": "*.fits"}}},
        ),
        {},
        "temporaryFail",
        "busy",
        75,
    ),
    (
        "a missing program",
        tool(["no-such-finder", "-x"]),
        {},
        "permanentFail",
        "The program 'no-such-finder' was not found.",
        None,
    ),
    (
        "a missing output",
        tool(["true"], outputs={"image": {"type": "File", "outputBinding": {"glob": "*.fits"}}}),
        {},
        "permanentFail",
        "Output 'image': Did not find output file with glob pattern: ['*.fits'].",
        0,
    ),
    (
        "a missing input",
        tool(["true"], {"n": {"type": "int"}}),
        {},
        "permanentFail",
        "Missing required input parameter 'n' (main.cwl, line 1).",
        None,
    ),
    (
        "a wrong type",
        tool(["true"], {"n": {"type": "int"}}),
        {"n": "seven"},
        "permanentFail",
        "'n' field is not valid",
        None,
    ),
    (
        "a container",
        tool(["true"], requirements={"DockerRequirement": {"dockerPull": "debian:12"}}),
        {},
        "permanentFail",
        "The tool requires a container (debian:12), and this executor has no container engine configured.",
        None,
    ),
    (
        "a time limit",
        tool(["sleep", "30"], requirements={"ToolTimeLimit": {"timelimit": 1}}),
        {},
        "permanentFail",
        "The tool ran longer than its time limit of 1 seconds.",
        -15,
    ),
    (
        "an infinity",
        tool(["sh", "-c", "echo '{\"x\": Infinity}' > cwl.output.json"], outputs={"x": "double"}),
        {},
        "permanentFail",
        "Output 'x' holds an infinite number, which a table cannot carry.",
        0,
    ),
    (
        "a truth value for a number",
        tool(["sh", "-c", "echo '{\"x\": true}' > cwl.output.json"], outputs={"x": "int"}),
        {},
        "permanentFail",
        "Output 'x' is a truth value where its type wants a number.",
        0,
    ),
    (
        "a truth value for an input number",
        tool(["true"], {"n": {"type": "int"}}),
        {"n": True},
        "permanentFail",
        "Input 'n' is a truth value where its type wants a number.",
        None,
    ),
    (
        "requirements in a row",
        tool(["true"]),
        {"cwl:requirements": [{"class": "EnvVarRequirement", "envDef": {"X": "1"}}]},
        "permanentFail",
        "The input object holds 'cwl:requirements'; requirements and overrides belong in the workflow, not in a row.",
        None,
    ),
    (
        "requirements in a row, in full",
        tool(["true"]),
        {"https://w3id.org/cwl/cwl#requirements": [{"class": "EnvVarRequirement", "envDef": {"X": "1"}}]},
        "permanentFail",
        "belong in the workflow, not in a row",
        None,
    ),
    ("an unknown input", tool(["true"]), {"colour": 1}, "permanentFail", "The workflow has no input 'colour'.", None),
    (
        "a document outside the workflow",
        {
            "class": "Workflow",
            "inputs": {},
            "outputs": {},
            "steps": {"a": {"run": "../../outside.cwl", "in": {}, "out": []}},
        },
        {},
        "permanentFail",
        "The workflow refers to outside.cwl outside its own files",
        None,
    ),
    (
        "a document in the network",
        {
            "class": "Workflow",
            "inputs": {},
            "outputs": {},
            "steps": {"a": {"run": "https://example.org/tool.cwl", "in": {}, "out": []}},
        },
        {},
        "permanentFail",
        "https://example.org/tool.cwl",
        None,
    ),
    (
        "a failing step",
        {
            "class": "Workflow",
            "inputs": {},
            "outputs": {},
            "steps": {"find": {"run": tool("import sys; sys.exit('no sources found')"), "in": {}, "out": []}},
        },
        {},
        "permanentFail",
        "Step 'find': no sources found",
        1,
    ),
    ("no CWL at all", {"class": "Nonsense"}, {}, "permanentFail", "Nonsense", None),
]


@pytest.mark.parametrize(
    ("document", "inputs", "outcome", "sentence", "exit_code"),
    [case[1:] for case in FAILURES],
    ids=[case[0] for case in FAILURES],
)
async def test_a_failure_is_a_plain_sentence(
    rig: Rig, document: dict[str, Any], inputs: dict[str, Any], outcome: str, sentence: str, exit_code: int | None
) -> None:
    result = await rig.run(document, inputs)

    assert result.error is not None
    assert sentence in result.error
    assert "\n" not in result.error
    assert str(rig.directory) not in result.error
    assert (result.outcome, result.exit_code, result.outputs) == (outcome, exit_code, None)


async def test_a_step_that_captures_its_error_stream_still_says_why(rig: Rig) -> None:
    result = await rig.run(tool("import sys; sys.exit('header is empty')", stderr="errors.txt"))

    assert result.error == "header is empty"


async def test_not_a_number_becomes_null(rig: Rig) -> None:
    result = await rig.run(
        tool(
            ["sh", "-c", 'echo \'{"x": NaN, "a": [1.5, NaN]}\' > cwl.output.json'],
            outputs={"x": "double", "a": {"type": "double[]"}},
        )
    )

    assert result.outputs == {"x": None, "a": [1.5, None]}


async def test_a_hint_for_a_container_is_ignored(rig: Rig) -> None:
    result = await rig.run(tool(["true"], hints={"DockerRequirement": {"dockerPull": "debian:12"}}))

    assert result.outcome == "success"


async def test_neither_tools_nor_expressions_see_a_secret(rig: Rig) -> None:
    document = tool(
        "import json, os, sys\n"
        "parent = open(f'/proc/{os.getppid()}/environ').read()\n"
        "json.dump({'own': sorted(os.environ), 'engine': parent, 'script': sys.argv[1]}, open('cwl.output.json', 'w'))",
        outputs={"own": {"type": "string[]"}, "engine": "string", "script": "string"},
        requirements={"InlineJavascriptRequirement": {}},
        arguments=["${return JSON.stringify(globalThis.constructor.constructor('return process')().env)}"],
    )

    result = await rig.run(document)

    assert result.error is None
    assert result.outputs is not None
    assert "very-secret" not in json.dumps(result.outputs)
    assert set(result.outputs["own"]) - {"LC_CTYPE"} == {"HOME", "LANG", "PATH", "TMPDIR"}
    seen = dict(item.split("=", 1) for item in result.outputs["engine"].strip("\0").split("\0"))
    assert set(seen) == {"HOME", "LANG", "PATH", "TMPDIR"}


async def test_one_row_leaves_nothing_for_the_next(rig: Rig) -> None:
    document = echo_tool({"type": "string?"})
    document["inputs"]["x"] = {"type": "string?", "default": "nothing"}
    workflow = rig.workflow(document)
    for value in ("a", "b"):
        assert (await rig.run(workflow, {"x": value})).outputs == {"x": value}
    refused = await rig.run(
        workflow, {"x": "c", "cwl:requirements": [{"class": "EnvVarRequirement", "envDef": {"Q": "1"}}]}
    )
    assert refused.outcome == "permanentFail"

    assert (await rig.run(workflow, {})).outputs == {"x": "nothing"}
    assert len(set(rig.pool.engine_ids)) == 1


async def test_what_a_tool_leaves_running_is_ended_with_the_job(rig: Rig) -> None:
    program = (
        "import subprocess, json\n"
        "p = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "json.dump({'pid': p.pid}, open('cwl.output.json', 'w'))"
    )
    result = await rig.run(tool(program, outputs={"pid": "int"}))

    assert result.outputs is not None
    assert not psutil.pid_exists(result.outputs["pid"])
    assert "ended 1 processes" in rig.log()


async def test_usage_counts_processor_time_and_memory_of_the_tool(rig: Rig) -> None:
    program = (
        "import json, resource, time\n"
        "block = bytearray(300_000_000)\n"
        "end = time.process_time() + 0.3\n"
        "while time.process_time() < end: pass\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "json.dump({'peak': peak}, open('cwl.output.json', 'w'))"
    )
    result = await rig.run(tool(program, outputs={"peak": "long"}))

    assert 0.25 < result.cpu_s < 3
    assert result.wall_s >= 0.3
    # Also of a tool that is smaller than its engine once was, where the kernel cannot tell one from the other.
    assert result.outputs is not None
    own = result.outputs["peak"]
    assert own > 150_000_000
    assert 0.95 * own < result.max_rss_bytes < 1.05 * own + 20_000_000
    assert result.finished >= result.started


async def test_memory_of_a_small_tool_is_its_own_and_not_that_of_the_engine(rig: Rig) -> None:
    result = await rig.run(tool(["sleep", "0.1"]))

    assert 0 < result.max_rss_bytes < 20_000_000


@pytest.fixture
def tree() -> dict[str, Any]:
    """Give a tool with a child, a grandchild, and one that left its session."""
    program = (
        "import os, subprocess, sys, time\n"
        "pids = [os.getpid()]\n"
        "pids.append(subprocess.Popen(['sh', '-c', 'sleep 600 & echo $! > grandchild; wait']).pid)\n"
        "pids.append(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)\n"
        "while not os.path.exists('grandchild') or not open('grandchild').read().strip(): time.sleep(0.01)\n"
        "pids.append(int(open('grandchild').read()))\n"
        "print('pids', *pids, file=sys.stderr, flush=True)\n"
        "time.sleep(600)"
    )
    return tool(program)


async def started_tree(rig: Rig, document: dict[str, Any]) -> tuple[asyncio.Task[Any], list[int]]:
    """Start the tree, and wait for its process ids in the live log."""
    words: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
    said = b""

    def on_log(_offset: int, chunk: bytes) -> None:
        nonlocal said
        said += chunk
        if b"\n" in said and not words.done():
            words.set_result([int(word) for word in said.split()[1:5]])

    task = asyncio.create_task(rig.pool.run(rig.request(document), on_log))
    return task, await asyncio.wait_for(words, 20)


async def test_cancel_ends_the_whole_tree_and_the_next_job_runs(rig: Rig, tree: dict[str, Any]) -> None:
    task, pids = await started_tree(rig, tree)
    assert len(pids) == 4

    assert rig.pool.cancel(rig.requests[-1].job)
    result = await asyncio.wait_for(task, 10)

    assert (result.outcome, result.error) == ("cancelled", "The job was cancelled.")
    assert none_lives(pids)
    assert not rig.pool.cancel(rig.requests[-1].job)
    assert (await rig.run(tool(["true"]))).outcome == "success"


async def test_a_job_beyond_its_limit_is_ended(rig: Rig, tree: dict[str, Any]) -> None:
    result = await asyncio.wait_for(rig.run(tree, time_limit=0.5), 10)

    assert (result.outcome, result.error) == ("permanentFail", "The job ran longer than the limit of 0.5 seconds.")


async def test_a_crash_of_the_engine_is_a_temporary_failure(rig: Rig, tree: dict[str, Any]) -> None:
    task, pids = await started_tree(rig, tree)
    os.kill(rig.pool.engine_ids[0], signal.SIGKILL)
    result = await asyncio.wait_for(task, 10)

    assert (result.outcome, result.error) == (
        "temporaryFail",
        "The engine process ended by signal 9 while it ran the job.",
    )
    assert none_lives(pids)
    assert (await rig.run(tool(["true"]))).outcome == "success"


async def test_an_idle_engine_that_dies_is_replaced(rig: Rig) -> None:
    before = rig.pool.engine_ids
    os.kill(before[0], signal.SIGKILL)

    assert (await rig.run(tool(["true"]))).outcome == "success"
    assert rig.pool.engine_ids != before


async def test_engines_are_recycled(make_pool: Callable[..., EnginePool], tmp_path: Path) -> None:
    pool = make_pool(recycle_jobs=2)
    await pool.start()
    rig = Rig(pool, tmp_path)
    seen = []
    for _ in range(5):
        assert (await rig.run(tool(["true"]))).outcome == "success"
        seen.append(pool.engine_ids[0] if pool.engine_ids else 0)
    await pool.stop(1)

    assert len(set(seen)) >= 3
    assert all(not psutil.pid_exists(pid) for pid in seen)


async def test_large_engines_are_recycled(make_pool: Callable[..., EnginePool], tmp_path: Path) -> None:
    pool = make_pool(recycle_bytes=1)
    await pool.start()
    before = pool.engine_ids
    rig = Rig(pool, tmp_path)
    assert (await rig.run(tool(["true"]))).outcome == "success"
    assert (await rig.run(tool(["true"]))).outcome == "success"
    assert pool.engine_ids != before
    await pool.stop(1)


async def test_outputs_beyond_the_limit_are_refused(make_pool: Callable[..., EnginePool], tmp_path: Path) -> None:
    pool = make_pool(message_limit=10_000)
    await pool.start()
    rig = Rig(pool, tmp_path)
    program = "import json; json.dump({'x': ['y' * 100] * 1000}, open('cwl.output.json', 'w'))"

    result = await rig.run(tool(program, outputs={"x": {"type": "string[]"}}))

    assert result.outcome == "permanentFail"
    assert result.error == "The outputs of the job are larger than 10000 bytes as JSON."
    assert (await rig.run(tool(["true"]))).outcome == "success"
    await pool.stop(1)


async def test_stop_lets_jobs_end_in_time_and_ends_the_others(
    make_pool: Callable[..., EnginePool], tmp_path: Path
) -> None:
    pool = make_pool(workers=2)
    await pool.start()
    rig = Rig(pool, tmp_path)
    short = asyncio.create_task(rig.run(tool(["sleep", "0.5"])))
    long = asyncio.create_task(rig.run(tool(["sleep", "600"])))
    waiting = asyncio.create_task(rig.run(tool(["true"])))
    await asyncio.sleep(0.2)
    pids = pool.engine_ids

    await asyncio.wait_for(pool.stop(1.5), 10)

    assert (await short).outcome == "success"
    assert ((await long).outcome, (await long).error) == ("stopped", "The executor was stopped before the job ended.")
    assert (await waiting).outcome == "stopped"
    assert none_lives(pids)


async def test_jobs_run_at_the_same_time(make_pool: Callable[..., EnginePool], tmp_path: Path) -> None:
    pool = make_pool(workers=2)
    await pool.start()
    rig = Rig(pool, tmp_path)
    here = tmp_path / "meet"
    here.mkdir()
    program = (
        "import os, sys, time; here, me, other = sys.argv[1:]\n"
        "open(os.path.join(here, me), 'w').close()\n"
        "while not os.path.exists(os.path.join(here, other)): time.sleep(0.01)"
    )
    document = tool(
        program, {name: {"type": "string", "inputBinding": {"position": n}} for n, name in enumerate("abc")}
    )

    async with asyncio.timeout(20):
        results = await asyncio.gather(
            rig.run(document, {"a": str(here), "b": "one", "c": "two"}),
            rig.run(document, {"a": str(here), "b": "two", "c": "one"}),
        )
    await pool.stop(1)

    assert [result.outcome for result in results] == ["success", "success"]


async def test_an_engine_that_cannot_start_is_tried_again(
    make_pool: Callable[..., EnginePool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("sys.executable", "/bin/false")
        pool = make_pool()
        await pool.start()
        assert "status 1" in (pool.failure or "")
    rig = Rig(pool, tmp_path)
    result = await asyncio.wait_for(rig.run(tool(["true"])), 20)
    assert result.outcome == "success"
    assert not pool.failure
    await pool.stop(1)


async def test_the_engine_ends_with_the_agent(tmp_path: Path) -> None:
    """Kill an agent in the middle of a job: nothing of what it started stays behind."""
    program = (
        "import asyncio, pathlib, sys\n"
        "from stoa_executor.pool import EnginePool, EngineRequest\n"
        "async def main():\n"
        "    root = pathlib.Path(sys.argv[1])\n"
        "    pool = EnginePool(workers=1, directory=root / 'engines')\n"
        "    await pool.start()\n"
        "    def told(offset, chunk): print(chunk.decode().strip(), *pool.engine_ids, flush=True)\n"
        "    await pool.run(EngineRequest(job='j', workflow=root, main='main.cwl', inputs={}, directory=root / 'j'), told)\n"
        "asyncio.run(main())"
    )
    script = "sleep 600 & setsid sleep 600 & echo $$ $! >&2; wait"
    (tmp_path / "main.cwl").write_text(json.dumps({"cwlVersion": "v1.2"} | tool(["sh", "-c", script])))
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path), stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert agent.stdout is not None
    line = await asyncio.wait_for(agent.stdout.readline(), 30)
    pids = [int(word) for word in line.split()]
    assert len(pids) == 3

    agent.kill()
    await agent.wait()

    async with asyncio.timeout(5):
        while not none_lives(pids):
            await asyncio.sleep(0.05)
