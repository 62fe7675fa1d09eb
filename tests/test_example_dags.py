"""Tests of the example DAGs: Airflow runs them in real time and they move real rows."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from importlib.metadata import version
from pathlib import Path
from time import sleep
from typing import Any

import airflow
import pytest
import sqlalchemy as sa
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.providers.common.compat import sdk

from airflow_provider_cdm._compat import HAS_ASSET_STATE_STORE, HAS_ASSET_WATCHERS
from airflow_provider_cdm.client.submission import Submission
from airflow_provider_cdm.connection.reader import settings_from
from airflow_provider_cdm.exceptions import CdmNotFound, CdmSubmissionFailed, CdmUnavailable
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.triggers import CdmRunEventTrigger, CdmSubmissionTrigger
from tests.support import example_stage as examples
from tests.support.airflow_home import empty_dags_folder, register_assets
from tests.support.example_stage import EXAMPLES, Database, Demo, Fact

ROOT = Path(__file__).parents[1]
HAS_CHAINS = "ChainRetryPolicy" in sdk.__all__
HOME = Path(os.environ["AIRFLOW_HOME"])
#: Days that no test has used yet. Airflow 2.11 can only delete DAG runs in its web server, so each
#: logical date can be used only once.
UNUSED_DAYS = (date(2026, 3, 1) + timedelta(days=3 * n) for n in itertools.count())


@pytest.fixture
def demo(tmp_path: Path, airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Demo]:
    """Return the demo with a faster simulator and little data."""
    shutil.copytree(EXAMPLES / "definitions", empty_dags_folder() / "definitions")
    first = next(UNUSED_DAYS)
    days = [first + timedelta(days=n) for n in range(3)]
    with Demo.start(tmp_path, days, seconds=0.3) as demo:
        monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", demo.sim.connection_json)
        yield demo


@pytest.fixture
def deferrals(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list to which every trigger is added when it starts to run."""
    triggers: list[Any] = []
    original = CdmSubmissionTrigger.run

    def record_and_run(self: CdmSubmissionTrigger) -> Any:
        triggers.append(self)
        return original(self)

    monkeypatch.setattr(CdmSubmissionTrigger, "run", record_and_run)
    return triggers


def load(name: str, **settings: Any) -> Any:
    """Load an example DAG, and shorten the intervals of its tasks.

    :param settings: attributes to set on the tasks that have them
    """
    path = shutil.copy(EXAMPLES / f"{name}.py", HOME / "dags")
    dag = runpy.run_path(str(path))["dag"]
    quick = {"poll_interval": 0.1, "poke_interval": 0.1, "retry_delay": timedelta(seconds=0.1)}
    for task in dag.tasks:
        for attribute, value in {**quick, **settings}.items():
            if hasattr(task, attribute):
                setattr(task, attribute, value)
    return dag


def run(dag: Any, day: date) -> Any:
    """Run a DAG with Airflow for one logical date, and return the DAG run."""
    logical_date = datetime.combine(day, time(), UTC)
    if airflow.__version__.startswith("2."):
        return dag.test(execution_date=logical_date)
    return dag.test(logical_date=logical_date)


def result(dag_run: Any, task_id: str) -> Any:
    """Return the result of a task, from Airflow's database."""
    return dag_run.get_task_instance(task_id).xcom_pull(task_id)


def check(facts: Iterable[Fact]) -> None:
    """Assert that all actual values are as expected."""
    for fact in facts:
        assert fact.actual == fact.expected, fact.description


MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["on the worker", "deferrable"])


@MODES
def test_daily_migration(deferrable: bool, demo: Demo, deferrals: list[Any]) -> None:
    """Each DAG run moves the rows of its logical date and returns CDM's counters."""
    demo.sim.add_job("orders_daily", seconds=1.5)  # long enough that the task defers
    returned = {}
    for day in demo.days[:2]:
        done = run(load("example_cdm_daily_migration", deferrable=deferrable), day)
        assert done.state == "success"
        returned[day] = result(done, "move_orders")
        check(examples.daily_migration(demo, returned))
        assert len(demo.warehouse.orders()) == examples.ROWS * len(returned)
    assert len(deferrals) == (2 if deferrable else 0)


@MODES
def test_a_failing_day(deferrable: bool, demo: Demo) -> None:
    """If the target rejects a row, the task fails with CDM's reason and no row is moved."""
    day = demo.days[0]
    demo.break_order(day)
    reasons: list[Any] = []
    dag = load(
        "example_cdm_daily_migration",
        deferrable=deferrable,
        retries=0,
        on_failure_callback=[lambda context: reasons.append(context.get("exception"))],
    )
    assert run(dag, day).state == "failed"
    (reason,) = reasons
    if reason is not None:  # dag.test() of Airflow 3.1 does not pass it to callbacks
        assert isinstance(reason, CdmSubmissionFailed)
        assert "CHECK constraint failed: amount > 0" in str(reason)
        assert reason.submission.status == "FAILED"
    assert demo.warehouse.orders() == []


@pytest.mark.long
@MODES
def test_a_retry_after_repair(deferrable: bool, demo: Demo) -> None:
    """If the cause is fixed between two attempts, the second one moves the rows, once."""
    if deferrable and version("apache-airflow").startswith("3.0."):
        pytest.skip("dag.test() of Airflow 3.0 passes the old event to the next attempt")
    day = demo.days[0]
    demo.break_order(day)
    moved: list[Any] = []

    def repair(context: Any) -> None:
        moved.append(demo.warehouse.orders())
        demo.repair_order()

    dag = load("example_cdm_daily_migration", deferrable=deferrable, on_retry_callback=[repair])
    done = run(dag, day)
    assert done.state == "success"
    assert moved == [[]]
    assert demo.warehouse.orders() == demo.shop.orders(day)
    assert [run.status for run in demo.sim.runs("orders_daily")] == ["FAILED", "SUCCEEDED"]
    assert result(done, "move_orders")["submission_id"] == 2


def test_start_then_wait(demo: Demo) -> None:
    """The sensors wait for the runs of the start tasks, and for a run of CDM's scheduler."""
    demo.sim.start("stock_nightly", auto=True)
    done = run(load("example_cdm_start_then_wait"), demo.days[0])
    assert done.state == "success"
    sensors = ("wait_for_orders", "wait_for_customers", "wait_for_stock")
    returned = {sensor: result(done, sensor) for sensor in sensors}
    check(examples.start_then_wait(demo, demo.days[0], returned))
    assert len(demo.warehouse.orders()) == examples.ROWS


@pytest.mark.long
def test_every_mode_returns_the_same(demo: Demo) -> None:
    """The result has the same keys and values in every mode, except for the run's own figures."""
    daily, two_tasks = "example_cdm_daily_migration", "example_cdm_start_then_wait"
    ways: list[tuple[str, str, dict[str, Any]]] = [
        (daily, "move_orders", {"deferrable": False}),
        (daily, "move_orders", {"deferrable": True}),
        (two_tasks, "wait_for_orders", {"mode": "poke", "deferrable": False}),
        (two_tasks, "wait_for_orders", {"mode": "reschedule", "deferrable": False}),
        (two_tasks, "wait_for_orders", {"deferrable": True}),
    ]
    returned = []
    for number, (dag_id, task_id, settings) in enumerate(ways):
        demo.sim.start("stock_nightly", auto=True)
        done = run(load(dag_id, **settings), demo.days[number % 3])
        assert done.state == "success"
        returned.append(result(done, task_id))
        while demo.sim.runs("stock_nightly")[-1].active:
            sleep(0.05)
    own = {"submission_id", "creation_date", "execute_date", "last_update_date", "duration_seconds"}
    own |= {"creation_time", "execute_time", "last_update_time"}
    first, *others = [
        {key: type(value) if key in own else value for key, value in each.items()}
        for each in returned
    ]
    assert others == [first] * 4
    assert len({each["submission_id"] for each in returned}) == 5


@pytest.mark.long
@MODES
def test_side_by_side(deferrable: bool, demo: Demo) -> None:
    """Each day has its own job, created from the file with its date and deleted afterwards."""
    before = demo.sim.jobs()
    dag = load("example_cdm_side_by_side", deferrable=deferrable)
    done = {day: run(dag, day) for day in demo.days[:2]}
    assert [each.state for each in done.values()] == ["success"] * 2
    returned = {day: result(each, "move_orders") for day, each in done.items()}
    check(examples.side_by_side(demo, returned))
    assert len(demo.warehouse.orders()) == examples.ROWS * 2
    assert demo.sim.jobs() == before


@pytest.mark.long
@MODES
def test_whole_database(deferrable: bool, demo: Demo) -> None:
    """All tables are moved, and the result lists each of them."""
    demo.add_tables()
    dag = load("example_cdm_whole_database", deferrable=deferrable, retries=0)
    done = run(dag, demo.days[0])
    assert done.state == "success"
    assert demo.mirror.orders() == demo.shop.orders()
    moved = result(done, "move_shop")
    assert {
        entry["table"]: entry["counters"]["ROWS_WRITTEN"] for entry in moved["tables"]["list"]
    } == {
        **examples.TABLES,
        "orders": len(demo.shop.orders()),
    }
    demo.break_order(demo.days[1])
    assert run(dag, demo.days[1]).state == "failed"
    assert demo.sim.runs("shop_nightly")[-1].status == "SUCCEEDED"


@pytest.mark.long
@MODES
def test_a_cluster_for_a_while(deferrable: bool, demo: Demo) -> None:
    """The cluster is started, used and stopped again, also if the migration fails."""
    dag = load("example_cdm_cluster_for_a_while", deferrable=deferrable, retries=0)
    done = run(dag, demo.days[0])
    assert done.state == "success"
    check(examples.cluster_for_a_while(demo, demo.days[0], result(done, "start_cluster")))
    demo.break_order(demo.days[1])
    done = run(dag, demo.days[1])
    assert done.state == "failed"
    assert result(done, "start_cluster")["state"] == "normal"
    actions = [each.route for each in demo.sim.requests if each.path.endswith("/action")]
    assert actions == ["stop_cluster", "start_cluster", "stop_cluster"]
    assert demo.sim.cluster_status() == "900"
    assert demo.warehouse.orders() == demo.shop.orders(demo.days[0])


@pytest.mark.long
@MODES
def test_a_list_of_tables(deferrable: bool, demo: Demo) -> None:
    """Each table is moved by its own job in each DAG run, and no job remains."""
    demo.add_tables()
    dag = load("example_cdm_list_of_tables")
    dag.get_task("move_table").partial_kwargs.update(deferrable=deferrable, poll_interval=0.1)
    for day in demo.days[:2]:
        assert run(dag, day).state == "success"
        check(examples.list_of_tables(demo))
    creations = [each for each in demo.sim.requests if each.route == "create_job"]
    assert len(creations) == 2 * (1 + len(examples.TABLES))


@pytest.mark.long
def test_wait_elsewhere(demo: Demo, deferrals: list[Any]) -> None:
    """A DAG waits for the run that another DAG started for the same day, not for an earlier one."""
    demo.sim.add_job("orders_daily", seconds=5)  # still active when the other DAG starts
    starting = load("example_cdm_daily_migration", wait_for_completion=False, deferrable=False)
    started = run(starting, demo.days[0])
    done = run(load("example_cdm_wait_elsewhere"), demo.days[0])
    assert done.state == "success"
    number = result(started, "move_orders")["submission_id"]
    waited, report = result(done, "wait_for_orders"), result(done, "report")
    check(examples.wait_elsewhere(demo, number, waited, report))
    assert len(deferrals) == 1
    assert demo.warehouse.orders() == demo.shop.orders(demo.days[0])


PASSWORD = "Pa55word-of-the-archive"


@pytest.mark.long
@pytest.mark.parametrize("source", ["conn.archive.password", "var.value.archive_text"])
def test_jobs_as_code(
    source: str, demo: Demo, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The link and job are created once and not changed later; the password appears nowhere.

    Airflow masks passwords of connections, but not a variable whose name does not look secret.
    """
    connection = {"conn_type": "generic", "login": "cdm", "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_ARCHIVE", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_VAR_ARCHIVE_TEXT", PASSWORD)
    link = HOME / "dags" / "definitions" / "archive_link.yaml"
    link.write_text(link.read_text().replace("conn.archive.password", source))
    actions = {}
    for day in demo.days[:2]:
        done = run(load("example_cdm_jobs_as_code"), day)
        assert done.state == "success"
        actions[day] = [result(done, task)["action"] for task in ("apply_link", "apply_job")]
    check(examples.jobs_as_code(demo, actions))
    (create_request,) = [request for request in demo.sim.requests if request.route == "create_link"]
    assert PASSWORD in create_request.body.decode()
    rendered = rendered_fields(done, "apply_link")
    assert rendered["definition"]["name"] == "archive"
    assert '"***"' in json.dumps(rendered)
    output = "".join(capfd.readouterr())
    if version("apache-airflow").startswith("3.0."):
        # Its dag.test() logs the values to mask. Real tasks do not.
        output = re.sub(r"MaskSecret\(.*", "", output)
    assert PASSWORD not in output
    # Read in another process: closing a SQLite file releases all locks that this process has on it.
    stored = subprocess.run(["cat", *stored_files()], capture_output=True, check=True).stdout
    assert b"SQLite format 3" in stored
    assert PASSWORD.encode() not in stored


def rendered_fields(dag_run: Any, task_id: str) -> Any:
    """Return the rendered templates of a task, from Airflow's database."""
    task_instance = dag_run.get_task_instance(task_id)
    return RenderedTaskInstanceFields.get_templated_fields(task_instance)


def stored_files() -> list[Path]:
    """Return the files of Airflow's database and logs."""
    return [*HOME.glob("airflow.db*"), *(path for path in HOME.glob("logs/**/*") if path.is_file())]


def dag_bag(folder: Path) -> Any:
    """Parse a folder as Airflow's DAG processor does."""
    try:
        module = importlib.import_module("airflow.dag_processing.dagbag")
    except ImportError:
        module = importlib.import_module("airflow.models.dagbag")
    return module.DagBag(str(folder), load_op_links=False)


def test_examples_parse(airflow_database: None) -> None:
    """Airflow finds all example DAGs and reports no import errors."""
    bag = dag_bag(EXAMPLES)
    assert bag.import_errors == {}
    unknown = set() if HAS_ASSET_WATCHERS else {"example_cdm_watch_runs"}
    unknown |= set() if HAS_CHAINS else {"example_cdm_retry_chain"}
    assert set(bag.dag_ids) == {path.stem for path in EXAMPLES.glob("*.py")} - unknown


def readme(pattern: str) -> str:
    """Return the only match of a pattern in the README."""
    (match,) = re.findall(pattern, (ROOT / "README.md").read_text(), re.DOTALL)
    return str(match)


def test_the_dag_of_the_readme_parses(tmp_path: Path, airflow_database: None) -> None:
    """Airflow accepts the DAG that the README shows."""
    (tmp_path / "readme.py").write_text(readme(r"```python\n(.*?)```"))
    bag = dag_bag(tmp_path)
    assert (bag.import_errors, len(bag.dag_ids)) == ({}, 1)


def test_the_connection_of_the_readme_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that the README shows is complete."""
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", readme(r"AIRFLOW_CONN_CDM_DEFAULT='(.*?)'\n"))
    settings = settings_from(CdmHook.get_connection("cdm_default"))
    assert settings.cdm_endpoint == f"https://cdm.{settings.region}.myhuaweicloud.eu"


def by_version(two: str, three: str) -> str:
    """Return the first name on Airflow 2 and the second one on Airflow 3."""
    return two if airflow.__version__.startswith("2.") else three


@pytest.fixture
def triggering(demo: Demo) -> Iterator[None]:
    """Do what the scheduler does: assign all asset events to each new DAG run."""
    kind = by_version("dataset", "asset")
    query = f"INSERT INTO dagrun_{kind}_event SELECT :run, id FROM {kind}_event"

    def consume(mapper: Any, connection: Any, dag_run: Any) -> None:
        connection.execute(sa.text(query), {"run": dag_run.id})

    sa.event.listen(DagRun, "after_insert", consume)
    yield
    sa.event.remove(DagRun, "after_insert", consume)


@pytest.mark.long
@MODES
def test_asset_driven(deferrable: bool, demo: Demo, request: pytest.FixtureRequest) -> None:
    """A DAG that is scheduled on the asset reads the row counts of all runs."""
    Database(HOME / "airflow.db").run(f"DELETE FROM {by_version('dataset', 'asset')}_event")
    for day in demo.days[:2]:
        dag = load("example_cdm_asset_driven", deferrable=deferrable)
        register_assets(dag)
        assert run(dag, day).state == "success"
    request.getfixturevalue("triggering")
    done = run(load("example_cdm_asset_report"), demo.days[0])
    assert done.state == "success"
    check(examples.asset_driven(demo, demo.days[:2], result(done, "count_orders")))


@pytest.mark.long
@pytest.mark.skipif(
    not HAS_ASSET_STATE_STORE, reason="dag.test() stores no triggers of watchers below Airflow 3.3"
)
def test_watch_runs(demo: Demo, request: pytest.FixtureRequest) -> None:
    """A DAG gets the result of a run that CDM's scheduler started, by the trigger of its asset."""
    dag = load("example_cdm_watch_runs")
    register_assets(dag)
    database = Database(HOME / "airflow.db")
    # Airflow stores the triggers of DAGs that are not paused, each time it reads them.
    for day in demo.days[:2]:
        assert run(dag, day).state == "success"
        database.run("UPDATE dag SET is_paused = 0 WHERE dag_id = ?", dag.dag_id)
    database.run("DELETE FROM asset_event")
    demo.sim.add_job("stock_nightly", seconds=0.5)

    async def first_event() -> Any:
        path, arguments = dag.timetable.asset_condition.objects[0].watchers[0].trigger.serialize()
        assert path == "airflow_provider_cdm.triggers.CdmRunEventTrigger"
        events: Any = CdmRunEventTrigger(**{**arguments, "poll_interval": 0.2}).run()
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(2)
        demo.sim.start("stock_nightly", auto=True)
        event = await waiting
        await events.aclose()
        return event

    event = asyncio.run(first_event())
    stored = "SELECT id FROM trigger WHERE classpath LIKE '%CdmRunEventTrigger'"
    ((trigger_id,),) = database.run(stored)
    importlib.import_module("airflow.models.trigger").Trigger.submit_event(trigger_id, event)
    request.getfixturevalue("triggering")
    done = run(load("example_cdm_watch_runs"), demo.days[2])
    # For Airflow it is the same trigger each time: a new one would watch anew.
    assert database.run(stored) == [(trigger_id,)]
    rows = event.payload["counters"]["ROWS_WRITTEN"]
    assert result(done, "count_stock") == {str(event.payload["submission_id"]): rows}


@pytest.mark.skipif(not HAS_CHAINS, reason="this Airflow cannot combine retry policies")
def test_retry_chain(demo: Demo) -> None:
    """A failed run is retried after an hour, as the rule in the DAG says, and what no retry can fix
    is not retried.
    """
    dag = load("example_cdm_retry_chain")
    (policy,) = (task.retry_policy for task in dag.tasks)
    failed = policy.evaluate(CdmSubmissionFailed("failed", Submission("c", "j", "FAILED")), 1, 3)
    assert (failed.action.value, failed.retry_delay) == ("retry", timedelta(hours=1))
    assert policy.evaluate(CdmNotFound("no such job"), 1, 3).action.value == "fail"
    assert policy.evaluate(CdmUnavailable("503"), 1, 3).action.value == "default"
    done = run(dag, demo.days[0])
    check(examples.daily_migration(demo, {demo.days[0]: result(done, "move_orders")}))
