"""Combine this package's rules about retries with your own.

Needs Airflow 3.4, or Airflow 3.3 with ``apache-airflow-providers-common-compat`` 1.23 or later, the
connection ``cdm_default``, and the job ``orders_daily`` in its cluster.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat import sdk

# Older versions cannot combine retry policies, so there this file has no DAG.
if "ChainRetryPolicy" in sdk.__all__:
    # [START howto_retry_chain]
    from airflow.providers.common.compat.sdk import (
        DAG,
        ChainRetryPolicy,
        ExceptionRetryPolicy,
        RetryRule,
    )
    from airflow.timetables.interval import CronDataIntervalTimetable

    from airflow_provider_cdm.exceptions import CdmSubmissionFailed
    from airflow_provider_cdm.operators import CdmStartJobOperator
    from airflow_provider_cdm.retry_policy import CdmRetryPolicy

    # The first policy that decides wins; where none does, the arguments of the task count.
    retry_policy = ChainRetryPolicy(
        [
            # No retry of what only a person can correct; the delay that CDM asks for.
            CdmRetryPolicy(),
            # The source closes for an hour every night, which fails the runs of that time.
            ExceptionRetryPolicy(
                [RetryRule(CdmSubmissionFailed, retry_delay=timedelta(hours=1), reason="closed")]
            ),
        ]
    )

    with DAG(
        dag_id="example_cdm_retry_chain",
        schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        tags=["cdm", "example"],
    ) as dag:
        CdmStartJobOperator(
            task_id="move_orders",
            job_name="orders_daily",
            variables={"dt": "{{ ds }}"},
            wait_for_completion=True,
            retries=3,
            retry_delay=timedelta(minutes=1),
            retry_policy=retry_policy,
        )
    # [END howto_retry_chain]
