"""What the end of a run means for its task: thresholds and failure reports."""

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
STACK_TRACE = "\n".join(f"at com.huawei.cdm.Writer.line({n})" for n in range(40))
ENDPOINTS = {
    "from": {"link": "shop", "inputs": {"schemaName": "SALES", "tableName": "ORDERS"}},
    "to": {"link": "warehouse", "inputs": {"tableName": "orders_copy"}},
}


def start_operator(deferrable: bool) -> Callable[..., Any]:
    """Return a function that makes an operator that waits for its run."""

    def make_task(**arguments: Any) -> Any:
        return CdmStartJobOperator(
            task_id="t",
            job_name=JOB,
            wait_for_completion=True,
            deferrable=deferrable,
            **arguments,
        )

    return make_task


def sensor_for_first_run(mode: str, deferrable: bool = False) -> Callable[..., Any]:
    """Return a function that makes a sensor for run 1 of the job."""

    def make_task(**arguments: Any) -> Any:
        return CdmSubmissionSensor(
            task_id="t",
            job_name=JOB,
            submission_id=1,
            mode=mode,
            deferrable=deferrable,
            **arguments,
        )

    return make_task


WAITERS = {
    "worker": start_operator(deferrable=False),
    "deferred": start_operator(deferrable=True),
    "poke": sensor_for_first_run("poke"),
    "reschedule": sensor_for_first_run("reschedule"),
    "deferred sensor": sensor_for_first_run("poke", deferrable=True),
}
each_waiter = pytest.mark.parametrize("waiter", WAITERS)


def add_job(sim: CdmSimulator, waiter: str, **job: Any) -> Callable[..., Any]:
    """Add a job, start it if a sensor waits for its run, and return the function that makes the
    task.
    """
    sim.add_job(JOB, seconds=60, **job)
    if waiter not in ("worker", "deferred"):
        sim.start(JOB)
    return WAITERS[waiter]


@each_waiter
def test_missed_threshold_fails_the_task(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """In every mode a successful run with too few rows fails the task, and the error names the
    threshold.
    """
    make_task = add_job(
        sim, waiter, counters={"ROWS_READ": 9, "ROWS_WRITTEN": 7, "ROWS_WRITTEN_SKIPPED": 2}
    )
    with pytest.raises(errors.CdmThresholdMissed, match="7 rows written, min_rows_written is 8"):
        task_runner.run(lambda: make_task(min_rows_written=8))


@each_waiter
def test_met_thresholds_let_the_task_succeed(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A run that meets the thresholds is a success, also when templates rendered them as text."""
    make_task = add_job(
        sim, waiter, counters={"ROWS_READ": 9, "ROWS_WRITTEN": 9, "ROWS_WRITTEN_SKIPPED": 0}
    )
    result = task_runner.run(
        lambda: make_task(min_rows_written="9", max_rows_skipped="0", rows_written_equal_read=True)
    )
    assert result["status"] == "SUCCEEDED"


@each_waiter
def test_invalid_threshold_is_refused_before_anything_is_sent(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A rendered threshold is checked before anything is started or waited for."""
    make_task = add_job(sim, waiter)
    requests_before = len(sim.requests)
    with pytest.raises(errors.CdmConfigError, match="min_rows_written must be an integer"):
        task_runner.run(lambda: make_task(min_rows_written="None"))
    assert len(sim.requests) == requests_before


@each_waiter
@pytest.mark.parametrize("name", ["min_rows_written", "max_rows_skipped"])
@pytest.mark.parametrize("rendered", ["", " \n", "None", None])
def test_threshold_that_renders_to_nothing_is_refused(
    rendered: str | None, name: str, waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A threshold whose template renders to nothing, also natively, is an error that names it,
    before anything is started or waited for.
    """
    make_task = add_job(sim, waiter)
    requests_before = len(sim.requests)

    def make_rendered_task() -> Any:
        task = make_task(**{name: "{{ params.limit }}"})
        setattr(task, name, rendered)
        return task

    with pytest.raises(errors.CdmConfigError, match=f"{name} .*its template rendered to nothing"):
        task_runner.run(make_rendered_task)
    assert len(sim.requests) == requests_before


@each_waiter
@pytest.mark.parametrize("name", ["min_rows_written", "max_rows_skipped"])
def test_zero_is_a_threshold(
    name: str, waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A threshold of 0 is compared like any other: a row that was skipped, and an unknown number of
    rows, miss it.
    """
    make_task = add_job(sim, waiter, counters={"ROWS_WRITTEN": -1, "ROWS_WRITTEN_SKIPPED": 1})
    with pytest.raises(errors.CdmThresholdMissed, match=f"{name} is 0"):
        task_runner.run(lambda: make_task(**{name: 0}))


def test_variables_that_render_to_nothing_are_refused(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Variables that a native template or another task leaves out are an error."""
    make_task = add_job(sim, "worker")

    def make_rendered_task() -> Any:
        task = make_task(variables={"dt": "{{ ds }}"})
        task.variables = None
        return task

    with pytest.raises(errors.CdmConfigError, match="variables was given, but its template"):
        task_runner.run(make_rendered_task)
    assert sim.requests == []


@pytest.mark.parametrize("deferrable", [False, True])
def test_missed_threshold_is_not_retried_with_a_new_run(
    deferrable: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A missed threshold is final, so a further attempt fails without a new run.

    Below Airflow 3.3 the error prevents the further attempt, but a user's code may make one.
    """
    sim.add_job(JOB, counters={"ROWS_WRITTEN": 1})
    task_runner.ti.max_tries = 3
    with pytest.raises(errors.CdmThresholdMissed) as raised:
        task_runner.run(lambda: start_operator(deferrable)(min_rows_written=2))
    if not HAS_RETRY_POLICY:
        assert isinstance(raised.value, AirflowFailException)
    task_runner.retry()
    with pytest.raises(errors.CdmThresholdMissed):
        task_runner.run(lambda: start_operator(deferrable)(min_rows_written=2))
    assert len(sim.runs(JOB)) == 1


def test_thresholds_without_waiting_are_refused() -> None:
    """Thresholds on a task that does not wait are refused when the DAG is parsed."""
    with pytest.raises(errors.CdmConfigError, match="min_rows_written and rows_written_equal_read"):
        CdmStartJobOperator(
            task_id="t", job_name=JOB, min_rows_written=1, rows_written_equal_read=True
        )


@pytest.mark.parametrize("name", ["min_rows_written", "max_rows_skipped"])
@pytest.mark.parametrize("limit", [0, "0", "{{ params.limit }}"])
def test_zero_without_waiting_is_refused(name: str, limit: Any) -> None:
    """A threshold of 0 is refused on a task that does not wait, as any other number is."""
    with pytest.raises(errors.CdmConfigError, match=f"{name}: only a task that waits"):
        CdmStartJobOperator(task_id="t", job_name=JOB, **{name: limit})


def test_missed_threshold_skips_a_sensor_with_soft_fail(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A missed threshold skips a sensor with ``soft_fail``, as a failed run does."""
    make_task = add_job(sim, "poke", counters={"ROWS_WRITTEN": 1})
    with pytest.raises(AirflowSkipException, match="min_rows_written is 2"):
        task_runner.run(lambda: make_task(min_rows_written=2, soft_fail=True))


def _config_values(side: str) -> dict[str, Any]:
    inputs = ENDPOINTS[side]["inputs"]
    assert isinstance(inputs, dict)
    block = f"{side}JobConfig"
    entries = [{"name": f"{block}.{name}", "value": value} for name, value in inputs.items()]
    return {"configs": [{"name": block, "inputs": entries}]}


def _definition() -> dict[str, Any]:
    return {
        "name": JOB,
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": _config_values("from"),
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": _config_values("to"),
    }


def _assert_report_is_complete(text: str) -> None:
    """Assert that the report explains the failure without a look into the CDM console."""
    for part in (
        f"run: run 1 of job '{JOB}', cluster ",
        "from: link 'shop' (generic-jdbc-connector), schemaName 'SALES', tableName 'ORDERS'",
        "to: link 'warehouse' (generic-jdbc-connector), tableName 'orders_copy'",
        " UTC to 20",
        "rows: ",
        "see: http://127.0.0.1:",
        "line(7)\n... 32 more lines in the CDM console",
    ):
        assert part in text
    assert "line(8)" not in text


@each_waiter
def test_failure_report_is_complete_in_every_mode(
    waiter: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The error names job, cluster, run, endpoints, times, rows, reason and link."""
    make_task = add_job(
        sim,
        waiter,
        wire=_definition(),
        outcome="FAILED",
        error_summary="Disk full",
        error_details=STACK_TRACE,
    )
    with pytest.raises(errors.CdmSubmissionFailed) as failure:
        task_runner.run(make_task)
    first, *_, last = str(failure.value).splitlines()
    assert first == "Disk full"
    assert last.startswith("Run 1: FAILED, 0 rows written, took ")
    assert str(failure.value).count(sim.cluster_id) == 2  # once as such, once in the link
    _assert_report_is_complete(str(failure.value))


def test_failure_report_of_a_deleted_job_names_its_endpoints(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The error names the endpoints of the job even when the task has deleted the job."""
    for link in ("shop", "warehouse"):
        sim.add_link(link, url="sqlite://")
    with pytest.raises(errors.CdmSubmissionFailed) as failure:
        task_runner.run(lambda: CdmRunJobOperator(task_id="t", definition=_definition()))
    assert "from: link 'shop' (generic-jdbc-connector), schemaName 'SALES'" in str(failure.value)
    assert not any(name.startswith(JOB) for name in sim.jobs())


def test_failure_report_without_the_definition_names_the_reason(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """When CDM does not show the job, the error still names the reason of the failure."""
    sim.add_job(JOB, outcome="FAILED", error_summary="Disk full")
    sim.fail("show_job", "status", status=403, times=None)
    with pytest.raises(errors.CdmSubmissionFailed, match=r"^Disk full\n") as failure:
        task_runner.run(WAITERS["worker"])
    assert "from:" not in str(failure.value)
    assert "see: http://" in str(failure.value)
