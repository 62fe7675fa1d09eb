"""One scan: a real Airflow uses all connections, and what it leaves behind is searched."""

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
from tests.secrets import artifacts, connections
from tests.secrets.search import Find, Search
from tests.support.airflow_stack import Stack, wait_until

#: Seconds that all DAG runs may take.
PATIENCE = 1500
#: Tasks that may be under way when one more DAG begins.
AT_ONCE = 8
LEAKS = "leaks"


@dataclass
class Scan:
    """A scan, and what came of it.

    :param folder: an empty folder for everything.
    :param tell: told how it goes on.
    :param states: how each task of each DAG ended.
    :param traces: what Airflow left behind.
    :param finds: secrets found in that, by the kind of place.
    :param planted: what was found of the secrets that a DAG gave away.
    """

    folder: Path
    sim: CdmSimulator
    tell: Callable[[str], None]
    states: dict[str, dict[str, str]] = field(default_factory=dict)
    traces: list[artifacts.Trace] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    finds: dict[str, list[Find]] = field(default_factory=dict)
    planted: list[Find] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cases = list(connections.cases(self.sim, self.folder))
        self._key = Fernet.generate_key()
        self._triggers: set[artifacts.Trace] = set()
        self._revoked, self._told_at = False, 0.0

    @property
    def database(self) -> Path:
        """Airflow's metadata."""
        return self.folder / "airflow" / "airflow.db"

    def play(self) -> None:
        """Let everything happen, and search."""
        connections.add_jobs(self.sim, self.cases)
        stack = self._make_stack()
        try:
            stack.start()
            stack.wait_for_dags(len(self.cases) + 1)
            self.tell(f"Airflow {version('apache-airflow')} is up")
            self._use_all(stack)
            shown = json.dumps(stack.connections())
            (stack.home / "out" / "connections, from the API").write_text(shown)
        finally:
            stack.stop()
        self._gather(stack)
        self._search()

    def _make_stack(self) -> Stack:
        dags = self.folder / "dags"
        dags.mkdir()
        shutil.copy(Path(__file__).with_name("dag_file.py"), dags / "scanned.py")
        plan = [{"dag_id": c.slug, "conn_id": c.slug, "retries": c.retries} for c in self.cases]
        (self.folder / "plan.json").write_text(json.dumps(plan))
        (self.folder / "planted.json").write_text(json.dumps(connections.PLANTED))
        environment = connections.environment(self.cases, self.folder)
        environment["AIRFLOW__CORE__FERNET_KEY"] = self._key.decode()
        stack = Stack(self.folder / "airflow", dags, environment)
        stack.home.mkdir()
        return stack

    def _use_all(self, stack: Stack) -> None:
        """Run all DAGs to their end."""
        for case in self.cases:
            if case.stored:
                stack.add_connection(case.slug, case.connection)
        for dag in (*(case.slug for case in self.cases), LEAKS):
            # An Airflow that is too busy takes tasks for dead.
            wait_until(lambda: self._busy(stack) < AT_ONCE, PATIENCE, "Airflow is less busy")
            stack.trigger(dag, "once", "2025-01-02T00:00:00Z")
        left = "SELECT count(*) FROM dag_run WHERE state NOT IN ('success', 'failed')"
        wait_until(
            lambda: self._busy(stack) + stack.query(left)[0][0] == 0, PATIENCE, "all DAG runs end"
        )
        # Processes still write what they have to say at their end.
        time.sleep(3)

    def _busy(self, stack: Stack) -> int:
        """How many tasks are under way; keeps what is there only for a while, and says how it goes.

        Once, all tokens are revoked while tasks wait.
        """
        self._triggers |= set(artifacts.rows(self.database, Fernet(self._key), "trigger"))
        rows = stack.query("SELECT state, count(*) FROM task_instance GROUP BY state")
        count = {str(state): number for state, number in rows}
        if not self._revoked and count.get("deferred", 0) >= 3:
            self.sim.revoke_tokens()
            self._revoked = True
        if time.monotonic() > self._told_at + 10:
            self._told_at = time.monotonic()
            self.tell(", ".join(f"{number} {state}" for state, number in sorted(count.items())))
        return sum(count.get(state, 0) for state in ("scheduled", "queued", "running"))

    def _gather(self, stack: Stack) -> None:
        for dag, task, state in stack.query("SELECT dag_id, task_id, state FROM task_instance"):
            self.states.setdefault(dag, {})[task] = state
        rows = artifacts.rows(self.database, Fernet(self._key))
        self.traces = [*artifacts.files(stack.home), *rows, *self._triggers]
        self.tokens = connections.tokens_of(self.sim)

    def _search(self) -> None:
        size = sum(len(trace.data) for trace in self.traces) / 1e6
        self.tell(f"Searching {size:.0f} MB for {len(self.tokens)} tokens, passwords and keys")
        search = Search(connections.secrets_of(self.cases) | self.tokens)
        planted = Search(connections.PLANTED)
        for trace in self.traces:
            found = self.finds.setdefault(trace.kind, [])
            found += search.look(trace.place, trace.data)
            self.planted += planted.look(trace.place, trace.data)
        self.tell("All is searched")
