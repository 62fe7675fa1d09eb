"""Configure which errors are retried, and set thresholds for row counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.retry_policy import CdmRetryPolicy

with DAG("retries", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
    # [START retries]
    move_orders = CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders_daily",
        variables={"dt": "{{ ds }}"},
        wait_for_completion=True,
        retries=3,
        retry_delay=timedelta(minutes=5),
        # Retry after an outage, but not after a run that CDM reports as failed.
        retry_policy=CdmRetryPolicy(retry_failed_runs=False),
    )
    # [END retries]
    # [START thresholds]
    move_customers = CdmStartJobOperator(
        task_id="move_customers",
        job_name="customers_daily",
        wait_for_completion=True,
        min_rows_written=1,
        max_rows_skipped=0,
        rows_written_equal_read=True,
    )
    # [END thresholds]
