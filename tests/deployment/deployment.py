"""An Airflow as deployed for many users: several triggerers and workers, and no SQLite."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from tests.deployment.servers import Postgres, Redis
from tests.support.airflow_settings import MAP_INDEX
from tests.support.airflow_stack import AirflowStack

#: Number of triggers that each triggerer takes; too few for one triggerer to run all.
CAPACITY = 30
#: Number of tasks that each worker runs at a time.
SLOTS = 4
#: A pool, and the number of its slots.
POOL, POOL_SLOTS = "cdm", 6
#: The queue of tasks that wait on a worker, and the one of all others.
WAITING_QUEUE, DEFAULT_QUEUE = "waiting", "default"


class Deployment:
    """PostgreSQL, Redis, and an Airflow with two triggerers and two workers.

    :param folder: an existing folder that every user can reach.
    :param dags: folder of the DAGs.
    :param environment: environment variables for Airflow's processes.
    """

    def __init__(self, folder: Path, dags: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._database, self._broker = Postgres(folder), Redis(folder)
        self.stack = AirflowStack(
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
                "CORE__HOSTNAME_CALLABLE": "hostname_patch.component_name",
                "OPERATORS__DEFAULT_DEFERRABLE": "True",
                # Seconds after which a task that a killed worker had taken but not started is
                # queued again.
                "SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
                "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
                # No DAG runs but those that the tests trigger.
                "SCHEDULER__USE_JOB_SCHEDULE": "False",
                "TRIGGERER__CAPACITY": str(CAPACITY),
            },
        )

    def start(self, dags: int) -> None:
        """Start everything, and wait until all DAGs are known.

        :param dags: number of the DAGs.
        """
        (self._folder / "lib").mkdir()
        shutil.copy(Path(__file__).with_name("hostname_patch.py"), self._folder / "lib")
        self.stack.home.mkdir()
        self._database.start()
        self._broker.start()
        self.stack.start()
        self.stack.start_triggerer("triggerer-2")
        self.start_worker("worker-1", DEFAULT_QUEUE)
        self.start_worker("worker-2", WAITING_QUEUE)
        self.stack.wait_for_dags(dags)
        self.stack.add_pool(POOL, POOL_SLOTS)

    def start_worker(self, name: str, *queues: str) -> None:
        """Start a worker for some queues."""
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

    def count_dags(self) -> int:
        """Return the number of known DAGs."""
        return int(self.stack.query("SELECT count(*) FROM dag")[0][0])

    def running_on(self, worker: str) -> set[tuple[str, int]]:
        """Return the tasks that a worker runs, as task id and map index."""
        query = (
            f"SELECT task_id, {MAP_INDEX} FROM task_instance"
            " WHERE state = 'running' AND hostname = ?"
        )
        return {(task, index) for task, index in self.stack.query(query, worker)}

    def deferred_by_triggerer(self, dag: str) -> Counter[str]:
        """Return the number of deferred tasks of a DAG for each triggerer."""
        query = (
            "SELECT job.hostname FROM task_instance"
            ' JOIN "trigger" ON "trigger".id = trigger_id JOIN job ON job.id = triggerer_id'
            " WHERE task_instance.state = 'deferred' AND task_instance.dag_id = ?"
        )
        return Counter(triggerer for (triggerer,) in self.stack.query(query, dag))

    def instances(self, dag: str) -> list[tuple[Any, ...]]:
        """Return task id, map index, state and attempt of all task instances of a DAG."""
        query = (
            f"SELECT task_id, {MAP_INDEX}, state, try_number FROM task_instance WHERE dag_id = ?"
        )
        return self.stack.query(query, dag)
