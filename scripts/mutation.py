"""Changes the modules that decide in one place at a time; what no test notices is shown.

Line coverage says that a line is run, not that a test would fail if it were wrong. So cosmic-ray
changes a comparison, a number, an operator or a condition, runs the tests of the module, and takes
the change back. It is chosen since it also changes properties and constants of modules and classes
(mutmut does not), and because it runs on every Python that is supported. A copy of the source tree
is changed, never the tree itself.

To import Airflow takes longer than most tests. So this process imports it, and everything else
that is not ours, once; each change is tested in a fork of it, which then imports only this package
and its tests. ``CONTRIBUTING.md`` has the results.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest
from cosmic_ray import commands, mutating
from cosmic_ray.config import load_config
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome

ROOT = Path(__file__).parent.parent
#: Part of the changes that tests must notice. The rest changes nothing that matters, such as the
#: text of a log line, or makes two conditions differ that never differ.
GOAL = 0.9
_JOBS = "airflow_provider_cdm/client/jobs"
_TASKS = "airflow_provider_cdm/tasks"
_START = "tests/operators/test_start_job.py"
_OWN_JOB = "tests/operators/run_job"
_ONCE = "tests/exactly_once"
#: The modules that decide, each with its tests: the specific ones first, since the first failure
#: ends a run. A change takes from 0.2 seconds (``client/``) to some seconds (``tasks/``), and all
#: of them about half an hour.
DECIDING: Mapping[str, Sequence[str]] = {
    f"{_JOBS}/own_run.py": ("tests/client/jobs/test_own_run.py",),
    f"{_JOBS}/start_record.py": ("tests/client/jobs/test_start_record.py",),
    f"{_JOBS}/run_search.py": ("tests/client/jobs/test_run_search.py",),
    "airflow_provider_cdm/client/submission.py": ("tests/client/test_submission.py",),
    f"{_JOBS}/start.py": ("tests/client/jobs/test_start.py",),
    f"{_TASKS}/refusals.py": ("tests/tasks/test_refusals.py",),
    f"{_JOBS}/follower.py": (
        "tests/client/jobs/test_follower.py",
        "tests/client/jobs/test_follower_identity.py",
        "tests/client/jobs/test_follower_clocks.py",
    ),
    f"{_JOBS}/earlier_start.py": (
        f"{_ONCE}/test_retries_and_clears.py",
        f"{_ONCE}/test_generations.py",
        f"{_ONCE}/test_faults.py",
    ),
    f"{_TASKS}/journal.py": (
        f"{_ONCE}/test_generations.py",
        f"{_ONCE}/test_retries_and_clears.py",
        "tests/sensors/test_submission.py",
    ),
    f"{_TASKS}/kills.py": (f"{_ONCE}/test_kills.py", f"{_ONCE}/test_stops.py", _OWN_JOB),
    f"{_TASKS}/attempt.py": (
        f"{_ONCE}/test_waits.py",
        f"{_ONCE}/test_stops.py",
        f"{_ONCE}/test_retries_and_clears.py",
        _START,
        _OWN_JOB,
    ),
}
#: Changes that say nothing: annotations (``int | None``), and arithmetic that nobody would write.
_EXCLUDED = [
    "core/ReplaceBinaryOperator_BitOr_.*",
    "core/ReplaceBinaryOperator_.*_(RShift|LShift|Pow|Mod|FloorDiv|BitXor|BitOr|BitAnd)",
    "core/ReplaceComparisonOperator_(Is|IsNot)_(Eq|NotEq|Lt|LtE|Gt|GtE)",
    "core/ReplaceComparisonOperator_(Eq|NotEq|Lt|LtE|Gt|GtE)_(Is|IsNot)",
    "core/ReplaceUnaryOperator_USub_(Not|Invert)",
]
_COPIED = ("airflow_provider_cdm", "tests", "pyproject.toml", "example_dags", "docs")


def main(folder: Path, names: Sequence[str]) -> int:
    """Measure modules, print the score of each and what was not noticed.

    :param folder: where to copy the source tree to.
    :param names: parts of the paths of modules; all if there are none.
    :returns: 0 if every module reaches the goal.
    """
    folder = folder.resolve()
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for name in _COPIED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tree / name)
    # Plugins of pytest that are not used here take longer than some tests.
    os.environ |= {"PYTHONPATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    # Before Airflow, which reads where its home is when it is imported.
    importlib.import_module("tests.support.airflow_home")
    failed = False
    for module in DECIDING:
        if not names or any(name in module for name in names):
            failed |= _measure(folder, module) < GOAL
    return int(failed)


def _measure(folder: Path, module: str) -> float:
    """Return the part of the changes of a module that tests notice."""
    name = module.replace("/", ".")
    config, database = folder / f"{name}.toml", folder / f"{name}.sqlite"
    tests = shlex.join(DECIDING[module])
    _import_what_is_not_ours(tests, folder / "imported.json")
    # Changes may follow each other too quickly for a cached module to be known as out of date.
    sys.dont_write_bytecode = True
    Path(importlib.util.cache_from_source(module)).unlink()
    began = time.monotonic()
    outcome, output = run_tests(tests, 600)
    if outcome is not TestOutcome.SURVIVED:
        raise SystemExit(f"The tests of {module} fail without any change:\n{output}")
    config.write_text(_config(module, tests, 30 + 3 * (time.monotonic() - began)))
    database.unlink(missing_ok=True)
    for command in (
        ("cosmic-ray", "init", config, database),
        (
            "cr-filter-operators",
            database,
            config,
        ),
    ):
        subprocess.run(list(map(str, command)), check=True)
    with mock.patch.object(mutating, "run_tests", run_tests), use_db(str(database)) as work:
        commands.execute(work, load_config(str(config)))
    return _report(module, database)


def run_tests(tests: str, timeout: float, imported: Path | None = None) -> tuple[TestOutcome, str]:
    """Run tests in a fork of this process; in place of the function of cosmic-ray.

    :param tests: arguments of pytest, as in a shell.
    :param timeout: seconds after which the fork is ended, which counts as noticed.
    :param imported: where to write the names of all modules that were imported.
    :returns: whether a test has failed, and what pytest printed.
    """
    output = Path(os.environ["AIRFLOW_HOME"]) / "output.txt"
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        survived = os.waitstatus_to_exitcode(status) == pytest.ExitCode.OK
        return TestOutcome.SURVIVED if survived else TestOutcome.KILLED, output.read_text()
    # Nothing that this process registered for its own end must happen at the end of a fork.
    code = 1
    try:
        os.setpgrp()
        signal.alarm(int(timeout))
        with output.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        options = ("-x", "-q", "-p", "no:cacheprovider")
        code = int(pytest.main([*options, *shlex.split(tests)]))
        if imported is not None:
            imported.write_text(json.dumps(list(sys.modules)))
    finally:
        os._exit(code)


def _import_what_is_not_ours(tests: str, imported: Path) -> None:
    """Import the modules that tests need, except those of this package and of the tests."""
    sys.dont_write_bytecode = False
    run_tests(tests, 600, imported)
    for name in json.loads(imported.read_text()):
        if name.partition(".")[0] not in ("airflow_provider_cdm", "tests", "conftest"):
            # Some modules exist only under a name that no import finds.
            with suppress(ImportError):
                importlib.import_module(name)
    # pytest collects garbage at its end, and need not search what will never be garbage.
    gc.freeze()


def _config(module: str, tests: str, timeout: float) -> str:
    """Return the configuration of cosmic-ray for a module."""
    return "\n".join(
        (
            "[cosmic-ray]",
            f"module-path = {json.dumps([module])}",
            f"timeout = {timeout}",
            "excluded-modules = []",
            f"test-command = {json.dumps(tests)}",
            "[cosmic-ray.distributor]",
            'name = "local"',
            "[cosmic-ray.filters.operators-filter]",
            f"exclude-operators = {json.dumps(_EXCLUDED)}",
        )
    )


def _report(module: str, database: Path) -> float:
    """Print what tests did not notice; return the score."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "SELECT start_pos_row, operator_name, test_outcome, diff FROM work_results"
            " JOIN mutation_specs USING (job_id) WHERE worker_outcome != 'SKIPPED'"
            " ORDER BY start_pos_row"
        ).fetchall()
    rows = [row for row in rows if not _says_nothing(row[3])]
    survived = [row for row in rows if row[2] == "SURVIVED"]
    score = 1 - len(survived) / max(len(rows), 1)
    for line, operator, _, diff in survived:
        changed = [text for text in diff.splitlines() if text[:1] == "+" and text[:3] != "+++"]
        print(f"{module}:{line}: {operator.removeprefix('core/')}: {' '.join(changed)[:120]}")
    print(f"{module}: {len(rows) - len(survived)} of {len(rows)} noticed ({score:.0%})", flush=True)
    return score


def _says_nothing(diff: str | None) -> bool:
    """Return whether a change is one of a decorator's options, or of a mark between parameters.

    :param diff: the change; ``None`` where it made the tests hang, which is noticed as well.
    """
    removed = (line[1:].strip() for line in (diff or "").splitlines() if line[:1] == "-")
    return any(line.startswith(("@dataclass(", "*,")) for line in removed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
