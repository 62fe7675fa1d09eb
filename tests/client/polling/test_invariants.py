"""What must be true of waiting in random scenarios: slow, failing or changing parts, many users.

With ``n`` waits of a user at a time, and ``r`` calls a minute, one look at each takes ``60 n / r``
seconds: the bound of the quota. Threads have a bound as well: ``n`` looks of ``s`` seconds at the
jobs of one cluster take ``n s / 32``. The end of a run is noticed within :data:`K` times the
greatest of these bounds and the poll interval, and the time that the answers take.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.polling.in_flight import MAX_IN_FLIGHT
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.sansio import Response, TransportError
from airflow_provider_cdm.client.submission import Submission
from tests.support.virtual_cluster import (
    FakeCluster,
    FakeJob,
    FakeRun,
    RecordedWait,
    Simulation,
    most_in_a_minute,
)

#: How many times later than the bounds demand an end is noticed at most.
K = 3.0
#: Seconds until a look after a failed one, at most: a circuit breaker, and calls that hang.
AFTER_FAILURE = 100.0
#: Seconds until a call with the new password, at most, once the connection holds it: the pause
#: between two look-ups, and the pause of waits after a refusal.
AFTER_ROTATION = 400.0
#: Calls a minute that are left of a limit if 3 % of the calls get 429.
THROTTLED_RATE = 12.0
HOUR = 3600.0
ANSWERS: dict[str, Response | TransportError] = {
    "503": Response(503),
    "429": Response(429),
    "hangs": TransportError("timed out", sent=True),
}
KINDS = ("status", "history", "list")
LATENCIES = [0.0, 0.1, 1.0, 6.0, 20.0, 60.0]


@dataclass
class Jobs:
    """Jobs of one cluster, each with one wait.

    :param count: how many there are.
    :param cluster: index of the cluster, modulo the number of clusters.
    :param name: begin of their names.
    :param run: ``own`` (number and date are known), ``undated``, or ``to come`` (found in the
        history).
    :param type: type of the job.
    :param listed: how listings show the job.
    :param later: whether the job runs again soon after the run that is waited for.
    :param poll_interval: seconds between two polls.
    :param joins: seconds within which the waits join.
    :param lasts: seconds within which the runs end.
    :param leaves: whether every third wait is removed at some time.
    :param timeout: deadline of the waits, in seconds since they joined; ``None`` for none.
    """

    count: int
    cluster: int
    name: str
    run: str
    type: str
    listed: str
    later: bool
    poll_interval: float
    joins: float
    lasts: float
    leaves: bool
    timeout: float | None


@dataclass
class Stress:
    """A random scenario.

    :param clusters: number of clusters.
    :param users: number of users; the clusters are shared out among their connections.
    :param limit: calls of one kind per minute and user.
    :param others: number of jobs in each cluster that nobody waits for.
    :param latencies: seconds that a kind of call takes before and after half an hour.
    :param slow_cluster: index of a cluster where all calls take longer; none if there are fewer.
    :param failing: answer of some calls; ``None`` if none fails.
    :param share: share of the calls that fail at any time.
    :param outage: begin and duration of an outage of all calls, in seconds.
    :param rotation: when the password of the first user is replaced, and how much later the
        connection holds the new one, in seconds; ``None`` if it stays.
    :param jobs: the jobs.
    """

    clusters: int
    users: int
    limit: int
    others: int
    latencies: dict[str, tuple[float, float]]
    slow_cluster: int
    failing: str | None
    share: float
    outage: tuple[float, float] | None
    rotation: tuple[float, float] | None
    jobs: list[Jobs]
    seed: int

    def user_of(self, group: Jobs) -> int:
        """Return whose connection the tasks with some jobs use."""
        return group.cluster % self.clusters % self.users

    def latency(self, kind: str, cluster: str) -> float:
        """Return the longest time that a kind of call takes."""
        slow = 20.0 if cluster == f"c{self.slow_cluster}" else 0.0
        return max(*self.latencies[kind], slow)


latencies = st.tuples(st.sampled_from(LATENCIES), st.none() | st.sampled_from(LATENCIES)).map(
    lambda pair: (pair[0], pair[0] if pair[1] is None else pair[1])
)
jobs = st.builds(
    Jobs,
    count=st.sampled_from([1, 1, 2, 5, 12, 12, 30, 120]),
    cluster=st.integers(0, 29),
    name=st.sampled_from(["load_", "load_a_", "stock_", "ä_"]),
    run=st.sampled_from(["own", "own", "undated", "to come"]),
    type=st.sampled_from(["NORMAL_JOB", "NORMAL_JOB", "BATCH_JOB", "SCENARIO_JOB"]),
    listed=st.sampled_from(["correct", "correct", "correct", "undated", "delayed", "hidden"]),
    later=st.sampled_from([False, False, False, True]),
    poll_interval=st.sampled_from([5.0, 10.0, 30.0, 300.0]),
    joins=st.sampled_from([0.0, 60.0, 1200.0]),
    lasts=st.sampled_from([60.0, 600.0, 3000.0]),
    leaves=st.booleans(),
    timeout=st.sampled_from([None, None, None, 30.0, 900.0]),
)
scenarios = st.builds(
    Stress,
    clusters=st.sampled_from([1, 1, 2, 5, 30]),
    users=st.sampled_from([1, 1, 2, 3]),
    limit=st.sampled_from([20, 100, 100]),
    others=st.sampled_from([0, 0, 150, 2000, 50_000]),
    latencies=st.fixed_dictionaries(dict.fromkeys(KINDS, latencies)),
    slow_cluster=st.sampled_from([0, 1, 99, 99]),
    failing=st.sampled_from([None, None, *ANSWERS]),
    share=st.sampled_from([0.0, 0.03]),
    outage=st.none() | st.tuples(st.floats(0, 3000), st.sampled_from([20.0, 300.0])),
    rotation=st.none() | st.tuples(st.floats(0, 3000), st.sampled_from([0.0, 60.0, 600.0])),
    jobs=st.lists(jobs, min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)


def simulate(stress: Stress) -> Simulation:
    """Run a scenario to its end."""
    rng = random.Random(stress.seed)
    cluster = FakeCluster(other_jobs=("load_other_", stress.others), fault=_faults(stress, rng))
    cluster.latency = lambda kind, now: _latency(stress, cluster, kind, now)
    limits = [RateLimits(stress.limit, rng.random) for _ in range(stress.users)]
    users = [index % stress.users for index in range(stress.clusters)]
    simulation = Simulation(
        cluster,
        *(limits[user] for user in users),
        random=rng.random,
        users=[f"u{user}" for user in users],
    )
    simulation.max_steps = 3_000_000
    if stress.rotation is not None:
        at, lag = stress.rotation
        account = cluster.accounts["u0"]
        simulation.at(at, lambda: setattr(account, "password", "new"))
        simulation.at(at + lag, lambda: setattr(account, "held", "new"))
    for index, group in enumerate(stress.jobs):
        for number in range(group.count):
            _add(simulation, group, f"{group.name}{index}_{number}", number, rng)
    simulation.run(until=200 * HOUR)
    return simulation


def _faults(
    stress: Stress, rng: random.Random
) -> Callable[[str, float], Response | TransportError | None]:
    begin, duration = stress.outage or (0.0, 0.0)

    def fault(_: str, now: float) -> Response | TransportError | None:
        if stress.failing is None:
            return None
        fails = begin <= now < begin + duration or rng.random() < stress.share
        return ANSWERS[stress.failing] if fails else None

    return fault


def _latency(stress: Stress, cluster: FakeCluster, kind: str, now: float) -> float:
    seconds = stress.latencies[kind][now >= HOUR / 2]
    return max(seconds, 20.0 if cluster.asked == f"c{stress.slow_cluster}" else 0.0)


def _add(simulation: Simulation, group: Jobs, name: str, number: int, rng: random.Random) -> None:
    planner = group.cluster % len(simulation.planners)
    joined = group.joins * rng.random()
    created = joined + 30.0 if group.run == "to come" else joined - 30.0
    run = FakeRun(2, created, created + 31 + group.lasts * rng.random())
    runs = [FakeRun(1, -9000.0, -8000.0), run]
    if group.later:
        runs.append(FakeRun(3, run.ended + 20, run.ended + 9000))
    simulation.cluster.add(
        FakeJob(name, runs, group.type, listed=group.listed, cluster=f"c{planner}")
    )
    recorded = simulation.wait_for(
        name,
        None if group.run == "to come" else run,
        at=joined,
        poll_interval=group.poll_interval,
        deadline=None if group.timeout is None else joined + group.timeout,
        created_from=joined,
        know_date=group.run == "own",
        planner=planner,
    )
    recorded.number = run.number
    if group.leaves and number % 3 == 0:
        simulation.remove(recorded, joined + 2000 * rng.random())


@dataclass
class Bounds:
    """The bounds of a scenario; see the module."""

    stress: Stress

    def of(self, group: Jobs) -> float:
        """Return the latest time at which the end of a run of some jobs is noticed."""
        stress, cluster = self.stress, f"c{group.cluster % self.stress.clusters}"
        together = [other for other in stress.jobs if self._same_cluster(group, other)]
        rate = stress.limit * 60 / 61
        if stress.failing == "429":
            rate = min(rate, THROTTLED_RATE)
        seconds = {kind: stress.latency(kind, cluster) for kind in KINDS}
        look = seconds["status"] + seconds["history"]
        if stress.failing == "hangs":
            look += stress.share * 60
        user = stress.user_of(group)
        quota = (
            60 / rate * sum(other.count for other in stress.jobs if user == stress.user_of(other))
        )
        threads = look / MAX_IN_FLIGHT * sum(other.count for other in together)
        bound = K * max(group.poll_interval, quota, threads) + 3 * look + seconds["list"]
        if stress.failing is not None:
            bound += AFTER_FAILURE + (stress.outage or (0.0, 0.0))[1]
        if stress.rotation is not None and user == 0:
            bound += AFTER_ROTATION + stress.rotation[1]
        return bound + 15

    def _same_cluster(self, group: Jobs, other: Jobs) -> bool:
        clusters = self.stress.clusters
        return other.cluster % clusters == group.cluster % clusters


def check(recorded: RecordedWait, group: Jobs, stress: Stress, cluster: FakeCluster) -> str:
    """Check that a wait ended once, in accordance with its run, and in time."""
    if recorded.removed:
        assert recorded.ends == []
        return "removed"
    assert len(recorded.ends) == 1, recorded
    ((at, outcome),) = recorded.ends
    run = cluster.jobs[recorded.job].runs[1]
    if isinstance(outcome, errors.CdmWaitTimeout):
        assert recorded.deadline is not None
        late = at - recorded.deadline
        # Of hundreds of waits that reach their deadlines at once, some end in each step.
        slack = 10.1 + sum(each.count for each in stress.jobs) / 1000
        assert -0.001 < late < slack, f"{late:.3f} s after the deadline: {recorded.job}, {group}"
        return "timed out"
    assert isinstance(outcome, Submission), outcome
    assert (outcome.submission_id, outcome.status) == (run.number, run.status), outcome
    delay, bound = at - max(run.ended, recorded.joined), Bounds(stress).of(group)
    assert 0 <= delay <= bound, f"{delay:.0f} > {bound:.0f} s: {recorded.job}, {group}"
    return "ended"


#: Jobs that run again while a listing shows neither the end nor a date were polled too seldom.
_UNDATED = Jobs(
    *(120, 0, "load_", "own", "NORMAL_JOB", "undated", True),
    *(300.0, 0.0, 60.0, False, None),
)
#: The same for runs of fifty minutes; each look at a job comes when all others have had theirs.
_UNDATED_FOR_LONG = replace(_UNDATED, poll_interval=5.0, lasts=3000.0)
_QUICK = dict.fromkeys(KINDS, (0.0, 0.0))
#: Polls that pause between two calls have a later clock than those that begin meanwhile.
_OF_TWO_CALLS = Jobs(
    *(30, 0, "load_", "to come", "NORMAL_JOB", "correct", False),
    *(5.0, 60.0, 60.0, False, None),
)
_FIVE = replace(_OF_TWO_CALLS, count=5, run="own", joins=0.0)
_LONGER = replace(_FIVE, count=1, lasts=600.0)


@pytest.mark.long
@settings(max_examples=int(os.environ.get("CDM_PLANNER_SCENARIOS", "12")))
@given(scenarios)
@example(Stress(1, 1, 20, 0, _QUICK, 1, None, 0.0, None, None, [_UNDATED], 0))
@example(Stress(1, 1, 20, 0, _QUICK, 0, None, 0.0, None, None, [_UNDATED_FOR_LONG], 0))
@example(
    Stress(
        *(1, 1, 20, 2000, _QUICK, 0, None, 0.0, None, (120.0, 0.0)),
        *([_FIVE, _LONGER, _OF_TWO_CALLS], 0),
    )
)
def test_every_wait_ends_in_time(stress: Stress) -> None:
    """Each wait ends once, as its run did, within the bounds; no minute has too many calls."""
    simulation = simulate(stress)
    groups = [group for group in stress.jobs for _ in range(group.count)]
    for recorded, group in zip(simulation.waits, groups, strict=True):
        event(check(recorded, group, stress, simulation.cluster))
    for planner in simulation.planners:
        assert planner.registry.jobs == {}
        assert planner.in_flight.total == 0
    for account in simulation.cluster.accounts.values():
        for kind, times in account.calls.items():
            assert most_in_a_minute(times) <= stress.limit, (account.name, kind)
