"""Runs a DAG for some logical dates, one after the other, as ``airflow dags test`` does for one.

``python dag_runs.py DAG_ID DATE...``, in the environment of an ``airflow`` command. Exits with
status 1 if a run has failed.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from airflow.utils.cli import get_bagged_dag


def main(dag_id: str, *dates: str) -> int:
    """Run the DAG for each date; return the exit code."""
    dag = get_bagged_dag(bundle_names=None, dag_id=dag_id)
    runs = [
        dag.test(logical_date=datetime.fromisoformat(date).replace(tzinfo=UTC)) for date in dates
    ]
    return int(any(run.state != "success" for run in runs))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
