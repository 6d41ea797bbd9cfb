"""The command answers at once: nothing heavy is imported for help and completion."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

STOA = str(Path(sys.executable).with_name("stoa"))

HEAVY = {"rich", "httpx", "httpx_sse", "pydantic", "ruamel", "fastapi", "sqlalchemy", "stoa_chassis", "stoa_contracts"}

LISTS_MODULES = """
import json, sys
from stoa.cli import root
try:
    root(json.loads(sys.argv[1]), prog_name="stoa")
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["table", "--help"], ["table", "show", "--help"], ["log", "--help"], ["up", "--help"], ["--version"]],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTS_MODULES, json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    assert not HEAVY.intersection(json.loads(done.stderr))


def completions(words: str) -> list[str]:
    environment = {**os.environ, "_STOA_COMPLETE": "bash_complete", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(words.count(" "))
    done = subprocess.run([STOA], env=environment, capture_output=True, text=True, check=True)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_words_are_completed() -> None:
    assert {"up", "table", "status", "log", "serve"} <= set(completions("stoa "))
    assert completions("stoa ta") == ["table"]
    assert {"ls", "show", "create", "add", "edit", "run", "watch", "import"} <= set(completions("stoa table "))
    assert "--filter" in completions("stoa table show --")


def test_help_and_completion_answer_within_150_ms() -> None:
    def seconds(environment: dict[str, str], *arguments: str) -> float:
        # Time on the processor, not on the clock: others may use this machine, too.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([STOA, *arguments], env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    completion = {"_STOA_COMPLETE": "bash_complete", "COMP_WORDS": "stoa table ", "COMP_CWORD": "2"}
    assert min(seconds({}, "--help") for _ in range(7)) < 0.15
    assert min(seconds(completion) for _ in range(7)) < 0.15


def test_every_command_has_a_short_help() -> None:
    from stoa.cli import root

    context = root.make_context("stoa", [], resilient_parsing=True)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str()
