"""A requested poll interval is never undercut, and what is scheduled does not pile up."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.sansio import Response, TransportError
from airflow_provider_cdm.client.submission import Submission
from tests.support.virtual_cluster import (
    FakeCluster,
    FakeJob,
    FakeRun,
    Simulation,
    most_in_a_minute,
)

HOUR = 3600.0


@pytest.mark.parametrize("interval", [600.0, 1800.0, HOUR])
@pytest.mark.parametrize("jobs", [1, 15])
def test_a_long_interval_is_kept(interval: float, jobs: int) -> None:
    """A run is polled as often as requested, and more often only while it is young."""
    cluster = FakeCluster()
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for index in range(jobs):
        run = FakeRun(1, -10.0, 9e9)
        cluster.add(FakeJob(f"job_{index}", [run]))
        simulation.wait_for(f"job_{index}", run, poll_interval=interval)
    simulation.run(until=24 * HOUR)
    late = [at for at in cluster.calls["status"] if at >= 4 * HOUR]
    assert jobs * 5 <= len(late) <= jobs * (20 * HOUR / interval + 1)


@pytest.mark.long
def test_replaced_entries_do_not_pile_up() -> None:
    """The schedule of some hundred waits stays as small as they are, however long they wait."""
    cluster = FakeCluster()
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for index in range(340):
        run = FakeRun(1, -60.0, 9e9)
        cluster.add(FakeJob(f"job_{index}", [run]))
        simulation.wait_for(f"job_{index}", run)
    simulation.run(until=2 * HOUR)
    queues = simulation.planner.registry.schedule.queues.values()
    entries = sum(len(heap) for queue in queues for heap in queue._heaps)
    assert entries < 4 * 2 * 340


def test_deadlines_of_waits_that_left_are_forgotten() -> None:
    """Waits that end long before their deadlines leave nothing in memory until then."""
    cluster = FakeCluster()
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for index in range(2000):
        cluster.add(FakeJob(f"job_{index}", [FakeRun(1, -60.0, 9e9)]))
        wait = simulation.wait_for(f"job_{index}", None, at=float(index), deadline=9e9)
        simulation.remove(wait, at=index + 4.0)
    simulation.run(until=HOUR)
    assert simulation.planner.registry.jobs == {}
    assert len(simulation.planner.registry._deadlines._heap) < 500


def test_a_planner_that_is_closed_gives_back_its_slots() -> None:
    """The slot that a cluster has reserved goes to another one of the user if its waits leave."""
    cluster, limits = FakeCluster(), RateLimits(1, lambda: 0.5)
    simulation = Simulation(cluster, limits, limits)
    for name in ("leaving", "staying"):
        cluster.add(FakeJob(name, [FakeRun(1, -60.0, 9e9)]))
    simulation.remove(simulation.wait_for("leaving", cluster.jobs["leaving"].runs[0]), at=40.0)
    simulation.at(40.0, simulation.planner.close)
    simulation.wait_for("staying", cluster.jobs["staying"].runs[0], at=41.0, planner=1)
    simulation.run(until=120.0)
    assert cluster.calls["status"] == pytest.approx([5.0, 66.0], abs=1.0)
    # Only the next look of the one that stays; each counts in how often the others may look.
    assert sum(map(len, limits.reservations.values())) == 1


@pytest.mark.long
def test_slow_answers_starve_no_kind_of_call() -> None:
    """With answers of 15 to 45 seconds, threads are scarcer than slots, and each kind gets its
    share. Answers that all take as long come together, and leave threads to any kind.
    """
    rng = random.Random(1)
    cluster = FakeCluster(latency=lambda _, __: 15 + 30 * rng.random())
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for index in range(300):
        run = FakeRun(1, -60.0, 9e9)
        cluster.add(FakeJob(f"hidden_{index}", [run], listed="hidden"))
        simulation.wait_for(f"hidden_{index}", run)
    to_come = []
    for index in range(5):
        run = FakeRun(2, 900.0, 1000.0)
        cluster.add(FakeJob(f"later_{index}", [FakeRun(1, -60.0, -50.0), run], listed="hidden"))
        to_come.append(simulation.wait_for(f"later_{index}", None, created_from=0.0))
    simulation.run(until=2 * HOUR)
    # Once its run is known, a wait takes turns with the others, which takes 24 calls a minute.
    assert all(wait.ends for wait in to_come)
    assert max(wait.ends[0][0] for wait in to_come) < 1000 + 900
    # Status calls still have most of the threads.
    assert len(cluster.calls["status"]) > 2 * len(cluster.calls["history"])


def test_slow_answers_make_no_interval_longer() -> None:
    """The interval is the time between the begins of two looks, however long the answers take."""
    cluster = FakeCluster(latency=lambda _, __: 20.0)
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    run = FakeRun(1, -60.0, 9e9)
    cluster.add(FakeJob("job", [run]))
    simulation.wait_for("job", run)
    simulation.run(until=HOUR)
    assert 115 <= len(cluster.calls["status"]) <= 125


def test_the_shortest_interval_of_a_job_counts_while_it_is_waited_for() -> None:
    """Of several waits for a job, the one that asks for most is served, and the others are not
    polled as often once it has left.
    """
    cluster = FakeCluster()
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    run = FakeRun(1, -10.0, 9e9)
    cluster.add(FakeJob("job", [run]))
    simulation.wait_for("job", run, poll_interval=HOUR)
    simulation.remove(simulation.wait_for("job", run, poll_interval=30.0), at=4 * HOUR)
    simulation.run(until=24 * HOUR)
    calls = cluster.calls["status"]
    assert 110 <= sum(2 * HOUR <= at < 3 * HOUR for at in calls) <= 130
    # The first hour after it has left is over when what was scheduled before has passed.
    assert sum(at >= 5 * HOUR for at in calls) <= 20


@pytest.mark.long
def test_isolated_failures_do_not_add_up() -> None:
    """With some failing calls, runs that are polled seldom are not given up: CDM answers."""
    rng = random.Random(10)
    cluster = FakeCluster(
        fault=lambda kind, _: Response(503) if kind == "status" and rng.random() < 0.1 else None
    )
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for index in range(1500):
        run = FakeRun(1, -60.0, 9e9)
        cluster.add(FakeJob(f"hidden_{index}", [run], listed="hidden"))
        simulation.wait_for(f"hidden_{index}", run)
    simulation.run(until=2 * HOUR)
    assert [wait.outcome for wait in simulation.waits if wait.ends] == []


@pytest.mark.parametrize("broken", [40, 200])
def test_calls_that_hang_end_no_wait_for_other_jobs(broken: int) -> None:
    """Many jobs whose calls hang for a minute, added before all others, look like a cluster that
    does not answer only until another job is tried.
    """
    rng = random.Random(1)
    cluster = FakeCluster()

    def hang(_: float) -> TransportError:
        cluster.elapsed += 60
        return TransportError("timed out", sent=True)

    simulation = Simulation(cluster, RateLimits(100, rng.random), random=rng.random)
    for index in range(broken):
        run = FakeRun(1, -60.0, 9e9)
        cluster.add(FakeJob(f"broken_{index}", [run], listed="hidden", fault=hang))
        simulation.wait_for(f"broken_{index}", run)
    others = []
    for index in range(100):
        run = FakeRun(1, -60.0, 900.0 + index)
        cluster.add(FakeJob(f"other_{index}", [run], listed="hidden"))
        others.append((simulation.wait_for(f"other_{index}", run), run))
    simulation.run(until=2 * HOUR)
    assert [type(wait.outcome) for wait, _ in others] == [Submission] * 100
    # Half of the threads are for jobs whose last call has not failed.
    assert max(wait.ends[0][0] - run.ended for wait, run in others) < 400


@pytest.mark.long
def test_a_large_cluster_gets_a_fair_share_of_the_slots() -> None:
    """Clusters take turns, but of two slots one goes to the look that has been due for longest.

    Otherwise a cluster with many waits would get no more looks than each with a single one.
    """
    rng = random.Random(1)
    cluster, limits = FakeCluster(), RateLimits(100, rng.random)
    simulation = Simulation(cluster, *[limits] * 30, random=rng.random)
    for index in range(329):
        planner = max(0, index - 299)
        run = FakeRun(1, -60.0, 9e9)
        cluster.add(FakeJob(f"{planner}_{index}", [run], listed="hidden", cluster=f"c{planner}"))
        interval = 5.0 if planner else 30.0
        simulation.wait_for(f"{planner}_{index}", run, planner=planner, poll_interval=interval)
    simulation.run(until=0.5 * HOUR)
    looks: dict[str, list[float]] = {}
    for job, at in cluster.answered.items():
        looks[job] = [later - earlier for earlier, later in pairwise(at)] or [HOUR]
    # One look at each of 329 jobs takes 200 s.
    assert max(max(gaps) for job, gaps in looks.items() if job.startswith("0_")) < 2 * 200 + 30
    assert max(max(gaps) for job, gaps in looks.items() if not job.startswith("0_")) < 60


@pytest.mark.long
@pytest.mark.parametrize(
    ("waits", "clusters", "interval"), [(100, 5, 5.0), (100, 5, 10.0), (50, 10, 10.0), (20, 1, 5.0)]
)
def test_few_waits_in_each_cluster_are_noticed_in_time(
    waits: int, clusters: int, interval: float
) -> None:
    """Where the status calls of a user do not suffice, short lists are read as well: the ends are
    noticed within the poll interval, as with the same waits in one cluster.
    """
    rng = random.Random(1)
    cluster, limits = FakeCluster(), RateLimits(100, rng.random)
    simulation = Simulation(cluster, *[limits] * clusters, random=rng.random)
    ends = {}
    for index in range(waits):
        run = FakeRun(1, -10.0, 60 + 1740 * index / waits + rng.random())
        name = f"c{index % clusters}_job_{index}"
        cluster.add(FakeJob(name, [run]))
        simulation.wait_for(name, run, poll_interval=interval, planner=index % clusters)
        ends[name] = run.ended
    simulation.run(until=HOUR)
    delays = sorted(wait.ends[0][0] - ends[wait.job] for wait in simulation.waits)
    assert delays[int(0.95 * waits)] <= 1.1 * interval
    assert max(map(most_in_a_minute, cluster.calls.values())) <= 120


def test_a_list_ends_no_wait_that_has_just_begun() -> None:
    """A wait whose run has ended already is over after the first poll that it would have had: its
    task may still be deferring when a list that others need shows the end.
    """
    cluster = FakeCluster()
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for index in range(40):
        run = FakeRun(1, -0.5, 9e9)
        cluster.add(FakeJob(f"active_{index}", [run]))
        simulation.wait_for(f"active_{index}", run, poll_interval=5)
    late = []
    for index in range(40):
        at = 60 + 0.7 * index
        run = FakeRun(1, at - 1, at - 0.1)
        cluster.add(FakeJob(f"ended_{index}", [run]))
        late.append((at, simulation.wait_for(f"ended_{index}", run, at=at, poll_interval=120)))
    simulation.run(until=200)
    assert all(wait.ends[0][0] - at >= 4.5 for at, wait in late)
