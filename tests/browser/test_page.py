"""The simulator's page in a browser."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect  # type: ignore[import-not-found]  # only in its own venv

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.browser.conftest import Visitor

# Timeout in milliseconds, long enough for a busy machine.
expect.set_options(timeout=30_000)
JOB = "orders_daily"


def row(page: Any, *texts: str) -> Any:
    """Return the row of a table that contains all of these texts."""
    rows = page.get_by_role("row")
    for text in texts:
        rows = rows.filter(has_text=text)
    return rows


def test_page_follows_a_run(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """The open page shows progress, counters and status of a run without a reload."""
    sim.add_job(JOB, seconds=100, counters={"ROWS_READ": 70, "ROWS_WRITTEN": 69})
    page = visitor.open(sim.url)
    expect(page.get_by_role("heading", name="Cluster demo")).to_be_visible()
    expect(page.get_by_role("heading", name="Cluster spare")).to_be_visible()
    expect(row(page, JOB, "NORMAL_JOB", "never run")).to_be_visible()
    sim.start(JOB, variables={"dt": "2026-03-01"})
    clock.advance(50)
    expect(row(page, JOB, "RUNNING", "50%", "34 of 70 read", "dt=2026-03-01")).to_be_visible()
    clock.advance(51)
    expect(row(page, JOB, "SUCCEEDED", "100%", "70", "69")).to_be_visible()
    assert [url for url in visitor.requested if url == f"{sim.url}/"][1:]


def test_failed_run(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """The error summary is next to the status, and a click opens the details."""
    sim.add_job(JOB, outcome="FAILED", error_summary="no space", error_details="at Writer.java:1")
    sim.start(JOB)
    clock.advance(60)
    page = visitor.open(sim.url)
    expect(row(page, JOB, "FAILED", "no space")).to_be_visible()
    page.get_by_role("link", name="1", exact=True).click()
    expect(page.get_by_role("heading", name=f"{JOB}, run 1")).to_be_visible()
    expect(page.get_by_text("at Writer.java:1")).to_be_visible()


def test_console_url(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """The connection's console URL opens the page of the run, which is kept up to date."""
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


def test_whole_database_job(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """The job shows the number of tables by status, and the page of the run shows each table."""
    page = visitor.open(sim.url)
    sim.start("shop_nightly")
    clock.advance(120)
    expect(row(page, "shop_nightly", "BATCH_JOB", "tables: 1 failed, 1 succeeded")).to_be_visible()
    row(page, "shop_nightly").get_by_role("link").last.click()
    expect(row(page, "shop_nightly_orders", "SUCCEEDED")).to_be_visible()
    expect(row(page, "shop_nightly_customers", "FAILED", "Disk full")).to_be_visible()


def test_requests(sim: CdmSimulator, visitor: Visitor) -> None:
    """New requests are listed when they arrive, the newest first, once somebody unfolds them."""
    sim.add_job(JOB)
    page = visitor.open(sim.url)
    page.get_by_text("Requests: the last 0").click()
    expect(page.get_by_text("none yet").last).to_be_visible()
    page.request.get(f"{sim.url}/v1.1/p/clusters/{sim.cluster_id}/cdm/job/{JOB}/status")
    expect(row(page, f"/cdm/job/{JOB}/status", "401 Unauthorized", "APIGW.0301")).to_be_visible()


def test_values_are_not_executed(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """Names, error texts and variables are shown as text, even if they contain HTML."""
    html = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    sim.add_job(JOB, outcome="FAILED", error_summary=html, error_details=f"</pre>{html}")
    sim.start(JOB, variables={"dt": html})
    clock.advance(60)
    page = visitor.open(sim.url)
    expect(row(page, JOB, "FAILED", html, f"dt={html}")).to_be_visible()
    page.get_by_role("link", name="1", exact=True).click()
    expect(page.locator("pre")).to_contain_text(html)
    assert page.locator("img").count() == 0


def test_many_runs(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """Of a thousand runs, the newest is listed first."""
    sim.add_job(JOB, seconds=1)
    for _ in range(1000):
        sim.start(JOB)
        clock.advance(2)
    page = visitor.open(sim.url)
    expect(page.locator("table").nth(1).locator("tbody tr").first).to_contain_text("1000")


def test_buttons(sim: CdmSimulator, clock: ManualClock, visitor: Visitor) -> None:
    """Buttons slow, fail and stop a run; the page shows the effect without a reload."""
    sim.add_job(JOB, seconds=10)
    sim.start(JOB)
    page = visitor.open(sim.url)
    page.get_by_role("button", name="Slow run 1").click()
    expect(page.get_by_role("button", name="Slow run 1")).to_be_enabled()
    clock.advance(60)
    expect(row(page, JOB, "RUNNING", "86%")).to_be_visible()
    page.get_by_role("button", name="Fail run 1").click()
    expect(row(page, JOB, "FAILED", "Failed on the page of the simulator.")).to_be_visible()
    expect(page.get_by_role("button")).to_have_count(0)
    sim.start(JOB)
    clock.advance(1)
    page.get_by_role("link", name="2", exact=True).click()
    page.get_by_role("button", name="Stop run 2").focus()
    page.keyboard.press("Enter")
    clock.advance(10)
    expect(row(page, "Status", "STOPPED")).to_be_visible()


def test_button_of_a_run_that_has_ended(
    sim: CdmSimulator, clock: ManualClock, visitor: Visitor
) -> None:
    """A button that comes too late says why nothing was done."""
    sim.add_job(JOB, seconds=10)
    sim.start(JOB)
    page = visitor.open(sim.url)
    page.evaluate("pressed = true")  # the page stays as it is, as while a pointer is pressed
    clock.advance(60)
    page.get_by_role("button", name="Slow run 1").dispatch_event("click")
    expect(page.get_by_text("has ended: SUCCEEDED")).to_be_visible()
    visitor.errors.clear()  # Chromium reports each answer of 400


def test_unfolded_requests_stay_unfolded(
    sim: CdmSimulator, clock: ManualClock, visitor: Visitor
) -> None:
    """What somebody has unfolded stays so when the page changes."""
    sim.add_job(JOB, seconds=100)
    page = visitor.open(sim.url)
    page.get_by_text("Requests: the last 0").click()
    sim.start(JOB)
    clock.advance(50)
    expect(row(page, JOB, "RUNNING", "50%")).to_be_visible()
    expect(page.get_by_text("none yet").last).to_be_visible()
