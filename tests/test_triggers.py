"""CdmSubmissionTrigger as Airflow's triggerer sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.models import Submission
from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.triggers import CdmSubmissionTrigger, SubmissionEvent

JOB = "orders"


def events(trigger: CdmSubmissionTrigger) -> list[Any]:
    """Run a trigger to its end and return its payloads."""

    async def gather() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    return asyncio.run(gather())


def test_round_trip() -> None:
    """What is serialised makes the same trigger again."""
    trigger = CdmSubmissionTrigger(
        job_name=JOB, cluster_id="c", submission_id=1, deadline=5.5, project_id="p"
    )
    path, arguments = trigger.serialize()
    assert path == "airflow_provider_cdm.triggers.CdmSubmissionTrigger"
    assert CdmSubmissionTrigger(**arguments).serialize() == (path, arguments)


def test_one_event_with_the_end(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """The trigger reports once, with the whole submission."""
    sim.add_job(JOB, outcome="FAILED", error_summary="no space", seconds=60)
    number = sim.start(JOB).submission_id
    (payload,) = events(
        CdmSubmissionTrigger(job_name=JOB, cluster_id=sim.cluster_id, submission_id=number)
    )
    assert SubmissionEvent.unwrap(payload).error_summary == "no space"


def test_first_look_comes_after_the_interval(
    sim: CdmSimulator, cdm_default: dict[str, Any], virtual_time: Any
) -> None:
    """Airflow needs a moment to settle a deferral, so the trigger does not look at once."""
    sim.add_job(JOB)
    number = sim.start(JOB).submission_id
    events(
        CdmSubmissionTrigger(
            job_name=JOB, cluster_id=sim.cluster_id, submission_id=number, poll_interval=45
        )
    )
    assert virtual_time.slept == [45]


def test_an_unusable_connection_is_an_event(cdm_default: dict[str, Any]) -> None:
    """A trigger that cannot begin reports why, and the task fails with it."""
    (payload,) = events(
        CdmSubmissionTrigger(
            job_name=JOB, cluster_id="c", submission_id=1, cdm_conn_id="no_such_connection"
        )
    )
    with pytest.raises(errors.CdmError, match="no_such_connection"):
        SubmissionEvent.unwrap(payload)


@pytest.mark.parametrize(
    "error",
    [
        errors.CdmUnavailable("away", http_status=503, code="APIGW.0610", request_id="r-1"),
        errors.CdmWaitTimeout("over", Submission("c", JOB, "RUNNING", 1)),
        errors.CdmOutcomeUnknown("gone", Submission("c", JOB, "UNKNOWN", 1)),
        errors.CdmAuthError("no", http_status=401),
    ],
)
def test_errors_cross_with_their_type(error: errors.CdmError) -> None:
    """An error in the triggerer is the same typed error on the worker."""
    event = SubmissionEvent(getattr(error, "submission", None), error)
    with pytest.raises(type(error)) as raised:
        SubmissionEvent.unwrap(event.to_payload())
    for name in ("message", "http_status", "code", "request_id", "retryable"):
        assert getattr(raised.value, name) == getattr(error, name)
    assert getattr(raised.value, "submission", None) == getattr(error, "submission", None)


def test_cancellation_passes(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """A trigger that is cancelled ends without an event; Airflow will run it again elsewhere."""
    sim.add_job(JOB, seconds=10_000)
    number = sim.start(JOB).submission_id
    trigger = CdmSubmissionTrigger(
        job_name=JOB, cluster_id=sim.cluster_id, submission_id=number, poll_interval=1
    )

    async def cancel() -> None:
        task = asyncio.ensure_future(anext(trigger.run()))
        while not any(  # noqa: ASYNC110 - the server is another thread
            request.route == "status" for request in sim.requests
        ):
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert sim.runs(JOB)[-1].status == "RUNNING"
