"""Move many days at once: each task has a job of its own, made for it and deleted after it.

Needs the connection ``cdm_default`` and in its cluster the links ``shop`` and ``warehouse``, but no
job. A backfill of a month runs as many days at a time as Airflow is told to.
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
        # A file beside this one; "{{ ds }}" in it is the day that is over.
        definition="definitions/orders_of_a_day.yaml",
    )
    # [END howto_run_job]
