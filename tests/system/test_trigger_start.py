"""Sensors that begin without a worker, on a real Airflow whose pool has no slot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_cdm._compat import STARTS_FROM_TRIGGER
from airflow_provider_cdm.simulator import CdmSimulator
from demo.processes import wait_until
from tests.support.airflow_stack import AirflowStack
from tests.support.progress import Progress

pytestmark = pytest.mark.skipif(
    not STARTS_FROM_TRIGGER, reason="Airflow renders templates in the triggerer from 3.3 on"
)

DAG, RUN = "trigger_start", "r"
#: Time limit in seconds for each step.
TIMEOUT = 180
#: Duration of the runs in seconds.
SECONDS = 15
#: What becomes of each sensor: its last state, and the number of its attempts.
EXPECTED = {
    "pulled": ("success", 1),
    "mapping": ("success", 1),
    "expressions": ("success", 1),
    "first": ("success", 1),
    "stalled": ("success", 1),
    "failed": ("failed", 2),
    "unconnected": ("failed", 1),
    "nothing": ("failed", 1),
    "unnamed": ("failed", 1),
    "late": ("failed", 1),
    "limited": ("failed", 1),
    "skipped": ("skipped", 1),
}
#: What the logs of those that fail say.
REASONS = {
    "failed": "CdmSubmissionFailed",
    "unconnected": "There is no connection 'no_such'",
    "nothing": "Rendered to nothing (None): submission_id",
    "unnamed": "Name the run",
    "late": "AirflowSensorTimeout",
    "limited": "timed out (execution_timeout)",
}


@pytest.fixture
def sim() -> Iterator[CdmSimulator]:
    """A simulator with the jobs of the sensors."""
    with CdmSimulator() as sim:
        for job in ("pulled", "first"):
            sim.add_job(job, seconds=SECONDS)
        sim.add_job("odd {{", statuses=[*["RUNNING"] * 12, "SUCCEEDED"])
        sim.add_job("failed", seconds=1, outcome="FAILED")
        sim.add_job("endless", seconds=100_000)
        yield sim


@pytest.fixture
def stack(sim: CdmSimulator, tmp_path: Path) -> Iterator[AirflowStack]:
    """An Airflow whose only DAG has these sensors."""
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(Path(__file__).with_name("trigger_start_dag.py"), dags)
    environment = {
        "AIRFLOW_CONN_CDM_DEFAULT": sim.connection_json,
        "AIRFLOW_VAR_DAY": "2025-01-02",
    }
    stack = AirflowStack(tmp_path / "airflow", dags, environment)
    stack.home.mkdir()
    try:
        stack.start()
        stack.wait_for_dags(1)
        stack.add_pool("closed", 0)
        yield stack
    finally:
        stack.stop()


def test_sensors_begin_without_a_worker(
    sim: CdmSimulator, stack: AirflowStack, request: pytest.FixtureRequest
) -> None:
    """Sensors begin and wait while no slot is free, also across a kill of the triggerer, and end as
    deferred sensors do: green with the right run, or red with the same errors and retries.
    """
    progress = Progress(request.config)
    for job in ("failed", "odd {{", "endless"):
        sim.start(job)
    stack.trigger(DAG, RUN, "2025-01-02T00:00:00Z")

    def state(task: str) -> str:
        return stack.tasks(DAG, task)[-1].state

    def log_has(task: str, text: str) -> bool:
        texts = [log for path, log in stack.logs(DAG) if f"task_id={task}/" in str(path)]
        return any(text in log for log in texts)

    wait_until(lambda: log_has("first", "Waiting for the first run"), TIMEOUT, "it waits")
    progress("'first' waits in the triggerer")
    stack.kill("triggerer")
    stack.start_triggerer("triggerer-2")
    number = sim.start("first").submission_id
    fired = ("first", "pulled", "mapping", "expressions", "late", "limited", "stalled")
    wait_until(
        lambda: all(state(task) == "scheduled" for task in fired), TIMEOUT, "the runs have ended"
    )
    states = {task: state(task) for task in [*EXPECTED, "on_worker"]}
    progress(f"No slot was free: {states}")
    assert set(states.values()) == {"scheduled"}
    assert stack.link(DAG, "CDM run", "pulled")

    stack.set_pool("closed", 8)
    wait_until(lambda: stack.dag_run(DAG, RUN) == "failed", TIMEOUT, "the DAG run has ended")
    tasks = {task: stack.tasks(DAG, task)[-1] for task in EXPECTED}
    assert {name: (task.state, task.attempt) for name, task in tasks.items()} == EXPECTED
    assert stack.result_of(DAG, RUN, "first")["submission_id"] == number
    started = stack.result_of(DAG, RUN, "start")["submission_id"]
    for task in ("pulled", "mapping"):
        assert stack.result_of(DAG, RUN, task)["submission_id"] == started
    assert len(sim.runs("pulled")) == 1
    for task, reason in REASONS.items():
        assert log_has(task, reason), task
    assert any("task_id=failed/attempt=2.log.trigger" in str(path) for path, _ in stack.logs(DAG))
    ((extra,),) = stack.query("SELECT extra FROM asset_event")
    assert json.loads(extra)["submission_id"] == number
    assert "nothing has changed" in str(stack.result_of(DAG, RUN, "stalled", "stalled"))
