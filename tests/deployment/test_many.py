"""Two hundred migrations at once."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from demo.processes import wait_until
from tests.deployment.conftest import SharedDeployment
from tests.deployment.deployment import CAPACITY, POOL, POOL_SLOTS, SLOTS, WAITING_QUEUE
from tests.deployment.kills import LOGICAL_DATE
from tests.deployment.mapped_dag_plans import MANY, MAPPED_DAGS
from tests.deployment.metadata_samples import Samples, sampling
from tests.deployment.report import Part

#: Time limit in seconds.
TIMEOUT = 600
#: Number of calls of one kind that CDM answers within a minute.
QUOTA = 120


@dataclass
class Outcome:
    """The outcome of the DAG run.

    :param calls: numbers of answered and throttled calls by kind.
    """

    part: Part
    samples: Samples
    calls: dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def outcome(shared: SharedDeployment) -> Outcome:
    """The outcome of all migrations, after their end."""
    part = shared.report.part("many")
    stack, started_at, logged_at = shared.deployment.stack, time.time(), 0.0

    def ended() -> bool:
        nonlocal logged_at
        if samples.all and time.time() > logged_at + 10:
            logged_at, last = time.time(), samples.all[-1]
            running = f"{last.workers.total()} running"
            shared.log(f"{running}, {last.deferred} deferred: {dict(last.triggerers)}")
        return stack.dag_run(MANY.dag, "once") in ("success", "failed")

    with sampling(stack.query) as samples:
        stack.trigger(MANY.dag, "once", LOGICAL_DATE)
        wait_until(ended, TIMEOUT, "the DAG run has ended")
    return Outcome(part, samples, shared.jobs.count_calls(since=started_at))


def test_every_row_once(shared: SharedDeployment, outcome: Outcome) -> None:
    """Every task succeeds, every job runs once, every row is in the target once."""
    part, jobs = outcome.part, shared.jobs
    instances = shared.deployment.instances(MANY.dag)
    states = [state for _, _, state, _ in instances]
    part.equal("successful tasks", MANY.count, states.count("success"))
    part.equal("attempts", {1}, {attempt for _, _, _, attempt in instances})
    statuses = jobs.statuses(MANY)
    part.equal("jobs that ran once", MANY.count, list(statuses.values()).count(["SUCCEEDED"]))
    part.equal("starts at CDM", MANY.count, jobs.count_starts(MANY))
    moved = [dag for dag in MAPPED_DAGS if any(map(any, jobs.statuses(dag).values()))]
    part.equal("missing or duplicate rows", "", jobs.wrong_rows(moved))
    assert not part.wrong


def test_workers(outcome: Outcome) -> None:
    """No worker or pool has more tasks than its slots, and all workers and queues are used."""
    part, samples = outcome.part, outcome.samples
    workers = {worker for sample in samples.all for worker in sample.workers}
    part.equal("workers that had tasks", 2, len(workers))
    for worker in sorted(workers):
        most = samples.maximum(lambda sample, worker=worker: sample.workers[worker])  # type: ignore[misc]
        part.at_most(f"tasks on {worker} at a time", SLOTS, most)
    in_pool = samples.maximum(lambda sample: sample.pools[POOL])
    part.at_most("tasks in the pool at a time", POOL_SLOTS, in_pool)
    places = {
        place for sample in samples.all for place in sample.places if place[1] == WAITING_QUEUE
    }
    part.equal("workers of the waiting queue", 1, len(places))
    assert not part.wrong


def test_triggerers(outcome: Outcome) -> None:
    """No triggerer has more triggers than its capacity, and one would not be enough."""
    part, samples = outcome.part, outcome.samples
    triggerers = {triggerer for sample in samples.all for triggerer in sample.triggerers}
    part.equal("triggerers that had triggers", 2, len(triggerers))
    for triggerer in sorted(triggerers):
        most = samples.maximum(lambda sample, name=triggerer: sample.triggerers[name])  # type: ignore[misc]
        part.at_most(f"triggers in {triggerer} at a time", CAPACITY, most)
    both = samples.maximum(lambda sample: sample.triggerers.total())
    part.more_than("triggers in both at a time", CAPACITY, both)
    part.more_than("deferred tasks at a time", CAPACITY, samples.maximum(lambda s: s.deferred))
    assert not part.wrong


def test_deferred_tasks_take_no_slots(shared: SharedDeployment, outcome: Outcome) -> None:
    """The runs took more time than all worker slots together had."""
    part, samples = outcome.part, outcome.samples
    duration = samples.all[-1].at - samples.all[0].at
    part.more_than(
        "seconds of runs, against seconds of slots",
        2 * SLOTS * duration,
        shared.jobs.run_seconds(MANY),
    )
    part.at_most("seconds of slots that were used", 2 * SLOTS * duration, samples.running_seconds())
    assert not part.wrong


def test_quota(shared: SharedDeployment, outcome: Outcome) -> None:
    """The waits stay within the number of calls that CDM answers in a minute."""
    part = outcome.part
    duration = outcome.samples.all[-1].at - outcome.samples.all[0].at
    for route in ("status", "submissions", "list_jobs"):
        answered, throttled = outcome.calls.get(route, (0, 0))
        allowed = QUOTA * (duration / 60 + 1)
        part.at_most(f"{route} calls answered, {throttled} throttled", allowed, answered)
    assert not part.wrong
