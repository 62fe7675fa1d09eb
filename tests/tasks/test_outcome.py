"""What an ended run means for its task: thresholds, and the notice of a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm._compat import (
    HAS_RETRY_POLICY,
    AirflowFailException,
    AirflowSkipException,
)
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmRunJobOperator, CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.task_harness import TaskRunner

JOB = "orders"
TRACE = "\n".join(f"at com.huawei.cdm.Writer.line({n})" for n in range(40))
ROUTE = {
    "from": {"link": "shop", "inputs": {"schemaName": "SALES", "tableName": "ORDERS"}},
    "to": {"link": "warehouse", "inputs": {"tableName": "orders_copy"}},
}


def start(deferrable: bool) -> Callable[..., Any]:
    """Make an operator that waits."""

    def make(**arguments: Any) -> Any:
        return CdmStartJobOperator(
            task_id="t",
            job_name=JOB,
            wait_for_completion=True,
            deferrable=deferrable,
            **arguments,
        )

    return make


def sensor(mode: str, deferrable: bool = False) -> Callable[..., Any]:
    """Make a sensor for the first run."""

    def make(**arguments: Any) -> Any:
        return CdmSubmissionSensor(
            task_id="t",
            job_name=JOB,
            submission_id=1,
            mode=mode,
            deferrable=deferrable,
            **arguments,
        )

    return make


WAYS = {
    "worker": start(deferrable=False),
    "deferred": start(deferrable=True),
    "poke": sensor("poke"),
    "reschedule": sensor("reschedule"),
    "deferred sensor": sensor("poke", deferrable=True),
}
each_way = pytest.mark.parametrize("way", WAYS)


def ready(sim: CdmSimulator, way: str, **job: Any) -> Callable[..., Any]:
    """A job, started already where a sensor waits for its run; returns what makes the task."""
    sim.add_job(JOB, seconds=60, **job)
    if way not in ("worker", "deferred"):
        sim.start(JOB)
    return WAYS[way]


@each_way
def test_a_threshold_that_is_missed(way: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A success with too few rows fails the task, in every mode, and says what was demanded."""
    make = ready(sim, way, counters={"ROWS_READ": 9, "ROWS_WRITTEN": 7, "ROWS_WRITTEN_SKIPPED": 2})
    with pytest.raises(errors.CdmThresholdMissed, match="7 rows written, min_rows_written is 8"):
        task_runner.run(lambda: make(min_rows_written=8))


@each_way
def test_thresholds_that_are_met(way: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A success with the rows that were demanded is one, also by numbers out of a template."""
    make = ready(sim, way, counters={"ROWS_READ": 9, "ROWS_WRITTEN": 9, "ROWS_WRITTEN_SKIPPED": 0})
    result = task_runner.run(
        lambda: make(min_rows_written="9", max_rows_skipped="0", rows_written_equal_read=True)
    )
    assert result["status"] == "SUCCEEDED"


@each_way
def test_a_threshold_that_is_nonsense(way: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """What a template made of a threshold is checked before anything is started or waited for."""
    make = ready(sim, way)
    before = len(sim.requests)
    with pytest.raises(errors.CdmConfigError, match="min_rows_written must be a whole number"):
        task_runner.run(lambda: make(min_rows_written="None"))
    assert len(sim.requests) == before


@pytest.mark.parametrize("deferrable", [False, True])
def test_no_attempt_doubles_the_rows(
    deferrable: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A missed threshold is final: an attempt that comes all the same fails without a new run.

    Below Airflow 3.3 no attempt comes: the error says so to Airflow, and the journal is gone.
    """
    sim.add_job(JOB, counters={"ROWS_WRITTEN": 1})
    task_runner.ti.max_tries = 3
    with pytest.raises(errors.CdmThresholdMissed) as missed:
        task_runner.run(lambda: start(deferrable)(min_rows_written=2))
    if not HAS_RETRY_POLICY:
        assert isinstance(missed.value, AirflowFailException)
        return
    task_runner.retry()
    with pytest.raises(errors.CdmThresholdMissed):
        task_runner.run(lambda: start(deferrable)(min_rows_written=2))
    assert len(sim.runs(JOB)) == 1


def test_thresholds_need_somebody_who_waits() -> None:
    """A task that only starts a job sees no rows, which is said when the DAG is parsed."""
    with pytest.raises(errors.CdmConfigError, match="min_rows_written and rows_written_equal_read"):
        CdmStartJobOperator(
            task_id="t", job_name=JOB, min_rows_written=1, rows_written_equal_read=True
        )


def test_soft_fail_skips_for_a_threshold(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A sensor with soft_fail treats a missed threshold like any unwanted outcome."""
    make = ready(sim, "poke", counters={"ROWS_WRITTEN": 1})
    with pytest.raises(AirflowSkipException, match="min_rows_written is 2"):
        task_runner.run(lambda: make(min_rows_written=2, soft_fail=True))


def _config(side: str) -> dict[str, Any]:
    inputs = ROUTE[side]["inputs"]
    assert isinstance(inputs, dict)
    block = f"{side}JobConfig"
    listed = [{"name": f"{block}.{name}", "value": value} for name, value in inputs.items()]
    return {"configs": [{"name": block, "inputs": listed}]}


def _wire() -> dict[str, Any]:
    return {
        "name": JOB,
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": _config("from"),
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": _config("to"),
    }


def _says_everything(text: str) -> None:
    """Who reads it at night needs no console to understand it."""
    for part in (
        "ended FAILED: Disk full",
        "from: link 'shop' (generic-jdbc-connector), schemaName 'SALES', tableName 'ORDERS'",
        "to: link 'warehouse' (generic-jdbc-connector), tableName 'orders_copy'",
        " UTC, ended 20",
        "rows: ",
        "look at it: http://127.0.0.1:",
        "line(14)\n... 25 more lines in the CDM console",
    ):
        assert part in text
    assert "line(15)" not in text


@each_way
def test_notice(way: str, sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The error tells job, cluster, run, from where to where, when, rows, reason and link."""
    make = ready(
        sim,
        way,
        wire=_wire(),
        outcome="FAILED",
        error_summary="Disk full",
        error_details=TRACE,
    )
    with pytest.raises(errors.CdmSubmissionFailed) as failure:
        task_runner.run(make)
    assert str(failure.value).startswith(f"run 1 of job '{JOB}' in cluster {sim.cluster_id} ended")
    _says_everything(str(failure.value))


def test_notice_of_a_job_that_is_gone(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A task that deletes its job says all the same from where to where it was to move rows."""
    for link in ("shop", "warehouse"):
        sim.add_link(link, url="sqlite://")
    with pytest.raises(errors.CdmSubmissionFailed) as failure:
        task_runner.run(lambda: CdmRunJobOperator(task_id="t", definition=_wire()))
    assert "from: link 'shop' (generic-jdbc-connector), schemaName 'SALES'" in str(failure.value)
    assert not any(name.startswith(JOB) for name in sim.jobs())


def test_notice_without_the_definition(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """When CDM does not show the job, the reason of the failure is told without it."""
    sim.add_job(JOB, outcome="FAILED", error_summary="Disk full")
    sim.fail("show_job", "status", status=403, times=None)
    with pytest.raises(errors.CdmSubmissionFailed, match="ended FAILED: Disk full") as failure:
        task_runner.run(WAYS["worker"])
    assert "from:" not in str(failure.value)
    assert "look at it: http://" in str(failure.value)
