"""Fetch a file from the web."""

import hashlib
import json
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path, PurePosixPath

_TEMPORARY = 75
_SERVER_ERROR = 500
_TOO_MANY_REQUESTS = 429
_PATIENCE_S = 60


def main() -> None:
    """Fetch the address given on the command line; where a digest is given, the file must have it."""
    url = sys.argv[1]
    wanted = sys.argv[2].lower() if len(sys.argv) > 2 else None  # noqa: PLR2004 - the second argument may be missing
    address = urllib.parse.urlsplit(url)
    if address.scheme not in {"http", "https"}:
        sys.exit(f"{url} is no address of the web: it has to begin with http:// or https://.")
    name = PurePosixPath(urllib.parse.unquote(address.path)).name or "download"
    folder = Path("downloaded")
    folder.mkdir()
    path = folder / name
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer, path.open("wb") as file:  # noqa: S310 - checked above
            shutil.copyfileobj(answer, file)
            media_type = answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        if error.code < _SERVER_ERROR and error.code != _TOO_MANY_REQUESTS:
            sys.exit(f"The server refused {url}: {error.code} {error.reason}.")
        sys.stderr.write(f"The server could not give {url}: {error.code} {error.reason}.\n")
        sys.exit(_TEMPORARY)
    except OSError as error:
        sys.stderr.write(f"The server of {url} does not answer: {error}.\n")
        sys.exit(_TEMPORARY)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if wanted is not None and found != wanted:
        sys.exit(f"The file at {url} is another one than wanted: its SHA-256 is {found}.")
    result = {
        "file": {"class": "File", "path": str(path)},
        "size": path.stat().st_size,
        "media_type": media_type,
    }
    Path("cwl.output.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
