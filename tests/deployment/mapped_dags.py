"""DAGs of mapped tasks, and many jobs for them, each of which moves one day."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.migration_jobs import MigrationJobs

#: The target table of all jobs.
TABLE = "orders"


@dataclass(frozen=True)
class MappedTask:
    """A mapped task.

    :param count: number of its instances.
    :param seconds: duration of a CDM run.
    :param arguments: arguments of the operator that are not mapped.
    """

    count: int
    seconds: float
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MappedDag:
    """A DAG of mapped tasks.

    :param dag: id of the DAG.
    :param first: first of the consecutive days that the jobs move.
    :param tasks: tasks by task id.
    """

    dag: str
    first: date
    tasks: Mapping[str, MappedTask]

    @property
    def count(self) -> int:
        """Number of its jobs, and of the days that they move."""
        return sum(task.count for task in self.tasks.values())

    @property
    def days(self) -> list[str]:
        """The days that the jobs move."""
        return [str(self.first + timedelta(days=number)) for number in range(self.count)]

    @property
    def jobs(self) -> dict[str, list[str]]:
        """Names of the jobs by task id."""
        return {
            task_id: [f"{self.dag}_{task_id}_{number:03}" for number in range(task.count)]
            for task_id, task in self.tasks.items()
        }

    def plan(self) -> dict[str, Any]:
        """Return the description for the DAG file."""
        days = iter(self.days)
        return {
            task_id: {
                "arguments": dict(self.tasks[task_id].arguments),
                "instances": [{"job_name": job, "variables": {"dt": next(days)}} for job in jobs],
            }
            for task_id, jobs in self.jobs.items()
        }


class MappedJobs:
    """The jobs and rows of mapped DAGs, in a simulator that enforces CDM's quotas.

    :param folder: an existing folder for the databases.
    """

    def __init__(self, sim: CdmSimulator, folder: Path, dags: list[MappedDag]) -> None:
        self.sim, self._dags = sim, dags
        self._jobs = MigrationJobs(sim, folder, [day for dag in dags for day in dag.days])
        self._jobs.create_databases()
        for dag in dags:
            for task_id, jobs in dag.jobs.items():
                for job in jobs:
                    self._jobs.add_job(job, dag.tasks[task_id].seconds, table=TABLE)

    def write_dags(self, folder: Path) -> None:
        """Write the DAG file and its description."""
        shutil.copy(Path(__file__).with_name("dag_file.py"), folder / "mapped_dags.py")
        plan = {dag.dag: dag.plan() for dag in self._dags}
        (folder / "mapped_dags.json").write_text(json.dumps(plan))

    def statuses(self, dag: MappedDag) -> dict[str, list[str]]:
        """Return the statuses of the CDM runs by job."""
        return {
            job: [run.status for run in self.sim.runs(job)]
            for jobs in dag.jobs.values()
            for job in jobs
        }

    def count_starts(self, dag: MappedDag) -> int:
        """Return the number of start requests for the jobs of a DAG, without throttled ones."""
        jobs = {job for jobs in dag.jobs.values() for job in jobs}
        starts = [request for request in self.sim.requests if request.route == "start"]
        return sum(start.status != 429 and start.path.split("/")[-2] in jobs for start in starts)

    def run_seconds(self, dag: MappedDag) -> float:
        """Return the total duration of the CDM runs in seconds."""
        runs = (run for jobs in dag.jobs.values() for job in jobs for run in self.sim.runs(job))
        return sum(run.updated - run.created for run in runs)

    def wrong_rows(self, moved: list[MappedDag]) -> str:
        """Return what is wrong with the target, or an empty text if it has each row once.

        :param moved: DAGs that have run.
        """
        return self._jobs.wrong_rows(TABLE, {day: 1 for dag in moved for day in dag.days})

    def count_calls(self, since: float) -> dict[str, tuple[int, int]]:
        """Return the numbers of answered and of throttled calls by kind.

        :param since: start of the period, epoch seconds.
        """
        counts: dict[str, tuple[int, int]] = {}
        for request in self.sim.requests:
            if request.at >= since:
                answered, throttled = counts.get(request.route, (0, 0))
                if request.status == 429:
                    counts[request.route] = (answered, throttled + 1)
                else:
                    counts[request.route] = (answered + 1, throttled)
        return counts
