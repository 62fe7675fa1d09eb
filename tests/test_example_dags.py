"""The example DAGs, run by Airflow itself in real time against the simulator: real rows move."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import runpy
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from importlib.metadata import version
from pathlib import Path
from time import sleep
from typing import Any

import airflow
import pytest

from airflow_provider_cdm.client.errors import CdmSubmissionFailed
from airflow_provider_cdm.connection import settings_from
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.triggers import CdmSubmissionTrigger

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "example_dags"
HOME = Path(os.environ["AIRFLOW_HOME"])
RESULT = {
    *("cluster_id", "job_name", "submission_id", "creation_date", "status", "progress"),
    *("counters", "execute_date", "last_update_date", "duration_seconds"),
}
# No key: a migration that ran twice shall show as double rows, not as an error.
TABLE = "CREATE TABLE orders (id INTEGER, order_date TEXT, amount NUMERIC {constraint})"
#: Airflow 2.11 cannot delete a run outside of its web server, so no logical date comes twice.
UNUSED_DAYS = (date(2026, 3, 1) + timedelta(days=3 * n) for n in itertools.count())


@dataclass
class Database:
    """A SQLite file with orders."""

    path: Path

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute one statement."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(sql, values).fetchall()

    def orders(self, day: date | None = None) -> list[tuple[Any, ...]]:
        """Return the orders of one day, or all of them."""
        condition, values = ("WHERE order_date = ?", [str(day)]) if day else ("", [])
        return self.run(f"SELECT * FROM orders {condition} ORDER BY id", *values)


@dataclass
class Demo:
    """A shop with three days of orders, an empty warehouse, and a CDM between them."""

    sim: CdmSimulator
    shop: Database
    warehouse: Database
    days: list[date]

    def __post_init__(self) -> None:
        self.shop.run(TABLE.format(constraint=""))
        self.warehouse.run(TABLE.format(constraint="CHECK (amount > 0)"))
        for number in range(30):
            day = str(self.days[number % 3])
            self.shop.run("INSERT INTO orders VALUES (?, ?, ?)", number, day, number + 0.5)

    def spoil(self, day: date) -> None:
        """Let the warehouse refuse one of the day's orders."""
        self.shop.run("UPDATE orders SET amount = 0 WHERE id = ?", self.shop.orders(day)[-1][0])

    def mend(self) -> None:
        """Undo :meth:`spoil`."""
        self.shop.run("UPDATE orders SET amount = 9.9 WHERE amount = 0")


@pytest.fixture
def demo(tmp_path: Path, airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Demo]:
    """The demo's simulator, quicker, and with little data."""
    folder = HOME / "dags"
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
    config = Path(shutil.copy(EXAMPLES / "demo_simulator.yaml", tmp_path))
    first = next(UNUSED_DAYS)
    with CdmSimulator(config) as sim:
        for job in sim.config.clusters[0].jobs:
            sim.add_job(job.name, seconds=0.3)
        monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", sim.connection_json)
        yield Demo(
            sim,
            shop=Database(tmp_path / "source.db"),
            warehouse=Database(tmp_path / "target.db"),
            days=[first + timedelta(days=n) for n in range(3)],
        )


@pytest.fixture
def deferrals(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Gets an entry for every wait that goes to the triggerer."""
    found: list[Any] = []
    original = CdmSubmissionTrigger.run

    def noticed(self: CdmSubmissionTrigger) -> Any:
        found.append(self)
        return original(self)

    monkeypatch.setattr(CdmSubmissionTrigger, "run", noticed)
    return found


def load(name: str, **settings: Any) -> Any:
    """Load an example DAG, and make its tasks impatient.

    :param settings: attributes for those tasks that have them.
    """
    dag = runpy.run_path(str(HOME / "dags" / f"{name}.py"))["dag"]
    quick = {"poll_interval": 0.1, "poke_interval": 0.1, "retry_delay": timedelta(seconds=0.1)}
    for task in dag.tasks:
        for attribute, value in {**quick, **settings}.items():
            if hasattr(task, attribute):
                setattr(task, attribute, value)
    return dag


def run(dag: Any, day: date) -> Any:
    """Let Airflow run a DAG for one logical date."""
    at = datetime.combine(day, time(), UTC)
    if airflow.__version__.startswith("2."):
        return dag.test(execution_date=at)
    return dag.test(logical_date=at)


def result(dag_run: Any, task_id: str) -> dict[str, Any]:
    """Read what a task returned from Airflow's database."""
    query = "SELECT value FROM xcom WHERE run_id = ? AND task_id = ? AND key = 'return_value'"
    ((value,),) = Database(HOME / "airflow.db").run(query, dag_run.run_id, task_id)
    found: dict[str, Any] = json.loads(value)
    return found


MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["on the worker", "deferrable"])


@MODES
def test_daily_migration(deferrable: bool, demo: Demo, deferrals: list[Any]) -> None:
    """Each run moves the rows of its own logical date, and returns what CDM counted."""
    demo.sim.add_job("orders_daily", seconds=1.5)  # not over before the task thinks of deferring
    for count, day in enumerate(demo.days[:2], start=1):
        done = run(load("example_cdm_daily_migration", deferrable=deferrable), day)
        assert done.state == "success"
        assert demo.warehouse.orders() == sorted(
            row for each in demo.days[:count] for row in demo.shop.orders(each)
        )
        returned = result(done, "move_orders")
        assert set(returned) == RESULT
        assert (returned["status"], returned["submission_id"]) == ("SUCCEEDED", count)
        assert returned["counters"]["ROWS_WRITTEN"] == len(demo.shop.orders(day)) == 10
    assert [dict(each.variables) for each in demo.sim.runs("orders_daily")] == [
        {"dt": str(day)} for day in demo.days[:2]
    ]
    assert len(deferrals) == (2 if deferrable else 0)


@MODES
def test_a_failing_day(deferrable: bool, demo: Demo) -> None:
    """When the target refuses a row the task fails with CDM's reason, and nothing is moved."""
    day = demo.days[0]
    demo.spoil(day)
    reasons: list[Any] = []
    dag = load(
        "example_cdm_daily_migration",
        deferrable=deferrable,
        retries=0,
        on_failure_callback=[lambda context: reasons.append(context.get("exception"))],
    )
    assert run(dag, day).state == "failed"
    (reason,) = reasons
    if reason is not None:  # Airflow 3.1 does not tell callbacks of dag.test()
        assert isinstance(reason, CdmSubmissionFailed)
        assert "CHECK constraint failed: amount > 0" in str(reason)
        assert reason.submission.status == "FAILED"
    assert demo.warehouse.orders() == []


@MODES
def test_a_retry_after_mending(deferrable: bool, demo: Demo) -> None:
    """When the cause is mended between two attempts, the second one moves the day, once."""
    if deferrable and version("apache-airflow").startswith("3.0."):
        pytest.skip("dag.test() of Airflow 3.0 hands the old event to the next attempt")
    day = demo.days[0]
    demo.spoil(day)
    moved: list[Any] = []

    def mend(context: Any) -> None:
        moved.append(demo.warehouse.orders())
        demo.mend()

    dag = load("example_cdm_daily_migration", deferrable=deferrable, on_retry_callback=[mend])
    done = run(dag, day)
    assert done.state == "success"
    assert moved == [[]]
    assert demo.warehouse.orders() == demo.shop.orders(day)
    assert [each.status for each in demo.sim.runs("orders_daily")] == ["FAILED", "SUCCEEDED"]
    assert result(done, "move_orders")["submission_id"] == 2


def test_start_then_wait(demo: Demo) -> None:
    """The sensors wait for the runs that the start tasks made, and for CDM's own."""
    demo.sim.start("stock_nightly", auto=True)
    done = run(load("example_cdm_start_then_wait"), demo.days[0])
    assert done.state == "success"
    assert demo.warehouse.orders() == demo.shop.orders(demo.days[0])
    for subject, job in (
        ("orders", "orders_daily"),
        ("customers", "customers_daily"),
        ("stock", "stock_nightly"),
    ):
        returned = result(done, f"wait_for_{subject}")
        (ended,) = demo.sim.runs(job)
        assert set(returned) == RESULT
        assert (returned["job_name"], returned["submission_id"]) == (job, ended.submission_id)


def test_every_mode_returns_the_same(demo: Demo) -> None:
    """Whoever waits, and in whichever way, returns the same but for the run's own figures."""
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
    first, *others = [
        {key: type(value) if key in own else value for key, value in each.items()}
        for each in returned
    ]
    assert others == [first] * 4
    assert len({each["submission_id"] for each in returned}) == 5


@MODES
def test_side_by_side(deferrable: bool, demo: Demo) -> None:
    """Each day has a job of its own, made of the file with its date, and gone afterwards."""
    before = demo.sim.jobs()
    dag = load("example_cdm_side_by_side", deferrable=deferrable)
    done = [run(dag, day) for day in demo.days[:2]]
    assert [each.state for each in done] == ["success"] * 2
    assert demo.warehouse.orders() == sorted(
        row for day in demo.days[:2] for row in demo.shop.orders(day)
    )
    assert len({result(each, "move_orders")["job_name"] for each in done}) == 2
    assert demo.sim.jobs() == before


@MODES
def test_a_cluster_for_a_while(deferrable: bool, demo: Demo) -> None:
    """The cluster is started, used and stopped again, also when the migration has failed."""
    dag = load("example_cdm_cluster_for_a_while", deferrable=deferrable, retries=0)
    assert run(dag, demo.days[0]).state == "success"
    assert demo.sim.cluster_status() == "900"
    demo.spoil(demo.days[1])
    done = run(dag, demo.days[1])
    assert done.state == "failed"
    assert result(done, "start_cluster")["state"] == "normal"
    actions = [each.route for each in demo.sim.requests if each.path.endswith("/action")]
    assert actions == ["stop_cluster", "start_cluster", "stop_cluster"]
    assert demo.sim.cluster_status() == "900"
    assert demo.warehouse.orders() == demo.shop.orders(demo.days[0])


PASSWORD = "Pa55word-of-the-archive"


@pytest.mark.parametrize("source", ["conn.archive.password", "var.value.archive_text"])
def test_jobs_as_code(
    source: str, demo: Demo, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Link and job are made of their files, then left alone; the password shows nowhere.

    Airflow itself masks passwords of connections, but not a variable of a harmless name.
    """
    connection = {"conn_type": "generic", "login": "cdm", "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_ARCHIVE", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_VAR_ARCHIVE_TEXT", PASSWORD)
    link = HOME / "dags" / "definitions" / "archive_link.yaml"
    link.write_text(link.read_text().replace("conn.archive.password", source))
    actions = []
    for day in demo.days[:2]:
        done = run(load("example_cdm_jobs_as_code"), day)
        assert done.state == "success"
        actions.append([result(done, task)["action"] for task in ("apply_link", "apply_job")])
        assert demo.warehouse.orders(day) == demo.shop.orders(day)
    assert actions == [["created"] * 2, ["unchanged"] * 2]
    (made,) = [request for request in demo.sim.requests if request.route == "create_link"]
    assert PASSWORD in made.body.decode()
    rendered = rendered_fields(done, "apply_link")
    assert rendered["definition"]["name"] == "archive"
    assert '"***"' in json.dumps(rendered)
    assert PASSWORD not in "".join(capfd.readouterr())
    assert PASSWORD.encode() not in b"".join(path.read_bytes() for path in everything_kept())


def rendered_fields(dag_run: Any, task_id: str) -> Any:
    """Read the rendered templates of a task from Airflow's database."""
    query = "SELECT rendered_fields FROM rendered_task_instance_fields WHERE run_id=? AND task_id=?"
    ((value,),) = Database(HOME / "airflow.db").run(query, dag_run.run_id, task_id)
    return json.loads(value)


def everything_kept() -> list[Path]:
    """The files of Airflow's database and logs."""
    return [*HOME.glob("airflow.db*"), *(path for path in HOME.glob("logs/**/*") if path.is_file())]


def dag_bag(folder: Path) -> Any:
    """Parse a folder in the way of Airflow's DAG processor."""
    try:
        module = importlib.import_module("airflow.dag_processing.dagbag")
    except ImportError:
        module = importlib.import_module("airflow.models.dagbag")
    return module.DagBag(str(folder), load_op_links=False)


def test_examples_parse(airflow_database: None) -> None:
    """Airflow finds all DAGs and has nothing to complain about."""
    bag = dag_bag(EXAMPLES)
    assert bag.import_errors == {}
    assert set(bag.dag_ids) == {path.stem for path in EXAMPLES.glob("*.py")}


def readme(pattern: str) -> str:
    """Return the one place in the README that a pattern describes."""
    (found,) = re.findall(pattern, (ROOT / "README.md").read_text(), re.DOTALL)
    return str(found)


def test_the_dag_of_the_readme_parses(tmp_path: Path, airflow_database: None) -> None:
    """Whoever copies the DAG out of the README gets one that Airflow accepts."""
    (tmp_path / "readme.py").write_text(readme(r"```python\n(.*?)```"))
    bag = dag_bag(tmp_path)
    assert (bag.import_errors, len(bag.dag_ids)) == ({}, 1)


def test_the_connection_of_the_readme_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever copies the connection out of the README has left no field out."""
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", readme(r"AIRFLOW_CONN_CDM_DEFAULT='(.*?)'\n"))
    settings = settings_from(CdmHook.get_connection("cdm_default"))
    assert settings.cdm_endpoint == f"https://cdm.{settings.region}.myhuaweicloud.com"
