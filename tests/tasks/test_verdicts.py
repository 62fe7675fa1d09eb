"""Every way of waiting for a run comes to the same verdict about what CDM shows.

Each row is a script of the statuses that CDM shows, poll by poll, and each column is a way of
waiting.
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
OPERATOR_ARGUMENTS: dict[str, Any] = {
    "wait_for_completion": True,
    "deferrable": False,
    "poll_interval": 30,
}
WAITERS: dict[str, Callable[[Any], Any]] = {
    "operator on the worker": lambda _: CdmStartJobOperator(
        task_id="t", job_name=JOB, **OPERATOR_ARGUMENTS
    ),
    "operator deferred": lambda _: CdmStartJobOperator(
        task_id="t", job_name=JOB, **{**OPERATOR_ARGUMENTS, "deferrable": True}
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
SUCCESS, FAILED, UNKNOWN = "success", errors.CdmSubmissionFailed, errors.CdmOutcomeUnknown
VERDICTS: dict[str, tuple[list[str], Any]] = {
    "straight": (["BOOTING", "RUNNING", "SUCCEEDED"], SUCCESS),
    "queued first": (["PENDING", "PENDING", "BOOTING", "RUNNING", "SUCCEEDED"], SUCCESS),
    "ended at once": (["SUCCEEDED"], SUCCESS),
    "failed": (["RUNNING", "FAILED"], FAILED),
    "failed on submit": (["BOOTING", "FAILURE_ON_SUBMIT"], FAILED),
    "stopped": (["RUNNING", "STOPPED"], FAILED),
    "unknown for a while": (["RUNNING", *["UNKNOWN"] * 5, "RUNNING", "SUCCEEDED"], SUCCESS),
    "unknown forever": (["RUNNING", "UNKNOWN"], UNKNOWN),
    "unlisted for a while": (["PAUSED", "PAUSED", "SUCCEEDED"], SUCCESS),
    "unlisted forever": (["PAUSED"], UNKNOWN),
    "capitals make no difference": (["running", "succeeded"], SUCCESS),
    "stopped, in small letters": (["running", "stopped"], FAILED),
    "not visible for a while": (["NEVER_EXECUTED", "NEVER_EXECUTED", "SUCCEEDED"], SUCCESS),
    "not visible forever": (["NEVER_EXECUTED"], UNKNOWN),
}


def wait_for_run(sim: CdmSimulator, task_runner: TaskRunner, waiter: str) -> Any:
    """Run a task that waits for a run, and return its result or its error."""
    run = None
    if waiter.startswith("sensor"):
        started = sim.start(JOB)
        run = {
            "cluster_id": sim.cluster_id,
            "job_name": JOB,
            "submission_id": started.submission_id,
        }
    try:
        return task_runner.run(lambda: WAITERS[waiter](run))
    except errors.CdmError as error:
        return error


@pytest.mark.parametrize("waiter", WAITERS)
@pytest.mark.parametrize("script", VERDICTS)
def test_every_waiter_gives_the_same_verdict(
    script: str, waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Every way of waiting gives the same verdict about the same statuses."""
    statuses, expected = VERDICTS[script]
    sim.add_job(JOB, statuses=statuses)
    outcome = wait_for_run(sim, task_runner, waiter)
    if expected == SUCCESS:
        assert not isinstance(outcome, Exception), outcome
        assert outcome["status"] == "SUCCEEDED"
        assert outcome["submission_id"] == sim.runs(JOB)[-1].submission_id
    else:
        assert type(outcome) is expected, outcome
        assert outcome.submission.job_name == JOB


@pytest.mark.parametrize("waiter", WAITERS)
def test_status_without_submissions_is_no_success(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A status response without submissions never makes the task succeed."""
    sim.add_job(JOB, statuses=["RUNNING"])
    sim.fail("status", "body", times=None, body='{"submissions": []}')
    assert type(wait_for_run(sim, task_runner, waiter)) is UNKNOWN


@pytest.mark.parametrize("waiter", WAITERS)
def test_deleted_job_raises_outcome_unknown(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """When the job was deleted, the outcome of its run is unknown, and the error says so."""
    sim.add_job(JOB, statuses=["RUNNING"])
    not_found_body = '{"errCode": "Cdm.0054", "externalMessage": "Job[orders] doesn\'t exist."}'
    sim.fail("status", "status", times=None, skip=1, status=400, body=not_found_body)
    outcome = wait_for_run(sim, task_runner, waiter)
    assert type(outcome) is UNKNOWN
    assert "no longer exists" in str(outcome)


@pytest.mark.parametrize("waiter", WAITERS)
def test_long_outage_raises_unavailable(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """After an outage of ten minutes the wait ends with ``CdmUnavailable``, not as a failed run."""
    sim.add_job(JOB, statuses=["RUNNING"])
    sim.fail("status", "status", times=None, status=503)
    outcome = wait_for_run(sim, task_runner, waiter)
    assert type(outcome) is errors.CdmUnavailable
    assert "was not stopped" in str(outcome)


@pytest.mark.parametrize("waiter", WAITERS)
def test_wait_continues_after_a_short_outage(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The wait continues after an outage of some minutes."""
    sim.add_job(JOB, statuses=["RUNNING", "RUNNING", "SUCCEEDED"])
    sim.fail("status", "status", times=22, status=503)
    assert wait_for_run(sim, task_runner, waiter)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("waiter", [waiter for waiter in WAITERS if waiter.startswith("sensor")])
def test_success_of_an_earlier_run_is_ignored(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """While the status call still shows the earlier run, the sensor waits for the run that it was
    given.
    """
    sim.add_job(JOB)
    sim.start(JOB)
    sim.clock.advance(60)  # type: ignore[attr-defined]  # a ManualClock in tests
    sim.add_job(JOB, statuses=["RUNNING", "FAILED"])
    earlier_run_body = (
        '{"submissions": [{"submission-id": 1, "job-name": "orders", "status": "SUCCEEDED",'
        ' "creation-date": 1}]}'
    )
    sim.fail("status", "body", times=2, body=earlier_run_body)
    assert type(wait_for_run(sim, task_runner, waiter)) is FAILED


@pytest.mark.parametrize("waiter", [waiter for waiter in WAITERS if waiter.startswith("sensor")])
@pytest.mark.parametrize(
    ("awaited_outcome", "later_outcome"), [("FAILED", "SUCCEEDED"), ("SUCCEEDED", "FAILED")]
)
def test_outcome_of_a_later_run_is_ignored(
    awaited_outcome: str,
    later_outcome: str,
    waiter: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
) -> None:
    """When the status call shows a later run, the sensor reads its own run from the history."""
    sim.add_job(JOB, outcomes=[awaited_outcome, later_outcome])
    sim.start(JOB)
    sim.clock.advance(60)  # type: ignore[attr-defined]  # a ManualClock in tests
    run = {"cluster_id": sim.cluster_id, "job_name": JOB, "submission_id": 1}
    sim.start(JOB)
    if awaited_outcome == "SUCCEEDED":
        assert task_runner.run(lambda: WAITERS[waiter](run))["submission_id"] == 1
    else:
        with pytest.raises(errors.CdmSubmissionFailed) as failure:
            task_runner.run(lambda: WAITERS[waiter](run))
        assert failure.value.submission.submission_id == 1
