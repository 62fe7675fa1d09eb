"""Move a list of tables, a few at a time, with one mapped task that creates a job for each table.

Needs the connection ``cdm_default`` and the links ``shop`` and ``warehouse`` in its cluster.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_cdm.operators import CdmRunJobOperator

# This could also be the output of a task that reads the list.
TABLES = ["orders", "customers", "products"]

with DAG(
    dag_id="example_cdm_list_of_tables",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2},
    max_active_runs=1,
    tags=["cdm", "example"],
) as dag:
    # [START howto_list_of_tables]
    CdmRunJobOperator.partial(
        task_id="move_table",
        definition="definitions/a_table.yaml",
        max_active_tis_per_dagrun=4,
        map_index_template="{{ task.variables.table }}",
    ).expand(variables=[{"table": table} for table in TABLES])
    # [END howto_list_of_tables]
