"""Retries, clears and kills of the task that starts a job."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.links import CdmRunLink
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
from tests.support.task_harness import FakeSupervisor, TaskRunner
from tests.support.virtual_time import VirtualTime


@pytest.mark.parametrize(
    ("mode", "url_end"),
    [
        *(("on the worker", url_end) for url_end in ("/start", "/status", f"jname={JOB}")),
        *(("deferred", url_end) for url_end in ("/start", f"jname={JOB}")),
    ],
)
def test_retry_follows_the_run_of_a_killed_attempt(
    url_end: str,
    mode: str,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    kills: Kills,
) -> None:
    """The retry of an attempt that died after any of its calls follows the same run."""
    task_runner.ti.max_tries = 1
    kills.run_and_lose(lambda: migrate(**MODES[mode]), url_end)
    assert task_runner.run(lambda: migrate(**MODES[mode]))["status"] == "SUCCEEDED"
    assert (len(sim.runs(JOB)), databases.count_rows(), count_starts(sim)) == (1, ROWS, 1)


@pytest.mark.parametrize("ahead", [-7200, -300, -170, 170, 300, 7200])
@pytest.mark.parametrize("of_the_retry", [False, True])
def test_retry_finds_the_run_whatever_the_clocks_of_the_workers_say(
    of_the_retry: bool,
    ahead: float,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    virtual_time: VirtualTime,
    kills: Kills,
) -> None:
    """A start that takes effect late, after its worker died, is waited for by the retry, also if
    the clock of either worker is wrong.
    """
    task_runner.ti.max_tries = 1
    sim.fail("start", "drop", "before", effect_delay=45)
    virtual_time.jumped = 0.0 if of_the_retry else ahead
    kills.run_and_lose(migrate, "/start")
    virtual_time.jumped = ahead if of_the_retry else 0.0
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (len(sim.runs(JOB)), databases.count_rows(), count_starts(sim)) == (1, ROWS, 1)


def test_retry_after_success_starts_nothing(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The retry of an attempt that died between the end of the run and its report returns the same
    result.
    """
    task_runner.ti.max_tries = 1
    first = task_runner.run(migrate)
    task_runner.retry()
    assert task_runner.run(migrate) == first
    assert len(sim.runs(JOB)) == 1


def run_that_fails(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Run an attempt whose run fails, and begin the retry, whose run would succeed."""
    sim.add_job(JOB, outcomes=["FAILED", "SUCCEEDED"], seconds=30)
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(migrate)
    task_runner.retry()


def test_retry_after_a_failed_run_starts_a_new_run(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The retry of a failed run starts a new run, even if its start is lost at first."""
    run_that_fails(sim, task_runner)
    sim.fail("start", "drop", "before")
    assert task_runner.run(migrate)["submission_id"] == 2


def test_clear_of_a_finished_task_starts_a_new_run(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """Clearing a finished task starts a new run."""
    task_runner.run(migrate)
    task_runner.clear()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert databases.count_rows() == 2 * ROWS


@each_mode
def test_clear_after_a_wait_timeout_follows_the_active_run(
    mode: dict[str, Any], sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """When the wait timed out but the run is still active, the cleared task follows that run to its
    end.
    """
    run_until_wait_timeout(task_runner, **mode)
    task_runner.clear()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 1
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


@pytest.mark.parametrize("passed", [5, 60], ids=["active", "succeeded"])
def test_retry_with_other_variables_starts_nothing_while_the_earlier_run_may_exist(
    passed: float, sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """Variables that render differently in a retry start no second run; a clear starts one."""
    task_runner.ti.max_tries = 1
    run_until_wait_timeout(task_runner, wait_timeout=1, poll_interval=1)
    task_runner.retry()
    task_runner.advance(passed)
    with pytest.raises(errors.CdmStartUncertain, match="had other arguments and started run 1"):
        task_runner.run(lambda: migrate(variables={"dt": "2025-01-03"}))
    assert len(sim.runs(JOB)) == 1
    task_runner.advance(60)
    task_runner.clear()
    result = task_runner.run(lambda: migrate(variables={"dt": "2025-01-03"}))
    assert result["submission_id"] == 2
    assert (databases.count_rows(), databases.count_rows("2025-01-03")) == (ROWS, ROWS)


def test_retry_with_other_variables_starts_its_own_run_after_a_failed_one(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A run that failed is no second migration, so a retry starts with its own variables."""
    run_that_fails(sim, task_runner)
    result = task_runner.run(lambda: migrate(variables={"dt": "2025-01-03"}))
    assert result["submission_id"] == 2


def run_until_outage(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Run an attempt that gives up in a long outage of CDM, which ends then; a retry remains."""
    task_runner.ti.max_tries = 1
    sim.fail("status", "status", status=503, times=200)
    with pytest.raises(errors.CdmUnavailable):
        task_runner.run(migrate)
    sim.faults.clear()


def test_retry_after_an_outage_follows_the_run(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """After ``CdmUnavailable`` the retry follows the run, which continued meanwhile."""
    run_until_outage(sim, task_runner)
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


def test_clear_of_a_running_task_stops_its_run_and_starts_another(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """Clearing a running task kills it, which stops its run, and the next attempt starts another
    run.
    """
    operator = run_until_wait_timeout(task_runner)
    operator.on_kill()
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert [run.status for run in sim.runs(JOB)] == ["STOPPED", "SUCCEEDED"]
    assert databases.count_rows() == ROWS


@pytest.mark.parametrize("ahead", [-7200, -600, 600, 7200])
@pytest.mark.parametrize("stopped_by", ["kill", "person"])
def test_stop_by_a_kill_is_known_whatever_the_clock_of_the_worker_says(
    stopped_by: str,
    ahead: float,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    virtual_time: VirtualTime,
    clock: ManualClock,
) -> None:
    """A run that the kill of an earlier attempt stopped is started again, one that a person stops
    later is not, also if the clock of the worker is wrong.
    """
    task_runner.ti.max_tries = 1
    sim.add_job(JOB, seconds=1000)
    operator = run_until_wait_timeout(task_runner)
    virtual_time.jumped = ahead
    task_runner.retry()
    if stopped_by == "kill":
        operator.on_kill()
        assert task_runner.run(migrate)["submission_id"] == 2
        return

    def stop_later() -> None:
        if clock.now() > begin + 300 and sim.runs(JOB)[-1].status == "RUNNING":
            sim.stop(JOB)

    begin = clock.now()
    clock.subscribe(stop_later)
    with pytest.raises(errors.CdmSubmissionFailed, match="STOPPED"):
        task_runner.run(migrate)
    assert len(sim.runs(JOB)) == 1


def test_nothing_is_started_when_the_journal_cannot_be_written(
    sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the journal cannot be written, the task fails and starts nothing."""

    def fail_to_write(self: Any, content: Any) -> None:
        raise OSError("the metadata database is away")

    monkeypatch.setattr("airflow_provider_cdm.tasks.journal.TaskStore.write", fail_to_write)
    with pytest.raises(errors.CdmJournalError, match="nothing is started"):
        task_runner.run(migrate)
    assert (count_starts(sim), sim.runs(JOB)) == (0, [])


def test_a_journal_that_cannot_be_read_at_the_end_hides_no_outcome(
    sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that failed is reported as failed, also while the journal cannot be read."""
    read = TaskStore.read

    def fail_after_the_end(store: TaskStore) -> Any:
        if any(run.status == "FAILED" for run in sim.runs(JOB)):
            raise OSError("500")
        return read(store)

    monkeypatch.setattr(TaskStore, "read", fail_after_the_end)
    sim.add_job(JOB, outcomes=["FAILED"])
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(migrate)


def break_journal_reads(
    task_runner: TaskRunner, supervisor: FakeSupervisor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make reads of the journal fail, in the place where this version of Airflow keeps it."""

    def fail_to_read(*_: Any) -> None:
        raise OSError("the API server answers 500")

    if task_runner.store.content:
        monkeypatch.setattr(task_runner.store, "get", fail_to_read)
    elif supervisor is not None:
        supervisor.read_error = OSError("the API server answers 500")
    else:
        from airflow.models.variable import Variable
        from airflow.utils.session import create_session

        with create_session() as session:
            rows = session.query(Variable).filter(Variable.key.contains(task_runner.ti.run_id))
            # A value that was encrypted with another key is read as None.
            assert rows.update({"val": None}, synchronize_session=False)


def test_nothing_is_started_when_the_journal_cannot_be_read(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    supervisor: FakeSupervisor | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A journal that cannot be read is not treated as an empty one."""
    run_until_outage(sim, task_runner)
    break_journal_reads(task_runner, supervisor, monkeypatch)
    task_runner.retry()
    with pytest.raises(errors.CdmJournalError, match="cannot be read, and nothing is started"):
        task_runner.run(migrate)
    assert (count_starts(sim), len(sim.runs(JOB))) == (1, 1)


@pytest.mark.parametrize("on_giving_up", ["leave", "stop"])
def test_last_attempt_stops_or_leaves_the_run_as_configured(
    on_giving_up: str, sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """When no retry remains, an active run is stopped or left as ``on_giving_up`` says."""
    run_until_wait_timeout(task_runner, on_giving_up=on_giving_up)
    clock.advance(100)
    assert sim.runs(JOB)[-1].status == {"leave": "SUCCEEDED", "stop": "STOPPED"}[on_giving_up]


def test_attempt_with_retries_remaining_does_not_stop_the_run(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """``on_giving_up`` has no effect while a retry remains."""
    task_runner.ti.max_tries = 1
    run_until_wait_timeout(task_runner, on_giving_up="stop")
    clock.advance(100)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"


def test_retry_of_a_start_only_task_does_not_start_again(
    sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retry of a start-only task that died after the start returns the run that was started."""
    task_runner.ti.max_tries = 1
    with monkeypatch.context() as patch:
        patch.setattr(CdmRunLink, "store", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            task_runner.run(lambda: migrate(wait_for_completion=False))
    task_runner.retry()
    result = task_runner.run(lambda: migrate(wait_for_completion=False))
    assert (result["submission_id"], len(sim.runs(JOB))) == (1, 1)
