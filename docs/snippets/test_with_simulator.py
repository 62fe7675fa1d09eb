"""Test against the simulator, without a cloud account and without network access."""

from airflow_provider_cdm.hooks import CdmHook

pytest_plugins = ["airflow_provider_cdm.simulator.pytest_plugin"]


def test_orders_are_moved(cdm_simulator, cdm_connection):
    """The job is started with the given date."""
    cdm_simulator.add_job("orders_daily", seconds=0.2)
    run = CdmHook(cdm_connection).start_job("orders_daily", {"dt": "2026-03-02"})
    assert run.submission_id == 1
    assert cdm_simulator.runs("orders_daily")[0].variables == {"dt": "2026-03-02"}
