"""Hundreds of tasks that are ended at once: what becomes of their runs, in virtual time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.simulator.gateway.quotas import DOCUMENTED
from airflow_provider_cdm.triggers import CdmOwnedJobTrigger, CdmSubmissionTrigger
from tests.support.triggerer import FakeTriggerer
from tests.support.virtual_loop import VirtualEventLoop

_MODULE = "airflow_provider_cdm.triggers.submission"
#: Whether the triggerer calls ``on_kill``: Airflow 3.3 and later do, others cancel only.
both_triggerers = pytest.mark.parametrize("on_kill", [True, False], ids=["on_kill", "cancel only"])


@pytest.fixture
def quotas() -> Any:
    """Return the quotas of the simulator; ``parametrize`` replaces it."""
    return "documented"


@pytest.fixture
def config(quotas: Any) -> dict[str, Any]:
    """Let the simulator have quotas, and ten clusters."""
    names = [f"cluster-{number}" for number in range(10)]
    return {"quotas": quotas, "clusters": [{"id": name, "name": name} for name in names]}


@dataclass
class Crowd:
    """Many deferred tasks, each of which waits for the run of a job of its own.

    :param state: state of their tasks.
    :param latency: seconds that each call takes.
    :param messages: log lines of the triggers.
    """

    sim: CdmSimulator
    clock: ManualClock
    monkeypatch: pytest.MonkeyPatch
    log: pytest.LogCaptureFixture
    state: str | None = "failed"
    latency: float = 0.1
    on_kill: bool = True
    jobs: list[tuple[str, str]] = field(default_factory=list)
    triggers: list[CdmSubmissionTrigger] = field(default_factory=list)
    triggerers: list[FakeTriggerer] = field(default_factory=list)
    before: int = 0
    took: float = 0.0

    def add(
        self,
        count: int,
        *,
        cluster_id: str | None = None,
        prefix: str = "job",
        trigger: type[CdmSubmissionTrigger] = CdmSubmissionTrigger,
        know_date: bool = True,
        **arguments: Any,
    ) -> None:
        """Start some runs, and make their triggers."""
        cluster_id = cluster_id or self.sim.cluster_id
        for number in range(count):
            name = f"{prefix}_{number}"
            self.sim.add_job(name, cluster_id, seconds=100_000)
            run = self.sim.start(name, cluster_id)
            self.clock.advance(0.01)
            self.jobs.append((name, cluster_id))
            self.triggers.append(
                trigger(
                    job_name=name,
                    cluster_id=cluster_id,
                    submission_id=run.submission_id,
                    creation_date=int(run.created * 1000) if know_date else None,
                    cancel_on_kill=True,
                    **arguments,
                )
            )

    def run(self, work: Callable[[], Coroutine[Any, Any, None]], *, triggerers: int = 1) -> None:
        """Let the triggers wait for two minutes, and then do something with them."""

        async def read_state(_: Any) -> str | None:
            return self.state

        options = {"clock": self.clock.now, "monotonic": self.clock.now, "rng": lambda: 0.5}
        self.monkeypatch.setattr(f"{_MODULE}.aget_task_state", read_state)
        self.monkeypatch.setattr(f"{_MODULE}.TRIGGERS_HAVE_ON_KILL", self.on_kill)
        self.monkeypatch.setattr(CdmHook, "session_options", {**options, "sleep": self._sleep})
        self.triggerers = [FakeTriggerer(has_on_kill=self.on_kill) for _ in range(triggerers)]

        async def wait_and_work() -> None:
            for number, trigger in enumerate(self.triggers):
                self.triggerers[number % triggerers].start(trigger)
            await asyncio.sleep(120)
            self.before, began = len(self.sim.requests), self.clock.now()
            await work()
            self.took = self.clock.now() - began

        loop = VirtualEventLoop(self.clock, lambda: self.latency)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(wait_and_work())
        self.clock.advance(10)

    def _sleep(self, seconds: float) -> None:
        """Pause a thread; a short pause waits for another thread, and not for the clock."""
        if seconds > 1:
            self.clock.advance(seconds)
        else:
            time.sleep(0.001)

    async def end(self) -> None:
        """End all tasks, as a user does."""
        await asyncio.gather(*(triggerer.end_tasks() for triggerer in self.triggerers))

    def statuses(self) -> Counter[str]:
        """Return the statuses of the newest runs."""
        return Counter(self.sim.runs(name, cluster)[-1].status for name, cluster in self.jobs)

    def calls(self) -> Counter[tuple[str, Any]]:
        """Return how often each route gave each HTTP status since the tasks were ended."""
        return Counter((call.route, call.status) for call in self.sim.requests[self.before :])

    def refused(self) -> int:
        """Return the number of calls beyond the quotas since then."""
        return sum(count for (_, status), count in self.calls().items() if status == 429)


@pytest.fixture
def crowd(
    sim: CdmSimulator,
    clock: ManualClock,
    cdm_default: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> Crowd:
    """Return what makes many deferred tasks."""
    # Thousands of lines about requests would take most of the time.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    return Crowd(sim, clock, monkeypatch, log)


@pytest.mark.long
@both_triggerers
@pytest.mark.parametrize("count", [400, 950])
def test_all_runs_are_stopped_within_the_quota(crowd: Crowd, count: int, on_kill: bool) -> None:
    """Hundreds of tasks ended at once: all runs are stopped in seconds, and no call is refused.

    A thousand stops take all slots of a minute, so one that comes late would wait for the next.
    """
    crowd.on_kill = on_kill
    crowd.add(count)
    crowd.run(crowd.end)
    assert crowd.statuses() == {"STOPPED": count}
    assert (crowd.refused(), crowd.calls()["stop", 200]) == (0, count)
    assert crowd.took < 10
    assert "may still be active" not in crowd.log.text


@pytest.mark.long
@pytest.mark.parametrize(("latency", "seconds", "lost"), [(1.0, 5, 0), (6.0, 65, 0), (20, 290, 80)])
def test_slow_answers_lose_no_stop(crowd: Crowd, latency: float, seconds: float, lost: int) -> None:
    """With answers that take long, the stops take longer; those for which five minutes are not
    enough are named.
    """
    crowd.latency = latency
    crowd.add(400)

    async def end_and_wait() -> None:
        await crowd.end()
        await asyncio.sleep(seconds)

    crowd.run(end_and_wait)
    named = crowd.log.text.count("could not be stopped, and may still be active")
    assert crowd.refused() == 0
    assert crowd.statuses()["STOPPED"] + named >= 400
    assert named <= lost


@pytest.mark.long
def test_runs_of_many_clusters_share_the_quota(crowd: Crowd) -> None:
    """The runs of ten clusters are stopped as fast as those of one; no call is made for a run about
    which a list tells.
    """
    for cluster in crowd.sim.config.clusters:
        crowd.add(40, cluster_id=cluster.id)
    crowd.run(crowd.end)
    assert (crowd.statuses(), crowd.refused()) == ({"STOPPED": 400}, 0)
    assert {route for route, _ in crowd.calls()} == {"list_jobs", "stop"}
    assert crowd.took < 5


@pytest.mark.long
def test_runs_that_somebody_else_started_are_not_stopped(crowd: Crowd) -> None:
    """Where our run has ended a moment ago and somebody started the job again, nothing is stopped,
    however many tasks are ended at the same time.
    """
    crowd.add(400)
    foreign = crowd.jobs[::10]

    async def start_again_and_end() -> None:
        for name, _ in foreign:
            crowd.sim.stop(name)
        crowd.clock.advance(1)
        for name, _ in foreign:
            crowd.sim.start(name)
        crowd.before = len(crowd.sim.requests)
        await crowd.end()

    crowd.run(start_again_and_end)
    runs = [crowd.sim.runs(name)[-1] for name, _ in foreign]
    assert {run.status for run in runs} == {"RUNNING"}
    assert crowd.statuses()["STOPPED"] == 360
    assert crowd.refused() == 0


@pytest.mark.long
@both_triggerers
def test_runs_that_no_list_tells_about_are_looked_at_one_by_one(
    crowd: Crowd, on_kill: bool
) -> None:
    """Runs whose date is not known need calls of their own. Those that are not stopped within the
    time for ``on_kill`` are named, and stopped all the same.
    """
    crowd.on_kill = on_kill
    crowd.add(400, know_date=False)
    stopped_in_time = 0

    async def end_and_wait() -> None:
        nonlocal stopped_in_time
        await crowd.end()
        stopped_in_time = crowd.calls()["stop", 200]
        await asyncio.sleep(300)

    crowd.run(end_and_wait)
    assert (crowd.statuses(), crowd.refused()) == ({"STOPPED": 400}, 0)
    named = crowd.log.text.count("goes on trying")
    # One may be stopped just after it was named.
    assert 0 <= named + stopped_in_time - 400 <= 1
    assert (named > 0) is on_kill
    # Status and history have a quota each; by one of them alone it would be fifty.
    assert stopped_in_time > 80
    assert sum(triggerer.timed_out for triggerer in crowd.triggerers) == 0
    # The next attempt of a cleared task may follow a run for two minutes before it is stopped.
    assert "may still be active. To stop it" not in crowd.log.text


@pytest.mark.long
@pytest.mark.parametrize(
    ("route", "status"), [("status", 503), ("submissions", 503), ("list_jobs", 403)]
)
def test_calls_that_fail_are_done_without(crowd: Crowd, route: str, status: int) -> None:
    """If one of the calls that tell whose run is active fails, the others do, also where polls
    have failed for minutes before.
    """
    crowd.add(60)
    crowd.sim.fail(route, "status", status=status, times=None)

    async def end_and_wait() -> None:
        await crowd.end()
        await asyncio.sleep(90)

    crowd.run(end_and_wait)
    assert (crowd.statuses(), crowd.refused()) == ({"STOPPED": 60}, 0)


@pytest.mark.long
@pytest.mark.parametrize("quotas", [{**DOCUMENTED, "stop": 150}])
def test_quota_that_others_have_used_up_is_waited_for(crowd: Crowd) -> None:
    """Where the quota of stops is used up, the rest of ours waits for it, with few calls."""
    crowd.add(400)

    async def end_and_wait() -> None:
        await crowd.end()
        await asyncio.sleep(275)

    crowd.run(end_and_wait)
    assert crowd.statuses() == {"STOPPED": 400}
    # Those in flight when the first one was refused, and some when the pace is found out.
    assert crowd.refused() < 100


@pytest.mark.long
@pytest.mark.parametrize("kind", ["status", "drop", "reset"])
def test_short_outage_loses_no_stop(crowd: Crowd, kind: Any) -> None:
    """Failures of the server or the network are repeated within the time, without a flood."""
    crowd.add(400)

    async def end_in_outage() -> None:
        crowd.sim.fail("*", kind, times=None, status=503 if kind == "status" else None)
        ending = asyncio.ensure_future(crowd.end())
        await asyncio.sleep(15)
        in_vain = crowd.calls().total()
        crowd.sim.faults.clear()
        await ending
        assert in_vain < 60

    crowd.run(end_in_outage)
    assert (crowd.statuses(), crowd.refused()) == ({"STOPPED": 400}, 0)
    assert crowd.took < 30


@pytest.mark.long
def test_outage_in_the_midst_of_stops_is_no_flood(crowd: Crowd) -> None:
    """When CDM ceases to answer while hundreds of stops are to be sent, those in flight fail, and
    then one call at a time is made.
    """
    crowd.add(400)

    async def end_and_fail() -> None:
        ending = asyncio.ensure_future(crowd.end())
        while not crowd.calls()["stop", 200]:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.05)
        sent = crowd.calls().total()
        crowd.sim.fail("*", "status", times=None, status=503)
        await asyncio.sleep(15)
        in_vain = crowd.calls().total() - sent
        crowd.sim.faults.clear()
        await ending
        assert in_vain < 100

    crowd.run(end_and_fail)
    assert (crowd.statuses(), crowd.refused()) == ({"STOPPED": 400}, 0)


def test_glitch_of_the_gateway_loses_no_stop(crowd: Crowd) -> None:
    """Credentials that are refused for a moment are tried again."""
    crowd.add(40)

    async def end_in_glitch() -> None:
        crowd.sim.fail("stop", "status", status=401, times=8)
        await crowd.end()
        await asyncio.sleep(60)

    crowd.run(end_in_glitch)
    assert crowd.statuses() == {"STOPPED": 40}


@pytest.mark.long
@both_triggerers
@pytest.mark.parametrize("state", ["failed", None], ids=["marked failed", "cleared"])
def test_run_that_is_not_stopped_is_named_with_how_to_stop_it(
    crowd: Crowd, state: str | None, on_kill: bool
) -> None:
    """When CDM does not answer until the time is over, one line for each run names job, run,
    cluster and connection, and says how to stop it; the dead server is asked seldom.
    """
    crowd.on_kill, crowd.state = on_kill, state
    crowd.add(20)

    async def end_in_outage() -> None:
        crowd.sim.fail("*", "status", status=503, times=None)
        await crowd.end()
        await asyncio.sleep(400)

    crowd.run(end_in_outage)
    assert crowd.statuses() == {"RUNNING": 20}
    lines = [line for line in crowd.log.messages if "could not be stopped" in line]
    assert len(lines) == 20
    for number, (name, cluster) in enumerate(crowd.jobs, 1):
        (line,) = [
            line for line in lines if f"run {number} of job {name!r} could not be stopped" in line
        ]
        assert f"CdmHook('cdm_default').stop_job({name!r}, {cluster!r})" in line
        assert "HTTP 503" in line
    assert crowd.calls().total() < (250 if state else 90)


@both_triggerers
def test_end_of_the_triggerer_stops_no_run_of_a_deferred_task(crowd: Crowd, on_kill: bool) -> None:
    """When the triggerer ends, another one takes over the triggers: nothing is stopped."""
    crowd.on_kill, crowd.state = on_kill, "deferred"
    crowd.add(50)

    async def end_triggerer() -> None:
        """Return, which ends the event loop as in Airflow."""

    crowd.run(end_triggerer)
    assert crowd.statuses() == {"RUNNING": 50}
    assert crowd.calls() == {}


@pytest.mark.long
@both_triggerers
def test_end_of_the_triggerer_loses_no_stop_that_is_under_way(crowd: Crowd, on_kill: bool) -> None:
    """Tasks that were ended just before the triggerer ends: their runs are stopped, or named."""
    crowd.on_kill = on_kill
    crowd.add(400)

    async def end_for_a_moment() -> None:
        ending = asyncio.ensure_future(crowd.end())
        await asyncio.sleep(0.5)
        ending.cancel()

    crowd.run(end_for_a_moment)
    assert crowd.statuses()["STOPPED"] > 0
    named = crowd.log.text.count("may still be active")
    assert crowd.statuses()["STOPPED"] + named == 400
    assert named == 0


@pytest.mark.long
def test_jobs_that_belong_to_tasks_are_deleted_within_the_quota(crowd: Crowd) -> None:
    """The jobs of ``CdmRunJobOperator`` are deleted after their runs have been stopped: first all
    stops, then as many deletions as the quota allows.
    """
    crowd.add(150, trigger=CdmOwnedJobTrigger)

    async def end_and_wait() -> None:
        await crowd.end()
        await asyncio.sleep(200)

    crowd.run(end_and_wait)
    assert (crowd.statuses(), crowd.refused()) == ({"STOPPED": 150}, 0)
    assert crowd.sim.jobs() == []
    routes = [call.route for call in crowd.sim.requests[crowd.before :]]
    last_stop = len(routes) - routes[::-1].index("stop")
    assert "delete_job" not in routes[:last_stop]
