"""CDM jobs that move rows between two SQLite databases, and a check of the rows that arrived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.simulator.demo.databases import SqliteFile

DAYS = [f"2025-01-{day:02}" for day in range(1, 7)]
#: The logical date of every DAG run.
DAY = DAYS[1]
#: Rows of each day in the source.
ROWS = 25
_COLUMNS = "(id INTEGER, day TEXT)"  # no key, so that rows moved twice are visible


@dataclass
class MigrationJobs:
    """Source, target, and the jobs of a simulator that move rows between them.

    :param folder: an existing folder for the databases.
    :param days: days for which the source has rows.
    """

    sim: CdmSimulator
    folder: Path
    days: Sequence[str] = tuple(DAYS)

    def __post_init__(self) -> None:
        self._source = SqliteFile(self.folder / "source.db")
        self._target = SqliteFile(self.folder / "target.db")

    def create_databases(self) -> None:
        """Create the databases and the links to them."""
        self._source.run(f"CREATE TABLE orders {_COLUMNS}")
        days = [day for day in self.days for _ in range(ROWS)]
        self._source.run_many("INSERT INTO orders VALUES (?, ?)", list(enumerate(days)))
        self.sim.add_link("source", url=self._source.url)
        self.sim.add_link("target", url=self._target.url)

    def add_job(
        self, name: str, seconds: float, outcomes: Iterable[str] = (), table: str | None = None
    ) -> None:
        """Add a job and its target table.

        :param seconds: duration of a run.
        :param outcomes: final statuses of the runs, if not ``SUCCEEDED``.
        :param table: target table; by default named like the job.
        """
        table = table or name
        self._target.run(f'CREATE TABLE IF NOT EXISTS "{table}" {_COLUMNS}')
        self.sim.add_job(
            name,
            from_={"link": "source", "table": "orders", "where": "day = '${dt}'"},
            to={"link": "target", "table": table},
            seconds=seconds,
            outcomes=list(outcomes),
        )

    def wrong_rows(self, table: str, copies: dict[str, int]) -> str:
        """Return what is wrong with a target table, or an empty text.

        :param copies: how often the table must have the rows of each day.
        """
        source = self._source.run("SELECT id, day FROM orders")
        expected = Counter({row: copies[row[1]] for row in source if copies.get(row[1])})
        rows = Counter(self._target.run(f'SELECT id, day FROM "{table}"'))
        if rows == expected:
            return ""
        days = Counter(dict.fromkeys(self.days, 0))
        for (_, day), count in rows.items():
            days[day] += count
        shown = ", ".join(f"{day}: {count / ROWS:g}" for day, count in days.items() if count)
        return f"copies of each day are {shown or 'none'}, not {copies}"

    def count_requests(self, job: str, route: str) -> int:
        """Return the number of requests of one kind for a job, without rejected ones."""
        part = f"/job/{job}/"
        requests = [
            request
            for request in self.sim.requests
            if request.route == route and part in request.path
        ]
        return sum(request.status not in (400, 409) for request in requests)
