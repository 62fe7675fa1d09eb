"""The limits of the guarantee, as ``docs/design.md`` lists them: for each, what then happens.

``test_limit_<number>_...`` belongs to the limit of that number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm._compat import ALL_CLEARS_ARE_COUNTED
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.tasks.journal import TaskStore
from tests.exactly_once.task import JOB, count_starts, migrate
from tests.operators.run_job.task import migrate as migrate_with_own_job
from tests.support.order_databases import DAY, ROWS, OrderDatabases
from tests.support.task_harness import TaskRunner

PERSONS_DAY = "2025-01-04"


class Died(BaseException):
    """Stands for the death of a process."""


def die_at(
    url_end: str, task_runner: TaskRunner, operator: Any, patch: pytest.MonkeyPatch
) -> Callable[[], Any]:
    """Run an attempt that dies instead of its first exchange with a certain end of URL.

    :returns: what makes that exchange after all.
    """
    exchange, held = CdmSession._exchange, []

    def hold(self: CdmSession, request: Any) -> Any:
        if request.url.endswith(url_end):
            held.append((self, request))
            raise Died
        return exchange(self, request)

    with patch.context() as dying:
        dying.setattr(CdmSession, "_exchange", hold)
        with pytest.raises(Died):
            task_runner.run(lambda: operator)
    task_runner.ti.max_tries = max(task_runner.ti.max_tries, task_runner.ti.try_number)
    return lambda: exchange(*held[0])


def start_as_a_person(sim: CdmSimulator, clock: ManualClock, when: Callable[[], bool]) -> None:
    """Start the job by hand once a condition holds."""
    started: list[Any] = []

    def start() -> None:
        if not started and when():
            started.append(1)
            sim.start(JOB, variables={"dt": PERSONS_DAY})

    clock.subscribe(start)


def limits() -> list[int]:
    """Return the numbers of the limits in the documentation."""
    text = (Path(__file__).parents[2] / "docs/design.md").read_text()
    section = text.partition("### The limits of the guarantee")[2].partition("\n### ")[0]
    return [int(number) for number in re.findall(r"^(\d+)\. ", section, flags=re.MULTILINE)]


def test_every_limit_has_a_test() -> None:
    """The list of limits and the tests here have the same numbers."""
    tested = {int(match[1]) for name in globals() if (match := re.match(r"test_limit_(\d+)", name))}
    assert limits() == sorted(tested) == list(range(1, len(tested) + 1))


def test_limit_1_start_that_takes_effect_after_it_was_given_up_and_repeated(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A start that takes effect after the run of the second start has ended moves the rows again;
    one that does so while that run is active is refused.
    """
    sim.fail("start", "drop", "before", effect_delay=130)
    assert task_runner.run(migrate)["submission_id"] == 1
    clock.advance(200)
    assert (len(sim.runs(JOB)), databases.count_rows()) == (2, 2 * ROWS)


def test_limit_2_other_run_that_alone_is_seen_after_a_lost_start(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A person's run that begins while a start without effect is settled is taken for ours."""
    sim.fail("start", "drop", "before")
    start_as_a_person(sim, clock, lambda: count_starts(sim) == 1)
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (databases.count_rows(), databases.count_rows(PERSONS_DAY)) == (0, ROWS)


def test_limit_3_other_run_within_two_seconds_of_a_lost_start_without_a_baseline(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """Without a baseline, a person's run a second before our start is taken for ours."""
    sim.start(JOB, variables={"dt": PERSONS_DAY})
    clock.advance(1)
    sim.fail("submissions", "status", status=429)
    sim.fail("start", "drop", "before")
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (databases.count_rows(), databases.count_rows(PERSONS_DAY)) == (0, ROWS)


def test_limit_4_history_that_does_not_show_a_run(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """A run that the history never shows is started a second time once it has ended."""
    sim.fail("start", "drop", "after")
    sim.fail("submissions", "body", body={"submissions": [], "total": 0}, times=None)
    assert task_runner.run(migrate)["submission_id"] == 2
    assert (len(sim.runs(JOB)), databases.count_rows()) == (2, 2 * ROWS)


def test_limit_5_clear_without_a_clear_number_after_the_retries_were_edited(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """With ``reset_dag_runs=False`` and edited retries a clear counts as a retry; before Airflow
    3.2, where no such clear is counted, it is in doubt.
    """
    task_runner.ti.max_tries = 1
    task_runner.run(migrate)
    number = task_runner.clear_number
    task_runner.clear(retries=0, running=True)
    task_runner.clear_number = number
    if ALL_CLEARS_ARE_COUNTED:
        assert task_runner.run(migrate)["submission_id"] == 1
    else:
        with pytest.raises(errors.CdmStartUncertain, match="clear it once more"):
            task_runner.run(migrate)
    assert len(sim.runs(JOB)) == 1


def test_limit_6_worker_that_sleeps_between_intent_and_start(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A start that leaves its worker after the retry gave it up moves the rows again."""
    send = die_at("/start", task_runner, migrate(), monkeypatch)
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 1
    send()
    clock.advance(100)
    assert (len(sim.runs(JOB)), databases.count_rows()) == (2, 2 * ROWS)


def test_limit_7_record_that_is_removed_before_the_retry(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the record, a retry starts a job again whose run has ended."""
    die_at("/status", task_runner, migrate(), monkeypatch)
    clock.advance(100)
    task_runner.retry()
    with monkeypatch.context() as forgetting:
        forgetting.setattr(TaskStore, "read", lambda _: None)
        assert task_runner.run(migrate)["submission_id"] == 2
    assert (len(sim.runs(JOB)), databases.count_rows()) == (2, 2 * ROWS)


def test_limit_8_own_job_that_is_deleted_by_hand_after_its_run_succeeded(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the job nothing shows that its run succeeded, so the retry creates and runs it."""
    die_at("/status", task_runner, migrate_with_own_job(), monkeypatch)
    clock.advance(100)
    assert databases.count_rows() == ROWS
    jobs = sim._backend.clusters[sim.cluster_id].jobs
    for name in set(jobs) - {JOB}:
        del jobs[name]
    task_runner.retry()
    assert task_runner.run(migrate_with_own_job)["status"] == "SUCCEEDED"
    assert databases.count_rows() == 2 * ROWS


def test_limit_9_person_who_stops_the_run_right_after_a_clear(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a clear of a task whose process died, a person's stop within two minutes looks like
    that of the kill.
    """
    sim.add_job(JOB, seconds=1000)
    die_at("/status", task_runner, migrate(), monkeypatch)
    task_runner.clear()
    begin = clock.now()
    stopped: list[Any] = []

    def stop() -> None:
        if clock.now() > begin + 60 and not stopped:
            stopped.append(sim.stop(JOB))

    clock.subscribe(stop)
    assert task_runner.run(migrate)["submission_id"] == 2


def test_limit_10_clear_that_arrives_after_the_success(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """A success that was noted before the kill looks like one before the clear."""

    def leave_running() -> Any:
        return migrate(cancel_on_kill=False)

    task_runner.run(leave_running)
    task_runner.clear(running=True)
    assert task_runner.run(leave_running)["submission_id"] == 2
    assert databases.count_rows() == 2 * ROWS


@pytest.mark.parametrize("ended", [True, False], ids=["run has ended", "run is active"])
def test_limit_10_clear_before_the_start_is_settled(
    ended: bool,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run of a start without an answer is taken over after a clear only while it is active."""

    def leave_running() -> Any:
        return migrate(cancel_on_kill=False)

    sim.add_job(JOB, seconds=20)
    send_start = die_at("/start", task_runner, leave_running(), monkeypatch)
    send_start()
    task_runner.clear(running=True)
    clock.advance(30 if ended else 5)
    assert task_runner.run(leave_running)["submission_id"] == (2 if ended else 1)
    assert databases.count_rows() == (2 * ROWS if ended else ROWS)


def test_other_limits_need_what_they_name(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """Limit 1 without its second condition, and limit 2 with both runs shown, do no harm."""
    sim.fail("start", "drop", "before", effect_delay=75)
    assert task_runner.run(migrate)["submission_id"] == 1
    clock.advance(200)
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)
    other = task_runner.another_task()
    sim.fail("start", "drop", "after")
    start_as_a_person(
        sim, clock, lambda: len(sim.runs(JOB)) == 2 and sim.runs(JOB)[-1].status == "SUCCEEDED"
    )
    sim.fail("submissions", "status", status=503, times=40, skip=1)
    with pytest.raises(errors.CdmStartUncertain, match="and the others somebody else's"):
        other.run(lambda: migrate(variables={"dt": DAY}))
