"""Opens pages in headless Chromium, and watches what they ask for and complain about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock

if not os.environ.get("CDM_BROWSER"):
    # It takes a browser.
    collect_ignore_glob = ["*"]


@dataclass
class Visitor:
    """A browser's context: what it has opened, asked for, and complained about."""

    context: Any
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, address: str) -> Any:
        """Open a page."""
        page = self.context.new_page()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on(
            "console",
            lambda line: self.complaints.append(line.text) if line.type == "error" else None,
        )
        page.goto(address)
        return page


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, the one that ``CHROMIUM`` names."""
    from playwright.sync_api import (  # type: ignore[import-not-found]  # only in its own venv
        sync_playwright,
    )

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ["CHROMIUM"], args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def sim(clock: ManualClock) -> Iterator[CdmSimulator]:
    """A simulator with a job that moves a whole database, and a cluster that has nothing."""
    tables = [
        {"name": "orders", "counters": {"ROWS_WRITTEN": 5}},
        {"name": "customers", "outcome": "FAILED", "error_summary": "Disk full"},
    ]
    whole = {"name": "shop_nightly", "type": "BATCH_JOB", "seconds": 60, "tables": tables}
    config = {"clusters": [{"name": "demo", "jobs": [whole]}, {"name": "spare", "id": "spare"}]}
    with CdmSimulator(config, clock=clock) as simulator:
        yield simulator


@pytest.fixture
def visitor(browser: Any, sim: CdmSimulator) -> Iterator[Visitor]:
    """Whatever is visited: nothing is loaded from elsewhere, and nothing goes wrong."""
    context = browser.new_context()
    context.set_default_timeout(30_000)
    found = Visitor(context)
    yield found
    context.close()
    assert {url for url in found.asked if not url.startswith((f"{sim.url}/", "data:"))} == set()
    assert found.complaints == []
