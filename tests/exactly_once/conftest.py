"""Fixtures: a job between two databases, and a task whose connection has a short read timeout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_cdm.simulator import CdmSimulator
from tests.exactly_once.kills import Kills
from tests.exactly_once.task import JOB
from tests.support.order_databases import OrderDatabases
from tests.support.task_harness import TaskRunner


@pytest.fixture
def databases(sim: CdmSimulator, tmp_path: Path) -> OrderDatabases:
    """Create the databases, and a job that moves the rows of the day ``${dt}``."""
    databases = OrderDatabases(tmp_path)
    for link in databases.links:
        sim.add_link(link["name"], url=link["url"])
    sim.add_job(
        JOB,
        from_={"link": "shop", "table": "orders", "where": "day = '${dt}'"},
        to={"link": "warehouse", "table": "orders"},
        seconds=30,
    )
    return databases


@pytest.fixture
def task_runner(
    task_runner: TaskRunner,
    sim: CdmSimulator,
    databases: OrderDatabases,
    monkeypatch: pytest.MonkeyPatch,
) -> TaskRunner:
    """Return a task runner whose connection has a short read timeout."""
    connection = json.loads(sim.connection_json)
    connection["extra"]["read_timeout"] = 0.3
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    return task_runner


@pytest.fixture
def kills(task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> Kills:
    """Return what ends attempts of the task in the middle."""
    return Kills(task_runner, monkeypatch)
