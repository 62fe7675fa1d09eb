"""A daily migration with apache-airflow-providers-huawei."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow import DAG
from airflow.providers.huawei.cloud.operators.cdm import CDMStartJobOperator
from airflow.providers.huawei.cloud.sensors.cdm import CDMShowJobStatusSensor

with DAG(
    dag_id="migrating_before",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
) as dag:
    # [START tasks]
    start = CDMStartJobOperator(
        task_id="start",
        cluster_id="{{ var.value.cdm_cluster }}",
        job_name="orders_daily",
        variables={"dt": "{{ ds }}"},
    )
    wait = CDMShowJobStatusSensor(
        task_id="wait",
        cluster_id="{{ var.value.cdm_cluster }}",
        job_name="orders_daily",
        poke_interval=30,
        mode="reschedule",
    )
    start >> wait
    # [END tasks]
