"""Put a query in ADQL to a TAP service."""

import argparse
import json
import sys
import warnings
from pathlib import Path

import pyvo

_TEMPORARY = 75


def main() -> None:
    """Put the query given on the command line and write the answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", required=True)
    parser.add_argument("--query", required=True)
    parser.add_argument("--maxrec", type=int, required=True)
    asked = parser.parse_args()
    # What pyvo warns of stands in the answer's column "overflow".
    warnings.simplefilter("ignore", pyvo.dal.DALOverflowWarning)
    try:
        found = pyvo.dal.TAPService(asked.service).run_sync(asked.query, maxrec=asked.maxrec)
    except pyvo.dal.DALQueryError as error:
        sys.exit(f"The service refused the query: {error}")
    except pyvo.dal.DALServiceError as error:
        sys.stderr.write(f"The service does not answer: {error}\n")
        sys.exit(_TEMPORARY)
    found.to_table().write("table.vot", format="votable", overwrite=True)
    result = {
        "rows": len(found),
        "overflow": found.query_status == "OVERFLOW",
        "table": {"class": "File", "path": "table.vot"},
    }
    Path("cwl.output.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
