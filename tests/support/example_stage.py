"""What the example DAGs need, and what must come of them, wherever they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml

from airflow_provider_cdm.simulator import CdmSimulator
from demo.databases import SqliteFile

EXAMPLES = Path(__file__).parents[2] / "example_dags"
RESULT = {
    *("cluster_id", "job_name", "submission_id", "creation_date", "status", "progress"),
    *("counters", "execute_date", "last_update_date", "duration_seconds"),
}
#: Orders of each day.
ROWS = 10
#: Rows of the tables that are moved beside the orders.
TABLES = {"customers": 3, "products": 4}
# No key: a migration that ran twice shall show as double rows, not as an error.
_TABLE = "CREATE TABLE orders (id INTEGER, order_date TEXT, amount NUMERIC {constraint})"


class Database(SqliteFile):
    """A SQLite file with orders."""

    def orders(self, day: date | None = None) -> list[tuple[Any, ...]]:
        """Return the orders of one day, or all of them."""
        condition, values = ("WHERE order_date = ?", [str(day)]) if day else ("", [])
        return self.run(f"SELECT * FROM orders {condition} ORDER BY id", *values)


@dataclass
class Demo:
    """A shop with some days of orders, an empty warehouse, and a CDM between them."""

    sim: CdmSimulator
    shop: Database
    warehouse: Database
    days: Sequence[date]

    def __post_init__(self) -> None:
        self.shop.run(_TABLE.format(constraint=""))
        self.warehouse.run(_TABLE.format(constraint="CHECK (amount > 0)"))
        for number in range(ROWS * len(self.days)):
            day = str(self.days[number % len(self.days)])
            self.shop.run("INSERT INTO orders VALUES (?, ?, ?)", number, day, number + 0.5)

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, days: Sequence[date], seconds: float) -> Iterator[Self]:
        """The simulator of ``scripts/demo`` with little data, and clusters that switch at once.

        :param folder: an existing folder for the databases.
        :param seconds: how long a run takes.
        """
        config = yaml.safe_load((EXAMPLES / "demo_simulator.yaml").read_text())
        config["clusters"][0]["seconds"] = {"start": 0.1, "stop": 0.1}
        (folder / "simulator.yaml").write_text(yaml.safe_dump(config))
        with CdmSimulator(folder / "simulator.yaml") as sim:
            for job in sim.config.clusters[0].jobs:
                sim.add_job(job.name, seconds=seconds)
            yield cls(sim, Database(folder / "source.db"), Database(folder / "target.db"), days)

    def add_tables(self) -> None:
        """Let there be two more tables in the shop, empty in the warehouse."""
        for database in (self.shop, self.warehouse):
            for table in TABLES:
                database.run(f"CREATE TABLE {table} (id INTEGER, name TEXT)")
        for table, count in TABLES.items():
            for number in range(count):
                self.shop.run(f"INSERT INTO {table} VALUES (?, ?)", number, f"{table} {number}")

    def spoil(self, day: date) -> None:
        """Let the warehouse refuse one of the day's orders."""
        self.shop.run("UPDATE orders SET amount = 0 WHERE id = ?", self.shop.orders(day)[-1][0])

    def mend(self) -> None:
        """Undo :meth:`spoil`."""
        self.shop.run("UPDATE orders SET amount = 9.9 WHERE amount = 0")


class Fact(NamedTuple):
    """Something that is as it should be, or not."""

    what: str
    expected: Any
    seen: Any


#: What a task returned.
Returned = Mapping[str, Any]


def moved(demo: Demo, *days: date) -> Iterator[Fact]:
    """The rows of some days are in the warehouse, once."""
    for day in days:
        yield Fact(f"rows of {day}", demo.shop.orders(day), demo.warehouse.orders(day))


def daily_migration(demo: Demo, returned: Mapping[date, Returned]) -> Iterator[Fact]:
    """Each run moves the rows of its own logical date, and returns what CDM counted.

    :param returned: by ``move_orders``.
    """
    yield from moved(demo, *returned)
    for result in returned.values():
        yield Fact("keys of the result", RESULT, set(result))
        yield Fact("status", "SUCCEEDED", result["status"])
        yield Fact("rows counted", ROWS, result["counters"]["ROWS_WRITTEN"])
    days = {str(day) for day in returned}
    runs = [run for run in demo.sim.runs("orders_daily") if run.variables["dt"] in days]
    yield Fact(
        "runs and their days",
        sorted((result["submission_id"], str(day)) for day, result in returned.items()),
        [(run.submission_id, run.variables["dt"]) for run in runs],
    )


def start_then_wait(demo: Demo, day: date, returned: Mapping[str, Returned]) -> Iterator[Fact]:
    """The sensors wait for the runs that the start tasks made, and for CDM's own.

    :param returned: by each sensor.
    """
    yield from moved(demo, day)
    for subject, job in (
        ("orders", "orders_daily"),
        ("customers", "customers_daily"),
        ("stock", "stock_nightly"),
    ):
        result = returned[f"wait_for_{subject}"]
        runs = [run for run in demo.sim.runs(job) if run.variables.get("dt", str(day)) == str(day)]
        yield Fact(f"keys of the result for {subject}", RESULT, set(result))
        yield Fact(f"job of {subject}", job, result["job_name"])
        yield Fact(
            f"runs for {subject}", [result["submission_id"]], [run.submission_id for run in runs]
        )


def side_by_side(demo: Demo, returned: Mapping[date, Returned]) -> Iterator[Fact]:
    """Each day has a job of its own, made of the file with its date, and gone afterwards.

    :param returned: by ``move_orders``.
    """
    yield from moved(demo, *returned)
    jobs = {result["job_name"] for result in returned.values()}
    yield Fact("jobs made", len(returned), len(jobs))
    yield Fact("jobs left behind", set(), jobs & set(demo.sim.jobs()))


def list_of_tables(demo: Demo) -> Iterator[Fact]:
    """Each table is moved by a job of its own, none of which is left."""
    for table in ("orders", *TABLES):
        rows = demo.shop.run(f"SELECT * FROM {table} ORDER BY 1, 2")
        yield Fact(
            f"rows of {table}", rows, demo.warehouse.run(f"SELECT * FROM {table} ORDER BY 1, 2")
        )
    left = [name for name in demo.sim.jobs() if name.startswith("a_table")]
    yield Fact("jobs left behind", [], left)


def wait_elsewhere(demo: Demo, number: int, waited: Returned, report: Any) -> Iterator[Fact]:
    """A DAG waits for a run that another has started, and says how much has arrived.

    :param number: of that run.
    :param waited: what ``wait_for_orders`` returned.
    :param report: what ``report`` returned.
    """
    yield Fact("run that was waited for", number, waited["submission_id"])
    yield Fact("its status", "SUCCEEDED", waited["status"])
    yield Fact("report", f"{ROWS} orders", report)


def cluster_for_a_while(demo: Demo, day: date, started: Returned) -> Iterator[Fact]:
    """The cluster is started, used and stopped again.

    :param started: what ``start_cluster`` returned.
    """
    yield from moved(demo, day)
    yield Fact("state of the cluster when it was used", "normal", started["state"])
    yield Fact("status of the cluster now", "900", demo.sim.cluster_status())


def jobs_as_code(demo: Demo, actions: Mapping[date, Sequence[str]]) -> Iterator[Fact]:
    """Link and job are made of their files, then left alone.

    :param actions: what ``apply_link`` and ``apply_job`` say that they did, on the first day and
        on later ones.
    """
    yield from moved(demo, *actions)
    first, *later = actions.values()
    yield Fact("done on the first day", ["created"] * 2, list(first))
    for seen in later:
        yield Fact("done on a later day", ["unchanged"] * 2, list(seen))


def asset_driven(demo: Demo, days: Sequence[date], counted: Returned) -> Iterator[Fact]:
    """A DAG that is scheduled on the target reads how many rows the runs have brought.

    :param counted: what ``count_orders`` returned when all of these days had been moved.
    """
    yield from moved(demo, *days)
    yield Fact("orders counted", {"orders": ROWS * len(days)}, counted)
