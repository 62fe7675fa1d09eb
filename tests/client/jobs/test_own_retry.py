"""Variables for a job that CDM itself would run again."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client.api.definitions import JOB
from airflow_provider_cdm.client.jobs.own_retry import own_retry_problem
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import MakeSession

NAME = "retryJobConfig.retryJobType"


def job(*inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a job with some inputs of its driver."""
    configs = [{"name": "retryJobConfig", "inputs": list(inputs)}]
    return {"name": "orders", "driver-config-values": {"configs": configs}}


def test_the_problem_and_what_to_do() -> None:
    """The text names the job, the setting, the variables, the reason, and what to do."""
    problem = own_retry_problem(job({"name": NAME, "value": "RETRY_TRIPLE"}), {"dt": "1", "a": "2"})
    assert problem == (
        "Job 'orders' has a retry of its own (retryJobConfig.retryJobType is 'RETRY_TRIPLE') and"
        " gets variables (a, dt). CDM's user guide rules that out: CDM may repeat a failed run"
        " without them. Set retryJobConfig.retryJobType to NONE, and let the task retry instead."
    )
    many = own_retry_problem(
        job({"name": NAME, "value": "RETRY_TRIPLE"}), [f"v{n:02}" for n in range(25)]
    )
    assert "v19 and 5 more)" in str(many)


@pytest.mark.parametrize(
    ("value", "retries"),
    [("RETRY_TRIPLE", True), ("retry_triple", True), ("RETRY%5FTRIPLE", True), ("RETRY_TEN", True),
     ("NONE", False), ("none", False), ("", False), (None, False), ([], False)],
)  # fmt: skip
def test_settings(value: Any, retries: bool) -> None:
    """Any retry but NONE counts, in each form in which CDM may show it."""
    definition = job({"name": NAME, "value": value})
    assert (own_retry_problem(definition, ["dt"]) is not None) is retries
    assert own_retry_problem(definition, []) is None


@pytest.mark.parametrize("definition", [{}, job(), job({"name": "x.y", "value": "RETRY_TRIPLE"})])
def test_without_the_setting(definition: dict[str, Any]) -> None:
    """A job without the setting is not repeated."""
    assert own_retry_problem(definition, ["dt"]) is None


@pytest.mark.parametrize("config", [{"behaviour": {"encode_values": True, "default_inputs": True}}])
def test_a_job_as_cdm_shows_it(sim: CdmSimulator, make_session: MakeSession) -> None:
    """The setting is read from what CDM shows, and its default is no retry."""
    session = make_session()
    sim.add_job("plain")
    wire = job({"name": NAME, "value": "RETRY_TRIPLE"})
    wire |= {"from-link-name": "a", "to-link-name": "b"}
    sim.add_job("retried", wire=wire)
    found = [session.run(session.api.find(JOB, sim.cluster_id, n)) for n in ("plain", "retried")]
    assert [own_retry_problem(each or {}, ["dt"]) is not None for each in found] == [False, True]
