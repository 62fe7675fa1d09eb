"""Sensors for CDM: the end of a run, the state of a cluster."""

from __future__ import annotations

from airflow_provider_cdm.sensors.cluster import CdmClusterSensor
from airflow_provider_cdm.sensors.submission import CdmSubmissionSensor

__all__ = ["CdmClusterSensor", "CdmSubmissionSensor"]
