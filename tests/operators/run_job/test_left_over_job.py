"""A job that is there already: it runs exactly as defined, whatever an earlier attempt left."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.session import CdmSession
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

DAYS = [f"2025-01-0{day}" for day in range(1, 5)]


def leave_job(
    task_runner: TaskRunner,
    earlier: dict[str, Any],
    begin_next: Callable[[Any], None] = TaskRunner.retry,
    **arguments: Any,
) -> None:
    """Run an attempt that ends before its run does, so that its job stays, and begin the next."""
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(
            lambda: migrate(
                definition=earlier, wait_timeout=5, poll_interval=5, retries=1, **arguments
            )
        )
    begin_next(task_runner)


def clear(task_runner: TaskRunner) -> None:
    """Clear the task, which has one retry."""
    task_runner.clear(retries=1)


def before_request(
    monkeypatch: pytest.MonkeyPatch, end_of_path: str, act: Callable[[], Any]
) -> None:
    """Let something happen in CDM immediately before each request of one kind."""
    original = CdmSession._exchange

    def exchange(self: CdmSession, request: Any, *arguments: Any) -> Any:
        if request.url.partition("?")[0].endswith(end_of_path):
            act()
        return original(self, request, *arguments)

    monkeypatch.setattr(CdmSession, "_exchange", exchange)


def deleter(sim: CdmSimulator, times: int) -> Callable[[], Any]:
    """Return a function that deletes all jobs, at its first calls, as a late kill does."""
    jobs, calls = sim._backend.clusters[sim.cluster_id].jobs, iter(range(times))
    return lambda: jobs.clear() if next(calls, None) is not None else None


@each_mode
def test_condition_that_was_removed_is_not_left(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases
) -> None:
    """A condition that the definition no longer has is not left in the job, so all rows arrive."""
    leave_job(task_runner, definition("day = '2025-01-04'"), clear, **mode)
    result = task_runner.run(lambda: migrate(definition=definition(None), retries=1, **mode))
    assert result["counters"]["ROWS_WRITTEN"] == 4 * ROWS
    assert [databases.count_rows(day) for day in DAYS] == [ROWS, ROWS, ROWS, 2 * ROWS]
    assert (sent_routes(sim).count("start"), sim.jobs()) == (2, [])


@pytest.mark.parametrize(
    "earlier",
    [
        {**definition(), "from-link-name": "warehouse"},
        {**definition(), "to-link-name": "shop"},
        {**definition(), "job_type": "BATCH_JOB"},
        {**definition(), "sub-type": "other"},
        definition(driver=config_block("throttlingConfig", numExtractors="4")),
    ],
    ids=["source", "target", "type", "key", "driver"],
)
def test_nothing_of_an_earlier_definition_is_left(
    earlier: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """Whatever an earlier definition said, the job that is started is the one that is defined."""
    leave_job(task_runner, earlier, clear)
    task_runner.run(lambda: migrate(retries=1))
    (name,) = created_job_names(sim)
    (update,) = (request for request in sim.requests if request.route == "update_job")
    assert update.json()["jobs"] == [{**definition(), "job_type": "NORMAL_JOB", "name": name}]
    assert sent_routes(sim)[-2:] == ["start", "delete_job"]


def with_password(password: str) -> dict[str, Any]:
    """Return the definition of a job that fails, with a secret that a template gave."""
    secret = config_block("extra", password=f"{{{{ {password} }}}}")
    return definition(target="nothing", driver=secret)


@pytest.mark.parametrize("leave", ["noted", "not noted"])
def test_changed_password_is_sent(
    leave: str, sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """CDM shows no passwords, so a job that is left is updated also when it looks unchanged."""
    if leave == "noted":
        task_runner.ti.max_tries = 1
        with pytest.raises(errors.CdmSubmissionFailed):
            task_runner.run(
                lambda: migrate(definition=with_password("old"), keep_job_on_failure=True)
            )
        task_runner.retry()
    else:
        leave_job(task_runner, with_password("old"))
        clock.advance(60)
    with pytest.raises(errors.CdmSubmissionFailed, match="nothing"):
        task_runner.run(lambda: migrate(definition=with_password("new")))
    routes = [route for route in sent_routes(sim) if route != "create_job"]
    assert routes == ["start", "update_job", "start", "delete_job"]
    (update,) = (request for request in sim.requests if request.route == "update_job")
    assert "{{ new }}" in str(update.json())


@pytest.mark.parametrize("next_attempt", [TaskRunner.retry, TaskRunner.clear])
def test_job_that_somebody_changed_is_put_right(
    next_attempt: Callable[[Any], None],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    clock: ManualClock,
) -> None:
    """A job that was changed in CDM after its worker died runs as defined all the same."""
    leave_job(task_runner, definition())
    (name,) = sim.jobs()
    sim.stop(name)
    clock.advance(60)
    sim.add_job(name, wire={**definition("day = '2025-01-04'"), "name": name})
    next_attempt(task_runner)
    assert task_runner.run(migrate)["submission_id"] == 2
    assert [databases.count_rows(day) for day in DAYS] == [0, ROWS, 0, 0]


def test_success_is_kept_when_the_job_can_no_longer_be_updated(
    sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases, clock: ManualClock
) -> None:
    """A job whose run succeeded is not updated: its run is the result of the task."""
    leave_job(task_runner, definition())
    clock.advance(60)
    sim.fail("update_job", "status", status=400, times=None)
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])


def test_left_over_job_costs_two_calls_more(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A job that is there is not read, since such reads have a small quota: its status and an
    update are all that comes between.
    """
    sim.fail("create_job", "drop", "after")
    task_runner.run(migrate)
    routes = [request.route for request in sim.requests]
    begin = routes.index("create_job")
    assert routes[begin : routes.index("start")] == [
        *("create_job", "create_job", "status", "update_job", "submissions"),
    ]


@pytest.mark.parametrize("end_of_path", ["/start", "/submissions"])
@each_mode
def test_job_that_is_deleted_before_its_start_is_created_again(
    end_of_path: str,
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the kill of an earlier attempt deletes the job before this one starts it, it is created
    again, and runs once.
    """
    before_request(monkeypatch, end_of_path, deleter(sim, times=2))
    assert task_runner.run(lambda: migrate(**mode))["status"] == "SUCCEEDED"
    (name,) = created_job_names(sim)
    assert (len(sim.runs(name)), databases.count_rows(), sim.jobs()) == (1, ROWS, [])


@pytest.mark.parametrize("end_of_path", ["/status", "/cdm/job/{name}"])
def test_job_that_is_deleted_before_its_update_is_created_again(
    end_of_path: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same holds for a job that was left, and that goes away while it is being updated."""
    task_runner.ti.max_tries = 1
    wrong = definition(target="nothing")
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(lambda: migrate(definition=wrong, keep_job_on_failure=True))
    (name,) = sim.jobs()
    before_request(monkeypatch, end_of_path.format(name=name), deleter(sim, times=1))
    task_runner.retry()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])


def test_job_that_is_always_deleted_ends_in_an_error_with_a_retry(
    sim: CdmSimulator, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that somebody deletes again and again is not created for ever, and a retry may follow,
    since nothing was started.
    """
    before_request(monkeypatch, "/start", deleter(sim, times=100))
    with pytest.raises(errors.CdmError, match="was deleted 4 times") as failure:
        task_runner.run(migrate)
    assert not failure.value.final
    assert sent_routes(sim).count("create_job") == 4
    assert sim.runs(created_job_names(sim)[0]) == []


def test_lost_start_of_a_deleted_job_is_not_sent_again(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the answer of the start is lost and the job is gone then, nobody knows whether it ran:
    nothing is started again, also not by a retry.
    """
    task_runner.ti.max_tries = 1
    sim.fail("start", "drop", "after")
    delete = deleter(sim, times=1)
    before_request(
        monkeypatch, "/submissions", lambda: delete() if "start" in sent_routes(sim) else None
    )
    for _ in range(2):
        with pytest.raises(errors.CdmOutcomeUnknown):
            task_runner.run(migrate)
        task_runner.retry()
    assert sent_routes(sim).count("start") == 1


def test_missing_link_is_still_named(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A link that does not exist is reported as it is, once."""
    wrong = {**definition(), "to-link-name": "nowhere"}
    with pytest.raises(errors.CdmNotFound, match="nowhere"):
        task_runner.run(lambda: migrate(definition=wrong))
    assert sent_routes(sim) == ["create_job"]


def test_log_says_that_the_job_was_gone(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    """The log says that a job was deleted only where it was."""
    monkeypatch.setattr(CdmRunJobOperator, "log", logging.getLogger("the task"))
    task_runner.run(migrate)
    assert "': deleted" in log.text
    log.clear()
    sim.fail("delete_job", "drop", "after")
    task_runner.run(lambda: migrate(variables={"dt": "2025-01-03"}))
    assert ": deleted" not in log.text
    assert "': no longer there" in log.text
