"""Sensors that begin and wait without a worker (Airflow 3.3)."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor

daily = CronDataIntervalTimetable("@daily", timezone="UTC")
with DAG("wait_without_worker", schedule=daily, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    # [START wait_without_worker]
    # The run that CDM's scheduler starts after midnight:
    nightly = CdmSubmissionSensor(
        task_id="wait_for_stock",
        job_name="stock_nightly",
        started_after="{{ data_interval_end }}",
        start_from_trigger=True,
    )

    # The run of another task:
    start = CdmStartJobOperator(task_id="start_orders", job_name="orders")
    orders = CdmSubmissionSensor(
        task_id="wait_for_orders",
        job_name="orders",
        submission_id="{{ ti.xcom_pull('start_orders', map_indexes=-1)['submission_id'] }}",
        start_from_trigger=True,
    )
    start >> orders
    # [END wait_without_worker]
