"""Tasks that stop, create, change and delete jobs, and that restart and wait for clusters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.operators import (
    CdmCreateJobOperator,
    CdmDeleteJobOperator,
    CdmDeleteLinkOperator,
    CdmRestartClusterOperator,
    CdmStopJobOperator,
    CdmUpdateJobOperator,
)
from airflow_provider_cdm.sensors import CdmClusterSensor

with DAG(
    "other_operators",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # Where the folder "definitions" is, if it is not next to the DAG file.
    template_searchpath="/opt/airflow/cdm",
) as dag:
    # [START stop_job]
    # Nothing may be written to the warehouse during its maintenance.
    stop = CdmStopJobOperator(task_id="stop_orders", job_name="orders_daily")
    # [END stop_job]

    # [START create_job]
    create = CdmCreateJobOperator(
        task_id="create_job",
        definition="definitions/orders_to_archive.json",
    )
    # [END create_job]

    # [START update_job]
    update = CdmUpdateJobOperator(
        task_id="update_job",
        definition="definitions/orders_to_archive.json",
    )
    # [END update_job]

    # [START delete]
    delete_job = CdmDeleteJobOperator(task_id="delete_job", job_name="orders_to_archive")
    delete_link = CdmDeleteLinkOperator(task_id="delete_link", link_name="archive")
    # CDM refuses to delete a link that jobs use, so the job goes first.
    delete_job >> delete_link
    # [END delete]

    # [START restart_cluster]
    restart = CdmRestartClusterOperator(task_id="restart_cluster", deferrable=True)
    # [END restart_cluster]

    # [START cluster_sensor]
    # The platform team starts the cluster at about six in the morning.
    wait_for_cluster = CdmClusterSensor(
        task_id="wait_for_cluster",
        state="normal",
        deferrable=True,
        poke_interval=60,
        timeout=timedelta(hours=2),
    )
    # [END cluster_sensor]
