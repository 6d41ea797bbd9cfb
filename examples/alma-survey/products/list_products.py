"""List the product directories under an archive."""

import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Run ``find`` over the archive given on the command line and write its product directories."""
    # The engine hands the archive over as a link: the paths that count are those behind it.
    archive = Path(sys.argv[1]).resolve()
    found = subprocess.run(
        ["find", str(archive), "-type", "d", "-name", "product", "-print0"], stdout=subprocess.PIPE, check=False
    )
    if found.returncode:
        sys.exit(f"find could not read all of {archive}")
    paths = sorted(path.decode() for path in found.stdout.split(b"\0") if path)
    if not paths:
        sys.exit(f"There is no directory named 'product' under {archive}.")
    Path("cwl.output.json").write_text(json.dumps({"product": paths}))


if __name__ == "__main__":
    main()
