"""Kills and giving up: what is stopped, what is left alone, and what the log says about it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NoReturn

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_cdm._compat import kill_seconds
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmRunJobOperator
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.tasks import kills as kill_module
from airflow_provider_cdm.tasks.journal import TaskStore
from tests.exactly_once.kills import Killed, Kills, answer_nothing
from tests.exactly_once.task import (
    JOB,
    MODES,
    attach_until_wait_timeout,
    each_mode,
    migrate,
    run_until_wait_timeout,
)
from tests.operators.run_job.task import migrate as migrate_with_own_job
from tests.support.order_databases import ROWS, OrderDatabases
from tests.support.task_harness import TaskRunner

# Kills


@pytest.mark.parametrize("fault", [None, "drop", "reset"])
def test_kill_during_the_start_stops_its_run(
    fault: Any,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    kills: Kills,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """A kill before the answer to the start is noted, or instead of it, stops the run."""
    if fault is not None:
        sim.fail("start", fault, "after")
    task_runner.ti.max_tries = 1
    kills.run_and_kill(migrate(), "/start")
    clock.advance(10)
    assert sim.runs(JOB)[-1].status == "STOPPED"
    assert "may have been started" in task_log.text
    assert "asked CDM to stop it" in task_log.text
    assert task_runner.run(migrate)["submission_id"] == 2
    assert databases.count_rows() == ROWS


def test_kill_while_a_lost_start_is_settled_says_so(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    kills: Kills,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """Where no run shows, a kill says that the job may have been started and what follows."""
    sim.fail("start", "drop", "before", effect_delay=20)
    task_runner.ti.max_tries = 1
    kills.run_and_kill(migrate(), "/start")
    assert f"start of job '{JOB}' in cluster {sim.cluster_id} was not settled" in task_log.text
    assert f"stop_job('{JOB}', '{sim.cluster_id}')" in task_log.text
    assert "history shows no run of it" in task_log.text
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


@pytest.mark.parametrize("auto", [True, False], ids=["CDM's scheduler", "a person"])
def test_kill_during_the_start_stops_nobody_elses_run(
    auto: bool,
    sim: CdmSimulator,
    clock: ManualClock,
    kills: Kills,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """A run that need not be ours is left running by a kill, and the log says so.

    Without a baseline, a person's run at about the time of the start cannot be distinguished.
    """

    def begin_scheduled_run() -> None:
        if auto:
            sim.start(JOB, variables={"dt": "2025-01-04"}, auto=True)

    if not auto:
        sim.start(JOB, variables={"dt": "2025-01-04"})
        clock.advance(5)
        sim.fail("submissions", "status", status=429)
    sim.fail("start", "drop", "before")
    kills.run_and_kill(migrate(), "/start", begin_scheduled_run)
    clock.advance(60)
    assert [run.status for run in sim.runs(JOB)] == ["SUCCEEDED"]
    reason = "history shows no run of it" if auto else "its run was not identified"
    assert "Nothing is stopped" in task_log.text
    assert reason in task_log.text


def test_kill_before_the_run_is_noted_stops_it(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    kills: Kills,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that CDM has answered, but that is not in the journal yet, is stopped by a kill."""
    operator, write = migrate(), TaskStore.write

    def write_or_die(self: TaskStore, content: dict[str, Any]) -> None:
        if content.get("run"):
            kills.kill(operator)
        write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(TaskStore, "write", write_or_die)
        with pytest.raises(Killed):
            task_runner.run(lambda: operator)
    clock.advance(10)
    assert sim.runs(JOB)[-1].status == "STOPPED"


@pytest.mark.parametrize("next_attempt", [TaskRunner.retry, TaskRunner.clear])
def test_kill_while_attaching_again_stops_the_known_run(
    next_attempt: Callable[[TaskRunner], None],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    kills: Kills,
) -> None:
    """A kill stops the run of an earlier attempt while this one still waits for its status."""
    task_runner.ti.max_tries = 1
    run_until_wait_timeout(task_runner, wait_timeout=1, poll_interval=1)
    next_attempt(task_runner)
    sim.fail("status", "status", status=503, times=None)
    kills.run_and_kill(migrate(), "/status", sim.faults.clear)
    clock.advance(10)
    assert [run.status for run in sim.runs(JOB)] == ["STOPPED"]


def test_kill_without_cancel_on_kill_stops_nothing_and_says_so(
    sim: CdmSimulator, clock: ManualClock, kills: Kills, task_log: pytest.LogCaptureFixture
) -> None:
    """With ``cancel_on_kill=False`` a kill during the start only says what it knows."""
    kills.run_and_kill(migrate(cancel_on_kill=False), "/start")
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"
    assert "may have been started" in task_log.text
    assert "cancel_on_kill is off" in task_log.text


def test_kill_without_a_quota_for_looks_stops_the_run(
    sim: CdmSimulator, clock: ManualClock, kills: Kills, task_log: pytest.LogCaptureFixture
) -> None:
    """Where others have used up the quota of status calls, a kill finds its run by other calls."""

    def use_up_quota() -> None:
        sim.fail("status", "status", status=429, times=None)

    kills.run_and_kill(migrate(), "/status", use_up_quota)
    clock.advance(10)
    assert sim.runs(JOB)[-1].status == "STOPPED"
    assert "asked CDM to stop it" in task_log.text


def test_kill_without_any_quota_relies_on_the_last_look(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock, kills: Kills
) -> None:
    """Where every call that shows the active run is refused, it was seen active a moment ago."""
    operator, begin = migrate(), clock.now()

    def kill_between_two_looks() -> None:
        if clock.now() > begin + 3 and not sim.faults.remaining():
            for route in ("status", "submissions", "list_jobs"):
                sim.fail(route, "status", status=429, times=None)
            kills.kill(operator)

    clock.subscribe(kill_between_two_looks)
    with pytest.raises(Killed):
        task_runner.run(lambda: operator)
    clock.advance(10)
    assert sim.runs(JOB)[-1].status == "STOPPED"


def test_kill_that_stops_nothing_names_the_run_and_says_how_to_stop_it(
    sim: CdmSimulator, kills: Kills, task_log: pytest.LogCaptureFixture
) -> None:
    """If the time of a kill is over before CDM answers, one line says all that a person needs."""

    def begin_outage() -> None:
        sim.fail("*", "status", status=503, times=None)

    kills.run_and_kill(migrate(), "/status", begin_outage)
    (line,) = [line for line in task_log.messages if "could not be stopped" in line]
    assert f"run 1 of job '{JOB}' could not be stopped" in line
    assert f"CdmHook('cdm_default').stop_job('{JOB}', '{sim.cluster_id}')" in line
    assert "HTTP 503" in line


def test_time_of_a_kill_is_what_airflow_gives() -> None:
    """Airflow 3 kills a process five seconds after its signal, Airflow 2 after an option; neither
    does after ``execution_timeout``.
    """
    assert kill_seconds() == (50 if find_spec("airflow.sdk") is None else 4)
    try:
        raise AirflowTaskTimeout
    except AirflowTaskTimeout:
        assert kill_seconds() == 60


def test_kill_before_the_start_says_so(
    sim: CdmSimulator, kills: Kills, task_log: pytest.LogCaptureFixture
) -> None:
    """A kill before the start stops no run of somebody else, and says that nothing was started."""
    sim.start(JOB, variables={"dt": "2025-01-04"})
    kills.run_and_kill(migrate(if_running="wait"), f"jname={JOB}")
    assert sim.runs(JOB)[-1].status in ("PENDING", "BOOTING", "RUNNING")
    assert "no start of this task is under way" in task_log.text


def test_kill_during_the_start_of_an_own_job_keeps_the_job_for_the_next_attempt(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    kills: Kills,
) -> None:
    """The next attempt finds the stopped run of its own job, and moves the rows once."""
    task_runner.ti.max_tries = 1
    operator: CdmRunJobOperator = migrate_with_own_job()
    kills.run_and_kill(operator, "/start")
    clock.advance(10)
    (name,) = [name for name in sim.jobs() if name != JOB]
    assert sim.runs(name)[-1].status == "STOPPED"
    assert task_runner.run(migrate_with_own_job)["status"] == "SUCCEEDED"
    assert databases.count_rows() == ROWS
    assert sim.jobs() == [JOB]


def test_kill_while_the_connection_is_read_looks_nothing_up(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    kills: Kills,
    task_log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kill uses what is at hand, so it asks Airflow for no connection."""
    operator = migrate()

    def kill(_: CdmHook) -> NoReturn:
        monkeypatch.setattr(CdmHook, "get_conn", answer_nothing)
        kills.kill(operator)

    monkeypatch.setattr(CdmHook, "get_conn", kill)
    with pytest.raises(Killed):
        task_runner.run(lambda: operator)
    assert "no start of this task is under way" in task_log.text


@pytest.mark.parametrize("known", [True, False], ids=["known run", "during the start"])
def test_kill_stops_the_run_while_airflow_does_not_answer(
    known: bool,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    kills: Kills,
    task_log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stop is sent although the note of it hangs."""
    monkeypatch.setattr(kill_module, "_NOTE_SECONDS", 0.01)
    monkeypatch.setattr(kill_module, "kill_seconds", lambda: 1.0)
    done = threading.Event()
    kills.answer = lambda *_: done.wait(10)
    if known:
        operator = run_until_wait_timeout(task_runner)
        with pytest.raises(Killed):
            kills.kill(operator)
    else:
        kills.run_and_kill(migrate(), "/start")
    text = task_log.text
    done.set()
    assert "asked CDM to stop it" in text


def test_kill_ends_although_cdm_does_not_answer(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kill ends before Airflow ends the process, and says what it could not confirm."""
    operator = run_until_wait_timeout(task_runner)
    answered, exchange = threading.Event(), CdmSession._exchange

    def exchange_late(session: CdmSession, request: Any) -> Any:
        answered.wait(10)
        return exchange(session, request)

    monkeypatch.setattr(CdmSession, "_exchange", exchange_late)
    monkeypatch.setattr(kill_module, "kill_seconds", lambda: 0.01)
    others = set(threading.enumerate())
    operator.on_kill()
    assert "did not confirm within 0 s that it stops run 1" in task_log.text
    answered.set()
    for thread in set(threading.enumerate()) - others:
        thread.join(10)
    assert "asked CDM to stop it" in task_log.text


def test_kill_does_not_wait_for_the_quota_of_the_history(
    sim: CdmSimulator, clock: ManualClock, kills: Kills, task_log: pytest.LogCaptureFixture
) -> None:
    """A kill during the start has seconds only, so it reads the history now or not at all."""
    killed_at: list[float] = []

    def use_up_quota() -> None:
        sim.fail("submissions", "status", status=429, times=None)
        killed_at.append(clock.now())

    kills.run_and_kill(migrate(), "/start", use_up_quota)
    assert clock.now() - killed_at[0] < 4
    assert "its run was not identified" in task_log.text


def test_kill_says_that_cdm_refused_the_stop(
    sim: CdmSimulator, task_runner: TaskRunner, task_log: pytest.LogCaptureFixture
) -> None:
    """A run that could not be stopped is named with the reason; a job that is gone is no such
    reason.
    """
    operator = run_until_wait_timeout(task_runner)
    sim.fail("stop", "status", status=403)
    operator.on_kill()
    assert "run 1 of job 'orders'" in task_log.text
    assert "could not be stopped, and may still be active. To stop it, use" in task_log.text
    assert "HTTP 403" in task_log.text
    task_log.clear()
    body = '{"errCode": "Cdm.0054", "externalMessage": "no such job"}'
    sim.fail("submissions", "status", status=400, body=body)
    sim.fail("status", "status", status=400, body=body)
    operator.on_kill()
    assert "its job no longer exists, so there is nothing to stop" in task_log.text
    assert "could not be stopped" not in task_log.text


def test_kill_after_the_end_of_the_run_stops_nothing(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """A run that has ended is not stopped, and the log does not say that it was."""
    operator = run_until_wait_timeout(task_runner)
    clock.advance(60)
    operator.on_kill()
    assert "run 1 of job 'orders'" in task_log.text
    assert "not active, nothing to stop" in task_log.text
    assert "asked CDM to stop it" not in task_log.text


# Runs that this task did not start


@pytest.mark.parametrize("attempts", [1, 2], ids=["first attempt", "retry"])
@each_mode
def test_kill_never_stops_a_run_that_the_task_attached_to(
    mode: dict[str, Any],
    attempts: int,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """A kill leaves a person's run alone, on a worker and deferred, and in a retry as well."""
    sim.start(JOB, variables={"dt": "2025-01-04"})
    for _ in range(attempts):
        operator = attach_until_wait_timeout(task_runner, **mode)
        task_runner.retry()
    assert not any(arguments["cancel_on_kill"] for arguments in task_runner.deferrals)
    operator.on_kill()
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"
    if mode is MODES["on the worker"]:
        assert "this task did not start it" in task_log.text
