"""What the scenarios move: rows of some days, and a job and a target table for each scenario."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_cdm.simulator import CdmSimulator

DAYS = [f"2025-01-{day:02}" for day in range(1, 7)]
#: The logical date of every DAG run.
DAY = DAYS[1]
ROWS = 25
_COLUMNS = "(id INTEGER, day TEXT)"  # no key: a row that is moved twice shows


@dataclass
class Shop:
    """The databases, and the simulator that moves rows between them.

    :param folder: an existing folder for the databases.
    :param days: whose rows there are.
    """

    sim: CdmSimulator
    folder: Path
    days: Sequence[str] = tuple(DAYS)

    def open(self) -> None:
        """Make the databases and the links to them."""
        self._execute("source", f"CREATE TABLE orders {_COLUMNS}")
        rows = [(n, day) for n, day in enumerate(day for day in self.days for _ in range(ROWS))]
        with self._opened("source") as source:
            source.executemany("INSERT INTO orders VALUES (?, ?)", rows)
        for name in ("source", "target"):
            self.sim.add_link(name, url=f"sqlite:///{self.folder / name}.db")

    def add_job(
        self, name: str, seconds: float, outcomes: Iterable[str] = (), table: str | None = None
    ) -> None:
        """Add a job, and the table that it fills, by default one of the same name."""
        table = table or name
        self._execute("target", f'CREATE TABLE IF NOT EXISTS "{table}" {_COLUMNS}')
        self.sim.add_job(
            name,
            from_={"link": "source", "table": "orders", "where": "day = '${dt}'"},
            to={"link": "target", "table": table},
            seconds=seconds,
            outcomes=list(outcomes),
        )

    def wrong_rows(self, name: str, copies: dict[str, int]) -> str:
        """Say what is wrong with a target table; nothing if it has so many copies of each day."""
        source = self._execute("source", "SELECT id, day FROM orders")
        wanted = Counter({row: copies[row[1]] for row in source if copies.get(row[1])})
        found = Counter(self._execute("target", f'SELECT id, day FROM "{name}"'))
        if wanted == found:
            return ""
        days = Counter(dict.fromkeys(self.days, 0))
        for (_, day), count in found.items():
            days[day] += count
        shown = ", ".join(f"{day}: {count / ROWS:g}" for day, count in days.items() if count)
        return f"copies of each day are {shown or 'none'}, not {copies}"

    def requests(self, name: str, route: str) -> int:
        """How many requests of a kind came for the job of a scenario, and were not refused."""
        part = f"/job/{name}/"
        found = [each for each in self.sim.requests if each.route == route and part in each.path]
        return sum(each.status not in (400, 409) for each in found)

    def _execute(self, database: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._opened(database) as connection:
            return connection.execute(sql, values).fetchall()

    @contextmanager
    def _opened(self, database: str) -> Iterator[sqlite3.Connection]:
        path = self.folder / f"{database}.db"
        with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            yield connection
