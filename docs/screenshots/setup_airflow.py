"""What is photographed: the demo's shop, simulator and Airflow, as users have them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import date
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, urlsplit

from demo.databases import BAD_DAY, DAYS, Shop
from demo.processes import DAG_ID, ROOT, Airflow, Simulator, Standalone, ask

HOME = ROOT / ".test" / "screenshots"
#: The day that is moved; all goes well.
DAY = DAYS[1]
#: Passwords are hidden wherever a part of them occurs, so they have no word in common with texts.
_ACCOUNT = """
domain: acme-retail
users:
  - {name: airflow, password: Not1.of.theirs}
"""
#: Seconds for which a run is shown as RUNNING, so that its progress can be seen.
RUNNING = 12
#: Stored connections; cdm_default, which the DAG uses, comes from the environment.
GOOD, WRONG = "cdm_orders", "cdm_wrong_password"


class OpenAirflow(Airflow):
    """An Airflow whose pages need no login, whose connections can be tested, and that waits."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of all Airflow processes."""
        return super().environment | {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            # Only the run that is ordered.
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        }


class OpenStandalone(Standalone):
    """`airflow standalone` that lets everybody in."""

    def ready(self) -> bool:
        """Whether all parts are healthy and the DAG is known."""
        if not self.alive:
            raise SystemExit("airflow standalone has ended; see its log")
        with suppress(OSError, ValueError, KeyError):
            health = ask(f"{self.url}/api/v2/monitor/health")
            if all(part["status"] == "healthy" for part in health.values()):
                self._token = ask(f"{self.url}/auth/token")["access_token"]
                return bool(self._ask(f"dags/{DAG_ID}"))
        return False

    def add_connection(self, conn_id: str, connection: dict[str, Any]) -> None:
        """Store a connection, given as plain data.

        With a port: Airflow 3.3.2 tests no stored connection that has none.
        """
        host = urlsplit(connection["host"])
        parts = {"schema": host.scheme, "host": host.hostname, "port": host.port}
        extra = json.dumps(connection["extra"])
        body = {**connection, **parts, "connection_id": conn_id, "extra": extra}
        self._ask("connections", body)

    def task_page(self, task_id: str, day: date = DAY) -> str:
        """Address of the page of a task in the run of a day."""
        return f"{self.url}/dags/{DAG_ID}/runs/{self._run(day)}/tasks/{task_id}"

    def has_failed(self, task_id: str, day: date) -> bool:
        """Whether a task of that day's run has failed, for good or not."""
        path = f"dags/{DAG_ID}/dagRuns/{self._run(day)}/taskInstances/{task_id}"
        return self._ask(path)["state"] in ("up_for_retry", "failed")

    def _run(self, day: date) -> str:
        found = self._ask(f"dags/{DAG_ID}/dagRuns")["dag_runs"]
        (run,) = [run for run in found if run["logical_date"].startswith(str(day))]
        return quote(run["dag_run_id"], safe="")


class Stage:
    """Everything that is running.

    :param airflow: Airflow and its pages.
    :param simulator: address of the simulator's page.
    """

    def __init__(self, stack: ExitStack) -> None:
        shutil.rmtree(HOME, ignore_errors=True)
        data = HOME / "data"
        data.mkdir(parents=True)
        Shop.make(data)
        simulator = Simulator(stack, _config(data), _log(stack, "simulator"))
        self.simulator = simulator.url
        self._connection: dict[str, Any] = json.loads(simulator.connection)
        log = _log(stack, "airflow")
        self.airflow = OpenStandalone(
            stack, OpenAirflow(HOME / "airflow", log, simulator.connection, deferrable=False)
        )

    def open(self) -> None:
        """Wait until Airflow answers, move two days of orders, and store connections.

        Of the second day, CDM refuses some.
        """
        airflow = self.airflow
        wait_for(airflow.ready, 180, "Airflow is up")
        airflow.migrate([DAY])
        wait_for(lambda: airflow.outcome() is not None, 180, "the DAG run is over")
        if not airflow.outcome():
            raise SystemExit(f"The DAG run failed; see {HOME.name}/airflow.log")
        wait_for(self._second_is_ordered, 180, "the first backfill is over for Airflow, too")
        wait_for(lambda: airflow.has_failed("move_orders", BAD_DAY), 180, "the other run fails")
        airflow.add_connection(GOOD, self._connection)
        airflow.add_connection(WRONG, self._connection | {"password": "Not2.of.theirs"})

    def _second_is_ordered(self) -> bool:
        # Airflow takes one backfill at a time, and ends one a little after its last run.
        with suppress(OSError):
            self.airflow.migrate([BAD_DAY])
            return True
        return False


def _log(stack: ExitStack, name: str) -> TextIO:
    return stack.enter_context((HOME / f"{name}.log").open("w"))


def _config(data: Path) -> Path:
    demo = (ROOT / "example_dags" / "demo_simulator.yaml").read_text()
    config = data / "simulator.yaml"
    config.write_text(demo.replace("running: 4", f"running: {RUNNING}") + _ACCOUNT)
    return config


def wait_for(ready: Callable[[], bool], patience: float, what: str) -> None:
    """Look now and then until something is so."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"Waited {patience:.0f} s in vain until {what}.")
        time.sleep(0.5)
