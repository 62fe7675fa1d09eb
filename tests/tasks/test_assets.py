"""Asset events: what DAGs that are scheduled on the outlet of a migration receive."""

from __future__ import annotations

import json
import logging
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import airflow
import pytest
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_cdm._compat import HAS_PARTITIONS
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.exceptions import CdmConfigError
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.tasks import assets
from tests.support import asset_dag
from tests.support.airflow_home import AIRFLOW_HOME, empty_dags_folder, register_assets
from tests.support.example_stage import RESULT, Database
from tests.support.task_harness import TaskRunner

COUNTERS = {"ROWS_READ": 9, "ROWS_WRITTEN": 7}
#: Prefix of the database tables of assets, which Airflow 2 calls datasets.
ASSET = "dataset" if airflow.__version__.startswith("2.") else "asset"


class Event(NamedTuple):
    """An event of an asset."""

    task: str
    map_index: int
    asset: str
    extra: dict[str, Any]


# Once for each worker of pytest: a module may be left and entered again, and events stay.
@pytest.fixture(scope="session")
def events(airflow_database: None) -> list[Event]:
    """Run the DAG once and return its asset events."""
    dag_file = empty_dags_folder() / "asset_dag.py"
    dag_file.write_text(Path(asset_dag.__file__).read_text())
    with CdmSimulator({"seconds": 0.2}) as sim, pytest.MonkeyPatch.context() as patch:
        for name in ("filled", "worker", "worker_2", "deferred", "missed", "started", "mapped"):
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
    rows = Database(AIRFLOW_HOME / "airflow.db").run(query, asset_dag.DAG_ID)
    return [Event(task, index, uri, json.loads(extra)) for task, index, uri, extra in rows]


def event_of(events: list[Event], task: str) -> Event:
    """Return the only event of a task."""
    (event,) = [event for event in events if event.task == task]
    return event


@pytest.mark.long
@pytest.mark.parametrize("task", ["worker", "deferred", "sensor", "deferred_sensor"])
def test_event_carries_the_result_of_the_run(task: str, events: list[Event]) -> None:
    """In every mode the event of an outlet carries the result of the run."""
    event = event_of(events, task)
    assert event.asset == asset_dag.PREFIX + task
    assert set(event.extra) == RESULT
    assert event.extra["status"] == "SUCCEEDED"
    assert event.extra["counters"].items() >= COUNTERS.items()


@pytest.mark.long
@pytest.mark.skipif(not HAS_PARTITIONS, reason="Airflow 3.3 introduced partitions")
@pytest.mark.parametrize("task", ["filled", "filled_sensor"])
def test_event_names_the_partition(task: str, events: list[Event]) -> None:
    """The event of a task with a partition key carries the rendered key, and the result."""
    query = "SELECT partition_key FROM asset_event WHERE source_task_id = ?"
    rows = Database(AIRFLOW_HOME / "airflow.db").run(query, task)
    assert [tuple(row) for row in rows] == [(f"day {asset_dag.DAG_ID}",)]
    assert event_of(events, task).extra["status"] == "SUCCEEDED"


@pytest.mark.parametrize("key", ["None", " ", "x" * 251])
def test_partition_key_that_cannot_be_used(
    key: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A key that was rendered to nothing, is too long, or that Airflow does not know, is refused
    before anything is started.
    """
    sim.add_job("orders")
    with pytest.raises(CdmConfigError, match="partition_key"):
        task_runner.run(
            lambda: CdmStartJobOperator(task_id="move", job_name="orders", partition_key=key)
        )
    assert not sim.runs("orders")


@pytest.mark.long
def test_event_of_a_deleted_job_carries_the_result(events: list[Event]) -> None:
    """The event carries the result even when the task has deleted its job."""
    assert event_of(events, "own_job").extra["status"] == "SUCCEEDED"


@pytest.mark.long
def test_each_mapped_task_instance_has_an_event_of_its_own_run(events: list[Event]) -> None:
    """Each mapped task instance has an event with the result of its own run."""
    mapped = [event for event in events if event.task == "mapped"]
    assert [event.map_index for event in mapped] == [0, 1, 2]
    assert len({event.extra["submission_id"] for event in mapped}) == 3
    assert {event.extra["counters"]["ROWS_WRITTEN"] for event in mapped} == {7}


@pytest.mark.long
def test_event_of_a_task_that_does_not_wait_claims_no_rows(events: list[Event]) -> None:
    """The event of a task that only starts a run names the run, but no final status and no rows."""
    extra = event_of(events, "start_only").extra
    assert set(extra) == {
        *("cluster_id", "job_name", "submission_id", "creation_date", "creation_time", "status"),
    }
    assert extra["submission_id"] == event_of(events, "sensor").extra["submission_id"]
    assert extra["status"] != "SUCCEEDED"


@pytest.mark.long
@pytest.mark.parametrize("task", ["failing", "missed"])
def test_failed_task_creates_no_event(task: str, events: list[Event]) -> None:
    """A task that fails creates no event."""
    assert task not in {event.task for event in events}


@pytest.mark.long
def test_event_of_a_whole_database_job_carries_totals(events: list[Event]) -> None:
    """The event of a whole-database job carries the sums and the number of tables, but not the
    tables.
    """
    extra = event_of(events, "whole").extra
    assert extra["tables"] == {"total": 2, "succeeded": 2, "failed": 0, "unfinished": 0}
    assert extra["counters"]["ROWS_WRITTEN"] == 2 * COUNTERS["ROWS_WRITTEN"]


@pytest.mark.long
def test_alias_is_resolved_by_the_dag(events: list[Event]) -> None:
    """The DAG receives the result and decides which asset an alias stands for."""
    event = event_of(events, "alias")
    assert event.asset == f"{asset_dag.PREFIX}alias_of_worker_2"
    assert event.extra == {"rows": COUNTERS["ROWS_WRITTEN"]}


def test_outlet_of_a_task_that_does_not_wait_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An outlet on a task that does not wait logs a warning that says what to do."""
    context: Any = {"outlet_events": {}}
    with caplog.at_level(logging.WARNING):
        assets.report(context, [Asset("cdm://a/b")], Submission("c", "j", "BOOTING"))
    assert "move the outlets to the" in caplog.text


def test_task_succeeds_when_the_event_cannot_be_extended(caplog: pytest.LogCaptureFixture) -> None:
    """When Airflow provides no event to extend, the task succeeds, since the rows were moved."""
    context: Any = {"outlet_events": {}}
    assets.report(context, [Asset("cdm://a/b")], Submission("c", "j", "SUCCEEDED"))
    assert "has no result of the run" in caplog.text


def test_outlets_that_are_no_assets_are_ignored() -> None:
    """Outlets that are no assets are ignored, and the context is not used."""
    context: Any = {}
    assets.report(context, ["a file", object()], Submission("c", "j", "SUCCEEDED"))
