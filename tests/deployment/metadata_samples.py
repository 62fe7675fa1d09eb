"""What the metadata database shows every now and then: who runs what, and who waits for what."""

from __future__ import annotations

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
_HELD = (
    'SELECT job.hostname, count(*) FROM "trigger" JOIN job ON job.id = triggerer_id'
    " GROUP BY job.hostname"
)


@dataclass
class Sample:
    """One look.

    :param at: seconds by a clock that goes on evenly.
    :param workers: running tasks by worker.
    :param pools: the same by pool.
    :param places: workers and queues of the running tasks.
    :param deferred: deferred tasks.
    :param held: triggers by triggerer.
    """

    at: float
    workers: Counter[str]
    pools: Counter[str]
    places: set[tuple[str, str]]
    deferred: int
    held: Counter[str]


@dataclass
class Samples:
    """All looks of a while."""

    all: list[Sample] = field(default_factory=list)

    def most(self, count: Callable[[Sample], int]) -> int:
        """The largest of some figure."""
        return max(map(count, self.all), default=0)

    def running_seconds(self) -> float:
        """How long tasks ran, added up."""
        pairs = zip(self.all, self.all[1:], strict=False)
        return sum(one.workers.total() * (two.at - one.at) for one, two in pairs)


@contextmanager
def sampling(query: Callable[[str], list[tuple[Any, ...]]]) -> Iterator[Samples]:
    """Look all the time until the end of the block.

    :param query: reads from the metadata database.
    """
    samples, over = Samples(), threading.Event()

    def look() -> None:
        while not over.wait(INTERVAL):
            running = query(_RUNNING)
            samples.all.append(
                Sample(
                    at=time.monotonic(),
                    workers=Counter(worker for worker, _, _ in running),
                    pools=Counter(pool for _, pool, _ in running),
                    places={(worker, queue) for worker, _, queue in running},
                    deferred=query(_DEFERRED)[0][0],
                    held=Counter(dict(query(_HELD))),
                )
            )

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield samples
    finally:
        over.set()
        looker.join()
