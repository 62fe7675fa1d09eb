"""Crashes and kills of the task, and the attempts after them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm._compat import KILLED_TASKS_GO_ON
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.operators import CdmRunJobOperator
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.tasks.journal import TaskStore
from airflow_provider_cdm.triggers.owned_job import CdmOwnedJobTrigger
from tests.operators.run_job.task import (
    MODES,
    created_job_names,
    each_mode,
    migrate,
    sent_routes,
)
from tests.support.order_databases import ROWS, OrderDatabases
from tests.support.task_harness import TaskRunner
from tests.support.virtual_time import VirtualTime


class Killed(BaseException):
    """Stands for the death of the process."""


class ProcessKiller:
    """Kills the process at one of its steps: before or after an exchange or a change of the
    journal.

    :param step: number of the step at which to kill, counted from 1; 0 to only count the steps.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        self.steps, self.kill_at = 0, step
        self._wrap(monkeypatch, CdmSession, "_exchange")
        self._wrap(monkeypatch, TaskStore, "write")
        self._wrap(monkeypatch, TaskStore, "delete")

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def with_steps(*arguments: Any) -> Any:
            self._count_step()
            result = original(*arguments)
            self._count_step()
            return result

        monkeypatch.setattr(owner, name, with_steps)

    def _count_step(self) -> None:
        self.steps += 1
        if self.steps == self.kill_at:
            raise Killed


@pytest.mark.long
@each_mode
def test_retry_after_a_crash_at_any_step_moves_the_rows_once(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At whatever step an attempt dies, the retry starts no second run, moves every row once and
    leaves no job.
    """
    task_runner.ti.max_tries = 1
    with monkeypatch.context() as patch:
        killer = ProcessKiller(patch, step=0)
        task_runner.run(lambda: migrate(**mode))
    assert killer.steps > 20
    for step in range(1, killer.steps + 1):
        sim.reset()
        task_runner = task_runner.another_task()
        task_runner.ti.max_tries = 1
        before = databases.count_rows()
        with monkeypatch.context() as patch:
            ProcessKiller(patch, step)
            # A trigger reports what raised in it, so the process survives.
            with pytest.raises((Killed, errors.CdmError)):
                task_runner.run(lambda: migrate(**mode))
        task_runner.retry()
        if step == killer.steps and not task_runner.store.content:
            continue  # below Airflow 3.3 the journal is deleted by then: a documented limit
        assert task_runner.run(lambda: migrate(**mode))["status"] == "SUCCEEDED", step
        assert (databases.count_rows() - before, sim.jobs()) == (ROWS, []), step
        assert sent_routes(sim).count("start") == 1, step


def test_retry_after_success_creates_no_job(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A retry of an attempt that died right before it reported success returns the same result."""
    task_runner.ti.max_tries = 1
    first = task_runner.run(migrate)
    task_runner.retry()
    assert task_runner.run(migrate) == first
    assert sent_routes(sim).count("create_job") == 1


def run_until_wait_timeout(task_runner: TaskRunner, **arguments: Any) -> CdmRunJobOperator:
    """Run an attempt until its wait times out, and return its operator."""
    task = migrate(wait_timeout=5, poll_interval=5, **arguments)
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: task)
    return task


@pytest.mark.parametrize(
    "next_attempt", [TaskRunner.retry, TaskRunner.clear], ids=["retry", "clear"]
)
def test_on_kill_stops_the_run_and_deletes_the_job(
    next_attempt: Callable[[Any], None],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
) -> None:
    """A killed task stops its run and deletes its job, and the next attempt creates and runs it
    again.
    """
    task_runner.ti.max_tries = 1
    run_until_wait_timeout(task_runner).on_kill()
    (name,) = created_job_names(sim)
    assert (sim.runs(name)[0].status, sim.jobs()) == ("STOPPED", [])
    next_attempt(task_runner)
    assert task_runner.run(migrate)["submission_id"] == 2
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])


@pytest.mark.skipif(
    not KILLED_TASKS_GO_ON, reason="Airflow 2 raises an error in a task that it kills"
)
@pytest.mark.parametrize("poll_interval", [0.1, 2])
def test_retry_runs_the_job_again_when_the_killed_process_survives(
    poll_interval: float,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    clock: ManualClock,
) -> None:
    """What a process that survives its kill does afterwards must not prevent the retry from running
    the job again.
    """
    task_runner.ti.max_tries = 1
    task = migrate(poll_interval=poll_interval)
    started_at = clock.now()
    killed: list[CdmRunJobOperator] = []

    def kill() -> None:
        if not killed and clock.now() > started_at + 5:
            killed.append(task)
            task.on_kill()

    clock.subscribe(kill)
    with pytest.raises(errors.CdmKilled):
        task_runner.run(lambda: task)
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])


def test_on_kill_after_the_end_of_the_run_moves_no_rows_again(
    sim: CdmSimulator, task_runner: TaskRunner, databases: OrderDatabases, clock: ManualClock
) -> None:
    """A run that succeeds before it can be stopped is not repeated by the retry."""
    task_runner.ti.max_tries = 1
    task = run_until_wait_timeout(task_runner)
    clock.advance(60)
    task.on_kill()
    assert len(sim.jobs()) == 1
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])


def test_on_kill_does_nothing_without_cancel_on_kill(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """With ``cancel_on_kill=False`` a kill neither stops the run nor deletes the job."""
    run_until_wait_timeout(task_runner, cancel_on_kill=False).on_kill()
    assert sent_routes(sim) == ["create_job", "start"]


@each_mode
def test_attempt_starts_again_when_the_kill_before_it_deletes_its_job(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    clock: ManualClock,
) -> None:
    """A cleared task that attached to the run of a killed attempt starts again when that kill
    deletes the job.
    """
    predecessor = run_until_wait_timeout(task_runner)
    task_runner.clear()
    started_at = clock.now()
    killed: list[CdmRunJobOperator] = []

    def kill() -> None:
        if not killed and clock.now() > started_at:
            killed.append(predecessor)
            predecessor.on_kill()

    clock.subscribe(kill)
    assert task_runner.run(lambda: migrate(poll_interval=2, **mode))["submission_id"] == 2
    assert (len(killed), databases.count_rows(), sim.jobs()) == (1, ROWS, [])


@pytest.mark.parametrize(
    ("state", "kept_jobs"), [("failed", []), (None, []), ("deferred", ["the job"])],
    ids=["marked failed", "cleared", "another triggerer has it"],
)  # fmt: skip
def test_trigger_on_kill_stops_run_and_job_unless_the_task_is_still_deferred(
    state: str | None,
    kept_jobs: list[str],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user who ends the deferred task stops the run and deletes the job, while a move to another
    triggerer does not.
    """
    run_until_wait_timeout(task_runner)
    (name,) = created_job_names(sim)
    kill_in_triggerer(sim, name, state, monkeypatch)
    assert sim.jobs() == [name] * len(kept_jobs)
    assert sim.runs(name)[0].status == ("RUNNING" if kept_jobs else "STOPPED")


def kill_in_triggerer(
    sim: CdmSimulator, name: str, state: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End the deferred wait for run 1 of a job as Airflow does when a user ends its task."""

    async def read_task_state(_: Any) -> str | None:
        return state

    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.aget_task_state", read_task_state)
    trigger = CdmOwnedJobTrigger(
        job_name=name, cluster_id=sim.cluster_id, submission_id=1, cancel_on_kill=True
    )
    asyncio.run(trigger.on_kill())


def test_trigger_on_kill_keeps_the_job_of_a_run_that_succeeded(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    databases: OrderDatabases,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    """A run that succeeds before the trigger can stop it is not repeated by the next attempt."""
    task_runner.ti.max_tries = 1
    run_until_wait_timeout(task_runner)
    (name,) = created_job_names(sim)
    clock.advance(60)
    kill_in_triggerer(sim, name, "up_for_retry", monkeypatch)
    assert (sim.jobs(), "kept, since its run succeeded" in log.text) == ([name], True)
    assert "eleted" not in log.text
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (databases.count_rows(), sim.jobs()) == (ROWS, [])


def test_trigger_on_kill_says_that_a_job_cannot_be_deleted(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    """When the run is stopped and its job cannot be deleted, the log says that and nothing else."""
    run_until_wait_timeout(task_runner)
    (name,) = created_job_names(sim)
    sim.fail("delete_job", "status", status=403, times=None)
    kill_in_triggerer(sim, name, "failed", monkeypatch)
    assert (sim.runs(name)[0].status, sim.jobs()) == ("STOPPED", [name])
    assert f"Job '{name}' stays in CDM for now" in log.text
    assert "could not be stopped" not in log.text


@pytest.mark.parametrize("deleted", ["before the kill", "after the stop"])
@pytest.mark.parametrize("killed_in", ["worker", "triggerer"])
def test_kill_says_that_the_job_no_longer_exists(
    killed_in: str,
    deleted: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """Where the job is gone, a kill neither asks to stop its run nor says that the job stays."""
    task = run_until_wait_timeout(task_runner)
    (name,) = created_job_names(sim)
    jobs = sim._backend.clusters[sim.cluster_id].jobs

    def delete() -> None:
        if deleted == "before the kill" or "stop" in sent_routes(sim):
            jobs.clear()

    delete()
    clock.subscribe(delete)
    if killed_in == "worker":
        task.on_kill()
    else:
        kill_in_triggerer(sim, name, "failed", monkeypatch)
    assert (
        "no longer exists" if deleted == "before the kill" else "no longer there"
    ) in task_log.text
    assert "could not be stopped" not in task_log.text
    assert "stays in CDM" not in task_log.text


def test_retry_says_that_the_job_no_longer_exists(
    sim: CdmSimulator,
    task_runner: TaskRunner,
    task_log: pytest.LogCaptureFixture,
) -> None:
    """Who deleted the job of an earlier attempt is not known, and the log does not claim it."""
    task_runner.ti.max_tries = 1
    run_until_wait_timeout(task_runner)
    sim._backend.clusters[sim.cluster_id].jobs.clear()
    task_runner.retry()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert "no longer exists" in task_log.text
    assert "was deleted when an earlier attempt was killed" not in task_log.text


@pytest.mark.parametrize("killed_in", ["worker", "triggerer"])
def test_kill_deletes_the_job_although_the_clock_is_set(
    killed_in: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    virtual_time: VirtualTime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that is set forward while a run is being stopped does not leave its job in CDM."""
    task = run_until_wait_timeout(task_runner)
    (name,) = created_job_names(sim)

    def set_forward() -> None:
        if "stop" in sent_routes(sim):
            virtual_time.jumped = 7200.0

    clock.subscribe(set_forward)
    sim.fail("status", "status", status=503, times=6, skip=2)
    if killed_in == "worker":
        task.on_kill()
    else:
        kill_in_triggerer(sim, name, "failed", monkeypatch)
    assert virtual_time.jumped
    assert (sim.runs(name)[0].status, sim.jobs()) == ("STOPPED", [])


@pytest.mark.parametrize("later", ["created", "ended"])
@pytest.mark.parametrize("killed_in", ["worker", "triggerer"])
def test_late_kill_leaves_the_job_of_the_next_attempt_alone(
    killed_in: str,
    later: str,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kill that comes when its run has ended deletes the job neither before the next attempt
    starts it nor after that run has ended, when the outcome may not be noted yet.
    """
    task = run_until_wait_timeout(task_runner)
    (name,) = created_job_names(sim)
    wire = sim._backend.clusters[sim.cluster_id].jobs[name].config.to_wire()
    sim.stop(name)
    clock.advance(5)
    if later == "created":
        sim._backend.clusters[sim.cluster_id].jobs.clear()
        sim.add_job(name, wire=wire)
    else:
        sim.start(name, variables={"dt": "2025-01-03"})
        clock.advance(60)
    if killed_in == "worker":
        task.on_kill()
    else:
        kill_in_triggerer(sim, name, "failed", monkeypatch)
    assert sim.jobs() == [name]


def test_operator_defers_to_the_trigger_that_deletes_the_job(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The operator defers to the trigger that deletes the job on a kill."""
    task_runner.run(lambda: migrate(**MODES["deferred"]))
    assert task_runner.trigger_paths == ["airflow_provider_cdm.triggers.CdmOwnedJobTrigger"]
