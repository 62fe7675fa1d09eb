"""Changes the modules that decide in one place at a time; what no test notices is shown.

Line coverage says that a line is run, not that a test would fail if it were wrong. So cosmic-ray
changes a comparison, a number, an operator or a condition, runs the tests of the module, and takes
the change back. It is chosen since it also changes properties and constants of modules and classes
(mutmut does not), and because it runs on every Python that is supported. A copy of the source tree
is changed, never the tree itself.

Only the tests that call the changed function are run, the quickest first, until one fails. Each
change has a process of its own, a fork that has Airflow imported already. What no test notices must
be explained in ``explained_changes.toml``; ``CONTRIBUTING.md`` says how.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from unittest import mock

from cosmic_ray import mutating
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome

from scripts import forked_tests

ROOT = Path(__file__).parent.parent
#: Part of the changes that tests must notice; each of the others needs an explanation.
GOAL = 0.9
EXPLAINED = tomllib.loads((Path(__file__).parent / "explained_changes.toml").read_text())
_JOBS = "airflow_provider_cdm/client/jobs"
_TASKS = "airflow_provider_cdm/tasks"
_WATCHING = "airflow_provider_cdm/client/watching"
_ONCE = "tests/exactly_once"
_ATTEMPT = (
    f"{_ONCE}/test_kills.py",
    f"{_ONCE}/test_retries_and_clears.py",
    f"{_ONCE}/test_stops.py",
    f"{_ONCE}/test_waits.py",
    "tests/operators/run_job/test_crashes_and_kills.py",
    "tests/operators/run_job/test_left_over_job.py",
    "tests/operators/test_check_variables.py::test_own_job_is_checked_without_a_call",
    "tests/operators/test_standby_clusters.py",
    "tests/operators/test_start_job.py",
    "tests/tasks/test_log.py",
    "tests/tasks/test_stall_callbacks.py",
    "tests/test_metrics.py",
)
#: The modules that decide, each with its tests.
DECIDING: Mapping[str, Sequence[str]] = {
    f"{_JOBS}/own_run.py": ("tests/client/jobs/test_own_run.py",),
    f"{_JOBS}/start_record.py": ("tests/client/jobs/test_start_record.py",),
    f"{_JOBS}/run_search.py": ("tests/client/jobs/test_run_search.py",),
    "airflow_provider_cdm/client/submission.py": ("tests/client/test_submission.py",),
    f"{_JOBS}/start.py": (
        "tests/client/jobs/test_start.py",
        "tests/operators/test_standby_clusters.py",
    ),
    f"{_JOBS}/standby.py": ("tests/operators/test_standby_clusters.py",),
    f"{_JOBS}/job_check.py": (
        "tests/operators/test_check_variables.py",
        "tests/operators/test_standby_clusters.py::test_the_job_of_the_standby_cluster_is_checked",
    ),
    f"{_TASKS}/refusals.py": ("tests/tasks/test_refusals.py",),
    f"{_JOBS}/follower.py": (
        "tests/client/jobs/test_follower.py",
        "tests/client/jobs/test_follower_clocks.py",
        "tests/client/jobs/test_follower_identity.py",
        "tests/test_rotation.py",
    ),
    f"{_WATCHING}/position.py": ("tests/client/watching/test_position.py",),
    f"{_WATCHING}/run_filter.py": ("tests/client/watching/test_run_filter.py",),
    f"{_JOBS}/earlier_start.py": ("tests/client/jobs/test_earlier_start.py",),
    f"{_TASKS}/journal.py": ("tests/tasks/test_journal.py",),
    f"{_TASKS}/kills.py": (
        f"{_ONCE}/test_giving_up.py",
        f"{_ONCE}/test_kills.py",
        f"{_ONCE}/test_stops.py",
        "tests/operators/run_job/test_crashes_and_kills.py",
        "tests/operators/run_job/test_run_job.py::test_on_giving_up_stop_removes_run_and_job",
    ),
    f"{_TASKS}/attempt.py": _ATTEMPT,
    f"{_TASKS}/run_wait.py": _ATTEMPT,
}
#: Changes that say nothing: annotations (``int | None``), and arithmetic that nobody would write.
_EXCLUDED = [
    "core/ReplaceBinaryOperator_BitOr_.*",
    "core/ReplaceBinaryOperator_.*_(RShift|LShift|Pow|Mod|FloorDiv|BitXor|BitOr|BitAnd)",
    "core/ReplaceComparisonOperator_(Is|IsNot)_(Eq|NotEq|Lt|LtE|Gt|GtE)",
    "core/ReplaceComparisonOperator_(Eq|NotEq|Lt|LtE|Gt|GtE)_(Is|IsNot)",
    "core/ReplaceUnaryOperator_USub_(Not|Invert)",
]
#: Lines that decide nothing: the options of a decorator, a mark between parameters, imports for
#: annotations, and whether something is a property, which the type checker knows.
_SAYS_NOTHING = ("@dataclass(", "@lru_cache(", "@property", "*,", "if TYPE_CHECKING:")
#: Options of the private fields of a dataclass, and the same mark between parameters on one line.
_OPTION = re.compile(r"\b(init|repr)=(True|False)|(?<=, )[*/],")
#: Seconds of processor time that tests may take in addition to five times what they usually take.
#: What takes longer counts as hanging: the change made a loop endless.
_LEAST_SECONDS = 5
#: Number of tests that are run before all others.
_FIRST = 8
_FILTER = "cr-filter-operators"
_COPIED = ("airflow_provider_cdm", "tests", "pyproject.toml", "example_dags", "docs")


def main(folder: Path, names: Sequence[str]) -> int:
    """Measure modules, print the score of each and what was neither noticed nor is explained.

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
            failed |= not _measure(folder, module)
    return int(failed)


def _measure(folder: Path, module: str) -> bool:
    """Return whether tests notice enough changes of a module, and all others are explained."""
    name = module.replace("/", ".")
    config, database = folder / f"{name}.toml", folder / f"{name}.sqlite"
    sys.dont_write_bytecode = False
    calls = forked_tests.observe(*DECIDING[module])
    # Changes may follow each other too quickly for a cached module to be known as out of date.
    sys.dont_write_bytecode = True
    Path(importlib.util.cache_from_source(module)).unlink(missing_ok=True)
    config.write_text(_config(module))
    database.unlink(missing_ok=True)
    for command in ("cosmic-ray", "init", config, database), (_FILTER, database, config):
        subprocess.run(list(map(str, command)), check=True)
    run = _Runner(Path(module).resolve(), Path(module).read_text().splitlines(), calls)
    with mock.patch.object(mutating, "run_tests", run), use_db(str(database)) as work:
        for item in list(work.pending_work_items):
            work.set_result(item.job_id, mutating.mutate_and_test(item.mutations, "", None))
    return _report(module, database)


@dataclass
class _Runner:
    """Runs tests in place of the function of cosmic-ray, which starts a new process for all tests.

    :param path: module that is changed.
    :param source: its lines without a change.
    :param calls: what each test calls.
    """

    path: Path
    source: Sequence[str]
    calls: forked_tests.Calls

    def __call__(self, _command: str, _timeout: float | None) -> tuple[TestOutcome, str]:
        """Run the tests that the present change of the module may concern."""
        changed = self.path.read_text().splitlines()
        # cosmic-ray numbers changes in another order than it makes them, so it does not know.
        pairs = enumerate(zip_longest(self.source, changed))
        number, line = next((n, old) for n, (old, new) in pairs if old != new)
        if (line or "").strip().startswith(_SAYS_NOTHING):
            return TestOutcome.SURVIVED, ""
        tests = self.calls.tests_of("\n".join(self.source), self.path, number + 1)
        output = ""
        # Most changes are noticed by the first tests, and to collect all of them takes longer.
        for some in filter(None, (tests[:_FIRST], tests[_FIRST:])):
            seconds = _LEAST_SECONDS + 5 * sum(map(self.calls.seconds.__getitem__, some))
            succeeded, output = forked_tests.succeed(some, seconds)
            if not succeeded:
                return TestOutcome.KILLED, output
        return TestOutcome.SURVIVED, output


def _config(module: str) -> str:
    """Return the configuration of cosmic-ray for a module."""
    return "\n".join(
        (
            "[cosmic-ray]",
            f"module-path = {json.dumps([module])}",
            "timeout = 60.0",
            "excluded-modules = []",
            # Both are chosen for each change.
            'test-command = ""',
            "[cosmic-ray.distributor]",
            'name = "local"',
            "[cosmic-ray.filters.operators-filter]",
            f"exclude-operators = {json.dumps(_EXCLUDED)}",
        )
    )


def _report(module: str, database: Path) -> bool:
    """Print what tests did not notice and nothing explains, and the score."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "SELECT operator_name, test_outcome, diff FROM work_results"
            " JOIN mutation_specs USING (job_id) WHERE worker_outcome = 'NORMAL'"
        ).fetchall()
    rows = [row for row in rows if not _says_nothing(row[2])]
    survived = [
        (operator, _changed(diff)) for operator, result, diff in rows if result == "SURVIVED"
    ]
    reasons = EXPLAINED.get(module.removeprefix("airflow_provider_cdm/"), {})
    explained = {_without_blanks(line) for line in reasons}
    open_ = [pair for pair in survived if _without_blanks(pair[1]) not in explained]
    score = 1 - len(survived) / max(len(rows), 1)
    for operator, line in open_:
        print(f"{module}: {operator.removeprefix('core/')}: {line[:120]}")
    print(
        f"{module}: {len(rows) - len(survived)} of {len(rows)} noticed ({score:.0%}),"
        f" {len(survived) - len(open_)} explained, {len(open_)} not",
        flush=True,
    )
    return score >= GOAL and not open_


def _changed(diff: str) -> str:
    """Return the line, or lines, after a change."""
    lines = diff.splitlines()
    return " ".join(line[1:].strip() for line in lines if line[:1] == "+" and line[:3] != "+++")


def _without_blanks(line: str) -> str:
    return re.sub(r"\s", "", line)


def _says_nothing(diff: str | None) -> bool:
    """Return whether a change is one of a line, or an option of a field, that decides nothing.

    :param diff: the change; ``None`` where it made the tests hang, which is noticed as well.
    """
    lines = [line for line in (diff or "").splitlines() if line[:3] not in ("---", "+++")]
    old, new = ([line[1:].strip() for line in lines if line[:1] == sign] for sign in "-+")
    if any(line.startswith(_SAYS_NOTHING) for line in old):
        return True
    return bool(old) and [_OPTION.sub("", x) for x in old] == [_OPTION.sub("", x) for x in new]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
