"""The files of a workflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stoa.errors import Refused

__all__ = ["bundle", "referred_files"]

_DIRECTIVES = frozenset({"$import", "$include", "$mixin"})


def bundle(main: Path, files: Sequence[Path]) -> dict[str, bytes]:
    """Read the files of a workflow under their names relative to the folder of its main document.

    Parameters
    ----------
    main
        The CWL document.
    files
        What it refers to.

    Raises
    ------
    Refused
        If one cannot be read, or lies outside that folder.
    """
    folder = main.parent.resolve()
    found = {}
    for file in dict.fromkeys((main, *files)):
        try:
            found[str(file.resolve().relative_to(folder))] = file.read_bytes()
        except ValueError as error:
            raise Refused(f"{file} lies outside {folder}, the folder of the workflow's main document") from error
        except OSError as error:
            raise Refused(f"{file} cannot be read: {error.strerror}") from error
    return found


def referred_files(main: Path) -> list[Path]:
    """Find the files that a CWL document names, and those that they name, in its folder or below.

    Only plain references are seen: other documents, includes, and files in default values. What a tool opens by itself
    has to be named by hand.

    Raises
    ------
    Refused
        If a document cannot be read, or a file that it names is not there.
    """
    folder = main.parent.resolve()
    found: dict[Path, None] = {}
    waiting = [main.resolve()]
    while waiting:
        document = waiting.pop(0)
        for reference in _references(_load(document)):
            file = (document.parent / reference).resolve()
            if file in found or file == main.resolve() or not file.is_relative_to(folder):
                continue
            if file.is_dir():
                continue
            if not file.is_file():
                raise Refused(f"{document} refers to {reference}, and there is no such file")
            found[file] = None
            if file.suffix in {".cwl", ".yml", ".yaml", ".json"}:
                waiting.append(file)
    return list(found)


def _load(document: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(document.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{document} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except YAMLError as error:
        raise Refused(f"{document} is not YAML: {' '.join(str(error).split())}") from error


def _references(content: Any) -> Iterator[str]:
    if isinstance(content, list):
        for item in content:
            yield from _references(item)
    if not isinstance(content, dict):
        return
    # An input may be called run or path, too: the keys beside tell what a key means.
    naming = _DIRECTIVES
    if "in" in content and "out" in content:
        naming = naming | {"run"}
    if content.get("class") == "File":
        naming = naming | {"location", "path"}
    for key, value in content.items():
        if key in naming and isinstance(value, str) and _is_plain(value):
            yield value.partition("#")[0]
        else:
            yield from _references(value)


def _is_plain(reference: str) -> bool:
    return bool(reference.partition("#")[0]) and not any(mark in reference for mark in ("://", "$(", "${"))
