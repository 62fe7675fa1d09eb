"""Run benchmarks, save the results, and write tables and plots; see benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import time
from importlib import import_module
from typing import Any

from benchmarks import plots, report
from benchmarks.common import Result, environment_facts, log, prepare_airflow

NAMES = (
    "imports",
    "waits",
    "slow",
    "delays",
    "scale",
    "week",
    "live",
    "triggerer",
    "tasks",
    "without_workers",
    "connections",
    "starts",
    "calls",
    "bounds",
)


def main() -> None:
    """Run the benchmarks that the command line names."""
    options = _options()
    prepare_airflow()
    for name in options.names or NAMES:
        if not options.table:
            run(name, quick=options.quick)
    if not options.quick:
        report.write({name: _module(name) for name in NAMES})
        plots.draw()


def run(name: str, *, quick: bool) -> None:
    """Run one benchmark."""
    module = _module(name)
    log(f"{name}: {module.TITLE}")
    facts, began = environment_facts(), time.monotonic()
    result: Result = module.measure(quick=quick)
    result.facts = {
        **facts,
        "load_after": round(os.getloadavg()[0], 1),
        "seconds": round(time.monotonic() - began),
    }
    print(module.tables(result))
    if not quick:
        result.save()


def _module(name: str) -> Any:
    return import_module(f"benchmarks.{name}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s benchmarks --", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="small numbers; saves nothing")
    parser.add_argument("--table", action="store_true", help="only write tables and plots again")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown benchmark: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    main()
