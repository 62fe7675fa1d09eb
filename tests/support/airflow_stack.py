"""A real Airflow with all its processes, in a folder of its own; on SQLite by default."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil  # type: ignore[import-untyped]  # a part of every Airflow

from demo.processes import airflow_environment, free_ports, request_json, wait_until
from tests.support.airflow_logs import read_log
from tests.support.airflow_settings import AIRFLOW_3, MAP_INDEX, SETTINGS, SLOTS
from tests.support.dag_reader import DagReader
from tests.support.metadata_databases import MetadataDatabase, Sqlite

_IN_RUN = "dag_id = ? AND run_id = ?"


@dataclass(frozen=True)
class Task:
    """A task instance in the metadata database.

    :param attempt: number of the current try.
    :param triggerer: id of the triggerer that has its trigger.
    """

    state: str
    attempt: int
    triggerer: int | None


@dataclass
class AirflowStack:
    """An Airflow with all its processes.

    :param home: an empty folder.
    :param dags: folder of the DAGs.
    :param environment: environment variables for all processes.
    :param database: metadata database; by default a SQLite file in ``home``.
    :param settings: settings of Airflow, as ``SECTION__KEY``, that replace the ones here.
    :param processes: running processes by name of the component.
    """

    home: Path
    dags: Path
    environment: dict[str, str]
    database: MetadataDatabase | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._database = self.database or Sqlite(self.home / "airflow.db")
        self._port, self._execution_port = map(str, free_ports(2))
        if not self._database.single_writer:
            self._execution_port = self._port
        self._url = f"http://127.0.0.1:{self._port}"
        self._token = ""
        self._request_lock = threading.Lock()
        self._reader: DagReader | None = None
        settings = {
            **SETTINGS,
            "API__BASE_URL": self._url,
            "CORE__DAGS_FOLDER": str(self.dags),
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self._execution_port}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": self._database.url,
        }
        settings |= self.settings
        self._environment = airflow_environment(self.home) | self.environment
        self._environment |= {f"AIRFLOW__{key}": value for key, value in settings.items()}
        self._environment |= {
            "NO_PROXY": "127.0.0.1",
            # Airflow 2 rejects SQLite for several tasks at a time, but a write-ahead log and a long
            # timeout for locks are enough for it.
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
        }

    def start(self) -> None:
        """Create the metadata database and start all components."""
        (self.home / "out").mkdir(parents=True)
        (self.home / "webserver_config.py").write_text("AUTH_ROLE_PUBLIC = 'Admin'\n")
        if self.spawn("migration", "db", "migrate").wait():
            raise RuntimeError(f"The migration failed: {self._output_of('migration')}")
        self._database.prepare(2 * SLOTS)
        self._start_api()
        self._start_schedulers()
        self.start_triggerer("triggerer")

    def _start_schedulers(self) -> None:
        if AIRFLOW_3:
            self.spawn("dag-processor", "dag-processor")
        self.spawn("scheduler", "scheduler", "--skip-serve-logs")

    def start_triggerer(self, name: str) -> None:
        """Start a triggerer."""
        self.spawn(name, "triggerer", "--skip-serve-logs")

    def spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a component.

        :param name: name of the component, also in its environment variable ``COMPONENT``.
        :param command: arguments of the ``airflow`` command.
        """
        with (self.home / "out" / name).open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=self._environment | {"COMPONENT": name},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.processes[name]

    def _start_api(self) -> None:
        if not AIRFLOW_3:
            server = ("webserver", "--hostname", "127.0.0.1", "--workers", "1", "--port")
            self.spawn("api", *server, self._port)
            return
        server = ("api-server", "--host", "127.0.0.1", "--workers", "1", "--port")
        if self._port == self._execution_port:
            self.spawn("api", *server, self._port)
            return
        # Two servers, because a user's request writes on the event loop. With a single writer, it
        # waits for another request, which cannot finish without the same event loop.
        self.spawn("api", *server, self._port, "--apps", "core")
        self.spawn("execution-api", *server, self._execution_port, "--apps", "execution")

    def wait_for_dags(self, count: int, timeout: float = 120) -> None:
        """Wait until the REST API answers and knows all DAGs.

        :param count: number of the DAGs.
        :param timeout: time limit in seconds.
        """

        def all_known() -> bool:
            for name, process in self.processes.items():
                if process.poll() and name != "migration":
                    raise RuntimeError(f"{name} has ended: {self._output_of(name)}")
            with suppress(OSError, ValueError):
                if AIRFLOW_3 and not self._token:
                    self._token = self._request("GET", "/auth/token")["access_token"]
                if self._request("GET", f"{self._api}/dags?limit=1")["total_entries"] >= count:
                    return bool(self.query("SELECT count(*) >= ? FROM serialized_dag", count)[0][0])
            return False

        wait_until(all_known, timeout, "Airflow knows all DAGs")

    def restart(self, settings: Mapping[str, str]) -> None:
        """Restart all components but the triggerer, after settings were changed."""
        self._environment |= {f"AIRFLOW__{key}": value for key, value in settings.items()}
        self._stop_reader()
        for name in [name for name in self.processes if not name.startswith("triggerer")]:
            self.kill(name)
        self._start_api()
        self._start_schedulers()

    def stop(self) -> None:
        """End all components and the processes they have started."""
        self._stop_reader()
        for name in list(self.processes):
            self.kill(name)

    def _stop_reader(self) -> None:
        if self._reader:
            self._reader.stop()
            self._reader = None

    def kill(self, name: str) -> None:
        """End a component and the processes it has started with SIGKILL."""
        leader = self.processes.pop(name)
        with suppress(psutil.NoSuchProcess):
            for process in (psutil.Process(leader.pid), *_descendants(leader.pid)):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        leader.wait()

    def terminate(self, name: str) -> None:
        """End a component with SIGTERM."""
        leader = self.processes.pop(name)
        leader.terminate()
        leader.wait(60)

    def freeze(self, name: str) -> Callable[[], None]:
        """Stop a component with SIGSTOP; return a function that lets it continue."""
        pid = self.processes[name].pid
        frozen = [psutil.Process(pid), *_descendants(pid)]

        def send(number: int) -> None:
            for process in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

        for _ in range(50):
            send(signal.SIGSTOP)
            # With a single writer, the frozen component must not be the one that writes.
            if self._database.writable():
                return lambda: send(signal.SIGCONT)
            send(signal.SIGCONT)
            time.sleep(0.2)
        raise TimeoutError(f"{name} was writing to the database each time it was stopped")

    # Actions of users

    def trigger(self, dag: str, run: str, logical_date: str) -> None:
        """Start a DAG run."""
        body = {"dag_run_id": run, "logical_date": logical_date}
        self._request("POST", f"{self._api}/dags/{dag}/dagRuns", body)

    def add_connection(self, conn_id: str, connection: dict[str, Any]) -> None:
        """Store a connection.

        :param connection: the connection as plain data.
        """
        body = {**connection, "connection_id": conn_id, "extra": json.dumps(connection["extra"])}
        self._request("POST", f"{self._api}/connections", body)

    def change_connection(self, conn_id: str, connection: dict[str, Any]) -> None:
        """Replace a stored connection; the parameters are those of :meth:`add_connection`."""
        body = {**connection, "connection_id": conn_id, "extra": json.dumps(connection["extra"])}
        self._request("PATCH", f"{self._api}/connections/{conn_id}", body)

    def add_pool(self, name: str, slots: int) -> None:
        """Create a pool."""
        self._request("POST", f"{self._api}/pools", {"name": name, "slots": slots})

    def set_pool(self, name: str, slots: int) -> None:
        """Change the number of slots of a pool."""
        body = {"pool" if AIRFLOW_3 else "name": name, "slots": slots, "include_deferred": False}
        self._request("PATCH", f"{self._api}/pools/{name}", body)

    def connections(self) -> Any:
        """Return the stored connections, as the REST API shows them."""
        return self._request("GET", f"{self._api}/connections")

    def mark(self, dag: str, run: str, task: str, state: str) -> None:
        """Mark a task instance as failed or successful."""
        body: dict[str, Any] = {"new_state": state}
        if not AIRFLOW_3:
            body["dry_run"] = False
        self._request("PATCH", f"{self._api}/dags/{dag}/dagRuns/{run}/taskInstances/{task}", body)

    def mark_run(self, dag: str, run: str, state: str) -> None:
        """Mark a DAG run as failed or successful."""
        self._request("PATCH", f"{self._api}/dags/{dag}/dagRuns/{run}", {"state": state})

    def clear(
        self, dag: str, run: str, tasks: Sequence[str], logical_date: str, **options: Any
    ) -> None:
        """Clear tasks of a DAG run in any state.

        :param options: further fields of the request.
        """
        query = f"SELECT count(*) FROM task_instance WHERE {_IN_RUN} AND state = 'running'"
        if AIRFLOW_3 or not self.query(query, dag, run)[0][0]:
            body = {"dag_run_id": run, "task_ids": tasks, "only_failed": False, "dry_run": False}
            # As the UI does, and the API of Airflow 3 by default.
            body |= {"reset_dag_runs": True, **options}
            with nullcontext() if AIRFLOW_3 else self._triggers_removed(dag, run):
                self._request("POST", f"{self._api}/dags/{dag}/clearTaskInstances", body)
            return
        # Not with the REST API: Airflow 2.11 does not store there that a running task must restart.
        span = ("--start-date", logical_date, "--end-date", logical_date)
        command = ("tasks", "clear", dag, "--task-regex", f"^({'|'.join(tasks)})$", *span, "--yes")
        if self.spawn(f"clear-{dag}", *command).wait():
            raise RuntimeError(f"The task was not cleared: {self._output_of(f'clear-{dag}')}")

    @contextmanager
    def _triggers_removed(self, dag: str, run: str) -> Iterator[None]:
        """Let no task begin in the DAG's pool until the triggers that the block clears are removed.

        Otherwise Airflow 2 may remove a trigger while the next attempt stores its id again, which
        fails the attempt with "FOREIGN KEY constraint failed" before it executes anything.
        """
        query = f"SELECT count(*) FROM task_instance WHERE {_IN_RUN} AND trigger_id IS NOT NULL"
        still_deferred = f"{query} AND state = 'deferred'"
        if not self.query(query, dag, run)[0][0]:
            yield
            return
        pool = f"{self._api}/pools/{dag}"
        self._request("PATCH", pool, {"name": dag, "slots": 0})
        try:
            yield
            wait_until(
                lambda: self.query(query, dag, run) == self.query(still_deferred, dag, run),
                *(60, "the triggers are removed"),
            )
        finally:
            self._request("PATCH", pool, {"name": dag, "slots": SLOTS})

    def clear_run(self, dag: str, run: str, logical_date: str, **options: Any) -> None:
        """Clear all tasks of a DAG run.

        :param options: further fields of the request.
        """
        if AIRFLOW_3:
            body = {"dry_run": False, **options}
            self._request("POST", f"{self._api}/dags/{dag}/dagRuns/{run}/clear", body)
            return
        query = f"SELECT DISTINCT task_id FROM task_instance WHERE {_IN_RUN}"
        self.clear(dag, run, [task for (task,) in self.query(query, dag, run)], logical_date)

    def delete_run(self, dag: str, run: str) -> None:
        """Delete a DAG run."""
        self._request("DELETE", f"{self._api}/dags/{dag}/dagRuns/{run}")

    @contextmanager
    def edited(self, dag: str) -> Iterator[None]:
        """Wait until Airflow knows what the block changes in a DAG."""
        query = "SELECT dag_hash FROM serialized_dag WHERE dag_id = ? ORDER BY dag_hash"
        before = self.query(query, dag)
        yield
        path = self.dags / f"{dag}.py"
        for _ in range(15):
            if AIRFLOW_3:
                # Not only once: Airflow may just have been reading the file as it was.
                path.touch()
            else:
                self._read(path)
            with suppress(TimeoutError):
                wait_until(lambda: self.query(query, dag) != before, 8, "it is known")
                return
        raise TimeoutError(f"Airflow does not know the new {dag}")

    def _read(self, path: Path) -> None:
        with self._request_lock:
            self._reader = self._reader or DagReader(self._environment)
            self._reader.read(path)

    # Observations

    def tasks(self, dag: str, task: str) -> dict[int, Task]:
        """Return the instances of a task by map index, each with its last attempt: Airflow 3.4
        keeps those before as well.
        """
        rows = self.query(
            f"SELECT {MAP_INDEX}, state, try_number, triggerer_id FROM task_instance"
            ' LEFT JOIN "trigger" ON "trigger".id = trigger_id WHERE dag_id = ? AND task_id = ?'
            " ORDER BY try_number",
            *(dag, task),
        )
        return {index: Task(state or "", attempt, by) for index, state, attempt, by in rows}

    def dag_run(self, dag: str, run: str) -> str:
        """Return the state of a DAG run."""
        query = "SELECT state FROM dag_run WHERE dag_id = ? AND run_id = ?"
        ((state,),) = self.query(query, dag, run)
        return str(state)

    def result_of(self, dag: str, run: str, task: str, key: str = "return_value") -> Any:
        """Return the result of a task, or another XCom of it, as the REST API shows it."""
        path = f"{self._api}/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/{key}"
        # Without the parameter, Airflow 2 returns the result as Python prints it.
        return self._request("GET", f"{path}?stringify=false")["value"]

    def link(self, dag: str, name: str, task: str, index: int = -1) -> str:
        """Return the URL of a task's extra link in the only run of a DAG, or an empty text.

        It is requested as the UI does. There is none before the task has started its CDM run.

        :param name: name of the link.
        :param index: map index.
        """
        day = "logical_date" if AIRFLOW_3 else "execution_date"
        query = f"SELECT run_id, {day} FROM dag_run WHERE dag_id = ?"
        runs = self.query(query, dag)
        if not runs:
            return ""
        ((run, logical_date),) = runs
        try:
            if AIRFLOW_3:
                path = f"{self._api}/dags/{dag}/dagRuns/{run}/taskInstances/{task}/links"
                return self._request("GET", f"{path}?map_index={index}")["extra_links"][name] or ""
            parameters = {"dag_id": dag, "task_id": task, "map_index": index, "link_name": name}
            parameters |= {"execution_date": str(logical_date)}
            return str(self._request("GET", f"/extra_links?{urlencode(parameters)}")["url"])
        except OSError as error:
            if ": 404 " not in str(error):
                raise
            return ""  # there is no link, or no such mapped instance, yet

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query of the metadata database, with ``?`` for each value."""
        return self._database.query(sql, *values)

    def logs(self, dag: str) -> Iterator[tuple[Path, str]]:
        """Yield path and text of the logs of a DAG's tasks and their triggers, in order."""
        for path in sorted(self.home.glob(f"logs/dag_id={dag}/**/*.log*")):
            yield path.relative_to(self.home / "logs"), read_log(path)

    def _output_of(self, name: str) -> str:
        return (self.home / "out" / name).read_text(errors="replace")[-3000:]

    @property
    def _api(self) -> str:
        return "/api/v2" if AIRFLOW_3 else "/api/v1"

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        try:
            # One request at a time: SQLite has a single writer.
            with self._request_lock:
                url = self._url + path
                return request_json(url, body, method=method, token=self._token, timeout=60)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise OSError(f"{method} {path}: {error.code} {text[:500]}") from error


def _descendants(pid: int) -> list[Any]:
    children: list[Any] = psutil.Process(pid).children(recursive=True)
    return children


def signal_process(pid: int, created_at: float, number: int) -> bool:
    """Send a signal to a process, but not to a later one with the same id.

    :param created_at: time at which the process was created, epoch seconds.
    :returns: whether the process existed.
    """
    try:
        process = psutil.Process(pid)
        if process.create_time() != created_at:
            return False
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True
