"""The demo's Airflow: ``dag.test()`` in one process, or ``airflow standalone``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TextIO

from demo.processes import (
    ROOT,
    airflow_environment,
    port_or_free_port,
    request_json,
    start_process,
)

DAG_ID = "example_cdm_daily_migration"
#: Seconds until Airflow retries a failed task. The DAG leaves the delay to Airflow's default.
RETRY_DELAY = 5
#: A cluster policy of Airflow, so that the example DAG stays as it would be in production.
_POLICY = '''"""The runs of a demo take seconds, so they are polled every second."""


def task_policy(task):
    if hasattr(task, "poll_interval"):
        task.poll_interval = 1.0
'''


@dataclass
class Airflow:
    """An Airflow home with a connection to the simulator.

    :param home: folder that does not exist yet.
    :param log: file for the output of all Airflow processes.
    :param connection: connection to the simulator, as JSON.
    :param deferrable: whether tasks wait in the triggerer instead of on a worker.
    """

    home: Path
    log: TextIO
    connection: str
    deferrable: bool

    def __post_init__(self) -> None:
        (self.home / "config").mkdir(parents=True)
        (self.home / "config" / "airflow_local_settings.py").write_text(_POLICY)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of all Airflow processes."""
        return airflow_environment(self.home) | {
            "AIRFLOW_CONN_CDM_DEFAULT": self.connection,
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": str(RETRY_DELAY),
            "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": str(self.deferrable),
        }

    def start(self, stack: ExitStack, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a Python process in this Airflow's environment."""
        return start_process(
            stack,
            [sys.executable, *command],
            env={**self.environment, **environment},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def create_database(self, stack: ExitStack) -> None:
        """Create the metadata database."""
        if self.start(stack, "-m", "airflow", "db", "migrate").wait():
            raise SystemExit(f"Airflow's database could not be created; see {self.log.name}")

    def logs(self) -> Iterable[str]:
        """Return the text of each log file."""
        for path in (Path(self.log.name), *self.home.rglob("logs/**/*.log")):
            yield path.read_text(errors="replace")


class DagTest:
    """Airflow runs the DAG for some days in one process, as ``airflow dags test`` does."""

    def __init__(self, stack: ExitStack, airflow: Airflow, days: list[date]) -> None:
        script = str(ROOT / "demo" / "dag_runs.py")
        self._process = airflow.start(stack, script, DAG_ID, *map(str, days))

    def succeeded(self) -> bool | None:
        """Return whether all DAG runs have succeeded; ``None`` while some have not ended."""
        code = self._process.poll()
        return None if code is None else code == 0


class Standalone:
    """``airflow standalone``: scheduler, API server with the pages, DAG processor, triggerer."""

    user = "admin"

    def __init__(self, stack: ExitStack, airflow: Airflow) -> None:
        port = port_or_free_port(8080)
        self.url = f"http://127.0.0.1:{port}"
        self._passwords = airflow.home / "simple_auth_manager_passwords.json.generated"
        self._token = ""
        self._process = airflow.start(
            stack,
            *("-m", "airflow", "standalone"),
            AIRFLOW__API__BASE_URL=self.url,
            AIRFLOW__API__HOST="127.0.0.1",
            AIRFLOW__API__PORT=str(port),
            # Only the backfill: otherwise the DAG, which is unpaused, runs for yesterday as well.
            AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE="False",
        )

    @property
    def password(self) -> str:
        """The password that Airflow has generated."""
        return str(json.loads(self._passwords.read_text())[self.user])

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ready(self) -> bool:
        """Return whether all components are healthy and the DAG is known."""
        if not self.alive:
            raise SystemExit("airflow standalone has ended; see its log")
        with suppress(OSError, ValueError, KeyError):
            health = request_json(f"{self.url}/api/v2/monitor/health")
            if all(component["status"] == "healthy" for component in health.values()):
                self._token = self._log_in()
                return bool(self._request(f"dags/{DAG_ID}"))
        return False

    def _log_in(self) -> str:
        """Return an access token."""
        login = {"username": self.user, "password": self.password}
        return str(request_json(f"{self.url}/auth/token", login)["access_token"])

    def backfill(self, days: list[date]) -> None:
        """Unpause the DAG, and request its runs for consecutive days."""
        self._request(f"dags/{DAG_ID}", {"is_paused": False}, method="PATCH")
        backfill = {"dag_id": DAG_ID, "from_date": f"{days[0]}T00:00:00Z", "max_active_runs": 1}
        self._request("backfills", backfill | {"to_date": f"{days[-1]}T00:00:00Z"})

    def succeeded(self) -> bool | None:
        """Return whether all DAG runs have succeeded; ``None`` while some have not ended."""
        states: set[str] = set()
        with suppress(OSError):  # a busy server is asked again at the next call
            runs = self._request(f"dags/{DAG_ID}/dagRuns?run_type=backfill")["dag_runs"]
            states = {run["state"] for run in runs}
        if not states or states & {"queued", "running"}:
            return None
        return states == {"success"}

    def _request(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        return request_json(f"{self.url}/api/v2/{path}", body, method=method, token=self._token)
