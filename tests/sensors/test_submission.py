"""``CdmSubmissionSensor``, except how it judges runs (``tests/tasks/test_verdicts.py``)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pendulum
import pytest

from airflow_provider_cdm._compat import (
    STARTS_FROM_TRIGGER,
    AirflowSensorTimeout,
    AirflowSkipException,
)
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
if STARTS_FROM_TRIGGER:
    MODES["started in the triggerer"] = {"start_from_trigger": True}
all_modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def make_sensor(**arguments: Any) -> CdmSubmissionSensor:
    """Make the sensor under test."""
    return CdmSubmissionSensor(**{"task_id": "t", "poke_interval": 30, **arguments})


def clock_time(clock: ManualClock, seconds: float = 0) -> datetime:
    """Return the time of the test's clock plus some seconds."""
    return datetime.fromtimestamp(clock.now(), UTC) + timedelta(seconds=seconds)


@all_modes
@pytest.mark.parametrize("id_type", ["number", "text"])
def test_sensor_waits_for_the_run_with_a_submission_id(
    id_type: str, mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A run can be named by job and number, which a template renders as text."""
    sim.add_job(JOB, seconds=60)
    number = sim.start(JOB).submission_id
    submission_id = number if id_type == "number" else str(number)
    result = task_runner.run(lambda: make_sensor(job_name=JOB, submission_id=submission_id, **mode))
    assert (result["submission_id"], result["status"]) == (number, "SUCCEEDED")


@all_modes
@pytest.mark.parametrize(
    "time_format",
    [
        *("datetime", "naive", "iso", "another zone", "iso without zone", "compact", "nodash"),
        *("nodash with zone", "digits", "pendulum", "ms", "ms as text", "ms as float"),
    ],
)
def test_sensor_waits_for_the_first_run_after_an_instant(
    time_format: str,
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """``started_after`` names the first run since that instant, no earlier and no later one."""
    sim.add_job(JOB, outcomes=["FAILED", "SUCCEEDED", "FAILED"], seconds=10)
    sim.start(JOB)
    clock.advance(60)
    since = clock_time(clock)
    milliseconds = int(since.timestamp() * 1000)
    sim.start(JOB)
    clock.advance(60)
    sim.start(JOB)
    started_after = {
        "datetime": since,
        "naive": since.replace(tzinfo=None),
        "iso": since.isoformat(),
        "another zone": since.astimezone(timezone(timedelta(hours=8))).isoformat(),
        "iso without zone": since.replace(tzinfo=None).isoformat(),
        "compact": f"{since:%Y-%m-%d %H:%M:%S}Z",
        "nodash": f"{since:%Y%m%dT%H%M%S}",
        "nodash with zone": f"{since:%Y%m%dT%H%M%S}+0000",
        "digits": f" {since:%Y%m%d%H%M%S} ",
        "pendulum": pendulum.instance(since).in_timezone("Asia/Shanghai"),
        "ms as float": float(milliseconds),
        "ms": milliseconds,
        "ms as text": str(milliseconds),
    }[time_format]
    result = task_runner.run(lambda: make_sensor(job_name=JOB, started_after=started_after, **mode))
    assert (result["submission_id"], result["status"]) == (2, "SUCCEEDED")


@all_modes
@pytest.mark.parametrize("day", ["2025-01-03", "20250103", 20250103, date(2025, 1, 3)], ids=repr)
def test_sensor_waits_for_the_first_run_of_a_day(
    day: Any, mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A date is its midnight, and never milliseconds of 1970, which would mean the oldest run."""
    sim.add_job(JOB, seconds=10)
    midnight = datetime(2025, 1, 3, tzinfo=UTC).timestamp()
    clock.advance(midnight - 3600 - clock.now())
    sim.start(JOB)
    clock.advance(2 * 3600)
    sim.start(JOB)
    result = task_runner.run(lambda: make_sensor(job_name=JOB, started_after=day, **mode))
    assert result["submission_id"] == 2


@all_modes
@pytest.mark.parametrize(
    "value",
    [
        *(1735776000, "1735776000", 1735776000.5, "1735776000.5", "2025010203", "2025", "202501"),
        *("25.01.2025", "12:30", "20251399", "0", -1, "173577600000", True, timedelta(hours=1)),
    ],
    ids=repr,
)
def test_ambiguous_instant_is_refused_with_the_known_forms(
    value: Any, mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Epoch seconds and half dates may mean two things, so the error names the forms to use."""
    with pytest.raises(errors.CdmConfigError, match=r"^started_after") as raised:
        task_runner.run(lambda: make_sensor(job_name=JOB, started_after=value, **mode))
    assert "ISO 8601 text such as" in str(raised.value)
    assert "epoch milliseconds" in str(raised.value)
    assert sim.requests == []


@all_modes
def test_sensor_waits_until_a_run_is_started(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """The sensor waits until a run since the instant exists, and then follows it."""
    sim.add_job(JOB, seconds=10)
    sim.start(JOB)
    clock.advance(60)
    started_after = clock.now()

    def start_later() -> None:
        if clock.now() - started_after > 100 and len(sim.runs(JOB)) == 1:
            sim.start(JOB)

    clock.subscribe(start_later)
    result = task_runner.run(
        lambda: make_sensor(job_name=JOB, started_after=int(started_after * 1000), **mode)
    )
    assert result["submission_id"] == 2


@all_modes
def test_history_without_the_first_run_raises_outcome_unknown(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """CDM lists ten runs; if all of them are later than the instant, the first one cannot be
    determined.
    """
    sim.add_job(JOB)
    started_after = clock.now()
    for _ in range(12):
        sim.start(JOB)
        clock.advance(60)
    with pytest.raises(errors.CdmOutcomeUnknown, match="cannot be determined: CDM shows"):
        task_runner.run(
            lambda: make_sensor(job_name=JOB, started_after=int(started_after * 1000), **mode)
        )


@all_modes
@pytest.mark.parametrize("soft_fail", [False, True], ids=["hard", "soft"])
def test_failed_run_fails_or_skips_in_every_mode(
    soft_fail: bool, mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """In every mode a failed run fails the task, or skips it with ``soft_fail``."""
    sim.add_job(JOB, outcome="FAILED", seconds=60)
    number = sim.start(JOB).submission_id
    expected = AirflowSkipException if soft_fail else errors.CdmSubmissionFailed
    with pytest.raises(expected):
        task_runner.run(
            lambda: make_sensor(job_name=JOB, submission_id=number, soft_fail=soft_fail, **mode)
        )


@pytest.mark.parametrize(
    "mode",
    [mode for name, mode in MODES.items() if name != "reschedule"],
    ids=[name for name in MODES if name != "reschedule"],
)
@pytest.mark.parametrize("soft_fail", [False, True], ids=["hard", "soft"])
def test_timeout_fails_or_skips_the_task(
    soft_fail: bool, mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """After ``timeout`` seconds the sensor times out as every sensor does.

    The mode reschedule is not tested here: it reads the beginning of the wait from the metadata
    database, which is code of Airflow.
    """
    sim.add_job(JOB, seconds=10_000)
    number = sim.start(JOB).submission_id
    expected = AirflowSkipException if soft_fail else AirflowSensorTimeout
    with pytest.raises(expected):
        task_runner.run(
            lambda: make_sensor(
                job_name=JOB, submission_id=number, soft_fail=soft_fail, timeout=100, **mode
            )
        )


def test_each_poke_sends_one_status_call_and_no_second_history_call(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """In mode reschedule each poke is a process of its own, but the history is read only once."""
    sim.add_job(JOB, seconds=100)
    sim.start(JOB)
    task_runner.run(lambda: make_sensor(job_name=JOB, started_after=0, **MODES["reschedule"]))
    sent_routes = [request.route for request in sim.requests if request.route != "token"]
    assert sent_routes.count("submissions") == 1
    assert sent_routes.count("status") == task_runner.reschedules + 1
    assert task_runner.store.content == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "job_name must be text"),
        ({"job_name": JOB}, "Name the run"),
        ({"job_name": JOB, "submission_id": 1, "started_after": 5}, "Name the run"),
        ({"job_name": JOB, "submission_id": "abc"}, "must be an integer"),
        ({"job_name": JOB, "submission_id": True}, "must be an integer"),
        ({"job_name": JOB, "started_after": "yesterday"}, "ISO 8601"),
        ({"job_name": JOB, "started_after": [1]}, "must be a time"),
        ({"job_name": JOB, "started_after": "None"}, "rendered to nothing"),
        ({"submission": "x"}, "must be what CdmStartJobOperator returned"),
        ({"submission": "{'submission_id': 1}"}, "Pass the operator's output, as in"),
        ({"submission": 7}, "A run's number goes into submission_id, with job_name"),
        ({"submission": {"job_name": JOB}}, "names no run"),
        ({"submission": {"submission_id": 1}}, "job_name must be text"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_sent(
    arguments: dict[str, Any], message: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Invalid arguments raise one clear error before any request to CDM or IAM."""
    with pytest.raises(errors.CdmConfigError) as raised:
        task_runner.run(lambda: make_sensor(**arguments))
    assert message in str(raised.value)
    assert sim.requests == []


def test_templated_fields_are_rendered() -> None:
    """The fields that name the run are templated."""
    task = make_sensor(job_name="orders_{{ ds }}", started_after="{{ ts }}")
    task.render_template_fields({"ds": "2025-01-02", "ts": "2025-01-02T00:00:00+00:00"})
    assert (task.job_name, task.started_after) == (
        "orders_2025-01-02",
        "2025-01-02T00:00:00+00:00",
    )
