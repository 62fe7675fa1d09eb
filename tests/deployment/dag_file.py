"""DAGs of mapped migrations, which a JSON file of the same name describes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cdm.operators import CdmStartJobOperator

for name, tasks in json.loads(Path(__file__).with_suffix(".json").read_text()).items():
    with DAG(name, schedule=None, start_date=datetime(2025, 1, 1, tzinfo=UTC)) as dag:
        for task_id, plan in tasks.items():
            CdmStartJobOperator.partial(
                task_id=task_id,
                wait_for_completion=True,
                cdm_conn_id="cdm_quotas",
                retries=3,
                retry_delay=timedelta(seconds=1),
                **plan["arguments"],
            ).expand_kwargs(plan["instances"])
    globals()[name] = dag
