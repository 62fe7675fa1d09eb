"""Many jobs, each of which moves one day, and the mapped tasks that start them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.migration_jobs import Shop

#: The table that the jobs of all fleets fill.
TABLE = "orders"


@dataclass(frozen=True)
class Mapped:
    """A mapped task.

    :param seconds: how long a run takes.
    :param arguments: of the operator, but for what is mapped.
    """

    count: int
    seconds: float
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fleet:
    """A DAG of mapped tasks.

    :param first: its jobs move this day and the following ones.
    :param tasks: by task id.
    """

    dag: str
    first: date
    tasks: Mapping[str, Mapped]

    @property
    def count(self) -> int:
        """How many jobs it has, and days that they move."""
        return sum(task.count for task in self.tasks.values())

    @property
    def days(self) -> list[str]:
        """What it moves."""
        return [str(self.first + timedelta(days=number)) for number in range(self.count)]

    @property
    def jobs(self) -> dict[str, list[str]]:
        """Names of its jobs, by task."""
        return {
            task_id: [f"{self.dag}_{task_id}_{number:03}" for number in range(task.count)]
            for task_id, task in self.tasks.items()
        }

    def plan(self) -> dict[str, Any]:
        """What the DAG file has to know."""
        days = iter(self.days)
        return {
            task_id: {
                "arguments": dict(self.tasks[task_id].arguments),
                "each": [{"job_name": job, "variables": {"dt": next(days)}} for job in jobs],
            }
            for task_id, jobs in self.jobs.items()
        }


class Yard:
    """A simulator that keeps CDM's quotas, with the jobs and the rows of some fleets.

    :param folder: an existing folder for the databases.
    """

    def __init__(self, sim: CdmSimulator, folder: Path, fleets: list[Fleet]) -> None:
        self._fleets = fleets
        self.shop = Shop(sim, folder, [day for fleet in fleets for day in fleet.days])
        self.shop.open()
        for fleet in fleets:
            for task_id, jobs in fleet.jobs.items():
                for job in jobs:
                    self.shop.add_job(job, fleet.tasks[task_id].seconds, table=TABLE)

    def write_dags(self, folder: Path) -> None:
        """Put the DAGs where Airflow looks for them."""
        shutil.copy(Path(__file__).with_name("dag_file.py"), folder / "fleets.py")
        plan = {fleet.dag: fleet.plan() for fleet in self._fleets}
        (folder / "fleets.json").write_text(json.dumps(plan))

    def statuses(self, fleet: Fleet) -> dict[str, list[str]]:
        """Statuses of the runs of each job."""
        return {
            job: [run.status for run in self.shop.sim.runs(job)]
            for jobs in fleet.jobs.values()
            for job in jobs
        }

    def starts(self, fleet: Fleet) -> int:
        """How many starts of a fleet's jobs CDM got, and did not refuse for the quota."""
        jobs = {job for jobs in fleet.jobs.values() for job in jobs}
        found = [each for each in self.shop.sim.requests if each.route == "start"]
        return sum(each.status != 429 and each.path.split("/")[-2] in jobs for each in found)

    def run_seconds(self, fleet: Fleet) -> float:
        """How long runs took, added up."""
        runs = (run for jobs in fleet.jobs.values() for j in jobs for run in self.shop.sim.runs(j))
        return sum(run.updated - run.created for run in runs)

    def wrong_rows(self, moved: list[Fleet]) -> str:
        """Say what is wrong with the target; nothing if it has each row of these fleets once."""
        return self.shop.wrong_rows(TABLE, {day: 1 for fleet in moved for day in fleet.days})

    def calls(self, since: float) -> dict[str, tuple[int, int]]:
        """How many calls of each kind were answered and refused by the quota, since an instant."""
        found: dict[str, tuple[int, int]] = {}
        for request in self.shop.sim.requests:
            if request.at >= since:
                answered, refused = found.get(request.route, (0, 0))
                if request.status == 429:
                    found[request.route] = (answered, refused + 1)
                else:
                    found[request.route] = (answered + 1, refused)
        return found
