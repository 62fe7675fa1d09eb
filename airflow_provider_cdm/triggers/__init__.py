"""Triggers of CDM tasks: what waits in the triggerer."""

from __future__ import annotations

from airflow_provider_cdm.triggers.cluster import CdmClusterTrigger
from airflow_provider_cdm.triggers.owned_job import CdmOwnedJobTrigger
from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger

__all__ = ["CdmClusterTrigger", "CdmOwnedJobTrigger", "CdmSubmissionTrigger"]
