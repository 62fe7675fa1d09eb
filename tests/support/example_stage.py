"""Databases and simulator for the example DAGs, and the results that each example must have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml

from airflow_provider_cdm.simulator import CdmSimulator
from airflow_provider_cdm.simulator.demo.databases import SqliteFile
from airflow_provider_cdm.simulator.demo.folder import CONFIG

EXAMPLES = Path(__file__).parents[2] / "example_dags"
RESULT = {
    *("cluster_id", "job_name", "submission_id", "creation_date", "status", "progress"),
    *("counters", "execute_date", "last_update_date", "duration_seconds"),
    *("creation_time", "execute_time", "last_update_time"),
}
#: Number of orders of each day.
ROWS = 10
#: Tables that are moved in addition to the orders, and their numbers of rows.
TABLES = {"customers": 3, "products": 4}
# No primary key, so that a migration that runs twice leads to duplicate rows and not to an error.
_TABLE = "CREATE TABLE orders (id INTEGER, order_date TEXT, amount NUMERIC {constraint})"


class Database(SqliteFile):
    """A SQLite file with orders."""

    def orders(self, day: date | None = None) -> list[tuple[Any, ...]]:
        """Return the orders of one day, or all orders."""
        condition, values = ("WHERE order_date = ?", [str(day)]) if day else ("", [])
        return self.run(f"SELECT * FROM orders {condition} ORDER BY id", *values)


@dataclass
class Demo:
    """A shop with several days of orders, two empty targets, and a simulator with jobs."""

    sim: CdmSimulator
    shop: Database
    warehouse: Database
    mirror: Database
    days: Sequence[date]

    def __post_init__(self) -> None:
        self.shop.run(_TABLE.format(constraint=""))
        for target in (self.warehouse, self.mirror):
            target.run(_TABLE.format(constraint="CHECK (amount > 0)"))
        for number in range(ROWS * len(self.days)):
            day = str(self.days[number % len(self.days)])
            self.shop.run("INSERT INTO orders VALUES (?, ?, ?)", number, day, number + 0.5)

    @classmethod
    @contextmanager
    def start(cls, folder: Path, days: Sequence[date], seconds: float) -> Iterator[Self]:
        """Start the simulator with the demo's jobs, little data and fast clusters.

        :param folder: existing folder for the databases
        :param days: days that have orders
        :param seconds: duration of a run, in seconds
        """
        config = yaml.safe_load(CONFIG.read_text())
        config["clusters"][0]["seconds"] = {"start": 0.1, "stop": 0.1}
        (folder / "simulator.yaml").write_text(yaml.safe_dump(config))
        with CdmSimulator(folder / "simulator.yaml") as sim:
            for job in sim.config.clusters[0].jobs:
                sim.add_job(job.name, seconds=seconds)
            names = {"shop": "source", "warehouse": "target", "mirror": "mirror"}
            files = {link: Database(folder / f"{name}.db") for link, name in names.items()}
            yield cls(sim, days=days, **files)

    def add_tables(self) -> None:
        """Add two more tables with rows to the shop, and without rows to the targets."""
        for database in (self.shop, self.warehouse, self.mirror):
            for table in TABLES:
                database.run(f"CREATE TABLE {table} (id INTEGER, name TEXT)")
        for table, count in TABLES.items():
            for number in range(count):
                self.shop.run(f"INSERT INTO {table} VALUES (?, ?)", number, f"{table} {number}")

    def break_order(self, day: date) -> None:
        """Change one order of the day so that both targets reject it."""
        self.shop.run("UPDATE orders SET amount = 0 WHERE id = ?", self.shop.orders(day)[-1][0])

    def repair_order(self) -> None:
        """Undo :meth:`break_order`."""
        self.shop.run("UPDATE orders SET amount = 9.9 WHERE amount = 0")


class Fact(NamedTuple):
    """An expected and an actual value."""

    description: str
    expected: Any
    actual: Any


#: Result of a task.
TaskResult = Mapping[str, Any]


def rows_moved(demo: Demo, *days: date) -> Iterator[Fact]:
    """Check that the rows of the given days are in the warehouse, once."""
    for day in days:
        yield Fact(f"rows of {day}", demo.shop.orders(day), demo.warehouse.orders(day))


def daily_migration(demo: Demo, returned: Mapping[date, TaskResult]) -> Iterator[Fact]:
    """Check that each DAG run moved the rows of its logical date and returned CDM's counters.

    :param returned: results of ``move_orders`` by day
    """
    yield from rows_moved(demo, *returned)
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


def start_then_wait(demo: Demo, day: date, returned: Mapping[str, TaskResult]) -> Iterator[Fact]:
    """Check that the sensors waited for the runs of the start tasks and of CDM's scheduler.

    :param returned: results of the sensors by task id
    """
    yield from rows_moved(demo, day)
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


def side_by_side(demo: Demo, returned: Mapping[date, TaskResult]) -> Iterator[Fact]:
    """Check that each day had its own job, with its date, and that the jobs are deleted.

    :param returned: results of ``move_orders`` by day
    """
    yield from rows_moved(demo, *returned)
    jobs = {result["job_name"] for result in returned.values()}
    yield Fact("jobs made", len(returned), len(jobs))
    yield Fact("jobs left behind", set(), jobs & set(demo.sim.jobs()))


def list_of_tables(demo: Demo) -> Iterator[Fact]:
    """Check that all tables were moved and that the jobs are deleted."""
    for table in ("orders", *TABLES):
        rows = demo.shop.run(f"SELECT * FROM {table} ORDER BY 1, 2")
        yield Fact(
            f"rows of {table}", rows, demo.warehouse.run(f"SELECT * FROM {table} ORDER BY 1, 2")
        )
    remaining = [name for name in demo.sim.jobs() if name.startswith("a_table")]
    yield Fact("jobs left behind", [], remaining)


def wait_elsewhere(demo: Demo, number: int, waited: TaskResult, report: Any) -> Iterator[Fact]:
    """Check that a DAG waited for the run of another DAG and reported the number of orders.

    :param number: number of that run
    :param waited: result of ``wait_for_orders``
    :param report: result of ``report``
    """
    yield Fact("run that was waited for", number, waited["submission_id"])
    yield Fact("its status", "SUCCEEDED", waited["status"])
    yield Fact("report", f"{ROWS} orders", report)


def cluster_for_a_while(demo: Demo, day: date, started: TaskResult) -> Iterator[Fact]:
    """Check that the cluster was started, used and stopped again.

    :param started: result of ``start_cluster``
    """
    yield from rows_moved(demo, day)
    yield Fact("state of the cluster when it was used", "normal", started["state"])
    yield Fact("status of the cluster now", "900", demo.sim.cluster_status())


def jobs_as_code(demo: Demo, actions: Mapping[date, Sequence[str]]) -> Iterator[Fact]:
    """Check that the link and the job were created on the first day and not changed later.

    :param actions: actions that ``apply_link`` and ``apply_job`` returned, by day
    """
    yield from rows_moved(demo, *actions)
    first, *later = actions.values()
    yield Fact("done on the first day", ["created"] * 2, list(first))
    for later_actions in later:
        yield Fact("done on a later day", ["unchanged"] * 2, list(later_actions))


def asset_driven(demo: Demo, days: Sequence[date], counted: TaskResult) -> Iterator[Fact]:
    """Check that a DAG that is scheduled on the asset read the row counts of all runs.

    :param counted: result of ``count_orders`` after all these days were moved
    """
    yield from rows_moved(demo, *days)
    yield Fact("orders counted", {"orders": ROWS * len(days)}, counted)
