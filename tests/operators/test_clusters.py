"""Operators and sensor for clusters, against the simulator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartClusterOperator, CdmStopClusterOperator
from airflow_provider_cdm.sensors import CdmClusterSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.triggers.cluster import CdmClusterTrigger, unwrap
from tests.support.task_harness import TaskRunner

JOB = "orders"
MODES = {"on the worker": {"deferrable": False}, "deferred": {"deferrable": True}}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
Make = Callable[..., CdmSimulator]


@pytest.fixture
def begin(clock: ManualClock) -> Iterator[Make]:
    """Start the simulator with a cluster in some status; ``sim`` is that simulator."""
    opened: list[CdmSimulator] = []

    def begin(status: str = "200") -> CdmSimulator:
        seconds = {"start": 200, "stop": 100, "restart": 50}
        config = {"clusters": [{"name": "demo", "status": status, "seconds": seconds}]}
        opened.append(CdmSimulator(config, clock=clock))
        opened[-1].__enter__()
        return opened[-1]

    yield begin
    for simulator in opened:
        simulator.__exit__(None, None, None)


@pytest.fixture
def status() -> str:
    """The status that the cluster begins in; a test may parametrise it."""
    return "200"


@pytest.fixture
def sim(begin: Make, status: str) -> CdmSimulator:
    """A simulator with a cluster in a status."""
    return begin(status)


begins = pytest.mark.parametrize


def actions(sim: CdmSimulator) -> list[str]:
    """The actions that were sent."""
    return [r.route for r in sim.requests if r.route.endswith("_cluster") and r.method == "POST"]


def start(**arguments: Any) -> CdmStartClusterOperator:
    """Make the operator that starts a cluster."""
    return CdmStartClusterOperator(**{"task_id": "t", "deferrable": False, **arguments})


def stop(**arguments: Any) -> CdmStopClusterOperator:
    """Make the operator that stops a cluster."""
    return CdmStopClusterOperator(**{"task_id": "t", "deferrable": False, **arguments})


@each_mode
@begins("status", ["900"])
def test_start(mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A stopped cluster is started, and jobs can run on it when the task has ended."""
    assert task_runner.run(lambda: start(**mode)) == {
        "cluster_id": sim.cluster_id,
        "name": "demo",
        "state": "normal",
        "action": "started",
    }
    assert actions(sim) == ["start_cluster"]
    assert len(task_runner.deferrals) == mode["deferrable"]


@each_mode
def test_stop(mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """An idle cluster is stopped, and has stopped when the task has ended."""
    done = task_runner.run(lambda: stop(**mode))
    assert (done["state"], done["action"]) == ("stopped", "stopped")
    assert (actions(sim), sim.cluster_status()) == (["stop_cluster"], "900")


@pytest.mark.parametrize(("make", "status"), [(start, "200"), (stop, "900")])
def test_nothing_to_do(make: Any, status: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Starting what runs and stopping what is stopped is a success; nothing is sent."""
    assert task_runner.run(make)["action"] == "none"
    assert actions(sim) == []


@each_mode
def test_start_of_a_cluster_that_is_stopping(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The cluster is started as soon as it has stopped; a retry finds it starting and waits."""
    task_runner.run(lambda: stop(wait_for_completion=False))
    assert sim.cluster_status() == "910"
    with pytest.raises(errors.CdmWaitTimeout, match="last seen starting"):
        task_runner.run(lambda: start(**mode, wait_timeout=150))
    done = task_runner.run(lambda: start(**mode))
    assert (done["state"], done["action"]) == ("normal", "none")
    assert actions(sim) == ["stop_cluster", "start_cluster"]


@each_mode
@begins("status", ["900"])
def test_stop_of_a_cluster_that_is_starting(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The teardown of a setup that was given up waits until there is something to stop."""
    task_runner.run(lambda: start(wait_for_completion=False))
    assert task_runner.run(lambda: stop(**mode))["action"] == "stopped"
    assert actions(sim) == ["start_cluster", "stop_cluster"]


@pytest.mark.parametrize("kind", ["NORMAL_JOB", "BATCH_JOB", "SCENARIO_JOB"])
def test_a_cluster_in_use_is_left_running(
    kind: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A run of somebody else, of a job of any type, keeps the cluster up; the task succeeds."""
    sim.add_job(JOB, type=kind, seconds=1000)
    sim.start(JOB)
    done = task_runner.run(stop)
    assert (done["state"], done["action"]) == ("normal", "left running")
    assert (actions(sim), sim.runs(JOB)[0].active) == ([], True)


def test_a_cluster_is_not_stopped_unseen(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """When the jobs cannot be listed, nothing is stopped."""
    sim.fail("list_jobs", "status", status=403, times=None)
    with pytest.raises(errors.CdmAuthError):
        task_runner.run(stop)
    assert actions(sim) == []


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [({}, "SUCCEEDED"), ({"delay": 5}, "FAILED"), ({"stop_mode": "immediate"}, "FAILED")],
)
def test_ways_to_stop(
    arguments: dict[str, Any], outcome: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """On request the cluster stops although it is used: gracefully, after a delay, or at once."""
    sim.add_job(JOB, seconds=300)
    sim.start(JOB)
    assert task_runner.run(lambda: stop(only_if_idle=False, **arguments))["state"] == "stopped"
    assert sim.runs(JOB)[0].status == outcome


@each_mode
@pytest.mark.parametrize("make", [start, stop])
@pytest.mark.parametrize(
    ("status", "words"),
    [("800", "frozen"), ("300", "is failed"), ("303", "no free address")],
)
def test_a_cluster_of_no_use(
    status: str,
    words: str,
    make: Any,
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
) -> None:
    """A frozen or failed cluster is a clear error at once."""
    with pytest.raises(errors.CdmClusterUnusable, match=words):
        task_runner.run(lambda: make(**mode))
    assert actions(sim) == []


@each_mode
@begins("status", ["100"])
def test_a_wait_has_an_end(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A cluster that does not get ready is given up after ``wait_timeout``."""
    with pytest.raises(errors.CdmWaitTimeout, match="last seen creating"):
        task_runner.run(lambda: start(**mode, wait_timeout=500))


@each_mode
@begins("status", ["900"])
def test_an_outage_is_borne(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """While CDM cannot be asked the wait goes on, for ten minutes."""
    sim.fail("show_cluster", "status", status=503, skip=1, times=20)
    assert task_runner.run(lambda: start(**mode))["state"] == "normal"
    sim.fail("show_cluster", "status", status=503, skip=1, times=None)
    with pytest.raises(errors.CdmUnavailable):
        task_runner.run(lambda: stop(**mode))


@begins("status", ["900"])
def test_an_unanswered_start_is_not_doubled(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A start whose answer is lost had its effect: the cluster is starting, so none is sent."""
    sim.fail("start_cluster", "drop", "after")
    assert task_runner.run(start)["state"] == "normal"
    assert actions(sim) == ["start_cluster"]


def test_deferral_is_plain(begin: Make, task_runner: TaskRunner, sim: CdmSimulator) -> None:
    """The trigger gets plain JSON and an instant as deadline, and makes itself again of it."""
    task_runner.run(lambda: stop(deferrable=True, wait_timeout=900))
    (arguments,) = task_runner.deferrals
    assert arguments["states"] == ["stopped"]
    assert json.loads(json.dumps(arguments)) == arguments
    assert CdmClusterTrigger(**arguments).serialize()[1] == arguments
    assert sim.password not in repr(arguments)


@pytest.mark.parametrize("event", [None, {}, [], "x", {"cluster": None}, {"cluster": {"a": 1}},
                                   {"error": "text"}, {"error": {"message": 1}}])  # fmt: skip
def test_a_malformed_event_is_no_success(event: Any) -> None:
    """Whatever comes back from the triggerer, only a cluster counts."""
    with pytest.raises(errors.CdmError):
        unwrap(event)


# Sensor

WAYS: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferred": {"deferrable": True},
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def sensor(**arguments: Any) -> CdmClusterSensor:
    """Make the sensor."""
    defaults = {"task_id": "t", "poke_interval": 30, "timeout": 1000, "deferrable": False}
    return CdmClusterSensor(**{**defaults, **arguments})


@each_way
@begins("status", ["900"])
def test_sensor(way: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The sensor waits for a state by its human name, and returns it."""
    task_runner.run(lambda: start(wait_for_completion=False))
    found = {"cluster_id": sim.cluster_id, "name": "demo", "state": "normal"}
    began = sim.clock.now()
    assert task_runner.run(lambda: sensor(**way)) == found
    assert sim.clock.now() - began >= 200
    assert task_runner.run(lambda: sensor(**way, state=["stopped", "Normal"])) == found


@each_way
@begins("status", ["800"])
def test_sensor_at_a_dead_end(
    way: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A frozen cluster is an error, or a skip with ``soft_fail``, unless that is waited for."""
    with pytest.raises(errors.CdmClusterUnusable):
        task_runner.run(lambda: sensor(**way))
    with pytest.raises(BaseException, match="soft_fail") as skip:
        task_runner.run(lambda: sensor(**way, soft_fail=True))
    assert type(skip.value).__name__ == "AirflowSkipException"
    assert task_runner.run(lambda: sensor(**way, state="frozen"))["state"] == "frozen"


@pytest.mark.parametrize("soft_fail", [False, True])
def test_sensor_times_out(soft_fail: bool, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The timeout of the sensor holds in the triggerer, and skips with ``soft_fail``."""
    expected = "AirflowSkipException" if soft_fail else "AirflowSensorTimeout"
    with pytest.raises(BaseException, match=r"last seen normal|soft_fail") as end:
        task_runner.run(lambda: sensor(state="stopped", deferrable=True, soft_fail=soft_fail))
    assert type(end.value).__name__ == expected


@each_way
def test_sensor_bears_outages(
    way: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A few polls that fail do not fail the sensor."""
    sim.fail("show_cluster", "status", status=503, times=12)
    assert task_runner.run(lambda: sensor(**way))["state"] == "normal"
