"""A DAG that runs when a run of the job ``watched`` ends, whoever started it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_cdm.triggers import CdmRunEventTrigger

watched = Asset(
    "cdm://watched",
    watchers=[
        AssetWatcher(
            name="watched", trigger=CdmRunEventTrigger(job_name="watched", poll_interval=2)
        )
    ],
)

with DAG("watched_run", schedule=[watched], start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:

    @task
    def report(**context: Any) -> list[int]:
        """Return the numbers of the runs that have ended."""
        events = context["triggering_asset_events"].values()
        return [event.extra["payload"]["submission_id"] for each in events for event in each]

    report()
