"""A night as users have it: the scheduler runs the DAGs by itself, and clicks lead to the runs."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import example_stage as examples
from tests.support.example_stage import EXAMPLES, Demo
from tests.system.stack import AIRFLOW_3, Stack, wait_until

DAILY, CAUSED = "example_cdm_asset_driven", "example_cdm_asset_report"
#: Tasks of the DAG "night" with their map index, and their jobs.
TASKS = {
    ("waits", -1): "waits",
    ("deferred", -1): "deferred",
    ("fails", -1): "fails",
    ("mapped", 0): "mapped_0",
    ("mapped", 1): "mapped_1",
    ("mapped", 2): "mapped_2",
    ("only_starts", -1): "only_starts",
    ("sensor", -1): "only_starts",
}
#: Seconds that a run takes: enough to click while it is active.
SECONDS = 25
PATIENCE = 180


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Orders of yesterday and today: a DAG that runs once a day may begin at midnight."""
    today = datetime.now(UTC).date()
    folder = tmp_path_factory.mktemp("night")
    with Demo.start(folder, [today - timedelta(days=1), today], seconds=2) as demo:
        for job in sorted(set(TASKS.values())):
            outcome = "FAILED" if job == "fails" else "SUCCEEDED"
            demo.sim.add_job(job, seconds=SECONDS, outcome=outcome)
        yield demo


@pytest.fixture(scope="module")
def stack(demo: Demo) -> Iterator[Stack]:
    """An Airflow whose DAGs nobody triggers."""
    folder = demo.shop.path.parent
    dags = folder / "dags"
    dags.mkdir()
    for name in (DAILY, CAUSED):
        shutil.copy(EXAMPLES / f"{name}.py", dags)
    shutil.copy(Path(__file__).with_name("night_dag.py"), dags)
    stack = Stack(folder / "airflow", dags, {"AIRFLOW_CONN_CDM_DEFAULT": demo.sim.connection_json})
    stack.home.mkdir()
    try:
        stack.start()
        stack.wait_for_dags(3)
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def addresses(demo: Demo, stack: Stack) -> dict[tuple[str, int], str]:
    """Where the buttons lead, each asked for while its run is active."""
    found: dict[tuple[str, int], str] = {}

    def all_there() -> bool:
        for (task, index), job in TASKS.items():
            runs = demo.sim.runs(job)
            if (task, index) in found or not (runs and runs[0].active):
                continue
            if address := stack.link("night", "CDM run", task, index):
                found[task, index] = address
        return len(found) == len(TASKS)

    wait_until(all_there, SECONDS + PATIENCE, f"buttons lead somewhere, not only {found}")
    return found


def over(stack: Stack, dag: str) -> list[tuple[str, str, str]]:
    """Wait for the runs of a DAG; return their ids, days and states."""
    day = "logical_date" if AIRFLOW_3 else "execution_date"
    query = f"SELECT run_id, coalesce({day}, ''), state FROM dag_run WHERE dag_id = ?"

    def runs() -> list[Any]:
        return stack.query(query, dag)

    wait_until(
        lambda: bool(runs()) and {"success", "failed"} >= {state for *_, state in runs()},
        *(PATIENCE, f"{dag} is over"),
    )
    return [(run, str(day)[:10], state) for run, day, state in runs()]


def test_scheduled(demo: Demo, stack: Stack, addresses: dict[tuple[str, int], str]) -> None:
    """The daily DAG moves its day, once, and the DAG that depends on its target reads how much."""
    moved = over(stack, DAILY)
    reported = over(stack, CAUSED)
    assert {state for *_, state in moved + reported} == {"success"}
    ((run, _, _),) = reported
    counted = stack.returned(CAUSED, run, "count_orders")
    for fact in examples.asset_driven(
        demo, [date.fromisoformat(day) for _, day, _ in moved], counted
    ):
        assert fact.actual == fact.expected, fact.description


def test_buttons(demo: Demo, stack: Stack, addresses: dict[tuple[str, int], str]) -> None:
    """Each leads to the page of its own run, from the start on and when all is over."""
    ((_, _, state),) = over(stack, "night")
    assert state == "failed"
    for (task, index), address in addresses.items():
        job = TASKS[task, index]
        (run,) = demo.sim.runs(job)
        assert address.endswith(f"/jobs/{job}/runs/{run.submission_id}")
        assert stack.link("night", "CDM run", task, index) == address
        with urllib.request.urlopen(address, timeout=10) as page:
            shown = page.read().decode()
        assert ("FAILED" if job == "fails" else "SUCCEEDED") in shown
