"""Where the seconds between two polls come from, and what lengthens them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm import get_provider_info
from airflow_provider_cdm._compat import AirflowSensorTimeout
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmClusterSensor, CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.tasks.base import CdmTask
from tests.operators.test_empty_places import make
from tests.support.task_harness import TaskRunner

OPTION = "AIRFLOW__CDM__POLL_INTERVAL"
#: Argument and default of each class that polls for as long as a run or a cluster takes.
DEFAULTS = {
    "CdmStartJobOperator": ("poll_interval", 30),
    "CdmRunJobOperator": ("poll_interval", 30),
    "CdmStartClusterOperator": ("poll_interval", 30),
    "CdmStopClusterOperator": ("poll_interval", 30),
    "CdmRestartClusterOperator": ("poll_interval", 30),
    "CdmSubmissionSensor": ("poke_interval", 60),
    "CdmClusterSensor": ("poke_interval", 60),
}
every_task = pytest.mark.parametrize("name", DEFAULTS)


@every_task
def test_deployment_sets_the_interval_of_tasks_that_name_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument counts first, then ``[cdm] poll_interval``, then the default."""
    argument, default = DEFAULTS[name]
    assert getattr(make(name), argument) == default
    monkeypatch.setenv(OPTION, "45")
    assert getattr(make(name), argument) == 45
    assert getattr(make(name, **{argument: 7}), argument) == 7
    assert getattr(make(name, **{argument: "{{ n }}"}), argument) == "{{ n }}"
    monkeypatch.setenv(OPTION, "")
    assert getattr(make(name), argument) == default


@every_task
@pytest.mark.parametrize("value", ["soon", "0", "-1", "30s"])
def test_option_that_cannot_be_used_is_named(
    value: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong option is an error when the DAG is parsed, unless the task has an interval itself."""
    argument, _ = DEFAULTS[name]
    monkeypatch.setenv(OPTION, value)
    with pytest.raises(errors.CdmConfigError, match=r"^\[cdm\] poll_interval in airflow.cfg must"):
        make(name)
    assert getattr(make(name, **{argument: 7}), argument) == 7


def test_a_stop_keeps_its_short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop takes seconds, so the interval for waits of hours does not count for it."""
    monkeypatch.setenv(OPTION, "600")
    assert make("CdmStopJobOperator").poll_interval == 5


def test_option_is_described_to_airflow() -> None:
    """``airflow config list`` shows the option, without a default that would hide those above."""
    option = get_provider_info()["config"]["cdm"]["options"]["poll_interval"]
    assert (option["type"], option["default"]) == ("float", None)


@pytest.mark.parametrize(
    "make_task",
    [
        lambda: CdmStartJobOperator(task_id="t", job_name="orders", deferrable=True),
        lambda: CdmSubmissionSensor(
            task_id="t", job_name="orders", submission_id=1, deferrable=True
        ),
    ],
    ids=["operator", "sensor"],
)
def test_deferred_wait_has_the_interval_of_the_deployment(
    make_task: Callable[[], Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trigger, which may run under another configuration, gets the interval of the task."""
    monkeypatch.setenv(OPTION, "45")
    sim.add_job("orders", seconds=300)
    if make_task().task_type == "CdmSubmissionSensor":
        sim.start("orders")
    task_runner.run(make_task)
    assert [sent["poll_interval"] for sent in task_runner.deferrals] == [45]


@pytest.fixture
def task_log(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the log of the test, in which the lines of tasks are."""
    monkeypatch.setattr(CdmTask, "log", logging.getLogger("airflow_provider_cdm.x"), raising=False)
    return log


@pytest.mark.parametrize("config", [{"clusters": [{"name": "demo", "status": "900"}]}])
@pytest.mark.parametrize("arguments", [{"exponential_backoff": True, "max_wait": 600}, {}])
def test_deferred_cluster_sensor_says_that_its_pauses_do_not_grow(
    arguments: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, task_log: Any
) -> None:
    """The sensor for clusters warns as the one for runs does."""
    with pytest.raises(AirflowSensorTimeout):
        task_runner.run(
            lambda: CdmClusterSensor(task_id="t", deferrable=True, timeout=300, **arguments)
        )
    assert _warnings(task_log) == (1 if arguments else 0)


@pytest.mark.parametrize(
    ("arguments", "warnings"),
    [
        ({"exponential_backoff": True, "max_wait": 600}, 1),
        ({"exponential_backoff": True, "silent_fail": True}, 1),
        ({"max_wait": 600}, 0),
        ({}, 0),
    ],
)
def test_deferred_sensor_says_that_its_pauses_do_not_grow(
    arguments: dict[str, Any],
    warnings: int,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: Any,
) -> None:
    """In the triggerer a sensor polls every ``poke_interval``, and warns once of arguments that
    would lengthen its pauses elsewhere.
    """
    sim.add_job("orders", seconds=900)
    sim.start("orders")
    if "silent_fail" in arguments:  # which defers again after each failure
        sim.fail("status", "status", status=403, times=2)
    result = task_runner.run(
        lambda: CdmSubmissionSensor(
            task_id="t", job_name="orders", submission_id=1, deferrable=True, poke_interval=60,
            **arguments,
        )
    )  # fmt: skip
    assert result["status"] == "SUCCEEDED"
    assert {sent["poll_interval"] for sent in task_runner.deferrals} == {60}
    assert _warnings(task_log) == warnings


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_pauses_grow_where_airflow_waits(
    mode: str, sim: CdmSimulator, task_runner: TaskRunner, task_log: Any
) -> None:
    """On a worker Airflow's own arguments count, so there is nothing to warn of."""
    sim.add_job("orders", seconds=900)
    sim.start("orders")
    result = task_runner.run(
        lambda: CdmSubmissionSensor(
            task_id="t", job_name="orders", submission_id=1, deferrable=False, mode=mode,
            poke_interval=60, exponential_backoff=True, max_wait=300,
        )
    )  # fmt: skip
    assert result["status"] == "SUCCEEDED"
    assert _warnings(task_log) == 0
    assert sum("interval is" in record.getMessage() for record in task_log.records) > 1


def _warnings(log: pytest.LogCaptureFixture) -> int:
    return sum("exponential_backoff has no effect" in each.getMessage() for each in log.records)
