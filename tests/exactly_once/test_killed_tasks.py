"""What a task does after Airflow has killed it: Airflow 3 lets its process go on for 5 to 60 s."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from airflow_provider_cdm._compat import KILLED_TASKS_GO_ON
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.tasks.journal import TaskStore
from tests.exactly_once.kills import Kills
from tests.exactly_once.task import (
    JOB,
    MODES,
    count_starts,
    each_mode,
    migrate,
    run_until_wait_timeout,
)
from tests.support.order_databases import ROWS, OrderDatabases
from tests.support.task_harness import TaskRunner

on_airflow_3 = pytest.mark.skipif(
    not KILLED_TASKS_GO_ON, reason="Airflow 2 raises an error in a task that it kills"
)


@on_airflow_3
def test_task_that_is_killed_in_a_pause_ends_at_once(
    sim: CdmSimulator, clock: ManualClock, kills: Kills, task_log: pytest.LogCaptureFixture
) -> None:
    """A killed task does not wait until its run, which it has stopped, has ended."""
    began = clock.now()
    kills.run_and_signal(migrate(poll_interval=20), lambda: clock.now() > began + 8, clock)
    assert clock.now() < began + 20
    clock.advance(10)
    assert sim.runs(JOB)[-1].status == "STOPPED"
    assert "asked CDM to stop it" in task_log.text
    assert "No attempt follows" not in task_log.text


@on_airflow_3
def test_killed_task_starts_nothing_after_the_run_in_its_way(
    sim: CdmSimulator, clock: ManualClock, kills: Kills
) -> None:
    """A task that is killed while it waits for its turn does not start the job afterwards."""
    sim.start(JOB, variables={"dt": "2025-01-04"})
    began = clock.now()
    kills.run_and_signal(migrate(if_running="wait"), lambda: clock.now() > began + 5, clock)
    clock.advance(60)
    assert (count_starts(sim), len(sim.runs(JOB))) == (0, 1)


@on_airflow_3
@pytest.mark.parametrize("url_end", [f"jname={JOB}", "/auth/tokens?nocatalog=true"])
def test_task_that_is_killed_before_the_start_sends_none(
    url_end: str, sim: CdmSimulator, kills: Kills
) -> None:
    """A kill between two calls ends the task before the next call."""
    kills.run_and_signal_after(migrate(), url_end)
    assert count_starts(sim) == 0


@on_airflow_3
def test_task_that_is_killed_before_it_has_a_session_sends_nothing(
    sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while the journal is read for the first time is not forgotten."""
    operator, read = migrate(), TaskStore.read

    def read_and_kill(store: TaskStore) -> Any:
        operator.on_kill()
        return read(store)

    monkeypatch.setattr(TaskStore, "read", read_and_kill)
    with pytest.raises(errors.CdmKilled):
        task_runner.run(lambda: operator)
    assert sim.requests == []


@on_airflow_3
def test_task_that_is_killed_during_its_start_saves_the_run(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    kills: Kills,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """The answer to a start is written down also after the kill, so that the retry has it."""
    task_runner.ti.max_tries = 1
    kills.run_and_signal_after(migrate(cancel_on_kill=False), "/start")
    assert task_runner.run(migrate)["submission_id"] == 1
    assert "searching for its run" not in task_log.text
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


@on_airflow_3
def test_killed_task_notes_no_success(
    sim: CdmSimulator, task_runner: TaskRunner, kills: Kills, task_log: pytest.LogCaptureFixture
) -> None:
    """A run that succeeds during the kill is left to the next attempt, which may be there."""
    sim.add_job(JOB + "_quick", seconds=1)
    task_runner.ti.max_tries = 1
    operator = migrate(job_name=JOB + "_quick", cancel_on_kill=False)
    kills.run_and_signal_after(
        operator, "/status", lambda: sim.runs(JOB + "_quick")[-1].status == "SUCCEEDED"
    )
    assert "SUCCEEDED" not in task_log.text
    assert task_runner.run(lambda: migrate(job_name=JOB + "_quick"))["submission_id"] == 1
    assert "ended SUCCEEDED" in task_log.text


# A clear of a task that leaves its run running


@each_mode
@pytest.mark.parametrize("ended", [False, True], ids=["active", "succeeded"])
def test_clear_of_a_running_task_that_leaves_its_run_moves_rows_once(
    ended: bool,
    mode: dict[str, Any],
    sim: CdmSimulator,
    clock: ManualClock,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    kills: Kills,
) -> None:
    """With ``cancel_on_kill=False`` the next attempt gets the run that was left running, whether it
    still runs when that attempt begins or has succeeded by then.
    """
    kills.run_and_kill(migrate(cancel_on_kill=False), "/status")
    task_runner.ti.try_number -= 1
    task_runner.clear(running=True)
    clock.advance(60 if ended else 5)
    result = task_runner.run(lambda: migrate(cancel_on_kill=False, **mode))
    assert (result["submission_id"], result["status"]) == (1, "SUCCEEDED")
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


@each_mode
def test_clear_of_a_running_task_that_leaves_the_run_of_others_takes_it_over(
    mode: dict[str, Any],
    sim: CdmSimulator,
    clock: ManualClock,
    task_runner: TaskRunner,
    kills: Kills,
) -> None:
    """A kill never stops a run that the task attached to, so a clear gets that run, too."""
    sim.start(JOB, variables={"dt": "2025-01-04"})
    kills.run_and_kill(migrate(if_running="attach"), "/status")
    task_runner.ti.try_number -= 1
    task_runner.clear(running=True)
    clock.advance(60)
    result = task_runner.run(lambda: migrate(if_running="attach", **mode))
    assert (result["submission_id"], len(sim.runs(JOB))) == (1, 1)


@pytest.mark.parametrize(
    ("cancel_on_kill", "running"), [(True, True), (False, False)], ids=["stops", "DAG run ended"]
)
def test_other_clears_start_the_job_again(
    cancel_on_kill: bool,
    running: bool,
    sim: CdmSimulator,
    clock: ManualClock,
    task_runner: TaskRunner,
    kills: Kills,
) -> None:
    """Where the kill was to stop the run but could not, or the whole DAG run had ended before the
    clear, a new run is what the clear asks for.
    """
    if cancel_on_kill:
        sim.fail("stop", "status", status=503, times=None)
    kills.run_and_kill(migrate(cancel_on_kill=cancel_on_kill), "/status")
    task_runner.ti.try_number -= 1
    task_runner.clear(running=running)
    clock.advance(60)
    result = task_runner.run(lambda: migrate(cancel_on_kill=cancel_on_kill))
    assert result["submission_id"] == 2


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_clear_after_an_attempt_that_ended_by_itself_starts_the_job_again(
    mode: dict[str, Any], sim: CdmSimulator, clock: ManualClock, task_runner: TaskRunner
) -> None:
    """A task that has stopped waiting says in its log that a clear after the run's end starts the
    job again, and so it does.
    """
    options = {"cancel_on_kill": False, "wait_timeout": 5, "poll_interval": 5, **mode}
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(**options))
    task_runner.clear(running=True)
    clock.advance(60)
    assert task_runner.run(lambda: migrate(cancel_on_kill=False))["submission_id"] == 2
    assert len(sim.runs(JOB)) == 2


def test_clear_of_a_task_that_only_starts_starts_the_job_again(
    sim: CdmSimulator, clock: ManualClock, task_runner: TaskRunner
) -> None:
    """Nobody has killed a task that did not wait, so a clear asks for a new run."""
    options = {"cancel_on_kill": False, "wait_for_completion": False}
    task_runner.run(lambda: migrate(**options))
    clock.advance(60)
    task_runner.clear(running=True)
    assert task_runner.run(lambda: migrate(**options))["submission_id"] == 2
    assert len(sim.runs(JOB)) == 2


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_kill_does_not_log_in_the_thread_that_it_interrupted(
    cancel_on_kill: bool,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal may come while this thread writes to the log; it would wait for itself for ever."""
    operator = run_until_wait_timeout(task_runner, cancel_on_kill=cancel_on_kill)
    emit, by = task_log.handler.emit, []

    def note_thread(record: logging.LogRecord) -> None:
        by.append(threading.current_thread())
        emit(record)

    monkeypatch.setattr(task_log.handler, "emit", note_thread)
    operator.on_kill()
    assert by
    assert threading.main_thread() not in by
    assert ("asked CDM to stop it" if cancel_on_kill else "is left running") in task_log.text
