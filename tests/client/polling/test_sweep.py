"""What a listing says about a wait, and when it is worth reading one."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.job_list import JobPage, ListedJob
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.polling.hint import Hint, hint
from airflow_provider_cdm.client.polling.model import PolledJob, Wait
from airflow_provider_cdm.client.polling.queue import Priority
from airflow_provider_cdm.client.polling.sweep import SweepPlanner
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.virtual_cluster import BEGIN

CREATED = 1_735_787_045_000
OURS = RunRef("c", "orders", 5, CREATED)
UNDATED = RunRef("c", "orders", 5)
UNKNOWN = RunRef("c", "orders")


@pytest.mark.parametrize(
    ("run", "status", "created", "expected"),
    [
        (OURS, "RUNNING", CREATED, Hint.OURS),
        (OURS, "BOOTING", CREATED, Hint.OURS),
        (OURS, "PENDING", CREATED, Hint.OURS),
        # A later run is active, so ours is over.
        (OURS, "RUNNING", CREATED + 1, Hint.LOOK),
        # An old page, or the date means something else.
        (OURS, "RUNNING", CREATED - 1, Hint.QUIET),
        # Some run is active; whose, is not said.
        (OURS, "RUNNING", None, Hint.QUIET),
        (UNDATED, "RUNNING", CREATED, Hint.QUIET),
        # Whatever it is called, it is not active.
        (OURS, "SUCCEEDED", CREATED, Hint.LOOK),
        (OURS, "FAILED", CREATED, Hint.LOOK),
        (OURS, "NEW", None, Hint.LOOK),
        (OURS, "HIBERNATING", CREATED, Hint.LOOK),
        (OURS, "", CREATED, Hint.LOOK),
        (UNDATED, "SUCCEEDED", None, Hint.LOOK),
        # No run is known: worth a look when one may have come.
        (UNKNOWN, "SUCCEEDED", CREATED, Hint.LOOK),
        (UNKNOWN, "RUNNING", CREATED + 1, Hint.LOOK),
        (UNKNOWN, "SUCCEEDED", CREATED - 1, Hint.QUIET),
        (UNKNOWN, "RUNNING", CREATED - 1, Hint.QUIET),
        (UNKNOWN, "RUNNING", None, Hint.LOOK),
        (UNKNOWN, "NEW", None, Hint.QUIET),
    ],
)
def test_hint(run: RunRef, status: str, created: int | None, expected: Hint) -> None:
    """One table says what a listing means."""
    assert hint(run, CREATED, ListedJob("orders", status, created)) is expected


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ({"name": "a", "status": "RUNNING"}, ListedJob("a", "RUNNING")),
        ({"name": "a", "execute_create_date": "17"}, ListedJob("a", "", 17)),
        ({"name": "a", "status": None, "execute_create_date": 17.0}, ListedJob("a", "", 17)),
        ({"name": "a", "status": 5, "execute_create_date": "x"}, ListedJob("a", "")),
    ],
)
def test_reading_a_job(wire: dict[str, Any], expected: ListedJob) -> None:
    """Everything but the name may be missing or odd."""
    assert ListedJob.from_wire(wire) == expected


@pytest.mark.parametrize("wire", [None, [], "a", {}, {"name": 5}, {"name": ""}])
def test_what_is_no_job(wire: Any) -> None:
    """An entry without a name is no job."""
    with pytest.raises(ValueError, match="no name"):
        ListedJob.from_wire(wire)


def test_pages(sim: CdmSimulator, make_session: Any) -> None:
    """Pages of a hundred, of one type, with a filter for names."""
    for number in range(230):
        sim.add_job(f"orders_{number:03}")
    sim.add_job("stock")
    sim.add_job("whole", type="BATCH_JOB")
    sim.start("orders_007")
    session: CdmSession = make_session()

    def page(number: int, **more: Any) -> JobPage:
        return session.run(session.api.call(resources.list_jobs(sim.cluster_id, number, **more)))

    assert [len(page(number).jobs) for number in (1, 2, 3, 4)] == [100, 100, 31, 0]
    assert page(1).total == 231
    assert page(1, name_filter="stock") == JobPage([ListedJob("stock", "NEW")], 1)
    assert [job.name for job in page(1, job_type="BATCH_JOB").jobs] == ["whole"]
    (active,) = [job for job in page(1).jobs if job.active]
    run = sim.runs("orders_007")[0]
    assert hint(RunRef("c", "", 1, int(run.created * 1000)), 0, active) is Hint.OURS


@pytest.mark.parametrize("body", [{}, {"jobs": {}}, {"jobs": [5]}, {"jobs": [{}]}, []])
def test_a_page_that_is_none(body: Any, sim: CdmSimulator, make_session: Any) -> None:
    """An answer that is no list of jobs is a bad response."""
    sim.fail("list_jobs", "body", body=body)
    session = make_session()
    with pytest.raises(errors.CdmBadResponse, match="list the jobs"):
        session.run(session.api.call(resources.list_jobs(sim.cluster_id, 1)))


def jobs(count: int, due: float = BEGIN, **more: Any) -> list[PolledJob]:
    """Some jobs that are due, with a wait each."""
    made = []
    for number in range(count):
        name = f"job_{number}"
        wait = Wait(Follower(RunRef("c", name, 1)), 30.0, end=print)
        job = PolledJob(name, [wait], interval=30.0, joined_at=BEGIN - 100, **more)
        job.due[Priority.ROUTINE] = due
        made.append(job)
    return made


@pytest.mark.parametrize(
    ("count", "pages", "worth"),
    [(1, None, False), (10, None, False), (11, None, True), (50, 60, False), (61, 60, True)],
)
def test_the_cheaper_way_is_taken(count: int, pages: int | None, worth: bool) -> None:
    """A listing is read when it costs less than asking one by one, pages being heavier."""
    sweeps = SweepPlanner()
    if pages is not None:
        sweeps.lengths[0, ""] = (pages, BEGIN + 1)
    all_of_them = jobs(count)
    first = all_of_them.pop()
    assert bool(sweeps.worth(first, all_of_them, BEGIN)) is worth


def test_what_is_due_soon_counts() -> None:
    """Half an interval ahead counts, more does not."""
    (first,) = jobs(1)
    assert SweepPlanner().worth(first, jobs(20, BEGIN + 14), BEGIN) == 21
    assert SweepPlanner().worth(first, jobs(20, BEGIN + 16), BEGIN) == 0


def page_of(*names: str, total: int | None = None) -> JobPage:
    """A page of running jobs."""
    return JobPage([ListedJob(name, "RUNNING") for name in names], total)


def test_a_long_listing_is_left_after_its_first_page() -> None:
    """The first page tells how long the listing is; if it saves less, it is not read on."""
    sweeps, waited = SweepPlanner(), jobs(20)
    sweeps.begin(0, 20, waited, BEGIN)
    assert not sweeps.read(page_of(*map(str, range(100)), total=2100), BEGIN)
    sweeps.end(waited)
    assert all(job.type == 0 for job in waited)
    assert sweeps.worth(waited[0], waited[1:], BEGIN) == 0


@pytest.mark.parametrize("total", [True, False])
def test_all_pages_are_read(total: bool) -> None:
    """Reading ends with the total, or without one with a page that is not full."""
    sweeps, waited = SweepPlanner(), jobs(20)
    sweeps.begin(0, 20, waited, BEGIN)
    names = [str(number) for number in range(250)]
    more = []
    for first in (0, 100, 200):
        page = page_of(*names[first : first + 100], total=250 if total else None)
        more.append(sweeps.read(page, BEGIN))
    assert more == [True, True, False]
    assert sweeps.active is not None
    assert sweeps.active.complete


def test_what_does_not_show_up_is_looked_for_in_other_types() -> None:
    """A job that a complete listing lacks is looked for in the next type, and then not at all."""
    sweeps, waited = SweepPlanner(filters=False), jobs(20)
    for kind in range(3):
        assert all(job.type == kind and job.listable for job in waited)
        sweeps.begin(kind, 20, waited, BEGIN)
        sweeps.read(page_of("other", total=1), BEGIN)
        sweeps.end(waited)
    assert not any(job.listable for job in waited)


def test_who_came_late_is_not_missed() -> None:
    """A job that was not waited for when the reading began is not said to be missing."""
    sweeps, waited = SweepPlanner(filters=False), jobs(20)
    waited[0].joined_at = BEGIN + 1
    sweeps.begin(0, 20, waited, BEGIN)
    sweeps.read(page_of("other", total=1), BEGIN + 2)
    sweeps.end(waited)
    assert [job.type for job in waited] == [0] + [1] * 19


def test_the_filter_is_what_names_have_in_common() -> None:
    """It narrows the listing, and is given up when it hides everything."""
    sweeps, waited = SweepPlanner(), jobs(20)
    sweeps.begin(0, 20, waited, BEGIN)
    assert sweeps.active is not None
    assert sweeps.active.name_filter == "job_"
    sweeps.read(page_of(total=0), BEGIN)
    sweeps.end(waited)
    assert all(job.type == 0 for job in waited)
    sweeps.begin(0, 20, waited, BEGIN)
    assert sweeps.active.name_filter == ""


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["orders_1", "orders_2"], "orders_"),
        (["orders%1", "orders%2"], "orders"),
        (["ötzi_1", "ötzi_2"], ""),
        (["a", "b"], ""),
    ],
)
def test_a_filter_holds_nothing_special(names: list[str], expected: str) -> None:
    """Only letters, digits, hyphens and underscores mean the same in every kind of filter."""
    sweeps = SweepPlanner()
    sweeps.begin(0, 20, [PolledJob(name) for name in names], BEGIN)
    assert sweeps.active is not None
    assert sweeps.active.name_filter == expected


def test_listings_that_fail_are_left_alone_for_longer_and_longer() -> None:
    """A minute after the first failure, up to half an hour; at once where it cannot pass."""
    sweeps = SweepPlanner()
    rests = []
    for _ in range(7):
        sweeps.failed(errors.CdmUnavailable("away"), BEGIN)
        rests.append(sweeps.off_until - BEGIN)
    assert rests == [60, 120, 240, 480, 960, 1800, 1800]
    sweeps = SweepPlanner()
    sweeps.failed(errors.CdmAuthError("not allowed"), BEGIN)
    assert sweeps.off_until == BEGIN + 1800
