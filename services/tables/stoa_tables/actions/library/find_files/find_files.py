"""Find files below a directory by their names."""

import json
import sys
from pathlib import Path


def main() -> None:
    """Look for files of the pattern given on the command line, in the order of their paths."""
    # The engine hands the directory over as a link: the paths that count are those behind it.
    directory, pattern = Path(sys.argv[1]).resolve(), sys.argv[2]
    try:
        files = sorted(path for path in directory.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        sys.exit(f"The pattern '{pattern}' cannot be used: {error}")
    result = {
        "path": [str(path) for path in files],
        "name": [path.name for path in files],
        "size": [path.stat().st_size for path in files],
    }
    Path("cwl.output.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
