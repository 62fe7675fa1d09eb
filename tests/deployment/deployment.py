"""Airflow as it is deployed for many: several of each component, and nothing on SQLite."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from tests.deployment.servers import Postgres, Redis
from tests.support.airflow_stack import Stack

#: Triggers that each triggerer takes; less than wait at once, so that one is not enough.
CAPACITY = 30
#: Tasks that each worker runs at a time.
SLOTS = 4
#: A pool, and the tasks that may run in it at a time.
POOL, POOL_SLOTS = "cdm", 6
#: A queue for tasks that wait on a worker, and one for all others.
PATIENT, DEFAULT = "patient", "default"


class Deployment:
    """PostgreSQL, Redis, and an Airflow with two triggerers and two workers.

    :param folder: an existing folder that every user can reach.
    :param dags: folder of the DAGs.
    :param environment: what Airflow's processes get in addition.
    """

    def __init__(self, folder: Path, dags: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._database, self._broker = Postgres(folder), Redis(folder)
        self.stack = Stack(
            folder / "airflow",
            dags,
            environment | {"PYTHONPATH": f"{folder / 'lib'}:{os.environ.get('PYTHONPATH', '')}"},
            self._database,
            {
                "CELERY__BROKER_URL": self._broker.url,
                "CELERY__RESULT_BACKEND": f"db+{self._database.url}",
                "CELERY__SYNC_PARALLELISM": "1",
                "CELERY__WORKER_CONCURRENCY": str(SLOTS),
                "CORE__EXECUTOR": "CeleryExecutor",
                "CORE__HOSTNAME_CALLABLE": "hostname_patch.name",
                "OPERATORS__DEFAULT_DEFERRABLE": "True",
                # What a lost worker had fetched and not begun is queued again after this long.
                "SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
                "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
                # The days of the examples are those that we ask for.
                "SCHEDULER__USE_JOB_SCHEDULE": "False",
                "TRIGGERER__CAPACITY": str(CAPACITY),
            },
        )

    def start(self, dags: int) -> None:
        """Start everything, and wait until so many DAGs are known."""
        (self._folder / "lib").mkdir()
        shutil.copy(Path(__file__).with_name("hostname_patch.py"), self._folder / "lib")
        self.stack.home.mkdir()
        self._database.start()
        self._broker.start()
        self.stack.start()
        self.stack.start_triggerer("triggerer-2")
        self.start_worker("worker-1", DEFAULT)
        self.start_worker("worker-2", PATIENT)
        self.stack.wait_for_dags(dags)
        self.stack.add_pool(POOL, POOL_SLOTS)

    def start_worker(self, name: str, *queues: str) -> None:
        """Start one more worker."""
        self.stack.spawn(
            name,
            *("celery", "worker", "--celery-hostname", name, "--queues", ",".join(queues)),
            *("--pid", str(self.stack.home / f"{name}.pid")),
            *("--skip-serve-logs", "--without-gossip", "--without-mingle"),
        )

    def stop(self) -> None:
        """End everything."""
        self.stack.stop()
        self._broker.stop()
        self._database.stop()

    def dags(self) -> int:
        """How many DAGs are known."""
        return int(self.stack.query("SELECT count(*) FROM dag")[0][0])

    def running_at(self, worker: str) -> set[tuple[str, int]]:
        """Tasks that a worker runs, with their map index."""
        query = (
            "SELECT task_id, map_index FROM task_instance WHERE state = 'running' AND hostname = ?"
        )
        return {(task, index) for task, index in self.stack.query(query, worker)}

    def held(self, dag: str) -> Counter[str]:
        """How many deferred tasks of a DAG each triggerer has."""
        query = (
            "SELECT job.hostname FROM task_instance"
            ' JOIN "trigger" ON "trigger".id = trigger_id JOIN job ON job.id = triggerer_id'
            " WHERE task_instance.state = 'deferred' AND task_instance.dag_id = ?"
        )
        return Counter(triggerer for (triggerer,) in self.stack.query(query, dag))

    def instances(self, dag: str) -> list[tuple[Any, ...]]:
        """Task, map index, state, attempt of all task instances of a DAG."""
        query = "SELECT task_id, map_index, state, try_number FROM task_instance WHERE dag_id = ?"
        return self.stack.query(query, dag)
