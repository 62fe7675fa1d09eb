"""The cluster operators and the cluster sensor, against the simulator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import (
    CdmRestartClusterOperator,
    CdmStartClusterOperator,
    CdmStopClusterOperator,
)
from airflow_provider_cdm.sensors import CdmClusterSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.triggers.cluster import CdmClusterTrigger, unwrap
from tests.support.task_harness import TaskRunner

JOB = "orders"
MODES = {"on the worker": {"deferrable": False}, "deferred": {"deferrable": True}}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
StartSimulator = Callable[..., CdmSimulator]


@pytest.fixture
def start_simulator(clock: ManualClock) -> Iterator[StartSimulator]:
    """Start simulators with a cluster in a given status."""
    opened: list[CdmSimulator] = []

    def start_simulator(status: str = "200", **behaviour: Any) -> CdmSimulator:
        seconds = {"start": 200, "stop": 100, "restart": 50}
        clusters = [{"name": "demo", "status": status, "seconds": seconds}]
        config = {"behaviour": behaviour, "clusters": clusters}
        opened.append(CdmSimulator(config, clock=clock))
        opened[-1].__enter__()
        return opened[-1]

    yield start_simulator
    for simulator in opened:
        simulator.__exit__(None, None, None)


@pytest.fixture
def status() -> str:
    """Return the status that the cluster begins in; tests parametrize it."""
    return "200"


@pytest.fixture
def shown() -> str:
    """Return how a restart is shown; tests parametrize it."""
    return "status"


@pytest.fixture
def sim(start_simulator: StartSimulator, status: str, shown: str) -> CdmSimulator:
    """Return a simulator with one cluster in that status."""
    return start_simulator(status, restart_shown=shown)


def sent_actions(sim: CdmSimulator) -> list[str]:
    """Return the routes of the start and stop calls that CDM received."""
    return [r.route for r in sim.requests if r.route.endswith("_cluster") and r.method == "POST"]


def start_operator(**arguments: Any) -> CdmStartClusterOperator:
    """Make the operator that starts a cluster."""
    return CdmStartClusterOperator(**{"task_id": "t", "deferrable": False, **arguments})


def stop_operator(**arguments: Any) -> CdmStopClusterOperator:
    """Make the operator that stops a cluster."""
    return CdmStopClusterOperator(**{"task_id": "t", "deferrable": False, **arguments})


@each_mode
@pytest.mark.parametrize("status", ["900"])
def test_start_operator_starts_a_stopped_cluster(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A stopped cluster is started, and is ready for jobs when the task ends."""
    assert task_runner.run(lambda: start_operator(**mode)) == {
        "cluster_id": sim.cluster_id,
        "name": "demo",
        "state": "normal",
        "action": "started",
    }
    assert sent_actions(sim) == ["start_cluster"]
    assert len(task_runner.deferrals) == mode["deferrable"]


def restart_operator(**arguments: Any) -> CdmRestartClusterOperator:
    """Make the operator that restarts a cluster."""
    return CdmRestartClusterOperator(**{"task_id": "t", "deferrable": False, **arguments})


@each_mode
@pytest.mark.parametrize("poll_interval", [5, 90])
@pytest.mark.parametrize("shown", ["status", "actions", "no"])
def test_restart_operator_waits_for_the_end_of_the_restart(
    poll_interval: int, mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The task ends after the restart, however CDM shows it, and however seldom it is polled."""
    began = sim.clock.now()
    done = task_runner.run(lambda: restart_operator(**mode, poll_interval=poll_interval))
    assert (done["state"], done["action"], done["name"]) == ("normal", "restarted", "demo")
    assert (sent_actions(sim), sim.cluster_status()) == (["restart_cluster"], "200")
    assert 50 <= sim.clock.now() - began <= 300
    assert len(task_runner.deferrals) == mode["deferrable"]
    (sent,) = [request.json() for request in sim.requests if request.route == "restart_cluster"]
    assert sent["restart"] == {
        "restartDelayTime": 0,
        "restartMode": "IMMEDIATELY",
        "restartLevel": "SERVICE",
        "type": "cdm",
        "instance": "",
        "group": "",
    }


@each_mode
def test_restart_begins_after_its_delay(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A cluster that is still normal because of the delay has not been restarted yet."""
    began = sim.clock.now()
    arguments: dict[str, Any] = {**mode, "delay": timedelta(minutes=20), "restart_mode": "soft"}
    assert task_runner.run(lambda: restart_operator(**arguments))["action"] == "restarted"
    assert sim.clock.now() - began >= 1250


@each_mode
def test_restart_under_way_is_only_waited_for(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A retry that finds the cluster restarting sends no second restart."""
    task_runner.run(lambda: restart_operator(wait_for_completion=False))
    assert sim.cluster_status() == "500"
    done = task_runner.run(lambda: restart_operator(**mode))
    assert (done["state"], done["action"]) == ("normal", "none")
    assert sent_actions(sim) == ["restart_cluster"]


@each_mode
@pytest.mark.parametrize("status", ["900"])
def test_restart_of_a_cluster_that_starts_waits_for_it(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A stopped cluster is refused with advice; one that is starting is restarted afterwards."""
    with pytest.raises(errors.CdmRefused, match="CdmStartClusterOperator"):
        task_runner.run(lambda: restart_operator(**mode))
    task_runner.run(lambda: start_operator(wait_for_completion=False))
    assert task_runner.run(lambda: restart_operator(**mode))["action"] == "restarted"
    assert sent_actions(sim) == ["start_cluster", "restart_cluster"]


def test_restart_leaves_a_cluster_in_use_running(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A restart would fail active runs, so there is none unless the user asks for it."""
    sim.add_job(JOB, seconds=1000)
    sim.start(JOB)
    assert task_runner.run(restart_operator)["action"] == "left running"
    assert (sent_actions(sim), sim.runs(JOB)[0].active) == ([], True)
    done = task_runner.run(lambda: restart_operator(only_if_idle=False))
    assert (done["action"], sim.runs(JOB)[0].status) == ("restarted", "FAILED")


def test_restart_without_an_answer_is_not_sent_again(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """When the answer is lost but the cluster is restarting, no second restart is sent."""
    sim.fail("restart_cluster", "drop", "after")
    assert task_runner.run(restart_operator)["action"] == "restarted"
    assert sent_actions(sim) == ["restart_cluster"]


@each_mode
def test_restart_without_any_sign_is_no_success(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """If CDM accepts a restart and the cluster never changes, the task says that it cannot tell."""
    sim.fail("restart_cluster", "body", body={"jobId": "0" * 32})
    with pytest.raises(errors.CdmError, match="no sign of it"):
        task_runner.run(lambda: restart_operator(**mode))
    assert sent_actions(sim) == ["restart_cluster"]


@each_mode
def test_stop_operator_stops_an_idle_cluster(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """An idle cluster is stopped, and has stopped when the task ends."""
    done = task_runner.run(lambda: stop_operator(**mode))
    assert (done["state"], done["action"]) == ("stopped", "stopped")
    assert (sent_actions(sim), sim.cluster_status()) == (["stop_cluster"], "900")


@pytest.mark.parametrize(
    ("make_operator", "status"), [(start_operator, "200"), (stop_operator, "900")]
)
def test_cluster_in_the_wanted_state_gets_no_action(
    make_operator: Any, status: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Starting a running cluster or stopping a stopped one succeeds without sending an action."""
    assert task_runner.run(make_operator)["action"] == "none"
    assert sent_actions(sim) == []


@each_mode
def test_start_waits_until_a_stopping_cluster_has_stopped(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A cluster that is stopping is started once it has stopped; a retry that finds it starting
    only waits.
    """
    task_runner.run(lambda: stop_operator(wait_for_completion=False))
    assert sim.cluster_status() == "910"
    with pytest.raises(errors.CdmWaitTimeout, match="last seen starting"):
        task_runner.run(lambda: start_operator(**mode, wait_timeout=150))
    done = task_runner.run(lambda: start_operator(**mode))
    assert (done["state"], done["action"]) == ("normal", "none")
    assert sent_actions(sim) == ["stop_cluster", "start_cluster"]


@each_mode
@pytest.mark.parametrize("status", ["900"])
def test_stop_waits_until_a_starting_cluster_is_running(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A cluster that is starting, such as after an abandoned setup task, is stopped once it is
    running.
    """
    task_runner.run(lambda: start_operator(wait_for_completion=False))
    assert task_runner.run(lambda: stop_operator(**mode))["action"] == "stopped"
    assert sent_actions(sim) == ["start_cluster", "stop_cluster"]


@pytest.mark.parametrize("kind", ["NORMAL_JOB", "BATCH_JOB", "SCENARIO_JOB"])
def test_stop_operator_leaves_a_cluster_in_use_running(
    kind: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """An active run of a job of any type keeps the cluster running, and the task succeeds."""
    sim.add_job(JOB, type=kind, seconds=1000)
    sim.start(JOB)
    done = task_runner.run(stop_operator)
    assert (done["state"], done["action"]) == ("normal", "left running")
    assert (sent_actions(sim), sim.runs(JOB)[0].active) == ([], True)


def test_stop_operator_sends_nothing_when_jobs_cannot_be_listed(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """When the jobs cannot be listed, the task fails and the cluster is not stopped."""
    sim.fail("list_jobs", "status", status=403, times=None)
    with pytest.raises(errors.CdmAuthError):
        task_runner.run(stop_operator)
    assert sent_actions(sim) == []


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [({}, "SUCCEEDED"), ({"delay": 5}, "FAILED"), ({"stop_mode": "immediate"}, "FAILED")],
)
def test_stop_of_a_cluster_in_use_on_request(
    arguments: dict[str, Any], outcome: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """With ``only_if_idle=False`` the cluster is stopped with active runs: gracefully, after a
    delay, or immediately.
    """
    sim.add_job(JOB, seconds=300)
    sim.start(JOB)
    assert (
        task_runner.run(lambda: stop_operator(only_if_idle=False, **arguments))["state"]
        == "stopped"
    )
    assert sim.runs(JOB)[0].status == outcome


@each_mode
@pytest.mark.parametrize("make_operator", [start_operator, stop_operator, restart_operator])
@pytest.mark.parametrize(
    ("status", "message"),
    [("800", "frozen"), ("300", "is failed"), ("303", "no free address")],
)
def test_frozen_or_failed_cluster_fails_the_task_at_once(
    status: str,
    message: str,
    make_operator: Any,
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
) -> None:
    """A frozen or failed cluster fails the task at once with a clear error."""
    with pytest.raises(errors.CdmClusterUnusable, match=message):
        task_runner.run(lambda: make_operator(**mode))
    assert sent_actions(sim) == []


@each_mode
@pytest.mark.parametrize("status", ["100"])
def test_wait_timeout_ends_the_wait_for_a_cluster(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A cluster that does not become ready within ``wait_timeout`` fails the task."""
    with pytest.raises(errors.CdmWaitTimeout, match="last seen creating"):
        task_runner.run(lambda: start_operator(**mode, wait_timeout=500))


@each_mode
@pytest.mark.parametrize("status", ["900"])
def test_wait_for_a_cluster_tolerates_a_limited_outage(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The wait continues while CDM does not answer, and fails after the grace period of ten
    minutes.
    """
    sim.fail("show_cluster", "status", status=503, skip=1, times=20)
    assert task_runner.run(lambda: start_operator(**mode))["state"] == "normal"
    sim.fail("show_cluster", "status", status=503, skip=1, times=None)
    with pytest.raises(errors.CdmUnavailable):
        task_runner.run(lambda: stop_operator(**mode))


@pytest.mark.parametrize("status", ["900"])
def test_start_without_an_answer_is_not_sent_again(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """When the answer to a start is lost but the cluster is starting, no second start is sent."""
    sim.fail("start_cluster", "drop", "after")
    assert task_runner.run(start_operator)["state"] == "normal"
    assert sent_actions(sim) == ["start_cluster"]


def test_trigger_arguments_are_json_without_credentials(
    start_simulator: StartSimulator, task_runner: TaskRunner, sim: CdmSimulator
) -> None:
    """The trigger's arguments are JSON without credentials, and make the same trigger again."""
    task_runner.run(lambda: stop_operator(deferrable=True, wait_timeout=900))
    (arguments,) = task_runner.deferrals
    assert arguments["states"] == ["stopped"]
    assert json.loads(json.dumps(arguments)) == arguments
    assert CdmClusterTrigger(**arguments).serialize()[1] == arguments
    assert sim.password not in repr(arguments)


@pytest.mark.parametrize("event", [None, {}, [], "x", {"cluster": None}, {"cluster": {"a": 1}},
                                   {"error": "text"}, {"error": {"message": 1}}])  # fmt: skip
def test_malformed_event_raises_an_error(event: Any) -> None:
    """An event that holds no cluster raises an error, whatever else it holds."""
    with pytest.raises(errors.CdmError):
        unwrap(event)


# Sensor

SENSOR_MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferred": {"deferrable": True},
}
each_sensor_mode = pytest.mark.parametrize("sensor_mode", SENSOR_MODES.values(), ids=SENSOR_MODES)


def make_sensor(**arguments: Any) -> CdmClusterSensor:
    """Make the sensor under test."""
    defaults = {"task_id": "t", "poke_interval": 30, "timeout": 1000, "deferrable": False}
    return CdmClusterSensor(**{**defaults, **arguments})


@each_sensor_mode
@pytest.mark.parametrize("status", ["900"])
def test_sensor_waits_for_a_state_and_returns_it(
    sensor_mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The sensor waits for any of the named states, and returns the cluster."""
    task_runner.run(lambda: start_operator(wait_for_completion=False))
    found = {"cluster_id": sim.cluster_id, "name": "demo", "state": "normal"}
    began = sim.clock.now()
    assert task_runner.run(lambda: make_sensor(**sensor_mode)) == found
    assert sim.clock.now() - began >= 200
    assert task_runner.run(lambda: make_sensor(**sensor_mode, state=["stopped", "Normal"])) == found


@each_sensor_mode
@pytest.mark.parametrize("status", ["800"])
def test_sensor_fails_or_skips_for_a_frozen_cluster(
    sensor_mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A frozen cluster fails the sensor, or skips it with ``soft_fail``, unless the sensor waits
    for it.
    """
    with pytest.raises(errors.CdmClusterUnusable):
        task_runner.run(lambda: make_sensor(**sensor_mode))
    with pytest.raises(BaseException, match="soft_fail") as skip:
        task_runner.run(lambda: make_sensor(**sensor_mode, soft_fail=True))
    assert type(skip.value).__name__ == "AirflowSkipException"
    assert task_runner.run(lambda: make_sensor(**sensor_mode, state="frozen"))["state"] == "frozen"


@pytest.mark.parametrize("soft_fail", [False, True])
def test_timeout_ends_a_deferred_sensor(
    soft_fail: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The sensor's timeout also holds in the triggerer, and skips the task with ``soft_fail``."""
    expected = "AirflowSkipException" if soft_fail else "AirflowSensorTimeout"
    with pytest.raises(BaseException, match=r"last seen normal|soft_fail") as end:
        task_runner.run(lambda: make_sensor(state="stopped", deferrable=True, soft_fail=soft_fail))
    assert type(end.value).__name__ == expected


@each_sensor_mode
def test_sensor_tolerates_a_few_failed_polls(
    sensor_mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A few failed polls do not fail the sensor."""
    sim.fail("show_cluster", "status", status=503, times=12)
    assert task_runner.run(lambda: make_sensor(**sensor_mode))["state"] == "normal"
