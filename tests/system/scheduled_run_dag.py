"""Tasks whose button "CDM run" is followed: each kind of wait, mapped tasks, and a failing one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor

WAIT: dict[str, Any] = {"wait_for_completion": True, "poll_interval": 1, "deferrable": False}
DEFER = WAIT | {"deferrable": True}

with DAG("scheduled_run", schedule="@once", start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
    CdmStartJobOperator(task_id="waits", job_name="waits", **WAIT)
    CdmStartJobOperator(task_id="deferred", job_name="deferred", **DEFER)
    CdmStartJobOperator(task_id="fails", job_name="fails", **DEFER)
    mapped = CdmStartJobOperator.partial(task_id="mapped", **DEFER)
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
