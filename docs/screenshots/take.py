"""The pictures themselves; scripts/screenshots makes the environment and calls this.

Each picture waits for what it has to show, so that none shows an empty form or an error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
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
from setup_airflow import GOOD, HOME, WRONG, Stage

from demo.databases import BAD_DAY
from demo.processes import ROOT

#: Bytes that a picture may have.
LIMIT = 300_000
WIDTH = 1280
#: Milliseconds that a page may take to show what is wanted, on a machine that has other work.
PATIENCE = 30_000
_QUIET = (
    *("no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)
#: What the form is filled with: an account in Europe, where both endpoints have to be given.
_STANDARD = {
    "host": "https://cdm.eu-west-101.myhuaweicloud.eu",
    "login": "airflow",
    "password": "a-password-that-is-not-shown",
    # Without it, the Test button of Airflow 3.3.2 does not work.
    "port": "443",
}
_EXTRA = {
    "region": "eu-west-101",
    "domain_name": "acme",
    "cluster_id": "6ec9a0a4-76be-4262-8697-e7af1fac7920",
    "iam_endpoint": "https://iam.myhuaweicloud.eu",
}
Shot = Callable[[Page, Stage], Locator | Page]


def _form(page: Page, stage: Stage) -> Locator:
    page.goto(f"{stage.airflow.url}/connections")
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


def connection_form(page: Page, stage: Stage) -> Locator:
    """The form of a connection: type and standard fields."""
    dialog = _form(page, stage)
    expect(dialog.get_by_text("IAM Password")).to_be_visible()
    return dialog


def connection_form_extra(page: Page, stage: Stage) -> Locator:
    """The same form: all extra fields."""
    page.set_viewport_size({"width": WIDTH, "height": 3000})
    dialog = _form(page, stage)
    dialog.get_by_text("Extra Fields", exact=True).click()
    for name, value in _EXTRA.items():
        dialog.locator(f"[name=element_{name}]").fill(value)
    expect(dialog.get_by_text("Cluster of tasks that name none.")).to_be_visible()
    return dialog


def _test(page: Page, stage: Stage, conn_id: str) -> None:
    page.set_viewport_size({"width": WIDTH, "height": 560})
    page.goto(f"{stage.airflow.url}/connections")
    row = page.get_by_role("row").filter(has_text=conn_id)
    with page.expect_response(lambda answer: answer.url.endswith("/connections/test")) as answer:
        row.get_by_role("button", name="Test Connection").click()
    if answer.value.json().get("status") is not (conn_id == GOOD):
        raise SystemExit(f"The test of {conn_id} came to {answer.value.text()}")


def connection_test(page: Page, stage: Stage) -> Page:
    """A connection whose test went well: Airflow shows a green sign."""
    _test(page, stage, GOOD)
    return page


def connection_test_wrong(page: Page, stage: Stage) -> Page:
    """A connection with a wrong password, and why its test failed."""
    _test(page, stage, WRONG)
    expect(page.get_by_text("The username or password is wrong.")).to_be_visible()
    return page


def task_log(page: Page, stage: Stage) -> Page:
    """The log of a task that waits, with the progress of the run."""
    page.set_viewport_size({"width": WIDTH, "height": 580})
    page.goto(stage.airflow.task_page("move_orders"))
    expect(page.get_by_text("rows written").first).to_be_visible()
    # Full screen, and long lines in several.
    page.keyboard.press("f")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("w")
    expect(page.get_by_role("dialog").get_by_text("RUNNING").first).to_be_visible()
    return page


def task_log_failed(page: Page, stage: Stage) -> Page:
    """The log of a task whose run failed, with what a person has to know."""
    # Not as high as to show the traceback, which names files of this machine.
    page.set_viewport_size({"width": WIDTH, "height": 584})
    page.goto(f"{stage.airflow.task_page('move_orders', BAD_DAY)}?try_number=1")
    expect(page.get_by_text("ended FAILED").first).to_be_visible()
    page.keyboard.press("f")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("w")
    expect(page.get_by_role("dialog").get_by_text("ended FAILED").first).to_be_visible()
    notice = page.get_by_role("dialog").get_by_text("ended FAILED").first
    notice.evaluate("node => node.scrollIntoView({block: 'start'})")
    return page


def cdm_run_link(page: Page, stage: Stage) -> Page:
    """The details of a task, with the button that leads to the run."""
    page.set_viewport_size({"width": WIDTH, "height": 700})
    page.goto(f"{stage.airflow.task_page('move_orders')}/details")
    expect(page.get_by_text("CDM run")).to_be_visible()
    return page


def xcom(page: Page, stage: Stage) -> Page:
    """What a task returned."""
    page.set_viewport_size({"width": WIDTH, "height": 900})
    page.goto(f"{stage.airflow.task_page('move_orders')}/xcom")
    expect(page.get_by_text("return_value")).to_be_visible()
    page.get_by_role("button", name="Expand").first.click()
    expect(page.get_by_text("submission_id")).to_be_visible()
    return page


def simulator(page: Page, stage: Stage) -> Page:
    """The simulator's page of clusters, jobs, runs and requests."""
    page.set_viewport_size({"width": WIDTH, "height": 760})
    page.goto(stage.simulator)
    expect(page.get_by_text("SUCCEEDED").first).to_be_visible()
    return page


SHOTS: dict[str, Shot] = {
    shot.__name__.replace("_", "-"): shot
    for shot in (
        *(task_log, task_log_failed, cdm_run_link, xcom, simulator),
        *(connection_form, connection_form_extra, connection_test, connection_test_wrong),
    )
}


def take(context: BrowserContext, stage: Stage, name: str, folder: Path) -> None:
    """Take one picture, on a page of its own."""
    page = context.new_page()
    try:
        shown = SHOTS[name](page, stage)
        # Neither a frame around a field nor a tool tip; what fades takes a moment.
        page.evaluate("document.activeElement?.blur()")
        page.mouse.move(WIDTH / 2, 540)
        page.wait_for_timeout(1000)
        path = folder / f"{name}.png"
        shown.screenshot(path=path, animations="disabled", caret="hide")
    except Exception:
        page.screenshot(path=HOME / f"{name}.broken.png")
        print(f"{name} failed; what was shown is in {HOME / f'{name}.broken.png'}", flush=True)
        raise
    finally:
        page.close()
    size = path.stat().st_size
    print(f"{path.name}: {size // 1000} KB", flush=True)
    if size > LIMIT:
        raise SystemExit(f"{path} has more than {LIMIT // 1000} KB.")


def main() -> None:
    """Take the pictures that are asked for."""
    parser = argparse.ArgumentParser(prog="scripts/screenshots")
    parser.add_argument("--only", action="append", choices=SHOTS, default=[])
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    expect.set_options(timeout=PATIENCE)
    with ExitStack() as stack:
        stage = Stage(stack)
        print("Airflow starts, and moves a day of orders ...", flush=True)
        stage.open()
        browser = stack.enter_context(sync_playwright()).chromium.launch_persistent_context(
            HOME / "browser",
            executable_path=os.environ["CHROMIUM"],
            args=[f"--{flag}" for flag in _QUIET],
            color_scheme="light",
            locale="en-US",
            timezone_id="UTC",
            viewport={"width": WIDTH, "height": 900},
        )
        stack.callback(browser.close)
        for name in options.only or SHOTS:
            take(browser, stage, name, options.into)


if __name__ == "__main__":
    main()
