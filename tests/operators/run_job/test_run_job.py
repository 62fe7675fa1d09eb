"""Creation, run, failures and deletion of the job."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm._compat import AirflowException
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmRunJobOperator
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.operators.run_job.task import (
    config_block,
    created_job_names,
    definition,
    each_mode,
    migrate,
    sent_routes,
)
from tests.support.order_databases import ROWS, OrderDatabases
from tests.support.task_harness import TaskRunner


@each_mode
def test_job_is_created_run_once_and_deleted(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases
) -> None:
    """The job is created, started once with the variables, waited for and deleted."""
    result = task_runner.run(lambda: migrate(**mode))
    assert (result["status"], result["counters"]["ROWS_WRITTEN"]) == ("SUCCEEDED", ROWS)
    assert sent_routes(sim) == ["create_job", "start", "delete_job"]
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])
    assert created_job_names(sim) == [result["job_name"]]
    assert result["job_name"].startswith("orders_")


def test_tasks_of_two_dates_run_at_the_same_time(
    sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases
) -> None:
    """Tasks of two dates run at the same time, since each has a job of its own."""
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5))
    other = task_runner.another_task()
    other.run(lambda: migrate(variables={"dt": "2025-01-03"}))
    task_runner.retry()
    task_runner.run(migrate)
    first, second = (sim.runs(name)[0] for name in created_job_names(sim))
    assert second.created < first.updated
    assert (databases.count_rows(), databases.count_rows("2025-01-03"), sim.jobs()) == (
        ROWS,
        ROWS,
        [],
    )


def test_variables_are_optional(
    sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases
) -> None:
    """A definition that holds the date itself needs no variables."""
    task_runner.run(lambda: migrate(definition=definition("day = '2025-01-04'"), variables=None))
    assert (databases.count_rows("2025-01-04"), databases.count_rows()) == (ROWS, 0)


def test_job_names_differ_by_map_index_and_fit_the_limit(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Each mapped task instance has a job of its own, and long names are cut to the length that CDM
    accepts.
    """
    long = definition(name="ü" * 240)
    for index in (-1, 0, 1):
        task_runner.ti.map_index = index
        task_runner.run(lambda: migrate(definition=long))
    job_names = created_job_names(sim)
    assert len(job_names) == 3
    assert {len(name) for name in job_names} == {240}


@each_mode
def test_failed_run_deletes_the_job_and_is_retried_with_a_new_one(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases
) -> None:
    """The error names CDM's reason and the job is deleted; the retry creates and runs it again."""
    task_runner.ti.max_tries = 1
    wrong_definition = definition(target="nothing")
    with pytest.raises(errors.CdmSubmissionFailed, match="nothing"):
        task_runner.run(lambda: migrate(definition=wrong_definition, **mode))
    assert sim.jobs() == []
    task_runner.retry()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 2
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])


def test_keep_job_on_failure_keeps_the_job_until_the_next_attempt(
    sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases
) -> None:
    """With ``keep_job_on_failure`` a failed job is kept, and the next attempt updates, runs and
    deletes it.
    """
    task_runner.ti.max_tries = 1
    wrong_definition = definition(target="nothing")
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(lambda: migrate(definition=wrong_definition, keep_job_on_failure=True))
    assert sim.jobs() == created_job_names(sim)
    task_runner.retry()
    task_runner.run(lambda: migrate(keep_job_on_failure=True))
    assert [route for route in sent_routes(sim) if route != "create_job"] == [
        *("start", "update_job", "start", "delete_job"),
    ]
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])


@each_mode
def test_wait_timeout_keeps_the_job_of_the_active_run(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases
) -> None:
    """After a timeout the job of the active run is kept, and a cleared task follows that run and
    deletes the job.
    """
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5, **mode))
    assert len(sim.jobs()) == 1
    task_runner.clear()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 1
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])


@each_mode
def test_on_giving_up_stop_removes_run_and_job(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """With ``on_giving_up="stop"`` the last attempt stops the run and deletes the job."""
    arguments = {"wait_timeout": 5, "poll_interval": 5, "on_giving_up": "stop", **mode}
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(**arguments))
    assert sim.runs(created_job_names(sim)[0])[0].status == "STOPPED"
    assert sim.jobs() == []


@each_mode
def test_changed_definition_gets_a_run_of_its_own_after_a_clear(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases
) -> None:
    """With another definition, a retry starts nothing while the run of the old one is active; a
    cleared task waits for it and then starts its own.
    """
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5, **mode))
    task_runner.retry()
    with pytest.raises(errors.CdmStartUncertain, match="had other arguments and started run 1"):
        task_runner.run(lambda: migrate(definition=definition("day = '2025-01-04'"), **mode))
    task_runner.clear()
    result = task_runner.run(lambda: migrate(definition=definition("day = '2025-01-04'"), **mode))
    assert (result["submission_id"], result["status"]) == (2, "SUCCEEDED")
    assert [route for route in sent_routes(sim) if route != "create_job"] == [
        *("start", "update_job", "start", "delete_job"),
    ]
    assert (databases.count_rows(), databases.count_rows("2025-01-04"), sim.jobs()) == (
        ROWS,
        ROWS,
        [],
    )


@each_mode
def test_job_deleted_by_somebody_else_is_run_again_only_after_a_clear(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """The outcome of a run whose job was deleted is unknown, so no retry repeats it, but a clear
    does.
    """
    task_runner.ti.max_tries = 1
    jobs = sim._backend.clusters[sim.cluster_id].jobs
    started_at = clock.now()
    deleted: list[Any] = []

    def delete() -> None:
        if not deleted and clock.now() > started_at + 20:
            deleted.append(jobs.popitem())

    clock.subscribe(delete)
    for _ in range(3):
        with pytest.raises(errors.CdmOutcomeUnknown):
            task_runner.run(lambda: migrate(**mode))
        task_runner.retry()
    assert (len(deleted), sent_routes(sim)) == (1, ["create_job", "start"])
    task_runner.clear()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 2
    assert sim.jobs() == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("route", ["create_job", "start", "delete_job"])
def test_lost_answer_leads_to_one_run_and_no_job(
    route: str, when: Any, sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases
) -> None:
    """Whichever request or answer is lost, the job runs once and is deleted."""
    sim.fail(route, "drop", when)
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])


def test_task_succeeds_when_the_job_cannot_be_deleted(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A migration that succeeded is a success even if its job cannot be deleted for minutes."""
    sim.fail("delete_job", "status", status=503, times=None)
    started_at = sim.clock.now()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert (databases.count_rows(), sim.jobs()) == (ROWS, created_job_names(sim))
    assert sim.clock.now() - started_at > 300


def test_deletion_waits_for_the_quota(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The deletion of a job is repeated until its quota allows it."""
    sim.fail("delete_job", "status", status=429, times=12)
    task_runner.run(migrate)
    assert sim.jobs() == []


def test_first_attempt_does_not_read_the_job(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A first attempt does not read the job definition, since such reads have a small quota."""
    task_runner.run(migrate)
    assert "show_job" not in [request.route for request in sim.requests]


@pytest.mark.long
@pytest.mark.parametrize(
    ("block", "message"),
    [
        (config_block("schedulerConfig", isSchedulerJob="true"), "isSchedulerJob=true"),
        (config_block("schedulerConfig", disposableType="DELETE_AFTER_SUCCEED"), "disposableType"),
    ],
)
def test_definition_with_a_schedule_or_self_deletion_is_refused(
    block: dict[str, Any], message: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A job that CDM itself starts or deletes cannot be run exactly once, so it is refused before
    anything is sent.
    """
    with pytest.raises(errors.CdmConfigError, match=message):
        task_runner.run(lambda: migrate(definition=definition(driver=block)))
    assert sim.requests == []


def test_arguments_of_the_start_operator_apply() -> None:
    """Arguments of ``CdmStartJobOperator`` are accepted from default arguments and by mapping,
    except ``job_name``.
    """
    task = migrate(default_args={"poll_interval": 7, "on_giving_up": "stop"})
    assert (task.poll_interval, task.on_giving_up) == (7, "stop")
    mapped = CdmRunJobOperator.partial(task_id="t", definition=definition()).expand(
        variables=[{"dt": "a"}, {"dt": "b"}]
    )
    assert set(mapped.partial_kwargs) >= {"definition"}
    # Airflow 2.11 wraps the TypeError.
    with pytest.raises((TypeError, AirflowException), match="job_name"):
        migrate(job_name="a")
