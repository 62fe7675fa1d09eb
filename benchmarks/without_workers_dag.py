"""Sensors that wait for runs, begun on a worker or without one; see :mod:`.without_workers`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG

from airflow_provider_cdm.sensors import CdmSubmissionSensor

START = datetime(2025, 1, 1, tzinfo=UTC)
SIDES: dict[str, dict[str, Any]] = {
    "worker": {"deferrable": True},
    "triggerer": {"start_from_trigger": True},
}

for name, where in SIDES.items():
    with DAG(name, schedule=None, start_date=START):
        for number in range(int(os.environ["BENCHMARK_TASKS"])):
            CdmSubmissionSensor(
                task_id=f"wait_{number}",
                job_name=f"load_{number}",
                started_after="{{ dag_run.start_date }}",
                poke_interval=5,
                **where,
            )
