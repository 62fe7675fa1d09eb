"""Whose stop ended a run: that of an earlier attempt of the task, a person's, or nobody's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.tasks.journal import TaskStore
from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger
from tests.exactly_once.kills import Killed, Kills
from tests.exactly_once.task import JOB, MODES, each_mode, migrate, run_until_wait_timeout
from tests.support.order_databases import ROWS, OrderDatabases
from tests.support.task_harness import TaskRunner

each_end = pytest.mark.parametrize("stop_status", ["STOPPED", "FAILED"])
each_next_attempt = pytest.mark.parametrize("next_attempt", [TaskRunner.retry, TaskRunner.clear])


@pytest.fixture
def stop_status() -> str:
    """Return how CDM calls the end of a run that was stopped."""
    return "STOPPED"


@pytest.fixture
def config(stop_status: str) -> dict[str, Any]:
    """Return the configuration of a simulator whose runs end some time after they are stopped."""
    return {"behaviour": {"stop_status": stop_status, "stop_seconds": 20}}


@each_end
@each_mode
@each_next_attempt
@pytest.mark.parametrize("killed_late", [False, True], ids=["before", "after the next began"])
def test_run_that_a_kill_stopped_is_started_again_however_cdm_calls_its_end(
    killed_late: bool,
    next_attempt: Callable[[TaskRunner], None],
    mode: dict[str, Any],
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """The attempt after a kill that takes over the run while it is being stopped starts the job
    again, once, also when CDM calls the stopped run failed.
    """
    task_runner.ti.max_tries = 1
    operator = run_until_wait_timeout(task_runner)
    killed: list[Any] = []

    def kill() -> None:
        if not killed and len(sim.requests) > before:
            killed.append(operator)
            operator.on_kill()

    before = len(sim.requests)
    if killed_late:
        clock.subscribe(kill)
    else:
        operator.on_kill()
    next_attempt(task_runner)
    assert task_runner.run(lambda: migrate(**mode, poll_interval=5))["submission_id"] == 2
    assert (len(sim.runs(JOB)), databases.count_rows()) == (2, ROWS)


@each_end
@each_mode
def test_run_that_a_kill_stopped_without_a_note_is_started_again_after_a_clear(
    mode: dict[str, Any],
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow 3.3 lets a task that was cleared write nothing; then the clear and what CDM shows of
    the end decide.
    """
    exchange = CdmSession._exchange
    operator = migrate()

    def refuse(*_: Any) -> None:
        raise RuntimeError("404: Task instance not found")

    def kill(self: CdmSession, request: Any) -> Any:
        answer = exchange(self, request)
        if request.url.endswith("/status"):
            with monkeypatch.context() as patch:
                patch.setattr(CdmSession, "_exchange", exchange)
                patch.setattr(TaskStore, "write", refuse)
                operator.on_kill()
            raise Killed
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(CdmSession, "_exchange", kill)
        with pytest.raises(Killed):
            task_runner.run(lambda: operator)
    task_runner.clear()
    assert task_runner.run(lambda: migrate(**mode, poll_interval=5))["submission_id"] == 2
    assert (len(sim.runs(JOB)), databases.count_rows()) == (2, ROWS)


@each_end
def test_run_that_was_stopped_on_giving_up_is_started_again(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """A cleared task knows the stop of ``on_giving_up="stop"``, however CDM calls the end."""
    run_until_wait_timeout(task_runner, on_giving_up="stop")
    task_runner.clear()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert (len(sim.runs(JOB)), databases.count_rows()) == (2, ROWS)


@each_end
def test_run_that_was_stopped_at_the_execution_timeout_is_started_again(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """A retry knows the stop of an ``execution_timeout``, however CDM calls the end."""
    task_runner.ti.max_tries = 1
    limits = {"wait_timeout": None, "execution_timeout": timedelta(seconds=8)}
    run_until_wait_timeout(task_runner, **MODES["deferred"], **limits)
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert (len(sim.runs(JOB)), databases.count_rows()) == (2, ROWS)


@each_end
def test_run_that_the_triggerer_stopped_after_a_clear_is_started_again(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trigger can note nothing: after a clear, a run that CDM shows as stopped is taken for
    stopped by it.
    """

    async def read_task_state(_: Any) -> str | None:
        return None

    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.aget_task_state", read_task_state)

    def defer(*_: Any, **__: Any) -> None:
        raise Killed

    deferred = migrate(**MODES["deferred"])
    monkeypatch.setattr(deferred, "defer", defer)
    with pytest.raises(Killed):
        task_runner.run(lambda: deferred)
    trigger = CdmSubmissionTrigger(
        job_name=JOB, cluster_id=sim.cluster_id, submission_id=1, cancel_on_kill=True
    )
    asyncio.run(trigger.on_kill())
    task_runner.clear()
    assert task_runner.run(lambda: migrate(poll_interval=5))["submission_id"] == 2
    assert (len(sim.runs(JOB)), databases.count_rows()) == (2, ROWS)


@each_mode
@each_next_attempt
@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_run_that_a_person_stops_is_not_started_again(
    cancel_on_kill: bool,
    next_attempt: Callable[[TaskRunner], None],
    mode: dict[str, Any],
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """A run that the last attempt left running, and that a person stops right after the next one
    took it over, is reported as stopped and not started again.
    """
    task_runner.ti.max_tries = 1
    run_until_wait_timeout(task_runner)
    next_attempt(task_runner)
    begin = clock.now()
    stopped: list[Any] = []

    def stop() -> None:
        if clock.now() > begin and not stopped:
            stopped.append(sim.stop(JOB))

    clock.subscribe(stop)
    with pytest.raises(errors.CdmSubmissionFailed, match="STOPPED"):
        task_runner.run(lambda: migrate(**mode, cancel_on_kill=cancel_on_kill, poll_interval=5))
    assert len(sim.runs(JOB)) == 1


@each_mode
@pytest.mark.parametrize(
    ("next_attempt", "cancel_on_kill"),
    [(TaskRunner.retry, True), (TaskRunner.clear, False)],
    ids=["retry", "clear without cancel_on_kill"],
)
def test_stop_by_a_person_after_a_lost_attempt_is_not_repeated(
    next_attempt: Callable[[TaskRunner], None],
    cancel_on_kill: bool,
    mode: dict[str, Any],
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    kills: Kills,
) -> None:
    """An attempt that was lost with its machine leaves no note. Then only a clear with
    ``cancel_on_kill`` means that a kill may have stopped the run.
    """
    task_runner.ti.max_tries = 1
    kills.run_and_lose(lambda: migrate(poll_interval=5), "/status")
    if next_attempt is TaskRunner.clear:
        # The attempt that was lost is the one that is cleared.
        task_runner.ti.try_number -= 1
        next_attempt(task_runner)
    begin, stopped = clock.now(), list[Any]()

    def stop() -> None:
        if clock.now() > begin and not stopped:
            stopped.append(sim.stop(JOB))

    clock.subscribe(stop)
    with pytest.raises(errors.CdmSubmissionFailed, match="STOPPED"):
        task_runner.run(lambda: migrate(**mode, cancel_on_kill=cancel_on_kill, poll_interval=5))
    assert len(sim.runs(JOB)) == 1


@each_mode
@each_next_attempt
@pytest.mark.parametrize("asked", [False, True], ids=["left running", "stop without effect"])
def test_run_that_fails_for_its_own_reasons_is_not_started_again(
    asked: bool,
    next_attempt: Callable[[TaskRunner], None],
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
) -> None:
    """A run that fails by itself after the next attempt took it over is reported, not repeated;
    also long after a stop that had no effect.
    """
    sim.add_job(JOB, outcomes=["FAILED", "SUCCEEDED"], seconds=300 if asked else 30)
    task_runner.ti.max_tries = 1
    if asked:
        sim.fail("stop", "body", body="{}")
    operator = run_until_wait_timeout(task_runner)
    if asked:
        operator.on_kill()
    next_attempt(task_runner)
    with pytest.raises(errors.CdmSubmissionFailed, match="FAILED"):
        task_runner.run(lambda: migrate(**mode))
    assert len(sim.runs(JOB)) == 1
