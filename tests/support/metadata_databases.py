"""Where an Airflow keeps its metadata."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Database(Protocol):
    """A metadata database."""

    @property
    def url(self) -> str:
        """For Airflow."""

    @property
    def one_writer(self) -> bool:
        """Whether writers wait for each other."""

    def prepare(self, slots: int) -> None:
        """Set what has no setting, when the tables are there.

        :param slots: of the default pool.
        """

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read; a ``?`` stands for each value."""

    def writable(self) -> bool:
        """Whether somebody could write now."""


@dataclass(frozen=True)
class Sqlite:
    """A file."""

    path: Path
    one_writer = True

    @property
    def url(self) -> str:
        """For Airflow, which shall be patient."""
        return f"sqlite:///{self.path}?timeout=60"

    def prepare(self, slots: int) -> None:
        """Let many read while one writes."""
        with closing(sqlite3.connect(self.path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("UPDATE slot_pool SET slots = ?", (slots,))
            database.commit()

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=30)) as db:
            return db.execute(sql, values).fetchall()

    def writable(self) -> bool:
        """Whether nobody writes now."""
        with closing(sqlite3.connect(self.path, timeout=2)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            database.rollback()
        return True
