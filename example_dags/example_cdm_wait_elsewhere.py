"""Wait for a run that another DAG has started.

``example_cdm_daily_migration`` starts ``orders_daily`` when a day has ended. This DAG has the same
schedule, waits for that run, and then reports the number of orders.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.sensors import CdmSubmissionSensor

with DAG(
    dag_id="example_cdm_wait_elsewhere",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2},
    tags=["cdm", "example"],
) as dag:
    # [START howto_wait_elsewhere]
    # Waits for the first run since the day ended, whoever started it. Runs of earlier days do not
    # count.
    wait_for_orders = CdmSubmissionSensor(
        task_id="wait_for_orders",
        job_name="orders_daily",
        started_after="{{ data_interval_end }}",
        deferrable=True,
        poke_interval=60,
        timeout=timedelta(hours=6),
    )

    @task
    def report(result: Any) -> str:
        """Return how many orders have arrived."""
        return f"{result['counters']['ROWS_WRITTEN']} orders"

    report(wait_for_orders.output)
    # [END howto_wait_elsewhere]
