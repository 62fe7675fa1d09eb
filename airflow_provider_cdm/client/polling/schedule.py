"""When each job is due: the only place that decides how soon a job is polled."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.polling.model import PolledJob
from airflow_provider_cdm.client.polling.queue import PollQueue, Priority, unschedule
from airflow_provider_cdm.client.polling.rate_limit import RateLimits

#: Seconds until the first poll: the run was just seen active when the task deferred, and deferring
#: takes a moment.
_FIRST_POLL = 5.0
#: Seconds between two status calls for a run that listings show as active. Users read its progress
#: in the log, so a quarter of the quota is spent on that.
_MIN_STALE, _MAX_STALE = 60.0, 600.0
#: Seconds between two status calls for a run of which listings do not show whether it is the active
#: one.
_INCONCLUSIVE_STALE = 150.0
#: Jobs or waits handled in one step at most, so that no step takes long.
MAX_PER_STEP = 200


class PollSchedule:
    """The due times of all jobs that are waited for.

    :param jobs: the jobs by name, kept up to date by the registry.
    :param limits: rate limits of the user.
    :param random: function that returns a number in [0, 1).
    """

    def __init__(
        self, jobs: Mapping[str, PolledJob], limits: RateLimits, random: Callable[[], float]
    ) -> None:
        self.queues: dict[Quota, PollQueue[PolledJob]] = {
            Quota.STATUS: PollQueue(),
            Quota.HISTORY: PollQueue(),
        }
        #: Polls per minute that the poll intervals of all jobs add up to.
        self.demand = 0.0
        self._jobs, self._limits, self._random = jobs, limits, random
        self._backlog: deque[PolledJob] = deque()

    @property
    def has_backlog(self) -> bool:
        """Whether jobs remain to be scheduled by :meth:`requeue_backlog`."""
        return bool(self._backlog)

    def refresh(self, job: PolledJob) -> None:
        """Update a job after waits were added, were removed, or found their run."""
        before, quota = job.demand, job.quota
        job.refresh()
        self.demand += job.demand - before
        if not job.waits:
            unschedule(job)
        elif job.quota is not quota:
            for priority in Priority:
                self._put(job, priority, job.due_at[priority])

    def put_confirm(self, job: PolledJob, due_at: float) -> None:
        """Schedule a poll before all others: a run has probably ended, or a deadline has passed."""
        self._put(job, Priority.CONFIRM, due_at)

    def put_ended(self, job: PolledJob, now: float) -> None:
        """Schedule a poll of a job whose run a list shows ended; not before that of a new wait.

        Airflow 3 fails a task whose trigger ends before the process that deferred has ended.
        """
        newest = max(wait.joined_at for wait in job.waits)
        due_at = max(now, newest + min(_FIRST_POLL, job.interval))
        self.put_confirm(job, min(due_at, job.due_at[Priority.CONFIRM]))

    def put_new(self, job: PolledJob, now: float) -> None:
        """Schedule the first poll for a new wait: soon, but not at once."""
        first = now + min(_FIRST_POLL, job.interval) * self._jitter()
        deadlines = [wait.deadline for wait in job.waits if wait.deadline is not None]
        self._put(job, Priority.NEW, min(first, job.due_at[Priority.NEW], *deadlines))

    def put_routine(self, job: PolledJob, now: float, asked_at: float) -> None:
        """Schedule a poll after the poll interval; sooner for a young run, if the quota allows.

        :param asked_at: when the last look at the job began, epoch seconds. An answer may have
            taken long, and what it shows is as old.
        """
        interval = job.interval
        if self.demand <= self._limits.limiters[Quota.STATUS].rate(now) / 2:
            interval = min(interval, max(_FIRST_POLL, job.run_age(now) / 2))
        due_at = min(now, asked_at) + interval * self._jitter()
        self._put(job, Priority.ROUTINE, max(now, due_at))

    def put_stale(self, job: PolledJob, now: float, max_age: float = _MAX_STALE) -> None:
        """Schedule a status call some time after the last one, whatever listings show.

        :param max_age: longest time between two status calls, in seconds.
        """
        rate = self._limits.limiters[Quota.STATUS].rate(now)
        affordable = len(self._jobs) * 4 * 60 / rate
        # Never more often than requested.
        age = max(job.interval, min(max_age, max(_MIN_STALE, affordable)))
        due_at = job.status_at + age if job.status_at else job.joined_at
        # An instant that has passed is kept: what is due longest comes first, not what a list shows
        # first.
        if due_at < job.due_at[Priority.STALE]:
            self._put(job, Priority.STALE, due_at)

    def put_after_status(self, job: PolledJob, now: float, asked_at: float) -> None:
        """Schedule the next polls after a status call was answered."""
        self.put_routine(job, now, asked_at)
        self.put_stale(job, now)

    def put_after_failure(self, job: PolledJob, due_at: float) -> None:
        """Schedule a retry after a poll that failed, with routine polls."""
        self._put(job, Priority.ROUTINE, due_at)

    def put_after_hint(self, job: PolledJob, now: float, asked_at: float, *, active: bool) -> None:
        """Schedule the next polls after a listing showed no reason for a poll.

        :param active: whether the listing showed that the runs are most probably active.
        """
        job.due_at[Priority.NEW] = math.inf
        self.put_routine(job, now, asked_at)
        if not active:
            self.put_stale(job, now, max(_INCONCLUSIVE_STALE, 2 * job.interval))

    def put_covered(self, job: PolledJob, now: float) -> None:
        """Leave the next poll of a due job to a sweep; a stale job is polled all the same."""
        job.due_at[Priority.NEW] = job.due_at[Priority.ROUTINE] = math.inf
        self.put_stale(job, now)

    def put_back(self, job: PolledJob, priority: Priority, now: float) -> None:
        """Schedule a due job again that was taken from the queue of another quota."""
        self._put(job, priority, now)

    def put_after_rate_limit(self, job: PolledJob, priority: Priority, until: float) -> None:
        """Schedule a poll that was postponed by a rate limit, before routine polls.

        :param priority: priority that the poll had.
        :param until: when a call may be allowed, epoch seconds.
        """
        self._put(job, min(priority, Priority.NEW), until)

    def put_in_backlog(self, jobs: Iterable[PolledJob]) -> None:
        """Have jobs polled that became due during a sweep, unless the sweep has scheduled them."""
        self._backlog.extend(jobs)

    def requeue_backlog(self, now: float) -> None:
        """Schedule the jobs of the backlog; only some of them, if there are many."""
        for _ in range(min(MAX_PER_STEP, len(self._backlog))):
            job = self._backlog.popleft()
            if job.waits and not job.in_flight and job.due_at[Priority.ROUTINE] == math.inf:
                self._put(job, Priority.ROUTINE, now)

    def poll_intervals(self, now: float, pages: int | None) -> tuple[float, float]:
        """Return the seconds between two polls of a job: allowed by the quota, and requested.

        :param pages: number of pages of the job list; ``None`` while it is not read.
        """
        jobs, limiters = len(self._jobs), self._limits.limiters
        if not jobs or self.demand <= 0:
            return 0.0, 0.0
        requested = 60 * jobs / self.demand
        allowed = 60 * jobs / limiters[Quota.STATUS].rate(now)
        if pages is not None:
            allowed = min(allowed, 60 * pages / limiters[Quota.LISTING].rate(now))
        return max(requested, allowed), requested

    def shift(self, seconds: float) -> None:
        """Move all due times by some seconds, as the clock was set."""
        for job in self._jobs.values():
            job.shift(seconds)
        for quota, queue in self.queues.items():
            queue.rebuild(job for job in self._jobs.values() if job.quota is quota)

    def _put(self, job: PolledJob, priority: Priority, due_at: float) -> None:
        self.queues[job.quota].put(job, priority, due_at)

    def _jitter(self) -> float:
        """Return a random factor near 1, so that waits that start together drift apart."""
        return 0.9 + 0.2 * self._random()
