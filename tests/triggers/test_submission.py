"""CdmSubmissionTrigger as Airflow's triggerer sees it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_cdm._compat import aget_connection
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger, SubmissionEvent

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


def test_first_look_comes_soon_but_not_at_once(
    sim: CdmSimulator, cdm_default: dict[str, Any], virtual_time: Any
) -> None:
    """Airflow needs a moment to settle a deferral; a short run is not kept waiting after that."""
    sim.add_job(JOB)
    number = sim.start(JOB).submission_id
    events(
        CdmSubmissionTrigger(
            job_name=JOB, cluster_id=sim.cluster_id, submission_id=number, poll_interval=45
        )
    )
    assert virtual_time.slept == [5]


def test_one_look_up_for_all_that_begin_together(
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When a triggerer begins with hundreds of waits it reads their connection once; each look-up
    would have Airflow go through all of them.
    """
    asked: list[str] = []

    async def noticed(conn_id: str) -> Any:
        asked.append(conn_id)
        await asyncio.sleep(0)
        return await aget_connection(conn_id)

    monkeypatch.setattr("airflow_provider_cdm.hooks.aget_connection", noticed)
    sim.add_job(JOB, seconds=60)
    number = sim.start(JOB).submission_id
    clock.advance(60)

    async def one() -> list[Any]:
        trigger = CdmSubmissionTrigger(
            job_name=JOB, cluster_id=sim.cluster_id, submission_id=number
        )
        return [event.payload async for event in trigger.run()]

    async def crowd() -> list[Any]:
        first, *others = [asyncio.create_task(one()) for _ in range(200)]
        await asyncio.sleep(0)
        first.cancel()
        return list(await asyncio.gather(*others))

    found = asyncio.run(crowd())
    assert asked == ["cdm_default"]
    assert {SubmissionEvent.unwrap(payload).status for (payload,) in found} == {"SUCCEEDED"}


def test_a_look_up_that_failed_is_not_kept(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was missing a moment ago is found by the next trigger."""
    sim.add_job(JOB)
    number = sim.start(JOB).submission_id

    async def one() -> Any:
        trigger = CdmSubmissionTrigger(
            job_name=JOB, cluster_id=sim.cluster_id, submission_id=number, cdm_conn_id="late"
        )
        (payload,) = [event.payload async for event in trigger.run()]
        return payload

    async def twice() -> list[Any]:
        first = await one()
        monkeypatch.setenv("AIRFLOW_CONN_LATE", sim.connection_json)
        return [first, await one()]

    first, second = asyncio.run(twice())
    assert first["error"]
    assert SubmissionEvent.unwrap(second).status == "SUCCEEDED"


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


def test_cancellation_passes_and_stops_nothing(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger that is cancelled ends without an event; Airflow will run it again elsewhere."""
    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.TRIGGERS_HAVE_ON_KILL", True)
    asyncio.run(cancelled_while_waiting(waiting_trigger(sim), sim))
    assert [request.route for request in sim.requests].count("stop") == 0


def waiting_trigger(sim: CdmSimulator, **arguments: Any) -> CdmSubmissionTrigger:
    """A trigger for a run that goes on for long."""
    sim.add_job(JOB, seconds=10_000)
    number = sim.start(JOB).submission_id
    return CdmSubmissionTrigger(
        job_name=JOB,
        cluster_id=sim.cluster_id,
        submission_id=number,
        poll_interval=1,
        **{"cancel_on_kill": True, **arguments},
    )


async def cancelled_while_waiting(trigger: CdmSubmissionTrigger, sim: CdmSimulator) -> None:
    """Cancel a trigger after its first look, as the triggerer does."""
    task = asyncio.ensure_future(anext(trigger.run()))  # type: ignore[arg-type,var-annotated,unused-ignore]
    while not any(request.route == "status" for request in sim.requests):  # noqa: ASYNC110 - the server is another thread
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("cancel_on_kill", "foreign", "state", "expected"),
    [
        (True, False, "failed", "STOPPED"),
        (False, False, "failed", "RUNNING"),
        (True, True, "failed", "RUNNING"),
        (True, False, "deferred", "RUNNING"),
    ],
    ids=["ours", "switched off", "somebody else's", "another triggerer has it"],
)
def test_on_kill(
    cancel_on_kill: bool,
    foreign: bool,
    state: str,
    expected: str,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``on_kill`` stops the run that the task waited for, also while it is cancelled itself."""

    async def look(_: Any) -> str:
        return state

    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.TRIGGERS_HAVE_ON_KILL", True)
    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.aget_task_state", look)
    trigger = waiting_trigger(sim, cancel_on_kill=cancel_on_kill)

    async def kill() -> None:
        await cancelled_while_waiting(trigger, sim)
        if foreign:
            sim.stop(JOB)
            clock.advance(60)
            sim.start(JOB)
            clock.advance(60)
        killing = asyncio.ensure_future(trigger.on_kill())
        for _ in range(3):
            await asyncio.sleep(0)
            killing.cancel()
        await killing

    asyncio.run(kill())
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [("deferred", "RUNNING"), ("failed", "STOPPED"), (None, "STOPPED"), ("?", "RUNNING")],
    ids=["triggerer restart", "marked failed", "cleared", "unreadable"],
)
def test_cancelled_below_airflow_3_3(
    state: str | None,
    expected: str,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where triggers hear of no kill, the task's state tells a user's act from a restart."""

    async def look(_: Any) -> str | None:
        if state == "?":
            raise OSError("the metadata database is away")
        return state

    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.TRIGGERS_HAVE_ON_KILL", False)
    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.aget_task_state", look)
    asyncio.run(cancelled_while_waiting(waiting_trigger(sim), sim))
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == expected
