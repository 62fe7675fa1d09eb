"""The demo's databases: a source with five days of orders, and three empty targets."""

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
#: Days for which the source has orders.
DAYS = [FIRST_DAY + timedelta(days=number) for number in range(5)]
#: Days whose orders a demo moves; the others show that nothing else is moved.
MOVED_DAYS = DAYS[1:4]
#: A day with orders that the target does not accept.
BAD_DAY = DAYS[2]
BAD_ORDERS = 3

_ORDERS = """CREATE TABLE orders (
    id INTEGER, order_date TEXT, customer TEXT {customer}, product TEXT, quantity INTEGER,
    price NUMERIC {price}
)"""
_NAMES = ("customers", "products")
_PRODUCTS = ("bolt", "bracket", "cable", "hinge", "lamp", "screw", "spring", "switch")
_CUSTOMERS = 900


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
    """Source and targets of the demo's migrations.

    :param source: orders of five days, some of them without a customer, customers and products.
    :param target: for orders; it rejects those without a customer.
    :param mirror: for all tables of the source.
    :param ledger: for orders; it rejects the expensive ones, of which each day has some.
    """

    source: OrdersFile
    target: OrdersFile
    mirror: OrdersFile
    ledger: OrdersFile

    @classmethod
    def create(cls, folder: Path) -> Databases:
        """Create all databases, under the names that the simulator's configuration uses.

        :param folder: existing folder; files with these names are replaced.
        """
        names = ("source", "target", "mirror", "ledger")
        files = {name: OrdersFile(folder / f"{name}.db") for name in names}
        for file in files.values():
            file.path.unlink(missing_ok=True)
        databases = cls(**files)
        # The rules reject orders. There is no key, so that rows moved twice are visible.
        databases._create_tables(databases.source)
        databases._create_tables(databases.target, customer="NOT NULL")
        databases._create_tables(databases.mirror)
        databases._create_tables(databases.ledger, price="CHECK (price < 90)")
        databases._fill()
        return databases

    @staticmethod
    def _create_tables(file: OrdersFile, customer: str = "", price: str = "") -> None:
        file.run(_ORDERS.format(customer=customer, price=price))
        for name in _NAMES:
            file.run(f"CREATE TABLE {name} (id INTEGER, name TEXT)")

    def _fill(self) -> None:
        source = self.source
        source.run_many("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", _make_orders())
        source.run(
            "UPDATE orders SET customer = NULL WHERE id IN"
            " (SELECT id FROM orders WHERE order_date = ? LIMIT ?)",
            *(str(BAD_DAY), BAD_ORDERS),
        )
        customers = [f"customer {number}" for number in range(1, _CUSTOMERS + 1)]
        source.run_many("INSERT INTO customers VALUES (?, ?)", enumerate(customers, 1))
        source.run_many("INSERT INTO products VALUES (?, ?)", enumerate(_PRODUCTS, 1))

    def repair(self) -> None:
        """Give every order a customer."""
        self.source.run("UPDATE orders SET customer = 'unknown' WHERE customer IS NULL")

    def moved(self, day: date) -> bool:
        """Return whether the target has exactly the source's orders of a day."""
        return self.source.orders(day) == self.target.orders(day)


def _make_orders() -> list[tuple[Any, ...]]:
    """Return random orders, the same at each call."""
    rng = random.Random(FIRST_DAY.toordinal())  # noqa: S311 - made-up data
    number = 0
    orders = []
    for day in DAYS:
        for _ in range(rng.randint(9_000, 13_000)):
            number += 1
            customer, product = f"customer {rng.randint(1, _CUSTOMERS)}", rng.choice(_PRODUCTS)
            price = rng.randint(50, 9_999) / 100
            orders.append((number, str(day), customer, product, rng.randint(1, 20), price))
    return orders
