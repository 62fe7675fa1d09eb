"""The DAG of ``test_assets``: tasks of all kinds, each with its own asset as outlet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias

from airflow_provider_cdm._compat import HAS_PARTITIONS
from airflow_provider_cdm.operators import CdmRunJobOperator, CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor

DAG_ID = "asset_dag"
COUNTRIES = ("at", "be", "nl")
PREFIX = "cdm://warehouse/"


def task_arguments(name: str) -> dict[str, Any]:
    """Return the arguments of a task whose outlet is the asset of this name."""
    return {"task_id": name, "outlets": [Asset(PREFIX + name)], "deferrable": False}


# [START alias]
def name_the_asset(context: Any, result: dict[str, Any]) -> None:
    """Choose the asset that the alias stands for in this run, and attach the row count."""
    asset = Asset(f"{PREFIX}alias_of_{result['job_name']}")
    # Use plain values only. With other values, Airflow 2 fails after the task.
    extra = {"rows": result["counters"]["ROWS_WRITTEN"]}
    context["outlet_events"][AssetAlias("arrived")].add(asset, extra=extra)


# [END alias]

with DAG(dag_id=DAG_ID, schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
    waits: dict[str, Any] = {"wait_for_completion": True, "poll_interval": 0.1}
    CdmStartJobOperator(**task_arguments("worker"), job_name="worker", **waits)
    CdmStartJobOperator(
        **task_arguments("deferred") | {"deferrable": True}, job_name="deferred", **waits
    )
    CdmStartJobOperator(**task_arguments("failing"), job_name="failing", **waits)
    CdmStartJobOperator(**task_arguments("missed"), job_name="missed", min_rows_written=99, **waits)
    start = CdmStartJobOperator(**task_arguments("start_only"), job_name="started")
    CdmSubmissionSensor(**task_arguments("sensor"), submission=start.output, poke_interval=0.1)
    CdmSubmissionSensor(
        **task_arguments("deferred_sensor") | {"deferrable": True},
        submission=start.output,
        poke_interval=0.1,
    )
    CdmStartJobOperator.partial(
        **task_arguments("mapped"),
        job_name="mapped",
        if_running="wait",
        max_active_tis_per_dag=1,
        **waits,
    ).expand(variables=[{"country": country} for country in COUNTRIES])
    CdmRunJobOperator(
        **task_arguments("own_job"),
        definition={
            "name": "own",
            "from-connector-name": "hive-connector",
            "from-link-name": "source",
            "from-config-values": {"configs": []},
            "to-connector-name": "hive-connector",
            "to-link-name": "target",
            "to-config-values": {"configs": []},
        },
        poll_interval=0.1,
    )
    if HAS_PARTITIONS:
        day: dict[str, Any] = {"partition_key": "{{ 'day ' ~ dag.dag_id }}"}
        CdmStartJobOperator(**task_arguments("filled"), job_name="filled", **waits, **day)
        CdmSubmissionSensor(
            **task_arguments("filled_sensor"), submission=start.output, poke_interval=0.1, **day
        )
    CdmStartJobOperator(**task_arguments("whole"), job_name="whole", **waits)
    CdmStartJobOperator(
        task_id="alias",
        job_name="worker_2",
        deferrable=False,
        outlets=[AssetAlias("arrived")],
        post_execute=name_the_asset,
        **waits,
    )
