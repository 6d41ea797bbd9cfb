"""Run the benchmarks: ``python -m benchmarks [--cases a,b]``; one JSON object a line."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import tempfile
import traceback
from pathlib import Path

from benchmarks import cases as case_modules
from benchmarks.harness import cases, machine, report


def main() -> int:
    """Measure the chosen cases and print their results."""
    for module in pkgutil.iter_modules(case_modules.__path__):
        importlib.import_module(f"{case_modules.__name__}.{module.name}")
    known = cases()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cases", default="", help=f"comma separated, of: {', '.join(known)}")
    chosen = [name for name in parser.parse_args().cases.split(",") if name] or list(known)
    if unknown := [name for name in chosen if name not in known]:
        sys.stderr.write(f"There is no case {', '.join(unknown)}; there are: {', '.join(known)}\n")
        return 2
    print(json.dumps(machine()), flush=True)
    failed = False
    for function in dict.fromkeys(known[name] for name in chosen):
        with tempfile.TemporaryDirectory(prefix="stoa-bench-") as folder:
            try:
                for result in function(Path(folder)):
                    if result.case in chosen:
                        report(result)
            except Exception:  # noqa: BLE001 - one failing case must not hide the others
                failed = True
                traceback.print_exc()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
