"""The task whose starts are counted."""

from __future__ import annotations

from typing import Any

from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.order_databases import DAY

JOB = "orders"
MODES: dict[str, dict[str, Any]] = {
    "on the worker": {"wait_for_completion": True, "deferrable": False},
    "deferred": {"wait_for_completion": True, "deferrable": True},
}


def migrate(**arguments: Any) -> CdmStartJobOperator:
    """Make the operator under test."""
    defaults = {"task_id": "t", "job_name": JOB, "variables": {"dt": DAY}}
    return CdmStartJobOperator(**{**defaults, **MODES["on the worker"], **arguments})


def count_starts(sim: CdmSimulator) -> int:
    """Return how many start calls CDM received."""
    return [request.route for request in sim.requests].count("start")
