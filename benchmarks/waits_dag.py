"""A DAG with one mapped task; ``BENCHMARK_TASKS`` sets the number of its instances."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.sdk import DAG

from airflow_provider_cdm.operators import CdmStartJobOperator

with DAG("waits", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    CdmStartJobOperator.partial(task_id="move", wait_for_completion=True, deferrable=True).expand(
        job_name=[f"load_{number:05}" for number in range(int(os.environ["BENCHMARK_TASKS"]))]
    )
