"""A migration is started exactly once: faults on the wire, retries, clears; with real rows."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.start import start_once
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRequest
from airflow_provider_cdm.links import CdmRunLink
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.task_harness import FakeSupervisor, TaskRunner

JOB = "orders"
DAY = "2025-01-02"
ROWS = 25
MODES: dict[str, dict[str, Any]] = {
    "on the worker": {"wait_for_completion": True, "deferrable": False},
    "deferred": {"wait_for_completion": True, "deferrable": True},
}
#: What happens to the start, and how often it is sent until all is well.
FAULTS: dict[str, tuple[dict[str, Any], int]] = {
    "dropped before the effect": ({"kind": "drop", "when": "before"}, 2),
    "dropped after the effect": ({"kind": "drop", "when": "after"}, 1),
    "reset before the effect": ({"kind": "reset", "when": "before"}, 2),
    "reset after the effect": ({"kind": "reset", "when": "after"}, 1),
    "503 before the effect": ({"kind": "status", "status": 503, "when": "before"}, 2),
    "503 after the effect": ({"kind": "status", "status": 503, "when": "after"}, 1),
    "500 after the effect": ({"kind": "status", "status": 500, "when": "after"}, 1),
    "broken JSON after the effect": ({"kind": "body", "body": '{"subm', "when": "after"}, 1),
    "no submissions after the effect": ({"kind": "body", "body": "{}", "when": "after"}, 1),
    "hanging before the effect": ({"kind": "hang", "when": "before", "seconds": 5}, 2),
    "hanging after the effect": ({"kind": "hang", "when": "after", "seconds": 5}, 1),
    "dropped, the effect is 2 s late": (
        {"kind": "drop", "when": "before", "effect_delay": 2}, 1,
    ),
    "hanging, the effect is 40 s late": (
        {"kind": "hang", "when": "before", "seconds": 5, "effect_delay": 40}, 1,
    ),
    "throttled": ({"kind": "status", "status": 429, "when": "before"}, 2),
    "system error of CDM after the effect": (
        {
            "kind": "status",
            "status": 500,
            "when": "after",
            "body": '{"errCode": "Cdm.0000", "externalMessage": "system error"}',
        },
        1,
    ),
}  # fmt: skip


class Shop:
    """A source with rows of several days, a target, and a job between them."""

    def __init__(self, sim: CdmSimulator, folder: Path) -> None:
        self.target = folder / "target.db"
        source = folder / "source.db"
        for path in (source, self.target):
            with sqlite3.connect(path) as database:
                database.execute("CREATE TABLE orders (id INTEGER, day TEXT)")
        with sqlite3.connect(source) as database:
            days = [f"2025-01-0{day}" for day in range(1, 5)]
            rows = [(n, day) for day in days for n in range(ROWS)]
            database.executemany("INSERT INTO orders VALUES (?, ?)", rows)
        sim.add_link("shop", url=f"sqlite:///{source}")
        sim.add_link("warehouse", url=f"sqlite:///{self.target}")
        self.add_job(sim, JOB)

    def add_job(self, sim: CdmSimulator, name: str) -> None:
        """Add a job that moves the rows of ``${dt}``."""
        sim.add_job(
            name,
            from_={"link": "shop", "table": "orders", "where": "day = '${dt}'"},
            to={"link": "warehouse", "table": "orders"},
            seconds=30,
        )

    def rows(self, day: str = DAY) -> int:
        """How many rows of a day the target holds."""
        with sqlite3.connect(self.target) as database:
            count = database.execute("SELECT count(*) FROM orders WHERE day = ?", (day,))
            return int(count.fetchone()[0])


@pytest.fixture
def shop(sim: CdmSimulator, tmp_path: Path) -> Shop:
    """Databases with a job between them."""
    return Shop(sim, tmp_path)


@pytest.fixture
def task_runner(
    task_runner: TaskRunner, sim: CdmSimulator, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The life of one task, over a connection that soon gives up on an answer."""
    connection = json.loads(sim.connection_json)
    connection["extra"]["read_timeout"] = 0.3
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    return task_runner


def migrate(**arguments: Any) -> CdmStartJobOperator:
    """Make the operator under test."""
    defaults = {"task_id": "t", "job_name": JOB, "variables": {"dt": DAY}}
    return CdmStartJobOperator(**{**defaults, **MODES["on the worker"], **arguments})


def starts(sim: CdmSimulator) -> int:
    """How often a start was sent."""
    return [request.route for request in sim.requests].count("start")


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_on_the_wire(
    fault: str, mode: dict[str, Any], sim: CdmSimulator, shop: Shop, task_runner: TaskRunner
) -> None:
    """Whatever happens to the answer of a start: one run, every row once, the task ends well."""
    settings, sent = FAULTS[fault]
    sim.fail("start", **settings)
    result = task_runner.run(lambda: migrate(**mode))
    (run,) = sim.runs(JOB)
    assert (result["submission_id"], result["status"]) == (run.submission_id, "SUCCEEDED")
    assert shop.rows() == ROWS
    assert starts(sim) == sent


@pytest.mark.parametrize("driver", ["thread", "event loop"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_through_both_drivers(
    fault: str,
    driver: str,
    sim: CdmSimulator,
    shop: Shop,
    make_session: Callable[..., Any],
    clock: ManualClock,
) -> None:
    """The start is one flow; a thread and an event loop come to the same end with it."""
    settings, sent = FAULTS[fault]
    sim.fail("start", **settings)
    session = make_session(read_timeout=0.3)
    order = StartRequest(sim.project_id, sim.cluster_id, JOB, {"dt": DAY})
    flow = start_once(session.api, order, None, StartPolicy())
    kept: list[Any] = []
    if driver == "thread":
        started = session.run(flow, kept.append)
    else:
        started = asyncio.run(session.arun(flow, kept.append))
    clock.advance(100)
    (run,) = sim.runs(JOB)
    assert started.run.submission_id == run.submission_id
    assert kept[-1]["run"]["submission_id"] == run.submission_id
    assert (shop.rows(), starts(sim)) == (ROWS, sent)


def test_an_unanswered_start_is_given_up(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner
) -> None:
    """After some starts without an answer or a run, the task fails, and its retry looks first."""
    sim.fail("start", "drop", times=3)
    with pytest.raises(errors.CdmStartUncertain, match="looks again"):
        task_runner.run(migrate)
    assert (starts(sim), sim.runs(JOB)) == (3, [])
    task_runner.retry()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert (len(sim.runs(JOB)), shop.rows()) == (1, ROWS)


def test_back_to_back_runs_are_told_apart(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner
) -> None:
    """A lost start is not mistaken for the run of the day before, however recent that is."""
    other = task_runner.another_task()
    other.run(lambda: migrate(variables={"dt": "2025-01-01"}))
    sim.fail("start", "drop", "before")
    task_runner.run(migrate)
    assert (shop.rows("2025-01-01"), shop.rows()) == (ROWS, ROWS)


def test_a_doubtful_run_is_not_adopted(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """Without a baseline, a run that began seconds before a lost start may be anybody's: the task
    says so and starts nothing; a clear, which is a person's decision, starts anew.
    """
    sim.start(JOB, variables={"dt": "2025-01-03"})
    sim.fail("submissions", "status", status=429)
    sim.fail("start", "drop", "before")
    clock.advance(5)
    with pytest.raises(errors.CdmStartUncertain, match="somebody else's"):
        task_runner.run(migrate)
    clock.advance(60)
    assert (shop.rows(), len(sim.runs(JOB))) == (0, 1)
    task_runner.clear()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert shop.rows() == ROWS


def test_runs_of_the_scheduler_are_not_adopted(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A run that CDM's own scheduler starts right after a lost start is not ours."""
    sim.fail("start", "drop", "before")
    begun: list[int] = []

    def scheduler() -> None:
        if not begun and starts(sim) == 1:
            begun.append(1)
            sim.start(JOB, variables={"dt": "2025-01-04"}, auto=True)

    clock.subscribe(scheduler)
    result = task_runner.run(lambda: migrate(if_running="wait"))
    assert result["submission_id"] == 2
    assert (shop.rows(), shop.rows("2025-01-04")) == (ROWS, ROWS)


def test_a_burst_goes_on_without_a_baseline(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner
) -> None:
    """When the history's quota is used up, the start does not wait for it."""
    sim.fail("submissions", "status", status=429, headers={"Retry-After": "50"})
    sim.fail("start", "drop", "after")
    before = sim.clock.now()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert (len(sim.runs(JOB)), shop.rows()) == (1, ROWS)
    assert sim.clock.now() - before < 50 + 60


# Attempts and clears


def kill_after(
    task_runner: TaskRunner, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Run an attempt that dies as soon as it has sent a request of some kind."""
    from airflow_provider_cdm.client.session import CdmSession

    class Killed(BaseException):
        """The process is gone."""

    exchange = CdmSession._exchange

    def deadly(self: CdmSession, request: Any) -> Any:
        answer = exchange(self, request)
        if request.url.endswith(call):
            raise Killed
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(CdmSession, "_exchange", deadly)
        with pytest.raises(Killed):
            task_runner.run(make)
    task_runner.retry()


@pytest.mark.parametrize(
    ("mode", "call"),
    [
        *(("on the worker", call) for call in ("/start", "/status", f"jname={JOB}")),
        *(("deferred", call) for call in ("/start", f"jname={JOB}")),
    ],
)
def test_a_killed_attempt_is_taken_up(
    call: str,
    mode: str,
    sim: CdmSimulator,
    shop: Shop,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The retry of a worker that died after any of its calls follows the same run."""
    task_runner.ti.max_tries = 1
    kill_after(task_runner, lambda: migrate(**MODES[mode]), monkeypatch, call)
    assert task_runner.run(lambda: migrate(**MODES[mode]))["status"] == "SUCCEEDED"
    assert (len(sim.runs(JOB)), shop.rows(), starts(sim)) == (1, ROWS, 1)


def test_a_retry_after_success_is_done(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner
) -> None:
    """A worker that died between the end of the run and its report does not run it again.

    Below Airflow 3.3 the journal is deleted by then: a documented limit.
    """
    task_runner.ti.max_tries = 1
    first = task_runner.run(migrate)
    if not task_runner.store.content:
        pytest.skip("no task state store in this Airflow")
    task_runner.retry()
    assert task_runner.run(migrate) == first
    assert len(sim.runs(JOB)) == 1


def test_a_retry_after_failure_starts_anew(sim: CdmSimulator, task_runner: TaskRunner) -> None:
    """A run that ended badly is not followed again; also when it is not the one just seen."""
    sim.add_job(JOB, outcomes=["FAILED", "SUCCEEDED"], seconds=30)
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(migrate)
    task_runner.retry()
    sim.fail("start", "drop", "before")
    assert task_runner.run(migrate)["submission_id"] == 2


def test_a_cleared_task_starts_anew(sim: CdmSimulator, shop: Shop, task_runner: TaskRunner) -> None:
    """Clearing a finished task is a wish for another run."""
    task_runner.run(migrate)
    task_runner.clear()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert shop.rows() == 2 * ROWS


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_cleared_task_attaches_to_its_active_run(
    mode: dict[str, Any], sim: CdmSimulator, shop: Shop, task_runner: TaskRunner
) -> None:
    """When the wait was given up but the run goes on, a cleared task follows it to its end."""
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(**mode, wait_timeout=5, poll_interval=5))
    task_runner.clear()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 1
    assert (len(sim.runs(JOB)), shop.rows()) == (1, ROWS)


def test_a_remapped_task_inherits_nothing(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner
) -> None:
    """The journal belongs to a map index; with other arguments it tells of another migration."""
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=1, poll_interval=1))
    task_runner.retry()
    task_runner.advance(60)
    result = task_runner.run(lambda: migrate(variables={"dt": "2025-01-03"}))
    assert result["submission_id"] == 2
    assert (shop.rows(), shop.rows("2025-01-03")) == (ROWS, ROWS)


def test_an_outage_keeps_the_journal_open(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner
) -> None:
    """After ``CdmUnavailable`` the retry follows the run that went on meanwhile."""
    task_runner.ti.max_tries = 1
    sim.fail("status", "status", status=503, times=200)
    with pytest.raises(errors.CdmUnavailable):
        task_runner.run(migrate)
    sim.faults.clear()
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (len(sim.runs(JOB)), shop.rows()) == (1, ROWS)


def test_a_run_stopped_by_a_clear_is_started_anew(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner
) -> None:
    """Clearing a running task kills it, which stops its run; the next attempt starts another."""
    task = migrate(wait_timeout=5, poll_interval=5)
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: task)
    task.on_kill()
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert [run.status for run in sim.runs(JOB)] == ["STOPPED", "SUCCEEDED"]
    assert shop.rows() == ROWS


def test_a_journal_that_cannot_be_written_stops_the_task(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started that could not be remembered."""

    def broken(self: Any, content: Any) -> None:
        raise OSError("the metadata database is away")

    monkeypatch.setattr("airflow_provider_cdm.tasks.journal.TaskStore.write", broken)
    with pytest.raises(errors.CdmJournalError, match="nothing is started"):
        task_runner.run(migrate)
    assert (starts(sim), sim.runs(JOB)) == (0, [])


def spoil_the_journal(
    task_runner: TaskRunner, supervisor: FakeSupervisor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make the journal unreadable, where this Airflow keeps it, as it may happen there."""

    def broken(*_: Any) -> None:
        raise OSError("the API server answers 500")

    if task_runner.store.content:
        monkeypatch.setattr(task_runner.store, "get", broken)
    elif supervisor is not None:
        supervisor.read_error = OSError("the API server answers 500")
    else:
        from airflow.models.variable import Variable
        from airflow.utils.session import create_session

        with create_session() as session:
            rows = session.query(Variable).filter(Variable.key.contains(task_runner.ti.run_id))
            # What is encrypted with another key is read like this.
            assert rows.update({"val": None}, synchronize_session=False) == 1


def test_a_journal_that_cannot_be_read_stops_the_task(
    sim: CdmSimulator,
    shop: Shop,
    task_runner: TaskRunner,
    supervisor: FakeSupervisor | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A journal that cannot be read is not taken for one that is empty."""
    task_runner.ti.max_tries = 1
    sim.fail("status", "status", status=503, times=200)
    with pytest.raises(errors.CdmUnavailable):
        task_runner.run(migrate)
    sim.faults.clear()
    spoil_the_journal(task_runner, supervisor, monkeypatch)
    task_runner.retry()
    with pytest.raises(errors.CdmJournalError, match="cannot be read, so nothing is started"):
        task_runner.run(migrate)
    assert (starts(sim), len(sim.runs(JOB))) == (1, 1)


@pytest.mark.parametrize("wish", ["leave", "stop"])
def test_giving_up_for_good(
    wish: str,
    sim: CdmSimulator,
    shop: Shop,
    task_runner: TaskRunner,
    clock: ManualClock,
    caplog: Any,
) -> None:
    """When no attempt is left, an active run is stopped or left, as told, and the log says so."""
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5, on_giving_up=wish))
    clock.advance(100)
    assert sim.runs(JOB)[-1].status == {"leave": "SUCCEEDED", "stop": "STOPPED"}[wish]


def test_with_attempts_left_nothing_is_stopped(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """``on_giving_up`` waits for the last attempt."""
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5, on_giving_up="stop"))
    clock.advance(100)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"


def test_start_only_retries_take_the_run_up(
    sim: CdmSimulator, shop: Shop, task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start-only task whose first attempt died after the start does not start again."""
    task_runner.ti.max_tries = 1
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(CdmRunLink, "store", lambda *_: 1 // 0)
        task_runner.run(lambda: migrate(wait_for_completion=False))
    task_runner.retry()
    result = task_runner.run(lambda: migrate(wait_for_completion=False))
    assert (result["submission_id"], len(sim.runs(JOB))) == (1, 1)
