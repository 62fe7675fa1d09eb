"""Metadata databases of an Airflow for :class:`tests.support.airflow_stack.AirflowStack`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class MetadataDatabase(Protocol):
    """A metadata database."""

    @property
    def url(self) -> str:
        """The address in Airflow's configuration."""

    @property
    def single_writer(self) -> bool:
        """Whether only one process can write at a time."""

    def prepare(self, slots: int) -> None:
        """Set what Airflow has no setting for, after the tables have been created.

        :param slots: number of slots of the default pool.
        """

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query, in which ``?`` stands for each value."""

    def writable(self) -> bool:
        """Return whether a process could write now."""


@dataclass(frozen=True)
class Sqlite:
    """A metadata database in a SQLite file.

    :param path: path of the file.
    """

    path: Path
    single_writer = True

    @property
    def url(self) -> str:
        """The address in Airflow's configuration, with a long timeout for locks."""
        return f"sqlite:///{self.path}?timeout=60"

    def prepare(self, slots: int) -> None:
        """Set the slots of the default pool, and allow reads while one process writes."""
        with closing(sqlite3.connect(self.path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("UPDATE slot_pool SET slots = ?", (slots,))
            database.commit()

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=30)) as db:
            return db.execute(sql, values).fetchall()

    def writable(self) -> bool:
        """Return whether no process writes now."""
        with closing(sqlite3.connect(self.path, timeout=2)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            database.rollback()
        return True
