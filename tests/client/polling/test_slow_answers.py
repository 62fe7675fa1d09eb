"""Slow answers: the choice between the job list and status calls counts the time that both take."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.sansio import Response
from tests.support.virtual_cluster import FakeCluster, FakeJob, FakeRun, Simulation

HOUR = 3600.0
Latency = Callable[[float], float]


def always(seconds: float) -> Latency:
    """Return a latency that does not change."""
    return lambda _: seconds


QUICK = always(0.1)


@dataclass
class Load:
    """Waits on one cluster for runs whose ends are spread over some time.

    :param waits: number of waits.
    :param jobs: number of jobs in the cluster.
    :param latency: latency by kind of call; 0.1 s by default.
    :param listed: whether the list can be read.
    :param hidden: number of jobs waited for that no list shows.
    :param ends_within: seconds in which the runs end.
    """

    waits: int
    jobs: int
    latency: dict[str, Latency] = field(default_factory=dict)
    listed: bool = True
    hidden: int = 0
    ends_within: float = HOUR

    def cluster(self) -> FakeCluster:
        """Return the cluster, without the jobs."""
        return FakeCluster(
            latency=lambda kind, now: self.latency.get(kind, QUICK)(now),
            fault=lambda kind, _: Response(403) if kind == "list" and not self.listed else None,
        )

    def add_to(self, simulation: Simulation, rng: random.Random) -> None:
        """Add the jobs and the waits."""
        for index in range(self.waits):
            run = FakeRun(1, -60.0, 120 + (self.ends_within - 120) * rng.random())
            listed = "hidden" if index < self.hidden else "correct"
            simulation.cluster.add(FakeJob(f"job_{index}", [run], listed=listed))
            simulation.wait_for(f"job_{index}", run, at=60 * rng.random())
        for index in range(self.waits, self.jobs):
            simulation.cluster.add(FakeJob(f"job_{index}", [FakeRun(1, -60.0, -50.0)]))

    def delays(self) -> tuple[float, float, float]:
        """Return the median, the 95th percentile and the maximum of the delays, in seconds."""
        rng = random.Random(1)
        simulation = Simulation(self.cluster(), RateLimits(100, rng.random), random=rng.random)
        self.add_to(simulation, rng)
        simulation.run(until=2 * HOUR)
        jobs = simulation.cluster.jobs
        delays = sorted(w.ends[0][0] - jobs[w.job].runs[0].ended for w in simulation.waits)
        return delays[len(delays) // 2], delays[len(delays) * 95 // 100], delays[-1]


SLOW = always(30.0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("waits", "jobs", "seconds"),
    [(40, 40, 1800), (64, 1000, 1800), (100, 100, 1800), (100, 1000, 1800), (300, 300, HOUR)],
)
def test_a_slow_list_is_no_worse_than_none(waits: int, jobs: int, seconds: float) -> None:
    """A list of 30 s a page is read only where looks at each job would take longer."""
    slow = Load(waits, jobs, {"list": SLOW}, ends_within=seconds).delays()
    none = Load(waits, jobs, listed=False, ends_within=seconds).delays()
    assert slow[0] < none[0] + 12
    assert slow[1] < none[1] + 12
    # Until the first page has come, nobody knows that it is slow.
    assert slow[2] < 1.25 * none[2] + 12


@pytest.mark.long
@pytest.mark.parametrize(
    ("latency", "p95"),
    [
        (lambda now: 30.0 if now < 1200 else 0.1, 60),
        (lambda now: 30.0 if now > 1200 else 0.1, 60),
        (lambda now: 30.0 if now // 300 % 2 else 0.1, 60),
        (lambda now: 30.0 if now // 20 % 2 else 0.1, 60),
    ],
    ids=["becomes quick", "becomes slow", "every five minutes", "every other call"],
)
def test_latency_that_changes(latency: Latency, p95: float) -> None:
    """A list that becomes slow delays waits by one page at most, and a quick one is used again."""
    load = Load(100, 1000, {"list": latency})
    assert load.delays()[1] < p95


@pytest.mark.long
def test_a_list_that_became_quick_is_used_again() -> None:
    """A slow list is tried again after ten minutes, without delaying anything meanwhile."""
    load = Load(100, 100, {"list": lambda now: 60.0 if now < 600 else 0.1})
    rng = random.Random(1)
    simulation = Simulation(load.cluster(), RateLimits(100, rng.random), random=rng.random)
    load.add_to(simulation, rng)
    simulation.run(until=HOUR)
    calls = simulation.cluster.calls
    assert sum(at < 600 for at in calls["list"]) < 5
    assert sum(at > 1800 for at in calls["list"]) > 40
    assert sum(1800 < at < 2700 for at in calls["status"]) < 500


@pytest.mark.long
def test_slow_looks_with_a_quick_list() -> None:
    """Looks of 20 s are made for ends, since the list shows what is active."""
    p50, p95, _ = Load(300, 300, {"status": always(20.0)}).delays()
    assert p50 < 20 + 15
    assert p95 < 20 + 30


@pytest.mark.long
def test_slow_looks_and_a_slow_list() -> None:
    """Pages are read in parallel, and what an answer shows counts from when it was asked for."""
    slow = {kind: always(20.0) for kind in ("status", "history", "list")}
    p50, p95, _ = Load(1000, 1000, slow).delays()
    # One after the other, the ten pages take 200 s.
    assert p50 < 90
    assert p95 < 140


@pytest.mark.long
def test_a_slow_history_delays_no_status() -> None:
    """Waits that need the history hold their share of the threads, and no more."""
    load = Load(60, 60, {"history": SLOW})
    rng = random.Random(1)
    simulation = Simulation(load.cluster(), RateLimits(100, rng.random), random=rng.random)
    load.add_to(simulation, rng)
    # The first of these runs begins after an hour: until then each look needs the history.
    for index in range(100):
        run = FakeRun(2, 2 * HOUR, 3 * HOUR)
        simulation.cluster.add(FakeJob(f"later_{index}", [run], listed="hidden"))
        simulation.wait_for(f"later_{index}", None, created_from=HOUR)
    simulation.run(until=1.5 * HOUR)
    jobs = simulation.cluster.jobs
    delays = [w.ends[0][0] - jobs[w.job].runs[0].ended for w in simulation.waits[:60]]
    assert max(delays) < 60


@pytest.mark.long
@pytest.mark.parametrize("kind", ["list", "status"])
def test_one_slow_cluster_among_quick_ones(kind: str) -> None:
    """A slow cluster delays no waits on the others, though all are of one user."""
    rng = random.Random(1)
    limits = RateLimits(100, rng.random)
    cluster = FakeCluster()
    cluster.latency = lambda called, now: (
        0.1 + 30 * (called == kind and simulation.stepping is simulation.planners[0])
    )
    simulation = Simulation(cluster, *[limits] * 5, random=rng.random)
    for planner in range(5):
        for index in range(100):
            run = FakeRun(1, -60.0, 120 + (HOUR - 120) * rng.random())
            name = f"{planner}_{index}"
            cluster.add(FakeJob(name, [run]))
            simulation.wait_for(name, run, planner=planner)
    simulation.run(until=2 * HOUR)
    delays = sorted(
        w.ends[0][0] - cluster.jobs[w.job].runs[0].ended for w in simulation.waits[100:]
    )
    assert delays[len(delays) * 95 // 100] < 45
    assert delays[-1] < 60
