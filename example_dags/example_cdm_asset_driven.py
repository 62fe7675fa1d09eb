"""Move one day of orders every day, and emit an asset event with the number of rows.

Needs the connection ``cdm_default`` and the job ``orders_daily`` in its cluster. The DAG in
``example_cdm_asset_report.py`` is scheduled on this asset.
"""

from __future__ import annotations

from datetime import UTC, datetime

# [START howto_outlet]
# Airflow 2 calls an Asset a Dataset. This import works in both versions.
from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmStartJobOperator

with DAG(
    dag_id="example_cdm_asset_driven",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2},
    tags=["cdm", "example"],
) as dag:
    CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders_daily",
        variables={"dt": "{{ ds }}"},
        # The asset event contains the row counts of the run, so the task must wait for its end.
        wait_for_completion=True,
        if_running="wait",
        outlets=[Asset("cdm://warehouse/orders")],
    )
# [END howto_outlet]
