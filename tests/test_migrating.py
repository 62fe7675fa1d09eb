"""Tests of the page on upgrading from apache-airflow-providers-huawei: its DAG before and after."""

from __future__ import annotations

import itertools
import json
import os
import runpy
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import airflow
import pytest

from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.airflow_home import empty_dags_folder
from tests.support.credentials import ACCOUNT, KEYS, REGION

SNIPPETS = Path(__file__).parents[1] / "docs" / "snippets" / "migrating"
AIRFLOW_2 = airflow.__version__.startswith("2.")
#: Folder of the other provider, if it is installed. It is not in site-packages, because Airflow
#: would load it.
PEER = os.environ.get("CDM_PEER", "")
BEFORE = pytest.param(
    "before",
    marks=pytest.mark.skipif(
        not PEER or not AIRFLOW_2,
        reason="the other provider's sensor is not installed or does not work",
    ),
)
DAYS = (datetime(2026, 6, 1, tzinfo=UTC) + timedelta(days=n) for n in itertools.count())
ROWS = 12
#: Script that runs the DAG of a file for one logical date, in a separate process.
RUN = """
import runpy, sys
from datetime import datetime
dag = runpy.run_path(sys.argv[1])["dag"]
for task in dag.tasks:
    task.poke_interval = 0.3
dag_run = dag.test(execution_date=datetime.fromisoformat(sys.argv[2]))
print("state:", dag_run.state)
"""


@pytest.fixture
def sim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, airflow_database: None
) -> Iterator[CdmSimulator]:
    """Return a simulator with a job, and set the connection in the other provider's format."""
    for name in ("shop", "warehouse"):
        with sqlite3.connect(tmp_path / f"{name}.db") as database:
            database.execute("CREATE TABLE orders (id INTEGER, day TEXT)")
    links = [{"name": n, "url": f"sqlite:///{tmp_path}/{n}.db"} for n in ("shop", "warehouse")]
    with CdmSimulator({**ACCOUNT, "clusters": [{"name": "own", "links": links}]}) as simulator:
        simulator.add_job(
            "orders_daily",
            from_={"link": "shop", "table": "orders", "where": "day = '${dt}'"},
            to={"link": "warehouse", "table": "orders"},
            seconds=0.5,
        )
        extra = {"region": REGION, "project_id": simulator.project_id}
        connection = {
            "conn_type": "huaweicloud",
            "host": simulator.url,
            "login": KEYS["access_key"],
            "password": KEYS["secret_key"],
            "extra": extra,
        }
        monkeypatch.setenv("AIRFLOW_CONN_HUAWEICLOUD_DEFAULT", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW_VAR_CDM_CLUSTER", simulator.cluster_id)
        endpoint = f"HUAWEICLOUD_SDK_REGION_CDM_{REGION.replace('-', '_').upper()}"
        monkeypatch.setenv(endpoint, simulator.url)
        yield simulator


@pytest.fixture
def state_of(tmp_path: Path, sim: CdmSimulator) -> Callable[[str, datetime], str]:
    """Return a function that runs one of the DAGs for a day and returns the DAG run's state."""

    def before(path: Path, day: datetime) -> str:
        script = tmp_path / "run.py"
        script.write_text(RUN)
        folders = [PEER, os.environ.get("PYTHONPATH")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
        process = subprocess.run(
            [sys.executable, str(script), str(path), str(day)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        states = [line for line in process.stdout.splitlines() if line.startswith("state: ")]
        assert states, process.stdout + process.stderr
        return states[0].rpartition(".")[2].removeprefix("state: ").lower()

    def after(path: Path, day: datetime) -> str:
        dag = runpy.run_path(str(path))["dag"]
        for task in dag.tasks:
            task.poll_interval = 0.1
        date_argument: dict[str, Any] = {("execution_date" if AIRFLOW_2 else "logical_date"): day}
        return str(dag.test(**date_argument).state)

    def run(which: str, day: datetime) -> str:
        path = empty_dags_folder() / f"migrating_{which}.py"
        shutil.copy(SNIPPETS / f"{which}.py", path)
        return (before if which == "before" else after)(path, day)

    return run


@pytest.mark.long
@pytest.mark.parametrize("which", [BEFORE, "after"])
def test_rows_of_the_day(
    which: str, state_of: Callable[[str, datetime], str], tmp_path: Path
) -> None:
    """Both DAGs move the rows of their logical date, with the same connection and job."""
    day = next(DAYS)
    with sqlite3.connect(tmp_path / "shop.db") as database:
        rows = [(n, f"{day + timedelta(days=n % 2):%Y-%m-%d}") for n in range(2 * ROWS)]
        database.executemany("INSERT INTO orders VALUES (?, ?)", rows)
    assert state_of(which, day) == "success"
    with sqlite3.connect(tmp_path / "warehouse.db") as database:
        moved = database.execute("SELECT day, count(*) FROM orders GROUP BY day").fetchall()
    assert moved == [(f"{day:%Y-%m-%d}", ROWS)]


@pytest.mark.parametrize(("which", "state"), [pytest.param("before", "success", marks=BEFORE.marks),
                                              ("after", "failed")])  # fmt: skip
def test_a_run_that_somebody_stopped(
    which: str, state: str, sim: CdmSimulator, state_of: Callable[[str, datetime], str]
) -> None:
    """If somebody stops the run, the other provider's DAG succeeds and this one's fails."""
    sim.add_job("orders_daily", statuses=["RUNNING", "STOPPED"])
    assert state_of(which, next(DAYS)) == state
