"""Triggers of CDM: what waits in the triggerer, for tasks and for assets."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_cdm.triggers.cluster import CdmClusterTrigger
    from airflow_provider_cdm.triggers.owned_job import CdmOwnedJobTrigger
    from airflow_provider_cdm.triggers.run_event import CdmRunEventTrigger
    from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger
    from airflow_provider_cdm.triggers.submission_sensor import CdmSubmissionSensorTrigger

__all__ = [
    "CdmClusterTrigger",
    "CdmOwnedJobTrigger",
    "CdmRunEventTrigger",
    "CdmSubmissionSensorTrigger",
    "CdmSubmissionTrigger",
]

_MODULES = {
    "CdmClusterTrigger": "cluster",
    "CdmOwnedJobTrigger": "owned_job",
    "CdmRunEventTrigger": "run_event",
    "CdmSubmissionSensorTrigger": "submission_sensor",
    "CdmSubmissionTrigger": "submission",
}


def __getattr__(name: str) -> Any:
    """Import a trigger when it is used: DAG files use one, and the others import much."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
