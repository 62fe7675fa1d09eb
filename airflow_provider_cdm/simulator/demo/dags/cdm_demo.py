"""DAGs for the demo of the simulator, for your own Airflow. Unpause them in the UI.

They need the connection that ``python -m airflow_provider_cdm.simulator --demo`` prints.
"""

from __future__ import annotations

# [START howto_demo]
from datetime import UTC, datetime, timedelta

# The same class as airflow.sdk.DAG. This import also works in Airflow 2.11.
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmStartJobOperator

# Moves the orders of three days, and of no others: one DAG run for each day.
with DAG(
    dag_id="cdm_demo_daily",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 3, 2, tzinfo=UTC),
    end_date=datetime(2026, 3, 4, tzinfo=UTC),
    catchup=True,
    max_active_runs=1,
    tags=["cdm", "demo"],
) as daily:
    CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders_daily",
        variables={"dt": "{{ ds }}"},  # replaces ${dt} in the job, for this run only
        wait_for_completion=True,
        deferrable=True,  # wait in the triggerer, without occupying a worker slot
        retries=2,  # after a killed worker, a retry finds the run that goes on
    )
# [END howto_demo]

# Three kinds of jobs; trigger it whenever you like. The DAG run fails, since one job does.
with DAG(
    dag_id="cdm_demo_by_hand",
    schedule=None,
    start_date=datetime(2026, 3, 1, tzinfo=UTC),
    tags=["cdm", "demo"],
) as by_hand:
    # All tables of a database; the log and the result list them.
    CdmStartJobOperator(
        task_id="move_shop",
        job_name="shop_nightly",
        wait_for_completion=True,
        deferrable=True,
    )
    # Three minutes: mark the task as failed, or clear it, and see what becomes of the run.
    CdmStartJobOperator(
        task_id="move_history",
        job_name="orders_history",
        wait_for_completion=True,
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=10),
    )
    # The target rejects some rows; the log says why.
    CdmStartJobOperator(
        task_id="fail",
        job_name="ledger_daily",
        variables={"dt": "2026-03-02"},
        wait_for_completion=True,
        deferrable=True,
    )
