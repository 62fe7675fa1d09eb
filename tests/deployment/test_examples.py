"""The example DAGs, started over the REST API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from tests.deployment.conftest import Stage
from tests.deployment.report import Part
from tests.support import example_stage as examples
from tests.system.stack import wait_until

#: Seconds that a DAG run may take; a sensor of the examples looks once a minute.
PATIENCE = 180
PREFIX = "example_cdm_"
SENSORS = ("wait_for_orders", "wait_for_customers", "wait_for_stock")


@dataclass(frozen=True)
class Example:
    """An example DAG that runs for some days."""

    stage: Stage
    name: str
    days: tuple[date, ...]

    def start(self) -> Example:
        """Start it, for each day."""
        for day in self.days:
            logical_date = f"{day}T00:00:00Z"
            self.stage.deployment.stack.trigger(PREFIX + self.name, str(day), logical_date)
        return self

    def finish(self) -> Example:
        """Wait until it is over."""
        wait_until(lambda: {"success", "failed"} >= self.states, PATIENCE, f"{self.name} is over")
        self.stage.tell(f"{self.name} is over")
        return self

    @property
    def states(self) -> set[str]:
        """Of its DAG runs."""
        stack = self.stage.deployment.stack
        return {stack.dag_run(PREFIX + self.name, str(day)) for day in self.days}

    def returned(self, task: str) -> dict[date, Any]:
        """What a task returned, by day."""
        stack = self.stage.deployment.stack
        return {day: stack.returned(PREFIX + self.name, str(day), task) for day in self.days}

    def verdict_of(self, part: Part, facts: Iterable[examples.Fact]) -> None:
        """Put into the report what came of it."""
        part.equal(f"{self.name}: DAG runs", {"success"}, self.states)
        for fact in facts:
            part.equal(f"{self.name}: {fact.description}", fact.expected, fact.actual)


@pytest.mark.usefixtures("kills")
def test_day_by_day(stage: Stage) -> None:
    """Examples that move single days, all at once: each row of these is in the target, once.

    Meanwhile a triggerer is killed, which may have their waits.
    """
    part, demo = stage.report.part("examples"), stage.demo
    demo.sim.start("stock_nightly", auto=True)
    waited = Example(stage, "start_then_wait", tuple(demo.days[:1])).start()
    elsewhere = Example(stage, "wait_elsewhere", waited.days).start()
    aside = Example(stage, "side_by_side", tuple(demo.days[1:3])).start()
    coded = Example(stage, "jobs_as_code", tuple(demo.days[3:5])).start()
    # Unlike the daily one, the first does not wait for somebody else's run.
    wait_until(lambda: len(demo.sim.runs("orders_daily")) == 1, PATIENCE, "orders are started")
    daily = Example(stage, "daily_migration", tuple(demo.days[5:7])).start()
    for example in (waited, elsewhere, aside, coded, daily):
        example.finish()

    (day,) = waited.days
    sensors = {sensor: waited.returned(sensor)[day] for sensor in SENSORS}
    waited.verdict_of(part, examples.start_then_wait(demo, day, sensors))
    orders = sensors["wait_for_orders"]["submission_id"]
    told = [elsewhere.returned(task)[day] for task in ("wait_for_orders", "report")]
    elsewhere.verdict_of(part, examples.wait_elsewhere(demo, orders, *told))
    aside.verdict_of(part, examples.side_by_side(demo, aside.returned("move_orders")))
    applied = [coded.returned(task) for task in ("apply_link", "apply_job")]
    actions = {day: [each[day]["action"] for each in applied] for day in coded.days}
    coded.verdict_of(part, examples.jobs_as_code(demo, actions))
    daily.verdict_of(part, examples.daily_migration(demo, daily.returned("move_orders")))
    part.equal("rows in the target", examples.ROWS * 7, len(demo.warehouse.orders()))
    assert not part.wrong


def test_all_at_once(stage: Stage) -> None:
    """The examples that move all of a database replace what the others have moved."""
    part, demo = stage.report.part("examples, all days"), stage.demo
    demo.add_tables()
    for name in ("whole_database", "list_of_tables"):
        for table in ("orders", *examples.TABLES):
            demo.warehouse.run(f"DELETE FROM {table}")
        example = Example(stage, name, tuple(demo.days[:1])).start().finish()
        example.verdict_of(part, examples.list_of_tables(demo))
    assert not part.wrong


def test_cluster(stage: Stage) -> None:
    """The example that stops the cluster of all, so it comes last."""
    part, demo = stage.report.part("examples, cluster"), stage.demo
    day = demo.days[-1]
    demo.warehouse.run("DELETE FROM orders WHERE order_date = ?", str(day))
    switched = Example(stage, "cluster_for_a_while", (day,)).start().finish()
    started = switched.returned("start_cluster")[day]
    switched.verdict_of(part, examples.cluster_for_a_while(demo, day, started))
    assert not part.wrong
