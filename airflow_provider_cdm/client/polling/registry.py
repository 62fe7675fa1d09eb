"""Who waits for which job on one cluster, and when each job is to be looked at."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator

from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.polling.model import PolledJob, Wait
from airflow_provider_cdm.client.polling.queue import PollQueue, Priority, unschedule
from airflow_provider_cdm.client.polling.rate_limit import RateLimits

#: Seconds until the first look: the run was active when the task deferred, and that takes a moment.
_FIRST_LOOK = 5.0
#: Seconds without a look of its own, for a run that listings show active: people want to read how
#: it gets on, so a quarter of the quota is for that.
_MIN_AGE, _MAX_AGE = 60.0, 600.0
#: What is done at most in one step, so that no step takes long.
SLICE = 200


class WaitRegistry:
    """The jobs that are waited for, with their schedules.

    :param limits: of the user who asks.
    :param random: returns a number in [0, 1).
    """

    def __init__(self, limits: RateLimits, random: Callable[[], float]) -> None:
        self.jobs: dict[str, PolledJob] = {}
        self.queues: dict[Quota, PollQueue[PolledJob]] = {
            Quota.STATUS: PollQueue(),
            Quota.HISTORY: PollQueue(),
        }
        self.deadlines = Deadlines()
        #: Looks per minute that are wished.
        self.demand = 0.0
        self._limits, self._random = limits, random

    def join(self, wait: Wait, now: float) -> None:
        """Add a wait."""
        job = self.jobs.get(wait.job_name)
        if job is None:
            job = self.jobs[wait.job_name] = PolledJob(wait.job_name, joined_at=now, seen_at=now)
        wait.joined_at = now
        job.waits.append(wait)
        self.refresh(job)
        job.poll_again = job.in_flight
        if not job.in_flight:
            self.put_fresh(job, now)
        if wait.deadline is not None:
            self.deadlines.add(wait, wait.deadline)

    def leave(self, wait: Wait) -> None:
        """Remove a wait; nothing happens if it is over."""
        if wait.over:
            return
        wait.over = True
        job = self.jobs[wait.job_name]
        job.waits.remove(wait)
        self.refresh(job)
        self.deadlines.left()

    def refresh(self, job: PolledJob) -> None:
        """Take note that waits of a job came, went, or found their run."""
        before, quota = 60 / job.interval, job.quota
        job.refresh()
        self.demand += 60 / job.interval - before
        if not job.waits:
            unschedule(job)
            del self.jobs[job.name]
        elif job.quota is not quota:
            for priority in Priority:
                self.put(job, priority, job.due[priority])

    def put(self, job: PolledJob, priority: Priority, due: float) -> None:
        """Have a job looked at, at an instant in epoch seconds."""
        self.queues[job.quota].put(job, priority, due)

    def put_fresh(self, job: PolledJob, now: float) -> None:
        """Have a job with a new wait looked at, soon but not at once."""
        first = now + min(_FIRST_LOOK, job.interval) * self._spread()
        limits = [wait.deadline for wait in job.waits if wait.deadline is not None]
        self.put(job, Priority.FRESH, min(first, job.due[Priority.FRESH], *limits))

    def put_routine(self, job: PolledJob, now: float) -> None:
        """Have a job looked at after its interval; a young run sooner, if that is cheap."""
        gap = job.interval
        if self.demand <= self._limits.limiters[Quota.STATUS].pace(now) / 2:
            gap = min(gap, max(_FIRST_LOOK, job.age(now) / 2))
        self.put(job, Priority.ROUTINE, now + gap * self._spread())

    def put_age(self, job: PolledJob, now: float, most: float = _MAX_AGE) -> None:
        """Have a job looked at some time after its last look, whatever listings say.

        :param most: longest time between two looks, in seconds.
        """
        affordable = len(self.jobs) * 4 * 60 / self._limits.limiters[Quota.STATUS].pace(now)
        age = min(most, max(_MIN_AGE, affordable))
        self.put(job, Priority.AGE, max(now, min(job.due[Priority.AGE], job.seen_at + age)))

    def pace(self, now: float, pages: int | None) -> tuple[float, float]:
        """Seconds between two looks at a job: what the quota allows, and what is wished.

        :param pages: how many pages a listing of them has; ``None`` while none is read.
        """
        jobs, limiters = len(self.jobs), self._limits.limiters
        if not jobs or self.demand <= 0:
            return 0.0, 0.0
        wish, allowed = 60 * jobs / self.demand, 60 * jobs / limiters[Quota.STATUS].pace(now)
        if pages is not None:
            allowed = min(allowed, 60 * pages / limiters[Quota.LISTING].pace(now))
        return max(wish, allowed), wish

    def rewind(self, seconds: float) -> None:
        """Move all but the deadlines; for a clock that was set back."""
        for job in self.jobs.values():
            job.shift(-seconds)
        for quota, queue in self.queues.items():
            queue.rebuild(job for job in self.jobs.values() if job.quota is quota)

    def _spread(self) -> float:
        """A factor that keeps what began together from staying together."""
        return 0.9 + 0.2 * self._random()


class Deadlines:
    """Waits by the instant at which they are to be ended."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Wait]] = []
        self._order = itertools.count()
        self._left = 0

    def add(self, wait: Wait, at: float) -> None:
        """Have a wait come up at an instant, in epoch seconds."""
        heapq.heappush(self._heap, (at, next(self._order), wait))

    def left(self) -> None:
        """Take note that a wait is over; its deadline may be days away, too long to keep it."""
        self._left += 1
        if self._left > len(self._heap) // 2 + SLICE:
            self._left = 0
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapq.heapify(self._heap)

    def first(self) -> float:
        """When the first one comes up; ``inf`` for never."""
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> Iterator[Wait]:
        """Take out what has come up; a part of it, if it is much."""
        for _ in range(SLICE):
            if self.first() > now:
                break
            wait = heapq.heappop(self._heap)[2]
            if not wait.over:
                yield wait
