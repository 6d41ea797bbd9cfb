"""``stoa wtx``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stoa.errors import Refused
from stoa.output import client, emit, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["wtx"]

_NO_POSITION = 409
_PARTS = frozenset({"workflow.cwl", "template.yml", "table.txt", "tracking.txt", "links.txt"})


@click.group()
def wtx() -> None:
    """Import and export worktable files, the zip archives of Stoa's first version."""


@wtx.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--project", default="default", show_default=True, help="The project that the tables belong to.")
@click.option("--base", help="Folder or file:// URL against which relative names of files are read.")
@json_option
@client
def import_files(stoa: Stoa, files: tuple[Path, ...], *, project: str, base: str | None, as_json: bool) -> None:
    """Create the tables of FILES, .wtx and .service, with their links, rows and results: all of them, or none.

    Files of the archives that a table names are uploaded.
    """
    kept: dict[str, Any] = {}
    for path in files:
        if path.suffix == ".wtx":
            kept |= _upload_data(stoa, path)
    if base is not None and "://" not in base:
        base = Path(base).resolve().as_uri()
    form = {"project": project, "kept": json.dumps(kept), **({"base": base} if base is not None else {})}
    upload = [("files", (path.name, path.read_bytes())) for path in files]
    imported = stoa.request("POST", "/api/worktable-files", data=form, files=upload)
    if as_json:
        emit(imported)
        return
    for table in imported["tables"]:
        counts = ", ".join(f"{number} {status}" for status, number in table["counts"].items())
        click.echo(f"Created {table['name']} with {counts or 'no'} rows.")
        for note in table["notes"]:
            click.echo(f"Note: {note}", err=True)


def _upload_data(stoa: Stoa, path: Path) -> dict[str, Any]:
    """Upload the members of an archive that its table names, and give what they are called now."""
    import shutil
    import tempfile
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
            if "table.txt" not in names:
                return {}
            words = set(archive.read("table.txt").decode("utf-8", "replace").replace('"', " ").split())
            kept = {}
            for name in names:
                if name in words and name not in _PARTS:
                    # A name of its own in our folder, whatever the archive calls it.
                    target = Path(folder) / Path(name.replace("\\", "/")).name
                    with archive.open(name) as member, target.open("wb") as file:
                        shutil.copyfileobj(member, file)
                    kept[name] = stoa.upload(target)
            return kept
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise Refused(f"{path} cannot be read: {error}") from error


@wtx.command("export")
@click.argument("tables", nargs=-1, required=True)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Where the files are written; default: here.",
)
@json_option
@client
def export_files(stoa: Stoa, tables: tuple[str, ...], *, folder: Path, as_json: bool) -> None:
    """Write TABLES as worktable files, and a .service file for each that has columns with a position's UCDs.

    The files hold where data files are, not the files themselves.
    """
    from stoa.api import StoaError

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        name = stoa.table(table)["name"]
        contents = {f"{name}.wtx": stoa.download(f"/api/tables/{name}/worktable-file")}
        try:
            contents[f"{name}.service"] = stoa.download(f"/api/tables/{name}/service-file")
        except StoaError as error:
            if error.status != _NO_POSITION:
                raise
        for file, content in contents.items():
            path = folder / file
            if path.exists():
                raise Refused(f"{path} is there already")
            path.write_bytes(content)
            written.append(str(path))
    if as_json:
        emit({"files": written})
    else:
        click.echo(f"Wrote {', '.join(written)}.")
