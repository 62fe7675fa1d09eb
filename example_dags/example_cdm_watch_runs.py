"""Run whenever a run of a CDM job has succeeded, whoever started it. Needs Airflow 3.

Needs the connection ``cdm_default`` and the job ``stock_nightly`` in its cluster, which CDM's own
scheduler starts every night.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

# Airflow 2 has no AssetWatcher, so there this file has no DAG.
if find_spec("airflow.sdk"):
    # [START howto_watch_runs]
    from airflow.sdk import DAG, Asset, AssetWatcher, task

    from airflow_provider_cdm.triggers import CdmRunEventTrigger

    runs_of_stock = CdmRunEventTrigger(job_name="stock_nightly", statuses="SUCCEEDED")
    stock = Asset(
        "cdm://warehouse/stock",
        watchers=[AssetWatcher(name="stock_nightly", trigger=runs_of_stock)],
    )

    with DAG(
        dag_id="example_cdm_watch_runs",
        schedule=[stock],
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        tags=["cdm", "example"],
    ) as dag:

        @task
        def count_stock(**context: Any) -> dict[str, int]:
            """Return how many rows each run has moved that ended since the last run of this DAG."""
            events = context["triggering_asset_events"].values()
            payloads = [event.extra["payload"] for of_asset in events for event in of_asset]
            # Delivery is at least once: an event that came twice counts once, by its number.
            return {str(run["submission_id"]): run["counters"]["ROWS_WRITTEN"] for run in payloads}

        count_stock()
    # [END howto_watch_runs]
