"""Waits for a turn, time limits and clocks: a wait ends in time, and no sooner."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
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

REFUSED = {"errCode": "Cdm.0052", "externalMessage": f"Job {JOB} is running"}

# CDM refuses the start, but shows no active run


@each_mode
@pytest.mark.parametrize("if_running", ["wait", "attach"])
def test_refusals_without_an_active_run_end_at_the_deadline(
    if_running: str,
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """While CDM refuses a start but shows no run, it is repeated ever less often, until the
    deadline.
    """
    sim.fail("start", "status", status=400, body=REFUSED, times=None)
    began = clock.now()
    with pytest.raises(errors.CdmWaitTimeout, match="shows no active run") as raised:
        task_runner.run(lambda: migrate(**mode, if_running=if_running, wait_timeout=60))
    assert "(wait_timeout)" in str(raised.value)
    assert 60 <= clock.now() - began <= 70
    assert count_starts(sim) == 7


@pytest.mark.long
@pytest.mark.parametrize(("poll_interval", "starts"), [(1, 65), (30, 25)])
@pytest.mark.parametrize("if_running", ["wait", "attach"])
def test_refusals_without_an_active_run_end_without_a_deadline(
    if_running: str,
    poll_interval: float,
    starts: int,
    sim: CdmSimulator,
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


def lag_behind(sim: CdmSimulator, clock: ManualClock, times: int | None) -> None:
    """Let the history show a run active that has ended."""
    created = round(clock.now() * 1000)
    sim.start(JOB, variables={"dt": "2025-01-01"})
    clock.advance(100)
    shown = {"job-name": JOB, "submission-id": 1, "status": "RUNNING", "creation-date": created}
    stale = {"submissions": [shown], "total": 1}
    sim.fail("submissions", "body", body=json.dumps(stale), times=times)


@each_mode
def test_history_that_lags_behind_is_not_read_without_pauses(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """A run that the history shows active although it has ended leads neither to a busy loop nor
    to one deferral after another.
    """
    lag_behind(sim, clock, times=6)
    began = clock.now()
    result = task_runner.run(lambda: migrate(**mode, if_running="wait"))
    assert result["submission_id"] == 2
    (started,) = [request.at for request in sim.requests if request.route == "start"]
    assert started - began >= 1 + 2 + 4 + 8 + 10
    assert len(task_runner.deferrals) == (2 if mode["deferrable"] else 0)


@each_mode
@pytest.mark.parametrize("wait_timeout", [60, None])
def test_history_that_lags_behind_for_good_ends_the_attempt(
    wait_timeout: float | None,
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """An attempt ends at its deadline, or after ten minutes, and starts nothing."""
    lag_behind(sim, clock, times=150)
    began, error = clock.now(), errors.CdmWaitTimeout if wait_timeout else errors.CdmAlreadyRunning
    with pytest.raises(error, match="whose end it has shown before"):
        task_runner.run(lambda: migrate(**mode, if_running="wait", wait_timeout=wait_timeout))
    assert clock.now() - began <= (wait_timeout or 600) + 40
    assert (count_starts(sim), len(task_runner.deferrals)) == (0, 1 if mode["deferrable"] else 0)


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
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
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
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A retry that cannot read the status of its run ends at ``wait_timeout``, and starts nothing.

    One call with its repetitions may be under way at that moment.
    """
    task_runner.ti.max_tries = 1
    run_until_wait_timeout(task_runner, **mode)
    task_runner.retry()
    sim.fail("status", "status", status=503, times=None)
    began = clock.now()
    with pytest.raises(errors.CdmWaitTimeout, match=r"wait_timeout.*never seen"):
        task_runner.run(lambda: migrate(**mode, wait_timeout=30))
    assert 30 <= clock.now() - began <= 40
    assert len(sim.runs(JOB)) == 1


def test_wait_timeout_bounds_the_search_for_a_lost_start(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
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
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock, virtual_time: Any
) -> None:
    """A clock that is set forward between two failed polls does not make a long outage of them."""
    sim.fail("status", "status", status=503, times=12)

    def set_forward() -> None:
        if [request.route for request in sim.requests].count("status") >= 5:
            virtual_time.jumped = 7200.0

    clock.subscribe(set_forward)
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert virtual_time.jumped


@each_mode
def test_each_run_that_is_in_the_way_is_waited_for(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
) -> None:
    """A person who stops a run and starts another one is waited for, however long that takes."""
    sim.add_job(JOB, seconds=1000)
    sim.start(JOB, variables={"dt": "2025-01-04"})
    begin = clock.now()

    def stop_and_start() -> None:
        if len(sim.runs(JOB)) == 1 and sim.runs(JOB)[0].status == "STOPPED":
            sim.start(JOB, variables={"dt": "2025-01-04"})
        elif len(sim.runs(JOB)) == 1 and clock.now() > begin + 100:
            sim.stop(JOB)

    clock.subscribe(stop_and_start)
    result = task_runner.run(lambda: migrate(**mode, if_running="wait", poll_interval=30))
    assert (result["submission_id"], count_starts(sim)) == (3, 1)


def test_outage_is_waited_out_until_the_deadline(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """While the deadline is far, a lost start is searched for until the history can be read."""
    sim.fail("start", "drop", "after")
    sim.fail("submissions", "status", status=503, times=None, skip=1)
    begin = clock.now()

    def recover() -> None:
        if clock.now() > begin + 150:
            sim.faults.clear()

    clock.subscribe(recover)
    assert task_runner.run(lambda: migrate(wait_timeout=600))["submission_id"] == 1
    assert count_starts(sim) == 1


def test_only_a_new_run_is_looked_at_more_often(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A run that is in the way is polled every ``poll_interval``, from the beginning."""
    sim.add_job(JOB, seconds=100)
    sim.start(JOB, variables={"dt": "2025-01-04"})
    task_runner.run(lambda: migrate(if_running="wait", poll_interval=50))
    looks = [request.route for request in sim.requests if request.route in ("status", "start")]
    assert looks.index("start") <= 4


def test_end_of_a_short_run_is_noticed_soon(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """On a worker, a run of three seconds takes no poll interval of half a minute."""
    sim.add_job(JOB, seconds=3)
    begin = clock.now()
    assert task_runner.run(lambda: migrate(poll_interval=30))["status"] == "SUCCEEDED"
    assert clock.now() - begin < 6
