"""Two SQLite databases for jobs that really move rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

#: Rows of each day in the source.
ROWS = 25
DAY = "2025-01-02"


class OrderDatabases:
    """A source with rows of the first four days of 2025, and an empty target.

    :param folder: existing folder for the two files.
    """

    def __init__(self, folder: Path) -> None:
        self._source, self._target = folder / "source.db", folder / "target.db"
        for path in (self._source, self._target):
            with closing(sqlite3.connect(path)) as database, database:
                database.execute("CREATE TABLE orders (id INTEGER, day TEXT)")
        with closing(sqlite3.connect(self._source)) as database, database:
            rows = [(n, f"2025-01-0{day}") for day in range(1, 5) for n in range(ROWS)]
            database.executemany("INSERT INTO orders VALUES (?, ?)", rows)

    @property
    def links(self) -> list[dict[str, str]]:
        """Links of the simulator to the source ("shop") and the target ("warehouse")."""
        return [
            {"name": "shop", "url": f"sqlite:///{self._source}"},
            {"name": "warehouse", "url": f"sqlite:///{self._target}"},
        ]

    def count_rows(self, day: str = DAY) -> int:
        """Return how many rows of a day the target holds."""
        with closing(sqlite3.connect(self._target)) as database:
            count = database.execute("SELECT count(*) FROM orders WHERE day = ?", (day,))
            return int(count.fetchone()[0])
