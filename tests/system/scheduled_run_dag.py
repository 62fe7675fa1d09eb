"""Tasks whose button "CDM run" is clicked: each kind of wait, mapped, and one that fails."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor

WAITS: dict[str, Any] = {"wait_for_completion": True, "poll_interval": 1, "deferrable": False}
DEFERS = WAITS | {"deferrable": True}

with DAG("night", schedule="@once", start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
    CdmStartJobOperator(task_id="waits", job_name="waits", **WAITS)
    CdmStartJobOperator(task_id="deferred", job_name="deferred", **DEFERS)
    CdmStartJobOperator(task_id="fails", job_name="fails", **DEFERS)
    mapped = CdmStartJobOperator.partial(task_id="mapped", **DEFERS)
    mapped.expand(job_name=["mapped_0", "mapped_1", "mapped_2"])
    only_starts = CdmStartJobOperator(
        task_id="only_starts", job_name="only_starts", wait_for_completion=False, deferrable=False
    )
    CdmSubmissionSensor(
        task_id="sensor",
        submission=only_starts.output,
        poke_interval=1,
        timeout=timedelta(minutes=5),
        deferrable=True,
    )
