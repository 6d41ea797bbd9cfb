"""What kind of content a file's name promises, and whether a browser may show it in place."""

from __future__ import annotations

import mimetypes

__all__ = ["is_shown", "media_type"]

_TYPES = mimetypes.MimeTypes()
for _kind, _extensions in {
    "application/fits": (".fits", ".fit", ".fts"),
    "application/x-votable+xml": (".vot", ".votable"),
    "application/vnd.apache.parquet": (".parquet", ".pq"),
    "application/x-ndjson": (".jsonl", ".ndjson"),
    "text/csv": (".csv",),
    "text/tab-separated-values": (".tsv",),
    "text/x-yaml": (".cwl", ".yaml", ".yml"),
    "text/plain": (".log", ".cat", ".dat", ".reg", ".md", ".py", ".sh", ".cfg", ".ini"),
}.items():
    for _extension in _extensions:
        _TYPES.add_type(_kind, _extension)

#: Kinds that carry no program: everything else is offered as a download.
_SHOWN = {
    "application/json",
    "application/pdf",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/csv",
    "text/plain",
    "text/tab-separated-values",
    "text/x-yaml",
}


def media_type(name: str) -> str:
    """Say what kind of content a file name promises.

    Parameters
    ----------
    name
        The file's name.

    Returns
    -------
    str
        The media type; what nobody knows is a sequence of bytes, and a compressed file is what compressed it.
    """
    kind, encoding = _TYPES.guess_type(name)
    if encoding is not None:
        return {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}.get(
            encoding, "application/octet-stream"
        )
    return kind or "application/octet-stream"


def is_shown(kind: str) -> bool:
    """Tell whether a browser may show this kind in place.

    Parameters
    ----------
    kind
        A media type.

    Returns
    -------
    bool
        False for what could carry a program that would run with our address.
    """
    return kind in _SHOWN
