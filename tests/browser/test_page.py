"""The simulator's page, as a person with a browser sees it."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect  # type: ignore[import-not-found]  # only in its own venv

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.browser.conftest import Visitor

# Patience with a busy machine, in milliseconds.
expect.set_options(timeout=30_000)
JOB = "orders_daily"


def row(page: Any, *texts: str) -> Any:
    """The row of a table that has all of these texts."""
    found = page.get_by_role("row")
    for text in texts:
        found = found.filter(has_text=text)
    return found


def test_a_run_from_its_start_to_its_end(
    sim: CdmSimulator, clock: ManualClock, visitor: Visitor
) -> None:
    """What happens is shown without loading the page anew: progress, counters and status."""
    sim.add_job(JOB, seconds=100, counters={"ROWS_READ": 70, "ROWS_WRITTEN": 69})
    page = visitor.open(sim.url)
    expect(page.get_by_role("heading", name="Cluster demo")).to_be_visible()
    expect(page.get_by_role("heading", name="Cluster spare")).to_be_visible()
    expect(row(page, JOB, "NORMAL_JOB", "NEW")).to_be_visible()
    sim.start(JOB, variables={"dt": "2026-03-01"})
    clock.advance(50)
    expect(row(page, JOB, "RUNNING", "50%", "dt=2026-03-01")).to_be_visible()
    clock.advance(51)
    expect(row(page, JOB, "SUCCEEDED", "100%", "70", "69")).to_be_visible()
    assert [url for url in visitor.asked if url == f"{sim.url}/"][1:]


def test_why_a_run_failed(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """The reason is beside the status, and a click leads to all of it."""
    sim.add_job(JOB, outcome="FAILED", error_summary="no space", error_details="at Writer.java:1")
    sim.start(JOB)
    clock.advance(60)
    page = visitor.open(sim.url)
    expect(row(page, JOB, "FAILED", "no space")).to_be_visible()
    page.get_by_role("link", name="1", exact=True).click()
    expect(page.get_by_role("heading", name=f"{JOB}, run 1")).to_be_visible()
    expect(page.get_by_text("at Writer.java:1")).to_be_visible()


def test_the_button_leads_to_the_run(
    sim: CdmSimulator, clock: ManualClock, visitor: Visitor
) -> None:
    """The connection's console URL shows the very run, and keeps up with it."""
    sim.add_job(JOB, seconds=100)
    for _ in range(2):
        clock.advance(200)
        sim.start(JOB)
    address = sim.connection_extra["console_url"].format(
        cluster_id=sim.cluster_id, job_name=JOB, submission_id=2
    )
    page = visitor.open(address)
    expect(page.get_by_role("heading", name=f"{JOB}, run 2")).to_be_visible()
    expect(row(page, "Status", "BOOTING")).to_be_visible()
    clock.advance(101)
    expect(row(page, "Status", "SUCCEEDED")).to_be_visible()
    page.get_by_role("link", name="All clusters").click()
    expect(row(page, JOB, "SUCCEEDED")).to_have_count(3)


def test_a_whole_database(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """How many tables are where is said beside the job, and each is on the page of the run."""
    page = visitor.open(sim.url)
    sim.start("shop_nightly")
    clock.advance(120)
    expect(row(page, "shop_nightly", "BATCH_JOB", "tables: 1 failed, 1 succeeded")).to_be_visible()
    row(page, "shop_nightly").get_by_role("link").last.click()
    expect(row(page, "shop_nightly_orders", "SUCCEEDED")).to_be_visible()
    expect(row(page, "shop_nightly_customers", "FAILED", "Disk full")).to_be_visible()


def test_requests(sim: CdmSimulator, visitor: Visitor) -> None:
    """What comes in is listed as it comes, the newest first."""
    sim.add_job(JOB)
    page = visitor.open(sim.url)
    expect(page.get_by_text("none yet").last).to_be_visible()
    page.request.get(f"{sim.url}/v1.1/p/clusters/{sim.cluster_id}/cdm/job/{JOB}/status")
    expect(row(page, f"/cdm/job/{JOB}/status", "401")).to_be_visible()


def test_nothing_of_a_job_is_code(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """Names, reasons and variables are shown as they are, whatever they hold."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    sim.add_job(JOB, outcome="FAILED", error_summary=evil, error_details=f"</pre>{evil}")
    sim.start(JOB, variables={"dt": evil})
    clock.advance(60)
    page = visitor.open(sim.url)
    expect(row(page, JOB, "FAILED", evil, f"dt={evil}")).to_be_visible()
    page.get_by_role("link", name="1", exact=True).click()
    expect(page.locator("pre")).to_contain_text(evil)
    assert page.locator("img").count() == 0


def test_many_runs(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """Of a thousand runs the newest comes first."""
    sim.add_job(JOB, seconds=1)
    for _ in range(1000):
        sim.start(JOB)
        clock.advance(2)
    page = visitor.open(sim.url)
    expect(page.locator("table").nth(1).locator("tbody tr").first).to_contain_text("1000")
