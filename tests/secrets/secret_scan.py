"""The scan: a real Airflow uses all connections, and everything it has written is searched."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from cryptography.fernet import Fernet

from airflow_provider_cdm.simulator import CdmSimulator
from demo.processes import wait_until
from tests.secrets import connections
from tests.secrets.artifacts import Artifact, files, tables
from tests.secrets.search import Find, Search
from tests.support.airflow_stack import AirflowStack

#: Time limit in seconds for all DAG runs.
TIMEOUT = 1500
#: Number of active tasks below which another DAG run is started.
MAX_ACTIVE = 8
LEAKS = "leaks"


@dataclass
class SecretScan:
    """A scan and its results.

    :param folder: an empty folder for logs and databases.
    :param log: prints the progress.
    :param states: final states of the tasks by DAG.
    :param artifacts: everything that Airflow has written.
    :param tokens: tokens that were issued or sent, by name.
    :param finds: secrets that were found, by the kind of artifact.
    :param planted: finds of the secrets that a DAG leaks on purpose.
    """

    folder: Path
    sim: CdmSimulator
    log: Callable[[str], None]
    states: dict[str, dict[str, str]] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    finds: dict[str, list[Find]] = field(default_factory=dict)
    planted: list[Find] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cases = list(connections.cases(self.sim, self.folder))
        self._key = Fernet.generate_key()
        self._triggers: set[Artifact] = set()
        self._revoked, self._logged_at = False, 0.0

    @property
    def database(self) -> Path:
        """Path of the metadata database."""
        return self.folder / "airflow" / "airflow.db"

    def run(self) -> None:
        """Run all DAGs, then search."""
        connections.add_jobs(self.sim, self.cases)
        stack = self._make_stack()
        try:
            stack.start()
            stack.wait_for_dags(len(self.cases) + 1)
            self.log(f"Airflow {version('apache-airflow')} is ready")
            self._use_all(stack)
            response = json.dumps(stack.connections())
            (stack.home / "out" / "connections, from the API").write_text(response)
        finally:
            stack.stop()
        self._gather(stack)
        self._search()

    def _make_stack(self) -> AirflowStack:
        dags = self.folder / "dags"
        dags.mkdir()
        shutil.copy(Path(__file__).with_name("dag_file.py"), dags / "scanned.py")
        plan = [{"dag_id": c.slug, "conn_id": c.slug, "retries": c.retries} for c in self.cases]
        (self.folder / "plan.json").write_text(json.dumps(plan))
        (self.folder / "planted.json").write_text(json.dumps(connections.PLANTED))
        environment = connections.environment(self.cases, self.folder)
        environment["AIRFLOW__CORE__FERNET_KEY"] = self._key.decode()
        stack = AirflowStack(self.folder / "airflow", dags, environment)
        stack.home.mkdir()
        return stack

    def _use_all(self, stack: AirflowStack) -> None:
        """Run all DAGs to their end."""
        for case in self.cases:
            if case.stored:
                stack.add_connection(case.slug, case.connection)
        for dag in (*(case.slug for case in self.cases), LEAKS):
            # A task of an overloaded Airflow misses heartbeats and counts as dead.
            wait_until(lambda: self._observe(stack) < MAX_ACTIVE, TIMEOUT, "fewer tasks are active")
            stack.trigger(dag, "once", "2025-01-02T00:00:00Z")
        active_runs = "SELECT count(*) FROM dag_run WHERE state NOT IN ('success', 'failed')"
        wait_until(
            lambda: self._observe(stack) + stack.query(active_runs)[0][0] == 0,
            *(TIMEOUT, "all DAG runs have ended"),
        )
        # Processes still write their last output.
        time.sleep(3)

    def _observe(self, stack: AirflowStack) -> int:
        """Log the progress, keep the current triggers, and return the number of active tasks.

        All tokens are revoked once, while tasks are deferred.
        """
        self._triggers |= set(tables(self.database, Fernet(self._key), "trigger"))
        counts = stack.query("SELECT state, count(*) FROM task_instance GROUP BY state")
        count = {str(state): number for state, number in counts}
        if not self._revoked and count.get("deferred", 0) >= 3:
            self.sim.revoke_tokens()
            self._revoked = True
        if time.monotonic() > self._logged_at + 10:
            self._logged_at = time.monotonic()
            self.log(", ".join(f"{number} {state}" for state, number in sorted(count.items())))
        return sum(count.get(state, 0) for state in ("scheduled", "queued", "running"))

    def _gather(self, stack: AirflowStack) -> None:
        for dag, task, state in stack.query("SELECT dag_id, task_id, state FROM task_instance"):
            self.states.setdefault(dag, {})[task] = state
        written = [*files(stack.home), *tables(self.database, Fernet(self._key))]
        self.artifacts = [*written, *self._triggers]
        self.tokens = connections.tokens_of(self.sim)

    def _search(self) -> None:
        size = sum(len(artifact.data) for artifact in self.artifacts) / 1e6
        self.log(f"Searching {size:.0f} MB for {len(self.tokens)} tokens, passwords and keys")
        search = Search(connections.secrets_of(self.cases) | self.tokens)
        planted = Search(connections.PLANTED)
        for artifact in self.artifacts:
            finds = self.finds.setdefault(artifact.kind, [])
            finds += search.find_in(artifact.place, artifact.data)
            self.planted += planted.find_in(artifact.place, artifact.data)
        self.log("The search has ended")
