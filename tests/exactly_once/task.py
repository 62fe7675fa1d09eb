"""The task whose starts are counted."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.order_databases import DAY
from tests.support.task_harness import TaskRunner

JOB = "orders"
MODES: dict[str, dict[str, Any]] = {
    "on the worker": {"wait_for_completion": True, "deferrable": False},
    "deferred": {"wait_for_completion": True, "deferrable": True},
}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def migrate(**arguments: Any) -> CdmStartJobOperator:
    """Make the operator under test."""
    defaults = {"task_id": "t", "job_name": JOB, "variables": {"dt": DAY}}
    return CdmStartJobOperator(**{**defaults, **MODES["on the worker"], **arguments})


def run_until_wait_timeout(task_runner: TaskRunner, **arguments: Any) -> CdmStartJobOperator:
    """Run an attempt until its wait times out, while its run goes on; return its last operator."""
    operators: list[CdmStartJobOperator] = []

    def make_operator() -> CdmStartJobOperator:
        operators.append(migrate(**{"wait_timeout": 5, "poll_interval": 5, **arguments}))
        return operators[-1]

    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(make_operator)
    return operators[-1]


def attach_until_wait_timeout(task_runner: TaskRunner, **arguments: Any) -> Any:
    """Attach to the active run until the wait times out, with one operator in all processes, which
    knows the most at a kill; return it.
    """
    operator = migrate(if_running="attach", wait_timeout=5, poll_interval=5, **arguments)
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: operator)
    return operator


def count_starts(sim: CdmSimulator) -> int:
    """Return how many start calls CDM received."""
    return [request.route for request in sim.requests].count("start")
