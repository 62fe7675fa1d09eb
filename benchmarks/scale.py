"""How many users and triggerers 100,000 waits take: what one user's triggerers can do together."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from airflow_provider_cdm.client.polling.planner import PollPlanner
from airflow_provider_cdm.client.polling.rate_limit import REQUESTS_PER_MINUTE, RateLimits
from benchmarks.common import QUOTA, Result, log, percentile, round_short, table, verdict
from tests.support.virtual_cluster import FakeCluster, FakeJob, FakeRun, Simulation

TITLE = "100,000 waits"
TOTAL = 100_000
#: Triggerers of one user, waits of each, and clusters of the user; each triggerer waits for runs in
#: all of the clusters, or in one of its own.
_CASES = (
    (1, 10_000, 1),
    (2, 5_000, 1),
    (10, 1_000, 1),
    (10, 1_000, 10),
    (5, 1_000, 1),
    (2, 1_000, 1),
    (1, 1_000, 1),
)
_HOUR = 3600.0
#: Triggerers that may share a user; the documentation advises against more.
_FEW = 5
#: Ends per minute of all 100,000 runs, so that each takes 10 hours.
_ENDS_PER_MINUTE = TOTAL / 600


def simulate(triggerers: int, waits: int, clusters: int) -> dict[str, Any]:
    """Play two hours of one user's waits, whose triggerers do not know each other.

    :param triggerers: number of triggerers.
    :param waits: waits of each.
    :param clusters: clusters; as many as triggerers, or one.
    """
    logging.disable(logging.CRITICAL)
    rng = random.Random(triggerers * waits)
    cluster = FakeCluster(quota=QUOTA)
    limits = [RateLimits(REQUESTS_PER_MINUTE, rng.random) for _ in range(triggerers)]
    simulation = Simulation(cluster, *limits, random=rng.random)
    simulation.max_steps = 50_000_000
    if clusters == 1:
        for planner in simulation.planners:
            planner.cluster_id = "c0"
    recorded = []
    for index in range(triggerers * waits):
        number = index % triggerers
        run = FakeRun(1, -60.0, 10 * _HOUR * rng.random())
        name = f"load_{index:06}"
        cluster.add(FakeJob(name, [run], cluster=f"c{number if clusters > 1 else 0}"))
        recorded.append((simulation.wait_for(name, run, planner=number, at=60 * rng.random()), run))
    answered: Counter[int] = Counter()
    for number, planner in enumerate(simulation.planners):
        _count_answered(planner, answered, number)
    simulation.run(until=_HOUR)
    answered.clear()
    made, refused = _calls(cluster), sum(cluster.throttled.values())
    simulation.run(until=2 * _HOUR)
    delays = [
        (wait.ends[0][0] if wait.ends else 2 * _HOUR) - run.ended
        for wait, run in recorded
        if _HOUR / 2 < run.ended < 2 * _HOUR - 600
    ]
    mean = sum(answered.values()) / triggerers
    row = {
        "triggerers": triggerers,
        "waits": waits,
        "clusters": clusters,
        "users": math.ceil(TOTAL / (triggerers * waits)),
        "delay": [percentile(delays, share) for share in (0.5, 0.95)],
        "calls_per_minute": round_short((_calls(cluster) - made) / 60),
        "throttled_per_minute": round_short((sum(cluster.throttled.values()) - refused) / 60),
        "unfair": round_short(
            100 * max(abs(answered[n] / mean - 1) for n in range(triggerers)) if mean else 0.0
        ),
    }
    log(f"scale: {row}")
    return row


def _calls(cluster: FakeCluster) -> int:
    return sum(map(len, cluster.calls.values()))


def _count_answered(planner: PollPlanner, answered: Counter[int], number: int) -> None:
    completed = planner.completed

    def count(poll: Any, now: float) -> None:
        answered[number] += poll.batch.answered
        completed(poll, now)

    planner.completed = count  # type: ignore[method-assign]


def measure(*, quick: bool) -> Result:
    """Play all cases."""
    cases = [(2, 100, 1)] if quick else _CASES
    with ProcessPoolExecutor() as pool:
        return Result("scale", list(pool.map(simulate, *zip(*cases, strict=True))))


def goals(result: Result) -> list[tuple[str, str]]:
    """Return the goal, and whether it was reached."""
    few = max(row["unfair"] for row in result.rows if row["triggerers"] <= _FEW)
    many = max(row["unfair"] for row in result.rows)
    found = (
        f"up to {_FEW} triggerers {verdict(few <= 10)}, {few:g} % at most;"
        f" ten {verdict(many <= 10)}, {many:g} %"
    )
    goal = "Triggerers of one user that know nothing of each other get equal shares within 10 %"
    return [(goal, found)]


def tables(result: Result) -> str:
    """Return the table."""
    heads = (
        *("users for 100,000 waits", "triggerers of each", "waits of a triggerer", "clusters"),
        *("delay p50, s", "p95", "calls a minute of a user", "429s a minute"),
        "most that a triggerer's share differs, %",
    )
    lines = [
        (
            *(str(row["users"]), row["triggerers"], row["waits"], row["clusters"], *row["delay"]),
            *(row["calls_per_minute"], row["throttled_per_minute"], row["unfair"]),
        )
        for row in result.rows
    ]
    return table(heads, lines)
