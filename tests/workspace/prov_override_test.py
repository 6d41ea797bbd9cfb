"""The lock gives cwltool a newer `prov` than it asks for; docs/decisions/0003 says why, and these tests say when not."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import cwltool

WORKFLOW = """
cwlVersion: v1.2
class: Workflow
inputs: {message: string}
outputs: {out: {type: File, outputSource: two/out}}
steps:
  one:
    run: {class: CommandLineTool, baseCommand: [echo], inputs: {message: {type: string, inputBinding: {}}}, outputs: {out: stdout}}
    in: {message: message}
    out: [out]
  two:
    run: {class: CommandLineTool, baseCommand: [cat], inputs: {f: {type: File, inputBinding: {}}}, outputs: {out: stdout}}
    in: {f: one/out}
    out: [out]
"""


def test_only_the_provenance_option_of_cwltool_uses_prov() -> None:
    root = Path(cwltool.__file__).parent
    found: dict[str, set[str]] = {}
    for path in root.rglob("*.py"):
        if "tests" in path.relative_to(root).parts:
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            if any(module.split(".")[0] == "prov" for module in modules):
                found.setdefault(str(path.relative_to(root)), set()).update(modules)
    assert found == {
        "cwlprov/provenance_constants.py": {"prov.identifier"},
        "cwlprov/provenance_profile.py": {"prov.identifier", "prov.model"},
        "cwlprov/ro.py": {"prov.model"},
        "job.py": {"prov.model"},
    }


def test_the_override_is_still_needed() -> None:
    assert "prov==1.5.1" in (requires("cwltool") or []), "cwltool no longer pins prov: take the override out"
    assert version("prov").startswith("3.")


def test_a_workflow_runs_with_the_newer_prov(tmp_path: Path) -> None:
    (tmp_path / "workflow.cwl").write_text(WORKFLOW)
    program = (
        "from cwltool.factory import Factory\n"
        "from cwltool.context import RuntimeContext\n"
        "context = RuntimeContext({'outdir': 'out', 'no_read_only': True})\n"
        "result = Factory(runtime_context=context).make('workflow.cwl')(message='hello')\n"
        "print(result['out']['checksum'], result['out']['size'])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    # The SHA-1 of "hello\n", which is what CWL asks for.
    assert run.stdout.split() == ["sha1$f572d396fae9206628714fb2ce00f72e94f2258f", "6"]
