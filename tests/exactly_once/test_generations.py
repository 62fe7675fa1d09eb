"""Retries and clears, whatever was edited in between; which journal belongs to which start."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from airflow_provider_cdm._compat import ALL_CLEARS_ARE_COUNTED, AirflowSensorTimeout
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.exactly_once.task import JOB, migrate
from tests.support.order_databases import DAY
from tests.support.task_harness import TaskRunner, has_task_state_store

from_3_3 = pytest.mark.skipif(not has_task_state_store(), reason="the journal is a Variable")
below_3_3 = pytest.mark.skipif(has_task_state_store(), reason="the journal is no Variable")


@pytest.mark.parametrize(("before", "after"), [(1, 0), (3, 2), (0, 0), (1, 1), (0, 2), (2, 0)])
def test_clear_starts_a_new_run_although_retries_were_edited(
    before: int, after: int, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A clear after a success starts the job again, whatever the retries were and are."""
    task_runner.ti.max_tries = before
    task_runner.run(lambda: migrate(retries=before))
    task_runner.clear(retries=after)
    result = task_runner.run(lambda: migrate(retries=after))
    assert (result["submission_id"], len(sim.runs(JOB))) == (2, 2)


@pytest.mark.parametrize("wait", [True, False], ids=["waits", "start only"])
def test_retry_after_a_clear_of_another_task_is_a_retry(
    wait: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Clearing another task of the DAG run does not make a retry start the job again."""
    task_runner.ti.max_tries = 2

    def attempt() -> Any:
        return migrate(retries=2, wait_for_completion=wait)

    task_runner.run(attempt)
    task_runner.clear_another_task()
    task_runner.retry()
    assert task_runner.run(attempt)["submission_id"] == 1
    assert len(sim.runs(JOB)) == 1


@pytest.mark.parametrize("passed", [0, 60], ids=["noted", "not noted"])
@pytest.mark.parametrize("cleared", ["this task", "another task"])
def test_edited_retries_and_a_clear_while_the_dag_run_goes_on_are_doubt(
    cleared: str, passed: int, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Where nothing tells a clear from a retry, nothing is started or taken over, until the task is
    cleared once more.
    """
    task_runner.ti.max_tries = 1
    succeed_unseen(task_runner, passed)
    if cleared == "this task":
        task_runner.clear(retries=0, running=True)
    else:
        task_runner.retries = 0
        task_runner.clear_another_task()
        task_runner.retry()
    with pytest.raises(errors.CdmStartUncertain, match="clear it once more"):
        task_runner.run(migrate)
    assert len(sim.runs(JOB)) == 1
    task_runner.clear(retries=0, running=True)
    assert task_runner.run(migrate)["submission_id"] == 2


def succeed_unseen(task_runner: TaskRunner, passed: int) -> None:
    """Run an attempt whose run succeeds: by its end, or if seconds are given, only after it."""
    if not passed:
        task_runner.run(migrate)
        return
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=1, poll_interval=1))
    task_runner.advance(passed)


def test_retry_with_edited_retries_takes_over_a_success_if_all_clears_are_counted(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Airflow 3.2 and later show that nothing was cleared; before, that is in doubt."""
    task_runner.ti.max_tries = 1
    first = task_runner.run(migrate)
    task_runner.retries = 0
    task_runner.retry()
    if ALL_CLEARS_ARE_COUNTED:
        assert task_runner.run(migrate) == first
    else:
        with pytest.raises(errors.CdmStartUncertain, match="clear it once more"):
            task_runner.run(migrate)
    assert len(sim.runs(JOB)) == 1


def test_retry_in_a_dag_run_made_anew_never_takes_over_an_earlier_success(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The first attempt of the new DAG run died before its intent: the second starts the job, or,
    where the journal outlives its DAG run, ends in doubt.
    """
    task_runner.ti.max_tries = 1
    task_runner.run(migrate)
    task_runner.make_dag_run_anew(retries=1)
    task_runner.retry()
    if has_task_state_store():
        assert task_runner.run(migrate)["submission_id"] == 2
    else:
        with pytest.raises(errors.CdmStartUncertain, match="clear it once more"):
            task_runner.run(migrate)


def test_retry_after_success_starts_nothing_whatever_failed_after_execute(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A failure after ``execute``, such as in ``post_execute``, does not run the job again."""
    task_runner.ti.max_tries = 1
    first = task_runner.run(migrate)
    task_runner.retry()
    assert task_runner.run(migrate) == first
    assert len(sim.runs(JOB)) == 1


def test_recreated_dag_run_starts_a_new_run(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A journal of a deleted DAG run with the same ids is not taken for a success."""
    task_runner.run(migrate)
    assert task_runner.run(migrate)["submission_id"] == 2


def test_two_operators_in_one_task_have_a_run_each(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A ``@task`` function that executes two operators for one job gets two runs."""

    class Both(CdmStartJobOperator):
        def execute(self, context: Any) -> Any:
            return [migrate(task_id=name).execute(context)["submission_id"] for name in "aab"]

    def both() -> Any:
        return Both(task_id="a_task", job_name=JOB)

    task_runner.ti.max_tries = 1
    assert task_runner.run(both) == [1, 2, 3]
    # The retries that count are those of the task, not those of the operators.
    task_runner.clear_another_task()
    task_runner.retry()
    assert task_runner.run(both) == [1, 2, 3]


@below_3_3
def test_names_of_variables_do_not_collide(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Two tasks whose ids read alike when they are joined have journals of their own."""
    other = task_runner.another_task()
    other.ti.run_id = task_runner.ti.run_id
    task_runner.ti.dag_id, task_runner.ti.task_id = "sales", "eu__load"
    other.ti.dag_id, other.ti.task_id = "sales__eu", "load"
    assert task_runner.run(migrate)["submission_id"] == 1
    other.ti.max_tries = 1
    other.retry()
    assert other.run(migrate)["submission_id"] == 2


@from_3_3
@pytest.mark.parametrize(
    "stored",
    [
        "{}",
        "[]",
        '"text"',
        '{"version": 2}',
        '{"version": 2, "fingerprint": 5, "generation": {}}',
        '{"version": 2, "fingerprint": "f", "generation": [], "sends": 1}',
        '{"version": 2, "fingerprint": "f", "generation": {}, "sent_at": "x", "sends": 1}',
        '{"version": 2, "fingerprint": "f", "generation": {}, "run": {"submission_id": "1"}}',
    ],
)
def test_malformed_journal_is_an_error(
    stored: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A journal that is not what was written is a clear error, and nothing is started."""
    task_runner.store.set("cdm_start_t", stored)
    with pytest.raises(errors.CdmJournalError, match="cannot be read"):
        task_runner.run(migrate)
    assert sim.runs(JOB) == []


@from_3_3
def test_start_in_the_future_does_not_make_a_retry_search_for_hours(
    sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A start that a wrong clock dates in the future is searched for as if it were sent now."""
    task_runner.ti.max_tries = 1
    record = {
        "version": 2,
        "fingerprint": "f",
        "generation": {"max_tries": 1, "clear_number": 0},
        "cluster_id": sim.cluster_id,
        "job_name": JOB,
        "sends": 1,
        "intent_at": clock.now(),
        "sent_at": clock.now() + 10 * 3600,
        "baseline_known": True,
    }
    task_runner.store.set("cdm_start_t", json.dumps(record))
    task_runner.retry()
    began = clock.now()
    assert task_runner.run(migrate)["submission_id"] == 1
    assert clock.now() - began < 300


@pytest.mark.parametrize("deferrable", [False, True], ids=["reschedule", "deferrable"])
def test_rescheduled_sensor_waits_for_the_run_of_its_own_attempt(
    deferrable: bool, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """What an earlier attempt found out about another run is not used after a clear."""
    sim.add_job(JOB, seconds=30)
    first = sim.start(JOB, variables={"dt": DAY}).submission_id

    def wait_for(number: int) -> Any:
        return CdmSubmissionSensor(
            task_id="t",
            job_name=JOB,
            submission_id=number,
            mode="reschedule",
            poke_interval=20,
            timeout=10,
            deferrable=deferrable,
            stalled_after=None,
        )

    for attempt in range(2):
        number = first if attempt == 0 else sim.start(JOB, variables={"dt": DAY}).submission_id
        for _ in range(2):
            try:
                result = task_runner.run(partial(wait_for, number))
                break
            except (errors.CdmWaitTimeout, AirflowSensorTimeout):
                task_runner.advance(60)
        assert result["submission_id"] == number
        task_runner.clear()
