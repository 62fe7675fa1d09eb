"""A real Airflow of several processes, in a folder of its own; by default on SQLite."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil  # type: ignore[import-untyped]  # a part of every Airflow

from tests.support.metadata_databases import Database, Sqlite

SERIES = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
AIRFLOW_3 = SERIES >= (3, 0)
#: Seconds after which a silent task, or triggerer, is taken for dead.
TASK_TIMEOUT, TRIGGERER_TIMEOUT = 15, 10
#: Tasks that may run at the same time.
SLOTS = 32

_SECRET = "only-for-loopback-and-a-few-minutes"
_SETTINGS = {
    "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "CORE__EXECUTOR": "LocalExecutor",
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__MAX_ACTIVE_TASKS_PER_DAG": str(SLOTS),
    "CORE__PARALLELISM": str(SLOTS),
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    "SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
    "SCHEDULER__USE_JOB_SCHEDULE": "True",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(TRIGGERER_TIMEOUT),
    "USAGE_DATA_COLLECTION__ENABLED": "False",
}
_SETTINGS_2 = {
    # As open as Airflow 3 with SIMPLE_AUTH_MANAGER_ALL_ADMINS.
    "API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
    # What is marked successful while it runs is ended after this many seconds.
    "CORE__TASK_SUCCESS_OVERTIME": "3",
    "SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC": "10",
    "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": str(TASK_TIMEOUT),
    "SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "600",
    # Not shorter: the retry of a silent task would be ordered again before it has begun.
    "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "10",
    "WEBSERVER__SECRET_KEY": _SECRET,
}
_SETTINGS_3 = {
    "API__SECRET_KEY": _SECRET,
    "API_AUTH__JWT_SECRET": _SECRET * 2,
    "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(TASK_TIMEOUT),
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}


@dataclass(frozen=True)
class Task:
    """A task instance as the metadata database has it."""

    state: str
    attempt: int
    triggerer: int | None


@dataclass
class Stack:
    """An Airflow with its processes.

    :param home: an empty folder.
    :param environment: what its processes get in addition.
    :param database: for the metadata; by default in a file below ``home``.
    :param settings: of Airflow, as ``SECTION__KEY``, that differ from those here.
    """

    home: Path
    dags: Path
    environment: dict[str, str]
    database: Database | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._database = self.database or Sqlite(self.home / "airflow.db")
        self._port, self._execution_port = free_ports(2)
        if not self._database.one_writer:
            self._execution_port = self._port
        self._url = f"http://127.0.0.1:{self._port}"
        self._token = ""
        self._one_writer = threading.Lock()
        settings = _SETTINGS | (_SETTINGS_3 if AIRFLOW_3 else _SETTINGS_2)
        settings |= {
            "API__BASE_URL": self._url,
            "CORE__DAGS_FOLDER": str(self.dags),
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self._execution_port}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": self._database.url,
        }
        settings |= self.settings
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "_AIR"))}
        self._environment = inherited | self.environment
        self._environment |= {f"AIRFLOW__{key}": value for key, value in settings.items()}
        self._environment |= {
            "AIRFLOW_HOME": str(self.home),
            "NO_PROXY": "127.0.0.1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            # Airflow 2 mistrusts SQLite; with a write-ahead log and patience it bears many tasks.
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
        }

    def start(self) -> None:
        """Start everything, and wait until all DAGs are known."""
        (self.home / "out").mkdir(parents=True)
        (self.home / "webserver_config.py").write_text("AUTH_ROLE_PUBLIC = 'Admin'\n")
        if self.spawn("migration", "db", "migrate").wait():
            raise RuntimeError(f"no database: {self._printed('migration')}")
        self._database.prepare(2 * SLOTS)
        self._start_api()
        if AIRFLOW_3:
            self.spawn("dag-processor", "dag-processor")
        self.spawn("scheduler", "scheduler", "--skip-serve-logs")
        self.start_triggerer("triggerer")

    def start_triggerer(self, name: str) -> None:
        """Start one more triggerer."""
        self.spawn(name, "triggerer", "--skip-serve-logs")

    def spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a component.

        :param name: also what it finds as ``COMPONENT`` in its environment.
        :param command: of Airflow's command line.
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
        # Two, for a user's request writes on the event loop: where there is one writer, that waits
        # for others which cannot finish without the event loop.
        self.spawn("api", *server, self._port, "--apps", "core")
        self.spawn("execution-api", *server, self._execution_port, "--apps", "execution")

    def wait_for_dags(self, count: int, patience: float = 120) -> None:
        """Wait until the REST API answers and knows all DAGs."""

        def known() -> bool:
            for name, process in self.processes.items():
                if process.poll() and name != "migration":
                    raise RuntimeError(f"{name} has ended: {self._printed(name)}")
            with suppress(OSError, ValueError):
                if AIRFLOW_3 and not self._token:
                    self._token = self._ask("GET", "/auth/token")["access_token"]
                if self._ask("GET", f"{self._api}/dags?limit=1")["total_entries"] >= count:
                    return bool(self.query("SELECT count(*) >= ? FROM serialized_dag", count)[0][0])
            return False

        wait_until(known, patience, "Airflow knows all DAGs")

    def stop(self) -> None:
        """End every component with all that it has started."""
        for name in list(self.processes):
            self.kill(name)

    def kill(self, name: str) -> None:
        """End a component, and whatever it has started, with SIGKILL."""
        leader = self.processes.pop(name)
        with suppress(psutil.NoSuchProcess):
            for process in (psutil.Process(leader.pid), *self._below(leader.pid)):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        leader.wait()

    def terminate(self, name: str) -> None:
        """End a component with SIGTERM."""
        leader = self.processes.pop(name)
        leader.terminate()
        leader.wait(60)

    def freeze(self, name: str) -> Callable[[], None]:
        """Stop a component in its tracks; the result lets it go on."""
        pid = self.processes[name].pid
        frozen = [psutil.Process(pid), *self._below(pid)]

        def send(number: int) -> None:
            for process in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

        for _ in range(50):
            send(signal.SIGSTOP)
            # Where there is one writer at a time, it must not be the one that sleeps.
            if self._database.writable():
                return lambda: send(signal.SIGCONT)
            send(signal.SIGCONT)
            time.sleep(0.2)
        raise TimeoutError(f"{name} writes all the time")

    # What a user does

    def trigger(self, dag: str, run: str, logical_date: str) -> None:
        """Start a DAG run."""
        body = {"dag_run_id": run, "logical_date": logical_date}
        self._ask("POST", f"{self._api}/dags/{dag}/dagRuns", body)

    def add_connection(self, conn_id: str, connection: dict[str, Any]) -> None:
        """Store a connection, given as plain data."""
        body = {**connection, "connection_id": conn_id, "extra": json.dumps(connection["extra"])}
        self._ask("POST", f"{self._api}/connections", body)

    def add_pool(self, name: str, slots: int) -> None:
        """Make a pool."""
        self._ask("POST", f"{self._api}/pools", {"name": name, "slots": slots})

    def connections(self) -> Any:
        """The stored connections, as the REST API shows them."""
        return self._ask("GET", f"{self._api}/connections")

    def mark(self, dag: str, run: str, task: str, state: str) -> None:
        """Mark a task instance as failed or successful."""
        body: dict[str, Any] = {"new_state": state}
        if not AIRFLOW_3:
            body["dry_run"] = False
        self._ask("PATCH", f"{self._api}/dags/{dag}/dagRuns/{run}/taskInstances/{task}", body)

    def mark_run(self, dag: str, run: str, state: str) -> None:
        """Mark a DAG run as failed or successful."""
        self._ask("PATCH", f"{self._api}/dags/{dag}/dagRuns/{run}", {"state": state})

    def clear(self, dag: str, run: str, task: str, logical_date: str) -> None:
        """Clear one task of a DAG run, whatever its state."""
        if AIRFLOW_3:
            body = {"dry_run": False, "dag_run_id": run, "task_ids": [task], "only_failed": False}
            self._ask("POST", f"{self._api}/dags/{dag}/clearTaskInstances", body)
            return
        # Not over REST: there, Airflow 2.11 forgets to write that a running task shall restart.
        span = ("--start-date", logical_date, "--end-date", logical_date)
        command = ("tasks", "clear", dag, "--task-regex", f"^{task}$", *span, "--yes")
        if self.spawn(f"clear-{dag}", *command).wait():
            raise RuntimeError(f"not cleared: {self._printed(f'clear-{dag}')}")

    # What can be seen

    def tasks(self, dag: str, task: str) -> dict[int, Task]:
        """The instances of a task, by map index."""
        rows = self.query(
            "SELECT map_index, state, try_number, triggerer_id FROM task_instance"
            ' LEFT JOIN "trigger" ON "trigger".id = trigger_id WHERE dag_id = ? AND task_id = ?',
            *(dag, task),
        )
        return {index: Task(state or "", attempt, by) for index, state, attempt, by in rows}

    def dag_run(self, dag: str, run: str) -> str:
        """The state of a DAG run."""
        query = "SELECT state FROM dag_run WHERE dag_id = ? AND run_id = ?"
        ((state,),) = self.query(query, dag, run)
        return str(state)

    def returned(self, dag: str, run: str, task: str) -> Any:
        """What a task returned, as the REST API shows it."""
        path = f"{self._api}/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value"
        # Without that, Airflow 2 shows what Python would print.
        return self._ask("GET", f"{path}?stringify=false")["value"]

    def link(self, dag: str, name: str, task: str, index: int = -1) -> str:
        """Where a button of a task leads in a DAG's only run, as the UI asks; nothing before it
        is there.
        """
        day = "logical_date" if AIRFLOW_3 else "execution_date"
        query = f"SELECT run_id, {day} FROM dag_run WHERE dag_id = ?"
        found = self.query(query, dag)
        if not found:
            return ""
        ((run, logical_date),) = found
        try:
            if AIRFLOW_3:
                path = f"{self._api}/dags/{dag}/dagRuns/{run}/taskInstances/{task}/links"
                return self._ask("GET", f"{path}?map_index={index}")["extra_links"][name] or ""
            asked = {"dag_id": dag, "task_id": task, "map_index": index, "link_name": name}
            asked |= {"execution_date": str(logical_date)}
            return str(self._ask("GET", f"/extra_links?{urlencode(asked)}")["url"])
        except OSError as error:
            if ": 404 " not in str(error):
                raise
            return ""  # no link yet, or no such mapped instance yet

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read from the metadata database."""
        return self._database.query(sql, *values)

    def logs(self, dag: str) -> Iterator[tuple[Path, str]]:
        """The logs of a DAG's tasks and of their triggers, with their paths, in order."""
        for path in sorted(self.home.glob(f"logs/dag_id={dag}/**/*.log*")):
            yield path.relative_to(self.home / "logs"), _readable(path)

    def _printed(self, name: str) -> str:
        return (self.home / "out" / name).read_text(errors="replace")[-3000:]

    # How it works

    @property
    def _api(self) -> str:
        return "/api/v2" if AIRFLOW_3 else "/api/v1"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        # Not through a proxy that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with self._one_writer, opener.open(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise OSError(f"{method} {path}: {error.code} {text[:500]}") from error

    def _below(self, pid: int) -> list[Any]:
        found: list[Any] = psutil.Process(pid).children(recursive=True)
        return found


def wait_until(ready: Callable[[], bool], patience: float, what: str) -> None:
    """Look every now and then until something is so."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience:.0f} s in vain until {what}")
        time.sleep(0.3)


def signal_process(pid: int, born: float, number: int) -> bool:
    """Send a signal to a process, but not to a later one with the same id."""
    try:
        process = psutil.Process(pid)
        if process.create_time() != born:
            return False
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def _readable(path: Path) -> str:
    """A log file as text; Airflow 3 writes JSON, a line for each message."""
    lines = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            shown = (str(entry.get(key, ""))[:400] for key in ("timestamp", "level", "event"))
            detail = json.dumps(entry["error_detail"])[-1500:] if "error_detail" in entry else ""
            lines.append(" ".join((*shown, detail)))
        except (ValueError, AttributeError):
            lines.append(line)
    return "\n".join(lines)


def free_ports(count: int) -> list[str]:
    """Ports of the loopback interface that nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]
