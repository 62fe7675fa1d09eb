"""The triggerer's shared poller against the simulator: many waits, few calls, no interference."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_cdm._compat import DEFERRAL_MARGIN, AirflowSkipException
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.jobs.refusals import REFUSED_SECONDS
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.simulator.clock import SystemClock
from airflow_provider_cdm.triggers import poller as poller_module
from airflow_provider_cdm.triggers.event import SubmissionEvent
from airflow_provider_cdm.triggers.poller import ClusterPoller, shared_poller
from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger

JOB = "orders"
TWO_CLUSTERS = {
    "quotas": "documented",
    "clusters": [{"name": "one", "id": "first"}, {"name": "two", "id": "second"}],
}


def calls_by_route(sim: CdmSimulator) -> Counter[str]:
    """Count the calls of each route, except those for tokens."""
    return Counter(request.route for request in sim.requests if request.route != "token")


def throttled(sim: CdmSimulator) -> int:
    """Count the calls that got 429."""
    return sum(request.status == 429 for request in sim.requests)


def start_jobs(sim: CdmSimulator, count: int, cluster: str | None = None, **job: Any) -> list[Any]:
    """Start some jobs, and return a trigger for each."""
    triggers = []
    for number in range(count):
        name = f"{JOB}_{number:04}"
        sim.add_job(name, cluster, **{"seconds": 300 + 7 * (number % 100), **job})
        run = sim.start(name, cluster)
        triggers.append(
            CdmSubmissionTrigger(
                job_name=name,
                cluster_id=cluster or sim.cluster_id,
                submission_id=run.submission_id,
                creation_date=int(run.created * 1000),
            )
        )
    return triggers


def run_triggers(triggers: list[CdmSubmissionTrigger]) -> list[Any]:
    """Run triggers in one event loop, as a triggerer does, and return the payloads."""

    async def events(trigger: CdmSubmissionTrigger) -> list[Any]:
        return [event.payload async for event in trigger.run()]

    async def gather() -> list[Any]:
        results = await asyncio.gather(*map(events, triggers))
        assert [len(payloads) for payloads in results] == [1] * len(triggers)
        return [payload for (payload,) in results]

    return asyncio.run(gather())


def run_in_task(trigger: CdmSubmissionTrigger) -> asyncio.Task[Any]:
    """Run a trigger until its event, in a task of its own."""

    async def event() -> Any:
        return await anext(trigger.run())

    return asyncio.ensure_future(event())


def statuses(triggers: list[CdmSubmissionTrigger]) -> Counter[str]:
    """Run triggers, and count the final statuses, or the errors that ended the waits."""
    results: Counter[str] = Counter()
    for payload in run_triggers(triggers):
        try:
            results[SubmissionEvent.unwrap(payload).status] += 1
        except errors.CdmError as error:
            results[type(error).__name__] += 1
    return results


@pytest.mark.long
@pytest.mark.parametrize("config", [{"quotas": "documented"}])
def test_many_waits_keep_within_the_quota(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """Three hundred waits on one cluster get no 429, and need few calls."""
    assert statuses(start_jobs(sim, 300)) == {"SUCCEEDED": 300}
    assert throttled(sim) == 0
    # A poll of each every 30 s would be 6,500 calls, and take an hour of the quota.
    assert calls_by_route(sim).total() < 1500
    assert calls_by_route(sim)["list_jobs"] > 0


@pytest.mark.long
@pytest.mark.parametrize("config", [TWO_CLUSTERS])
def test_clusters_of_one_user_share_the_quota(
    sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """The waits of one user on two clusters share the quota without a 429."""
    triggers = start_jobs(sim, 150, "first") + start_jobs(sim, 150, "second")
    assert statuses(triggers) == {"SUCCEEDED": 300}
    assert throttled(sim) == 0
    assert most_calls_in_a_minute(sim, "status") <= 100
    assert most_calls_in_a_minute(sim, "list_jobs") <= 100


def most_calls_in_a_minute(sim: CdmSimulator, route: str) -> int:
    """Return the largest number of calls of a route in any minute."""
    times = sorted(request.at for request in sim.requests if request.route == route)
    return max(sum(begin <= at < begin + 60 for at in times) for begin in times)


@pytest.mark.long
@pytest.mark.parametrize("config", [{"quotas": {"status": 30, "list_jobs": 30}}])
def test_a_smaller_quota_slows_polling_down(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """If CDM allows less than documented, polls become less frequent, and no wait fails."""
    assert statuses(start_jobs(sim, 60, seconds=1800)) == {"SUCCEEDED": 60}
    assert 0 < throttled(sim) < calls_by_route(sim).total() / 10


def test_the_limit_of_the_connection_applies(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``requests_per_minute`` of the connection is the limit for each kind of call."""
    connection = {**sim.connection, "extra": {**sim.connection_extra, "requests_per_minute": 12}}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    assert statuses(start_jobs(sim, 20)) == {"SUCCEEDED": 20}
    assert most_calls_in_a_minute(sim, "status") <= 12


def test_a_wait_for_a_run_to_come_starves_no_other(
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of a run is seen although a sensor waits for the next run, and the quota is used up.

    For these two waits the poll of their job needs both the status and the history.
    """
    connection = {**sim.connection, "extra": {**sim.connection_extra, "requests_per_minute": 6}}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    sim.fail("list_jobs", "status", times=None, status=403)
    others = start_jobs(sim, 15, seconds=100_000)
    sim.add_job("stock", seconds=300)
    begin = clock.now()
    job: dict[str, Any] = {"job_name": "stock", "cluster_id": sim.cluster_id}
    active = CdmSubmissionTrigger(**job, submission_id=sim.start("stock").submission_id)
    to_come = CdmSubmissionTrigger(
        **job, started_after=int(begin * 1000) + 1, deadline=begin + 1900
    )

    async def seen_after() -> float:
        waits = [run_in_task(trigger) for trigger in (active, to_come, *others)]
        await waits[0]
        seconds = clock.now() - begin
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        return seconds

    assert asyncio.run(seen_after()) < 900


def test_waits_on_one_job_share_calls(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """Ten waits for one run need no more calls than one wait."""
    (trigger,) = start_jobs(sim, 1)
    calls = []
    for count in (1, 10):
        sim.reset()
        (trigger,) = start_jobs(sim, 1)
        arguments: dict[str, Any] = trigger.serialize()[1]
        assert statuses([CdmSubmissionTrigger(**arguments) for _ in range(count)]) == {
            "SUCCEEDED": count
        }
        calls.append(calls_by_route(sim).total())
    assert abs(calls[0] - calls[1]) <= 1


@pytest.mark.long
def test_batch_jobs_have_a_listing_of_their_own(
    sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """Whole-database jobs are polled through the listing of their type."""
    assert statuses(start_jobs(sim, 60, type="BATCH_JOB")) == {"SUCCEEDED": 60}
    sub_jobs = {f"{name}_" for name in sim.jobs()}
    types = Counter(
        request.query.get("jobType")
        for request in sim.requests
        if "all" in request.path and request.query.get("filter") not in sub_jobs
    )
    assert types["BATCH_JOB"] > types["NORMAL_JOB"] > 0


@pytest.mark.long
def test_a_listing_ends_no_wait(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """If a listing shows every job as failed, status calls still find the truth."""
    triggers = start_jobs(sim, 40)
    jobs = [{"name": trigger.job_name, "status": "FAILED"} for trigger in triggers]
    sim.fail("list_jobs", "body", times=None, body={"total": 40, "jobs": jobs})
    assert statuses(triggers) == {"SUCCEEDED": 40}
    assert calls_by_route(sim)["list_jobs"] > 0


@pytest.mark.long
@pytest.mark.parametrize("answer", ["status", "body", "drop"])
def test_jobs_are_polled_without_listings(
    answer: Any, sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """If jobs cannot be listed, each is polled with status calls."""
    faults: dict[str, dict[str, Any]] = {"status": {"status": 403}, "body": {"body": "<html>"}}
    settings = faults.get(answer, {})
    triggers = start_jobs(sim, 40)
    sim.fail("list_jobs", answer, times=None, **settings)
    assert statuses(triggers) == {"SUCCEEDED": 40}
    assert calls_by_route(sim)["list_jobs"] < 20


@pytest.mark.long
def test_a_broken_job_affects_no_other(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """The wait for a job without a readable status fails; waits for other jobs succeed."""
    triggers = start_jobs(sim, 5, seconds=3000)
    sim.fail("status", "status", times=None, status=500, job=triggers[0].job_name)
    assert statuses(triggers) == {"SUCCEEDED": 4, "CdmUnavailable": 1}


@pytest.mark.long
@pytest.mark.parametrize("config", [TWO_CLUSTERS])
def test_a_broken_cluster_affects_no_other(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """While one cluster does not answer, waits on another one of the same user succeed."""
    broken, healthy = (
        start_jobs(sim, 30, "first", seconds=3000),
        start_jobs(sim, 30, "second", seconds=3000),
    )
    for trigger in broken:
        trigger.job_name = trigger.job_name.replace(JOB, "broken")
        sim.add_job(trigger.job_name, "first", seconds=3000)
        sim.start(trigger.job_name, "first")
        sim.fail("status", "status", times=None, status=503, job=trigger.job_name)
    assert statuses(healthy + broken) == {"SUCCEEDED": 30, "CdmUnavailable": 30}
    # The cluster is only probed: ten minutes cost less than two calls for each wait.
    failed = [request for request in sim.requests if request.fault is not None]
    assert len(failed) < 2 * len(broken) + 60


@pytest.mark.long
@pytest.mark.parametrize("clock", [SystemClock()], ids=["real time"])
def test_a_hanging_call_affects_no_other(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine waits end while the call for the tenth job has not been answered.

    The test runs in real time, since a test's clock stands still while polls are in flight. That
    also goes for the simulator: by the client's clock, the tokens of an older time have expired.
    """
    connection = {**sim.connection, "extra": {**sim.connection_extra, "requests_per_minute": 6000}}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(CdmHook, "session_options", {})
    triggers = start_jobs(sim, 10, seconds=1)
    sim.fail("status", "hang", times=None, job=triggers[0].job_name)
    for trigger in triggers:
        trigger.poll_interval = 0.05

    async def count_ended() -> int:
        waits = [run_in_task(trigger) for trigger in triggers]
        await asyncio.wait(waits[1:])
        ended = sum(wait.done() for wait in waits)
        waits[0].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waits[0]
        return ended

    assert asyncio.run(count_ended()) == 9
    hanging = [request for request in sim.requests if request.fault is not None]
    assert [request.path.split("/")[-2] for request in hanging] == [triggers[0].job_name]


def test_an_outage_ends_all_waits(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """All waits fail after ten minutes without an answer, without a poll for each."""
    triggers = start_jobs(sim, 200, seconds=5000)
    begin = sim.clock.now()
    for route in ("status", "submissions", "list_jobs"):
        sim.fail(route, "status", times=None, status=503)
    assert statuses(triggers) == {"CdmUnavailable": 200}
    assert 600 <= sim.clock.now() - begin < 1000


def test_an_outage_of_iam_ends_all_waits(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """All waits fail when IAM does not answer, and no call is made to CDM."""
    triggers = start_jobs(sim, 50, seconds=100_000)
    sim.fail("token", "status", times=None, status=503)
    assert statuses(triggers) == {"CdmUnavailable": 50}
    assert calls_by_route(sim) == {}


def test_rejected_credentials_end_all_waits(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """When IAM rejects the user for long, every wait fails, without a token request for each."""
    triggers = start_jobs(sim, 200, seconds=100_000)
    begin = sim.clock.now()
    sim.fail("token", "status", times=None, status=401)
    assert statuses(triggers) == {"CdmAuthError": 200}
    assert sum(request.route == "token" for request in sim.requests) <= 2
    # Within CDM's quota, a poll of each would take more than two minutes; but none is sent.
    assert calls_by_route(sim) == {}
    assert sim.clock.now() - begin < REFUSED_SECONDS + 120


def test_unknown_runs_are_found(
    sim: CdmSimulator, cdm_default: dict[str, Any], clock: ManualClock
) -> None:
    """Waits without a known run find the first one since their start time in the history."""
    started_after = int(clock.now() * 1000)
    triggers = []
    for number in range(30):
        name = f"{JOB}_{number}"
        sim.add_job(name, outcomes=["SUCCEEDED", "FAILED"], seconds=40)
        triggers.append(
            CdmSubmissionTrigger(
                job_name=name,
                cluster_id=sim.cluster_id,
                started_after=started_after,
                deadline=started_after + 9e3,
            )
        )

    def start() -> None:
        for number in range(30):
            delay = 60 + 10 * number
            runs = len(sim.runs(f"{JOB}_{number}"))
            if clock.now() * 1000 >= started_after + delay * 1000 * (1 + 9 * runs) and runs < 2:
                sim.start(f"{JOB}_{number}")

    clock.subscribe(start)
    assert statuses(triggers) == {"SUCCEEDED": 30}


def test_few_waits_keep_their_poll_interval(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """A single run is polled as often as ``poll_interval`` says."""
    (trigger,) = start_jobs(sim, 1, seconds=1800)
    statuses([trigger])
    polls = [request.at for request in sim.requests if request.route == "status"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(polls)]
    assert max(gaps) <= 33
    assert 60 <= len(polls) <= 75


def test_the_last_user_closes_the_poller(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """Waits may be added while others are canceled; the last one closes the poller."""
    triggers = start_jobs(sim, 20, seconds=100_000)

    async def add_and_cancel() -> list[ClusterPoller]:
        pollers = []
        for _ in range(3):
            waits = [run_in_task(trigger) for trigger in triggers]
            for _ in range(3):
                while not (now_open := open_pollers()):  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.01)
                assert len(now_open) == 1
                pollers += now_open
                for wait in waits[::2]:
                    wait.cancel()
            for wait in waits:
                wait.cancel()
            assert await asyncio.wait(waits)
            assert open_pollers() == []
        return pollers

    pollers = set(asyncio.run(add_and_cancel()))
    # A new one each time; more on a slow machine, where all may be canceled before others start.
    assert len(pollers) >= 3
    assert all(poller.closed for poller in pollers)
    for thread in threading.enumerate():
        if "cdm-poller" in thread.name:
            thread.join()


def open_pollers() -> list[ClusterPoller]:
    """Return the pollers of the running event loop."""
    return list(poller_module._pollers.get(asyncio.get_running_loop(), {}).values())


@pytest.fixture
def session(make_session: Callable[..., CdmSession]) -> CdmSession:
    """Return a session for a poller."""
    return make_session()


def test_a_poller_goes_on_with_what_a_later_wait_finds(
    sim: CdmSimulator, make_session: Callable[..., CdmSession]
) -> None:
    """When a password or the limit was changed in the connection, the poller learns it from the
    next wait, and there is no second poller.
    """
    (trigger,) = start_jobs(sim, 1, seconds=60)
    before = make_session(password="the one before", requests_per_minute=30)
    now = make_session(requests_per_minute=60)

    async def join() -> int:
        with shared_poller(before, sim.cluster_id) as first:
            assert first._limits.limit == 30
            with shared_poller(now, sim.cluster_id) as second:
                assert second is first
                ended: Submission = await wait_for(second, trigger)
                assert ended.status == "SUCCEEDED"
                return second._limits.limit

    assert asyncio.run(join()) == 60
    assert [request.status for request in sim.requests if request.route == "token"] == [201]


def wait_for(poller: ClusterPoller, trigger: CdmSubmissionTrigger, **options: Any) -> Any:
    """Wait for the run of a trigger as the trigger does."""
    run = RunRef(trigger.cluster_id, trigger.job_name, trigger.submission_id)
    return poller.wait(Follower(run), poll_interval=30, **options)


@pytest.mark.long
def test_log_lines_of_a_wait_go_to_its_own_log(sim: CdmSimulator, session: CdmSession) -> None:
    """Each poll runs in the context of its wait, by which Airflow assigns log lines to tasks."""
    current_job: contextvars.ContextVar[str] = contextvars.ContextVar("job", default="none")
    polled: list[tuple[str, str]] = []
    triggers = start_jobs(sim, 30)

    async def wait(poller: ClusterPoller, trigger: CdmSubmissionTrigger) -> None:
        current_job.set(trigger.job_name)

        def on_status(seen: Submission | None) -> None:
            if seen is not None:
                polled.append((current_job.get(), seen.job_name))

        await wait_for(poller, trigger, on_status=on_status)

    async def wait_for_all() -> None:
        with shared_poller(session, sim.cluster_id) as poller:
            await asyncio.gather(*(wait(poller, trigger) for trigger in triggers))

    asyncio.run(wait_for_all())
    assert {job for job, _ in polled} == {trigger.job_name for trigger in triggers}
    assert all(context_job == job for context_job, job in polled)


def test_a_failed_poller_ends_all_waits(
    sim: CdmSimulator, session: CdmSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the poller fails, every wait ends with its error; a later wait starts it again."""
    first, second = start_jobs(sim, 2, seconds=60)

    async def fail_once() -> tuple[list[Any], Any]:
        with shared_poller(session, sim.cluster_id) as poller:
            with monkeypatch.context() as patch:
                patch.setattr(poller.planner, "housekeeping", lambda now: 1 // 0)
                waits = [wait_for(poller, trigger) for trigger in (first, second)]
                failed = await asyncio.gather(*waits, return_exceptions=True)
            return failed, await wait_for(poller, first)

    failed, ended = asyncio.run(fail_once())
    assert [type(error) for error in failed] == [errors.CdmError] * 2
    assert "ZeroDivisionError" in str(failed[0])
    assert ended.status == "SUCCEEDED"


def test_an_error_in_a_callback_ends_only_its_wait(sim: CdmSimulator, session: CdmSession) -> None:
    """An exception that ``on_status`` raises ends its wait, but no other wait for the job."""
    (trigger,) = start_jobs(sim, 1, seconds=60)

    async def wait_twice() -> list[Any]:
        with shared_poller(session, sim.cluster_id) as poller:
            failing = wait_for(poller, trigger, on_status=lambda seen: 1 // 0)
            waits = (failing, wait_for(poller, trigger))
            return list(await asyncio.gather(*waits, return_exceptions=True))

    failed, ended = asyncio.run(wait_twice())
    assert isinstance(failed, ZeroDivisionError)
    assert ended.status == "SUCCEEDED"


def test_a_clock_that_is_set_back_delays_nothing(
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    virtual_time: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the clock is set back by an hour, runs are still polled."""
    real: Callable[[], float] = virtual_time.options()["clock"]
    jump_at = real() + 120
    options = {**virtual_time.options(), "clock": lambda: real() - 3600 * (real() > jump_at)}
    monkeypatch.setattr(CdmHook, "session_options", options)
    triggers = start_jobs(sim, 3, seconds=600)
    begin = real()
    assert statuses(triggers) == {"SUCCEEDED": 3}
    assert real() - begin < 640


def test_a_clock_that_is_set_forward_ends_no_wait(
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    virtual_time: Any,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that is set forward during an outage of a minute does not make a long one of it."""
    monkeypatch.setattr(CdmHook, "session_options", virtual_time.options())
    triggers = start_jobs(sim, 3, seconds=600)
    sim.fail("*", "status", status=503, times=None)
    begin = clock.now()

    def jump_and_recover() -> None:
        if clock.now() > begin + 30:
            virtual_time.jumped = 7200.0
        if clock.now() > begin + 60:
            sim.faults.clear()

    clock.subscribe(jump_and_recover)
    assert statuses(triggers) == {"SUCCEEDED": 3}
    assert virtual_time.jumped


def test_slower_polling_is_logged(
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When the quota makes polls less frequent than requested, that is logged once."""
    connection = {**sim.connection, "extra": {**sim.connection_extra, "requests_per_minute": 3}}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    with caplog.at_level(logging.INFO, logger="airflow_provider_cdm.triggers.poller"):
        statuses(start_jobs(sim, 9, seconds=1800))
    lines = [line for line in caplog.messages if "every 30 s was requested" in line]
    assert any("jobs are polled" in line for line in lines)
    assert len(lines) < 8


def test_a_deferred_wait_ends_at_the_execution_timeout(sim: CdmSimulator, task_runner: Any) -> None:
    """The wait ends at ``execution_timeout``, which Airflow 3 does not enforce while deferred."""
    sim.add_job(JOB, seconds=10_000)
    begin = sim.clock.now()
    with pytest.raises(errors.CdmWaitTimeout, match="execution_timeout") as timeout:
        task_runner.run(
            lambda: CdmStartJobOperator(
                task_id="t",
                job_name=JOB,
                wait_for_completion=True,
                deferrable=True,
                wait_timeout=9000,
                execution_timeout=timedelta(seconds=600),
            )
        )
    assert timeout.value.submission is not None
    assert timeout.value.submission.status == "RUNNING"
    assert 600 - DEFERRAL_MARGIN <= sim.clock.now() - begin < 615
    assert sim.runs(JOB)[-1].status == "RUNNING"


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_deferred_sensor_ends_at_its_execution_timeout(
    soft: bool, sim: CdmSimulator, task_runner: Any
) -> None:
    """The error of a deferred sensor names the limit that it has reached."""
    sim.add_job(JOB, seconds=10_000)
    submission_id = sim.start(JOB).submission_id
    expected: type[Exception] = AirflowSkipException if soft else errors.CdmWaitTimeout
    with pytest.raises(expected, match="soft_fail" if soft else "execution_timeout"):
        task_runner.run(
            lambda: CdmSubmissionSensor(
                task_id="t",
                job_name=JOB,
                submission_id=submission_id,
                deferrable=True,
                soft_fail=soft,
                timeout=9000,
                execution_timeout=timedelta(seconds=600),
            )
        )


MODES: dict[str, Callable[..., Any]] = {
    "operator on the worker": lambda **options: CdmStartJobOperator(
        task_id="t", job_name=JOB, wait_for_completion=True, deferrable=False, **options
    ),
    "operator deferred": lambda **options: CdmStartJobOperator(
        task_id="t", job_name=JOB, wait_for_completion=True, deferrable=True, **options
    ),
    "sensor poke": lambda **options: CdmSubmissionSensor(
        task_id="t", job_name=JOB, started_after=0, deferrable=False, poke_interval=60, **options
    ),
    "sensor reschedule": lambda **options: CdmSubmissionSensor(
        task_id="t", job_name=JOB, started_after=0, mode="reschedule", poke_interval=60, **options
    ),
    "sensor deferred": lambda **options: CdmSubmissionSensor(
        task_id="t", job_name=JOB, started_after=0, deferrable=True, poke_interval=60, **options
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fails", [False, True], ids=["warns", "fails"])
def test_a_stalled_run_is_reported(
    fails: bool,
    mode: str,
    sim: CdmSimulator,
    task_runner: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run without progress is logged as stalled; the wait fails only if configured so."""
    sim.add_job(JOB, statuses=["RUNNING"] * 50 + ["SUCCEEDED"])
    if mode.startswith("sensor"):
        sim.start(JOB)

    def run() -> Any:
        return task_runner.run(lambda: MODES[mode](stalled_after=600, fail_when_stalled=fails))

    with caplog.at_level(logging.INFO):
        if fails:
            with pytest.raises(errors.CdmStalled, match="nothing has changed for 6"):
                run()
        else:
            assert run()["status"] == "SUCCEEDED"
            # Airflow 3 writes the log of a task without the logging module.
            logged = caplog.text + "".join(capsys.readouterr())
            warnings = re.findall(r"nothing has changed for (\d+) s", logged)
            assert warnings
            assert len(set(warnings)) == len(range(600, int(warnings[-1]) + 1, 600))
    assert sim.runs(JOB)[-1].status == ("RUNNING" if fails else "SUCCEEDED")
