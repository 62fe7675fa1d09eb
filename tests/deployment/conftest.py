"""Starts a deployment for all tests, and shows a table of what they saw in the end."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator
from tests.deployment.deployment import Deployment
from tests.deployment.fleet import Yard
from tests.deployment.fleets import FLEETS
from tests.deployment.kills import Lost, kill_meanwhile
from tests.deployment.report import Report
from tests.support.example_stage import EXAMPLES, Demo

if not os.environ.get("CDM_DEPLOYMENT"):
    # It takes minutes, and servers that are not everywhere.
    collect_ignore_glob = ["*"]

REPORT = pytest.StashKey[Report]()
#: Enough for all examples.
DAYS = [date(2026, 3, 1) + timedelta(days=number) for number in range(8)]


@dataclass
class Stage:
    """What the tests share.

    :param tell: shows how it goes on.
    """

    deployment: Deployment
    demo: Demo
    yard: Yard
    report: Report
    tell: Callable[[str], None]


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A deployment that is up, and the two simulators that it talks to."""
    config = request.config
    began = time.monotonic()

    def tell(text: str) -> None:
        capture: Any = config.pluginmanager.getplugin("capturemanager")
        reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    report = config.stash[REPORT] = Report()
    folder = Path(tempfile.mkdtemp(prefix="cdm-deployment-"))
    # PostgreSQL is another user.
    folder.chmod(0o711)
    try:
        with (
            Demo.start(folder, DAYS, seconds=1) as demo,
            CdmSimulator({"quotas": "documented"}) as sim,
        ):
            yard = Yard(sim, _made(folder / "fleets"), FLEETS)
            deployment = _deployment(folder, demo, yard)
            try:
                part = report.part("start")
                dags = len(list(EXAMPLES.glob("*.py"))) + len(FLEETS)
                deployment.start(dags)
                airflow = f"Airflow {version('apache-airflow')}"
                part.equal(f"DAGs that {airflow} knows", dags, deployment.dags())
                tell(f"{airflow} is up")
                yield Stage(deployment, demo, yard, report, tell)
            finally:
                deployment.stop()
    finally:
        if os.environ.get("CDM_DEPLOYMENT_KEEP"):
            tell(f"Everything is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kills(stage: Stage) -> Iterator[Future[Lost]]:
    """Processes are killed while migrations run, and while other tests go on."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(kill_meanwhile, stage.deployment, stage.yard)


def _deployment(folder: Path, demo: Demo, yard: Yard) -> Deployment:
    dags = folder / "dags"
    shutil.copytree(EXAMPLES, dags)
    yard.write_dags(dags)
    archive = {"conn_type": "generic", "login": "cdm", "password": "password-of-the-archive"}
    environment = {
        "AIRFLOW_CONN_ARCHIVE": json.dumps(archive),
        "AIRFLOW_CONN_CDM_DEFAULT": demo.sim.connection_json,
        "AIRFLOW_CONN_CDM_FLEET": yard.shop.sim.connection_json,
    }
    return Deployment(folder, dags, environment)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the table, and write it to the file that ``CDM_DEPLOYMENT_REPORT`` names."""
    report = config.stash.get(REPORT, None)
    if report is None:
        return
    lines = list(report.table())
    terminalreporter.section("deployment")
    for line in lines:
        terminalreporter.write_line(line)
    if path := os.environ.get("CDM_DEPLOYMENT_REPORT"):
        Path(path).write_text("\n".join(lines) + "\n")
