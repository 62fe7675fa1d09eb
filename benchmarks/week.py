"""A virtual week with a thousand waits that come and go: what the planner keeps does not grow."""

from __future__ import annotations

import gc
import itertools
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_cdm.client.polling.rate_limit import REQUESTS_PER_MINUTE, RateLimits
from airflow_provider_cdm.client.sansio import Response
from benchmarks.common import Result, log, round_short, table
from tests.support.virtual_cluster import FakeCluster, FakeJob, FakeRun, RecordedWait, Simulation

TITLE = "Memory over a week"
_DAY = 86_400.0
#: Seconds between two polls. More of them take longer to play, and leave nothing more behind.
_POLL_INTERVAL = 300.0
_NAMES = ("load_", "load_", "stock_", "orders_")
_TYPES = ("NORMAL_JOB", "NORMAL_JOB", "NORMAL_JOB", "BATCH_JOB", "SCENARIO_JOB")
_LISTED = ("correct",) * 7 + ("undated", "delayed", "hidden")


@dataclass
class Week:
    """Waits that are replaced by new ones when they end, until the last day.

    :param waits: number of waits at a time.
    :param days: duration.
    """

    waits: int
    days: int
    started: int = 0
    ended: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.waits)
        draw = self._random.random
        self._cluster = FakeCluster(
            quota=120, fault=lambda *_: Response(503) if draw() < 0.005 else None
        )
        limits = RateLimits(REQUESTS_PER_MINUTE, draw)
        self._simulation = Simulation(self._cluster, limits, random=draw)
        self._simulation.max_steps = 10**9

    def play(self) -> None:
        """Play the week, and record a row after each day."""
        for _ in range(self.waits):
            self._start()
        for day in range(1, self.days + 1):
            self._simulation.run(until=day * _DAY)
            self._forget()
            self._record(day)

    def _start(self) -> None:
        rng, now = self._random, self._simulation.now
        self.started += 1
        name = f"{rng.choice(_NAMES)}{self.started}"
        # Three hours on average, and a few for days.
        run = FakeRun(1, now - 30.0, now + 5 + rng.expovariate(1 / 10_800))
        job_type, listed = rng.choice(_TYPES), rng.choice(_LISTED)
        self._cluster.add(FakeJob(name, [run], job_type, listed=listed))
        recorded = self._simulation.wait_for(
            name, run, at=now, poll_interval=_POLL_INTERVAL, deadline=now + 3 * _DAY
        )
        recorded.number = self.started
        recorded.ends = _Ends(lambda: self._replace(name))
        if self.started % 10 == 0:
            leaves = now + 3600 * rng.random()
            self._simulation.remove(recorded, leaves)
            self._simulation.at(leaves, lambda: self._replace_removed(recorded))

    def _replace(self, name: str) -> None:
        self.ended += 1
        self._cluster.jobs.pop(name, None)
        self._simulation.at(self._simulation.now, self._start)

    def _replace_removed(self, recorded: RecordedWait) -> None:
        if recorded.removed:
            self._replace(recorded.job)

    def _forget(self) -> None:
        """Drop what the simulation has recorded, so that only the planner's memory is left."""
        cluster = self._cluster
        of_accounts = [account.calls.values() for account in cluster.accounts.values()]
        for times in itertools.chain(cluster.calls.values(), *of_accounts):
            times.clear()
        cluster.all_answered.clear()
        cluster.all_failed.clear()
        cluster.answered.clear()
        cluster.failed.clear()
        waits = self._simulation.waits
        waits[:] = [wait for wait in waits if not (wait.ends or wait.removed)]

    def _record(self, day: int) -> None:
        gc.collect()
        objects = gc.get_objects()
        ours = sum(str(type(o).__module__).startswith("airflow_provider_cdm.") for o in objects)
        planner = self._simulation.planner
        queues = planner.registry.schedule.queues.values()
        heaps = [heap for queue in queues for heap in queue._heaps]  # noqa: SLF001 - no other way
        status = Path("/proc/self/statm").read_text().split()
        self.rows.append(
            {
                "day": day,
                "waits": len(planner.registry.jobs),
                "ended": self.ended,
                "objects": len(objects),
                "ours": ours,
                "entries": sum(map(len, heaps)),
                "memory": round_short(int(status[1]) * 4096 / 1e6),
            }
        )
        log(f"week: {self.rows[-1]}")


class _Ends(list[Any]):
    """The ends of a wait; the first one has it replaced."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        super().__init__()
        self._on_end = on_end

    def append(self, end: Any) -> None:
        super().append(end)
        self._on_end()


def measure(*, quick: bool) -> Result:
    """Play the week."""
    logging.disable(logging.CRITICAL)
    week = Week(100, 2) if quick else Week(1000, 7)
    week.play()
    return Result("week", week.rows)


def tables(result: Result) -> str:
    """Return the table."""
    heads = (
        *("day", "waits", "ended so far", "objects of the package", "all objects"),
        *("entries of the schedule", "memory of the process, MB"),
    )
    keys = ("day", "waits", "ended", "ours", "objects", "entries", "memory")
    return table(heads, [[str(row["day"]), *(row[key] for key in keys[1:])] for row in result.rows])
