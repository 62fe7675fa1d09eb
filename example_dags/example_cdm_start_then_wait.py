"""Start CDM jobs in one task and wait for them in another, in three ways.

Needs the connection ``cdm_default`` and, in its cluster, the jobs ``orders_daily`` and
``customers_daily``, and a job ``stock_nightly`` that CDM's scheduler starts.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor

with DAG(
    dag_id="example_cdm_start_then_wait",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2},
    tags=["cdm", "example"],
) as dag:
    # [START howto_sensor_reschedule]
    start_orders = CdmStartJobOperator(
        task_id="start_orders", job_name="orders_daily", variables={"dt": "{{ ds }}"}
    )
    # Waits for exactly this run, even if the job is started again. The sensor releases its worker
    # slot between two pokes.
    wait_for_orders = CdmSubmissionSensor(
        task_id="wait_for_orders",
        submission=start_orders.output,
        mode="reschedule",
        poke_interval=60,
        timeout=timedelta(hours=6),
    )
    # [END howto_sensor_reschedule]

    # [START howto_sensor_deferrable]
    start_customers = CdmStartJobOperator(
        task_id="start_customers", job_name="customers_daily", variables={"dt": "{{ ds }}"}
    )
    # The same in the triggerer, where one process can wait for thousands of runs.
    wait_for_customers = CdmSubmissionSensor(
        task_id="wait_for_customers",
        submission=start_customers.output,
        deferrable=True,
        poke_interval=60,
        timeout=timedelta(hours=6),
    )
    # [END howto_sensor_deferrable]

    # [START howto_sensor_started_after]
    # CDM's own scheduler starts this job each night. Wait for the first run after the day ended.
    wait_for_stock = CdmSubmissionSensor(
        task_id="wait_for_stock",
        job_name="stock_nightly",
        started_after="{{ data_interval_end }}",
        poke_interval=60,
        timeout=timedelta(hours=6),
    )
    # [END howto_sensor_started_after]
