"""One table judges a status, and every way of waiting comes to the same verdict.

Each row is a script of what CDM shows of the run, look after look; each column is a way of waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.task_harness import TaskRunner

JOB = "orders"
WORKER: dict[str, Any] = {"wait_for_completion": True, "deferrable": False, "poll_interval": 30}
PATHS: dict[str, Callable[[Any], Any]] = {
    "operator on the worker": lambda _: CdmStartJobOperator(task_id="t", job_name=JOB, **WORKER),
    "operator deferred": lambda _: CdmStartJobOperator(
        task_id="t", job_name=JOB, **{**WORKER, "deferrable": True}
    ),
    "sensor poke": lambda run: CdmSubmissionSensor(
        task_id="t", submission=run, deferrable=False, poke_interval=30
    ),
    "sensor reschedule": lambda run: CdmSubmissionSensor(
        task_id="t", submission=run, deferrable=False, poke_interval=30, mode="reschedule"
    ),
    "sensor deferred": lambda run: CdmSubmissionSensor(
        task_id="t", submission=run, deferrable=True, poke_interval=30
    ),
}
SUCCESS, FAILED, UNKNOWABLE = "success", errors.CdmSubmissionFailed, errors.CdmOutcomeUnknown
VERDICTS: dict[str, tuple[list[str], Any]] = {
    "straight": (["BOOTING", "RUNNING", "SUCCEEDED"], SUCCESS),
    "queued first": (["PENDING", "PENDING", "BOOTING", "RUNNING", "SUCCEEDED"], SUCCESS),
    "over at once": (["SUCCEEDED"], SUCCESS),
    "failed": (["RUNNING", "FAILED"], FAILED),
    "failed on submit": (["BOOTING", "FAILURE_ON_SUBMIT"], FAILED),
    "stopped": (["RUNNING", "STOPPED"], FAILED),
    "unknown for a while": (["RUNNING", *["UNKNOWN"] * 5, "RUNNING", "SUCCEEDED"], SUCCESS),
    "unknown for ever": (["RUNNING", "UNKNOWN"], UNKNOWABLE),
    "unlisted for a while": (["PAUSED", "PAUSED", "SUCCEEDED"], SUCCESS),
    "unlisted for ever": (["PAUSED"], UNKNOWABLE),
    "lower case is unlisted": (["succeeded"], UNKNOWABLE),
    "not visible for a while": (["NEVER_EXECUTED", "NEVER_EXECUTED", "SUCCEEDED"], SUCCESS),
    "not visible for ever": (["NEVER_EXECUTED"], UNKNOWABLE),
}


def wait(sim: CdmSimulator, task_runner: TaskRunner, path: str) -> Any:
    """Go one way of waiting to its end: the result, or the error."""
    run = None
    if path.startswith("sensor"):
        started = sim.start(JOB)
        run = {
            "cluster_id": sim.cluster_id,
            "job_name": JOB,
            "submission_id": started.submission_id,
        }
    try:
        return task_runner.run(lambda: PATHS[path](run))
    except errors.CdmError as error:
        return error


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("row", VERDICTS)
def test_status_by_path(row: str, path: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Every way of waiting judges what CDM shows in the same way."""
    statuses, expected = VERDICTS[row]
    sim.add_job(JOB, statuses=statuses)
    outcome = wait(sim, task_runner, path)
    if expected == SUCCESS:
        assert not isinstance(outcome, Exception), outcome
        assert outcome["status"] == "SUCCEEDED"
        assert outcome["submission_id"] == sim.runs(JOB)[-1].submission_id
    else:
        assert type(outcome) is expected, outcome
        assert outcome.submission.job_name == JOB


@pytest.mark.parametrize("path", PATHS)
def test_an_empty_list_is_no_success(path: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A status answer without submissions never ends a wait well."""
    sim.add_job(JOB, statuses=["RUNNING"])
    sim.fail("status", "body", times=None, body='{"submissions": []}')
    assert type(wait(sim, task_runner, path)) is UNKNOWABLE


@pytest.mark.parametrize("path", PATHS)
def test_a_deleted_job_is_no_success(path: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """When the job disappears, the outcome cannot be known, and the task says so."""
    sim.add_job(JOB, statuses=["RUNNING"])
    gone = '{"errCode": "Cdm.0054", "externalMessage": "Job[orders] doesn\'t exist."}'
    sim.fail("status", "status", times=None, skip=1, status=400, body=gone)
    outcome = wait(sim, task_runner, path)
    assert type(outcome) is UNKNOWABLE
    assert "no longer exists" in str(outcome)


@pytest.mark.parametrize("path", PATHS)
def test_an_outage_is_borne_and_then_reported(
    path: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """CDM may be away for minutes; after ten the wait ends as unavailable, not as failed."""
    sim.add_job(JOB, statuses=["RUNNING"])
    sim.fail("status", "status", times=None, status=503)
    outcome = wait(sim, task_runner, path)
    assert type(outcome) is errors.CdmUnavailable
    assert "left alone" in str(outcome)


@pytest.mark.parametrize("path", PATHS)
def test_a_short_outage_is_forgotten(path: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A wait goes on after some minutes without an answer."""
    sim.add_job(JOB, statuses=["RUNNING", "RUNNING", "SUCCEEDED"])
    sim.fail("status", "status", times=22, status=503)
    assert wait(sim, task_runner, path)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("path", [path for path in PATHS if path.startswith("sensor")])
def test_an_earlier_success_decides_nothing(
    path: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """While the status still shows the run before, the sensor waits for the one it was given."""
    sim.add_job(JOB)
    sim.start(JOB)
    sim.clock.advance(60)  # type: ignore[attr-defined]  # a ManualClock in tests
    sim.add_job(JOB, statuses=["RUNNING", "FAILED"])
    stale = (
        '{"submissions": [{"submission-id": 1, "job-name": "orders", "status": "SUCCEEDED",'
        ' "creation-date": 1}]}'
    )
    sim.fail("status", "body", times=2, body=stale)
    assert type(wait(sim, task_runner, path)) is FAILED


@pytest.mark.parametrize("path", [path for path in PATHS if path.startswith("sensor")])
@pytest.mark.parametrize(("ours", "theirs"), [("FAILED", "SUCCEEDED"), ("SUCCEEDED", "FAILED")])
def test_a_later_run_by_somebody_else_decides_nothing(
    ours: str, theirs: str, path: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """When the status shows a later run, the sensor looks its own up in the history."""
    sim.add_job(JOB, outcomes=[ours, theirs])
    sim.start(JOB)
    sim.clock.advance(60)  # type: ignore[attr-defined]  # a ManualClock in tests
    run = {"cluster_id": sim.cluster_id, "job_name": JOB, "submission_id": 1}
    sim.start(JOB)
    if ours == "SUCCEEDED":
        assert task_runner.run(lambda: PATHS[path](run))["submission_id"] == 1
    else:
        with pytest.raises(errors.CdmSubmissionFailed) as failure:
            task_runner.run(lambda: PATHS[path](run))
        assert failure.value.submission.submission_id == 1
