"""Count the orders whenever new ones have arrived; see ``example_cdm_asset_driven.py``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

# [START howto_triggering_events]
from airflow.providers.common.compat.sdk import DAG, Asset, task

with DAG(
    dag_id="example_cdm_asset_report",
    schedule=[Asset("cdm://warehouse/orders")],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["cdm", "example"],
) as dag:

    @task
    def count_orders(**context: Any) -> dict[str, int]:
        """Return how many orders have arrived since the last run of this DAG."""
        # Airflow 2 uses the second name.
        triggering = context.get("triggering_asset_events") or context["triggering_dataset_events"]
        events = [event for asset_events in triggering.values() for event in asset_events]
        return {"orders": sum(event.extra["counters"]["ROWS_WRITTEN"] for event in events)}

    count_orders()
# [END howto_triggering_events]
