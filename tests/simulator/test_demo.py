"""``--demo``: what somebody gets who installed the package and has nothing else."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import airflow
import pytest
import requests
import yaml
from airflow.timetables.base import DataInterval, TimeRestriction

from airflow_provider_cdm._compat import BaseHook
from airflow_provider_cdm.connection.reader import settings_from
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.simulator.demo.databases import DAYS, MOVED_DAYS, Databases
from airflow_provider_cdm.simulator.demo.folder import DAGS, DemoFolder
from tests.support.airflow_home import empty_dags_folder

COMMAND = [sys.executable, "-W", "error", "-m", "airflow_provider_cdm.simulator"]
HOME = Path(os.environ["AIRFLOW_HOME"])


@contextmanager
def running(cwd: Path, *arguments: str) -> Iterator[str]:
    """Run the command in a folder, and return what it prints before it serves."""
    command = [*COMMAND, "--port", "0", "--demo", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = iter(process.stdout.readline, "")
        printed = []
        for line in lines:
            printed.append(line)
            if line.startswith("Ctrl-C"):
                break
        yield "".join(printed)
        process.send_signal(signal.SIGINT)
        assert (process.wait(20), process.stderr.read()) == (0, "")


def refused(cwd: Path, *arguments: str) -> str:
    """Run the command, which must end with status 2, and return its reason."""
    command = [*COMMAND, "--port", "0", "--demo", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=cwd)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stdout
    return done.stderr


def exported(printed: str) -> str:
    """Return the value of the printed environment variable, as a shell reads it."""
    (line,) = re.findall(r"^export (.*)$", printed, re.MULTILINE)
    return shlex.split(line)[0].partition("=")[2]


def command_line(printed: str) -> list[str]:
    """Return the printed ``airflow connections add``, as a shell splits it."""
    (line,) = re.findall(r"^airflow connections add .*$", printed, re.MULTILINE)
    return shlex.split(line)


@pytest.mark.long
def test_command_brings_databases_jobs_and_dags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any file, the command serves a page with jobs, and a printed connection runs one."""
    with running(tmp_path) as printed:
        folder = tmp_path / "cdm-demo"
        address = printed.splitlines()[0].split()[-1]
        page = requests.get(address, timeout=5).text
        for job in ("orders_daily", "shop_nightly", "orders_history", "ledger_daily"):
            assert job in page
        monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", exported(printed))
        started = CdmHook().start_job("orders_daily", variables={"dt": str(DAYS[1])})
        assert (started.submission_id, started.status) == (1, "BOOTING")
        assert f"The folder {folder} has the databases" in printed
        for name in ("source.db", "target.db", "mirror.db", "ledger.db", "simulator.yaml"):
            assert name in printed
            assert (folder / name).is_file()
        assert DAGS.read_text() in printed
        assert (folder / "cdm_demo.py").read_text() == DAGS.read_text()


@pytest.mark.long
def test_the_connection_is_the_same_as_json_as_uri_and_in_airflow(
    tmp_path: Path, airflow_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable and the command that are printed make equal connections."""
    with running(tmp_path) as printed:
        command = command_line(printed)
        uri = command[-1]
        command[3] = "cdm_of_the_demo"
        process = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr[-2000:]
    shown = subprocess.run(
        [sys.executable, "-m", "airflow", *["connections", "get", "cdm_of_the_demo", "-o", "json"]],
        capture_output=True,
        text=True,
        check=True,
    )
    # On Python 3.14, Airflow prints warnings before.
    (stored,) = json.loads(shown.stdout.splitlines()[-1])
    assert stored["conn_type"] == "huaweicloud_cdm"
    # Airflow 3.3.2 cannot test a stored connection without a port.
    assert int(stored["port"]) == urlsplit(json.loads(exported(printed))["host"]).port
    monkeypatch.setenv("AIRFLOW_CONN_AS_JSON", exported(printed))
    monkeypatch.setenv("AIRFLOW_CONN_AS_URI", uri)
    settings = settings_from(BaseHook.get_connection("as_json"))
    assert settings == replace(
        settings_from(BaseHook.get_connection("as_uri")), conn_id=settings.conn_id
    )
    extra = stored["extra_dejson"]
    extra = extra if isinstance(extra, dict) else json.loads(extra.replace("'", '"'))
    assert extra == json.loads(exported(printed))["extra"]
    # Airflow would warn in the log of each task that it cannot mask a shorter value.
    assert all(len(value) >= 5 for value in extra.values())


@pytest.mark.long
def test_printed_commands_fill_the_dags_folder_of_a_new_airflow(tmp_path: Path) -> None:
    """The DAGs arrive in the DAGs folder of an Airflow that has none yet, since it is new."""
    home = tmp_path / "airflow home"
    with running(tmp_path) as printed:
        (commands,) = re.findall(r"^dags=.*\n.*$|^cp .*$", printed, re.MULTILINE)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "AIRFLOW_HOME": str(home), "PATH": path}
        environment.pop("AIRFLOW__CORE__DAGS_FOLDER", None)
        for _ in range(2):  # also where the folder exists
            subprocess.run(["sh", "-ec", commands], check=True, env=environment, cwd=tmp_path)
    assert (home / "dags" / "cdm_demo.py").read_text() == DAGS.read_text()


@pytest.mark.long
def test_a_second_start(tmp_path: Path) -> None:
    """A folder keeps its password and its changed jobs; the databases are made anew."""
    folder = tmp_path / "mine"
    with running(tmp_path, str(folder)) as first:
        config = folder / "simulator.yaml"
        assert config.stat().st_mode & 0o077 == 0
        (password,) = [user["password"] for user in yaml.safe_load(config.read_text())["users"]]
        config.write_text(config.read_text().replace("stock_nightly", "stock_weekly"))
        database = sqlite3.connect(folder / "target.db")
        with closing(database), database:
            database.execute("INSERT INTO customers VALUES (1, 'somebody')")
        assert "Another demo runs in" in refused(tmp_path, str(folder))
    with running(tmp_path, str(folder)) as second:
        address = second.splitlines()[0].split()[-1]
        assert "stock_weekly" in requests.get(address, timeout=5).text
        with closing(sqlite3.connect(folder / "target.db")) as database:
            assert database.execute("SELECT * FROM customers").fetchall() == []
    assert {json.loads(exported(each))["password"] for each in (first, second)} == {password}


@pytest.mark.long
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """A folder with files that are not a demo's is refused, and nothing in it is changed."""
    (tmp_path / "source.db").write_text("production data")
    assert "has files" in refused(tmp_path, ".")
    (tmp_path / "simulator.yaml").write_text("auth: off\n")
    assert "has files" in refused(tmp_path, ".")
    assert (tmp_path / "source.db").read_text() == "production data"
    assert {path.name for path in tmp_path.iterdir()} == {"source.db", "simulator.yaml"}


@pytest.mark.long
def test_a_port_that_is_in_use_changes_no_database(tmp_path: Path) -> None:
    """If the simulator cannot start, the databases of the folder stay as they are."""
    with running(tmp_path):
        pass
    target = tmp_path / "cdm-demo" / "target.db"
    target.write_text("rows that were moved")
    with CdmSimulator() as other:
        port = other.url.rsplit(":")[-1]
        assert "Address already in use" in refused(tmp_path, "--port", port)
    assert target.read_text() == "rows that were moved"


def load() -> Any:
    """Return the names that the copied DAG file defines."""
    return runpy.run_path(str(HOME / "dags" / DAGS.name))


@pytest.fixture
def demo(
    tmp_path: Path, airflow_database: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[CdmSimulator, Databases]]:
    """A demo in a folder, with short runs, and its DAGs in the DAGs folder of an Airflow."""
    folder = DemoFolder(tmp_path / "demo")
    with folder.lock(), CdmSimulator(folder.config) as simulator:
        databases = folder.fill()
        (empty_dags_folder() / DAGS.name).write_text(folder.dags.read_text())
        for job in simulator.jobs():
            simulator.add_job(job, seconds=0.3)
        monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", simulator.connection_json)
        yield simulator, databases


def scheduled_days(dag: Any) -> list[date]:
    """Return the days for which Airflow would schedule the DAG, by its timetable."""
    restriction = TimeRestriction(dag.start_date, dag.end_date, dag.catchup)
    days: list[date] = []
    last: DataInterval | None = None
    while info := dag.timetable.next_dagrun_info(
        last_automated_data_interval=last, restriction=restriction
    ):
        last = info.data_interval
        days.append(info.logical_date.date())
    return days


def run(dag: Any, day: date) -> Any:
    """Run a DAG for one day with Airflow, with short intervals."""
    for task in dag.tasks:
        task.poll_interval = 0.1
    logical_date = datetime(day.year, day.month, day.day, tzinfo=UTC)
    key = "execution_date" if airflow.__version__.startswith("2.") else "logical_date"
    return dag.test(**{key: logical_date})


@pytest.mark.long
def test_dag_moves_exactly_the_days_that_are_named(demo: tuple[CdmSimulator, Databases]) -> None:
    """The schedule of the copied DAG is the three days, and each is moved once and completely."""
    simulator, databases = demo
    assert scheduled_days(load()["daily"]) == MOVED_DAYS
    for day in MOVED_DAYS:
        assert run(load()["daily"], day).state == "success"
        assert databases.moved(day)
    assert databases.target.count() == sum(len(databases.source.orders(d)) for d in MOVED_DAYS)
    assert len(simulator.runs("orders_daily")) == len(MOVED_DAYS)


@pytest.mark.long
def test_dag_by_hand(demo: tuple[CdmSimulator, Databases]) -> None:
    """The whole database and the history arrive in the mirror; the failing job moves nothing."""
    simulator, databases = demo
    done = run(load()["by_hand"], DAYS[0])
    states = {task.task_id: task.state for task in done.get_task_instances()}
    assert states == {"move_shop": "success", "move_history": "success", "fail": "failed"}
    for table in ("orders", "customers", "products"):
        rows = [
            each.run(f"SELECT * FROM {table} ORDER BY id")
            for each in (databases.source, databases.mirror)
        ]
        assert rows[0] == rows[1]
    assert databases.ledger.count() == 0
    (failed,) = simulator.runs("ledger_daily")
    assert "CHECK constraint failed: price < 90" in (failed.error_summary or "")
