"""Two hundred migrations at once."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from tests.deployment.conftest import Stage
from tests.deployment.deployment import CAPACITY, PATIENT, POOL, POOL_SLOTS, SLOTS
from tests.deployment.mapped_dag_plans import FLEETS, MANY
from tests.deployment.kills import LOGICAL_DATE
from tests.deployment.report import Part
from tests.deployment.metadata_samples import Samples, sampling
from tests.support.airflow_stack import wait_until

PATIENCE = 600
#: Calls of one kind that CDM answers within a minute.
QUOTA = 120


@dataclass
class Played:
    """What came of it."""

    part: Part
    samples: Samples
    calls: dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def played(stage: Stage) -> Played:
    """All migrations, to their end."""
    part = stage.report.part("many")
    stack, began, told = stage.deployment.stack, time.time(), 0.0

    def over() -> bool:
        nonlocal told
        if samples.all and time.time() > told + 10:
            told, last = time.time(), samples.all[-1]
            stage.tell(
                f"{last.workers.total()} running, {last.deferred} deferred: {dict(last.held)}"
            )
        return stack.dag_run(MANY.dag, "once") in ("success", "failed")

    with sampling(stack.query) as samples:
        stack.trigger(MANY.dag, "once", LOGICAL_DATE)
        wait_until(over, PATIENCE, "all are over")
    return Played(part, samples, stage.yard.calls(since=began))


def test_every_row_once(stage: Stage, played: Played) -> None:
    """Every task ends well, every job runs once, every row is in the target once."""
    part, yard = played.part, stage.yard
    found = stage.deployment.instances(MANY.dag)
    states = [state for _, _, state, _ in found]
    part.equal("tasks that ended well", MANY.count, states.count("success"))
    part.equal("attempts", {1}, {attempt for _, _, _, attempt in found})
    statuses = yard.statuses(MANY)
    part.equal("jobs that ran once", MANY.count, list(statuses.values()).count(["SUCCEEDED"]))
    part.equal("starts at CDM", MANY.count, yard.starts(MANY))
    moved = [fleet for fleet in FLEETS if any(map(any, yard.statuses(fleet).values()))]
    part.equal("rows that are missing or double", "", yard.wrong_rows(moved))
    assert not part.wrong


def test_workers(played: Played) -> None:
    """No worker, pool or queue has more tasks than it may have, and all are used."""
    part, samples = played.part, played.samples
    workers = {worker for sample in samples.all for worker in sample.workers}
    part.equal("workers that had tasks", 2, len(workers))
    for worker in sorted(workers):
        most = samples.most(lambda sample, worker=worker: sample.workers[worker])  # type: ignore[misc]
        part.at_most(f"tasks at {worker} at a time", SLOTS, most)
    in_pool = samples.most(lambda sample: sample.pools[POOL])
    part.at_most("tasks in the pool at a time", POOL_SLOTS, in_pool)
    places = {place for sample in samples.all for place in sample.places if place[1] == PATIENT}
    part.equal("workers that served the queue of one", 1, len(places))
    assert not part.wrong


def test_triggerers(played: Played) -> None:
    """No triggerer has more waits than it may have, and one would not be enough."""
    part, samples = played.part, played.samples
    triggerers = {triggerer for sample in samples.all for triggerer in sample.held}
    part.equal("triggerers that had waits", 2, len(triggerers))
    for triggerer in sorted(triggerers):
        most = samples.most(lambda sample, name=triggerer: sample.held[name])  # type: ignore[misc]
        part.at_most(f"waits in {triggerer} at a time", CAPACITY, most)
    both = samples.most(lambda sample: sample.held.total())
    part.more_than("waits in both at a time", CAPACITY, both)
    part.more_than("deferred tasks at a time", CAPACITY, samples.most(lambda s: s.deferred))
    assert not part.wrong


def test_deferred_tasks_take_no_slots(stage: Stage, played: Played) -> None:
    """Runs took longer than all workers together had time for."""
    part, samples = played.part, played.samples
    lasted = samples.all[-1].at - samples.all[0].at
    part.more_than(
        "seconds of runs, for seconds of slots", 2 * SLOTS * lasted, stage.yard.run_seconds(MANY)
    )
    part.at_most("seconds of slots that were used", 2 * SLOTS * lasted, samples.running_seconds())
    assert not part.wrong


def test_quota(stage: Stage, played: Played) -> None:
    """The waits lived with what CDM answers in a minute."""
    part = played.part
    lasted = played.samples.all[-1].at - played.samples.all[0].at
    for route in ("status", "submissions", "list_jobs"):
        answered, refused = played.calls.get(route, (0, 0))
        allowed = QUOTA * (lasted / 60 + 1)
        part.at_most(f"{route} calls answered, {refused} refused", allowed, answered)
    assert not part.wrong
