"""Asset events: what DAGs learn that are scheduled on the outlet of a migration."""

from __future__ import annotations

import json
import logging
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import airflow
import pytest
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.tasks import assets
from tests.support import asset_dag
from tests.support.airflow_home import AIRFLOW_HOME, register_assets
from tests.support.example_stage import RESULT, Database

COUNTERS = {"ROWS_READ": 9, "ROWS_WRITTEN": 7}
#: What Airflow 2 calls an asset.
ASSET = "dataset" if airflow.__version__.startswith("2.") else "asset"


class Event(NamedTuple):
    """An event of an asset."""

    task: str
    map_index: int
    asset: str
    extra: dict[str, Any]


@pytest.fixture(scope="module")
def events(airflow_database: None) -> list[Event]:
    """The events of one run of the DAG."""
    dag_file = AIRFLOW_HOME / "dags" / "asset_dag.py"
    dag_file.parent.mkdir(exist_ok=True)
    dag_file.write_text(Path(asset_dag.__file__).read_text())
    with CdmSimulator({"seconds": 0.2}) as sim, pytest.MonkeyPatch.context() as patch:
        for name in ("worker", "worker_2", "deferred", "missed", "started", "mapped"):
            sim.add_job(name, counters=COUNTERS)
        sim.add_link("source", connector="hive-connector")
        sim.add_link("target", connector="hive-connector")
        sim.add_job("failing", outcome="FAILED")
        tables = [{"name": name, "counters": COUNTERS} for name in ("a", "b")]
        sim.add_job("whole", type="BATCH_JOB", tables=tables)
        patch.setenv("AIRFLOW_CONN_CDM_DEFAULT", sim.connection_json)
        dag = runpy.run_path(str(dag_file))["dag"]
        register_assets(dag)
        dag.test()
    query = (
        f"SELECT source_task_id, source_map_index, uri, {ASSET}_event.extra FROM {ASSET}_event"
        f" JOIN {ASSET} ON {ASSET}.id = {ASSET}_id WHERE source_dag_id = ? ORDER BY 1, 2"
    )
    found = Database(AIRFLOW_HOME / "airflow.db").run(query, asset_dag.DAG_ID)
    return [Event(task, index, uri, json.loads(extra)) for task, index, uri, extra in found]


def of(events: list[Event], task: str) -> Event:
    """The one event of a task."""
    (event,) = [event for event in events if event.task == task]
    return event


@pytest.mark.parametrize("task", ["worker", "deferred", "sensor", "deferred_sensor"])
def test_what_an_event_tells(task: str, events: list[Event]) -> None:
    """The event of an outlet carries the result of the run, in every mode."""
    event = of(events, task)
    assert event.asset == asset_dag.PREFIX + task
    assert set(event.extra) == RESULT
    assert event.extra["status"] == "SUCCEEDED"
    assert event.extra["counters"].items() >= COUNTERS.items()


def test_a_job_of_its_own(events: list[Event]) -> None:
    """So does that of a task whose job is gone by then."""
    assert of(events, "own_job").extra["status"] == "SUCCEEDED"


def test_mapped_tasks(events: list[Event]) -> None:
    """Each of the mapped tasks has an event with the result of its own run."""
    mapped = [event for event in events if event.task == "mapped"]
    assert [event.map_index for event in mapped] == [0, 1, 2]
    assert len({event.extra["submission_id"] for event in mapped}) == 3
    assert {event.extra["counters"]["ROWS_WRITTEN"] for event in mapped} == {7}


def test_a_task_that_does_not_wait(events: list[Event]) -> None:
    """A task that only starts a run names it, says that it is not over, and claims no rows."""
    extra = of(events, "start_only").extra
    assert set(extra) == {"cluster_id", "job_name", "submission_id", "creation_date", "status"}
    assert extra["submission_id"] == of(events, "sensor").extra["submission_id"]
    assert extra["status"] != "SUCCEEDED"


@pytest.mark.parametrize("task", ["failing", "missed"])
def test_no_event_of_a_failure(task: str, events: list[Event]) -> None:
    """A task that fails tells nobody that rows have arrived."""
    assert task not in {event.task for event in events}


def test_a_whole_database(events: list[Event]) -> None:
    """Of a whole database the event tells the sums and how many tables, not their list."""
    extra = of(events, "whole").extra
    assert extra["tables"] == {"total": 2, "succeeded": 2, "failed": 0, "unfinished": 0}
    assert extra["counters"]["ROWS_WRITTEN"] == 2 * COUNTERS["ROWS_WRITTEN"]


def test_an_alias(events: list[Event]) -> None:
    """Which asset an alias stands for is said by the DAG, which is handed the result."""
    event = of(events, "alias")
    assert event.asset == f"{asset_dag.PREFIX}alias_of_worker_2"
    assert event.extra == {"rows": COUNTERS["ROWS_WRITTEN"]}


def test_early_events_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """Who puts an outlet on a task that does not wait reads in the log what to do about it."""
    context: Any = {"outlet_events": {}}
    with caplog.at_level(logging.WARNING):
        assets.report(context, [Asset("cdm://a/b")], Submission("c", "j", "BOOTING"))
    assert "give the outlets to the CdmSubmissionSensor" in caplog.text


def test_an_event_that_cannot_be_had(caplog: pytest.LogCaptureFixture) -> None:
    """When Airflow refuses to hand an event out, the task succeeds all the same: rows are there."""
    context: Any = {"outlet_events": {}}
    assets.report(context, [Asset("cdm://a/b")], Submission("c", "j", "SUCCEEDED"))
    assert "goes without the result" in caplog.text


def test_other_outlets_are_passed_over() -> None:
    """What is no asset costs nothing: the context is not even asked."""
    context: Any = {}
    assets.report(context, ["a file", object()], Submission("c", "j", "SUCCEEDED"))
