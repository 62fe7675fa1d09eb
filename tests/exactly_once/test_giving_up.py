"""Giving up: what becomes of an active run when no attempt follows, and what the log says."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.tasks.journal import TaskStore
from tests.exactly_once.task import (
    JOB,
    MODES,
    attach_until_wait_timeout,
    migrate,
    run_until_wait_timeout,
)
from tests.support.order_databases import DAY
from tests.support.task_harness import TaskRunner


@pytest.mark.parametrize("late", [False, True], ids=["seen in the history", "after a refusal"])
def test_giving_up_never_stops_a_run_that_the_task_attached_to(
    late: bool,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """``on_giving_up="stop"`` leaves a person's run alone, whenever the task attached to it."""
    if late:
        sim.fail("submissions", "body", body={"submissions": [], "total": 0})
    sim.start(JOB, variables={"dt": "2025-01-04"})
    attach_until_wait_timeout(task_runner, on_giving_up="stop")
    assert "left running" in task_log.text
    clock.advance(60)
    assert [run.status for run in sim.runs(JOB)] == ["SUCCEEDED"]


@pytest.mark.parametrize("days", [(DAY, "2025-01-03"), ("2025-01-03", DAY)])
def test_giving_up_leaves_a_run_with_other_arguments_alone(
    days: tuple[str, str], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """An attempt that does not follow the run of an earlier one does not stop it either."""
    task_runner.ti.max_tries = 1
    first, second = ({"dt": day} for day in days)
    run_until_wait_timeout(task_runner, variables=first)
    task_runner.retry()
    with pytest.raises(errors.CdmStartUncertain, match="had other arguments"):
        task_runner.run(lambda: migrate(variables=second, on_giving_up="stop"))
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"


def test_log_says_whose_run_is_left(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """Without an attempt left, the error says how to stop a run of this task, and the log does not
    say that of a run of somebody else.
    """
    with pytest.raises(errors.CdmWaitTimeout, match="No attempt follows, and run 1 of job") as left:
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5))
    assert "To stop it, use" in str(left.value)
    assert "did not start it" not in task_log.text
    task_log.clear()
    attach_until_wait_timeout(task_runner.another_task())
    assert "this attempt did not start it" in task_log.text
    assert "To stop it, use" not in task_log.text
    assert "is unknown" not in task_log.text


@pytest.mark.parametrize(("seconds", "runs"), [(0, 1), (60, 2)], ids=["active", "ended"])
def test_error_says_what_a_clear_does(
    seconds: float, runs: int, sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A clear attaches to the run that was left while it is active, and starts the job again after
    its end, also if it succeeded: the error says so, and what to do instead.
    """
    with pytest.raises(
        errors.CdmWaitTimeout, match="after its end, a clear starts the job"
    ) as left:
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5))
    assert "mark the task as successful" in str(left.value)
    clock.advance(seconds)
    task_runner.clear()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert len(sim.runs(JOB)) == runs


def test_log_is_silent_while_an_attempt_follows(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """An attempt after which another one follows says nothing about the run that goes on."""
    task_runner.ti.max_tries = 1
    run_until_wait_timeout(task_runner)
    other = task_runner.another_task()
    other.ti.max_tries = 1
    attach_until_wait_timeout(other)
    for text in ("may still be active", "is unknown", "is left running"):
        assert text not in task_log.text


@pytest.mark.parametrize("sent", [False, True], ids=["nothing sent", "lost start"])
def test_log_names_no_run_where_none_is_known(
    sent: bool, sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """An attempt that fails before it knows a run has nothing to say about one."""
    route = "start" if sent else "submissions"
    sim.fail(route, "status", status=503 if sent else 403, times=None)
    with pytest.raises(errors.CdmStartUncertain if sent else errors.CdmAuthError):
        task_runner.run(migrate)
    for text in ("may still be active", "is unknown", "still active"):
        assert text not in task_log.text


def test_log_says_why_a_run_is_stopped(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """The reason is the end of the last attempt, or its ``execution_timeout``, and the argument."""
    run_until_wait_timeout(task_runner, on_giving_up="stop")
    assert "No attempt follows; stopping run 1" in task_log.text
    assert "(on_giving_up='stop')" in task_log.text
    task_log.clear()
    task_runner.advance(60)
    limits = {"wait_timeout": None, "execution_timeout": timedelta(seconds=8)}
    run_until_wait_timeout(task_runner.another_task(), **MODES["deferred"], **limits)
    assert "execution_timeout is over; stopping run 2" in task_log.text
    assert "(cancel_on_kill)" in task_log.text


def test_stop_is_noted_before_it_is_sent(
    sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that is not being killed waits for its note, however long Airflow takes."""
    monkeypatch.setattr("airflow_provider_cdm.tasks.kills._NOTE_SECONDS", 0.01)
    sent, order = threading.Event(), []
    write, exchange = TaskStore.write, CdmSession._exchange

    def write_slowly(store: TaskStore, content: dict[str, Any]) -> None:
        if content.get("asked_at"):
            sent.wait(0.2)
            order.append("noted")
        write(store, content)

    def exchange_and_tell(session: CdmSession, request: Any) -> Any:
        if request.url.endswith("/stop"):
            order.append("sent")
            sent.set()
        return exchange(session, request)

    monkeypatch.setattr(TaskStore, "write", write_slowly)
    monkeypatch.setattr(CdmSession, "_exchange", exchange_and_tell)
    run_until_wait_timeout(task_runner, on_giving_up="stop")
    assert order == ["noted", "sent"]


def test_journal_that_cannot_be_read_hides_no_failure(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The attempt reports its own failure, and the log that a run may be active."""
    read = TaskStore.read

    def fail_after_the_start(store: TaskStore) -> Any:
        if sim.runs(JOB):
            raise OSError("500")
        return read(store)

    monkeypatch.setattr(TaskStore, "read", fail_after_the_start)
    run_until_wait_timeout(task_runner)
    assert "Whether a run of this task is still active is unknown" in task_log.text


@pytest.mark.parametrize("ending", ["STOPPED", "SUCCEEDED"])
def test_error_does_not_call_an_ended_run_active(
    ending: str, sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """Where the run of an earlier attempt has ended, and another one is in the way, nobody is told
    to stop the former: that would stop the latter.
    """
    run_until_wait_timeout(task_runner)
    if ending == "STOPPED":
        sim.stop(JOB)
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == ending
    sim.start(JOB, variables={"dt": "2025-01-04"})
    task_runner.clear()
    with pytest.raises(errors.CdmAlreadyRunning, match="busy with run 2") as refusal:
        task_runner.run(migrate)
    assert "may still be active" not in str(refusal.value)
    clock.advance(60)
    assert task_runner.run(migrate)["submission_id"] == 3
