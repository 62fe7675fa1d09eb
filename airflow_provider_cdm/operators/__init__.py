"""Operators for CDM: running jobs, keeping jobs and links as defined, switching clusters.

Each is imported on first use, so that parsing a DAG file loads only the operators that it names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_cdm.operators.clusters import (
        CdmStartClusterOperator,
        CdmStopClusterOperator,
    )
    from airflow_provider_cdm.operators.jobs import (
        CdmApplyJobOperator,
        CdmCreateJobOperator,
        CdmDeleteJobOperator,
        CdmStopJobOperator,
        CdmUpdateJobOperator,
    )
    from airflow_provider_cdm.operators.links import CdmApplyLinkOperator, CdmDeleteLinkOperator
    from airflow_provider_cdm.operators.restart_cluster import CdmRestartClusterOperator
    from airflow_provider_cdm.operators.run_job import CdmRunJobOperator
    from airflow_provider_cdm.operators.start_job import CdmStartJobOperator

__all__ = [
    "CdmApplyJobOperator",
    "CdmApplyLinkOperator",
    "CdmCreateJobOperator",
    "CdmDeleteJobOperator",
    "CdmDeleteLinkOperator",
    "CdmRestartClusterOperator",
    "CdmRunJobOperator",
    "CdmStartClusterOperator",
    "CdmStartJobOperator",
    "CdmStopClusterOperator",
    "CdmStopJobOperator",
    "CdmUpdateJobOperator",
]

_MODULES = {
    "CdmApplyJobOperator": "jobs",
    "CdmApplyLinkOperator": "links",
    "CdmCreateJobOperator": "jobs",
    "CdmDeleteJobOperator": "jobs",
    "CdmDeleteLinkOperator": "links",
    "CdmRestartClusterOperator": "restart_cluster",
    "CdmRunJobOperator": "run_job",
    "CdmStartClusterOperator": "clusters",
    "CdmStartJobOperator": "start_job",
    "CdmStopClusterOperator": "clusters",
    "CdmStopJobOperator": "jobs",
    "CdmUpdateJobOperator": "jobs",
}


def __getattr__(name: str) -> Any:
    """Import an operator on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    operator = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = operator
    return operator
