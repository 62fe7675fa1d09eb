"""The triggerer's watcher against the simulator: many waits, few calls, nobody disturbs others."""

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
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_cdm._compat import DEFERRAL_MARGIN, AirflowSkipException
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.triggers import poller as watcher_module
from airflow_provider_cdm.triggers.poller import ClusterPoller, shared_poller
from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger, SubmissionEvent

JOB = "orders"
TWO_CLUSTERS = {
    "quotas": "documented",
    "clusters": [{"name": "one", "id": "first"}, {"name": "two", "id": "second"}],
}


@pytest.fixture
def config() -> dict[str, Any]:
    """What the simulator is configured with."""
    return {}


@pytest.fixture
def sim(config: dict[str, Any], clock: ManualClock) -> Iterator[CdmSimulator]:
    """A fresh simulator that runs on the test's clock."""
    with CdmSimulator(config, clock=clock) as simulator:
        yield simulator


def asked(sim: CdmSimulator) -> Counter[str]:
    """How often each route was called, the token's left out."""
    return Counter(request.route for request in sim.requests if request.route != "token")


def throttled(sim: CdmSimulator) -> int:
    """How many calls met a used-up quota."""
    return sum(request.status == 429 for request in sim.requests)


def started(sim: CdmSimulator, count: int, cluster: str | None = None, **job: Any) -> list[Any]:
    """Start some jobs and return a trigger for each."""
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


def payloads(triggers: list[CdmSubmissionTrigger]) -> list[Any]:
    """Run triggers in one loop, as a triggerer does, and return their events."""

    async def events(trigger: CdmSubmissionTrigger) -> list[Any]:
        return [event.payload async for event in trigger.run()]

    async def gather() -> list[Any]:
        found = await asyncio.gather(*map(events, triggers))
        assert [len(each) for each in found] == [1] * len(triggers)
        return [each[0] for each in found]

    return asyncio.run(gather())


def in_a_task(trigger: CdmSubmissionTrigger) -> asyncio.Task[Any]:
    """Run a trigger up to its event."""

    async def event() -> Any:
        return await anext(trigger.run())

    return asyncio.ensure_future(event())


def statuses(triggers: list[CdmSubmissionTrigger]) -> Counter[str]:
    """How the runs of triggers ended, or what the waits failed with."""
    found: Counter[str] = Counter()
    for payload in payloads(triggers):
        try:
            found[SubmissionEvent.unwrap(payload).status] += 1
        except errors.CdmError as error:
            found[type(error).__name__] += 1
    return found


@pytest.mark.parametrize("config", [{"quotas": "documented"}])
def test_many_waits_keep_within_the_quota(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """Three hundred waits on one cluster meet no 429, and cost few calls."""
    assert statuses(started(sim, 300)) == {"SUCCEEDED": 300}
    assert throttled(sim) == 0
    # Each asked for every 30 s would be 6,500 calls and an hour of the quota.
    assert asked(sim).total() < 1500
    assert asked(sim)["list_jobs"] > 0


@pytest.mark.parametrize("config", [TWO_CLUSTERS])
def test_clusters_of_one_user_share_the_quota(
    sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """Two clusters are watched by one user, whose quota they share without a 429."""
    triggers = started(sim, 150, "first") + started(sim, 150, "second")
    assert statuses(triggers) == {"SUCCEEDED": 300}
    assert throttled(sim) == 0
    busiest = max(asked_in_a_minute(sim, "status"), asked_in_a_minute(sim, "list_jobs"))
    assert busiest <= 100


def asked_in_a_minute(sim: CdmSimulator, route: str) -> int:
    """The most calls of a route in any minute."""
    times = sorted(request.at for request in sim.requests if request.route == route)
    return max(sum(begin <= at < begin + 60 for at in times) for begin in times)


@pytest.mark.parametrize("config", [{"quotas": {"status": 30, "list_jobs": 30}}])
def test_a_smaller_quota_is_learnt(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """Where CDM allows less than documented, the watcher slows down and nobody fails."""
    assert statuses(started(sim, 60, seconds=1800)) == {"SUCCEEDED": 60}
    assert 0 < throttled(sim) < asked(sim).total() / 10


def test_the_limit_of_the_connection_holds(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``requests_per_minute`` of the connection is the limit for each kind of call."""
    connection = {**sim.connection, "extra": {**sim.connection_extra, "requests_per_minute": 12}}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    assert statuses(started(sim, 20)) == {"SUCCEEDED": 20}
    assert asked_in_a_minute(sim, "status") <= 12


def test_waits_on_one_job_share_calls(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """Ten waits for the same run cost what one costs."""
    (trigger,) = started(sim, 1)
    calls = []
    for count in (1, 10):
        sim.reset()
        (trigger,) = started(sim, 1)
        arguments: dict[str, Any] = trigger.serialize()[1]
        assert statuses([CdmSubmissionTrigger(**arguments) for _ in range(count)]) == {
            "SUCCEEDED": count
        }
        calls.append(asked(sim).total())
    assert abs(calls[0] - calls[1]) <= 1


def test_batch_jobs_have_a_listing_of_their_own(
    sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """Whole-database jobs are found in the listing of their type."""
    assert statuses(started(sim, 60, type="BATCH_JOB")) == {"SUCCEEDED": 60}
    sub_jobs = {f"{name}_" for name in sim.jobs()}
    types = Counter(
        each.query.get("jobType")
        for each in sim.requests
        if "all" in each.path and each.query.get("filter") not in sub_jobs
    )
    assert types["BATCH_JOB"] > types["NORMAL_JOB"] > 0


def test_a_listing_ends_nothing(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """A listing that shows every job as failed is looked into, and believed by nobody."""
    triggers = started(sim, 40)
    jobs = [{"name": trigger.job_name, "status": "FAILED"} for trigger in triggers]
    sim.fail("list_jobs", "body", times=None, body={"total": 40, "jobs": jobs})
    assert statuses(triggers) == {"SUCCEEDED": 40}
    assert asked(sim)["list_jobs"] > 0


@pytest.mark.parametrize("answer", ["status", "body", "drop"])
def test_without_listings(answer: Any, sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """Where jobs cannot be listed, they are asked for one by one."""
    faults: dict[str, dict[str, Any]] = {"status": {"status": 403}, "body": {"body": "<html>"}}
    settings = faults.get(answer, {})
    triggers = started(sim, 40)
    sim.fail("list_jobs", answer, times=None, **settings)
    assert statuses(triggers) == {"SUCCEEDED": 40}
    assert asked(sim)["list_jobs"] < 20


def test_one_broken_job_disturbs_nobody(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """A job whose status cannot be read ends as unavailable, and the others end as they end."""
    triggers = started(sim, 5, seconds=3000)
    sim.fail("status", "status", times=None, status=500, job=triggers[0].job_name)
    assert statuses(triggers) == {"SUCCEEDED": 4, "CdmUnavailable": 1}


@pytest.mark.parametrize("config", [TWO_CLUSTERS])
def test_one_sick_cluster_disturbs_nobody(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """While a cluster answers nothing, waits on another one of the same user go on as ever."""
    sick, well = started(sim, 30, "first", seconds=3000), started(sim, 30, "second", seconds=3000)
    for trigger in sick:
        trigger.job_name = trigger.job_name.replace(JOB, "sick")
        sim.add_job(trigger.job_name, "first", seconds=3000)
        sim.start(trigger.job_name, "first")
        sim.fail("status", "status", times=None, status=503, job=trigger.job_name)
    assert statuses(well + sick) == {"SUCCEEDED": 30, "CdmUnavailable": 30}
    # It is probed, not hammered: ten minutes of asking cost less than two calls for each wait.
    failed = [request for request in sim.requests if request.fault is not None]
    assert len(failed) < 2 * len(sick) + 60


def test_one_hanging_call_disturbs_nobody(
    sim: CdmSimulator, cdm_default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine waits end while the call for the tenth job is still without an answer.

    This one runs in real time, since a test's clock stands still while calls are under way.
    """
    connection = {**sim.connection, "extra": {**sim.connection_extra, "requests_per_minute": 6000}}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(CdmHook, "session_options", {})
    triggers = started(sim, 10, statuses=["RUNNING", "RUNNING", "SUCCEEDED"])
    sim.fail("status", "hang", times=None, job=triggers[0].job_name)
    for trigger in triggers:
        trigger.poll_interval = 0.05

    async def others() -> int:
        waits = [in_a_task(each) for each in triggers]
        await asyncio.wait(waits[1:])
        done = sum(wait.done() for wait in waits)
        waits[0].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waits[0]
        return done

    assert asyncio.run(others()) == 9


def test_an_outage_ends_all_waits(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """After ten minutes without an answer all waits end as unavailable, long before a look each."""
    triggers = started(sim, 200, seconds=5000)
    begin = sim.clock.now()
    for route in ("status", "submissions", "list_jobs"):
        sim.fail(route, "status", times=None, status=503)
    assert statuses(triggers) == {"CdmUnavailable": 200}
    assert 600 <= sim.clock.now() - begin < 1000


def test_an_outage_of_iam_ends_all_waits(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """It is the same when IAM cannot be asked, and no call goes to CDM."""
    triggers = started(sim, 50, seconds=100_000)
    sim.fail("token", "status", times=None, status=503)
    assert statuses(triggers) == {"CdmUnavailable": 50}
    assert asked(sim) == {}


def test_refused_credentials_end_all_waits(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """When IAM refuses the user, every wait ends at once, and IAM is not asked for each."""
    triggers = started(sim, 200, seconds=100_000)
    begin = sim.clock.now()
    sim.fail("token", "status", times=None, status=401)
    assert statuses(triggers) == {"CdmAuthError": 200}
    assert sum(request.route == "token" for request in sim.requests) <= 2
    # A look for each would be more than two minutes at CDM's pace, but CDM is not asked.
    assert asked(sim) == {}
    assert sim.clock.now() - begin < 120


def test_unknown_runs_are_found(
    sim: CdmSimulator, cdm_default: dict[str, Any], clock: ManualClock
) -> None:
    """Waits that know no run yet find it through the history, each the first since its instant."""
    began = int(clock.now() * 1000)
    triggers = []
    for number in range(30):
        name = f"{JOB}_{number}"
        sim.add_job(name, outcomes=["SUCCEEDED", "FAILED"], seconds=40)
        triggers.append(
            CdmSubmissionTrigger(
                job_name=name, cluster_id=sim.cluster_id, started_after=began, deadline=began + 9e3
            )
        )

    def start() -> None:
        for number in range(30):
            due = 60 + 10 * number
            runs = len(sim.runs(f"{JOB}_{number}"))
            if clock.now() * 1000 >= began + due * 1000 * (1 + 9 * runs) and runs < 2:
                sim.start(f"{JOB}_{number}")

    clock.subscribe(start)
    assert statuses(triggers) == {"SUCCEEDED": 30}


def test_a_run_is_looked_at_once_a_minute_at_least(
    sim: CdmSimulator, cdm_default: dict[str, Any]
) -> None:
    """With few waits ``poll_interval`` is kept, with or without listings beside."""
    (trigger,) = started(sim, 1, seconds=1800)
    statuses([trigger])
    looks = [request.at for request in sim.requests if request.route == "status"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert max(gaps) <= 33
    assert 60 <= len(looks) <= 75


def test_the_last_one_out_closes(sim: CdmSimulator, cdm_default: dict[str, Any]) -> None:
    """Waits may join while others leave; when none is left, nothing of the watcher is."""
    triggers = started(sim, 20, seconds=100_000)

    async def play() -> list[ClusterPoller]:
        watchers = []
        for _ in range(3):
            waits = [in_a_task(each) for each in triggers]
            for _ in range(3):
                while not (there := open_watchers()):  # noqa: ASYNC110 - nothing tells when
                    await asyncio.sleep(0.01)
                assert len(there) == 1
                watchers += there
                for wait in waits[::2]:
                    wait.cancel()
            for wait in waits:
                wait.cancel()
            assert await asyncio.wait(waits)
            assert open_watchers() == []
        return watchers

    found = set(asyncio.run(play()))
    # A new one each time that all have left; on a slow machine some leave before others join.
    assert len(found) >= 3
    assert all(each.closed for each in found)
    for thread in threading.enumerate():
        if "cdm-watcher" in thread.name:
            thread.join()


def open_watchers() -> list[ClusterPoller]:
    """The watchers of the running loop."""
    mine = watcher_module._watchers.get(asyncio.get_running_loop(), {})
    return list(mine.values())


@pytest.fixture
def session(make_session: Callable[..., CdmSession]) -> CdmSession:
    """A session that a watcher can use."""
    return make_session()


def wait_for(watcher: ClusterPoller, trigger: CdmSubmissionTrigger, **more: Any) -> Any:
    """Wait as a trigger does."""
    run = RunRef(trigger.cluster_id, trigger.job_name, trigger.submission_id)
    return watcher.wait(Follower(run), poll_interval=30, **more)


def test_lines_about_a_wait_go_to_its_own_log(sim: CdmSimulator, session: CdmSession) -> None:
    """Airflow tells logs apart by context, so each look is reported in the context of its wait."""
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody")
    heard: list[tuple[str, str]] = []
    triggers = started(sim, 30)

    async def one(watcher: ClusterPoller, trigger: CdmSubmissionTrigger) -> None:
        whose.set(trigger.job_name)

        def on_status(seen: Submission | None) -> None:
            if seen is not None:
                heard.append((whose.get(), seen.job_name))

        await wait_for(watcher, trigger, on_status=on_status)

    async def all_of_them() -> None:
        with shared_poller(session, sim.cluster_id) as watcher:
            await asyncio.gather(*(one(watcher, each) for each in triggers))

    asyncio.run(all_of_them())
    assert {name for name, _ in heard} == {each.job_name for each in triggers}
    assert all(name == job for name, job in heard)


def test_a_broken_watcher_leaves_nobody_waiting(
    sim: CdmSimulator, session: CdmSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the watcher itself fails, every wait ends with that; the next wait begins anew."""
    first, second = started(sim, 2, seconds=60)

    async def play() -> tuple[list[Any], Any]:
        with shared_poller(session, sim.cluster_id) as watcher:
            with monkeypatch.context() as patch:
                patch.setattr(watcher.watch, "housekeeping", lambda now: 1 // 0)
                waits = [wait_for(watcher, each) for each in (first, second)]
                broken = await asyncio.gather(*waits, return_exceptions=True)
            return broken, await wait_for(watcher, first)

    broken, ended = asyncio.run(play())
    assert [type(each) for each in broken] == [errors.CdmError] * 2
    assert "ZeroDivisionError" in str(broken[0])
    assert ended.status == "SUCCEEDED"


def test_a_wait_that_breaks_disturbs_nobody(sim: CdmSimulator, session: CdmSession) -> None:
    """What a wait's own code raises ends that wait, and no other one on the same job."""
    (trigger,) = started(sim, 1, seconds=60)

    async def play() -> list[Any]:
        with shared_poller(session, sim.cluster_id) as watcher:
            bad = wait_for(watcher, trigger, on_status=lambda seen: 1 // 0)
            both = (bad, wait_for(watcher, trigger))
            return list(await asyncio.gather(*both, return_exceptions=True))

    broken, ended = asyncio.run(play())
    assert isinstance(broken, ZeroDivisionError)
    assert ended.status == "SUCCEEDED"


def test_a_clock_that_is_set_back(
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    virtual_time: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the clock jumps back by an hour, runs are looked at all the same."""
    real: Callable[[], float] = virtual_time.options()["clock"]
    jump_at = real() + 120
    options = {**virtual_time.options(), "clock": lambda: real() - 3600 * (real() > jump_at)}
    monkeypatch.setattr(CdmHook, "session_options", options)
    triggers = started(sim, 3, seconds=600)
    begin = real()
    assert statuses(triggers) == {"SUCCEEDED": 3}
    assert real() - begin < 640


def test_the_log_says_what_the_quota_allows(
    sim: CdmSimulator,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the quota makes looks rarer than wished, that is said once."""
    connection = {**sim.connection, "extra": {**sim.connection_extra, "requests_per_minute": 3}}
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    with caplog.at_level(logging.INFO, logger="airflow_provider_cdm.triggers.poller"):
        statuses(started(sim, 9, seconds=1800))
    lines = [one for one in caplog.messages if "every 30 s is wished" in one]
    assert any("jobs are waited for" in line for line in lines)
    assert len(lines) < 8


def test_the_attempt_ends_at_its_execution_timeout(sim: CdmSimulator, task_runner: Any) -> None:
    """Airflow 3 does not enforce it while a task is deferred, so the wait ends there."""
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
def test_the_sensor_ends_at_its_execution_timeout(
    soft: bool, sim: CdmSimulator, task_runner: Any
) -> None:
    """A deferred sensor says which of its two limits it was."""
    sim.add_job(JOB, seconds=10_000)
    number = sim.start(JOB).submission_id
    expected: type[Exception] = AirflowSkipException if soft else errors.CdmWaitTimeout
    with pytest.raises(expected, match="soft_fail" if soft else "execution_timeout"):
        task_runner.run(
            lambda: CdmSubmissionSensor(
                task_id="t",
                job_name=JOB,
                submission_id=number,
                deferrable=True,
                soft_fail=soft,
                timeout=9000,
                execution_timeout=timedelta(seconds=600),
            )
        )


WAYS: dict[str, Callable[..., Any]] = {
    "operator on the worker": lambda **more: CdmStartJobOperator(
        task_id="t", job_name=JOB, wait_for_completion=True, deferrable=False, **more
    ),
    "operator deferred": lambda **more: CdmStartJobOperator(
        task_id="t", job_name=JOB, wait_for_completion=True, deferrable=True, **more
    ),
    "sensor poke": lambda **more: CdmSubmissionSensor(
        task_id="t", job_name=JOB, started_after=0, deferrable=False, poke_interval=60, **more
    ),
    "sensor reschedule": lambda **more: CdmSubmissionSensor(
        task_id="t", job_name=JOB, started_after=0, mode="reschedule", poke_interval=60, **more
    ),
    "sensor deferred": lambda **more: CdmSubmissionSensor(
        task_id="t", job_name=JOB, started_after=0, deferrable=True, poke_interval=60, **more
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fails", [False, True], ids=["warns", "fails"])
def test_a_run_that_stalls(
    fails: bool,
    way: str,
    sim: CdmSimulator,
    task_runner: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """When nothing moves for long, the log says so once; only on request the wait ends."""
    sim.add_job(JOB, statuses=["RUNNING"] * 50 + ["SUCCEEDED"])
    if way.startswith("sensor"):
        sim.start(JOB)

    def run() -> Any:
        return task_runner.run(lambda: WAYS[way](stalled_after=600, fail_when_stalled=fails))

    with caplog.at_level(logging.INFO):
        if fails:
            with pytest.raises(errors.CdmStalled, match="nothing has changed for 6"):
                run()
        else:
            assert run()["status"] == "SUCCEEDED"
            # Airflow 3 writes a task's log without the help of logging.
            heard = caplog.text + "".join(capsys.readouterr())
            warnings = re.findall(r"nothing has changed for (\d+) s", heard)
            assert warnings
            assert len(set(warnings)) == len(range(600, int(warnings[-1]) + 1, 600))
    assert sim.runs(JOB)[-1].status == ("RUNNING" if fails else "SUCCEEDED")
