"""How soon the end of a run is noticed, by where the task waits and how many wait."""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from airflow_provider_cdm.client.errors import CdmError
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.polling.rate_limit import REQUESTS_PER_MINUTE, RateLimits
from airflow_provider_cdm.client.sansio import Request, Sleep, TransportError
from airflow_provider_cdm.client.submission import RunRef
from benchmarks.common import QUOTA, Result, log, percentile, round_short, table
from benchmarks.slow import ENDS_PER_MINUTE, lists_bound
from tests.support.virtual_cluster import (
    FakeAccount,
    FakeCluster,
    FakeJob,
    FakeRun,
    Simulation,
    api_of,
    new_exchanger,
)

TITLE = "Delays by where a task waits"
_WAITS = (1, 10, 100, 1000, 10_000)
_POLL_INTERVALS = (30.0, 10.0)
_PLACES = ("worker", "triggerer")
#: Seconds that a short run takes.
_SHORT = 3.0
#: Seconds that an answer takes.
_LATENCY = 0.1


class Workers:
    """Tasks that wait on workers, each for itself, in virtual time."""

    def __init__(self, cluster: FakeCluster, rng: random.Random) -> None:
        self._cluster = cluster
        account = cluster.accounts["u"] = FakeAccount("u")
        self._api = api_of(account, new_exchanger(cluster, rng.random))
        self._events: list[tuple[float, int, Generator[Any, Any, Any], Any]] = []
        self._numbers = itertools.count()
        self._runs: dict[Generator[Any, Any, Any], FakeRun] = {}
        #: Seconds from the end of each run until its task has noticed it.
        self.delays: list[float] = []
        #: Number of tasks that failed, since their calls were refused for ten minutes.
        self.failed = 0

    def add(self, job: str, run: FakeRun, at: float, poll_interval: float) -> None:
        """Add a task that has just started its run."""
        follower = Follower(RunRef("c0", job, run.number, run.created_ms))
        flow = follower.follow(self._api, poll_interval=poll_interval, is_new=True)
        self._runs[flow] = run
        self._later(at, flow, None)

    def run(self) -> None:
        """Let time pass until all tasks have ended."""
        while self._events:
            now, _, flow, answer = heapq.heappop(self._events)
            self._cluster.now = now
            try:
                step = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
            except StopIteration:
                self.delays.append(now - self._runs[flow].ended)
                continue
            except CdmError:
                self.failed += 1
                continue
            if isinstance(step, Sleep):
                self._later(now + step.seconds, flow, None)
                continue
            assert isinstance(step, Request), step
            answer = self._cluster.handle(step)
            assert not isinstance(answer, TransportError)
            self._later(now + _LATENCY, flow, answer)

    def _later(self, at: float, flow: Generator[Any, Any, Any], answer: Any) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), flow, answer))


def simulate(place: str, short: bool, waits: int, poll_interval: float) -> dict[str, Any]:
    """Measure waits for runs whose ends are evenly spread, in virtual time.

    :param place: where the tasks wait.
    :param short: whether each run takes seconds, and begins when its task does; if not, all tasks
        wait from the beginning.
    """
    logging.disable(logging.CRITICAL)
    rng = random.Random(waits)
    seconds = 60 * max(60.0, waits / ENDS_PER_MINUTE)
    cluster = FakeCluster(quota=QUOTA, latency=lambda _, __: _LATENCY)
    runs = []
    for index in range(waits):
        ends = 120 + seconds * rng.random()
        run = FakeRun(1, ends - _SHORT if short else -60.0, ends)
        runs.append((f"load_{index:05}", run, max(0.0, run.created)))
        cluster.add(FakeJob(runs[-1][0], [run]))
    failed = 0
    if place == "worker":
        workers = Workers(cluster, rng)
        for name, run, at in runs:
            workers.add(name, run, at, poll_interval)
        workers.run()
        delays, failed = workers.delays, workers.failed
    else:
        simulation = Simulation(
            cluster, RateLimits(REQUESTS_PER_MINUTE, rng.random), random=rng.random
        )
        simulation.max_steps = 10_000_000
        recorded = [
            simulation.wait_for(name, run, at=at, poll_interval=poll_interval)
            for name, run, at in runs
        ]
        simulation.run(until=4 * seconds)
        ended = zip(recorded, runs, strict=True)
        delays = [wait.ends[0][0] - run.ended for wait, (_, run, _) in ended]
    row = {
        "place": place,
        "runs": f"{_SHORT:g} s" if short else "long",
        "waits": waits,
        "poll_interval": poll_interval,
        "delay": [percentile(delays, share) for share in (0.5, 0.95, 1.0)],
        "bound": None if short else round_short(_bound(place, waits, poll_interval)),
        "calls_per_minute": round_short(sum(map(len, cluster.calls.values())) * 60 / seconds),
        "throttled": sum(cluster.throttled.values()),
        "failed": failed,
    }
    log(f"delays: {row}")
    return row


def _bound(place: str, waits: int, poll_interval: float) -> float:
    """Return the seconds until an end is noticed at the latest, if no call is made in vain."""
    if place == "worker":
        return max(poll_interval, waits * 60 / QUOTA)
    looks = waits * 61 / REQUESTS_PER_MINUTE
    return min(max(poll_interval, looks), lists_bound(waits, _LATENCY, poll_interval))


def measure(*, quick: bool) -> Result:
    """Measure all combinations."""
    sizes = (1, 10) if quick else _WAITS
    cases = [
        (place, short, waits, poll_interval)
        for short in (False, True)
        for poll_interval in (_POLL_INTERVALS[:1] if short else _POLL_INTERVALS)
        for waits in sizes
        for place in _PLACES
    ]
    with ProcessPoolExecutor() as pool:
        return Result("delays", list(pool.map(simulate, *zip(*cases, strict=True))))


def tables(result: Result) -> str:
    """Return the table."""
    heads = (
        *("waits on", "runs take", "poll_interval, s", "waits", "delay p50, s", "p95", "max"),
        *("bound", "calls a minute", "429s", "failed tasks"),
    )
    lines = [
        (
            *(f"a {row['place']}", row["runs"], row["poll_interval"], row["waits"], *row["delay"]),
            *(row["bound"], row["calls_per_minute"], row["throttled"], row["failed"]),
        )
        for row in result.rows
    ]
    return table(heads, lines)
