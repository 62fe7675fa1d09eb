"""Use the hook in ``@task`` functions."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdm.hooks import CdmHook

with DAG("hook_in_task", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
    # [START hook]
    @task
    def last_run(job_name: str) -> dict:
        """Return the latest run of a job, whether Airflow started it or not."""
        return CdmHook().get_job_status(job_name).to_dict()

    @task
    def rows_of_a_week(job_name: str) -> int:
        """Return the number of rows that the latest seven runs of a job wrote."""
        runs = CdmHook().list_submissions(job_name)[:7]
        return sum(run.counters.get("ROWS_WRITTEN", 0) for run in runs)

    last_run("orders_daily")
    rows_of_a_week("orders_daily")
    # [END hook]
