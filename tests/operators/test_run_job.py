"""A job of its own for each task: made, run exactly once with real rows, and taken away."""

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
    """A cluster between two databases, without a job."""
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
def rows(tmp_path: Path) -> Callable[[str], int]:
    """Count the rows of a day in the target."""

    def rows(day: str = DAY) -> int:
        with sqlite3.connect(tmp_path / "warehouse.db") as database:
            count = database.execute("SELECT count(*) FROM orders WHERE day = ?", (day,))
            return int(count.fetchone()[0])

    return rows


def inputs(block: str, **values: Any) -> dict[str, Any]:
    """A block with one configuration."""
    listed = [{"name": f"{block}.{name}", "value": value} for name, value in values.items()]
    return {"configs": [{"name": block, "inputs": listed}]}


def definition(
    where: str = "day = '${dt}'",
    target: str = "orders",
    name: str = "orders",
    driver: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A job that moves the rows of a day."""
    made = {
        "name": name,
        "from-connector-name": "generic-jdbc-connector",
        "from-link-name": "shop",
        "from-config-values": inputs("fromJobConfig", tableName="orders", whereClause=where),
        "to-connector-name": "generic-jdbc-connector",
        "to-link-name": "warehouse",
        "to-config-values": inputs("toJobConfig", tableName=target),
    }
    return {**made, "driver-config-values": driver} if driver else made


def migrate(**arguments: Any) -> CdmRunJobOperator:
    """Make the operator under test."""
    defaults = {"task_id": "t", "definition": definition(), "variables": {"dt": DAY}}
    return CdmRunJobOperator(**{**defaults, **MODES["on the worker"], **arguments})


def sent(sim: CdmSimulator) -> list[str]:
    """What was asked of CDM, without the token and what only looks."""
    looks = ("token", "show_job", "status", "submissions")
    return [request.route for request in sim.requests if request.route not in looks]


def names(sim: CdmSimulator) -> list[str]:
    """The names of all jobs that there ever were, oldest first."""
    made = [r.json()["jobs"][0]["name"] for r in sim.requests if r.route == "create_job"]
    return list(dict.fromkeys(made))


@each_mode
def test_a_run_of_its_own(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, rows: Any
) -> None:
    """The job is made, started once with the variables, waited for and deleted."""
    result = task_runner.run(lambda: migrate(**mode))
    assert (result["status"], result["counters"]["ROWS_WRITTEN"]) == ("SUCCEEDED", ROWS)
    assert sent(sim) == ["create_job", "start", "delete_job"]
    assert (rows(), sim.jobs()) == (ROWS, [])
    assert names(sim) == [result["job_name"]]
    assert result["job_name"].startswith("orders_")


def test_side_by_side(sim: CdmSimulator, task_runner: TaskRunner, rows: Any) -> None:
    """Tasks of two dates run at the same time, where one job would run one after the other."""
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5))
    other = task_runner.another_task()
    other.run(lambda: migrate(variables={"dt": "2025-01-03"}))
    task_runner.retry()
    task_runner.run(migrate)
    first, second = (sim.runs(name)[0] for name in names(sim))
    assert second.created < first.updated
    assert (rows(), rows("2025-01-03"), sim.jobs()) == (ROWS, ROWS, [])


def test_the_definition_may_hold_the_date_itself(
    sim: CdmSimulator, task_runner: TaskRunner, rows: Any
) -> None:
    """No variables are needed where a job serves one date only."""
    task_runner.run(lambda: migrate(definition=definition("day = '2025-01-04'"), variables=None))
    assert (rows("2025-01-04"), rows()) == (ROWS, 0)


def test_names_differ_by_map_index_and_fit(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Each mapped instance has a job of its own; long names are cut to what CDM takes."""
    long = definition(name="ü" * 240)
    for index in (-1, 0, 1):
        task_runner.ti.map_index = index
        task_runner.run(lambda: migrate(definition=long))
    found = names(sim)
    assert len(found) == 3
    assert {len(name) for name in found} == {240}


class Killed(BaseException):
    """The process is gone."""


class Axe:
    """Kills the process at the n-th of its steps: before or after an exchange, or a note.

    :param at: which step; counting goes on over all attempts.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.steps, self.at = 0, at
        self._around(monkeypatch, CdmSession, "_exchange")
        self._around(monkeypatch, TaskStore, "write")
        self._around(monkeypatch, TaskStore, "delete")

    def _around(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def step(*arguments: Any) -> Any:
            self._strike()
            result = original(*arguments)
            self._strike()
            return result

        monkeypatch.setattr(owner, name, step)

    def _strike(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed


@each_mode
def test_a_crash_at_any_step(
    mode: dict[str, Any],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever an attempt dies, the next one leaves no job behind and no row twice."""
    task_runner.ti.max_tries = 1
    with monkeypatch.context() as patch:
        axe = Axe(patch, at=0)
        task_runner.run(lambda: migrate(**mode))
    assert axe.steps > 20
    for at in range(1, axe.steps + 1):
        sim.reset()
        task_runner = task_runner.another_task()
        task_runner.ti.max_tries = 1
        before = rows()
        with monkeypatch.context() as patch:
            Axe(patch, at)
            # The triggerer outlives a broken wait, and reports it.
            with pytest.raises((Killed, errors.CdmError)):
                task_runner.run(lambda: migrate(**mode))
        task_runner.retry()
        if at == axe.steps and not task_runner.store.content:
            continue  # below Airflow 3.3 the journal is deleted by then: a documented limit
        assert task_runner.run(lambda: migrate(**mode))["status"] == "SUCCEEDED", at
        assert (rows() - before, sim.jobs()) == (ROWS, []), at
        assert sent(sim).count("start") == 1, at


def test_a_retry_after_success_makes_nothing(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """An attempt that died right before its report is taken for what it was.

    Below Airflow 3.3 the journal is deleted by then: a documented limit.
    """
    task_runner.ti.max_tries = 1
    first = task_runner.run(migrate)
    if not task_runner.store.content:
        pytest.skip("no task state store in this Airflow")
    task_runner.retry()
    assert task_runner.run(migrate) == first
    assert sent(sim).count("create_job") == 1


# Kills


def waiting(task_runner: TaskRunner, **arguments: Any) -> CdmRunJobOperator:
    """Run an attempt until it waits, and return its operator."""
    task = migrate(wait_timeout=5, poll_interval=5, **arguments)
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: task)
    return task


@pytest.mark.parametrize(
    "next_attempt", [TaskRunner.retry, TaskRunner.clear], ids=["retry", "clear"]
)
def test_a_kill_takes_run_and_job_away(
    next_attempt: Callable[[Any], None], sim: CdmSimulator, task_runner: TaskRunner, rows: Any
) -> None:
    """A killed task stops its run and deletes its job; the next attempt makes and runs it anew."""
    task_runner.ti.max_tries = 1
    waiting(task_runner).on_kill()
    (name,) = names(sim)
    assert (sim.runs(name)[0].status, sim.jobs()) == ("STOPPED", [])
    next_attempt(task_runner)
    assert task_runner.run(migrate)["submission_id"] == 2
    assert (rows(), sim.jobs()) == (ROWS, [])


@pytest.mark.parametrize("poll_interval", [0.1, 2])
def test_a_killed_process_that_lives_on(
    poll_interval: float, sim: CdmSimulator, task_runner: TaskRunner, rows: Any, clock: ManualClock
) -> None:
    """Airflow may leave a process alone after its kill; what that sees does not stop the retry."""
    task_runner.ti.max_tries = 1
    task = migrate(poll_interval=poll_interval)
    began = clock.now()
    killed: list[CdmRunJobOperator] = []

    def kill() -> None:
        if not killed and clock.now() > began + 5:
            killed.append(task)
            task.on_kill()

    clock.subscribe(kill)
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(lambda: task)
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert (rows(), sim.jobs()) == (ROWS, [])


def test_a_kill_that_comes_too_late(
    sim: CdmSimulator, task_runner: TaskRunner, rows: Any, clock: ManualClock
) -> None:
    """A run that ends well before it can be stopped is no reason to move the rows again."""
    task_runner.ti.max_tries = 1
    task = waiting(task_runner)
    clock.advance(60)
    task.on_kill()
    assert len(sim.jobs()) == 1
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (rows(), sim.jobs()) == (ROWS, [])


def test_a_kill_that_is_not_to_stop(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """``cancel_on_kill=False`` leaves run and job to the next attempt."""
    waiting(task_runner, cancel_on_kill=False).on_kill()
    assert sent(sim) == ["create_job", "start"]


@each_mode
def test_a_job_that_a_kill_deletes_under_the_next_attempt(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, rows: Any, clock: ManualClock
) -> None:
    """A cleared task may attach to the run that its killed predecessor is just taking away."""
    predecessor = waiting(task_runner)
    task_runner.clear()
    began = clock.now()
    killed: list[CdmRunJobOperator] = []

    def kill() -> None:
        if not killed and clock.now() > began:
            killed.append(predecessor)
            predecessor.on_kill()

    clock.subscribe(kill)
    assert task_runner.run(lambda: migrate(poll_interval=2, **mode))["submission_id"] == 2
    assert (len(killed), rows(), sim.jobs()) == (1, ROWS, [])


@pytest.mark.parametrize(
    ("state", "left"), [("failed", []), (None, []), ("deferred", ["the job"])],
    ids=["marked failed", "cleared", "another triggerer has it"],
)  # fmt: skip
def test_a_kill_in_the_triggerer(
    state: str | None,
    left: list[str],
    sim: CdmSimulator,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user who ends the deferred task takes run and job away; what happens to triggerers not."""

    async def look(_: Any) -> str | None:
        return state

    monkeypatch.setattr("airflow_provider_cdm.triggers.submission.aget_task_state", look)
    waiting(task_runner)
    (name,) = names(sim)
    trigger = CdmOwnedJobTrigger(
        job_name=name, cluster_id=sim.cluster_id, submission_id=1, cancel_on_kill=True
    )
    asyncio.run(trigger.on_kill())
    assert sim.jobs() == [name] * len(left)
    assert sim.runs(name)[0].status == ("RUNNING" if left else "STOPPED")


def test_the_deferred_wait_is_its_own_trigger(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """The operator defers to the trigger that takes the job away on a kill."""
    task_runner.run(lambda: migrate(**MODES["deferred"]))
    assert task_runner.trigger_paths == ["airflow_provider_cdm.triggers.CdmOwnedJobTrigger"]


# Ends of other kinds


@each_mode
def test_a_failed_run(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, rows: Any
) -> None:
    """CDM's reason is in the error and the job is gone; the retry makes and runs it anew."""
    task_runner.ti.max_tries = 1
    wrong = definition(target="nothing")
    with pytest.raises(errors.CdmSubmissionFailed, match="nothing"):
        task_runner.run(lambda: migrate(definition=wrong, **mode))
    assert sim.jobs() == []
    task_runner.retry()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 2
    assert (rows(), sim.jobs()) == (ROWS, [])


def test_a_failed_job_may_be_kept(sim: CdmSimulator, task_runner: TaskRunner, rows: Any) -> None:
    """``keep_job_on_failure`` leaves the job to look at; the next attempt uses and deletes it."""
    task_runner.ti.max_tries = 1
    wrong = definition(target="nothing")
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(lambda: migrate(definition=wrong, keep_job_on_failure=True))
    assert sim.jobs() == names(sim)
    task_runner.retry()
    task_runner.run(lambda: migrate(keep_job_on_failure=True))
    assert [route for route in sent(sim) if route != "create_job"] == [
        *("start", "update_job", "start", "delete_job"),
    ]
    assert (rows(), sim.jobs()) == (ROWS, [])


@each_mode
def test_a_wait_that_is_given_up(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, rows: Any
) -> None:
    """The job stays while its run goes on; a cleared task next_attempts that run and deletes the job."""
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5, **mode))
    assert len(sim.jobs()) == 1
    task_runner.clear()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 1
    assert (rows(), sim.jobs()) == (ROWS, [])


@each_mode
def test_giving_up_for_good(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """With ``on_giving_up="stop"`` the last attempt leaves neither run nor job."""
    arguments = {"wait_timeout": 5, "poll_interval": 5, "on_giving_up": "stop", **mode}
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(**arguments))
    assert sim.runs(names(sim)[0])[0].status == "STOPPED"
    assert sim.jobs() == []


@each_mode
def test_a_definition_that_changes_between_attempts(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, rows: Any
) -> None:
    """The run of the old one is not taken for the new one's: it is waited for, then comes ours."""
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5, **mode))
    task_runner.retry()
    result = task_runner.run(lambda: migrate(definition=definition("day = '2025-01-04'"), **mode))
    assert (result["submission_id"], result["status"]) == (2, "SUCCEEDED")
    assert [route for route in sent(sim) if route != "create_job"] == [
        *("start", "update_job", "start", "delete_job"),
    ]
    assert (rows(), rows("2025-01-04"), sim.jobs()) == (ROWS, ROWS, [])


@each_mode
def test_a_job_deleted_by_somebody_else(
    mode: dict[str, Any], sim: CdmSimulator, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """How its run ended is not known, so no retry runs it again; a person's clear does."""
    task_runner.ti.max_tries = 1
    jobs = sim._world.clusters[sim.cluster_id].jobs
    began = clock.now()
    deleted: list[Any] = []

    def delete() -> None:
        if not deleted and clock.now() > began + 20:
            deleted.append(jobs.popitem())

    clock.subscribe(delete)
    for _ in range(3):
        with pytest.raises(errors.CdmOutcomeUnknown):
            task_runner.run(lambda: migrate(**mode))
        task_runner.retry()
    assert (len(deleted), sent(sim)) == (1, ["create_job", "start"])
    task_runner.clear()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 2
    assert sim.jobs() == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("route", ["create_job", "start", "delete_job"])
def test_a_lost_answer(
    route: str, when: Any, sim: CdmSimulator, task_runner: TaskRunner, rows: Any
) -> None:
    """Whichever answer is lost, on its way there or back: one run, no job left."""
    sim.fail(route, "drop", when)
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (rows(), sim.jobs()) == (ROWS, [])


def test_a_job_that_cannot_be_deleted(
    sim: CdmSimulator, task_runner: TaskRunner, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The migration has succeeded all the same; the log names what stays behind."""
    sim.fail("delete_job", "status", status=503, times=None)
    began = sim.clock.now()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert (rows(), sim.jobs()) == (ROWS, names(sim))
    assert sim.clock.now() - began > 300


def test_a_deletion_waits_for_its_quota(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """When many tasks end at once, their jobs are deleted as the quota allows."""
    sim.fail("delete_job", "status", status=429, times=12)
    task_runner.run(migrate)
    assert sim.jobs() == []


def test_a_burst_needs_no_look(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """Looking has a small quota, so a first attempt does without until it waits."""
    task_runner.run(migrate)
    assert "show_job" not in [request.route for request in sim.requests]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (inputs("schedulerConfig", isSchedulerJob="true"), "isSchedulerJob=true"),
        (inputs("schedulerConfig", disposableType="DELETE_AFTER_SUCCEED"), "disposableType"),
    ],
)
def test_a_job_that_acts_by_itself(
    block: dict[str, Any], words: str, sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """A job that CDM starts or deletes itself cannot be run once and judged; nothing is sent."""
    with pytest.raises(errors.CdmConfigError, match=words):
        task_runner.run(lambda: migrate(definition=definition(driver=block)))
    assert sim.requests == []


def test_arguments_of_the_start_operator_hold() -> None:
    """What is said for all tasks of a DAG, and by mapping, reaches the operator."""
    task = migrate(default_args={"poll_interval": 7, "on_giving_up": "stop"})
    assert (task.poll_interval, task.on_giving_up) == (7, "stop")
    mapped = CdmRunJobOperator.partial(task_id="t", definition=definition()).expand(
        variables=[{"dt": "a"}, {"dt": "b"}]
    )
    assert set(mapped.partial_kwargs) >= {"definition"}
    with pytest.raises(TypeError):
        migrate(job_name="a")
