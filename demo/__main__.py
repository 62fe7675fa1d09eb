"""The demo itself; scripts/demo makes the environment and calls this."""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from demo.databases import DAYS, Shop
from demo.processes import DAG_ID, ROOT, Airflow, Days, Simulator, Standalone

HOME = ROOT / ".demo"
MOVED_DAYS = DAYS[1:4]
GOOD, BAD, PLAIN = "\033[32m", "\033[31m", "\033[0m"
#: Seconds after which the demo gives up.
PATIENCE = 600


class Story:
    """Tells what happens, line by line, with the time that has passed."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._told: dict[int, tuple[str, int]] = {}
        self._told_at = 0.0

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._began

    def tell(self, text: str) -> None:
        """Print a line."""
        print(f"{self.seconds:6.1f} s  {self._coloured(text)}", flush=True)

    def show(self, text: str = "") -> None:
        """Print a line that belongs to what was told before."""
        print(self._coloured(text), flush=True)

    def follow(self, run: dict[str, Any]) -> bool:
        """Tell how a run goes on, if there is something new; true if it is its end."""
        percent = round(100 * max(0.0, run["progress"]))
        news = (run["status"], percent)
        before = self._told.get(run["submission_id"], ("", 0))
        same_status = before[0] == news[0]
        if before == news or (same_status and self.seconds - self._told_at < 1):
            return False
        self._told[run["submission_id"]], self._told_at = news, self.seconds
        line = f"{run['variables']['dt']}  run {run['submission_id']}  {run['status']}"
        if run["status"] == "RUNNING":
            line += f" {percent:3} %, {number(run['rows_read'])} rows read"
        elif run["status"] == "SUCCEEDED":
            line += f", {number(run['rows_written'])} rows written"
        self.tell(line)
        return not same_status and run["status"] in ("SUCCEEDED", "FAILED")

    def _coloured(self, text: str) -> str:
        if not self._colours:
            return text
        text = text.replace("SUCCEEDED", f"{GOOD}SUCCEEDED{PLAIN}")
        return text.replace("FAILED", f"{BAD}FAILED{PLAIN}")


def number(value: int) -> str:
    """Write a number with its thousands apart."""
    return f"{value:,}".replace(",", " ")


def airflows_words(airflow: Airflow, run: dict[str, Any]) -> str:
    """Return what the failed task says about a run in Airflow's log, as soon as it does."""
    wanted = re.compile(rf"run {run['submission_id']} of job [^\n]*? ended FAILED: [^\n\"\\]+")
    for _ in range(40):
        for text in airflow.logs():
            if found := wanted.search(text):
                return found[0].replace("\\'", "'")
        time.sleep(0.25)
    return f"(nothing; CDM says: {run['error_summary']})"


def mend(story: Story, shop: Shop, airflow: Airflow, run: dict[str, Any]) -> None:
    """Tell why a run failed, and take the cause away before Airflow tries again."""
    day = date.fromisoformat(run["variables"]["dt"])
    story.tell("The task fails. Airflow's log says why:")
    story.show(f"\n    {airflows_words(airflow, run)}\n")
    without = [order for order in shop.source.orders(day) if order[2] is None]
    story.tell(
        f"That is so: {len(without)} orders of {day} name no customer."
        f" CDM moved {number(len(shop.target.orders(day)))} of that day's orders."
    )
    shop.mend()
    story.tell("Now they do. Airflow tries again in a few seconds.")


def watch(
    story: Story, simulator: Simulator, airflow: Airflow, shop: Shop, driver: Days | Standalone
) -> bool:
    """Tell what happens until Airflow is done; whether it is content."""
    while story.seconds < PATIENCE:
        outcome = driver.outcome()
        for run in simulator.runs():
            if run["variables"].get("dt") not in map(str, MOVED_DAYS):
                continue
            if story.follow(run) and run["status"] == "FAILED":
                mend(story, shop, airflow, run)
        if outcome is not None:
            return outcome
        time.sleep(0.25)
    story.tell("Giving up: it takes too long.")
    return False


def report(story: Story, simulator: Simulator, shop: Shop) -> bool:
    """Show the table of all runs; whether every row is right."""
    right = shop.target.count() == sum(len(shop.source.orders(day)) for day in MOVED_DAYS)
    form = "{:<10}  {:>10}  {:<9}  {:>9}  {:>12}  {:>13}  {:>13}"
    heads = ("date", "submission", "status", "rows read", "rows written")
    story.show("\n" + form.format(*heads, "in the target", "in the source"))
    for day in MOVED_DAYS:
        runs = [run for run in simulator.runs() if run["variables"].get("dt") == str(day)]
        source, target = len(shop.source.orders(day)), len(shop.target.orders(day))
        for run in runs:
            last = run is runs[-1]
            counts = (run["rows_read"], run["rows_written"])
            # CDM counts the rows of runs that succeeded only.
            shown = map(number, counts) if run["status"] == "SUCCEEDED" else ("-", "-")
            ends = (number(target), number(source)) if last else ("", "")
            cells = (str(day), run["submission_id"], run["status"], *shown, *ends)
            story.show(form.format(*cells))
            right &= not last or (run["status"], *counts) == ("SUCCEEDED", source, source)
        right &= bool(runs) and shop.moved(day)
    story.show()
    return right


def conclude(story: Story, shop: Shop, *, content: bool, right: bool) -> bool:
    """Say how it went."""
    moved = number(shop.target.count())
    if right:
        story.tell(
            f"The target has {moved} orders: those that the source has of these days, each once,"
            " and no others."
        )
    else:
        story.tell(f"WRONG: the target's {moved} orders are not those of the source.")
    if not content:
        story.tell(f"WRONG: Airflow reports a failure; see {HOME.name}/airflow.log")
    story.tell(f"Took {story.seconds:.0f} s.")
    return content and right


def prepare(story: Story, stack: ExitStack, *, deferrable: bool) -> tuple[Shop, Simulator, Airflow]:
    """Make fresh data and start what is needed."""
    for name in ("airflow", "data"):
        shutil.rmtree(HOME / name, ignore_errors=True)
    data = HOME / "data"
    data.mkdir()
    shop = Shop.make(data)
    story.tell(
        f"Source: {number(shop.source.count())} orders of {DAYS[0]} to {DAYS[-1]}."
        " Target: empty; it takes no order without a customer."
    )
    log, airflow_log = (
        stack.enter_context((HOME / f"{name}.log").open("w")) for name in ("simulator", "airflow")
    )
    config = Path(shutil.copy(ROOT / "example_dags" / "demo_simulator.yaml", data))
    simulator = Simulator(stack, config, log)
    story.tell(f"The simulator of CDM and IAM runs at {simulator.url}")
    airflow = Airflow(HOME / "airflow", airflow_log, simulator.connection, deferrable)
    story.tell(f"Airflow {version('apache-airflow')} starts; it prints to {HOME.name}/airflow.log")
    return shop, simulator, airflow


def drive(story: Story, stack: ExitStack, airflow: Airflow, *, ui: bool) -> Days | Standalone:
    """Have Airflow run the DAG for the days."""
    driver: Days | Standalone
    if ui:
        driver = Standalone(stack, airflow)
        while not driver.ready():
            time.sleep(0.5)
        story.tell(f"Airflow is at {driver.url}, user {driver.user}, password {driver.password}")
        driver.migrate(MOVED_DAYS)
    else:
        airflow.make_database(stack)
        driver = Days(stack, airflow, MOVED_DAYS)
    story.tell(f"It runs the DAG {DAG_ID} for {', '.join(map(str, MOVED_DAYS))}")
    return driver


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--deferrable", action="store_true")
    parser.add_argument("--ui", action="store_true")
    options = parser.parse_args()
    # However it is ended, its processes end too; Ctrl-C works even where a shell had it ignored.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    with ExitStack() as stack:
        lock = stack.enter_context((HOME / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"Another scripts/demo is running in {HOME}.")
        story = Story()
        shop, simulator, airflow = prepare(story, stack, deferrable=options.deferrable)
        driver = drive(story, stack, airflow, ui=options.ui)
        content = watch(story, simulator, airflow, shop, driver)
        right = report(story, simulator, shop)
        well = conclude(story, shop, content=content, right=right)
        if isinstance(driver, Standalone):
            story.show(
                f"\nAirflow:   {driver.url}  user {driver.user}, password {driver.password}\n"
                f"Simulator: {simulator.url}  (the button 'CDM run' of a task leads there)\n"
                "Ctrl-C ends both."
            )
            stack.callback(story.show, "\nEnding both ...")
            while driver.alive:
                time.sleep(0.5)
        else:
            story.show("\nTo look around in Airflow's own pages: scripts/demo --ui")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
