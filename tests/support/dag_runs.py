"""Lets Airflow run a DAG that a test writes: Airflow 3 runs no DAG without a file."""

from __future__ import annotations

import itertools
import runpy
from datetime import UTC, datetime, timedelta
from typing import Any

import airflow

from tests.support.airflow_home import empty_dags_folder

_LOGICAL_DATES = (datetime(2026, 5, 1, tzinfo=UTC) + timedelta(days=n) for n in itertools.count())


def run_dag(source: str) -> Any:
    """Run the DAG ``dag`` of a Python module with ``dag.test()``, and return the DAG run.

    :param source: text of the module, with ``{dag_id}`` for the id of the DAG.
    """
    logical_date = next(_LOGICAL_DATES)
    path = empty_dags_folder() / f"written_{logical_date:%m%d}.py"
    path.write_text(source.replace("{dag_id}", path.stem))
    module = runpy.run_path(str(path))
    date_argument = "execution_date" if airflow.__version__.startswith("2.") else "logical_date"
    return module["dag"].test(**{date_argument: logical_date})
