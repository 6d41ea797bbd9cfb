"""The file store: concurrent writers, crashes in between, damage."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoa_executor.store import FileStore, FileTooLargeError, UnknownFileError


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def names_in(store: FileStore) -> set[str]:
    return {path.parent.name + path.name for path in (store.root / "sha256").glob("*/*")}


@given(contents=st.lists(st.binary(max_size=200), min_size=1, max_size=8), move=st.booleans())
@settings(max_examples=30)
def test_what_goes_in_comes_out_once(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], move: bool
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = FileStore(folder / "files")
    seen: set[str] = set()
    for number, content in enumerate(contents):
        source = folder / str(number)
        source.write_bytes(content)
        stored = store.put_path(source, move=move)
        assert (stored.digest, stored.size) == (sha256(content).hexdigest(), len(content))
        assert stored.new == (stored.digest not in seen)
        assert source.exists() != move
        seen.add(stored.digest)
    assert names_in(store) == seen
    for content in contents:
        digest = sha256(content).hexdigest()
        with store.open(digest) as file:
            assert file.read() == content
        assert store.verify(digest)
        assert store.digest_of(os.path.realpath(store.path(digest))) == digest
    assert not list((store.root / "tmp").iterdir())


_WRITER = """
import pathlib, sys
from stoa_executor.store import FileStore
root, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
store = FileStore(root / "files")
print("ready", flush=True)
sys.stdin.readline()
for turn in range(10_000 if seed < 0 else 40):
    content = (b"%d" % ((turn * 7 + seed) % 25)) * 20_000
    if turn % 2:
        source = root / f"{seed}.{turn}"
        source.write_bytes(content)
        stored = store.put_path(source)
    else:
        stored = store.put_bytes(content)
    with store.open(stored.digest) as file:
        assert file.read() == content
"""


def writers(folder: Path, seeds: list[int]) -> list[subprocess.Popen[str]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(folder), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in seeds
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return started


def close(process: subprocess.Popen[str]) -> int:
    code = process.wait(60)
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()
    return code


def test_several_processes_write_the_same_content(tmp_path: Path) -> None:
    assert [close(process) for process in writers(tmp_path, [1, 2, 3])] == [0, 0, 0]

    store = FileStore(tmp_path / "files")
    assert names_in(store) == {sha256((b"%d" % number) * 20_000).hexdigest() for number in range(25)}
    assert not list((store.root / "tmp").iterdir())


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.07])
def test_a_writer_that_is_killed_leaves_whole_files_or_none(tmp_path: Path, delay: float) -> None:
    (process,) = writers(tmp_path, [-1])
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()
    assert close(process) == -signal.SIGKILL

    store = FileStore(tmp_path / "files")
    assert all(store.verify(digest) for digest in names_in(store))
    store.sweep(older_than=-1)
    assert not list((store.root / "tmp").iterdir())


@pytest.mark.parametrize("step", ["link", "fsync", "fchmod"])
def test_a_failure_between_the_steps_leaves_no_name(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_arguments: object, **_options: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    source = tmp_path / "source"
    source.write_bytes(b"content")
    with monkeypatch.context() as broken:
        broken.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space left"):
            store.put_path(source)
        with pytest.raises(OSError, match="No space left"):
            store.put_bytes(b"content")
    assert names_in(store) == set()
    assert source.read_bytes() == b"content"
    assert not list((store.root / "tmp").iterdir())

    assert store.put_path(source).new


def test_without_hard_links_files_are_renamed(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> NoReturn:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    stored = store.put_bytes(b"content")

    assert store.verify(stored.digest)
    assert not list((store.root / "tmp").iterdir())


def test_content_is_on_disk_before_its_name(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def noted_fsync(handle: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def noted_link(*arguments: Any, **options: Any) -> None:
        done.append("name")
        link(*arguments, **options)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    store.put_bytes(b"content")
    assert done == ["file", "name", "directory"]
    done.clear()
    store.put_bytes(b"content")
    assert done == ["directory"]


def test_files_are_read_only_and_damage_is_found_and_mended(store: FileStore) -> None:
    digest = store.put_bytes(b"content").digest
    path = store.path(digest)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444

    path.chmod(0o644)
    path.write_bytes(b"CONTENT")
    assert not store.verify(digest)

    path.write_bytes(b"cut")
    assert store.put_bytes(b"content").new
    assert store.verify(digest)


async def test_streams_are_bounded(store: FileStore) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield b"x" * 10

    stored = await store.put_stream(chunks(), limit=30)
    assert (stored.digest, stored.size) == (sha256(b"x" * 30).hexdigest(), 30)
    with pytest.raises(FileTooLargeError, match="29 bytes"):
        await store.put_stream(chunks(), limit=29)
    assert not list((store.root / "tmp").iterdir())


def test_what_is_no_digest_never_becomes_a_path(store: FileStore, tmp_path: Path) -> None:
    for text in ("../../etc/passwd", "A" * 64, "", "a" * 63, "a" * 64 + "\n"):
        with pytest.raises(ValueError, match="is not a SHA-256 digest"):
            store.path(text)
    with pytest.raises(UnknownFileError, match="holds no file"):
        store.open("a" * 64)
    with pytest.raises(UnknownFileError, match="holds no file"):
        store.size("a" * 64)
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        store.put_path(tmp_path / "link")
    with pytest.raises(ValueError, match="not a regular file"):
        store.put_path(tmp_path)
    assert store.digest_of("/etc/hostname") is None
