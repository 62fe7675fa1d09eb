"""Metrics: what is sent through Airflow's own statistics, in the names that the docs list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm import metrics as module
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.routes import route_of
from airflow_provider_cdm.client.sansio import Request
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.metrics import MODULES, Metrics, install
from tests.support.task_harness import TaskRunner

JOB = "orders"
MODES = {"worker": False, "deferred": True}
each_mode = pytest.mark.parametrize("deferrable", MODES.values(), ids=MODES)


PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
DOCUMENTED = {
    re.escape(name).replace("<route>", "[a-z_]+")
    for name in re.findall(r"^\| `(cdm\.[\w.<>]+)`", PAGE, re.MULTILINE)
}


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    """Return what Airflow sends; every name must be on the page about metrics."""
    collected = Metrics()
    install(collected, monkeypatch)
    yield collected
    for _, name, _, _ in collected.sent:
        assert any(re.fullmatch(pattern, name) for pattern in DOCUMENTED), name


def operator(deferrable: bool = False, **arguments: Any) -> CdmStartJobOperator:
    """Make an operator that waits."""
    return CdmStartJobOperator(
        task_id="t",
        job_name=JOB,
        wait_for_completion=True,
        deferrable=deferrable,
        poll_interval=5,
        **arguments,
    )


@each_mode
def test_a_run(
    deferrable: bool, sim: CdmSimulator, task_runner: TaskRunner, metrics: Metrics
) -> None:
    """A run is counted by its verdict, with duration, rows, and the delay until it was noticed."""
    sim.add_job(JOB, seconds=62, counters={"ROWS_READ": 7, "ROWS_WRITTEN": 6})
    task_runner.run(lambda: operator(deferrable))
    assert metrics.counts("cdm.start.") == {"new": 1}
    assert metrics.counts("cdm.run.") == {"succeeded": 1, "rows_read": 7, "rows_written": 6}
    assert metrics.values("cdm.run.duration") == [pytest.approx(62_000, abs=100)]
    (delay,) = metrics.values("cdm.wait.notice_delay")
    assert 0 <= delay <= 6_500
    tags = {"cluster_id": sim.cluster_id, "dag_id": "a_dag", "task_id": "a_task"}
    assert metrics.tags("cdm.run.succeeded") == tags
    assert metrics.values("cdm.waits") == ([1, 0] if deferrable else [])


@pytest.mark.parametrize(
    ("job", "thresholds", "verdict"),
    [
        ({"outcome": "FAILED"}, {}, "failed"),
        ({"counters": {"ROWS_WRITTEN": 1}}, {"min_rows_written": 2}, "threshold_missed"),
        ({"disappears": True}, {}, "unknown"),
    ],
)
@each_mode
def test_verdicts(
    deferrable: bool,
    job: dict[str, Any],
    thresholds: dict[str, Any],
    verdict: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    metrics: Metrics,
) -> None:
    """Each verdict has a counter of its own."""
    if "disappears" in job:
        sim.add_job(JOB, seconds=10)
        sim.fail("status", "body", body={"submissions": []}, times=None)
    else:
        sim.add_job(JOB, seconds=10, **job)
    with pytest.raises(errors.CdmError):
        task_runner.run(lambda: operator(deferrable, **thresholds))
    counted = set(metrics.counts("cdm.run."))
    assert counted & {"succeeded", "failed", "unknown", "threshold_missed"} == {verdict}


def test_starts(sim: CdmSimulator, task_runner: TaskRunner, metrics: Metrics) -> None:
    """A start is counted by what became of it."""
    sim.add_job(JOB, seconds=60)
    sim.fail("start", "drop", "after")
    task_runner.run(lambda: operator(wait_timeout=None))
    assert metrics.counts("cdm.start.") == {"found": 1}
    sim.start(JOB)
    task_runner.another_task().run(lambda: operator(if_running="attach"))
    assert metrics.counts("cdm.start.") == {"found": 1, "attached": 1}
    sim.fail("start", "drop", times=None)
    with pytest.raises(errors.CdmStartUncertain):
        task_runner.another_task().run(operator)
    assert metrics.counts("cdm.start.") == {"found": 1, "attached": 1, "uncertain": 1}


def test_a_sensor(
    sim: CdmSimulator, task_runner: TaskRunner, metrics: Metrics, clock: ManualClock
) -> None:
    """A sensor counts the run it waited for; for one that had ended before there is no delay."""
    sim.add_job(JOB, seconds=60)
    sim.start(JOB)

    def make_task() -> CdmSubmissionSensor:
        return CdmSubmissionSensor(
            task_id="t", job_name=JOB, submission_id=1, mode="reschedule", poke_interval=10
        )

    task_runner.run(make_task)
    assert metrics.counts("cdm.run.")["succeeded"] == 1
    assert len(metrics.values("cdm.wait.notice_delay")) == 1
    clock.advance(1000)
    task_runner.another_task().run(make_task)
    assert len(metrics.values("cdm.wait.notice_delay")) == 1
    assert metrics.counts("cdm.start.") == {}


def test_calls(sim: CdmSimulator, cdm_default: Any, metrics: Metrics) -> None:
    """Calls are counted by route, with those that were throttled and those that failed."""
    sim.add_job(JOB)
    sim.fail("status", "status", status=429, times=2)
    sim.fail("submissions", "drop")
    hook = CdmHook(cluster_id=sim.cluster_id)
    hook.get_job_status(JOB)
    hook.list_submissions(JOB)
    assert metrics.counts("cdm.call.") == {
        "token": 1,
        "status": 3,
        "status.throttled": 2,
        "history": 2,
        "history.failed": 1,
    }


@pytest.mark.parametrize("name", MODULES)
def test_task_and_triggerer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics of a task and those of a triggerer go where this process has set Airflow up to
    send them.
    """
    collected = Metrics()
    install(collected, monkeypatch, name)
    module.show_waits(3, "c")
    assert collected.values("cdm.waits") == [3]


def test_a_metric_never_fails_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while a metric is sent, the task goes on."""
    monkeypatch.setattr(module, "stats_client", lambda: 1 / 0)
    module.show_waits(3, "c")


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("https://iam/v3/auth/tokens?nocatalog=true", "token"),
        ("https://iam/v3/projects?name=x", "projects"),
        ("https://cdm/p/v1.1/1/clusters", "clusters"),
        ("https://cdm/v1.1/1/clusters/c", "cluster"),
        ("https://cdm/v1.1/1/clusters/c/action", "cluster_action"),
        ("https://cdm/v1.1/1/clusters/c/cdm/job", "job"),
        ("https://cdm/v1.1/1/clusters/c/cdm/job/start", "job"),
        ("https://cdm/v1.1/1/clusters/c/cdm/job/a%2Fstart", "job"),
        ("https://cdm/v1.1/1/clusters/c/cdm/job/all?page_no=1", "job_list"),
        ("https://cdm/v1.1/1/clusters/c/cdm/job/status/start", "start"),
        ("https://cdm/v1.1/1/clusters/c/cdm/job/j/stop", "stop"),
        ("https://cdm/v1.1/1/clusters/c/cdm/job/j/status", "status"),
        ("https://cdm/v1.1/1/clusters/c/cdm/submissions?jname=j", "history"),
        ("https://cdm/v1.1/1/clusters/c/cdm/link/l", "link"),
        ("https://cdm/elsewhere", "other"),
    ],
)
def test_routes(url: str, route: str) -> None:
    """The name of a route holds no name of a job, link or cluster."""
    assert route_of(Request("GET", url)) == route
