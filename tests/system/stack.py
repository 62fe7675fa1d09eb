"""A real Airflow of several processes on SQLite, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # a part of every Airflow

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
    """

    home: Path
    dags: Path
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database = self.home / "airflow.db"
        self._port, self._execution_port = _free_ports(2)
        self._url = f"http://127.0.0.1:{self._port}"
        self._token = ""
        self._one_writer = threading.Lock()
        settings = _SETTINGS | (_SETTINGS_3 if AIRFLOW_3 else _SETTINGS_2)
        settings |= {
            "API__BASE_URL": self._url,
            "CORE__DAGS_FOLDER": str(self.dags),
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self._execution_port}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}?timeout=60",
        }
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
        if self._spawn("migration", "db", "migrate").wait():
            raise RuntimeError(f"no database: {self._printed('migration')}")
        with closing(sqlite3.connect(self.database)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("UPDATE slot_pool SET slots = ?", (2 * SLOTS,))
            database.commit()
        if AIRFLOW_3:
            # Two, for a user's request writes on the event loop: on SQLite that waits for writers
            # which cannot finish without the event loop.
            server = ("api-server", "--host", "127.0.0.1", "--workers", "1", "--port")
            self._spawn("api", *server, self._port, "--apps", "core")
            self._spawn("execution-api", *server, self._execution_port, "--apps", "execution")
            self._spawn("dag-processor", "dag-processor")
        else:
            server = ("webserver", "--hostname", "127.0.0.1", "--workers", "1", "--port")
            self._spawn("api", *server, self._port)
        self._spawn("scheduler", "scheduler", "--skip-serve-logs")
        self.start_triggerer("triggerer")

    def start_triggerer(self, name: str) -> None:
        """Start one more triggerer."""
        self._spawn(name, "triggerer", "--skip-serve-logs")

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
            # SQLite has one writer at a time, and it must not be the one that sleeps.
            if self._writable():
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
        if self._spawn(f"clear-{dag}", *command).wait():
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

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read from the metadata database."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as db:
            return db.execute(sql, values).fetchall()

    def logs(self, dag: str) -> Iterator[tuple[Path, str]]:
        """The logs of a DAG's tasks and of their triggers, with their paths, in order."""
        for path in sorted(self.home.glob(f"logs/dag_id={dag}/**/*.log*")):
            yield path.relative_to(self.home / "logs"), _readable(path)

    def _writable(self) -> bool:
        with closing(sqlite3.connect(self.database, timeout=2)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            database.rollback()
        return True

    def _printed(self, name: str) -> str:
        return (self.home / "out" / name).read_text(errors="replace")[-3000:]

    # How it works

    @property
    def _api(self) -> str:
        return "/api/v2" if AIRFLOW_3 else "/api/v1"

    def _spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.home / "out" / name).open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.processes[name]

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"}
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


def _free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]
