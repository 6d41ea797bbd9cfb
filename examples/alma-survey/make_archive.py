"""Make a small archive of simulated ALMA continuum images, whose sources are known.

Run it as ``python make_archive.py DIRECTORY``. A second run over an intact archive changes nothing; a damaged or
missing file is made again. ``DIRECTORY/truth/`` holds what the archive was made from: ``sources.ecsv`` every simulated
source, ``files.ecsv`` what each file really is.

All images are simulated. Only the names and the positions of the targets are those of the sky.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["ArchiveError", "make_archive"]

MANIFEST = "manifest.json"


class ArchiveError(Exception):
    """The archive cannot be made or restored; the message says why."""


def _digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path in the directory."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def _read_manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        return {"seed": manifest["seed"], "observations": manifest["observations"], "files": dict(manifest["files"])}
    except FileNotFoundError:
        message = f"{directory} is not empty and holds no archive of this script; give another directory"
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{directory / MANIFEST} cannot be read ({error}); remove {directory} to have the archive made anew"
    raise ArchiveError(message)


def _damaged(directory: Path, expected: dict[str, str]) -> list[str]:
    """Name the files that are missing or not what they were."""

    def intact(name: str, digest: str) -> bool:
        try:
            return hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest
        except OSError:
            return False

    return [name for name, digest in expected.items() if not intact(name, digest)]


def make_archive(directory: Path, *, seed: int = 1, observations: int = 24) -> list[str]:
    """Make the archive, or restore what is missing or damaged in it.

    Parameters
    ----------
    directory
        Where the archive is to be. It appears there complete or not at all.
    seed
        What the sources, the noise and the identifiers follow from.
    observations
        How many product directories to make.

    Returns
    -------
    list of str
        The files that were written, by their paths in the archive; none where it was intact.

    Raises
    ------
    ArchiveError
        If the directory holds something else, or the archive cannot be restored.
    """
    directory = directory.absolute()
    present = directory.is_dir() and any(directory.iterdir())
    manifest: dict[str, Any] = {}
    damaged: list[str] = []
    if present:
        manifest = _read_manifest(directory)
        if (manifest["seed"], manifest["observations"]) != (seed, observations):
            message = (
                f"{directory} holds an archive of {manifest['observations']} observations with seed "
                f"{manifest['seed']}, not of {observations} with seed {seed}; give another directory"
            )
            raise ArchiveError(message)
        damaged = _damaged(directory, manifest["files"])
        if not damaged:
            return []
    # Loading the simulation takes seconds, and most starts find the archive as it should be.
    from simulation import write_archive  # noqa: PLC0415

    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as scratch:
        fresh = Path(scratch, "archive")
        fresh.mkdir()
        write_archive(fresh, seed=seed, observations=observations)
        digests = _digests(fresh)
        if not present:
            content = {"seed": seed, "observations": observations, "files": digests}
            (fresh / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")
            fresh.rename(directory)
            return list(digests)
        changed = [name for name in damaged if digests.get(name) != manifest["files"][name]]
        if changed:
            message = (
                f"{directory / changed[0]} is damaged and cannot be restored, because the archive was made by another "
                f"version of this script; remove {directory} to have the archive made anew"
            )
            raise ArchiveError(message)
        for name in damaged:
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).replace(target)
    return damaged


def main() -> None:
    """Read the command line and make the archive."""
    parser = argparse.ArgumentParser(description="Make a small archive of simulated ALMA continuum images.")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="where the archive is to be")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives another sky (default: %(default)s)")
    parser.add_argument(
        "--observations", type=int, default=24, help="number of product directories (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.observations < 1:
        parser.error("an archive holds at least one observation")
    existed = (arguments.directory / MANIFEST).exists()
    try:
        written = make_archive(arguments.directory, seed=arguments.seed, observations=arguments.observations)
    except (ArchiveError, OSError) as error:
        sys.exit(f"make_archive: {error}")
    if not written:
        print(f"{arguments.directory} is intact, nothing to do")
    elif existed:
        print(f"{arguments.directory}: restored {', '.join(written)}")
    else:
        print(f"{arguments.directory}: wrote {len(written)} files of {arguments.observations} observations")


if __name__ == "__main__":
    main()
