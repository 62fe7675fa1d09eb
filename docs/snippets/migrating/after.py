"""The same daily migration with airflow-provider-cdm, using the same connection."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmStartJobOperator

with DAG(
    dag_id="migrating_after",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
) as dag:
    # [START tasks]
    move = CdmStartJobOperator(
        task_id="move",
        cluster_id="{{ var.value.cdm_cluster }}",
        job_name="orders_daily",
        variables={"dt": "{{ ds }}"},
        wait_for_completion=True,
        deferrable=True,
        poll_interval=30,
        cdm_conn_id="huaweicloud_default",
    )
    # [END tasks]
