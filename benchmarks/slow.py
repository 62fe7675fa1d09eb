"""Many waits on one cluster while CDM answers slowly."""

from __future__ import annotations

import logging
import math
import random
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from airflow_provider_cdm.client.polling.in_flight import MAX_IN_FLIGHT, MAX_PAGES
from airflow_provider_cdm.client.polling.rate_limit import REQUESTS_PER_MINUTE, RateLimits
from benchmarks.common import Result, log, percentile, round_short, table
from tests.support.virtual_cluster import FakeCluster, FakeJob, FakeRun, Simulation

TITLE = "Waits while answers are slow"
#: Requested seconds between two polls.
POLL_INTERVAL = 30.0
#: Ends per minute at most; each costs a status call.
ENDS_PER_MINUTE = 50
_LATENCIES = (0.0, 1.0, 6.0, 20.0)
_WAITS = (100, 300, 1000, 3000, 10_000)


def simulate(waits: int, latency: float) -> dict[str, Any]:
    """Measure waits for runs whose ends are evenly spread, in virtual time.

    :param waits: number of waits, each for a job of its own.
    :param latency: seconds that each answer takes.
    """
    logging.disable(logging.CRITICAL)
    rng = random.Random(waits)
    seconds = 60 * max(60.0, waits / ENDS_PER_MINUTE)
    cluster = FakeCluster(quota=120, latency=lambda _, __: latency)
    limits = RateLimits(REQUESTS_PER_MINUTE, rng.random)
    simulation = Simulation(cluster, limits, random=rng.random)
    simulation.max_steps = 10_000_000
    for index in range(waits):
        run = FakeRun(1, -60.0, 120 + seconds * rng.random())
        cluster.add(FakeJob(f"load_{index:05}", [run]))
        simulation.wait_for(f"load_{index:05}", run, poll_interval=POLL_INTERVAL)
    simulation.run(until=4 * seconds)
    jobs = cluster.jobs
    delays = [wait.ends[0][0] - jobs[wait.job].runs[0].ended for wait in simulation.waits]
    row = {
        "waits": waits,
        "latency": latency,
        "delay": [percentile(delays, share) for share in (0.5, 0.95, 1.0)],
        "looks_bound": round_short(waits * max(61 / REQUESTS_PER_MINUTE, latency / MAX_IN_FLIGHT)),
        "lists_bound": round_short(lists_bound(waits, latency)),
        "calls_per_minute": round_short(sum(map(len, cluster.calls.values())) * 60 / seconds),
    }
    log(f"slow: {row}")
    return row


def lists_bound(waits: int, latency: float, poll_interval: float = POLL_INTERVAL) -> float:
    """Return the seconds from an end until it is noticed if lists are read all the time.

    The oldest page was asked for one reading ago; its answer and that of the status take time.
    """
    pages = math.ceil(waits / 100)
    rounds = 1 + math.ceil((pages - 1) / MAX_PAGES)
    return max(poll_interval, pages * 61 / REQUESTS_PER_MINUTE, rounds * latency) + 2 * latency


def measure(*, quick: bool) -> Result:
    """Measure all pairs of latency and number of waits."""
    sizes = (100,) if quick else _WAITS
    pairs = [(waits, latency) for waits in sizes for latency in _LATENCIES]
    with ProcessPoolExecutor() as pool:
        return Result("slow", list(pool.map(simulate, *zip(*pairs, strict=True))))


def tables(result: Result) -> str:
    """Return the table."""
    heads = (
        *("waits", "answers take, s", "delay p50, s", "p95", "max"),
        *("bound of lists", "bound of single polls", "calls a minute"),
    )
    lines = [
        (
            *(row["waits"], row["latency"], *row["delay"]),
            *(row["lists_bound"], row["looks_bound"], row["calls_per_minute"]),
        )
        for row in result.rows
    ]
    return table(heads, lines)
