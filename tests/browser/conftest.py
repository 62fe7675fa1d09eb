"""Fixtures that open pages in headless Chromium and record their requests and errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator, ManualClock

if not os.environ.get("CDM_BROWSER"):
    # These tests need a browser.
    collect_ignore_glob = ["*"]


@dataclass
class Visitor:
    """A browser context, with the URLs that it requested and the errors that it reported."""

    context: Any
    requested: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, address: str) -> Any:
        """Open a page and record its requests and errors."""
        page = self.context.new_page()
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        page.on(
            "console",
            lambda line: self.errors.append(line.text) if line.type == "error" else None,
        )
        page.goto(address)
        return page


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, whose executable is in the variable ``CHROMIUM``."""
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
    """A simulator with a whole-database job, and a second cluster without jobs."""
    tables = [
        {"name": "orders", "counters": {"ROWS_WRITTEN": 5}},
        {"name": "customers", "outcome": "FAILED", "error_summary": "Disk full"},
    ]
    job = {"name": "shop_nightly", "type": "BATCH_JOB", "seconds": 60, "tables": tables}
    config = {"clusters": [{"name": "demo", "jobs": [job]}, {"name": "spare", "id": "spare"}]}
    with CdmSimulator(config, clock=clock) as simulator:
        yield simulator


@pytest.fixture
def visitor(browser: Any, sim: CdmSimulator) -> Iterator[Visitor]:
    """Fail a test if a page loads anything from other servers or reports an error."""
    context = browser.new_context()
    context.set_default_timeout(30_000)
    visitor = Visitor(context)
    yield visitor
    context.close()
    assert {
        url for url in visitor.requested if not url.startswith((f"{sim.url}/", "data:"))
    } == set()
    assert visitor.errors == []
