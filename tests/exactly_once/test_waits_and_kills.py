"""Waits for a turn, time limits and kills: whatever happens in the middle of an attempt."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.operators import CdmRunJobOperator
from airflow_provider_cdm.operators.job_run import JobRunOperator
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.tasks.journal import TaskStore
from tests.exactly_once.task import JOB, MODES, count_starts, migrate
from tests.operators.run_job.task import migrate as migrate_with_own_job
from tests.support.order_databases import ROWS, OrderDatabases
from tests.support.task_harness import TaskRunner

each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
REFUSED = {"errCode": "Cdm.0052", "externalMessage": f"Job {JOB} is running"}


class Killed(BaseException):
    """Stands for the end of a process that Airflow kills."""


@pytest.fixture
def task_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> pytest.LogCaptureFixture:
    """Return the log of the task, which not every Airflow writes with the standard library."""
    monkeypatch.setattr(JobRunOperator, "log", logging.getLogger("tests.task"), raising=False)
    caplog.set_level(logging.INFO)
    return caplog


def kill(operator: Any, patch: pytest.MonkeyPatch) -> None:
    """Kill a task as Airflow does: it answers no look-ups while ``on_kill`` runs."""

    def answer_nothing(*_: Any) -> None:
        raise AssertionError("a look-up during a kill")

    with patch.context() as silent:
        for name in ("read", "write", "delete"):
            silent.setattr(TaskStore, name, answer_nothing)
        operator.on_kill()
    raise Killed


def run_and_kill(
    task_runner: TaskRunner,
    operator: Any,
    monkeypatch: pytest.MonkeyPatch,
    url_end: str,
    before_kill: Callable[[], Any] = lambda: None,
) -> None:
    """Run an attempt and kill it in the middle of its first exchange with a certain end of URL."""
    exchange = CdmSession._exchange
    killing: list[Any] = []

    def exchange_and_kill(self: CdmSession, request: Any) -> Any:
        try:
            return exchange(self, request)
        finally:
            if request.url.endswith(url_end) and not killing:
                killing.append(request)
                before_kill()
                kill(operator, monkeypatch)

    with monkeypatch.context() as patch:
        patch.setattr(CdmSession, "_exchange", exchange_and_kill)
        with pytest.raises(Killed):
            task_runner.run(lambda: operator)
    task_runner.retry()


# CDM refuses the start, but shows no active run


@each_mode
@pytest.mark.parametrize("if_running", ["wait", "attach"])
def test_refusals_without_an_active_run_end_at_the_deadline(
    if_running: str,
    mode: dict[str, Any],
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """While CDM refuses a start but shows no run, it is repeated ever less often, until the
    deadline.
    """
    sim.fail("start", "status", status=400, body=REFUSED, times=None)
    began = clock.now()
    with pytest.raises(errors.CdmWaitTimeout, match="shows no active run"):
        task_runner.run(lambda: migrate(**mode, if_running=if_running, wait_timeout=60))
    assert 60 <= clock.now() - began <= 70
    assert count_starts(sim) == 7


@pytest.mark.parametrize(("poll_interval", "starts"), [(1, 65), (30, 25)])
@pytest.mark.parametrize("if_running", ["wait", "attach"])
def test_refusals_without_an_active_run_end_without_a_deadline(
    if_running: str,
    poll_interval: float,
    starts: int,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """Without a deadline the attempt fails after ten minutes, and says what CDM showed."""
    sim.fail("start", "status", status=400, body=REFUSED, times=None)
    began = clock.now()
    with pytest.raises(errors.CdmAlreadyRunning, match="shows no active run") as raised:
        task_runner.run(lambda: migrate(if_running=if_running, poll_interval=poll_interval))
    assert (raised.value.code, raised.value.retryable) == ("Cdm.0052", True)
    assert 600 <= clock.now() - began <= 640
    assert count_starts(sim) <= starts
    assert sim.runs(JOB) == []


def test_start_succeeds_once_cdm_no_longer_refuses_it(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """A job that CDM calls running for a while is started afterwards, once."""
    sim.fail("start", "status", status=400, body=REFUSED, times=3)
    assert task_runner.run(lambda: migrate(if_running="wait"))["status"] == "SUCCEEDED"
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


def test_history_that_lags_behind_is_not_read_without_pauses(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """A run that the history shows active although it has ended does not lead to a busy loop."""
    created = round(clock.now() * 1000)
    sim.start(JOB, variables={"dt": "2025-01-01"})
    clock.advance(100)
    shown = {"job-name": JOB, "submission-id": 1, "status": "RUNNING", "creation-date": created}
    stale = {"submissions": [shown], "total": 1}
    sim.fail("submissions", "body", body=json.dumps(stale), times=5)
    began = clock.now()
    assert task_runner.run(lambda: migrate(if_running="wait"))["submission_id"] == 2
    (started,) = [request.at for request in sim.requests if request.route == "start"]
    assert started - began >= 1 + 2 + 4 + 8 + 16


# Kills


@pytest.mark.parametrize("fault", [None, "drop", "reset"])
def test_kill_during_the_start_stops_its_run(
    fault: Any,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """A kill before the answer to the start is noted, or instead of it, stops the run."""
    if fault is not None:
        sim.fail("start", fault, "after")
    task_runner.ti.max_tries = 1
    run_and_kill(task_runner, migrate(), monkeypatch, "/start")
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
    monkeypatch: pytest.MonkeyPatch,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """Where no run shows, a kill says that the job may have been started and what follows."""
    sim.fail("start", "drop", "before", effect_delay=20)
    task_runner.ti.max_tries = 1
    run_and_kill(task_runner, migrate(), monkeypatch, "/start")
    assert f"start of job '{JOB}' in cluster {sim.cluster_id} was not settled" in task_log.text
    assert f"stop_job('{JOB}', '{sim.cluster_id}')" in task_log.text
    assert "history shows no run of it" in task_log.text
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


@pytest.mark.parametrize("auto", [True, False], ids=["CDM's scheduler", "a person"])
def test_kill_during_the_start_stops_nobody_elses_run(
    auto: bool,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
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
    run_and_kill(task_runner, migrate(), monkeypatch, "/start", begin_scheduled_run)
    clock.advance(60)
    assert [run.status for run in sim.runs(JOB)] == ["SUCCEEDED"]
    assert "Nothing is stopped" in task_log.text


def test_kill_before_the_run_is_noted_stops_it(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that CDM has answered, but that is not in the journal yet, is stopped by a kill."""
    operator, write = migrate(), TaskStore.write

    def write_or_die(self: TaskStore, content: dict[str, Any]) -> None:
        if content.get("run"):
            kill(operator, monkeypatch)
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
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kill stops the run of an earlier attempt while this one still waits for its status."""
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=1, poll_interval=1))
    next_attempt(task_runner)
    sim.fail("status", "status", status=503, times=None)
    run_and_kill(task_runner, migrate(), monkeypatch, "/status", sim.faults.clear)
    clock.advance(10)
    assert [run.status for run in sim.runs(JOB)] == ["STOPPED"]


def test_kill_without_cancel_on_kill_stops_nothing_and_says_so(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """With ``cancel_on_kill=False`` a kill during the start only says what it knows."""
    run_and_kill(task_runner, migrate(cancel_on_kill=False), monkeypatch, "/start")
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"
    assert "may have been started" in task_log.text
    assert "cancel_on_kill is off" in task_log.text


def test_kill_before_the_start_says_so(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """A kill before the start stops no run of somebody else, and says that nothing was started."""
    sim.start(JOB, variables={"dt": "2025-01-04"})
    run_and_kill(task_runner, migrate(if_running="wait"), monkeypatch, f"jname={JOB}")
    assert sim.runs(JOB)[-1].status in ("PENDING", "BOOTING", "RUNNING")
    assert "no start of this task is under way" in task_log.text


def test_kill_during_the_start_of_an_own_job_keeps_the_job_for_the_next_attempt(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next attempt finds the stopped run of its own job, and moves the rows once."""
    task_runner.ti.max_tries = 1
    operator: CdmRunJobOperator = migrate_with_own_job()
    run_and_kill(task_runner, operator, monkeypatch, "/start")
    clock.advance(10)
    (name,) = [name for name in sim.jobs() if name != JOB]
    assert sim.runs(name)[-1].status == "STOPPED"
    assert task_runner.run(migrate_with_own_job)["status"] == "SUCCEEDED"
    assert databases.count_rows() == ROWS
    assert sim.jobs() == [JOB]


# Runs that this task did not start


def attach_until_timeout(task_runner: TaskRunner, **arguments: Any) -> Any:
    """Attach to the active run until the wait times out, and return the operator."""
    operator = migrate(if_running="attach", wait_timeout=5, poll_interval=5, **arguments)
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: operator)
    return operator


@pytest.mark.parametrize("attempts", [1, 2], ids=["first attempt", "retry"])
@each_mode
def test_kill_never_stops_a_run_that_the_task_attached_to(
    mode: dict[str, Any],
    attempts: int,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """A kill leaves a person's run alone, on a worker and deferred, and in a retry as well."""
    sim.start(JOB, variables={"dt": "2025-01-04"})
    for _ in range(attempts):
        operator = attach_until_timeout(task_runner, **mode)
        task_runner.retry()
    assert not any(arguments["cancel_on_kill"] for arguments in task_runner.deferrals)
    operator.on_kill()
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"
    if mode is MODES["on the worker"]:
        assert "this task did not start it" in task_log.text


@pytest.mark.parametrize("late", [False, True], ids=["seen in the history", "after a refusal"])
def test_giving_up_never_stops_a_run_that_the_task_attached_to(
    late: bool,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """``on_giving_up="stop"`` leaves a person's run alone, whenever the task attached to it."""
    if late:
        sim.fail("submissions", "body", body={"submissions": [], "total": 0})
    sim.start(JOB, variables={"dt": "2025-01-04"})
    attach_until_timeout(task_runner, on_giving_up="stop")
    assert "left running" in task_log.text
    clock.advance(60)
    assert [run.status for run in sim.runs(JOB)] == ["SUCCEEDED"]


def test_giving_up_leaves_a_run_with_other_arguments_alone(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """An attempt that does not follow the run of an earlier one does not stop it either."""
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5))
    task_runner.retry()
    with pytest.raises(errors.CdmStartUncertain, match="had other arguments"):
        task_runner.run(lambda: migrate(variables={"dt": "2025-01-03"}, on_giving_up="stop"))
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"


# Time limits


@pytest.mark.parametrize(
    ("arguments", "status"),
    [({}, "STOPPED"), ({"cancel_on_kill": False}, "SUCCEEDED")],
    ids=["default", "cancel_on_kill=False"],
)
@pytest.mark.parametrize("max_tries", [0, 1])
def test_execution_timeout_stops_the_run_of_a_deferred_task(
    max_tries: int,
    arguments: dict[str, Any],
    status: str,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """At its ``execution_timeout`` a deferred task stops its run, as Airflow does on a worker."""
    task_runner.ti.max_tries = max_tries
    limits = {"execution_timeout": timedelta(seconds=20), "poll_interval": 5}
    with pytest.raises(errors.CdmWaitTimeout, match="execution_timeout") as raised:
        task_runner.run(lambda: migrate(**MODES["deferred"], **limits, **arguments))
    assert "was not stopped" not in str(raised.value)
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == status
    assert ("execution_timeout is over; stopping run 1" in task_log.text) == (not arguments)


def test_execution_timeout_leaves_a_run_that_the_task_attached_to(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """The run of somebody else is not stopped at the ``execution_timeout`` either."""
    sim.start(JOB, variables={"dt": "2025-01-04"})
    limits = {"execution_timeout": timedelta(seconds=20), "poll_interval": 5}
    with pytest.raises(errors.CdmWaitTimeout, match="execution_timeout"):
        task_runner.run(lambda: migrate(**MODES["deferred"], **limits, if_running="attach"))
    clock.advance(60)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"


@each_mode
def test_wait_timeout_bounds_the_look_at_the_run_of_an_earlier_attempt(
    mode: dict[str, Any],
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """A retry that cannot read the status of its run ends at ``wait_timeout``, and starts nothing.

    One call with its repetitions may be under way at that moment.
    """
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(**mode, wait_timeout=5, poll_interval=5))
    task_runner.retry()
    sim.fail("status", "status", status=503, times=None)
    began = clock.now()
    with pytest.raises(errors.CdmWaitTimeout, match=r"wait_timeout.*never seen"):
        task_runner.run(lambda: migrate(**mode, wait_timeout=30))
    assert 30 <= clock.now() - began <= 40
    assert len(sim.runs(JOB)) == 1


def test_wait_timeout_bounds_the_search_for_a_lost_start(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """While the history cannot be read, a lost start is settled for a minute and no outage is
    waited out beyond ``wait_timeout``.
    """
    sim.fail("submissions", "status", status=503, times=None, skip=1)
    sim.fail("start", "drop", "after")
    began = clock.now()
    with pytest.raises(errors.CdmStartUncertain, match="cannot be read"):
        task_runner.run(lambda: migrate(wait_timeout=30))
    assert clock.now() - began <= 60 + 30 + 30
    sim.faults.clear()
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


# Clocks


def test_clock_that_is_set_forward_ends_no_wait(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    virtual_time: Any,
) -> None:
    """A clock that is set forward between two failed polls does not make a long outage of them."""
    sim.fail("status", "status", status=503, times=12)

    def set_forward() -> None:
        if [request.route for request in sim.requests].count("status") >= 5:
            virtual_time.jumped = 7200.0

    clock.subscribe(set_forward)
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert virtual_time.jumped
