"""Who waits for which job on one cluster, and how each wait ends."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.follower import GracePeriods
from airflow_provider_cdm.client.polling.model import Outcome, PolledJob, Wait
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.polling.rate_limited_api import RateLimited
from airflow_provider_cdm.client.polling.schedule import MAX_PER_STEP, PollSchedule
from airflow_provider_cdm.client.submission import Submission

#: Seconds that the final poll after a deadline may take.
_FINAL_POLL_SECONDS = 10.0


class WaitRegistry:
    """All waits on one cluster, and the jobs that they wait for.

    :param limits: rate limits of the user.
    :param random: function that returns a number in [0, 1).
    :param grace: how long waits tolerate that CDM does not answer.
    """

    def __init__(
        self, limits: RateLimits, random: Callable[[], float], grace: GracePeriods
    ) -> None:
        self.jobs: dict[str, PolledJob] = {}
        self.schedule = PollSchedule(self.jobs, limits, random)
        self.grace = grace
        self._deadlines = Deadlines()
        self._unreachable: deque[tuple[Wait, errors.CdmError, float]] = deque()

    def add(self, wait: Wait, now: float) -> None:
        """Add a wait."""
        job = self.jobs.get(wait.job_name)
        if job is None:
            job = self.jobs[wait.job_name] = PolledJob(wait.job_name, joined_at=now, status_at=now)
        wait.joined_at = now
        job.waits.append(wait)
        self.refresh(job)
        job.poll_again = job.in_flight
        if not job.in_flight:
            self.schedule.put_new(job, now)
        if wait.deadline is not None:
            self._deadlines.add(wait, wait.deadline)

    def remove(self, wait: Wait) -> None:
        """Remove a wait, unless it has ended."""
        if wait.done:
            return
        wait.done = True
        job = self.jobs[wait.job_name]
        job.waits.remove(wait)
        self.refresh(job)
        self._deadlines.discard_one()

    def refresh(self, job: PolledJob) -> None:
        """Update a job after waits were added, were removed, or found their run."""
        self.schedule.refresh(job)
        if not job.waits:
            del self.jobs[job.name]

    def end(self, wait: Wait, outcome: Submission | Exception) -> None:
        """End a wait with a result, unless it has ended."""
        if not wait.done:
            self.remove(wait)
            wait.on_end(outcome)

    def apply_outcome(self, wait: Wait, outcome: Outcome, now: float) -> None:
        """End a wait if the outcome of a poll, or its deadline, says so."""
        if wait.done:
            return
        expired = wait.deadline is not None and now >= wait.deadline
        if isinstance(outcome, RateLimited):
            if expired:
                self._expire(wait, now)
        elif isinstance(outcome, Exception) or (outcome is not None and outcome.ended):
            self.end(wait, outcome)
        elif expired:
            self.end(wait, wait.follower.timed_out(wait.limit))

    def give_up(self, error: errors.CdmError, outage: float, now: float) -> None:
        """Have waits end in :meth:`end_due_waits` whose grace period for outages has passed.

        :param error: what the last call failed with.
        :param outage: how long no call has been answered, or all were refused, in seconds.
        :param now: the present time, epoch seconds.
        """
        grace = self.grace.before_giving_up(error)
        for job in self.jobs.values():
            for wait in job.waits:
                # A wait that was added during the outage has the same grace period.
                seconds = min(outage, now - wait.joined_at)
                if seconds >= grace:
                    self._unreachable.append((wait, error, seconds))

    def end_due_waits(self, now: float) -> None:
        """End waits that were given up or have reached their deadline; some, if there are many."""
        for _ in range(min(MAX_PER_STEP, len(self._unreachable))):
            wait, error, seconds = self._unreachable.popleft()
            self.end(wait, wait.follower.unreachable(error, seconds))
        for wait in self._deadlines.pop_due(now):
            self._expire(wait, now)

    def next_end(self, now: float) -> float:
        """Return when :meth:`end_due_waits` is needed next, epoch seconds; ``inf`` for never."""
        return min(self._deadlines.next_due(), now if self._unreachable else math.inf)

    def _expire(self, wait: Wait, now: float) -> None:
        if wait.final_poll_scheduled:
            # Also while a poll is in flight: a call to a server that hangs takes a minute.
            self.end(wait, wait.follower.timed_out(wait.limit))
            return
        # The run may have ended since the last poll, so there is one more, within a time limit.
        wait.final_poll_scheduled = True
        self._deadlines.add(wait, now + _FINAL_POLL_SECONDS)
        job = self.jobs[wait.job_name]
        if not job.in_flight:
            self.schedule.put_confirm(job, now)


class Deadlines:
    """Waits ordered by deadline."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Wait]] = []
        self._sequence = itertools.count()
        self._discarded = 0

    def add(self, wait: Wait, deadline: float) -> None:
        """Add a wait with a deadline in epoch seconds."""
        heapq.heappush(self._heap, (deadline, next(self._sequence), wait))

    def discard_one(self) -> None:
        """Record that one wait is done.

        Its deadline may be days away, too long to keep it, so entries are removed once there are
        many of them.
        """
        self._discarded += 1
        if self._discarded > len(self._heap) // 2 + MAX_PER_STEP:
            self._discarded = 0
            self._heap = [entry for entry in self._heap if not entry[2].done]
            heapq.heapify(self._heap)

    def next_due(self) -> float:
        """Return the earliest deadline, epoch seconds; ``inf`` for none."""
        return self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now: float) -> Iterator[Wait]:
        """Remove and yield waits whose deadline has passed; some of them, if there are many."""
        for _ in range(MAX_PER_STEP):
            if self.next_due() > now:
                break
            wait = heapq.heappop(self._heap)[2]
            if not wait.done:
                yield wait
