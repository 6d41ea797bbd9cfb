"""The Makefile says what a machine lacks, and keeps out of the way where nothing is lacking."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout as make sees it, without an environment."""
    checkout = tmp_path / "check out"
    for name in ("Makefile", "pyproject.toml", "requirements", "contracts", "services", "client"):
        source = ROOT / name
        if source.is_dir():
            for file in [*source.rglob("pyproject.toml"), *source.rglob("*.txt")]:
                target = checkout / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target)
        else:
            checkout.mkdir(exist_ok=True)
            shutil.copy2(source, checkout)
    return checkout


def _inherited() -> dict[str, str]:
    # These tests are themselves run by make, which would tell its own settings to the make under test.
    return {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "UV_", "XDG_"))}


def _make(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        env=_inherited() | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _set_up(checkout: Path) -> Path:
    """Pretend that everything is installed, and give the program that `make up` starts."""
    binaries = checkout / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "activate").write_text(f"VIRTUAL_ENV='{checkout}/.venv'\n")
    (binaries / "python").symlink_to("/bin/true")
    for stamp in (".uv", ".up", ".dev"):
        (checkout / ".venv" / stamp).touch()
    return binaries / "stoa"


def _program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_make_alone_explains_every_target(checkout: Path) -> None:
    run = _make(checkout)
    assert run.returncode == 0
    for target in ("up", "test", "lint", "bench", "schemas", "lock", "clean"):
        assert f"make {target} " in run.stdout
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (None, "Stoa needs Python 3.11 or newer, and there is no"),
        (
            "#!/bin/sh\n[ $1 = -V ] && echo Python 3.9.2 || exit 1\n",
            "Stoa needs Python 3.11 or newer, and %s is Python 3.9.2.",
        ),
        (
            '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n',
            "cannot make one. On Debian and Ubuntu: apt install python3-venv.",
        ),
    ],
    ids=["no Python", "old Python", "no venv"],
)
def test_what_is_missing_is_said(checkout: Path, tmp_path: Path, script: str | None, sentence: str) -> None:
    python = tmp_path / "python"
    if script:
        _program(python, script)
    run = _make(checkout, "up", f"PYTHON={python}")
    assert run.returncode != 0
    assert sentence.replace("%s", str(python)) in run.stderr
    assert not (checkout / ".venv").exists()


def test_up_passes_its_settings_and_installs_nothing_twice(checkout: Path) -> None:
    _program(_set_up(checkout), '#!/bin/sh\nprintf "<%s>" "$@"\n')
    run = _make(checkout, "up", "PORT=8601", "DATA=/data of mine")
    assert run.stdout == "<up><--port><8601><--host><127.0.0.1><--data></data of mine><--example><examples/alma-survey>"
    assert run.stderr == ""


def test_changed_locks_are_installed_with_the_larger_list_that_was_there(checkout: Path) -> None:
    _set_up(checkout)
    later = time.time() + 100
    os.utime(checkout / "requirements" / "up.txt", (later, later))
    shown = _make(checkout, "--dry-run", ".venv/.up")
    assert "requirements/dev.txt" in shown.stdout
    os.utime(checkout / "services" / "tables" / "pyproject.toml", (later, later))
    assert "pip install" in _make(checkout, "--dry-run", ".venv/.up").stdout


def test_a_moved_checkout_gets_a_new_environment(checkout: Path) -> None:
    _set_up(checkout)
    assert "venv --clear" not in _make(checkout, "--dry-run", "up").stdout
    moved = checkout.rename(checkout.with_name("moved"))
    assert "venv --clear" in _make(moved, "--dry-run", "up").stdout


@pytest.mark.parametrize("home", ["writable", "blocked", ""])
def test_the_cache_goes_where_it_can_be_written(checkout: Path, tmp_path: Path, home: str) -> None:
    (tmp_path / "writable").mkdir()
    (tmp_path / "blocked").touch()
    path = str(tmp_path / home) if home else ""
    _program(_set_up(checkout), '#!/bin/sh\necho "$UV_CACHE_DIR"\n')
    run = _make(checkout, "up", HOME=path)
    expected = f"{path}/.cache/uv" if home == "writable" else f"{checkout}/.venv/cache"
    assert run.stdout.strip() == expected


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_program_ends_itself_when_make_is_stopped(checkout: Path, sent: signal.Signals) -> None:
    _program(
        _set_up(checkout), "#!/bin/sh\ntrap 'echo stopped; exit 0' INT TERM\necho ready\nwhile :; do sleep 0.05; done\n"
    )
    with subprocess.Popen(
        ["make", "up"],
        cwd=checkout,
        env=_inherited(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as make:
        assert make.stdout is not None
        assert make.stderr is not None
        assert make.stdout.readline() == "ready\n"
        # A terminal tells Ctrl-C to the whole group; a service manager tells make alone.
        if sent == signal.SIGINT:
            os.killpg(make.pid, sent)
        else:
            make.send_signal(sent)
        assert make.stdout.readline() == "stopped\n"
        make.wait(10)
        if sent == signal.SIGINT:
            assert make.stderr.read() == ""
