"""Test a whole DAG against the simulator. Tasks that defer wait in the process of the test."""

import runpy
from datetime import UTC, datetime

import pytest
from airflow.configuration import conf

pytest_plugins = ["airflow_provider_cdm.simulator.pytest_plugin"]

# dag.test() wants the file in Airflow's DAGs folder.
DAG_FILE = f"{conf.get('core', 'dags_folder')}/example_cdm_daily_migration.py"


@pytest.mark.usefixtures("cdm_connection")
def test_the_orders_of_the_day_are_moved(cdm_simulator):
    """The DAG starts the job once, for the date of the DAG run."""
    cdm_simulator.add_job("orders_daily", seconds=0.2)
    dag = runpy.run_path(DAG_FILE)["dag"]
    dag_run = dag.test(logical_date=datetime(2026, 3, 2, tzinfo=UTC))  # Airflow 2: execution_date
    assert dag_run.state == "success"
    assert [run.variables for run in cdm_simulator.runs("orders_daily")] == [{"dt": "2026-03-02"}]
