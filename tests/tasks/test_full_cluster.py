"""A run that waits because its cluster is full."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.task_harness import TaskRunner

#: What a person has to know.
SETTING = "Maximum Concurrent Extractors"
each_status = pytest.mark.parametrize("shown", ["PENDING", "RUNNING"])


@pytest.fixture
def config(shown: str) -> dict[str, Any]:
    """Return the configuration of a simulator with a cluster for one extractor."""
    jobs = [{"name": "long", "seconds": 5000}, {"name": "short", "seconds": 60}]
    clusters = [{"name": "demo", "max_extractors": 1, "jobs": jobs}]
    return {"behaviour": {"full_cluster": shown}, "clusters": clusters}


def start(**arguments: Any) -> CdmStartJobOperator:
    """Make a task that waits for the short job."""
    return CdmStartJobOperator(task_id="t", job_name="short", **arguments)


@pytest.mark.long
@each_status
@pytest.mark.parametrize("deferrable", [False, True])
def test_stall_in_a_full_cluster_names_cause_and_setting(
    deferrable: bool,
    shown: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """The warning names the full cluster and the setting, and the run succeeds when it has room."""
    sim.start("long")
    result = task_runner.run(
        lambda: start(wait_for_completion=True, deferrable=deferrable, stalled_after=600)
    )
    assert result["status"] == "SUCCEEDED"
    found = [r.getMessage() for r in task_log.records if "nothing has changed" in r.getMessage()]
    assert found
    assert all(f"is {shown}" in line and SETTING in line for line in found)
    first, second = sim.runs("long")[0], sim.runs("short")[0]
    assert second.executed is not None
    assert first.updated <= second.executed


@each_status
def test_error_of_a_stall_says_the_same(
    shown: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """With ``fail_when_stalled``, the error names the cause as well."""
    sim.start("long")
    with pytest.raises(errors.CdmStalled, match=SETTING):
        task_runner.run(lambda: start(deferrable=True, stalled_after=600, fail_when_stalled=True))


@pytest.mark.parametrize("shown", ["PENDING"])
def test_stall_of_a_run_with_rows_has_another_cause(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """A run that has moved rows does not wait for room."""
    sim.add_job("short", statuses=["RUNNING"])
    seen = {"status": "RUNNING", "submission-id": 1, "job-name": "short", "write_rows": 7}
    sim.fail("status", "body", body={"submissions": [seen]}, times=None)
    with pytest.raises(errors.CdmStalled, match="It may hang") as stall:
        task_runner.run(lambda: start(deferrable=True, stalled_after=600, fail_when_stalled=True))
    assert SETTING not in str(stall.value)
