"""Runs all scenarios at the same time, and prints a table of them at the end."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator
from demo.processes import wait_until
from tests.support.airflow_settings import SLOTS
from tests.support.airflow_stack import AirflowStack
from tests.support.migration_jobs import MigrationJobs
from tests.support.progress import Progress
from tests.system.scenario_runner import Scenario, ScenarioRun, SharedStack
from tests.system.scenarios import ROTATIONS, SCENARIOS
from tests.system.truth_runner import Row, RowRun
from tests.system.truth_table import ROWS

if not os.environ.get("CDM_SYSTEM"):
    # These tests take minutes, so they are not part of the usual suite.
    collect_ignore_glob = ["*"]

#: Seconds between the starts of two scenarios.
INTERVAL = 0.8
#: For the truth table, so that an edited DAG is noticed, and its task has retries if nothing else
#: says how many.
_SETTINGS = {
    "CORE__DEFAULT_TASK_RETRIES": "1",
    "CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "1",
    "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
}
RUNS = pytest.StashKey[list[ScenarioRun]]()


@pytest.fixture(scope="session")
def scenario_runs(request: pytest.FixtureRequest) -> Iterator[dict[str, ScenarioRun]]:
    """All selected scenarios by name, after they have ended and were checked."""
    items: list[Any] = request.session.items
    names = {item.callspec.params["name"] for item in items if hasattr(item, "callspec")}
    rows = [row for each in ROWS if (row := each.on(version("apache-airflow")))]
    known: list[Scenario] = [*SCENARIOS, *rows]
    scenarios = [scenario for scenario in known if scenario.name in names]
    folder = Path(tempfile.mkdtemp(prefix="cdm-faults-"))
    log = Progress(request.config)
    try:
        runs = _run_all(log, folder, scenarios)
        request.config.stash[RUNS] = runs
        yield {run.name: run for run in runs}
    finally:
        if os.environ.get("CDM_SYSTEM_KEEP"):
            log(f"Logs and databases are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _run_all(log: Progress, folder: Path, scenarios: list[Scenario]) -> list[ScenarioRun]:
    dags = _write_dags(folder, scenarios)
    rotated = [scenario.name for scenario in scenarios if scenario in ROTATIONS]
    users = [{"name": name, "password": f"old {name}"} for name in ("airflow", *rotated)]
    with CdmSimulator({"users": users}) as sim:
        jobs = MigrationJobs(sim, folder)
        jobs.create_databases()
        for scenario in scenarios:
            jobs.add_job(scenario.name, scenario.seconds, scenario.outcomes)
        connection = sim.connection
        # A start may be in flight for as long as these allow, and only then settles.
        connection["extra"] |= {"connect_timeout": 5, "read_timeout": 15}
        environment = {
            "AIRFLOW_CONN_CDM_DEFAULT": json.dumps(connection),
            "CDM_SYSTEM_FOLDER": str(folder),
        }
        settings = _SETTINGS if any(isinstance(each, Row) for each in scenarios) else {}
        stack = AirflowStack(folder / "airflow", dags, environment, settings=settings)
        stack.home.mkdir()
        shared = SharedStack(stack, jobs, folder, scenarios)
        runs = [
            RowRun(scenario, shared) if isinstance(scenario, Row) else ScenarioRun(scenario, shared)
            for scenario in scenarios
        ]
        try:
            stack.start()
            stack.wait_for_dags(len(scenarios))
            stack.add_pool("closed", 0)
            for scenario in scenarios:
                if (pool := scenario.plan()["pool"]) != "default_pool":
                    stack.add_pool(pool, SLOTS)
            for name in rotated:
                stack.add_connection(name, connection | {"login": name, "password": f"old {name}"})
            log(f"Airflow {version('apache-airflow')} is ready")
            _run_in_threads(log, runs)
            for run in runs:
                run.check()
        finally:
            stack.stop()
            for run in runs:
                run.kill_orphans()
        log("All scenarios are checked")
    return runs


def _write_dags(folder: Path, scenarios: list[Scenario]) -> Path:
    dags = folder / "dags"
    dags.mkdir()
    for scenario in scenarios:
        # One file for each scenario, so that a task parses only its own DAG.
        shutil.copy(Path(__file__).with_name("dag_file.py"), dags / f"{scenario.name}.py")
        (folder / scenario.name).mkdir()
        (folder / scenario.name / "days.json").write_text("[]")
        (folder / scenario.name / "plan.json").write_text(json.dumps(scenario.plan()))
    return dags


def _run_in_threads(log: Progress, runs: list[ScenarioRun]) -> None:
    threads: list[threading.Thread] = []
    for run in runs:
        threads.append(threading.Thread(target=run.run, daemon=True))
        threads[-1].start()
        time.sleep(INTERVAL)
    logged: set[str] = set()

    def all_ended() -> bool:
        for run, thread in zip(runs, threads, strict=True):
            if not thread.is_alive() and run.name not in logged:
                logged.add(run.name)
                log(f"{run.name}: {'; '.join(run.problems) or 'ended'}")
        return len(logged) == len(runs)

    wait_until(all_ended, 900, "all scenarios have ended")
    # A duplicate may come late, so no CDM run may be active when the runs are counted.
    active = ("PENDING", "BOOTING", "RUNNING")
    wait_until(
        lambda: not any(status in active for run in runs for status in run.run_statuses),
        *(120, "all CDM runs have ended"),
    )
    time.sleep(3)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table."""
    runs = config.stash.get(RUNS, [])
    if not runs:
        return
    form = "{:<32} {:<7} {:<25} {:<25} {:<5} {:<7} {:>5}"
    terminalreporter.section("scenarios")
    heads = ("scenario", "Airflow", "runs expected", "runs", "rows", "verdict", "s")
    terminalreporter.write_line(form.format(*heads))
    for run in runs:
        cells = (
            run.name,
            version("apache-airflow"),
            _count_statuses(run.scenario.runs),
            _count_statuses(run.statuses),
            "ok" if run.rows_ok else "WRONG",
            "FAILED" if run.problems else "ok",
            f"{run.seconds:.0f}",
        )
        terminalreporter.write_line(form.format(*cells))


def _count_statuses(statuses: tuple[str, ...]) -> str:
    counts = {status: statuses.count(status) for status in statuses}
    return ", ".join(f"{count} {status.lower()}" for status, count in counts.items()) or "none"
