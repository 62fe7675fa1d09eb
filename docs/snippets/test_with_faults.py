"""Test what a task does when CDM fails, without waiting in real time."""

from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock


def test_a_lost_answer_starts_the_job_once(monkeypatch):
    """The run is found although CDM's answer to the start is lost."""
    clock = ManualClock()
    with CdmSimulator(clock=clock) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", simulator.connection_json)
        simulator.add_job("orders_daily", seconds=3600)
        simulator.fail("start", "drop", "after")  # the run begins, the answer does not arrive
        CdmHook("cdm_default").start_job("orders_daily", {"dt": "2026-03-02"})
        assert len(simulator.runs("orders_daily")) == 1

        clock.advance(4000)
        assert CdmHook("cdm_default").get_job_status("orders_daily").status == "SUCCEEDED"
