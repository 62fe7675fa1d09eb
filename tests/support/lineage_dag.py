"""The DAG of the lineage tests, run in a separate process with OpenLineage's listener active.

The command line argument is a logical date.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import airflow
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.operators import CdmRunJobOperator, CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor

DAG_ID = "lineage_dag"


def inputs(block: str, **values: str) -> dict[str, Any]:
    """Return a block with one configuration."""
    listed = [{"name": f"{block}.{name}", "value": value} for name, value in values.items()]
    return {"configs": [{"name": block, "inputs": listed}]}


JDBC = "generic-jdbc-connector"
DEFINITION = {
    "name": "orders",
    "job_type": "NORMAL_JOB",
    "from-connector-name": JDBC,
    "from-link-name": "shop",
    "from-config-values": inputs(
        "fromJobConfig", schemaName="main", tableName="orders", columnList="id&day"
    ),
    "to-connector-name": JDBC,
    "to-link-name": "warehouse",
    "to-config-values": inputs(
        "toJobConfig", schemaName="main", tableName="orders_${land}", columnList="nr&date"
    ),
}
VARIABLES = {"land": "nl"}

with DAG(dag_id=DAG_ID, schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
    waits: dict[str, Any] = {
        "wait_for_completion": True,
        "poll_interval": 0.1,
        "variables": VARIABLES,
    }
    CdmStartJobOperator(task_id="worker", job_name="orders", deferrable=False, **waits)
    CdmStartJobOperator(task_id="deferred", job_name="orders_2", deferrable=True, **waits)
    CdmStartJobOperator(task_id="failing", job_name="failing", deferrable=False, **waits)
    CdmStartJobOperator(
        task_id="missed", job_name="orders_3", deferrable=False, min_rows_written=99, **waits
    )
    start = CdmStartJobOperator(task_id="start_only", job_name="orders_4", variables=VARIABLES)
    CdmSubmissionSensor(
        task_id="sensor", submission=start.output, poke_interval=0.1, deferrable=False
    )
    CdmRunJobOperator(
        task_id="own_job",
        definition={**DEFINITION, "name": "own"},
        variables=VARIABLES,
        deferrable=False,
        poll_interval=0.1,
    )
    CdmStartJobOperator(task_id="whole", job_name="whole", deferrable=False, **waits)
    CdmStartJobOperator(task_id="files", job_name="files", deferrable=False, **waits)
    CdmStartJobOperator(task_id="unreadable", job_name="unreadable", deferrable=False, **waits)

if __name__ == "__main__":
    when = "execution_date" if airflow.__version__.startswith("2.") else "logical_date"
    day: dict[str, Any] = {when: datetime.fromisoformat(sys.argv[1])}
    dag.test(**day)
