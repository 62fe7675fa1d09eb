"""Operators for CDM: running jobs, keeping jobs and links as defined, switching clusters."""

from __future__ import annotations

from airflow_provider_cdm.operators.clusters import (
    CdmRestartClusterOperator,
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
