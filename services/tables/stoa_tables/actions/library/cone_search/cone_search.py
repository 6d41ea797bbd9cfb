"""Ask a simple cone search service for what lies around a position."""

import argparse
import json
import sys
from pathlib import Path

import pyvo

_TEMPORARY = 75


def main() -> None:
    """Ask the service given on the command line and write its answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", required=True)
    for name in ("ra", "dec", "radius"):
        parser.add_argument(f"--{name}", type=float, required=True)
    asked = parser.parse_args()
    try:
        found = pyvo.dal.SCSService(asked.service).search(pos=(asked.ra, asked.dec), radius=asked.radius)
    except pyvo.dal.DALQueryError as error:
        sys.exit(f"The service refused the search: {error}")
    except pyvo.dal.DALServiceError as error:
        sys.stderr.write(f"The service does not answer: {error}\n")
        sys.exit(_TEMPORARY)
    found.to_table().write("table.vot", format="votable", overwrite=True)
    result = {"matches": len(found), "table": {"class": "File", "path": "table.vot"}}
    Path("cwl.output.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
