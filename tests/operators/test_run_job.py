"""``CdmRunJobOperator``: its job is created, run exactly once with real rows, and deleted."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.operators import CdmRunJobOperator
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from airflow_provider_cdm.tasks.journal import TaskStore
from airflow_provider_cdm.triggers.owned_job import CdmOwnedJobTrigger
from tests.support.task_harness import TaskRunner

DAY = "2025-01-02"
ROWS = 25
MODES = {"on the worker": {"deferrable": False}, "deferred": {"deferrable": True}}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


@pytest.fixture
def sim(clock: ManualClock, tmp_path: Path) -> Iterator[CdmSimulator]:
    """Start a simulator with links to two databases and without a job."""
    databases = {name: tmp_path / f"{name}.db" for name in ("shop", "warehouse")}
    for path in databases.values():
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE orders (id INTEGER, day TEXT)")
    with sqlite3.connect(databases["shop"]) as database:
        rows = [(n, f"2025-01-0{day}") for day in range(1, 5) for n in range(ROWS)]
        database.executemany("INSERT INTO orders VALUES (?, ?)", rows)
    links = [{"name": name, "url": f"sqlite:///{path}"} for name, path in databases.items()]
    seconds = {"booting": 1, "running": 30}
    config = {"seconds": seconds, "clusters": [{"name": "demo", "links": links}]}
    with CdmSimulator(config, clock=clock) as simulator:
        yield simulator


@pytest.fixture
def count_rows(tmp_path: Path) -> Callable[[str], int]:
    """Return a function that counts the rows of a day in the target."""

    def count_rows(day: str = DAY) -> int:
        with sqlite3.connect(tmp_path / "warehouse.db") as database:
            count = database.execute("SELECT count(*) FROM orders WHERE day = ?", (day,))
            return int(count.fetchone()[0])

    return count_rows


def config_block(block: str, **values: Any) -> dict[str, Any]:
    """Return a block of a definition with one configuration."""
    listed = [{"name": f"{block}.{name}", "value": value} for name, value in values.items()]
    return {"configs": [{"name": block, "inputs": listed}]}


def definition(
    where: str = "day = '${dt}'",
    target: str = "orders",
    name: str = "orders",
    driver: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the definition of a job that moves the rows of a day."""
    body = {
        "name": name,
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": config_block("fromJobConfig", tableName="orders", whereClause=where),
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": config_block("toJobConfig", tableName=target),
    }
    return {**body, "driver-config-values": driver} if driver else body


def migrate(**arguments: Any) -> CdmRunJobOperator:
    """Make the operator under test."""
    defaults = {"task_id": "t", "definition": definition(), "variables": {"dt": DAY}}
    return CdmRunJobOperator(**{**defaults, **MODES["on the worker"], **arguments})


def sent_routes(sim: CdmSimulator) -> list[str]:
    """Return the routes of the calls that CDM received, without logins and calls that only read."""
    read_routes = ("token", "show_job", "status", "submissions")
    return [request.route for request in sim.requests if request.route not in read_routes]


def created_job_names(sim: CdmSimulator) -> list[str]:
    """Return the names of all jobs ever created, oldest first."""
    names = [r.json()["jobs"][0]["name"] for r in sim.requests if r.route == "create_job"]
    return list(dict.fromkeys(names))


@each_mode
def test_job_is_created_run_once_and_deleted(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any
) -> None:
    """The job is created, started once with the variables, waited for and deleted."""
    result = task_runner.run(lambda: migrate(**mode))
    assert (result["status"], result["counters"]["ROWS_WRITTEN"]) == ("SUCCEEDED", ROWS)
    assert sent_routes(sim) == ["create_job", "start", "delete_job"]
    assert (count_rows(), sim.jobs()) == (ROWS, [])
    assert created_job_names(sim) == [result["job_name"]]
    assert result["job_name"].startswith("orders_")


def test_tasks_of_two_dates_run_at_the_same_time(
    sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any
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
    assert (count_rows(), count_rows("2025-01-03"), sim.jobs()) == (ROWS, ROWS, [])


def test_variables_are_optional(
    sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any
) -> None:
    """A definition that holds the date itself needs no variables."""
    task_runner.run(lambda: migrate(definition=definition("day = '2025-01-04'"), variables=None))
    assert (count_rows("2025-01-04"), count_rows()) == (ROWS, 0)


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


@each_mode
def test_retry_after_a_crash_at_any_step_moves_the_rows_once(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    count_rows: Any,
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
        before = count_rows()
        with monkeypatch.context() as patch:
            ProcessKiller(patch, step)
            # A trigger reports what raised in it, so the process survives.
            with pytest.raises((Killed, errors.CdmError)):
                task_runner.run(lambda: migrate(**mode))
        task_runner.retry()
        if step == killer.steps and not task_runner.store.content:
            continue  # below Airflow 3.3 the journal is deleted by then: a documented limit
        assert task_runner.run(lambda: migrate(**mode))["status"] == "SUCCEEDED", step
        assert (count_rows() - before, sim.jobs()) == (ROWS, []), step
        assert sent_routes(sim).count("start") == 1, step


def test_retry_after_success_creates_no_job(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A retry of an attempt that died right before it reported success returns the same result.

    Below Airflow 3.3 the journal is already deleted at that point, which is a documented limit.
    """
    task_runner.ti.max_tries = 1
    first = task_runner.run(migrate)
    if not task_runner.store.content:
        pytest.skip("no task state store in this Airflow")
    task_runner.retry()
    assert task_runner.run(migrate) == first
    assert sent_routes(sim).count("create_job") == 1


# Kills


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
    next_attempt: Callable[[Any], None], sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any
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
    assert (count_rows(), sim.jobs()) == (ROWS, [])


@pytest.mark.parametrize("poll_interval", [0.1, 2])
def test_retry_runs_the_job_again_when_the_killed_process_survives(
    poll_interval: float,
    sim: CdmSimulator,
    task_runner: TaskRunner,
    count_rows: Any,
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
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(lambda: task)
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert (count_rows(), sim.jobs()) == (ROWS, [])


def test_on_kill_after_the_end_of_the_run_moves_no_rows_again(
    sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any, clock: ManualClock
) -> None:
    """A run that succeeds before it can be stopped is not repeated by the retry."""
    task_runner.ti.max_tries = 1
    task = run_until_wait_timeout(task_runner)
    clock.advance(60)
    task.on_kill()
    assert len(sim.jobs()) == 1
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (count_rows(), sim.jobs()) == (ROWS, [])


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
    count_rows: Any,
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
    assert (len(killed), count_rows(), sim.jobs()) == (1, ROWS, [])


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

    async def read_task_state(_: Any) -> str | None:
        return state

    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.aget_task_state", read_task_state)
    run_until_wait_timeout(task_runner)
    (name,) = created_job_names(sim)
    trigger = CdmOwnedJobTrigger(
        job_name=name, cluster_id=sim.cluster_id, submission_id=1, cancel_on_kill=True
    )
    asyncio.run(trigger.on_kill())
    assert sim.jobs() == [name] * len(kept_jobs)
    assert sim.runs(name)[0].status == ("RUNNING" if kept_jobs else "STOPPED")


def test_operator_defers_to_the_trigger_that_deletes_the_job(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The operator defers to the trigger that deletes the job on a kill."""
    task_runner.run(lambda: migrate(**MODES["deferred"]))
    assert task_runner.trigger_paths == ["airflow_provider_cdm.triggers.CdmOwnedJobTrigger"]


# Failures and timeouts


@each_mode
def test_failed_run_deletes_the_job_and_is_retried_with_a_new_one(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any
) -> None:
    """The error names CDM's reason and the job is deleted; the retry creates and runs it again."""
    task_runner.ti.max_tries = 1
    wrong_definition = definition(target="nothing")
    with pytest.raises(errors.CdmSubmissionFailed, match="nothing"):
        task_runner.run(lambda: migrate(definition=wrong_definition, **mode))
    assert sim.jobs() == []
    task_runner.retry()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 2
    assert (count_rows(), sim.jobs()) == (ROWS, [])


def test_keep_job_on_failure_keeps_the_job_until_the_next_attempt(
    sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any
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
    assert (count_rows(), sim.jobs()) == (ROWS, [])


@each_mode
def test_wait_timeout_keeps_the_job_of_the_active_run(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any
) -> None:
    """After a timeout the job of the active run is kept, and a cleared task follows that run and
    deletes the job.
    """
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5, **mode))
    assert len(sim.jobs()) == 1
    task_runner.clear()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 1
    assert (count_rows(), sim.jobs()) == (ROWS, [])


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
def test_changed_definition_gets_a_run_of_its_own(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any
) -> None:
    """A retry with another definition waits for the run of the old definition and then starts its
    own.
    """
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5, **mode))
    task_runner.retry()
    result = task_runner.run(lambda: migrate(definition=definition("day = '2025-01-04'"), **mode))
    assert (result["submission_id"], result["status"]) == (2, "SUCCEEDED")
    assert [route for route in sent_routes(sim) if route != "create_job"] == [
        *("start", "update_job", "start", "delete_job"),
    ]
    assert (count_rows(), count_rows("2025-01-04"), sim.jobs()) == (ROWS, ROWS, [])


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
    route: str, when: Any, sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any
) -> None:
    """Whichever request or answer is lost, the job runs once and is deleted."""
    sim.fail(route, "drop", when)
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (count_rows(), sim.jobs()) == (ROWS, [])


def test_task_succeeds_when_the_job_cannot_be_deleted(
    sim: CdmSimulator, task_runner: TaskRunner, count_rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A migration that succeeded is a success even if its job cannot be deleted for minutes."""
    sim.fail("delete_job", "status", status=503, times=None)
    started_at = sim.clock.now()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert (count_rows(), sim.jobs()) == (ROWS, created_job_names(sim))
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
    with pytest.raises(TypeError):
        migrate(job_name="a")
