"""Takes the screenshots in docs/images; ``nox -s screenshots`` makes the environment and runs this.

Each screenshot waits for its contents, so that none shows an empty form or an error. Look at them
before you commit them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import (  # type: ignore[import-not-found]  # only in its own environment
    BrowserContext,
    Locator,
    Page,
    expect,
    sync_playwright,
)
from setup_airflow import GOOD, HOME, WRONG, Setup

from airflow_provider_cdm.simulator.demo.databases import BAD_DAY
from demo.processes import ROOT, exit_on_signals

#: Maximum size of a screenshot in bytes.
MAX_SIZE = 300_000
#: Width of the page in pixels.
WIDTH = 1280
#: Milliseconds that a page may take to show its contents, on a busy machine.
TIMEOUT = 30_000
_CHROMIUM_FLAGS = (
    *("no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)
#: Values for the form: an account in Europe, where both endpoints have to be given.
_STANDARD = {
    "host": "https://cdm.eu-west-101.myhuaweicloud.eu",
    "login": "airflow",
    "password": "a-password-that-is-not-shown",
    # Airflow 3.3.2 cannot test a connection without a port.
    "port": "443",
}
_EXTRA = {
    "region": "eu-west-101",
    "domain_name": "acme",
    "cluster_id": "6ec9a0a4-76be-4262-8697-e7af1fac7920",
    "iam_endpoint": "https://iam.myhuaweicloud.eu",
}
#: Opens what a screenshot shows, and returns the part of the page to take.
Screenshot = Callable[[Page, Setup], Locator | Page]


def _form(page: Page, setup: Setup) -> Locator:
    page.goto(f"{setup.airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    dialog = page.get_by_role("dialog")
    dialog.locator("[name=connection_id]").fill("cdm_default")
    dialog.get_by_role("combobox").click()
    page.keyboard.type("Huawei Cloud CDM")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("CDM Endpoint")).to_be_visible()
    for name, value in _STANDARD.items():
        dialog.locator(f"[name={name}]").fill(value)
    return dialog


def connection_form(page: Page, setup: Setup) -> Locator:
    """Show the form of a connection: type and standard fields."""
    dialog = _form(page, setup)
    expect(dialog.get_by_text("IAM Password")).to_be_visible()
    return dialog


def connection_form_extra(page: Page, setup: Setup) -> Locator:
    """Show the extra fields of the same form."""
    page.set_viewport_size({"width": WIDTH, "height": 3000})
    dialog = _form(page, setup)
    dialog.get_by_text("Extra Fields", exact=True).click()
    for name, value in _EXTRA.items():
        dialog.locator(f"[name=element_{name}]").fill(value)
    expect(dialog.get_by_text("Cluster of tasks that name none.")).to_be_visible()
    return dialog


def _test(page: Page, setup: Setup, conn_id: str) -> None:
    page.set_viewport_size({"width": WIDTH, "height": 560})
    page.goto(f"{setup.airflow.url}/connections")
    row = page.get_by_role("row").filter(has_text=conn_id)
    with page.expect_response(
        lambda response: response.url.endswith("/connections/test")
    ) as response:
        row.get_by_role("button", name="Test Connection").click()
    if response.value.json().get("status") is not (conn_id == GOOD):
        raise SystemExit(f"The test of {conn_id} returned {response.value.text()}")


def connection_test(page: Page, setup: Setup) -> Page:
    """Show a connection whose test has succeeded: Airflow shows a green sign."""
    _test(page, setup, GOOD)
    return page


def connection_test_wrong(page: Page, setup: Setup) -> Page:
    """Show a connection with a wrong password, and why its test failed."""
    _test(page, setup, WRONG)
    expect(page.get_by_text("The username or password is wrong.")).to_be_visible()
    return page


def task_log(page: Page, setup: Setup) -> Page:
    """Show the log of a task that waits, with the progress of the run."""
    page.set_viewport_size({"width": WIDTH, "height": 580})
    page.goto(setup.airflow.task_page("move_orders"))
    expect(page.get_by_text("rows written").first).to_be_visible()
    # Full screen, and long lines wrapped.
    page.keyboard.press("f")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("w")
    expect(page.get_by_role("dialog").get_by_text("RUNNING").first).to_be_visible()
    return page


def task_log_failed(page: Page, setup: Setup) -> Page:
    """Show the log of a task whose run failed, with the failure report."""
    # Too low to show the traceback, which has paths of this machine.
    page.set_viewport_size({"width": WIDTH, "height": 584})
    page.goto(f"{setup.airflow.task_page('move_orders', BAD_DAY)}?try_number=1")
    expect(page.get_by_text("CdmSubmissionFailed").first).to_be_visible()
    page.keyboard.press("f")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("w")
    expect(page.get_by_role("dialog").get_by_text("CdmSubmissionFailed").first).to_be_visible()
    report = page.get_by_role("dialog").get_by_text("CdmSubmissionFailed").first
    report.evaluate("node => node.scrollIntoView({block: 'start'})")
    return page


def cdm_run_link(page: Page, setup: Setup) -> Page:
    """Show the details of a task, with the button that leads to the run."""
    page.set_viewport_size({"width": WIDTH, "height": 700})
    page.goto(f"{setup.airflow.task_page('move_orders')}/details")
    expect(page.get_by_text("CDM run")).to_be_visible()
    return page


def xcom(page: Page, setup: Setup) -> Page:
    """Show the result of a task."""
    page.set_viewport_size({"width": WIDTH, "height": 900})
    page.goto(f"{setup.airflow.task_page('move_orders')}/xcom")
    expect(page.get_by_text("return_value")).to_be_visible()
    page.get_by_role("button", name="Expand").first.click()
    expect(page.get_by_text("submission_id")).to_be_visible()
    return page


def simulator(page: Page, setup: Setup) -> Page:
    """Show the simulator's page of clusters, jobs, runs and requests."""
    page.set_viewport_size({"width": WIDTH, "height": 760})
    page.goto(setup.simulator)
    expect(page.get_by_text("SUCCEEDED").first).to_be_visible()
    # The retry of the second day, before it fails again: therefore this is the first screenshot.
    expect(page.get_by_text(" of ").first).to_be_visible()
    page.wait_for_timeout(4000)
    return page


SCREENSHOTS: dict[str, Screenshot] = {
    show.__name__.replace("_", "-"): show
    for show in (
        *(simulator, task_log, task_log_failed, cdm_run_link, xcom),
        *(connection_form, connection_form_extra, connection_test, connection_test_wrong),
    )
}


def take(context: BrowserContext, setup: Setup, name: str, folder: Path) -> None:
    """Take one screenshot, on a page of its own."""
    page = context.new_page()
    try:
        part = SCREENSHOTS[name](page, setup)
        # Show neither a frame around a field nor a tooltip; fading out takes a moment.
        page.evaluate("document.activeElement?.blur()")
        page.mouse.move(WIDTH / 2, 540)
        page.wait_for_timeout(1000)
        path = folder / f"{name}.png"
        part.screenshot(path=path, animations="disabled", caret="hide")
    except Exception:
        page.screenshot(path=HOME / f"{name}.broken.png")
        print(f"{name} failed; the page is shown in {HOME / f'{name}.broken.png'}", flush=True)
        raise
    finally:
        page.close()
    size = path.stat().st_size
    print(f"{path.name}: {size // 1000} KB", flush=True)
    if size > MAX_SIZE:
        raise SystemExit(f"{path} has more than {MAX_SIZE // 1000} KB.")


def main() -> None:
    """Take all screenshots, or those that the command line names."""
    parser = argparse.ArgumentParser(prog="nox -s screenshots --")
    parser.add_argument(
        "--only",
        action="append",
        choices=SCREENSHOTS,
        default=[],
        help="take only this screenshot; may be repeated",
    )
    parser.add_argument(
        "--into", type=Path, default=ROOT / "docs" / "images", help="folder to write them to"
    )
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    exit_on_signals()
    expect.set_options(timeout=TIMEOUT)
    with ExitStack() as stack:
        setup = Setup(stack)
        print("Airflow starts, and moves two days of orders ...", flush=True)
        setup.prepare()
        browser = stack.enter_context(sync_playwright()).chromium.launch_persistent_context(
            HOME / "browser",
            executable_path=os.environ["CHROMIUM"],
            args=[f"--{flag}" for flag in _CHROMIUM_FLAGS],
            color_scheme="light",
            locale="en-US",
            timezone_id="UTC",
            viewport={"width": WIDTH, "height": 900},
        )
        stack.callback(browser.close)
        for name in options.only or SCREENSHOTS:
            take(browser, setup, name, options.into)


if __name__ == "__main__":
    main()
