"""Runs that Airflow did not start: a real asset watcher, and triggerers that are killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm._compat import HAS_ASSET_STATE_STORE
from airflow_provider_cdm.simulator import CdmSimulator
from demo.processes import wait_until
from tests.support.airflow_stack import AirflowStack
from tests.support.progress import Progress

pytestmark = pytest.mark.skipif(
    not HAS_ASSET_STATE_STORE, reason="Airflow stores positions of watchers from 3.3 on"
)

JOB, DAG = "watched", "watched_run"
#: Time limit in seconds for each step.
TIMEOUT = 120


@pytest.fixture
def sim() -> Iterator[CdmSimulator]:
    """A simulator with a job that takes a second."""
    with CdmSimulator() as sim:
        sim.add_job(JOB, seconds=1)
        yield sim


@pytest.fixture
def stack(sim: CdmSimulator, tmp_path: Path) -> Iterator[AirflowStack]:
    """An Airflow whose only DAG has an asset watcher."""
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(Path(__file__).with_name("watched_run_dag.py"), dags)
    environment = {"AIRFLOW_CONN_CDM_DEFAULT": sim.connection_json}
    stack = AirflowStack(tmp_path / "airflow", dags, environment)
    stack.home.mkdir()
    try:
        stack.start()
        stack.wait_for_dags(1)
        yield stack
    finally:
        stack.stop()


class WatchedJob:
    """The job that is watched, and what Airflow knows of its runs."""

    def __init__(self, sim: CdmSimulator, stack: AirflowStack) -> None:
        self.sim, self.stack = sim, stack

    def run(self) -> int:
        """Let CDM's scheduler start the job, and wait until the run has ended."""
        number = self.sim.start(JOB, auto=True).submission_id
        wait_until(lambda: not self.sim.runs(JOB)[-1].active, TIMEOUT, "the run has ended")
        return number

    @property
    def events(self) -> list[int]:
        """Numbers of the runs for which there are events, in order."""
        rows = self.stack.query("SELECT extra FROM asset_event ORDER BY id")
        extras = [json.loads(extra) if isinstance(extra, str) else extra for (extra,) in rows]
        return [extra["payload"]["submission_id"] for extra in extras]

    @property
    def reported(self) -> set[int]:
        """Numbers of the runs that the DAG was told of."""
        query = "SELECT run_id FROM dag_run WHERE dag_id = ? AND state = 'success'"
        runs = [run for (run,) in self.stack.query(query, DAG)]
        return {number for run in runs for number in self.stack.result_of(DAG, run, "report")}

    @property
    def position(self) -> dict[str, Any]:
        """The position that Airflow stores with the asset."""
        rows = self.stack.query("SELECT value FROM asset_state_store")
        return json.loads(rows[0][0]) if rows else {}

    def knows(self, number: int) -> bool:
        """Return whether the stored position is after a run."""
        return number in [known for known, _ in self.position.get("known", [])]

    def wait_for_event(self, number: int) -> None:
        """Wait until there is an event for a run."""
        wait_until(lambda: number in self.events, TIMEOUT, f"run {number} has an event")


def test_killed_triggerers(
    sim: CdmSimulator, stack: AirflowStack, request: pytest.FixtureRequest
) -> None:
    """Each run has its event, whoever started it and whatever happens to triggerers; an event comes
    twice at most if its triggerer was killed right after it.
    """
    job = WatchedJob(sim, stack)
    wait_until(lambda: bool(job.position), TIMEOUT, "the watcher has begun")
    first = job.run()
    job.wait_for_event(first)
    wait_until(lambda: job.knows(first), TIMEOUT, "the position is stored")

    stack.kill("triggerer")
    missed = [job.run(), job.run()]
    stack.start_triggerer("triggerer-2")
    for number in missed:
        job.wait_for_event(number)
    wait_until(lambda: job.knows(missed[-1]), TIMEOUT, "the position is stored")

    unsure = job.run()
    job.wait_for_event(unsure)
    stack.kill("triggerer-2")
    stack.start_triggerer("triggerer-3")
    last = job.run()
    job.wait_for_event(last)
    wait_until(lambda: job.knows(last), TIMEOUT, "the position is stored")

    numbers = job.events
    Progress(request.config)(f"Events of the runs {[first, *missed, unsure, last]}: {numbers}")
    assert set(numbers) == {first, *missed, unsure, last}
    assert [numbers.count(number) for number in (first, *missed, last)] == [1, 1, 1, 1]
    assert numbers.count(unsure) <= 2
    wait_until(lambda: job.reported == set(numbers), TIMEOUT, "the DAG has seen all runs")
