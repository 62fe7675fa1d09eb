"""``python -m benchmarks``: measure, keep the results, and write the tables; see scripts/benchmarks."""

from __future__ import annotations

import argparse
import os
import time
from importlib import import_module
from typing import Any

from benchmarks import report
from benchmarks.common import Result, circumstances, say

NAMES = {1: "imports", 2: "waits", 3: "triggerer", 4: "starts", 5: "calls"}


def main() -> None:
    """Do what the command line asks for."""
    options = _options()
    for number in options.numbers or NAMES:
        if not options.table:
            _run(number, quick=options.quick)
    if not options.quick:
        report.write({number: _module(number) for number in NAMES})


def _run(number: int, *, quick: bool) -> None:
    module = _module(number)
    say(f"{number}. {module.TITLE}")
    facts, began = circumstances(), time.monotonic()
    result: Result = module.measure(quick=quick)
    result.facts = {
        **facts,
        "load_after": round(os.getloadavg()[0], 1),
        "seconds": round(time.monotonic() - began),
    }
    print(module.tables(result))
    if not quick:
        result.save()


def _module(number: int) -> Any:
    return import_module(f"benchmarks.{NAMES[number]}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/benchmarks", description=__doc__)
    parser.add_argument("numbers", metavar="NUMBER", type=int, nargs="*", choices=[[], *NAMES])
    parser.add_argument("--quick", action="store_true", help="small numbers; nothing is kept")
    parser.add_argument("--table", action="store_true", help="only write the tables anew")
    return parser.parse_args()


if __name__ == "__main__":
    main()
