"""Starts a deployment for all tests, and prints a table of their checks at the end."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator
from tests.deployment.deployment import Deployment
from tests.deployment.kills import KilledProcesses, kill_during_runs
from tests.deployment.mapped_dag_plans import MAPPED_DAGS
from tests.deployment.mapped_dags import MappedJobs
from tests.deployment.report import Report
from tests.support.example_stage import EXAMPLES, Demo
from tests.support.progress import Progress

if not os.environ.get("CDM_DEPLOYMENT"):
    # These tests take minutes, and need servers that few machines have.
    collect_ignore_glob = ["*"]

REPORT = pytest.StashKey[Report]()
#: Days for which the source has orders, enough for all examples.
DAYS = [date(2026, 3, 1) + timedelta(days=number) for number in range(8)]


@dataclass
class SharedDeployment:
    """What the tests share.

    :param demo: databases and simulator of the example DAGs.
    :param jobs: databases and simulator of the mapped DAGs.
    :param log: prints the progress.
    """

    deployment: Deployment
    demo: Demo
    jobs: MappedJobs
    report: Report
    log: Progress


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Iterator[SharedDeployment]:
    """A running deployment, and the two simulators that its DAGs use."""
    log = Progress(request.config)
    report = request.config.stash[REPORT] = Report()
    folder = Path(tempfile.mkdtemp(prefix="cdm-deployment-"))
    # PostgreSQL runs as another user.
    folder.chmod(0o711)
    try:
        with (
            Demo.start(folder, DAYS, seconds=1) as demo,
            CdmSimulator({"quotas": "documented"}) as sim,
        ):
            (folder / "mapped_dags").mkdir()
            jobs = MappedJobs(sim, folder / "mapped_dags", MAPPED_DAGS)
            deployment = _make_deployment(folder, demo, jobs)
            try:
                part = report.part("start")
                dags = len(list(EXAMPLES.glob("*.py"))) + len(MAPPED_DAGS)
                deployment.start(dags)
                airflow = f"Airflow {version('apache-airflow')}"
                part.equal(f"DAGs that {airflow} knows", dags, deployment.count_dags())
                log(f"{airflow} is ready")
                yield SharedDeployment(deployment, demo, jobs, report, log)
            finally:
                deployment.stop()
    finally:
        if os.environ.get("CDM_DEPLOYMENT_KEEP"):
            log(f"Logs and data are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kills(shared: SharedDeployment) -> Iterator[Future[KilledProcesses]]:
    """Processes that are killed while migrations run, at the same time as other tests."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(kill_during_runs, shared.deployment, shared.jobs)


def _make_deployment(folder: Path, demo: Demo, jobs: MappedJobs) -> Deployment:
    dags = folder / "dags"
    shutil.copytree(EXAMPLES, dags)
    jobs.write_dags(dags)
    archive = {"conn_type": "generic", "login": "cdm", "password": "password-of-the-archive"}
    environment = {
        "AIRFLOW_CONN_ARCHIVE": json.dumps(archive),
        "AIRFLOW_CONN_CDM_DEFAULT": demo.sim.connection_json,
        "AIRFLOW_CONN_CDM_QUOTAS": jobs.sim.connection_json,
    }
    return Deployment(folder, dags, environment)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table, and write it to the file that ``CDM_DEPLOYMENT_REPORT`` names."""
    report = config.stash.get(REPORT, None)
    if report is None:
        return
    lines = list(report.table())
    terminalreporter.section("deployment")
    for line in lines:
        terminalreporter.write_line(line)
    if path := os.environ.get("CDM_DEPLOYMENT_REPORT"):
        Path(path).write_text("\n".join(lines) + "\n")
