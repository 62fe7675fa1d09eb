"""Hints from the job list, and when a sweep of it is worth the calls."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.job_list import JobPage, ListedJob
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.polling.hint import Hint, hint_for
from airflow_provider_cdm.client.polling.model import PolledJob, Wait
from airflow_provider_cdm.client.polling.pace import Pace
from airflow_provider_cdm.client.polling.queue import Priority
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.polling.sweep import SweepPlanner
from airflow_provider_cdm.client.sansio import Response
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.virtual_cluster import BEGIN, FakeCluster, FakeJob, FakeRun, Simulation

CREATED = 1_735_787_045_000
OURS = RunRef("c", "orders", 5, CREATED)
UNDATED = RunRef("c", "orders", 5)
UNKNOWN = RunRef("c", "orders")


@pytest.mark.parametrize(
    ("run", "status", "created", "expected"),
    [
        (OURS, "RUNNING", CREATED, Hint.ACTIVE),
        (OURS, "BOOTING", CREATED, Hint.ACTIVE),
        (OURS, "PENDING", CREATED, Hint.ACTIVE),
        # A later run is active, so ours has ended.
        (OURS, "RUNNING", CREATED + 1, Hint.POLL),
        # The page is out of date, or the date means something else.
        (OURS, "RUNNING", CREATED - 1, Hint.INCONCLUSIVE),
        # Some run is active, perhaps ours.
        (OURS, "RUNNING", None, Hint.INCONCLUSIVE),
        (UNDATED, "RUNNING", CREATED, Hint.INCONCLUSIVE),
        # No active run, whatever the status is called.
        (OURS, "SUCCEEDED", CREATED, Hint.POLL),
        (OURS, "FAILED", CREATED, Hint.POLL),
        (OURS, "NEW", None, Hint.POLL),
        (OURS, "HIBERNATING", CREATED, Hint.POLL),
        (OURS, "", CREATED, Hint.POLL),
        (UNDATED, "SUCCEEDED", None, Hint.POLL),
        # No run is known: worth a poll if one may have been created.
        (UNKNOWN, "SUCCEEDED", CREATED, Hint.POLL),
        (UNKNOWN, "RUNNING", CREATED + 1, Hint.POLL),
        (UNKNOWN, "SUCCEEDED", CREATED - 1, Hint.INCONCLUSIVE),
        (UNKNOWN, "RUNNING", CREATED - 1, Hint.INCONCLUSIVE),
        (UNKNOWN, "RUNNING", None, Hint.POLL),
        (UNKNOWN, "NEW", None, Hint.INCONCLUSIVE),
    ],
)
def test_hint(run: RunRef, status: str, created: int | None, expected: Hint) -> None:
    """Each state of a listed job leads to one hint."""
    assert hint_for(run, CREATED, ListedJob("orders", status, created)) is expected


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ({"name": "a", "status": "RUNNING"}, ListedJob("a", "RUNNING")),
        ({"name": "a", "status": " running"}, ListedJob("a", "RUNNING")),
        ({"name": "a", "status": "New"}, ListedJob("a", "NEW")),
        ({"name": "a", "status": "Queued"}, ListedJob("a", "Queued")),
        ({"name": "a", "execute_create_date": "17"}, ListedJob("a", "", 17)),
        ({"name": "a", "status": None, "execute_create_date": 17.0}, ListedJob("a", "", 17)),
        ({"name": "a", "status": 5, "execute_create_date": "x"}, ListedJob("a", "")),
    ],
)
def test_a_listed_job_is_read(wire: dict[str, Any], expected: ListedJob) -> None:
    """All fields but the name may be missing or malformed."""
    assert ListedJob.from_wire(wire) == expected


@pytest.mark.parametrize("wire", [None, [], "a", {}, {"name": 5}, {"name": ""}])
def test_a_listed_job_needs_a_name(wire: Any) -> None:
    """An entry without a name is rejected."""
    with pytest.raises(ValueError, match="no name"):
        ListedJob.from_wire(wire)


def test_list_jobs_returns_pages(sim: CdmSimulator, make_session: Any) -> None:
    """A page has up to a hundred jobs of one type, filtered by name."""
    for number in range(230):
        sim.add_job(f"orders_{number:03}")
    sim.add_job("stock")
    sim.add_job("database", type="BATCH_JOB")
    sim.start("orders_007")
    session: CdmSession = make_session()

    def page(number: int, **options: Any) -> JobPage:
        call = resources.list_jobs(sim.cluster_id, number, **options)
        return session.run(session.api.call(call))

    assert [len(page(number).jobs) for number in (1, 2, 3, 4)] == [100, 100, 31, 0]
    assert page(1).total == 231
    assert page(1, name_filter="stock") == JobPage([ListedJob("stock", "NEW")], 1)
    assert [job.name for job in page(1, job_type="BATCH_JOB").jobs] == ["database"]
    (active,) = [job for job in page(1).jobs if job.active]
    run = sim.runs("orders_007")[0]
    assert hint_for(RunRef("c", "", 1, int(run.created * 1000)), 0, active) is Hint.ACTIVE


@pytest.mark.parametrize("body", [{}, {"jobs": {}}, {"jobs": [5]}, {"jobs": [{}]}, []])
def test_a_malformed_page_is_rejected(body: Any, sim: CdmSimulator, make_session: Any) -> None:
    """An answer that is not a list of jobs raises :class:`CdmBadResponse`."""
    sim.fail("list_jobs", "body", body=body)
    session = make_session()
    with pytest.raises(errors.CdmBadResponse, match="list the jobs"):
        session.run(session.api.call(resources.list_jobs(sim.cluster_id, 1)))


def make_jobs(count: int, due_at: float = BEGIN, **fields: Any) -> list[PolledJob]:
    """Return some jobs with one wait each, due at a time in epoch seconds."""
    jobs = []
    for number in range(count):
        name = f"job_{number}"
        wait = Wait(Follower(RunRef("c", name, 1)), 30.0, on_end=print)
        job = PolledJob(name, [wait], interval=30.0, joined_at=BEGIN - 100, **fields)
        job.due_at[Priority.ROUTINE] = due_at
        jobs.append(job)
    return jobs


def make_sweeps(**fields: Any) -> SweepPlanner:
    """Return a planner of sweeps that has seen no answer yet."""
    return SweepPlanner(Pace(RateLimits(100, lambda: 0.5)), **fields)


def read(sweeps: SweepPlanner, page: JobPage, now: float) -> bool:
    """Read the next page, and return whether the sweep goes on."""
    sweep = sweeps.active
    assert sweep is not None
    number = sweep.take_page()
    sweep.record_end(number, again=False)
    return sweeps.add_page(sweep, number, page, now)


@pytest.mark.parametrize(
    ("count", "pages", "sweep"),
    [(1, None, False), (10, None, False), (11, None, True), (50, 60, False), (61, 60, True)],
)
def test_a_sweep_starts_if_it_is_cheaper(count: int, pages: int | None, sweep: bool) -> None:
    """A sweep starts only if its pages cost less than a status call for each job."""
    sweeps = make_sweeps()
    if pages is not None:
        sweeps.page_counts[0, "job_"] = (pages, BEGIN + 1)
    jobs = make_jobs(count)
    assert bool(sweeps.savings(jobs[0], jobs, BEGIN)) is sweep


def test_jobs_due_soon_count() -> None:
    """Jobs due within half a poll interval count as savings, later ones do not."""
    (first,) = make_jobs(1)
    assert make_sweeps().savings(first, make_jobs(20, BEGIN + 14), BEGIN) == 21
    assert make_sweeps().savings(first, make_jobs(20, BEGIN + 16), BEGIN) == 0


def test_a_job_due_twice_in_a_sweep_is_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is due again before the sweep has ended is scheduled once after it.

    Scheduled twice, it would be due twice in the next sweep, and more often in each that follows.
    """
    finish = SweepPlanner.finish
    kept: list[list[PolledJob]] = []

    def record(self: SweepPlanner, jobs: Iterable[PolledJob], now: float) -> list[PolledJob]:
        kept.append(finish(self, jobs, now))
        return kept[-1]

    monkeypatch.setattr(SweepPlanner, "finish", record)
    cluster = FakeCluster()
    simulation = Simulation(cluster, RateLimits(6, lambda: 0.5))
    # A sweep of four pages takes forty seconds, longer than the poll interval.
    for index in range(400):
        run = FakeRun(1, -60.0, 99_999.0)
        cluster.add(FakeJob(f"job_{index}", [run]))
        simulation.wait_for(f"job_{index}", run)
    simulation.run(until=600)
    assert len(kept) > 10
    assert all(len(jobs) == len(set(jobs)) for jobs in kept)


def page_of(*names: str, total: int | None = None) -> JobPage:
    """Return a page of running jobs."""
    return JobPage([ListedJob(name, "RUNNING") for name in names], total)


def test_a_long_listing_is_read_only_to_its_first_page() -> None:
    """The first page shows how many follow; a sweep that costs too much ends there."""
    sweeps, jobs = make_sweeps(), make_jobs(20)
    sweeps.start(jobs[0], 20, jobs, BEGIN)
    assert not read(sweeps, page_of(*map(str, range(100)), total=2100), BEGIN)
    sweeps.finish(jobs, BEGIN)
    assert all(job.type_index == 0 for job in jobs)
    assert sweeps.savings(jobs[0], jobs[1:], BEGIN) == 0


@pytest.mark.parametrize("total", [True, False])
def test_all_pages_are_read(total: bool) -> None:
    """A sweep ends when it has read the total, or, without a total, a page that is not full."""
    sweeps, jobs = make_sweeps(), make_jobs(20)
    sweeps.start(jobs[0], 20, jobs, BEGIN)
    names = [str(number) for number in range(250)]
    read_next = []
    for first in (0, 100, 200):
        page = page_of(*names[first : first + 100], total=250 if total else None)
        read_next.append(read(sweeps, page, BEGIN))
    assert read_next == [True, True, False]
    assert sweeps.active is not None
    assert sweeps.active.complete


def test_a_job_not_listed_is_assumed_to_have_another_type() -> None:
    """A job that a complete sweep did not show is tried with each type, then never listed."""
    sweeps, jobs = make_sweeps(), make_jobs(20)
    for type_index in range(3):
        assert all(job.type_index == type_index and job.listable for job in jobs)
        sweeps.unfiltered_until = math.inf
        sweeps.start(jobs[0], 20, jobs, BEGIN)
        read(sweeps, page_of("other", total=1), BEGIN)
        sweeps.finish(jobs, BEGIN)
    assert not any(job.listable for job in jobs)


def test_a_job_added_during_a_sweep_is_not_missing() -> None:
    """A sweep says nothing about a job that was added after it started."""
    sweeps, jobs = make_sweeps(unfiltered_until=math.inf), make_jobs(20)
    jobs[0].joined_at = BEGIN + 1
    sweeps.start(jobs[0], 20, jobs, BEGIN)
    read(sweeps, page_of("other", total=1), BEGIN + 2)
    sweeps.finish(jobs, BEGIN)
    assert [job.type_index for job in jobs] == [0] + [1] * 19


def read_one_page(sweeps: SweepPlanner, jobs: list[PolledJob], page: JobPage, now: float) -> str:
    """Read a list that has one page, and return the filter that was used."""
    sweeps.start(jobs[0], 20, jobs, now)
    assert sweeps.active is not None
    name_filter = sweeps.active.name_filter
    sweeps.active.any_found = bool(page.jobs)
    read(sweeps, page, now)
    sweeps.finish(jobs, now)
    return name_filter


def test_a_filter_that_hides_all_jobs_is_not_used_for_some_time() -> None:
    """The filter narrows the listing. One empty list proves nothing; two pause filters, longer
    each time, until a filtered list shows jobs again.
    """
    sweeps, jobs = make_sweeps(), make_jobs(20)
    now, empty = BEGIN, page_of(total=0)
    assert [read_one_page(sweeps, jobs, empty, now) for _ in range(2)] == ["job_"] * 2
    assert all(job.type_index == 0 for job in jobs)
    assert read_one_page(sweeps, jobs, page_of("job_1", total=1), now + 599) == ""
    now += 600
    for job in jobs:
        job.type_index = 0
    assert read_one_page(sweeps, jobs, empty, now) == "job_"
    assert read_one_page(sweeps, jobs, page_of("job_1", total=1), now + 1199) == ""
    now += 1200
    for job in jobs:
        job.type_index = 0
    assert read_one_page(sweeps, jobs, page_of("job_1", total=1), now) == "job_"
    assert sweeps.empty == 0


def test_lengths_of_lists_are_forgotten() -> None:
    """The numbers of pages of lists that are not read any more do not pile up."""
    sweeps = make_sweeps()
    for hour in range(50):
        jobs = make_jobs(20)
        for job in jobs:
            job.name = f"load_{hour}_{job.name}"
        read_one_page(sweeps, jobs, page_of(jobs[0].name, total=1), BEGIN + 3600 * hour)
    assert len(sweeps.page_counts) == 1


def test_an_empty_list_does_not_make_waiting_expensive() -> None:
    """One list that shows no job, though all are there, changes nothing for long."""
    cluster = FakeCluster(
        fault=lambda kind, now: (
            Response(200, {}, b'{"total": 0, "jobs": []}')
            if kind == "list" and 100 <= now < 130
            else None
        )
    )
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for index in range(1500):
        cluster.add(FakeJob(f"other_{index}", [FakeRun(1, -60.0, 9e9)]))
    for index in range(60):
        run = FakeRun(1, -60.0, 9e9)
        cluster.add(FakeJob(f"load_{index}", [run]))
        simulation.wait_for(f"load_{index}", run)
    simulation.run(until=3600)
    # A list of one page about every 30 seconds.
    assert len(cluster.calls["list"]) < 200


def test_a_list_that_lacks_jobs_once_is_not_believed() -> None:
    """Jobs that lists have shown, and that one list lacks, are not looked at one by one."""
    cluster = FakeCluster(
        fault=lambda kind, now: (
            Response(200, {}, b'{"total": 1, "jobs": [{"name": "load_0", "status": "RUNNING"}]}')
            if kind == "list" and 100 <= now < 130
            else None
        )
    )
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for index in range(60):
        run = FakeRun(1, -60.0, 9e9)
        cluster.add(FakeJob(f"load_{index}", [run]))
        simulation.wait_for(f"load_{index}", run)
    simulation.run(until=1800)
    late = [at for at in cluster.calls["status"] if at >= 300]
    # Each run is looked at every 2.4 minutes, to show its progress.
    assert len(late) < 60 * 1500 / 120


@pytest.mark.long
def test_jobs_that_no_list_showed_are_looked_for_again() -> None:
    """Where lists show jobs after all, after hours for example, they are read again."""
    cluster = FakeCluster()
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for index in range(60):
        run = FakeRun(1, -60.0, 9e9)
        cluster.add(FakeJob(f"load_{index}", [run], listed="hidden"))
        simulation.wait_for(f"load_{index}", run)

    def show() -> None:
        for job in [*cluster.jobs.values()]:
            job.listed = "correct"
            cluster.add(job)

    simulation.at(600, show)
    simulation.run(until=5 * 3600)
    in_the_last_hour = [at for at in cluster.calls["status"] if at >= 4 * 3600]
    assert len(in_the_last_hour) < 60 * 3600 / 120


@pytest.mark.long
def test_a_wait_with_another_name_does_not_make_the_rest_expensive() -> None:
    """Without a common beginning of all names the list may be too long; then it is not read again
    and again to its first page.
    """
    cluster = FakeCluster()
    simulation = Simulation(cluster, RateLimits(100, lambda: 0.5))
    for index in range(5000):
        cluster.add(FakeJob(f"other_{index}", [FakeRun(1, -60.0, 9e9)]))
    for name in [f"load_{index}" for index in range(40)]:
        run = FakeRun(1, -60.0, 9e9)
        cluster.add(FakeJob(name, [run]))
        simulation.wait_for(name, run)
    run = FakeRun(1, -60.0, 9e9)
    cluster.add(FakeJob("stock", [run]))
    simulation.wait_for("stock", run, at=300)
    simulation.run(until=3900)
    before = [at for at in cluster.calls["list"] if at < 300]
    assert 5 < len(before) < 20
    # The count of pages is relied on for half an hour.
    assert len(cluster.calls["list"]) - len(before) < 10


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["orders_1", "orders_2"], "orders_"),
        (["orders%1", "orders%2"], "orders"),
        (["ötzi_1", "ötzi_2"], ""),
        (["a", "b"], ""),
    ],
)
def test_a_filter_has_no_special_characters(names: list[str], expected: str) -> None:
    """Only letters, digits, hyphens and underscores are safe in any kind of filter."""
    sweeps = make_sweeps()
    jobs = [PolledJob(name) for name in names]
    sweeps.start(jobs[0], 20, jobs, BEGIN)
    assert sweeps.active is not None
    assert sweeps.active.name_filter == expected


def test_listings_pause_longer_with_each_failure() -> None:
    """Listings pause for a minute up to half an hour; for the longest if the error is permanent."""
    sweeps = make_sweeps()
    pauses = []
    for _ in range(7):
        sweeps.record_failure(errors.CdmUnavailable("away"), BEGIN)
        pauses.append(sweeps.paused_until - BEGIN)
    assert pauses == [60, 120, 240, 480, 960, 1800, 1800]
    sweeps = make_sweeps()
    sweeps.record_failure(errors.CdmAuthError("not allowed"), BEGIN)
    assert sweeps.paused_until == BEGIN + 1800


def _waits_with_throttled_pages(share: float) -> tuple[list[float], FakeCluster]:
    """Return the delays of 3,000 waits in an hour, while a share of the list calls gets 429."""
    draw = random.Random(5).random
    cluster = FakeCluster(
        fault=lambda kind, _: Response(429) if kind == "list" and draw() < share else None
    )
    simulation = Simulation(cluster, RateLimits(100, draw), random=draw)
    simulation.max_steps = 1_000_000
    runs = []
    for index in range(3_000):
        run = FakeRun(1, -60.0, 60.0 + 20_000 * draw())
        cluster.add(FakeJob(f"load_{index:04}", [run]))
        runs.append((simulation.wait_for(f"load_{index:04}", run), run))
    simulation.run(until=3600)
    # A wait that has not ended counts as one that ends now.
    ends = [
        (wait.ends[0][0] if wait.ends else 3600.0, run.ended)
        for wait, run in runs
        if run.ended < 3000
    ]
    return sorted(at - ended for at, ended in ends), cluster


@pytest.mark.long
def test_a_throttled_page_does_not_end_its_sweep() -> None:
    """With several triggerers of a user, some pages get 429: they are read again, and no others."""
    delays, cluster = _waits_with_throttled_pages(0.05)
    # With other random numbers, 96 to 143 s; 976 s if a page that gets 429 ends the sweep.
    assert delays[int(len(delays) * 0.95)] < 180
    # Thirty pages a sweep, and the status calls that confirm ends.
    assert len(cluster.calls["list"]) > 30 * 30


@pytest.mark.long
def test_listings_that_are_always_throttled_are_given_up() -> None:
    """If every page gets 429, status calls do without the list, and it is tried now and then."""
    delays, cluster = _waits_with_throttled_pages(1.0)
    assert len(cluster.calls["list"]) < 60
    assert delays[len(delays) // 2] < 1900
