"""``CdmSubmissionTrigger`` as Airflow's triggerer runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import Any

import pytest

from airflow_provider_cdm._compat import FRAMES_COME_FIRST, aget_connection
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.triggers.event import SubmissionEvent
from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger

JOB = "orders"


def run_trigger(
    trigger: CdmSubmissionTrigger, part: Callable[[Any], Any] = attrgetter("payload")
) -> list[Any]:
    """Run a trigger to its end and return the payloads of its events, or another part of them."""

    async def collect() -> list[Any]:
        return [part(event) async for event in trigger.run()]

    return asyncio.run(collect())


def test_serialized_trigger_can_be_restored() -> None:
    """The serialized form of a trigger makes the same trigger again."""
    trigger = CdmSubmissionTrigger(
        job_name=JOB, cluster_id="c", submission_id=1, deadline=5.5, project_id="p"
    )
    path, arguments = trigger.serialize()
    assert path == "airflow_provider_cdm.triggers.CdmSubmissionTrigger"
    assert CdmSubmissionTrigger(**arguments).serialize() == (path, arguments)


def test_trigger_yields_one_event_with_the_submission(
    sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """The trigger yields one event, with the complete submission."""
    sim.add_job(JOB, outcome="FAILED", error_summary="no space", seconds=60)
    number = sim.start(JOB).submission_id
    (payload,) = run_trigger(
        CdmSubmissionTrigger(job_name=JOB, cluster_id=sim.cluster_id, submission_id=number)
    )
    assert SubmissionEvent.unwrap(payload).error_summary == "no space"


@pytest.mark.skipif(not FRAMES_COME_FIRST, reason="the log of the task does not show the event")
@pytest.mark.parametrize("outcome", ["SUCCEEDED", "FAILED"])
def test_event_is_short_in_the_log(
    outcome: str, sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """The event, which Airflow 2 writes into the log of the task, says how the run ended, and not
    "error", for which Airflow 2 shows a line in red.
    """
    sim.add_job(JOB, outcome=outcome, error_details="error " * 1000, seconds=60)
    number = sim.start(JOB).submission_id
    trigger = CdmSubmissionTrigger(job_name=JOB, cluster_id=sim.cluster_id, submission_id=number)
    (event,) = run_trigger(trigger, lambda event: event)
    assert f"fired: {event}" == f"fired: run 1: {outcome}"


def test_first_poll_comes_after_five_seconds(
    sim: CdmSimulator, cdm_default: dict[str, Any], virtual_time: Any
) -> None:
    """The first poll comes when Airflow has had time to record the deferral, but before
    ``poll_interval``.
    """
    sim.add_job(JOB)
    number = sim.start(JOB).submission_id
    run_trigger(
        CdmSubmissionTrigger(
            job_name=JOB, cluster_id=sim.cluster_id, submission_id=number, poll_interval=45
        )
    )
    assert virtual_time.slept == [5]


def test_triggers_that_begin_together_look_the_connection_up_once(
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Triggers that begin together look their connection up once, since Airflow does much work for
    each look-up.
    """
    lookups: list[str] = []

    async def counting_lookup(conn_id: str) -> Any:
        lookups.append(conn_id)
        await asyncio.sleep(0)
        return await aget_connection(conn_id)

    monkeypatch.setattr("airflow_provider_cdm.connection.lookup.aget_connection", counting_lookup)
    sim.add_job(JOB, seconds=60)
    number = sim.start(JOB).submission_id
    clock.advance(60)

    async def run_one() -> list[Any]:
        trigger = CdmSubmissionTrigger(
            job_name=JOB, cluster_id=sim.cluster_id, submission_id=number
        )
        return [event.payload async for event in trigger.run()]

    async def run_many() -> list[Any]:
        first, *others = [asyncio.create_task(run_one()) for _ in range(200)]
        await asyncio.sleep(0)
        first.cancel()
        return list(await asyncio.gather(*others))

    payloads = asyncio.run(run_many())
    assert lookups == ["cdm_default"]
    assert {SubmissionEvent.unwrap(payload).status for (payload,) in payloads} == {"SUCCEEDED"}


def test_failed_lookup_of_the_connection_is_not_cached(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was missing a moment ago is found by the next trigger."""
    sim.add_job(JOB)
    number = sim.start(JOB).submission_id

    async def run_one() -> Any:
        trigger = CdmSubmissionTrigger(
            job_name=JOB, cluster_id=sim.cluster_id, submission_id=number, cdm_conn_id="late"
        )
        (payload,) = [event.payload async for event in trigger.run()]
        return payload

    async def run_two() -> list[Any]:
        first = await run_one()
        monkeypatch.setenv("AIRFLOW_CONN_LATE", sim.connection_json)
        return [first, await run_one()]

    first, second = asyncio.run(run_two())
    assert first["error"]
    assert SubmissionEvent.unwrap(second).status == "SUCCEEDED"


def test_missing_connection_is_reported_by_an_event(cdm_default: dict[str, Any]) -> None:
    """A trigger that cannot use its connection yields an event with the error, which fails the
    task.
    """
    (payload,) = run_trigger(
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
def test_error_keeps_its_type_from_the_triggerer_to_the_worker(error: errors.CdmError) -> None:
    """An error in the triggerer is raised on the worker with the same type and attributes."""
    event = SubmissionEvent(getattr(error, "submission", None), error)
    with pytest.raises(type(error)) as raised:
        SubmissionEvent.unwrap(event.to_payload())
    for name in ("message", "http_status", "code", "request_id", "retryable"):
        assert getattr(raised.value, name) == getattr(error, name)
    assert getattr(raised.value, "submission", None) == getattr(error, "submission", None)


def test_cancelled_trigger_yields_no_event_and_stops_nothing(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled trigger yields no event and stops no run, since Airflow will run it elsewhere."""
    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.TRIGGERS_HAVE_ON_KILL", True)
    asyncio.run(cancel_while_waiting(trigger_of_a_long_run(sim), sim))
    assert [request.route for request in sim.requests].count("stop") == 0


def trigger_of_a_long_run(sim: CdmSimulator, **arguments: Any) -> CdmSubmissionTrigger:
    """Return a trigger for an active run that takes long."""
    sim.add_job(JOB, seconds=10_000)
    number = sim.start(JOB).submission_id
    return CdmSubmissionTrigger(
        job_name=JOB,
        cluster_id=sim.cluster_id,
        submission_id=number,
        poll_interval=1,
        **{"cancel_on_kill": True, **arguments},
    )


async def cancel_while_waiting(trigger: CdmSubmissionTrigger, sim: CdmSimulator) -> None:
    """Cancel a trigger after its first poll, as the triggerer does."""
    task = asyncio.ensure_future(anext(trigger.run()))  # type: ignore[arg-type,var-annotated,unused-ignore]
    while not any(request.route == "status" for request in sim.requests):  # noqa: ASYNC110 - the server is another thread
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("cancel_on_kill", "later_run", "state", "expected"),
    [
        (True, False, "failed", "STOPPED"),
        (False, False, "failed", "RUNNING"),
        (True, True, "failed", "RUNNING"),
        (True, False, "deferred", "RUNNING"),
    ],
    ids=["ours", "switched off", "somebody else's", "another triggerer has it"],
)
def test_on_kill_stops_the_run_of_a_task_that_was_ended(
    cancel_on_kill: bool,
    later_run: bool,
    state: str,
    expected: str,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``on_kill`` stops the run that the task waited for, even while ``on_kill`` itself is
    cancelled.
    """

    async def read_task_state(_: Any) -> str:
        return state

    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.TRIGGERS_HAVE_ON_KILL", True)
    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.aget_task_state", read_task_state)
    trigger = trigger_of_a_long_run(sim, cancel_on_kill=cancel_on_kill)

    async def kill() -> None:
        await cancel_while_waiting(trigger, sim)
        if later_run:
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
def test_cancellation_stops_the_run_of_an_ended_task_below_airflow_3_3(
    state: str | None,
    expected: str,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where triggers have no ``on_kill``, the state of the task shows whether a user ended it or
    the triggerer restarts.
    """

    async def read_task_state(_: Any) -> str | None:
        if state == "?":
            raise OSError("the metadata database is away")
        return state

    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.TRIGGERS_HAVE_ON_KILL", False)
    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.aget_task_state", read_task_state)
    asyncio.run(cancel_while_waiting(trigger_of_a_long_run(sim), sim))
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == expected


@pytest.mark.long
@pytest.mark.parametrize(
    ("status", "body", "repeated"),
    [
        (403, {"error_code": "APIGW.0302", "error_msg": "no"}, False),
        (401, {"error": {"code": "EPS.0003", "message": "no"}}, False),
        (401, {"error_code": "APIGW.0307", "error_msg": "no"}, True),
    ],
)
def test_kill_without_permission_is_not_repeated(
    status: int,
    body: Any,
    repeated: bool,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stop that a policy forbids is given up; one with refused credentials is tried again."""

    async def read_task_state(_: Any) -> str:
        return "failed"

    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.aget_task_state", read_task_state)
    trigger = trigger_of_a_long_run(sim)
    sim.fail("stop", "status", status=status, body=body, times=None)
    asyncio.run(trigger.on_kill())
    stops = [request for request in sim.requests if request.route == "stop"]
    assert (len(stops) > 2) is repeated


@pytest.mark.long
@pytest.mark.parametrize("status", [503, 429, 401, 403])
def test_kill_that_stops_nothing_ends_within_its_time(
    status: int,
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    """Whatever CDM answers, ``on_kill`` ends by the session's clock, and the log names the run."""

    async def read_task_state(_: Any) -> str:
        return "failed"

    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.aget_task_state", read_task_state)
    trigger = trigger_of_a_long_run(sim)
    sim.fail("stop", "status", status=status, times=None)
    asyncio.run(trigger.on_kill())
    (line,) = [line for line in log.messages if "could not be stopped" in line]
    assert f"run 1 of job '{JOB}' could not be stopped" in line
    assert "CdmHook('cdm_default').stop_job(" in line
    assert f"HTTP {status}" in line
