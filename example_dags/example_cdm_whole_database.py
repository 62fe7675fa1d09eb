"""Move a whole database each night, and return the result of each table.

Needs the connection ``cdm_default`` and, in its cluster, the job ``shop_nightly`` of CDM's type
"entire DB migration".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmStartJobOperator

with DAG(
    dag_id="example_cdm_whole_database",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=10)},
    tags=["cdm", "example"],
) as dag:
    # [START howto_whole_database]
    CdmStartJobOperator(
        task_id="move_shop",
        job_name="shop_nightly",
        wait_for_completion=True,
        deferrable=True,
        # The sum over all tables.
        min_rows_written=1,
    )
    # [END howto_whole_database]
