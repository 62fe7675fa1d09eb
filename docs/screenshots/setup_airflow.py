"""What the screenshots show: the demo's databases, simulator and Airflow, as users have them."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, suppress
from datetime import date
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, urlsplit

from airflow_provider_cdm.simulator.demo.databases import BAD_DAY, DAYS, Databases
from airflow_provider_cdm.simulator.demo.folder import CONFIG
from demo.airflow_runs import DAG_ID, Airflow, Standalone
from demo.processes import ROOT, Simulator, request_json, wait_until

HOME = ROOT / ".screenshots"
#: A day whose orders can all be moved.
DAY = DAYS[1]
#: Airflow masks a password wherever it occurs in a text, so passwords contain no common word.
_USERS = """
users:
  - {name: airflow, password: Not1.of.theirs}
"""
#: Seconds for which a run is RUNNING, so that logs show its progress.
RUNNING = 12
#: Ids of the stored connections. The DAG uses cdm_default, which comes from the environment.
GOOD, WRONG = "cdm_orders", "cdm_wrong_password"
#: Time limit in seconds for each step of Airflow.
TIMEOUT = 180


class OpenAirflow(Airflow):
    """An Airflow without login, in which connections can be tested."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of all Airflow processes."""
        return super().environment | {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        }


class OpenStandalone(Standalone):
    """``airflow standalone`` without login."""

    def _log_in(self) -> str:
        return str(request_json(f"{self.url}/auth/token")["access_token"])

    def add_connection(self, conn_id: str, connection: dict[str, Any]) -> None:
        """Store a connection.

        It gets a port, because Airflow 3.3.2 cannot test a stored connection without one.

        :param connection: the connection as plain data.
        """
        host = urlsplit(connection["host"])
        parts = {"schema": host.scheme, "host": host.hostname, "port": host.port}
        extra = json.dumps(connection["extra"])
        body = {**connection, **parts, "connection_id": conn_id, "extra": extra}
        self._request("connections", body)

    def task_page(self, task_id: str, day: date = DAY) -> str:
        """Return the URL of the page of a task in the DAG run of a day."""
        return f"{self.url}/dags/{DAG_ID}/runs/{self._run_id(day)}/tasks/{task_id}"

    def has_failed(self, task_id: str, day: date) -> bool:
        """Return whether a task in the DAG run of a day has failed, even if it will be retried."""
        path = f"dags/{DAG_ID}/dagRuns/{self._run_id(day)}/taskInstances/{task_id}"
        return self._request(path)["state"] in ("up_for_retry", "failed")

    def _run_id(self, day: date) -> str:
        runs = self._request(f"dags/{DAG_ID}/dagRuns")["dag_runs"]
        (run,) = [run for run in runs if run["logical_date"].startswith(str(day))]
        return quote(run["dag_run_id"], safe="")


class Setup:
    """The simulator and an Airflow with two DAG runs and two stored connections.

    :param stack: ends all processes when it is closed.
    """

    def __init__(self, stack: ExitStack) -> None:
        shutil.rmtree(HOME, ignore_errors=True)
        data = HOME / "data"
        data.mkdir(parents=True)
        Databases.create(data)
        simulator = Simulator(stack, _write_config(data), _open_log(stack, "simulator"))
        #: URL of the simulator's page.
        self.simulator = simulator.url
        self._connection: dict[str, Any] = json.loads(simulator.connection)
        log = _open_log(stack, "airflow")
        self.airflow = OpenStandalone(
            stack, OpenAirflow(HOME / "airflow", log, simulator.connection, deferrable=False)
        )

    def prepare(self) -> None:
        """Wait until Airflow is ready, move two days of orders, and store the connections.

        The target rejects some orders of the second day.
        """
        airflow = self.airflow
        wait_until(airflow.ready, TIMEOUT, "Airflow is ready")
        airflow.backfill([DAY])
        wait_until(lambda: airflow.succeeded() is not None, TIMEOUT, "the DAG run has ended")
        if not airflow.succeeded():
            raise SystemExit(f"The DAG run failed; see {HOME.name}/airflow.log")
        wait_until(self._request_second_run, TIMEOUT, "Airflow accepts another backfill")
        wait_until(
            lambda: airflow.has_failed("move_orders", BAD_DAY), TIMEOUT, "the second run fails"
        )
        airflow.add_connection(GOOD, self._connection)
        airflow.add_connection(WRONG, self._connection | {"password": "Not2.of.theirs"})

    def _request_second_run(self) -> bool:
        # Airflow accepts one backfill at a time, and ends one shortly after its last DAG run.
        with suppress(OSError):
            self.airflow.backfill([BAD_DAY])
            return True
        return False


def _open_log(stack: ExitStack, name: str) -> TextIO:
    return stack.enter_context((HOME / f"{name}.log").open("w"))


def _write_config(data: Path) -> Path:
    demo = CONFIG.read_text()
    config = data / "simulator.yaml"
    config.write_text(demo.replace("running: 4", f"running: {RUNNING}") + _USERS)
    return config
