from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.raw_client import Cdm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def cdm(sim: CdmSimulator) -> Cdm:
    return Cdm(sim)


class Database:
    """A SQLite file with a table ``orders``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.run("CREATE TABLE orders (id INTEGER, day DATE, amount NUMERIC, note TEXT)")

    def run(self, sql: str, *rows: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Execute a statement, once or for each of some rows."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            if rows:
                return connection.executemany(sql, rows).fetchall()
            return connection.execute(sql).fetchall()

    def fill(self, *rows: tuple[Any, ...]) -> None:
        """Add orders."""
        self.run("INSERT INTO orders VALUES (?, ?, ?, ?)", *rows)

    def rows(self) -> list[tuple[Any, ...]]:
        """Return all orders."""
        return self.run("SELECT * FROM orders ORDER BY id")


@pytest.fixture
def new_database(tmp_path: Path) -> Callable[[str], Database]:
    return lambda name: Database(tmp_path / f"{name}.db")


@pytest.fixture
def shop(new_database: Callable[[str], Database]) -> Database:
    database = new_database("shop")
    database.fill(
        (1, "2025-01-01", 9.5, "a"), (2, "2025-01-01", 0.1, None), (3, "2025-01-02", 7, "c:d %x")
    )
    return database


@pytest.fixture
def warehouse(new_database: Callable[[str], Database]) -> Database:
    return new_database("warehouse")
