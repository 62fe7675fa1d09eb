"""The command line of the demo; ``scripts/demo`` makes its environment and runs this."""

from __future__ import annotations

import argparse
import fcntl
import re
import shutil
import sys
import time
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from airflow_provider_cdm.simulator.demo.databases import DAYS, MOVED_DAYS, Databases
from airflow_provider_cdm.simulator.demo.folder import CONFIG
from demo.airflow_runs import DAG_ID, Airflow, DagTest, Standalone
from demo.console import Console, format_number
from demo.processes import ROOT, Simulator, exit_on_signals

HOME = ROOT / ".demo"
#: Seconds after which the demo gives up.
TIMEOUT = 600
_DESCRIPTION = """\
A real Airflow 3.3 runs example_dags/example_cdm_daily_migration.py for three days, against a
simulator of Huawei Cloud CDM that moves the rows between two SQLite databases. The second day
fails for a reason that CDM reports; the cause is removed, and Airflow's retry moves that day too.
Databases and logs are in .demo/, and are replaced each time.
"""


def read_failure(airflow: Airflow, run: dict[str, Any]) -> str:
    """Return what the failed task logs about a run, waiting up to ten seconds for it."""
    # The first line of the report, in a log that may be JSON.
    number = run["submission_id"]
    pattern = re.compile(rf'([^\n"\\]+)(?:\n|\\n)  run: run {number} of job ')
    for _ in range(40):
        for text in airflow.logs():
            if match := pattern.search(text):
                return match[1]
        time.sleep(0.25)
    return f"(nothing; CDM reports: {run['error_summary']})"


def repair(console: Console, databases: Databases, airflow: Airflow, run: dict[str, Any]) -> None:
    """Print why a run failed, and remove the cause before Airflow's retry."""
    day = date.fromisoformat(run["variables"]["dt"])
    console.print("The task fails. Airflow's log says why:")
    console.print_details(f"\n    {read_failure(airflow, run)}\n")
    bad = [order for order in databases.source.orders(day) if order[2] is None]
    moved = format_number(len(databases.target.orders(day)))
    console.print(
        f"The source confirms it: {len(bad)} orders of {day} have no customer."
        f" CDM has moved {moved} of that day's orders."
    )
    databases.repair()
    console.print("Now they have one. Airflow retries in a few seconds.")


def follow(
    console: Console,
    simulator: Simulator,
    airflow: Airflow,
    databases: Databases,
    driver: DagTest | Standalone,
) -> bool:
    """Print the progress until all DAG runs have ended; return whether they have succeeded."""
    while console.seconds < TIMEOUT:
        succeeded = driver.succeeded()
        for run in simulator.runs():
            if run["variables"].get("dt") not in map(str, MOVED_DAYS):
                continue
            if console.print_progress(run) and run["status"] == "FAILED":
                repair(console, databases, airflow, run)
        if succeeded is not None:
            return succeeded
        time.sleep(0.25)
    console.print(f"Giving up: the DAG runs have not ended within {TIMEOUT} s.")
    return False


def print_table(console: Console, simulator: Simulator, databases: Databases) -> bool:
    """Print a table of all runs; return whether the target has the right rows."""
    correct = databases.target.count() == sum(
        len(databases.source.orders(day)) for day in MOVED_DAYS
    )
    moved = {run["variables"].get("dt") for run in simulator.runs()}
    if moved != set(map(str, MOVED_DAYS)):
        console.print(f"WRONG: there are runs for {', '.join(sorted(map(str, moved)))}.")
        correct = False
    form = "{:<10}  {:>10}  {:<9}  {:>9}  {:>12}  {:>13}  {:>13}"
    heads = ("date", "submission", "status", "rows read", "rows written")
    console.print_details("\n" + form.format(*heads, "in the target", "in the source"))
    for day in MOVED_DAYS:
        runs = [run for run in simulator.runs() if run["variables"].get("dt") == str(day)]
        source, target = len(databases.source.orders(day)), len(databases.target.orders(day))
        for run in runs:
            last = run is runs[-1]
            counts = (run["rows_read"], run["rows_written"])
            # CDM counts rows only for runs that have succeeded.
            shown = map(format_number, counts) if run["status"] == "SUCCEEDED" else ("-", "-")
            totals = (format_number(target), format_number(source)) if last else ("", "")
            cells = (str(day), run["submission_id"], run["status"], *shown, *totals)
            console.print_details(form.format(*cells))
            correct &= not last or (run["status"], *counts) == ("SUCCEEDED", source, source)
        correct &= bool(runs) and databases.moved(day)
    console.print_details()
    return correct


def print_conclusion(
    console: Console, databases: Databases, *, succeeded: bool, correct: bool
) -> None:
    """Print whether the demo did what it should."""
    moved = format_number(databases.target.count())
    if correct:
        console.print(
            f"The target has {moved} orders: those of the source for these days, each once,"
            " and no others."
        )
    else:
        console.print(f"WRONG: the target's {moved} orders are not those of the source.")
    if not succeeded:
        console.print(f"WRONG: Airflow reports a failure; see {HOME.name}/airflow.log")
    console.print(f"Took {console.seconds:.0f} s.")


def prepare(
    console: Console, stack: ExitStack, *, deferrable: bool
) -> tuple[Databases, Simulator, Airflow]:
    """Create the databases, start the simulator, and make an Airflow home."""
    for name in ("airflow", "data"):
        shutil.rmtree(HOME / name, ignore_errors=True)
    data = HOME / "data"
    data.mkdir()
    databases = Databases.create(data)
    console.print(
        f"Source: {format_number(databases.source.count())} orders of {DAYS[0]} to {DAYS[-1]}."
        " Target: empty; it rejects orders without a customer."
    )
    log, airflow_log = (
        stack.enter_context((HOME / f"{name}.log").open("w")) for name in ("simulator", "airflow")
    )
    config = Path(shutil.copy(CONFIG, data))
    simulator = Simulator(stack, config, log)
    console.print(f"The simulator of CDM and IAM runs at {simulator.url}")
    airflow = Airflow(HOME / "airflow", airflow_log, simulator.connection, deferrable)
    console.print(f"Airflow {version('apache-airflow')} starts; its log is {HOME.name}/airflow.log")
    return databases, simulator, airflow


def start_dag_runs(
    console: Console, stack: ExitStack, airflow: Airflow, *, ui: bool
) -> DagTest | Standalone:
    """Start the DAG runs for all days."""
    driver: DagTest | Standalone
    if ui:
        driver = Standalone(stack, airflow)
        while not driver.ready():
            time.sleep(0.5)
        console.print(f"Airflow is at {driver.url}, user {driver.user}, password {driver.password}")
        driver.backfill(MOVED_DAYS)
    else:
        airflow.create_database(stack)
        driver = DagTest(stack, airflow, MOVED_DAYS)
    console.print(f"Airflow runs the DAG {DAG_ID} for {', '.join(map(str, MOVED_DAYS))}")
    return driver


def keep_running(
    console: Console, stack: ExitStack, driver: Standalone, simulator: Simulator
) -> None:
    """Let the user look at the pages until Ctrl-C."""
    console.print_details(
        f"\nAirflow:   {driver.url}  user {driver.user}, password {driver.password}\n"
        f"Simulator: {simulator.url}  (the button 'CDM run' of a task leads there)\n"
        "Airflow's schedules are off, so that no other days are moved; trigger any DAG you like.\n"
        "Ctrl-C ends both."
    )
    stack.callback(console.print_details, "\nEnding both ...")
    while driver.alive:
        time.sleep(0.5)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=_DESCRIPTION)
    parser.add_argument(
        "--deferrable", action="store_true", help="wait in the triggerer instead of on a worker"
    )
    parser.add_argument(
        "--ui", action="store_true", help="use `airflow standalone`, and keep its pages available"
    )
    return parser.parse_args()


def main() -> int:
    """Run the demo; return the exit code."""
    options = parse_arguments()
    exit_on_signals()
    HOME.mkdir(exist_ok=True)
    with ExitStack() as stack:
        lock = stack.enter_context((HOME / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"Another scripts/demo is running in {HOME}.")
        console = Console()
        databases, simulator, airflow = prepare(console, stack, deferrable=options.deferrable)
        driver = start_dag_runs(console, stack, airflow, ui=options.ui)
        succeeded = follow(console, simulator, airflow, databases, driver)
        correct = print_table(console, simulator, databases)
        print_conclusion(console, databases, succeeded=succeeded, correct=correct)
        if isinstance(driver, Standalone):
            keep_running(console, stack, driver, simulator)
        else:
            console.print_details("\nTo look around in Airflow's own pages: scripts/demo --ui")
    return 0 if succeeded and correct else 1


if __name__ == "__main__":
    sys.exit(main())
