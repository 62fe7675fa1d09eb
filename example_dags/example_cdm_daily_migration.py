"""Move one day of orders with Huawei Cloud CDM, every day.

Needs the connection ``cdm_default`` and, in its cluster, a job ``orders_daily`` with the where
clause ``order_date = '${dt}'``. ``scripts/demo`` runs this DAG against the included simulator.
"""

from __future__ import annotations

# [START howto_daily_migration]
from datetime import UTC, datetime

# The same class as airflow.sdk.DAG. This import also works in Airflow 2.11.
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmStartJobOperator

with DAG(
    dag_id="example_cdm_daily_migration",
    # In Airflow 3, "@daily" is for the day that begins, of which there are no rows yet. With this
    # timetable, {{ ds }} is the day that has just ended, in Airflow 3 and 2.
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2},
    tags=["cdm", "example"],
) as dag:
    CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders_daily",
        variables={"dt": "{{ ds }}"},
        # Without the argument deferrable, [operators] default_deferrable decides whether the task
        # waits on a worker, or in the triggerer without occupying a worker slot.
        wait_for_completion=True,
        # In a backfill, several days can be due at once, but CDM runs a job only once at a time.
        if_running="wait",
    )
# [END howto_daily_migration]
