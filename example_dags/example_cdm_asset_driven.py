"""Migrate each day of orders, and let the DAGs that are scheduled on them know how many came.

Needs the connection ``cdm_default``, and in its cluster the job ``orders_daily``. One of those DAGs
is in ``example_cdm_asset_report.py``.
"""

from __future__ import annotations

from datetime import UTC, datetime

# [START howto_outlet]
# Airflow 2 calls an Asset a Dataset; this way of importing it works on both.
from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmStartJobOperator

with DAG(
    dag_id="example_cdm_asset_driven",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["cdm", "example"],
) as dag:
    CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders_daily",
        variables={"dt": "{{ ds }}"},
        # The event of an outlet tells what the run has moved, so the task must wait for it.
        wait_for_completion=True,
        if_running="wait",
        outlets=[Asset("cdm://warehouse/orders")],
    )
# [END howto_outlet]
