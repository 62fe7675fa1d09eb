"""The poll planner in virtual time: every wait ends once and correctly, within the rate limits."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.polling.model import PolledJob
from airflow_provider_cdm.client.polling.planner import PollPlanner
from airflow_provider_cdm.client.polling.queue import PollQueue, Priority
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.sansio import Response, TransportError
from airflow_provider_cdm.client.submission import Submission
from tests.support.virtual_cluster import (
    BEGIN,
    FakeCluster,
    FakeJob,
    FakeRun,
    RecordedWait,
    Simulation,
    most_in_a_minute,
)

HOUR = 3600.0
UNAVAILABLE = Response(503)
FAULT_ANSWERS: dict[str, Response | TransportError] = {
    "503": UNAVAILABLE,
    "reset": TransportError("reset", sent=True),
    "not JSON": Response(200, {}, b"<html>Sign in</html>"),
    "429": Response(429),
    "429 with Retry-After": Response(429, {"retry-after": "7"}),
}
LISTED = ["correct", "correct", "undated", "delayed", "inactive", "hidden"]


@dataclass
class Fault:
    """Some kinds of calls get a faulty answer for some time, in seconds."""

    answer: str
    begin: float
    duration: float
    kinds: frozenset[str]

    def __call__(self, kind: str, now: float) -> Response | TransportError | None:
        active = self.begin <= now < self.begin + self.duration and kind in self.kinds
        return FAULT_ANSWERS[self.answer] if active else None


@dataclass
class Scenario:
    """A random scenario.

    :param limit: our rate limit, calls of one kind per minute.
    :param quota: quota of the cluster, calls of one kind per minute.
    :param foreign_calls: calls of one kind per minute that others make.
    :param jobs: arguments of :func:`_add_job`.
    :param more_jobs: number of further jobs that only keep the planner busy.
    """

    limit: int
    quota: float
    foreign_calls: float
    seed: int
    jobs: list[dict[str, Any]]
    more_jobs: int
    faults: list[Fault] = field(default_factory=list)


seconds = st.floats(0, 3000, allow_nan=False).map(lambda s: round(s, 1))
faults = st.builds(
    Fault,
    answer=st.sampled_from(sorted(FAULT_ANSWERS)),
    begin=seconds,
    duration=st.sampled_from([5.0, 60.0, 400.0, 1500.0]),
    kinds=st.sampled_from(
        [frozenset({"status", "history", "list"}), frozenset({"status"}), frozenset({"list"})]
    ),
)
waits = st.fixed_dictionaries(
    {
        "at": seconds,
        "poll_interval": st.sampled_from([5.0, 30.0, 300.0]),
        "timeout": st.none() | seconds,
        "removed_after": st.none() | seconds,
        "identified_by": st.sampled_from(["number", "number and date", "earliest creation"]),
    }
)
jobs = st.fixed_dictionaries(
    {
        "ended": st.floats(0, 3000, allow_nan=False),
        "status": st.sampled_from(["SUCCEEDED", "FAILED", "STOPPED"]),
        "earlier_runs": st.integers(0, 2),
        "later_runs": st.lists(st.tuples(seconds, seconds), max_size=12),
        "listed": st.sampled_from(LISTED),
        "type": st.sampled_from(["NORMAL_JOB", "NORMAL_JOB", "BATCH_JOB"]),
        "deleted": st.none() | seconds,
        "fault": st.none() | st.tuples(seconds, st.sampled_from([30.0, 500.0, 1e9])),
        "waits": st.lists(waits, min_size=1, max_size=3),
    }
)
scenarios = st.builds(
    Scenario,
    limit=st.sampled_from([6, 30, 100]),
    quota=st.sampled_from([40, 120, float("inf")]),
    foreign_calls=st.sampled_from([0.0, 20.0, 70.0]),
    seed=st.integers(0, 1000),
    jobs=st.lists(jobs, min_size=1, max_size=8),
    more_jobs=st.sampled_from([0, 0, 15, 60]),
    faults=st.lists(faults, max_size=3),
)


def simulate(scenario: Scenario) -> Simulation:
    """Run a scenario to its end."""
    rng = random.Random(scenario.seed)

    def fault_at(kind: str, now: float) -> Response | TransportError | None:
        answers = (fault(kind, now) for fault in scenario.faults)
        return next((answer for answer in answers if answer is not None), None)

    cluster = FakeCluster(
        quota=scenario.quota, fault=fault_at, foreign_calls=scenario.foreign_calls
    )
    reset = FAULT_ANSWERS["reset"]
    cluster.latency = lambda kind, now: 60.0 if fault_at(kind, now) == reset else 0.1
    simulation = Simulation(cluster, RateLimits(scenario.limit, rng.random), random=rng.random)
    for index, drawn in enumerate(scenario.jobs):
        _add_job(simulation, f"job_{index}", drawn)
    for index in range(scenario.more_jobs):
        run = FakeRun(1, -100.0, 3000.0 * rng.random())
        cluster.add(FakeJob(f"crowd_{index}", [run], listed=rng.choice(LISTED)))
        simulation.wait_for(f"crowd_{index}", run, at=600 * rng.random())
    simulation.run(until=6 * HOUR)
    return simulation


def _add_job(simulation: Simulation, name: str, drawn: dict[str, Any]) -> None:
    earlier = range(drawn["earlier_runs"])
    runs = [FakeRun(n + 1, -900.0 + 100 * n, -890.0 + 100 * n) for n in earlier]
    run = FakeRun(len(runs) + 1, -30.0, drawn["ended"], drawn["status"])
    runs.append(run)
    last_ended = run.ended
    for pause, duration in drawn["later_runs"]:
        created = last_ended + pause
        last_ended = created + duration
        runs.append(FakeRun(len(runs) + 1, created, last_ended, "FAILED"))
    deleted = float("inf") if drawn["deleted"] is None else drawn["deleted"]
    job = FakeJob(name, runs, drawn["type"], deleted, drawn["listed"])
    if drawn["fault"]:
        begin, length = drawn["fault"]
        job.fault = lambda now: UNAVAILABLE if begin <= now < begin + length else None
    simulation.cluster.add(job)
    for options in drawn["waits"]:
        _add_wait(simulation, name, run, options)


def _add_wait(simulation: Simulation, job: str, run: FakeRun, options: dict[str, Any]) -> None:
    at, timeout, identified_by = options["at"], options["timeout"], options["identified_by"]
    recorded = simulation.wait_for(
        job,
        None if identified_by == "earliest creation" else run,
        at=at,
        poll_interval=options["poll_interval"],
        deadline=None if timeout is None else at + timeout,
        created_from=-60.0,
        know_date=identified_by == "number and date",
    )
    recorded.number, recorded.identified_by = run.number, identified_by
    if options["removed_after"] is not None:
        simulation.remove(recorded, at + options["removed_after"])


def check(recorded: RecordedWait, cluster: FakeCluster) -> str:
    """Check that a wait ended once, and in accordance with the history of its job."""
    if recorded.removed:
        assert recorded.ends == []
        return "removed"
    assert len(recorded.ends) == 1, recorded
    ((ended_at, outcome),) = recorded.ends
    job = cluster.jobs[recorded.job]
    (run,) = [run for run in job.runs if run.number == recorded.number]
    if isinstance(outcome, Submission):
        assert (outcome.submission_id, outcome.status) == (run.number, run.status)
        assert ended_at >= run.ended
    elif isinstance(outcome, errors.CdmWaitTimeout):
        assert recorded.deadline is not None
        latest = max(recorded.deadline, recorded.joined) + 10 + 0.1
        assert recorded.deadline <= ended_at <= latest
    elif isinstance(outcome, errors.CdmOutcomeUnknown):
        newer = [r for r in job.runs if r.number > run.number and r.created <= ended_at]
        assert job.deleted <= ended_at or len(newer) >= 9
    elif isinstance(outcome, errors.CdmNotFound):
        assert job.deleted <= ended_at
        assert recorded.identified_by == "earliest creation"
    else:
        assert type(outcome) is errors.CdmUnavailable, outcome
        _check_unavailable(recorded, ended_at, cluster)
    return type(outcome).__name__


def _check_unavailable(recorded: RecordedWait, ended_at: float, cluster: FakeCluster) -> None:
    """Check that for ten minutes polls of the job failed, or that no call was answered at all.

    A call takes up to a minute.
    """
    assert ended_at - recorded.joined >= 600
    answered = [at for at in cluster.answered.get(recorded.job, []) if at <= ended_at - 61]
    since = max([recorded.joined, *answered])
    failed = cluster.failed.get(recorded.job, [])
    # A poll may begin at the instant at which the wait is added.
    if not any(since <= at <= ended_at - 540 for at in failed):
        assert not any(ended_at - 540 < at <= ended_at - 61 for at in cluster.all_answered)
        assert any(ended_at - 700 <= at <= ended_at - 540 for at in cluster.all_failed)


@settings(max_examples=6)
@given(scenarios)
def test_a_sample_of_scenarios(scenario: Scenario) -> None:
    """Some scenarios of the next test, which takes long."""
    play(scenario)


@pytest.mark.long
@settings(max_examples=int(os.environ.get("CDM_PLANNER_SCENARIOS", "60")))
@given(scenarios)
def test_every_wait_ends_once_and_correctly(scenario: Scenario) -> None:
    """No wait ends wrongly despite removals, outages, 429, deleted jobs, later runs."""
    play(scenario)


def play(scenario: Scenario) -> None:
    """Play a scenario and check how each of its waits ended, and that the limits were kept."""
    simulation = simulate(scenario)
    for recorded in simulation.waits:
        event(check(recorded, simulation.cluster))
    assert simulation.planner.registry.jobs == {}
    assert simulation.planner.in_flight.total == 0
    for kind, times in simulation.cluster.calls.items():
        assert most_in_a_minute(times) <= scenario.limit, kind


def test_an_answer_ends_an_outage_although_the_history_has_to_wait() -> None:
    """Two outages do not count as one if in between CDM answered, and only our rate limit did not.

    The run is not the latest one, so after the status its poll needs the history.
    """

    def fault(kind: str, now: float) -> Response | None:
        return UNAVAILABLE if now < 100 or 650 <= now < 800 else None

    cluster = FakeCluster(fault=fault)
    run = FakeRun(1, -60.0, 10.0)
    cluster.add(FakeJob("job", [run, FakeRun(2, 20.0, 9000.0)]))
    limits = RateLimits(100, lambda: 0.5)
    simulation = Simulation(cluster, limits)
    for _ in range(1100):
        # Other pollers of the user.
        limits.limiters[Quota.HISTORY].reserve(BEGIN)
    wait = simulation.wait_for("job", run)
    simulation.run(until=HOUR)
    assert isinstance(wait.outcome, Submission)
    assert 800 <= wait.ends[0][0] < 900
    assert min(cluster.calls["history"]) > 650


@pytest.mark.parametrize("begin", [0.0, 90.0, 99.0])
def test_a_hanging_call_delays_no_deadline(begin: float) -> None:
    """A wait ends ten seconds after its deadline at the latest, whatever call is in flight."""
    cluster = FakeCluster(latency=lambda _, now: 60.0 if now >= begin else 0.1)
    run = FakeRun(1, -60.0, 9000.0)
    cluster.add(FakeJob("job", [run]))
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    wait = simulation.wait_for("job", run, deadline=100.0)
    simulation.run(until=HOUR)
    assert isinstance(wait.outcome, errors.CdmWaitTimeout)
    assert 100 <= wait.ends[0][0] <= 110
    assert simulation.planner.in_flight.total == 0


@pytest.mark.long
@pytest.mark.parametrize("others", ["a later run", "a wait for a run to come"])
@pytest.mark.parametrize("planners", [1, 10])
def test_a_poll_of_two_calls_does_not_starve(planners: int, others: str) -> None:
    """The end of a run is seen although its poll needs two calls, each of a quota that is used up.

    The history is read if there is a later run, or for another wait whose run is not known yet.
    """
    rng = random.Random(planners)
    cluster = FakeCluster()
    limits = RateLimits(6 * planners, rng.random)
    simulation = Simulation(cluster, *[limits] * planners, random=rng.random)
    for index in range(40 * planners):
        run = FakeRun(1, -60.0, 9 * HOUR)
        cluster.add(FakeJob(f"busy_{index}", [run], listed="hidden"))
        known = run if index % 2 else None
        simulation.wait_for(
            f"busy_{index}", known, created_from=10 * HOUR, planner=index // 2 % planners
        )
    runs = [FakeRun(1, -60.0, 600.0)]
    if others == "a later run":
        runs.append(FakeRun(2, 601.0, 9 * HOUR))
    else:
        simulation.wait_for("job", None, created_from=10 * HOUR)
    cluster.add(FakeJob("job", runs, listed="hidden"))
    wait = simulation.wait_for("job", runs[0])
    simulation.run(until=HOUR)
    assert isinstance(wait.outcome, Submission)
    assert wait.ends[0][0] < 600 + 600


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 8, 40, 100, 1000])
def test_ends_are_seen_in_time(count: int) -> None:
    """Without faults, the end of a run is seen within little more than the poll interval."""
    rng = random.Random(count)
    cluster = FakeCluster(quota=120)
    simulation = Simulation(cluster, RateLimits(100, rng.random), random=rng.random)
    for index in range(count):
        run = FakeRun(1, -60.0, 100 + 3000 * rng.random())
        cluster.add(FakeJob(f"job_{index}", [run]))
        simulation.wait_for(f"job_{index}", run, at=60 * rng.random())
    simulation.run(until=HOUR)
    delays = [w.ends[0][0] - cluster.jobs[w.job].runs[0].ended for w in simulation.waits]
    assert max(delays) < 40
    assert sum(cluster.throttled.values()) == 0


#: Hours for which ten thousand runs are waited for; longer than anything that looks at a run again.
LONG = 1.0 if "CDM_PLANNER_SCENARIOS" in os.environ else 1 / 3


@pytest.mark.long
def test_ten_thousand_waits() -> None:
    """Of ten thousand runs some end, which is seen soon and within the rate limits."""
    rng = random.Random(7)
    cluster = FakeCluster(quota=120)
    simulation = Simulation(cluster, RateLimits(100, rng.random), random=rng.random)
    for index in range(10_000):
        run = FakeRun(index + 1, -600 * rng.random(), 10 * HOUR * rng.random())
        cluster.add(FakeJob(f"job_{index}", [run]))
        simulation.wait_for(f"job_{index}", run, at=60 * rng.random())
    simulation.run(until=LONG * HOUR)
    assert cluster.throttled == {}
    assert all(most_in_a_minute(times) <= 100 for times in cluster.calls.values())
    outcomes = [outcome for wait in simulation.waits for _, outcome in wait.ends]
    assert all(isinstance(outcome, Submission) for outcome in outcomes)
    seen = {wait.job: wait.ends[0][0] for wait in simulation.waits if wait.ends}
    ended = {job.name: job.runs[0].ended for job in cluster.jobs.values()}
    assert set(seen) >= {name for name, at in ended.items() if at < LONG * HOUR - 180}
    delays = sorted(at - ended[name] for name, at in seen.items())
    assert delays[len(delays) // 2] < 75
    # Runs that ended before their waits were added are seen in the first sweep.
    assert delays[-1] < 180
    # Job by job it would be 1.2 million calls an hour.
    assert sum(map(len, cluster.calls.values())) < 12_000 * LONG


@pytest.mark.long
def test_two_triggerers_share_a_quota() -> None:
    """Each could use up the quota; CDM throttles them, and each ends up with about half of it."""
    rng = random.Random(3)
    cluster = FakeCluster(quota=120)
    simulation = Simulation(
        cluster, RateLimits(100, rng.random), RateLimits(100, rng.random), random=rng.random
    )
    for index in range(400):
        run = FakeRun(1, -60.0, 100 * HOUR)
        cluster.add(FakeJob(f"job_{index}", [run], listed="hidden"))
        # The second one begins an hour later, when the first one uses all of the quota.
        simulation.wait_for(f"job_{index}", run, planner=index % 2, at=HOUR * (index % 2))
    answered = [0, 0]
    for index, planner in enumerate(simulation.planners):
        _count_answered(planner, answered, index)
    simulation.run(until=2 * HOUR)
    answered[:] = [0, 0]
    calls_before = len(cluster.calls["status"])
    throttled_before = cluster.throttled["status"]
    simulation.run(until=3.5 * HOUR)
    calls = len(cluster.calls["status"]) - calls_before
    throttled = cluster.throttled["status"] - throttled_before
    assert calls > 0.6 * 120 * 90
    assert throttled < calls / 50
    assert 0.6 < answered[0] / answered[1] < 1.6


def _count_answered(planner: PollPlanner, answered: list[int], index: int) -> None:
    completed = planner.completed

    def count(poll: Any, now: float) -> None:
        answered[index] += poll.batch.answered
        completed(poll, now)

    planner.completed = count  # type: ignore[method-assign]


@pytest.mark.long
def test_urgent_polls_go_first_and_starve_none() -> None:
    """Runs that no listing shows are polled while a hundred ends a minute are to be confirmed."""
    rng = random.Random(5)
    cluster = FakeCluster()
    simulation = Simulation(cluster, RateLimits(60, rng.random), random=rng.random)
    for index in range(3000):
        run = FakeRun(1, -60.0, 1.5 * HOUR * rng.random())
        cluster.add(FakeJob(f"job_{index}", [run]))
        simulation.wait_for(f"job_{index}", run)
    hidden = []
    for index in range(20):
        run = FakeRun(1, -60.0, 3000.0)
        cluster.add(FakeJob(f"hidden_{index}", [run], listed="hidden"))
        hidden.append(simulation.wait_for(f"hidden_{index}", run))
    simulation.run(until=1.2 * HOUR)
    assert all(wait.ends for wait in hidden)
    assert max(wait.ends[0][0] for wait in hidden) < 3000 + 600


@pytest.mark.long
def test_ends_are_confirmed_before_routine_polls_of_other_clusters() -> None:
    """Ends are seen soon although the routine polls of twenty clusters would fill the quota."""
    rng = random.Random(11)
    cluster = FakeCluster(quota=120)
    limits = RateLimits(100, rng.random)
    simulation = Simulation(cluster, *[limits] * 20, random=rng.random)
    simulation.max_steps = 1_000_000
    ends = []
    for index in range(2000):
        planner = index % 20
        run = FakeRun(1, -60.0, 600 + 1200 * rng.random() if index < 200 else 9 * HOUR)
        name = f"{planner:02}_{index}"
        cluster.add(FakeJob(name, [run]))
        ends.append((simulation.wait_for(name, run, planner=planner), run.ended))
    simulation.run(until=1860)
    assert max(wait.ends[0][0] - ended for wait, ended in ends[:200]) < 60


@pytest.mark.long
@pytest.mark.parametrize("jobs", [6, 50])
def test_many_clusters_with_few_jobs_each(jobs: int) -> None:
    """When status calls queue for slots, listings are read for few jobs too, without queueing."""
    rng = random.Random(jobs)
    cluster = FakeCluster(quota=120)
    limits = RateLimits(100, rng.random)
    simulation = Simulation(cluster, *[limits] * 20, random=rng.random)
    simulation.max_steps = 1_000_000
    ends = []
    for index in range(20 * jobs):
        planner = index % 20
        run = FakeRun(1, -60.0, 100 + (HOUR if index % 5 else 1400) * rng.random())
        name = f"{planner:02}_{index}"
        cluster.add(FakeJob(name, [run]))
        ends.append((simulation.wait_for(name, run, planner=planner), run.ended))
    simulation.run(until=HOUR / 2)
    delays = [wait.ends[0][0] - ended for wait, ended in ends if ended < HOUR / 2 - 60]
    assert max(delays) < 45


def test_a_steady_stream_of_urgent_jobs_starves_none() -> None:
    """Of four turns one goes to the job that has been due longest, and of eight turns one may go to
    a run that only lists show, though more urgent jobs come than there are turns.
    """
    queue = PollQueue[PolledJob]()
    queue.put(PolledJob("routine"), Priority.ROUTINE, 0)
    queue.put(PolledJob("listed"), Priority.STALE, 0)
    turns = []
    for now in range(1, 20):
        for number in range(2):
            queue.put(PolledJob(f"ended_{now}_{number}"), Priority.CONFIRM, now)
        due = queue.pop(now)
        turns.append(due and due[1])
    assert turns.index(Priority.ROUTINE) == 3
    assert turns.index(Priority.STALE) == 7
    assert turns.count(Priority.CONFIRM) == 17


def test_the_job_due_longest_may_be_urgent() -> None:
    """A turn of the job that is due longest counts as urgent if the job is to be confirmed."""
    queue = PollQueue[PolledJob]()
    for index in range(8):
        job = PolledJob(f"job_{index}")
        queue.put(job, Priority.ROUTINE, index)
        queue.put(job, Priority.CONFIRM, 20 - index)
    turns = [queue.pop(100) for _ in range(8)]
    assert [turn and turn[1] for turn in turns] == [Priority.CONFIRM] * 8


def test_an_outage_is_forgotten_when_no_wait_remains() -> None:
    """A wait added long after an outage ended all others is polled like any new wait."""
    cluster = FakeCluster(fault=lambda _, now: UNAVAILABLE if now < 1000 else None)
    run = FakeRun(1, -60.0, 6000.0)
    cluster.add(FakeJob("job", [run]))
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    first = simulation.wait_for("job", run)
    second = simulation.wait_for("job", run, at=5000)
    simulation.run(until=7000)
    assert isinstance(first.outcome, errors.CdmUnavailable)
    assert min(at for at in cluster.calls["status"] if at >= 5000) == pytest.approx(5005)
    assert isinstance(second.outcome, Submission)


def test_a_wait_that_joins_an_outage_has_patience_of_its_own() -> None:
    """An outage ends a wait that began during it as late as any other one: after ten minutes."""
    cluster = FakeCluster(fault=lambda _, __: UNAVAILABLE)
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for name in ("first", "second"):
        cluster.add(FakeJob(name, [FakeRun(1, -60.0, 6000.0)]))
    runs = {name: job.runs[0] for name, job in cluster.jobs.items()}
    first = simulation.wait_for("first", runs["first"])
    second = simulation.wait_for("second", runs["second"], at=590)
    simulation.run(until=3000)
    assert isinstance(first.outcome, errors.CdmUnavailable)
    assert isinstance(second.outcome, errors.CdmUnavailable)
    assert first.ends[0][0] < 700
    assert 590 + 600 <= second.ends[0][0] < 1300
