"""Move one day of orders with Huawei Cloud CDM, every day.

Needs the connection ``cdm_default``, and in its cluster a job ``orders_daily`` whose condition is
``order_date = '${dt}'``. ``scripts/demo`` runs this file against the simulator that comes along.
"""

from __future__ import annotations

# [START howto_daily_migration]
from datetime import UTC, datetime

# The same class as airflow.sdk.DAG; this way of importing it works on Airflow 2.11 as well.
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmStartJobOperator

with DAG(
    dag_id="example_cdm_daily_migration",
    # Airflow 2 and 3 read a bare "@daily" differently; here {{ ds }} is the day that is over.
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
        # Where nothing else is said, [operators] default_deferrable decides who waits: a worker,
        # or the triggerer, which takes no worker slot.
        wait_for_completion=True,
        # A backfill may come to two days at once; CDM runs a job once at a time.
        if_running="wait",
    )
# [END howto_daily_migration]
