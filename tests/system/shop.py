"""What the scenarios move: rows of some days, and a job and a target table for each scenario."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
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
    """The databases, and the simulator that moves rows between them."""

    sim: CdmSimulator
    folder: Path

    def open(self) -> None:
        """Make the databases and the links to them."""
        self._execute("source", f"CREATE TABLE orders {_COLUMNS}")
        for number, day in enumerate(DAYS):
            for row in range(ROWS):
                values = (ROWS * number + row, day)
                self._execute("source", "INSERT INTO orders VALUES (?, ?)", *values)
        for name in ("source", "target"):
            self.sim.add_link(name, url=f"sqlite:///{self.folder / name}.db")

    def add_job(self, name: str, seconds: float, outcomes: tuple[str, ...]) -> None:
        """Add the job of a scenario, and a table of the same name that it fills."""
        self._execute("target", f'CREATE TABLE "{name}" {_COLUMNS}')
        self.sim.add_job(
            name,
            from_={"link": "source", "table": "orders", "where": "day = '${dt}'"},
            to={"link": "target", "table": name},
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
        days = Counter(dict.fromkeys(DAYS, 0))
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
        path = self.folder / f"{database}.db"
        with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            return connection.execute(sql, values).fetchall()
