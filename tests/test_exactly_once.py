"""A job is started exactly once despite network faults, retries and clears, with real rows."""

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
#: What happens to the start or its answer, and how often the start is sent until it succeeds.
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


class OrderDatabases:
    """A source with rows of several days, a target, and a job that moves rows between them."""

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
        """Add a job that moves the rows of the day ``${dt}``."""
        sim.add_job(
            name,
            from_={"link": "shop", "table": "orders", "where": "day = '${dt}'"},
            to={"link": "warehouse", "table": "orders"},
            seconds=30,
        )

    def count_rows(self, day: str = DAY) -> int:
        """Return how many rows of a day the target holds."""
        with sqlite3.connect(self.target) as database:
            count = database.execute("SELECT count(*) FROM orders WHERE day = ?", (day,))
            return int(count.fetchone()[0])


@pytest.fixture
def databases(sim: CdmSimulator, tmp_path: Path) -> OrderDatabases:
    """Create the databases and the job."""
    return OrderDatabases(sim, tmp_path)


@pytest.fixture
def task_runner(
    task_runner: TaskRunner,
    sim: CdmSimulator,
    databases: OrderDatabases,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Return a task runner whose connection has a short read timeout."""
    connection = json.loads(sim.connection_json)
    connection["extra"]["read_timeout"] = 0.3
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", json.dumps(connection))
    return task_runner


def migrate(**arguments: Any) -> CdmStartJobOperator:
    """Make the operator under test."""
    defaults = {"task_id": "t", "job_name": JOB, "variables": {"dt": DAY}}
    return CdmStartJobOperator(**{**defaults, **MODES["on the worker"], **arguments})


def count_starts(sim: CdmSimulator) -> int:
    """Return how many start calls CDM received."""
    return [request.route for request in sim.requests].count("start")


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_at_the_start_leads_to_one_successful_run(
    fault: str,
    mode: dict[str, Any],
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
) -> None:
    """Whatever happens to the start or its answer, the job runs once, every row is moved once, and
    the task succeeds.
    """
    settings, expected_starts = FAULTS[fault]
    sim.fail("start", **settings)
    result = task_runner.run(lambda: migrate(**mode))
    (run,) = sim.runs(JOB)
    assert (result["submission_id"], result["status"]) == (run.submission_id, "SUCCEEDED")
    assert databases.count_rows() == ROWS
    assert count_starts(sim) == expected_starts


@pytest.mark.parametrize("driver", ["thread", "event loop"])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_at_the_start_leads_to_one_run_on_a_thread_and_on_an_event_loop(
    fault: str,
    driver: str,
    sim: CdmSimulator,
    databases: OrderDatabases,
    make_session: Callable[..., Any],
    clock: ManualClock,
) -> None:
    """The start is one flow, which comes to the same result on a thread and on an event loop."""
    settings, expected_starts = FAULTS[fault]
    sim.fail("start", **settings)
    session = make_session(read_timeout=0.3)
    request = StartRequest(sim.project_id, sim.cluster_id, JOB, {"dt": DAY})
    flow = start_once(session.api, request, None, StartPolicy())
    records: list[Any] = []
    if driver == "thread":
        started = session.run(flow, records.append)
    else:
        started = asyncio.run(session.arun(flow, records.append))
    clock.advance(100)
    (run,) = sim.runs(JOB)
    assert started.run.submission_id == run.submission_id
    assert records[-1]["run"]["submission_id"] == run.submission_id
    assert (databases.count_rows(), count_starts(sim)) == (ROWS, expected_starts)


def test_start_without_any_answer_fails_and_is_retried(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """After several starts without an answer and without a run, the task fails, and its retry reads
    the history first.
    """
    sim.fail("start", "drop", times=3)
    with pytest.raises(errors.CdmStartUncertain, match="looks again"):
        task_runner.run(migrate)
    assert (count_starts(sim), sim.runs(JOB)) == (3, [])
    task_runner.retry()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


def test_lost_start_is_not_mistaken_for_the_run_right_before_it(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """A lost start is not mistaken for an earlier run, even if that run is recent."""
    other_runner = task_runner.another_task()
    other_runner.run(lambda: migrate(variables={"dt": "2025-01-01"}))
    sim.fail("start", "drop", "before")
    task_runner.run(migrate)
    assert (databases.count_rows("2025-01-01"), databases.count_rows()) == (ROWS, ROWS)


def test_run_of_unknown_origin_is_not_followed_until_a_clear(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """Without a baseline, a run that began seconds before a lost start may be somebody else's, so
    the task fails and starts nothing; a clear starts a new run.
    """
    sim.start(JOB, variables={"dt": "2025-01-03"})
    sim.fail("submissions", "status", status=429)
    sim.fail("start", "drop", "before")
    clock.advance(5)
    with pytest.raises(errors.CdmStartUncertain, match="somebody else's"):
        task_runner.run(migrate)
    clock.advance(60)
    assert (databases.count_rows(), len(sim.runs(JOB))) == (0, 1)
    task_runner.clear()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert databases.count_rows() == ROWS


def test_scheduled_run_is_not_mistaken_for_a_lost_start(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """A run that CDM's own scheduler starts right after a lost start is not taken for the run of
    the task.
    """
    sim.fail("start", "drop", "before")
    scheduled_runs: list[int] = []

    def start_scheduled_run() -> None:
        if not scheduled_runs and count_starts(sim) == 1:
            scheduled_runs.append(1)
            sim.start(JOB, variables={"dt": "2025-01-04"}, auto=True)

    clock.subscribe(start_scheduled_run)
    result = task_runner.run(lambda: migrate(if_running="wait"))
    assert result["submission_id"] == 2
    assert (databases.count_rows(), databases.count_rows("2025-01-04")) == (ROWS, ROWS)


def test_start_does_not_wait_for_the_quota_of_the_history(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """When the quota of the history call is used up, the start does not wait for it."""
    sim.fail("submissions", "status", status=429, headers={"Retry-After": "50"})
    sim.fail("start", "drop", "after")
    started_at = sim.clock.now()
    assert task_runner.run(migrate)["status"] == "SUCCEEDED"
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)
    assert sim.clock.now() - started_at < 50 + 60


# Attempts and clears


def run_and_kill_after(
    task_runner: TaskRunner,
    make_operator: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    url_end: str,
) -> None:
    """Run an attempt that dies right after an exchange whose URL has a given end."""
    from airflow_provider_cdm.client.session import CdmSession

    class Killed(BaseException):
        """Stands for the death of the process."""

    exchange = CdmSession._exchange

    def exchange_then_die(self: CdmSession, request: Any) -> Any:
        answer = exchange(self, request)
        if request.url.endswith(url_end):
            raise Killed
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(CdmSession, "_exchange", exchange_then_die)
        with pytest.raises(Killed):
            task_runner.run(make_operator)
    task_runner.retry()


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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The retry of an attempt that died after any of its calls follows the same run."""
    task_runner.ti.max_tries = 1
    run_and_kill_after(task_runner, lambda: migrate(**MODES[mode]), monkeypatch, url_end)
    assert task_runner.run(lambda: migrate(**MODES[mode]))["status"] == "SUCCEEDED"
    assert (len(sim.runs(JOB)), databases.count_rows(), count_starts(sim)) == (1, ROWS, 1)


def test_retry_after_success_starts_nothing(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """The retry of an attempt that died between the end of the run and its report returns the same
    result.

    Below Airflow 3.3 the journal is already deleted at that point, which is a documented limit.
    """
    task_runner.ti.max_tries = 1
    first = task_runner.run(migrate)
    if not task_runner.store.content:
        pytest.skip("no task state store in this Airflow")
    task_runner.retry()
    assert task_runner.run(migrate) == first
    assert len(sim.runs(JOB)) == 1


def test_retry_after_a_failed_run_starts_a_new_run(
    sim: CdmSimulator, task_runner: TaskRunner
) -> None:
    """The retry of a failed run starts a new run, even if its start is lost at first."""
    sim.add_job(JOB, outcomes=["FAILED", "SUCCEEDED"], seconds=30)
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmSubmissionFailed):
        task_runner.run(migrate)
    task_runner.retry()
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


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_clear_after_a_wait_timeout_follows_the_active_run(
    mode: dict[str, Any], sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """When the wait timed out but the run is still active, the cleared task follows that run to its
    end.
    """
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(**mode, wait_timeout=5, poll_interval=5))
    task_runner.clear()
    assert task_runner.run(lambda: migrate(**mode))["submission_id"] == 1
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


def test_retry_with_other_variables_starts_its_own_run(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """The journal entry of another migration, with other variables, is not used."""
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=1, poll_interval=1))
    task_runner.retry()
    task_runner.advance(60)
    result = task_runner.run(lambda: migrate(variables={"dt": "2025-01-03"}))
    assert result["submission_id"] == 2
    assert (databases.count_rows(), databases.count_rows("2025-01-03")) == (ROWS, ROWS)


def test_retry_after_an_outage_follows_the_run(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """After ``CdmUnavailable`` the retry follows the run, which continued meanwhile."""
    task_runner.ti.max_tries = 1
    sim.fail("status", "status", status=503, times=200)
    with pytest.raises(errors.CdmUnavailable):
        task_runner.run(migrate)
    sim.faults.clear()
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 1
    assert (len(sim.runs(JOB)), databases.count_rows()) == (1, ROWS)


def test_clear_of_a_running_task_stops_its_run_and_starts_another(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner
) -> None:
    """Clearing a running task kills it, which stops its run, and the next attempt starts another
    run.
    """
    operator = migrate(wait_timeout=5, poll_interval=5)
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: operator)
    operator.on_kill()
    task_runner.retry()
    assert task_runner.run(migrate)["submission_id"] == 2
    assert [run.status for run in sim.runs(JOB)] == ["STOPPED", "SUCCEEDED"]
    assert databases.count_rows() == ROWS


def test_nothing_is_started_when_the_journal_cannot_be_written(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the journal cannot be written, the task fails and starts nothing."""

    def fail_to_write(self: Any, content: Any) -> None:
        raise OSError("the metadata database is away")

    monkeypatch.setattr("airflow_provider_cdm.tasks.journal.TaskStore.write", fail_to_write)
    with pytest.raises(errors.CdmJournalError, match="nothing is started"):
        task_runner.run(migrate)
    assert (count_starts(sim), sim.runs(JOB)) == (0, [])


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
            assert rows.update({"val": None}, synchronize_session=False) == 1


def test_nothing_is_started_when_the_journal_cannot_be_read(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    supervisor: FakeSupervisor | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A journal that cannot be read is not treated as an empty one."""
    task_runner.ti.max_tries = 1
    sim.fail("status", "status", status=503, times=200)
    with pytest.raises(errors.CdmUnavailable):
        task_runner.run(migrate)
    sim.faults.clear()
    break_journal_reads(task_runner, supervisor, monkeypatch)
    task_runner.retry()
    with pytest.raises(errors.CdmJournalError, match="cannot be read, so nothing is started"):
        task_runner.run(migrate)
    assert (count_starts(sim), len(sim.runs(JOB))) == (1, 1)


@pytest.mark.parametrize("on_giving_up", ["leave", "stop"])
def test_last_attempt_stops_or_leaves_the_run_as_configured(
    on_giving_up: str,
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    clock: ManualClock,
    caplog: Any,
) -> None:
    """When no retry remains, an active run is stopped or left as ``on_giving_up`` says."""
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5, on_giving_up=on_giving_up))
    clock.advance(100)
    assert sim.runs(JOB)[-1].status == {"leave": "SUCCEEDED", "stop": "STOPPED"}[on_giving_up]


def test_attempt_with_retries_remaining_does_not_stop_the_run(
    sim: CdmSimulator, databases: OrderDatabases, task_runner: TaskRunner, clock: ManualClock
) -> None:
    """``on_giving_up`` has no effect while a retry remains."""
    task_runner.ti.max_tries = 1
    with pytest.raises(errors.CdmWaitTimeout):
        task_runner.run(lambda: migrate(wait_timeout=5, poll_interval=5, on_giving_up="stop"))
    clock.advance(100)
    assert sim.runs(JOB)[-1].status == "SUCCEEDED"


def test_retry_of_a_start_only_task_does_not_start_again(
    sim: CdmSimulator,
    databases: OrderDatabases,
    task_runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
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
