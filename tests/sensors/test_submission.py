"""CdmSubmissionSensor beyond the verdict table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_cdm._compat import AirflowSensorTimeout, AirflowSkipException
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.task_harness import TaskRunner

JOB = "orders"
MODES: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
    "deferred": {"deferrable": True},
}
all_modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def sensor(**arguments: Any) -> CdmSubmissionSensor:
    """Make the sensor under test."""
    return CdmSubmissionSensor(**{"task_id": "t", "poke_interval": 30, **arguments})


def instant(clock: ManualClock, seconds: float = 0) -> datetime:
    """A time relative to the test's clock."""
    return datetime.fromtimestamp(clock.now(), UTC) + timedelta(seconds=seconds)


@all_modes
@pytest.mark.parametrize("given", ["number", "text"])
def test_by_submission_id(
    given: str, mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A run can be named by job and number; a template renders the number as text."""
    sim.add_job(JOB, seconds=60)
    number = sim.start(JOB).submission_id
    wanted = number if given == "number" else str(number)
    result = task_runner.run(lambda: sensor(job_name=JOB, submission_id=wanted, **mode))
    assert (result["submission_id"], result["status"]) == (number, "SUCCEEDED")


@all_modes
@pytest.mark.parametrize("form", ["datetime", "naive", "iso", "ms", "ms as text"])
def test_by_started_after(
    form: str, mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """The first run since an instant is meant, not one before it and not a later one."""
    sim.add_job(JOB, outcomes=["FAILED", "SUCCEEDED", "FAILED"], seconds=10)
    sim.start(JOB)
    clock.advance(60)
    since = instant(clock)
    milliseconds = int(since.timestamp() * 1000)
    sim.start(JOB)
    clock.advance(60)
    sim.start(JOB)
    wanted = {
        "datetime": since,
        "naive": since.replace(tzinfo=None),
        "iso": since.isoformat(),
        "ms": milliseconds,
        "ms as text": str(milliseconds),
    }[form]
    result = task_runner.run(lambda: sensor(job_name=JOB, started_after=wanted, **mode))
    assert (result["submission_id"], result["status"]) == (2, "SUCCEEDED")


@all_modes
def test_waits_for_a_run_to_come(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """Until a run since the instant exists, the sensor waits, and then follows it."""
    sim.add_job(JOB, seconds=10)
    sim.start(JOB)
    clock.advance(60)
    begin = clock.now()

    def start_later() -> None:
        if clock.now() - begin > 100 and len(sim.runs(JOB)) == 1:
            sim.start(JOB)

    clock.subscribe(start_later)
    result = task_runner.run(lambda: sensor(job_name=JOB, started_after=int(begin * 1000), **mode))
    assert result["submission_id"] == 2


@all_modes
def test_an_unclear_history_is_an_error(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """CDM lists ten runs; when all of them are later than the instant, the first is not known."""
    sim.add_job(JOB)
    begin = clock.now()
    for _ in range(12):
        sim.start(JOB)
        clock.advance(60)
    with pytest.raises(errors.CdmOutcomeUnknown, match="which one was the first"):
        task_runner.run(lambda: sensor(job_name=JOB, started_after=int(begin * 1000), **mode))


@all_modes
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_soft_fail_is_the_same_everywhere(
    soft: bool, mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A failed run skips the task with ``soft_fail``, and fails it without, in each mode."""
    sim.add_job(JOB, outcome="FAILED", seconds=60)
    number = sim.start(JOB).submission_id
    expected = AirflowSkipException if soft else errors.CdmSubmissionFailed
    with pytest.raises(expected):
        task_runner.run(lambda: sensor(job_name=JOB, submission_id=number, soft_fail=soft, **mode))


@pytest.mark.parametrize("mode", [MODES["poke"], MODES["deferred"]], ids=["poke", "deferred"])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_timeout(
    soft: bool, mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """After ``timeout`` seconds the sensor times out as every sensor does.

    The reschedule mode reads its beginning from the metadata database and is Airflow's own code.
    """
    sim.add_job(JOB, seconds=10_000)
    number = sim.start(JOB).submission_id
    expected = AirflowSkipException if soft else AirflowSensorTimeout
    with pytest.raises(expected):
        task_runner.run(
            lambda: sensor(job_name=JOB, submission_id=number, soft_fail=soft, timeout=100, **mode)
        )


def test_a_poke_costs_one_call_and_remembers(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """In reschedule mode each poke is a process of its own, and still asks only once."""
    sim.add_job(JOB, seconds=100)
    sim.start(JOB)
    task_runner.run(lambda: sensor(job_name=JOB, started_after=0, **MODES["reschedule"]))
    asked = [request.route for request in sim.requests if request.route != "token"]
    assert asked.count("submissions") == 1
    assert asked.count("status") == task_runner.reschedules + 1
    assert task_runner.store.content == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "job_name must be text"),
        ({"job_name": JOB}, "Name the run"),
        ({"job_name": JOB, "submission_id": 1, "started_after": 5}, "Name the run"),
        ({"job_name": JOB, "submission_id": "abc"}, "whole number"),
        ({"job_name": JOB, "submission_id": True}, "whole number"),
        ({"job_name": JOB, "started_after": "yesterday"}, "ISO 8601"),
        ({"job_name": JOB, "started_after": [1]}, "must be a time"),
        ({"submission": "x"}, "must be what CdmStartJobOperator returned"),
        ({"submission": {"job_name": JOB}}, "names no run"),
        ({"submission": {"submission_id": 1}}, "job_name must be text"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], words: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Wrong arguments are one clear error; CDM and IAM hear nothing."""
    with pytest.raises(errors.CdmConfigError) as refusal:
        task_runner.run(lambda: sensor(**arguments))
    assert words in str(refusal.value)
    assert sim.requests == []


def test_templates() -> None:
    """Everything that names the run is templated."""
    task = sensor(job_name="orders_{{ ds }}", started_after="{{ ts }}")
    task.render_template_fields({"ds": "2025-01-02", "ts": "2025-01-02T00:00:00+00:00"})
    assert (task.job_name, task.started_after) == (
        "orders_2025-01-02",
        "2025-01-02T00:00:00+00:00",
    )
