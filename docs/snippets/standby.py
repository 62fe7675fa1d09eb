"""Start a job in a stand-by cluster while the first cluster cannot take it."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.operators import CdmStartJobOperator

with DAG("standby", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
    # [START standby]
    move_orders = CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders",
        cluster_id="11111111-1111-1111-1111-111111111111",
        # Both clusters hold the job.
        standby_cluster_ids=["22222222-2222-2222-2222-222222222222"],
        wait_for_completion=True,
    )
    # [END standby]
