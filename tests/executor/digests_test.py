"""Digests of files outside the store: what counts as content, and what is read again."""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoa_chassis.database import Database
from stoa_chassis.migrations import upgrade
from stoa_contracts.canonical import digest
from stoa_executor import digests
from stoa_executor.app import SERVICE
from stoa_executor.digests import ContentDigests, ContentUnstableError, InterruptedLookError

if TYPE_CHECKING:
    from collections.abc import Iterator


def hexdigest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Give an executor's database."""
    database = Database(f"sqlite:///{tmp_path / 'executor.sqlite'}")
    upgrade(database, SERVICE.migrations)
    yield database
    asyncio.run(database.aclose())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Give a folder from which jobs may read."""
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the files whose content is read, and let every file count as written long ago."""
    read: list[str] = []
    original = digests._hash

    def reading(file: Any, interrupted: Any) -> str:
        read.append(Path(f"/proc/self/fd/{file.fileno()}").readlink().name)
        return original(file, interrupted)

    monkeypatch.setattr(digests, "_hash", reading)
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    return read


def test_a_file_is_read_once_for_each_of_its_states(database: Database, archive: Path, reads: list[str]) -> None:
    file = archive / "a.fits"
    file.write_text("first")
    known = ContentDigests(database, [archive])
    held = known.look(str(file))
    assert (held.sha256, held.size) == (hexdigest("first"), 5)
    assert known.look(str(file)) == held
    assert reads == ["a.fits"]

    file.write_text("second")
    assert known.look(str(file)).sha256 == hexdigest("second")
    assert reads == ["a.fits", "a.fits"]


async def test_what_was_learned_outlives_the_process(database_url: str, archive: Path, reads: list[str]) -> None:
    database = Database(database_url)
    await asyncio.to_thread(upgrade, database, SERVICE.migrations)
    (archive / "sub").mkdir()
    for number in range(1200):
        (archive / "sub" / f"{number}").write_text(str(number))
    first = ContentDigests(database, [archive])
    held = first.look(str(archive / "sub"))
    await first.save()
    assert len(reads) == 1200

    reads.clear()
    second = ContentDigests(database, [archive])
    assert second.look(str(archive / "sub")) == held
    assert reads == []
    (archive / "sub" / "7").write_text("other")
    assert second.look(str(archive / "sub")).sha256 != held.sha256
    assert reads == ["7"]
    await second.save()
    assert ContentDigests(database, [archive]).look(str(archive / "sub")).sha256 != held.sha256
    assert reads == ["7"]
    await database.aclose()


def test_a_file_that_was_just_written_is_read_again(
    database: Database, archive: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED_NS", 3600 * 10**9)
    file = archive / "a.fits"
    file.write_text("first")
    known = ContentDigests(database, [archive])
    assert not known.look(str(file)).settled
    # The clock of a coarse file system would show the same times for this one.
    file.write_text("again")
    assert known.look(str(file)).sha256 == hexdigest("again")
    assert known.look(str(archive)).settled is False
    assert reads == ["a.fits", "a.fits", "a.fits"]


def test_a_directory_is_what_its_names_hold(database: Database, archive: Path) -> None:
    (archive / "x" / "sub").mkdir(parents=True)
    (archive / "x" / "a").write_text("A")
    (archive / "x" / "sub" / "b").write_text("B")
    held = ContentDigests(database, [archive]).look(str(archive / "x"))
    assert held.size is None
    assert held.sha256 == digest({"a": hexdigest("A"), "sub/": digest({"b": hexdigest("B")})})


Tree = dict[str, Any]
_trees: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "x", "y"]), max_size=2),
    lambda below: st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "x"]) | below, max_size=2),
    max_leaves=5,
)


def write(folder: Path, tree: Tree) -> None:
    folder.mkdir()
    for name, content in tree.items():
        if isinstance(content, dict):
            write(folder / name, content)
        else:
            (folder / name).write_text(content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=_trees, other=_trees)
def test_directories_have_one_digest_just_when_they_hold_the_same(
    database: Database, tmp_path_factory: pytest.TempPathFactory, one: Tree, other: Tree
) -> None:
    folder = tmp_path_factory.mktemp("trees")
    write(folder / "one", one)
    write(folder / "other", other)
    known = ContentDigests(database, [folder])
    same = known.look(str(folder / "one")).sha256 == known.look(str(folder / "other")).sha256
    assert same == (one == other)


def test_links_are_followed_only_below_the_roots(database: Database, tmp_path: Path, archive: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far").write_text("far")
    (archive / "common").mkdir()
    (archive / "common" / "flat").write_text("flat")
    product = archive / "product"
    product.mkdir()
    (product / "out").symlink_to(secret)
    (product / "outside").symlink_to(tmp_path / "elsewhere")
    (product / "in").symlink_to("../common/flat")
    (product / "folder").symlink_to("../common")
    (product / "gone").symlink_to("nothing")
    (product / "circle").symlink_to(".")
    known = ContentDigests(database, [archive])
    held = known.look(str(product)).sha256
    assert held == digest(
        {
            "out/@": digest(str(secret)),
            "outside/@": digest(str(tmp_path / "elsewhere")),
            "in": hexdigest("flat"),
            "folder/": digest({"flat": hexdigest("flat")}),
            "gone/@": digest("nothing"),
            "circle/@": digest("."),
        }
    )

    secret.write_text("2")
    (tmp_path / "elsewhere" / "far").write_text("other")
    assert known.look(str(product)).sha256 == held
    (archive / "common" / "flat").write_text("flatter")
    assert known.look(str(product)).sha256 != held


def test_links_in_circles_between_folders_come_to_an_end(database: Database, archive: Path) -> None:
    for name in ("a", "b", "c"):
        (archive / name).mkdir()
        for other in ("a", "b", "c"):
            (archive / name / f"to-{other}").symlink_to(archive / other)
    assert ContentDigests(database, [archive]).look(str(archive / "a")).sha256


def test_what_is_no_file_is_not_opened(database: Database, archive: Path) -> None:
    product = archive / "product"
    product.mkdir()
    os.mkfifo(product / "pipe")
    (product / os.fsdecode(b"na\xefve")).write_text("x")
    known = ContentDigests(database, [archive])
    assert known.look(str(product)).sha256 == digest({"pipe/!": digest("0o10000"), "na\\xefve": hexdigest("x")})
    with pytest.raises(PermissionError, match="neither a file nor a directory"):
        known.look(str(product / "pipe"))


def test_a_file_outside_the_roots_is_not_read(database: Database, tmp_path: Path, archive: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1")
    (archive / "link").symlink_to(secret)
    known = ContentDigests(database, [archive])
    with pytest.raises(PermissionError, match="leads outside"):
        known.look(str(archive / "link"))
    assert known.look(str(secret), inside_roots=False).sha256 == hexdigest("1")


def test_a_file_that_never_rests_is_said_to_be_written_to(
    database: Database, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = archive / "growing"
    file.write_text("x")
    original = digests._hash

    def growing(opened: Any, interrupted: Any) -> str:
        with file.open("a") as more:
            more.write("x")
        return original(opened, interrupted)

    monkeypatch.setattr(digests, "_hash", growing)
    known = ContentDigests(database, [archive])
    with pytest.raises(ContentUnstableError, match="being written to"):
        known.look(str(file))
    with pytest.raises(ContentUnstableError, match="being written to"):
        known.look(str(archive))


def test_a_look_ends_when_nobody_waits_for_it(database: Database, archive: Path) -> None:
    (archive / "large").write_bytes(bytes(3 << 20))
    with pytest.raises(InterruptedLookError):
        ContentDigests(database, [archive]).look(str(archive / "large"), interrupted=lambda: True)


def test_without_the_database_files_are_read(tmp_path: Path, archive: Path) -> None:
    (archive / "a").write_text("A")
    database = Database(f"sqlite:///{tmp_path / 'never-migrated.sqlite'}")
    assert ContentDigests(database, [archive]).look(str(archive / "a")).sha256 == hexdigest("A")
    asyncio.run(database.aclose())
