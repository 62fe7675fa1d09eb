"""Keep the definitions of a link and a job in files, and apply them before each run.

Needs the connection ``cdm_default``, and the connection ``archive`` with the user and password of a
database.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import (
    CdmApplyJobOperator,
    CdmApplyLinkOperator,
    CdmStartJobOperator,
)

with DAG(
    dag_id="example_cdm_jobs_as_code",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2},
    max_active_runs=1,
    tags=["cdm", "example"],
) as dag:
    # [START howto_apply]
    link = CdmApplyLinkOperator(
        task_id="apply_link",
        # Contains {{ conn.archive.password }}, which is masked and not stored with the task.
        definition="definitions/archive_link.yaml",
    )
    job = CdmApplyJobOperator(
        task_id="apply_job",
        # In the format that the CDM console exports.
        definition="definitions/orders_to_archive.json",
    )
    move = CdmStartJobOperator(
        task_id="move_orders",
        job_name="orders_to_archive",
        variables={"dt": "{{ ds }}"},
        wait_for_completion=True,
        if_running="wait",
    )
    link >> job >> move
    # [END howto_apply]
