"""Samples of the metadata database: tasks by worker, pool and queue, and triggers by triggerer."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

#: Seconds between two samples.
INTERVAL = 0.5
_RUNNING = "SELECT hostname, pool, queue FROM task_instance WHERE state = 'running'"
_DEFERRED = "SELECT count(*) FROM task_instance WHERE state = 'deferred'"
_TRIGGERS = (
    'SELECT job.hostname, count(*) FROM "trigger" JOIN job ON job.id = triggerer_id'
    " GROUP BY job.hostname"
)


@dataclass
class Sample:
    """One sample.

    :param at: time by :func:`time.monotonic`.
    :param workers: number of running tasks by worker.
    :param pools: number of running tasks by pool.
    :param places: workers and queues of the running tasks.
    :param deferred: number of deferred tasks.
    :param triggerers: number of triggers by triggerer.
    """

    at: float
    workers: Counter[str]
    pools: Counter[str]
    places: set[tuple[str, str]]
    deferred: int
    triggerers: Counter[str]


@dataclass
class Samples:
    """All samples of a period, in order."""

    all: list[Sample] = field(default_factory=list)

    def maximum(self, count: Callable[[Sample], int]) -> int:
        """Return the maximum of a figure, or 0 without samples."""
        return max(map(count, self.all), default=0)

    def running_seconds(self) -> float:
        """Return the total time in seconds for which tasks ran on workers."""
        pairs = itertools.pairwise(self.all)
        return sum(
            sample.workers.total() * (following.at - sample.at) for sample, following in pairs
        )


@contextmanager
def sampling(query: Callable[[str], list[tuple[Any, ...]]]) -> Iterator[Samples]:
    """Take samples until the end of the block.

    :param query: returns rows of the metadata database.
    """
    samples, ended = Samples(), threading.Event()

    def take_samples() -> None:
        while not ended.wait(INTERVAL):
            running = query(_RUNNING)
            samples.all.append(
                Sample(
                    at=time.monotonic(),
                    workers=Counter(worker for worker, _, _ in running),
                    pools=Counter(pool for _, pool, _ in running),
                    places={(worker, queue) for worker, _, queue in running},
                    deferred=query(_DEFERRED)[0][0],
                    triggerers=Counter(dict(query(_TRIGGERS))),
                )
            )

    thread = threading.Thread(target=take_samples)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
