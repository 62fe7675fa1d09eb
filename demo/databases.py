"""The demo's databases: a shop full of orders, and an empty warehouse."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

FIRST_DAY = date(2026, 3, 1)
#: The shop has orders of these days, of which the demo moves those in the middle.
DAYS = [FIRST_DAY + timedelta(days=n) for n in range(5)]
#: Orders of this day cannot be moved as they are.
BAD_DAY = DAYS[2]
BAD_ORDERS = 3

_TABLE = """CREATE TABLE orders (
    id INTEGER, order_date TEXT, customer TEXT {rule}, product TEXT, quantity INTEGER, price NUMERIC
)"""
_PRODUCTS = ("bolt", "bracket", "cable", "hinge", "lamp", "screw", "spring", "switch")


@dataclass
class Database:
    """A SQLite file with a table of orders."""

    path: Path

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute one statement, in a transaction of its own."""
        with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            return connection.execute(sql, values).fetchall()

    def orders(self, day: date) -> list[tuple[Any, ...]]:
        """Return the orders of a day."""
        return self.run("SELECT * FROM orders WHERE order_date = ? ORDER BY id", str(day))

    def count(self) -> int:
        """Return how many orders there are."""
        ((count,),) = self.run("SELECT count(*) FROM orders")
        return int(count)


@dataclass
class Shop:
    """Where the orders come from and where they shall go."""

    source: Database
    target: Database

    @classmethod
    def make(cls, folder: Path) -> Shop:
        """Make both databases anew, under the names that the simulator's configuration has."""
        shop = cls(Database(folder / "source.db"), Database(folder / "target.db"))
        shop.source.run(_TABLE.format(rule=""))
        # The rule that the bad orders break. There is no key: moved twice shall show as such.
        shop.target.run(_TABLE.format(rule="NOT NULL"))
        with closing(sqlite3.connect(shop.source.path)) as connection, connection:
            connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", _orders())
            connection.execute(
                "UPDATE orders SET customer = NULL WHERE id IN"
                " (SELECT id FROM orders WHERE order_date = ? LIMIT ?)",
                (str(BAD_DAY), BAD_ORDERS),
            )
        return shop

    def mend(self) -> None:
        """Give every order a customer."""
        self.source.run("UPDATE orders SET customer = 'unknown' WHERE customer IS NULL")

    def moved(self, day: date) -> bool:
        """Whether the target has exactly the orders that the source has of a day."""
        return self.source.orders(day) == self.target.orders(day)


def _orders() -> list[tuple[Any, ...]]:
    """Make up orders, the same ones each time."""
    dice = random.Random(FIRST_DAY.toordinal())
    number = 0
    orders = []
    for day in DAYS:
        for _ in range(dice.randint(9_000, 13_000)):
            number += 1
            customer, product = f"customer {dice.randint(1, 900)}", dice.choice(_PRODUCTS)
            price = dice.randint(50, 9_999) / 100
            orders.append((number, str(day), customer, product, dice.randint(1, 20), price))
    return orders
