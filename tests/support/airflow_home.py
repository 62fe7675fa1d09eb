"""The Airflow of the tests: a temporary home with a SQLite database.

Airflow reads its configuration when it is first imported, so import this module before Airflow.
"""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="cdm-tests-"))
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)
os.environ |= {
    "AIRFLOW_HOME": str(AIRFLOW_HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(AIRFLOW_HOME / "dags"),
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{AIRFLOW_HOME}/airflow.db",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
}
for variable in ("AIRFLOW_CONN_CDM_DEFAULT", "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"):
    os.environ.pop(variable, None)


def empty_dags_folder() -> Path:
    """Return the DAGs folder without the DAGs of other tests, which ``dag.test()`` would read."""
    folder = AIRFLOW_HOME / "dags"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def register_assets(dag: Any) -> None:
    """Write the assets of a DAG to the database; from Airflow 3.1 on ``dag.test()`` does it."""
    if hasattr(dag, "sync_to_db"):  # Airflow 2
        dag.sync_to_db()
    elif version("apache-airflow").startswith("3.0."):
        serializer = importlib.import_module(
            "airflow.serialization.serialized_objects"
        ).SerializedDAG
        serialized_dag = serializer.deserialize_dag(serializer.serialize_dag(dag))
        serialized_dag.bulk_write_to_db(None, None, [serialized_dag])
