"""Changes the modules that decide in one place at a time; what no test notices is shown.

Line coverage says that a line is run, not that a test would fail if it were wrong. So cosmic-ray
changes a comparison, a number, an operator or a condition, runs the tests of the module, and takes
the change back. It is chosen since it also changes properties and constants of modules and classes
(mutmut does not), and because it runs on every Python that is supported. A copy of the source tree
is changed, never the tree itself.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Part of the changes that tests must notice. The rest changes nothing that matters, such as the
#: text of a log line, or makes two conditions differ that never differ.
GOAL = 0.9
_JOBS = "airflow_provider_cdm/client/jobs"
_TASKS = "airflow_provider_cdm/tasks"
_FRONT_DOOR = ("tests/exactly_once", "tests/operators/test_start_job.py", "tests/operators/run_job")
#: The modules that decide, each with its tests. The first ones need no Airflow, so a change takes
#: about a second; the others take half a minute, and all of them some hours.
DECIDING: Mapping[str, Sequence[str]] = {
    f"{_JOBS}/own_run.py": ("tests/client/jobs/test_own_run.py",),
    f"{_JOBS}/start_record.py": ("tests/client/jobs/test_start_record.py",),
    f"{_JOBS}/run_search.py": ("tests/client/jobs/test_run_search.py",),
    "airflow_provider_cdm/client/submission.py": ("tests/client/test_submission.py",),
    f"{_JOBS}/start.py": ("tests/client/jobs/test_start.py",),
    f"{_TASKS}/refusals.py": ("tests/tasks/test_refusals.py",),
    f"{_JOBS}/follower.py": ("tests/client/jobs", *_FRONT_DOOR),
    f"{_JOBS}/earlier_start.py": ("tests/client/jobs", *_FRONT_DOOR),
    f"{_TASKS}/journal.py": _FRONT_DOOR,
    f"{_TASKS}/kills.py": _FRONT_DOOR,
    f"{_TASKS}/attempt.py": _FRONT_DOOR,
}
#: Modules whose tests use no fixture of ``tests/conftest.py``, which imports Airflow.
_WITHOUT_AIRFLOW = tuple(DECIDING)[:6]
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
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for name in _COPIED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tree / name)
    failed = False
    for module in DECIDING:
        if not names or any(name in module for name in names):
            failed |= _measure(folder, tree, module) < GOAL
    return int(failed)


def _measure(folder: Path, tree: Path, module: str) -> float:
    """Return the part of the changes of a module that tests notice."""
    name = module.replace("/", ".")
    config, database = folder / f"{name}.toml", folder / f"{name}.sqlite"
    config.write_text(_config(module))
    database.unlink(missing_ok=True)
    for command in (
        ("cosmic-ray", "init", str(config), str(database)),
        ("cr-filter-operators", str(database), str(config)),
        ("cosmic-ray", "--verbosity", "ERROR", "baseline", str(config)),
        ("cosmic-ray", "exec", str(config), str(database)),
    ):
        variables = os.environ | {
            "PYTHONPATH": str(tree),
            # Plugins of pytest that are not used here take longer than the tests.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        subprocess.run(command, cwd=tree, env=variables, check=True)
    return _report(module, database)


def _config(module: str) -> str:
    """Return the configuration of cosmic-ray for a module."""
    options = ("--noconftest",) if module in _WITHOUT_AIRFLOW else ()
    tests = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *options)
    return "\n".join(
        (
            "[cosmic-ray]",
            f"module-path = {json.dumps([module])}",
            f"timeout = {30 if options else 600}.0",
            "excluded-modules = []",
            f"test-command = {json.dumps(shlex.join((*tests, *DECIDING[module])))}",
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
