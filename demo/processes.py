"""The demo's processes: the simulator, and Airflow in two forms."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]
DAG_ID = "example_cdm_daily_migration"
#: Seconds until Airflow tries a failed task again; the DAG itself leaves that to Airflow.
RETRY_DELAY = 5
#: A cluster policy of Airflow: the example DAG stays as it would be in production.
POLICY = '''"""A demo is less patient than a night's migration."""


def task_policy(task):
    if hasattr(task, "poll_interval"):
        task.poll_interval = 1.0
'''


def start(stack: ExitStack, command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process that ends, with all that it started, when the stack is closed."""
    # A session of its own keeps Ctrl-C away from it: it is told in its turn.
    process = subprocess.Popen(command, text=True, start_new_session=True, **options)
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ask(url: str, body: Any = None, *, method: str | None = None, token: str = "") -> Any:
    """Exchange JSON over HTTP with a process of ours."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    # Not through a proxy that the environment may name: everything is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)


class Simulator:
    """The simulator of CDM and IAM, as a process of its own.

    :param config: YAML, in the folder of the databases.
    """

    def __init__(self, stack: ExitStack, config: Path, log: TextIO) -> None:
        module = "airflow_provider_cdm.simulator"
        command = [sys.executable, "-m", module, "--port", "0", "--config", str(config)]
        process = start(stack, command, stdout=subprocess.PIPE, stderr=log)
        if process.stdout is None:
            raise RuntimeError("no pipe")
        first, second = process.stdout.readline(), process.stdout.readline()
        if not second:
            raise SystemExit(f"The simulator did not start; see {log.name}")
        self.url = first.split()[-1]
        self.connection = shlex.split(second)[1].partition("=")[2]

    def runs(self) -> list[dict[str, Any]]:
        """Return all runs of the demo's cluster, the oldest first."""
        found: list[dict[str, Any]] = ask(f"{self.url}/_sim/state")["clusters"][0]["runs"]
        return found[::-1]


@dataclass
class Airflow:
    """An Airflow home with a connection to the simulator.

    :param home: its folder.
    :param log: where everything goes that Airflow prints.
    """

    home: Path
    log: TextIO
    connection: str
    deferrable: bool

    def __post_init__(self) -> None:
        (self.home / "config").mkdir(parents=True)
        (self.home / "config" / "airflow_local_settings.py").write_text(POLICY)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of all Airflow processes; other Airflows on this machine stay out."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "_AIR"))}
        return inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONN_CDM_DEFAULT": self.connection,
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": str(RETRY_DELAY),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": str(self.deferrable),
        }

    def start(self, stack: ExitStack, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a process of this Airflow."""
        return start(
            stack,
            [sys.executable, *command],
            env={**self.environment, **environment},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def make_database(self, stack: ExitStack) -> None:
        """Create Airflow's own database."""
        if self.start(stack, "-m", "airflow", "db", "migrate").wait():
            raise SystemExit(f"Airflow's database could not be made; see {self.log.name}")

    def logs(self) -> Iterable[str]:
        """Return what Airflow logged, file by file."""
        for path in (Path(self.log.name), *self.home.rglob("logs/**/*.log")):
            yield path.read_text(errors="replace")


class Days:
    """Airflow runs the DAG for some days in one process, as `airflow dags test` does."""

    def __init__(self, stack: ExitStack, airflow: Airflow, days: list[date]) -> None:
        dates = [str(day) for day in days]
        script = str(ROOT / "demo" / "dag_runs.py")
        self._process = airflow.start(stack, script, DAG_ID, *dates)

    def outcome(self) -> bool | None:
        """Whether all went well; ``None`` as long as that is open."""
        code = self._process.poll()
        return None if code is None else code == 0


class Standalone:
    """`airflow standalone`: scheduler, API server with the pages, DAG processor and triggerer."""

    user = "admin"

    def __init__(self, stack: ExitStack, airflow: Airflow) -> None:
        port = _free_port(8080)
        self.url = f"http://127.0.0.1:{port}"
        self._passwords = airflow.home / "simple_auth_manager_passwords.json.generated"
        self._token = ""
        self._backfill: int | None = None
        self._process = airflow.start(
            stack,
            *("-m", "airflow", "standalone"),
            AIRFLOW__API__BASE_URL=self.url,
            AIRFLOW__API__HOST="127.0.0.1",
            AIRFLOW__API__PORT=str(port),
        )

    @property
    def password(self) -> str:
        """The password that Airflow made up."""
        return str(json.loads(self._passwords.read_text())[self.user])

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ready(self) -> bool:
        """Whether all parts are healthy and the DAG is known."""
        if not self.alive:
            raise SystemExit("airflow standalone has ended; see its log")
        with suppress(OSError, ValueError, KeyError):
            health = ask(f"{self.url}/api/v2/monitor/health")
            if all(part["status"] == "healthy" for part in health.values()):
                login = {"username": self.user, "password": self.password}
                self._token = ask(f"{self.url}/auth/token", login)["access_token"]
                return bool(self._ask(f"dags/{DAG_ID}"))
        return False

    def migrate(self, days: list[date]) -> None:
        """Switch the DAG on, and order its runs for some days in a row."""
        self._ask(f"dags/{DAG_ID}", {"is_paused": False}, method="PATCH")
        order = {"dag_id": DAG_ID, "from_date": f"{days[0]}T00:00:00Z", "max_active_runs": 1}
        order |= {"to_date": f"{days[-1]}T00:00:00Z"}
        self._backfill = self._ask("backfills", order)["id"]

    def outcome(self) -> bool | None:
        """Whether all went well; ``None`` as long as that is open."""
        states: set[str] = set()
        with suppress(OSError):  # a busy server is asked again
            found = self._ask(f"dags/{DAG_ID}/dagRuns?run_type=backfill")["dag_runs"]
            states = {run["state"] for run in found}
        if not states or states & {"queued", "running"}:
            return None
        return states == {"success"}

    def _ask(self, path: str, body: Any = None, **options: Any) -> Any:
        return ask(f"{self.url}/api/v2/{path}", body, token=self._token, **options)


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
