"""The example DAGs, triggered with the REST API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from demo.processes import wait_until
from tests.deployment.conftest import SharedDeployment
from tests.deployment.report import Part
from tests.support import example_stage as examples

#: Time limit in seconds for a DAG run. A sensor of the examples polls once a minute.
TIMEOUT = 180
PREFIX = "example_cdm_"
SENSORS = ("wait_for_orders", "wait_for_customers", "wait_for_stock")


@dataclass(frozen=True)
class Example:
    """An example DAG that runs for some days."""

    shared: SharedDeployment
    name: str
    days: tuple[date, ...]

    def start(self) -> Example:
        """Trigger a DAG run for each day."""
        for day in self.days:
            logical_date = f"{day}T00:00:00Z"
            self.shared.deployment.stack.trigger(PREFIX + self.name, str(day), logical_date)
        return self

    def finish(self) -> Example:
        """Wait until all DAG runs have ended."""
        wait_until(lambda: {"success", "failed"} >= self.states, TIMEOUT, f"{self.name} has ended")
        self.shared.log(f"{self.name} has ended")
        return self

    @property
    def states(self) -> set[str]:
        """States of the DAG runs."""
        stack = self.shared.deployment.stack
        return {stack.dag_run(PREFIX + self.name, str(day)) for day in self.days}

    def results(self, task: str) -> dict[date, Any]:
        """Return the results of a task by day."""
        stack = self.shared.deployment.stack
        return {day: stack.result_of(PREFIX + self.name, str(day), task) for day in self.days}

    def check(self, part: Part, facts: Iterable[examples.Fact]) -> None:
        """Add the outcome to the report."""
        part.equal(f"{self.name}: DAG runs", {"success"}, self.states)
        for fact in facts:
            part.equal(f"{self.name}: {fact.description}", fact.expected, fact.actual)


@pytest.mark.usefixtures("kills")
def test_day_by_day(shared: SharedDeployment) -> None:
    """Examples that move single days, at the same time: each row of these days arrives once.

    A triggerer is killed meanwhile, which may have their triggers.
    """
    part, demo = shared.report.part("examples"), shared.demo
    demo.sim.start("stock_nightly", auto=True)
    waited = Example(shared, "start_then_wait", tuple(demo.days[:1])).start()
    elsewhere = Example(shared, "wait_elsewhere", waited.days).start()
    aside = Example(shared, "side_by_side", tuple(demo.days[1:3])).start()
    coded = Example(shared, "jobs_as_code", tuple(demo.days[3:5])).start()
    # Start the daily one later: it waits for an active run, but the first example does not.
    wait_until(lambda: len(demo.sim.runs("orders_daily")) == 1, TIMEOUT, "orders are started")
    daily = Example(shared, "daily_migration", tuple(demo.days[5:7])).start()
    for example in (waited, elsewhere, aside, coded, daily):
        example.finish()

    (day,) = waited.days
    sensors = {sensor: waited.results(sensor)[day] for sensor in SENSORS}
    waited.check(part, examples.start_then_wait(demo, day, sensors))
    orders = sensors["wait_for_orders"]["submission_id"]
    results = [elsewhere.results(task)[day] for task in ("wait_for_orders", "report")]
    elsewhere.check(part, examples.wait_elsewhere(demo, orders, *results))
    aside.check(part, examples.side_by_side(demo, aside.results("move_orders")))
    applied = [coded.results(task) for task in ("apply_link", "apply_job")]
    actions = {
        day: [results_by_day[day]["action"] for results_by_day in applied] for day in coded.days
    }
    coded.check(part, examples.jobs_as_code(demo, actions))
    daily.check(part, examples.daily_migration(demo, daily.results("move_orders")))
    part.equal("rows in the target", examples.ROWS * 7, len(demo.warehouse.orders()))
    assert not part.wrong


def test_all_at_once(shared: SharedDeployment) -> None:
    """Examples that move a whole database replace the rows of the others."""
    part, demo = shared.report.part("examples, all days"), shared.demo
    demo.add_tables()
    for name in ("whole_database", "list_of_tables"):
        for table in ("orders", *examples.TABLES):
            demo.warehouse.run(f"DELETE FROM {table}")
        example = Example(shared, name, tuple(demo.days[:1])).start().finish()
        example.check(part, examples.list_of_tables(demo))
    assert not part.wrong


def test_cluster(shared: SharedDeployment) -> None:
    """The example that starts and stops the cluster, last because all others use the cluster."""
    part, demo = shared.report.part("examples, cluster"), shared.demo
    day = demo.days[-1]
    demo.warehouse.run("DELETE FROM orders WHERE order_date = ?", str(day))
    switched = Example(shared, "cluster_for_a_while", (day,)).start().finish()
    started = switched.results("start_cluster")[day]
    switched.check(part, examples.cluster_for_a_while(demo, day, started))
    assert not part.wrong
