"""Pass the day whose rows a DAG run moves: in a time zone, and when a run is triggered by hand."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmStartJobOperator

# [START dates]
with DAG(
    dag_id="orders_of_a_day_in_shanghai",
    # Starts at midnight in Shanghai, for the day that has just ended there.
    schedule=CronDataIntervalTimetable("@daily", timezone="Asia/Shanghai"),
    start_date=pendulum.datetime(2026, 1, 1, tz="Asia/Shanghai"),
    catchup=False,
    default_args={"retries": 2},
) as dag:
    CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders_daily",
        # 16:00 UTC of the day before is midnight in Shanghai: {{ ds }} would be the day before.
        variables={"dt": "{{ data_interval_start.in_timezone(dag.timezone) | ds }}"},
        wait_for_completion=True,
        deferrable=True,
    )
# [END dates]

with DAG(
    dag_id="orders_by_hand",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
) as by_hand:
    # [START by_hand]
    CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders_daily",
        # airflow dags trigger orders_by_hand --conf '{"dt": "2026-03-02"}'
        variables={"dt": "{{ dag_run.conf.get('dt') }}"},
        wait_for_completion=True,
        deferrable=True,
    )
    # [END by_hand]
