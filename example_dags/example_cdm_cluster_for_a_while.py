"""Start a cluster before a migration and stop it afterwards.

Needs the connection ``cdm_default`` and the job ``orders_daily`` in its cluster.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import (
    CdmStartClusterOperator,
    CdmStartJobOperator,
    CdmStopClusterOperator,
)

with DAG(
    dag_id="example_cdm_cluster_for_a_while",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2},
    max_active_runs=1,
    tags=["cdm", "example"],
) as dag:
    # [START howto_cluster]
    start = CdmStartClusterOperator(task_id="start_cluster").as_setup()
    move = CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders_daily",
        variables={"dt": "{{ ds }}"},
        wait_for_completion=True,
    )
    # Also runs if the migration fails. It does not stop the cluster while another job runs on it.
    stop = CdmStopClusterOperator(task_id="stop_cluster").as_teardown(setups=start)
    start >> move >> stop
    # [END howto_cluster]
