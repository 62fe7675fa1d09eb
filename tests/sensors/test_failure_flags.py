"""``soft_fail``, ``never_fail`` and ``silent_fail`` mean the same in every mode of a sensor."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_cdm._compat import (
    STARTS_FROM_TRIGGER,
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
)
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.sensors import CdmClusterSensor, CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.task_harness import FakeTaskInstance, TaskRunner

JOB = "orders"
MODES: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
    "deferred": {"deferrable": True},
}
if STARTS_FROM_TRIGGER:
    MODES["started in the triggerer"] = {"start_from_trigger": True}
FLAGS: dict[str, dict[str, Any]] = {
    "hard": {},
    "soft_fail": {"soft_fail": True},
    "never_fail": {"never_fail": True},
    "silent_fail": {"silent_fail": True},
    "silent_fail and never_fail": {"silent_fail": True, "never_fail": True},
    "silent_fail and soft_fail": {"silent_fail": True, "soft_fail": True},
}
SKIPPED, TIMED_OUT = AirflowSkipException, AirflowSensorTimeout


def sensor_of_a_run(sim: CdmSimulator, **arguments: Any) -> Any:
    """Make a sensor for the newest run of the job."""
    return CdmSubmissionSensor(
        task_id="t", job_name=JOB, submission_id=len(sim.runs(JOB)), **arguments
    )


def fail_later(sim: CdmSimulator) -> None:
    """Let the run fail while the sensor waits."""
    sim.add_job(JOB, outcome="FAILED", seconds=100)
    sim.start(JOB)


def fail_at_once(sim: CdmSimulator) -> None:
    """Let the run have failed before the sensor begins."""
    sim.add_job(JOB, outcome="FAILED", seconds=0)
    sim.start(JOB)
    sim.runs(JOB)


def refuse(sim: CdmSimulator) -> None:
    """Let CDM refuse the user while the sensor waits."""
    sim.add_job(JOB, seconds=5000)
    sim.start(JOB)
    sim.fail("status", "status", status=403, times=None)


def break_off(sim: CdmSimulator) -> None:
    """Let CDM be out of reach for good."""
    sim.add_job(JOB, seconds=5000)
    sim.start(JOB)
    sim.fail("status", "status", status=503, times=None)


def outlast(sim: CdmSimulator) -> None:
    """Let the run take longer than the sensor waits."""
    sim.add_job(JOB, seconds=50_000)
    sim.start(JOB)


#: What happens, and what a failure is by flag; the others are as without a flag.
FAILURES: dict[str, tuple[Callable[[CdmSimulator], None], dict[str, Any]]] = {
    "run fails": (
        fail_later,
        {
            "hard": errors.CdmSubmissionFailed,
            "soft_fail": SKIPPED,
            "never_fail": SKIPPED,
            "silent_fail": TIMED_OUT,
            "silent_fail and never_fail": TIMED_OUT,
            "silent_fail and soft_fail": SKIPPED,
        },
    ),
    "run has failed": (
        fail_at_once,
        {
            "hard": errors.CdmSubmissionFailed,
            "soft_fail": SKIPPED,
            "never_fail": SKIPPED,
            "silent_fail": TIMED_OUT,
            "silent_fail and never_fail": TIMED_OUT,
            "silent_fail and soft_fail": SKIPPED,
        },
    ),
    "refused": (
        refuse,
        {
            "hard": errors.CdmAuthError,
            "soft_fail": errors.CdmAuthError,
            "never_fail": SKIPPED,
            "silent_fail": TIMED_OUT,
            "silent_fail and never_fail": TIMED_OUT,
            "silent_fail and soft_fail": SKIPPED,
        },
    ),
    "out of reach": (
        break_off,
        {
            "hard": errors.CdmUnavailable,
            "soft_fail": errors.CdmUnavailable,
            "never_fail": SKIPPED,
            "silent_fail": TIMED_OUT,
            "silent_fail and never_fail": TIMED_OUT,
            "silent_fail and soft_fail": SKIPPED,
        },
    ),
    "too slow": (
        outlast,
        {
            "hard": TIMED_OUT,
            "soft_fail": SKIPPED,
            "never_fail": TIMED_OUT,
            "silent_fail": TIMED_OUT,
            "silent_fail and never_fail": TIMED_OUT,
            "silent_fail and soft_fail": SKIPPED,
        },
    ),
}


@pytest.fixture(autouse=True)
def database_time(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> None:
    """Let a rescheduled sensor, which reads the beginning of its wait from the metadata database,
    measure it by the clock of the test.
    """
    begin = datetime.fromtimestamp(clock.now(), UTC)
    now = SimpleNamespace(utcnow=lambda: datetime.fromtimestamp(clock.now(), UTC))
    module: Any = importlib.import_module(BaseSensorOperator.__module__)
    monkeypatch.setattr(module, "timezone", now)
    if hasattr(module, "_orig_start_date"):  # Airflow 2
        monkeypatch.setattr(module, "_orig_start_date", lambda **_: begin)
    monkeypatch.setattr(FakeTaskInstance, "get_first_reschedule_date", lambda *_: begin)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("failure", FAILURES)
def test_failure_means_the_same_in_every_mode(
    failure: str, flag: str, mode: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """What a failure means does not depend on where the sensor waits."""
    prepare, expected = FAILURES[failure]
    prepare(sim)
    # Longer than an outage is tolerated: between two processes, only half of the time counts.
    arguments = {**FLAGS[flag], **MODES[mode], "poke_interval": 120, "timeout": 1800}
    with pytest.raises(expected[flag]) as raised:
        task_runner.run(lambda: sensor_of_a_run(sim, **arguments))
    if expected[flag] is SKIPPED and mode == "deferred":
        assert "Skipped because of" in str(raised.value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_log_of_a_skipped_task_says_why(
    flag: str,
    mode: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last line of a task that is skipped has the reason and the end of the run, once."""
    # Airflow 3 writes the log of tasks elsewhere.
    monkeypatch.setattr(CdmSubmissionSensor, "log", logging.getLogger("tests.task"), raising=False)
    sim.add_job(JOB, outcome="FAILED", error_summary="no space left", seconds=100)
    sim.start(JOB)
    arguments = {**FLAGS[flag], **MODES[mode], "poke_interval": 120, "timeout": 1800}
    with pytest.raises(SKIPPED):
        task_runner.run(lambda: sensor_of_a_run(sim, **arguments))
    messages = [record.getMessage() for record in log.records if record.name == "tests.task"]
    assert flag in messages[-1]
    assert messages[-1].splitlines()[-1].startswith("Run 1: FAILED")
    assert sum("no space left" in message for message in messages) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", FLAGS)
def test_wrong_argument_means_the_same_in_every_mode(
    flag: str, mode: str, task_runner: TaskRunner
) -> None:
    """So does an argument that cannot be used."""
    expected = {
        "hard": errors.CdmConfigError,
        "soft_fail": errors.CdmConfigError,
        "never_fail": SKIPPED,
        "silent_fail": TIMED_OUT,
        "silent_fail and never_fail": TIMED_OUT,
        "silent_fail and soft_fail": SKIPPED,
    }[flag]
    with pytest.raises(expected):
        task_runner.run(
            lambda: CdmSubmissionSensor(
                task_id="t", job_name=JOB, submission_id="abc", poke_interval=60, timeout=300,
                **FLAGS[flag], **MODES[mode],
            )
        )  # fmt: skip


@pytest.mark.parametrize("config", [{"clusters": [{"name": "demo", "status": "800"}]}])
@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferred"])
@pytest.mark.parametrize("flag", FLAGS)
def test_unusable_cluster_means_the_same_in_every_mode(
    flag: str, mode: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """And so does the state of a cluster."""
    expected = {
        "hard": errors.CdmClusterUnusable,
        "soft_fail": SKIPPED,
        "never_fail": SKIPPED,
        "silent_fail": TIMED_OUT,
        "silent_fail and never_fail": TIMED_OUT,
        "silent_fail and soft_fail": SKIPPED,
    }[flag]
    with pytest.raises(expected):
        task_runner.run(
            lambda: CdmClusterSensor(
                task_id="t", poke_interval=60, timeout=300, **FLAGS[flag], **MODES[mode]
            )
        )


@pytest.mark.parametrize("mode", MODES)
def test_silent_fail_sees_a_success_after_failures(
    mode: str, sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """With ``silent_fail`` the sensor goes on after a failure, and succeeds with the run."""
    sim.add_job(JOB, seconds=500)
    sim.start(JOB)
    sim.fail("status", "status", status=403, times=3)
    result = task_runner.run(
        lambda: sensor_of_a_run(
            sim, silent_fail=True, poke_interval=60, timeout=3000, **MODES[mode]
        )
    )
    assert result["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("hard", AirflowException),
        ("soft_fail", SKIPPED),
        ("never_fail", SKIPPED),
        ("silent_fail", BaseException),
    ],
)
def test_failed_trigger(
    flag: str, expected: Any, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A trigger that failed skips the task, fails it, or is followed by another one."""
    sim.add_job(JOB, seconds=5000)
    sim.start(JOB)
    sensor = sensor_of_a_run(sim, deferrable=True, **FLAGS[flag])
    context: Any = {"ti": task_runner.ti, "task": sensor}
    with pytest.raises(expected) as raised:
        sensor.resume_execution("__fail__", {"error": "Trigger failure"}, context)
    if flag == "silent_fail":
        assert type(raised.value).__name__ == "TaskDeferred"
    if flag == "hard":
        assert not isinstance(raised.value, SKIPPED)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "reschedule"])
@pytest.mark.parametrize(
    ("flag", "is_skipped"),
    [("hard", False), ("soft_fail", True), ("never_fail", True), ("silent_fail", False)],
)
def test_execution_timeout_means_the_same_in_every_mode(
    flag: str,
    is_skipped: bool,
    mode: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``execution_timeout`` skips a sensor, or fails it, also when it is over between two pokes."""
    outlast(sim)
    module: Any = importlib.import_module(BaseSensorOperator.__module__)

    def end_attempt(_: float) -> None:
        raise AirflowTaskTimeout("as Airflow's signal handler does")

    if mode == "poke":
        monkeypatch.setattr(module.time, "sleep", end_attempt)
    expected = SKIPPED if is_skipped else (AirflowTaskTimeout, errors.CdmWaitTimeout)
    with pytest.raises(expected):
        task_runner.run(
            lambda: sensor_of_a_run(
                sim, execution_timeout=timedelta(minutes=10), poke_interval=60, timeout=3000,
                **FLAGS[flag], **MODES[mode],
            )
        )  # fmt: skip


@pytest.mark.parametrize(("attempt_began", "ends"), [(100, False), (3000, True)])
def test_trigger_that_fails_again_and_again_ends_at_the_timeout(
    attempt_began: float, ends: bool, sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """With ``silent_fail`` the time limit counts from the beginning of the attempt."""
    outlast(sim)
    sensor = sensor_of_a_run(sim, deferrable=True, silent_fail=True, timeout=3000)
    task_runner.ti.start_date = datetime.fromtimestamp(clock.now() - attempt_began, UTC)
    context: Any = {"ti": task_runner.ti, "task": sensor}
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - TaskDeferred is no Exception
        sensor.resume_execution("__fail__", {"error": "Trigger failure"}, context)
    assert isinstance(raised.value, TIMED_OUT) == ends
