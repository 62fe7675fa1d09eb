"""Move several days in parallel: each task creates a job, runs it and deletes it.

Needs the connection ``cdm_default`` and the links ``shop`` and ``warehouse`` in its cluster, but no
job. In a backfill, ``max_active_runs`` limits the number of days that run at the same time.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmRunJobOperator

with DAG(
    dag_id="example_cdm_side_by_side",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=8,
    default_args={"retries": 2},
    tags=["cdm", "example"],
) as dag:
    # [START howto_run_job]
    CdmRunJobOperator(
        task_id="move_orders",
        # A file next to this one. It contains "{{ ds }}", the day that has just ended.
        definition="definitions/orders_of_a_day.yaml",
    )
    # [END howto_run_job]
