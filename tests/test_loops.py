"""Loops (Airflow 3.4): their iterations share DAG, task, run and map index, and nothing else."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator
from tests.operators.run_job.task import created_job_names, definition
from tests.support.dag_runs import run_dag

HAS_LOOPS = find_spec("airflow.sdk") and find_spec("airflow.sdk.definitions.loop")
pytestmark = pytest.mark.skipif(not HAS_LOOPS, reason="below 3.4 Airflow has no loops")

JOB = "orders"
#: A loop of three iterations. The first attempt of each task fails after its run has succeeded.
DAG_FILE = """
from datetime import timedelta

from airflow.sdk import DAG, task, task_group
from airflow_provider_cdm.operators import *

def fail_at_first(context, result=None):
    if context["ti"].try_number == 1:
        raise ValueError("after the run")

common = dict(task_id="t", retries=1, retry_delay=timedelta(0), post_execute=fail_at_first)
waiting = dict(**common, wait_for_completion=True)

with DAG("{dag_id}", schedule=None) as dag:
    @task_group
    def again():
        {task}
    again.loop(max_iterations=3)
"""


def run_loop(task: str) -> list[Any]:
    """Run a DAG with a task in a loop; return its task instances, without those of the loop."""
    dag_run = run_dag(DAG_FILE.replace("{task}", task))
    found = [ti for ti in dag_run.get_task_instances() if ti.task_id == "again.t"]
    assert {(ti.state, ti.try_number) for ti in found} == {("success", 2)}
    return found


def stored_keys(found: list[Any]) -> list[str]:
    """Return the names of the Variables with the journals of these task instances."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(Variable).filter(Variable.key.startswith("cdm:start:"))
        return sorted(row.key for row in rows if row.key.endswith(found[0].run_id))


@pytest.mark.parametrize("deferrable", [False, True], ids=["on the worker", "deferred"])
def test_each_iteration_starts_the_job_once(
    deferrable: bool, sim: CdmSimulator, cdm_default: dict[str, Any], airflow_database: None
) -> None:
    """Each iteration has a run of its own, which its retry takes over, and a journal of its own."""
    sim.add_job(JOB, seconds=20)
    found = run_loop(f"CdmStartJobOperator(job_name={JOB!r}, deferrable={deferrable}, **waiting)")
    assert len(found) == len(sim.runs(JOB)) == 3
    assert [key.split(":")[4] for key in stored_keys(found)] == ["-1.0", "-1.1", "-1.2"]
    assert {ti.region_index for ti in found} == {0, 1, 2}


def test_mapped_tasks_of_an_iteration_start_their_jobs_once(
    sim: CdmSimulator, cdm_default: dict[str, Any], airflow_database: None
) -> None:
    """Mapped tasks in a loop are told apart by map index and iteration."""
    names = ["a", "b"]
    for name in names:
        sim.add_job(name, seconds=20)
    found = run_loop(f"CdmStartJobOperator.partial(**waiting).expand(job_name={names})")
    assert len(found) == 6
    assert [len(sim.runs(name)) for name in names] == [3, 3]
    assert len(stored_keys(found)) == 6


def test_each_iteration_has_a_job_of_its_own(
    sim: CdmSimulator, cdm_default: dict[str, Any], airflow_database: None
) -> None:
    """``CdmRunJobOperator`` creates a job for each iteration; a retry uses the same."""
    for link in ("shop", "warehouse"):
        sim.add_link(link)
    assert len(run_loop(f"CdmRunJobOperator(definition={definition()!r}, **common)")) == 3
    assert len(created_job_names(sim)) == 3
