"""Sensors that begin in the triggerer, in a pool without slots, and one that begins on a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset

from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor

WAIT: dict[str, Any] = {"poke_interval": 2, "timeout": 600, "pool": "closed"}
START = WAIT | {"start_from_trigger": True}
#: What templates may use, each rendered to an empty text.
EXPRESSIONS = (
    *("conn.cdm_default.host", "dag.dag_id", "dag_run.run_id", "data_interval_end"),
    *("data_interval_start", "ds", "ds_nodash", "logical_date", "macros.ds_add(ds, 1)"),
    *("params.day", "partition_key", "run_id", "task.task_id", "task_instance.task_id"),
    *("task_instance_key_str", "ti.try_number", "ti.map_index", "ts", "ts_nodash"),
    *("ts_nodash_with_tz", "var.value.day", "logical_date | ds_nodash"),
    "ti.xcom_pull('start', map_indexes=[-1])",
)


def note_stall(context: Any) -> None:
    """Keep what a stall is reported with."""
    context["ti"].xcom_push(key="stalled", value=str(context["exception"]))


#: The test starts these first.
FAILED, STALLED, ENDLESS = 1, 2, 3

with DAG(
    "trigger_start",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    params={"day": "2025-01-02"},
    default_args={"retries": 1, "retry_delay": timedelta(seconds=1)},
) as dag:
    start = CdmStartJobOperator(task_id="start", job_name="pulled", deferrable=False)
    pull = "ti.xcom_pull(task_ids='start', map_indexes=-1)"
    start >> CdmSubmissionSensor(
        task_id="pulled",
        job_name="pulled",
        submission_id=f"{{{{ {pull}['submission_id'] }}}}",
        **START,
    )
    start >> CdmSubmissionSensor(
        task_id="mapping",
        submission={
            "job_name": "pulled",
            "creation_date": f"{{{{ {pull}['creation_date'] }}}}",
        },
        **START,
    )
    start >> CdmSubmissionSensor(
        task_id="expressions",
        job_name="pulled" + "".join(f"{{{{ ({each} | string)[:0] }}}}" for each in EXPRESSIONS),
        submission_id=f"{{{{ {pull}['submission_id'] }}}}",
        **START,
    )
    CdmSubmissionSensor(
        task_id="first",
        job_name="first",
        started_after="{{ dag_run.start_date }}",
        outlets=[Asset("cdm://first")],
        **START,
    )
    CdmSubmissionSensor(
        task_id="failed", job_name="failed", submission_id=FAILED, retries=1, **START
    )
    CdmSubmissionSensor(
        task_id="skipped", job_name="failed", submission_id=FAILED, soft_fail=True, **START
    )
    CdmSubmissionSensor(
        task_id="limited",
        job_name="endless",
        submission_id=ENDLESS,
        execution_timeout=timedelta(seconds=20),
        **START | {"retries": 0},
    )
    CdmSubmissionSensor(
        task_id="unconnected", job_name="x", submission_id=1, cdm_conn_id="no_such", **START
    )
    CdmSubmissionSensor(
        task_id="nothing", job_name="x", submission_id="{{ dag_run.conf.get('number') }}", **START
    )
    CdmSubmissionSensor(task_id="unnamed", job_name="x", **START)
    # Rendered once, to a name that is no template any more; it must not be rendered again.
    CdmSubmissionSensor(
        task_id="stalled",
        job_name="odd {{ '{{' }}",
        submission_id=STALLED,
        stalled_after=4,
        on_stalled=note_stall,
        **START,
    )
    CdmSubmissionSensor(
        task_id="late", job_name="endless", submission_id=ENDLESS, **START | {"timeout": 10}
    )
    CdmSubmissionSensor(
        task_id="on_worker", job_name="failed", submission_id=FAILED, deferrable=True, **WAIT
    )
