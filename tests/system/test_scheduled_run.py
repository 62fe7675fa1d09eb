"""DAG runs that only the scheduler and assets trigger, and the buttons that lead to CDM runs."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo.processes import wait_until
from tests.support import example_stage as examples
from tests.support.airflow_settings import AIRFLOW_3
from tests.support.airflow_stack import AirflowStack
from tests.support.example_stage import EXAMPLES, Demo

DAILY, REPORT = "example_cdm_asset_driven", "example_cdm_asset_report"
BUTTONS = "scheduled_run"
#: Jobs of the tasks of the DAG with buttons, by task id and map index.
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
#: Duration of a CDM run in seconds, long enough to read all links while it is active.
SECONDS = 25
#: Time limit in seconds for all DAG runs.
TIMEOUT = 180


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Orders of yesterday and today, because a daily DAG may start its run at midnight."""
    today = datetime.now(UTC).date()
    folder = tmp_path_factory.mktemp("scheduled_run")
    with Demo.start(folder, [today - timedelta(days=1), today], seconds=2) as demo:
        for job in sorted(set(TASKS.values())):
            outcome = "FAILED" if job == "fails" else "SUCCEEDED"
            demo.sim.add_job(job, seconds=SECONDS, outcome=outcome)
        yield demo


@pytest.fixture(scope="module")
def stack(demo: Demo) -> Iterator[AirflowStack]:
    """An Airflow whose DAGs no user triggers."""
    folder = demo.shop.path.parent
    dags = folder / "dags"
    dags.mkdir()
    for name in (DAILY, REPORT):
        shutil.copy(EXAMPLES / f"{name}.py", dags)
    shutil.copy(Path(__file__).with_name("scheduled_run_dag.py"), dags)
    environment = {"AIRFLOW_CONN_CDM_DEFAULT": demo.sim.connection_json}
    stack = AirflowStack(folder / "airflow", dags, environment)
    stack.home.mkdir()
    try:
        stack.start()
        stack.wait_for_dags(3)
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def urls(demo: Demo, stack: AirflowStack) -> dict[tuple[str, int], str]:
    """The URLs of the buttons by task id and map index, each read while its run is active."""
    urls: dict[tuple[str, int], str] = {}

    def all_known() -> bool:
        for (task, index), job in TASKS.items():
            runs = demo.sim.runs(job)
            if (task, index) in urls or not (runs and runs[0].active):
                continue
            if url := stack.link(BUTTONS, "CDM run", task, index):
                urls[task, index] = url
        return len(urls) == len(TASKS)

    wait_until(all_known, SECONDS + TIMEOUT, "all buttons have a URL")
    return urls


def wait_for_runs(stack: AirflowStack, dag: str) -> list[tuple[str, str, str]]:
    """Wait for the runs of a DAG; return their ids, logical dates and states."""
    day = "logical_date" if AIRFLOW_3 else "execution_date"
    query = f"SELECT run_id, coalesce({day}, ''), state FROM dag_run WHERE dag_id = ?"

    def runs() -> list[Any]:
        return stack.query(query, dag)

    wait_until(
        lambda: bool(runs()) and {"success", "failed"} >= {state for *_, state in runs()},
        *(TIMEOUT, f"{dag} has ended"),
    )
    return [(run, str(day)[:10], state) for run, day, state in runs()]


def test_scheduled(demo: Demo, stack: AirflowStack, urls: dict[tuple[str, int], str]) -> None:
    """The daily DAG moves its day once, and the DAG scheduled on its target reads the row count."""
    moved = wait_for_runs(stack, DAILY)
    reported = wait_for_runs(stack, REPORT)
    assert {state for *_, state in moved + reported} == {"success"}
    ((run, _, _),) = reported
    counted = stack.result_of(REPORT, run, "count_orders")
    for fact in examples.asset_driven(
        demo, [date.fromisoformat(day) for _, day, _ in moved], counted
    ):
        assert fact.actual == fact.expected, fact.description


def test_buttons(demo: Demo, stack: AirflowStack, urls: dict[tuple[str, int], str]) -> None:
    """Each button leads to the page of its own run, while the run is active and afterwards."""
    ((_, _, state),) = wait_for_runs(stack, BUTTONS)
    assert state == "failed"
    for (task, index), url in urls.items():
        job = TASKS[task, index]
        (run,) = demo.sim.runs(job)
        assert url.endswith(f"/jobs/{job}/runs/{run.submission_id}")
        assert stack.link(BUTTONS, "CDM run", task, index) == url
        with urllib.request.urlopen(url, timeout=10) as page:
            text = page.read().decode()
        assert ("FAILED" if job == "fails" else "SUCCEEDED") in text
