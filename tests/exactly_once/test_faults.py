"""Faults of the network and of CDM at the start of a job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.start import start_once
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRequest
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.exactly_once.task import JOB, MODES, count_starts, migrate
from tests.support.order_databases import DAY, ROWS, OrderDatabases
from tests.support.task_harness import TaskRunner

#: What happens to the start or its answer, and how often the start is sent until it succeeds.
FAULTS: dict[str, tuple[dict[str, Any], int]] = {
    "dropped before the effect": ({"kind": "drop", "when": "before"}, 2),
    "dropped after the effect": ({"kind": "drop", "when": "after"}, 1),
    "reset before the effect": ({"kind": "reset", "when": "before"}, 2),
    "reset after the effect": ({"kind": "reset", "when": "after"}, 1),
    "503 before the effect": ({"kind": "status", "status": 503, "when": "before"}, 2),
    "503 after the effect": ({"kind": "status", "status": 503, "when": "after"}, 1),
    "500 after the effect": ({"kind": "status", "status": 500, "when": "after"}, 1),
    "broken JSON after the effect": ({"kind": "body", "body": '{"subm', "when": "after"}, 1),
    "no submissions after the effect": ({"kind": "body", "body": "{}", "when": "after"}, 1),
    "hanging before the effect": ({"kind": "hang", "when": "before", "seconds": 5}, 2),
    "hanging after the effect": ({"kind": "hang", "when": "after", "seconds": 5}, 1),
    "dropped, the effect is 2 s late": (
        {"kind": "drop", "when": "before", "effect_delay": 2}, 1,
    ),
    "hanging, the effect is 40 s late": (
        {"kind": "hang", "when": "before", "seconds": 5, "effect_delay": 40}, 1,
    ),
    "throttled": ({"kind": "status", "status": 429, "when": "before"}, 2),
    "system error of CDM after the effect": (
        {
            "kind": "status",
            "status": 500,
            "when": "after",
            "body": '{"errCode": "Cdm.0000", "externalMessage": "system error"}',
        },
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_at_the_start_leads_to_one_successful_run(
    fault: str,
    mode: dict[str, Any],
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
) -> None:
    """Whatever happens to the start or its answer, the job runs once, every row is moved once, and
    the task succeeds.
    """
    settings, expected_starts = FAULTS[fault]
    sim.fail("start", **settings)
    result = task_runner.run(lambda: migrate(**mode))
    (run,) = sim.runs(JOB)
    assert (result["submission_id"], result["status"]) == (run.submission_id, "SUCCEEDED")
    assert databases.count_rows() == ROWS
    assert count_starts(sim) == expected_starts


@pytest.mark.parametrize("driver", ["thread", "event loop"])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_at_the_start_leads_to_one_run_on_a_thread_and_on_an_event_loop(
    fault: str,
    driver: str,
    sim: CdmSimulator,
    databases: OrderDatabases,
    make_session: Callable[..., Any],
    clock: ManualClock,
) -> None:
    """The start is one flow, which comes to the same result on a thread and on an event loop."""
    settings, expected_starts = FAULTS[fault]
    sim.fail("start", **settings)
    session = make_session(read_timeout=0.3)
    request = StartRequest(sim.cluster_id, JOB, {"dt": DAY})
    flow = start_once(session.api, request, None, StartPolicy())
    records: list[Any] = []
    if driver == "thread":
        started = session.run(flow, records.append)
    else:
        started = asyncio.run(session.arun(flow, records.append))
    clock.advance(100)
    (run,) = sim.runs(JOB)
    assert started.run.submission_id == run.submission_id
    assert records[-1]["run"]["submission_id"] == run.submission_id
    assert (databases.count_rows(), count_starts(sim)) == (ROWS, expected_starts)


def test_start_without_any_answer_fails_and_is_retried(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """After several starts without an answer and without a run, the task fails, and its retry reads
    the history first.
    """
    sim.fail("start", "drop", times=3)
    with pytest.raises(errors.CdmStartUncertain, match="searches for the run before"):
        task_runner.run(migrate)
    assert (count_starts(sim), sim.runs(JOB)) == (3, [])
    task_runner.retry()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


def test_lost_start_is_not_mistaken_for_the_run_right_before_it(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """A lost start is not mistaken for an earlier run, even if that run is recent."""
    other_runner = task_runner.another_task()
    other_runner.run(lambda: migrate(variables={"dt": "2025-01-01"}))
    sim.fail("start", "drop", "before")
    task_runner.run(migrate)
    assert (databases.count_rows("2025-01-01"), databases.count_rows()) == (ROWS, ROWS)


def test_run_of_unknown_origin_is_not_followed_until_a_clear(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """Without a baseline, a run that began seconds before a lost start may be somebody else's, so
    the task fails and starts nothing; a clear starts a new run.
    """
    sim.start(JOB, variables={"dt": "2025-01-03"})
    sim.fail("submissions", "status", status=429)
    sim.fail("start", "drop", "before")
    clock.advance(5)
    with pytest.raises(errors.CdmStartUncertain, match="somebody else's"):
        task_runner.run(migrate)
    clock.advance(60)
    assert (databases.count_rows(), len(sim.runs(JOB))) == (0, 1)
    task_runner.clear()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert databases.count_rows() == ROWS


def test_scheduled_run_is_not_mistaken_for_a_lost_start(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A run that CDM's own scheduler starts right after a lost start is not taken for the run of
    the task.
    """
    sim.fail("start", "drop", "before")
    scheduled_runs: list[int] = []

    def start_scheduled_run() -> None:
        if not scheduled_runs and count_starts(sim) == 1:
            scheduled_runs.append(1)
            sim.start(JOB, variables={"dt": "2025-01-04"}, auto=True)

    clock.subscribe(start_scheduled_run)
    result = task_runner.run(lambda: migrate(if_running="wait"))
    assert result["submission_id"] == 2
    assert (databases.count_rows(), databases.count_rows("2025-01-04")) == (ROWS, ROWS)


def test_start_does_not_wait_for_the_quota_of_the_history(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """When the quota of the history call is used up, the start does not wait for it."""
    sim.fail("submissions", "status", status=429, headers={"Retry-After": "50"})
    sim.fail("start", "drop", "after")
    started_at = sim.clock.now()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)
    assert sim.clock.now() - started_at < 50 + 60
