"""The demo's databases: a source with five days of orders, and an empty target."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

FIRST_DAY = date(2026, 3, 1)
#: Days for which the source has orders. The demo moves those of the three days in the middle.
DAYS = [FIRST_DAY + timedelta(days=number) for number in range(5)]
#: A day with orders that the target does not accept.
BAD_DAY = DAYS[2]
BAD_ORDERS = 3

_TABLE = """CREATE TABLE orders (
    id INTEGER, order_date TEXT, customer TEXT {rule}, product TEXT, quantity INTEGER, price NUMERIC
)"""
_PRODUCTS = ("bolt", "bracket", "cable", "hinge", "lamp", "screw", "spring", "switch")


@dataclass(frozen=True)
class SqliteFile:
    """A SQLite database in a file, which is made at the first use.

    :param path: path of the file.
    """

    path: Path

    @property
    def url(self) -> str:
        """The address of the database for links of the simulator."""
        return f"sqlite:///{self.path}"

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute one statement in a transaction of its own."""
        with self._connection() as connection:
            return connection.execute(sql, values).fetchall()

    def run_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute one statement for each row, in one transaction."""
        with self._connection() as connection:
            connection.executemany(sql, rows)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            yield connection


class OrdersFile(SqliteFile):
    """A SQLite database with a table of orders."""

    def orders(self, day: date) -> list[tuple[Any, ...]]:
        """Return the orders of a day."""
        return self.run("SELECT * FROM orders WHERE order_date = ? ORDER BY id", str(day))

    def count(self) -> int:
        """Return the number of all orders."""
        ((count,),) = self.run("SELECT count(*) FROM orders")
        return int(count)


@dataclass(frozen=True)
class Databases:
    """Source and target of the demo's migrations."""

    source: OrdersFile
    target: OrdersFile

    @classmethod
    def create(cls, folder: Path) -> Databases:
        """Create both databases, under the names that the simulator's configuration uses."""
        databases = cls(OrdersFile(folder / "source.db"), OrdersFile(folder / "target.db"))
        source, target = databases.source, databases.target
        source.run(_TABLE.format(rule=""))
        # The bad orders violate NOT NULL. There is no key, so that rows moved twice are visible.
        target.run(_TABLE.format(rule="NOT NULL"))
        source.run_many("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", _make_orders())
        source.run(
            "UPDATE orders SET customer = NULL WHERE id IN"
            " (SELECT id FROM orders WHERE order_date = ? LIMIT ?)",
            *(str(BAD_DAY), BAD_ORDERS),
        )
        return databases

    def repair(self) -> None:
        """Give every order a customer."""
        self.source.run("UPDATE orders SET customer = 'unknown' WHERE customer IS NULL")

    def moved(self, day: date) -> bool:
        """Return whether the target has exactly the source's orders of a day."""
        return self.source.orders(day) == self.target.orders(day)


def _make_orders() -> list[tuple[Any, ...]]:
    """Return random orders, the same at each call."""
    rng = random.Random(FIRST_DAY.toordinal())
    number = 0
    orders = []
    for day in DAYS:
        for _ in range(rng.randint(9_000, 13_000)):
            number += 1
            customer, product = f"customer {rng.randint(1, 900)}", rng.choice(_PRODUCTS)
            price = rng.randint(50, 9_999) / 100
            orders.append((number, str(day), customer, product, rng.randint(1, 20), price))
    return orders
