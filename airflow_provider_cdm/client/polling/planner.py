"""Which call to make next, so that all waits on one cluster end in time and within the quota.

A :class:`PollPlanner` is a plain value: it is told the time, says which call to make, and is told what
came of it. It reads no clock, sends nothing, and sleeps nowhere. Whether a run is over is not its
business either: each wait has a :class:`~airflow_provider_cdm.client.jobs.follower.Follower`, which is
the only judge.
"""

from __future__ import annotations

import logging
import math
from collections import deque

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.job_list import JobPage, ListedJob
from airflow_provider_cdm.client.jobs.follower import GracePeriods
from airflow_provider_cdm.client.polling.circuit_breaker import (
    CircuitBreaker,
    next_probe,
    retry_pause,
)
from airflow_provider_cdm.client.polling.hint import Hint, hint
from airflow_provider_cdm.client.polling.metered_client import (
    CallBatch,
    RateLimited,
    RateLimitedApi,
)
from airflow_provider_cdm.client.polling.model import (
    ListingPoll,
    Outcome,
    Poll,
    PolledJob,
    StatusPoll,
    Sweep,
    Wait,
)
from airflow_provider_cdm.client.polling.queue import Priority, unschedule
from airflow_provider_cdm.client.polling.rate_limit import RateLimits, Reservations
from airflow_provider_cdm.client.polling.registry import SLICE, WaitRegistry
from airflow_provider_cdm.client.polling.sweep import SweepPlanner
from airflow_provider_cdm.client.submission import Submission

log = logging.getLogger(__name__)

#: Calls under way at a time; half of them at most for jobs that could not be asked last time.
CALLS = 8
#: Seconds for the look that a deadline asks for.
_LAST_LOOK = 10.0
#: Seconds without a look of its own, for a run of which listings do not say that it is the active
#: one.
_DOUBT_AGE = 150.0
#: Seconds until the next free slot for a look, from which on looks are rather saved.
_QUEUE = 5.0
#: Listings in a row that may be wrong about a job before they are no reason for a look any more.
_TRUST = 2


class PollPlanner:
    """All waits on one cluster.

    :param cluster_id: the cluster.
    :param api: of the user who asks.
    :param limits: of that user.
    :param grace: how long it bears that nothing is answered.
    """

    def __init__(
        self, cluster_id: str, api: CdmApi, limits: RateLimits, grace: GracePeriods | None = None
    ) -> None:
        self.cluster_id = cluster_id
        self.registry = WaitRegistry(limits, api.exchanger.random)
        self.sweeps = SweepPlanner()
        self.in_flight = 0
        self._flows, self._limits = api, limits
        self._slots = Reservations(limits)
        self._random = api.exchanger.random
        self._breaker = CircuitBreaker(self._random)
        self._grace = grace or GracePeriods()
        self._given_up: deque[tuple[Wait, errors.CdmError, float]] = deque()
        self._set_aside: deque[PolledJob] = deque()
        self._suspects = 0
        self._reading = False

    def join(self, wait: Wait, now: float) -> None:
        """Begin to look for a wait."""
        if not self.registry.jobs:
            # Nothing was asked for a while, so nothing is known either.
            self._breaker.over()
        self.registry.join(wait, now)

    def leave(self, wait: Wait) -> None:
        """Stop looking for a wait; nothing happens if it has ended."""
        self.registry.leave(wait)

    def next_call(self, now: float) -> Poll | None:
        """Return the call to make now; to be performed and then given to :meth:`completed`."""
        if self._breaker.half_open:
            return self._probe(now)
        if self.in_flight >= CALLS:
            return None
        self._list_due(now)
        for quota in self.registry.queues:
            if look := self._next_look(quota, now):
                return look
        return self._next_page(now)

    def next_event(self, now: float) -> float:
        """When there is something to do next, epoch seconds; ``inf`` if only a landing can bring
        that about.
        """
        events = [self.registry.deadlines.first()]
        if self._given_up or self._set_aside:
            events.append(now)
        if self._breaker.half_open:
            job = None if self.in_flight else next_probe(self.registry.jobs.values())
            if job is not None:
                events.append(max(self._breaker.probe_at, self._slots.when(job.quota)))
        elif self.in_flight < CALLS:
            for quota, queue in self.registry.queues.items():
                slot = self._slots.when(quota)
                events += [max(due, slot) if due <= now else due for due in queue.dues()]
            if self.sweeps.active is not None and not self._reading:
                events.append(self._slots.when(Quota.LISTING))
        return min(events)

    def housekeeping(self, now: float) -> None:
        """Do what needs no call; a part of it, if it is much."""
        for _ in range(min(SLICE, len(self._set_aside))):
            job = self._set_aside.popleft()
            if job.waits and not job.in_flight and job.due[Priority.ROUTINE] == math.inf:
                self.registry.put(job, Priority.ROUTINE, now)
        for _ in range(min(SLICE, len(self._given_up))):
            wait, error, lasted = self._given_up.popleft()
            self._end(wait, wait.follower.unreachable(error, lasted))
        for wait in self.registry.deadlines.due(now):
            self._at_deadline(wait, now)

    def completed(self, sent: Poll, now: float) -> None:
        """Take note of what came of a call."""
        self.in_flight -= 1
        batch = sent.batch
        if batch.reserved is not None:
            quota, slot = batch.reserved
            self._limits.limiters[quota].release(slot)
        if batch.succeeded:
            self._breaker.over()
        elif batch.trouble is not None:
            self._troubled(batch.trouble, now)
        if isinstance(sent, StatusPoll):
            self._land_look(sent, now)
        else:
            self._land_page(sent, now)

    def pace(self, now: float) -> tuple[float, float]:
        """Seconds between two looks at a run: what the quota allows, and what is wished."""
        listing = bool(self.sweeps.lengths) and now >= self.sweeps.off_until
        return self.registry.pace(now, self.sweeps.pages(0, now) if listing else None)

    def rewind(self, seconds: float) -> None:
        """Have all but the deadlines come some seconds earlier, since the clock was set back."""
        self.registry.rewind(seconds)
        self._breaker.probe_at -= seconds
        self.sweeps.off_until -= seconds
        self._slots.unschedule()

    # What to do next

    def _list_due(self, now: float) -> None:
        """Have a listing tell of what is due, which has not to wait for the slot of a look."""
        for queue in self.registry.queues.values():
            for priority in (Priority.FRESH, Priority.ROUTINE):
                for _ in range(SLICE):
                    job = queue.first(priority, now)
                    if job is None or job.due[Priority.CONFIRM] <= now or not self._list(job, now):
                        break
                    job.due[Priority.FRESH] = job.due[Priority.ROUTINE] = math.inf

    def _next_look(self, quota: Quota, now: float) -> StatusPoll | None:
        queue = self.registry.queues[quota]
        for _ in range(SLICE):
            if queue.next_due() > now:
                break
            urgent = queue.first(Priority.CONFIRM, now) is not None
            if not self._slots.ready(quota, now, urgent=urgent):
                break
            turn = queue.pop(now)
            if turn is None:
                break
            job, priority = turn
            if job.quota is not quota:
                # It moved to the other schedule, and was due here as well.
                self.registry.put(job, priority, now)
            elif job.failures and self._suspects >= CALLS // 2:
                self.registry.put(job, Priority.ROUTINE, now + 1)
            elif priority not in (Priority.FRESH, Priority.ROUTINE) or not self._list(job, now):
                return self._look(job, priority, now)
        return None

    def _look(self, job: PolledJob, priority: Priority, now: float) -> StatusPoll:
        unschedule(job)
        job.in_flight, job.tried_at = True, now
        self.in_flight += 1
        self._suspects += bool(job.failures)
        # The slot at hand is for the first call, and who knows no run yet begins with the history.
        waits = sorted(job.waits, key=lambda wait: wait.follower.run.known)
        return StatusPoll(job, priority, self._metered(job.quota), waits)

    def _list(self, job: PolledJob, now: float) -> bool:
        """Have a listing tell of a job that is due, if that is cheaper."""
        if not self.sweeps.covers(job):
            jobs = self.registry.jobs.values()
            crowded = self._limits.limiters[Quota.STATUS].next_slot(now) > now + _QUEUE
            worth = self.sweeps.worth(job, jobs, now, crowded)
            if not worth:
                return False
            self.sweeps.begin(job.type, worth, jobs, now)
        if self.sweeps.active is not None:
            self.sweeps.active.rest.append(job)
        self.registry.put_age(job, now)
        return True

    def _next_page(self, now: float) -> ListingPoll | None:
        one = self.sweeps.active
        if one is None or self._reading or not self._slots.ready(Quota.LISTING, now):
            return None
        self._reading = True
        self.in_flight += 1
        return ListingPoll(one, self.cluster_id, self._metered(Quota.LISTING))

    def _probe(self, now: float) -> StatusPoll | None:
        job = next_probe(self.registry.jobs.values())
        if job is None or self.in_flight or now < self._breaker.probe_at:
            return None
        return self._look(job, Priority.CONFIRM, now) if self._slots.ready(job.quota, now) else None

    def _metered(self, quota: Quota) -> RateLimitedApi:
        batch = CallBatch(reserved=(quota, self._slots.use(quota)))
        return RateLimitedApi.of(self._flows, self._limits, batch)

    # What came of it

    def _land_look(self, look: StatusPoll, now: float) -> None:
        job, batch = look.job, look.batch
        self._suspects -= bool(job.failures)
        job.in_flight = False
        for wait, outcome in zip(look.waits, look.outcomes, strict=True):
            if not wait.over:
                self._settle(wait, outcome, now)
        if not job.waits:
            return
        self.registry.refresh(job)
        if postponed := [one.until for one in look.outcomes if isinstance(one, RateLimited)]:
            until = max(now, *postponed)
            self._breaker.probe_at = max(self._breaker.probe_at, until)
            self.registry.put(job, min(look.priority, Priority.FRESH), until)
        elif batch.trouble is not None:
            job.failures += 1
            pause = retry_pause(batch.trouble, job.failures, self._random)
            self.registry.put(job, Priority.ROUTINE, now + pause)
        else:
            job.seen(now)
            self.registry.put_routine(job, now)
            self.registry.put_age(job, now)
        if job.poll_again:
            job.poll_again = False
            self.registry.put_fresh(job, now)

    def _settle(self, wait: Wait, outcome: Outcome, now: float) -> None:
        late = wait.deadline is not None and now >= wait.deadline
        if isinstance(outcome, RateLimited):
            if late:
                self._at_deadline(wait, now)
        elif isinstance(outcome, Exception) or (outcome is not None and outcome.ended):
            self._end(wait, outcome)
        elif late:
            self._end(wait, wait.follower.timed_out(wait.limit))

    def _land_page(self, page: ListingPoll, now: float) -> None:
        self._reading = False
        outcome = page.outcome
        if isinstance(outcome, RateLimited) and page.batch.trouble is None:
            return
        if isinstance(outcome, JobPage):
            for listed in outcome.jobs:
                if (job := self.registry.jobs.get(listed.name)) is not None:
                    self._take_hint(job, listed, page.round, now)
            if self.sweeps.read(outcome, now):
                return
        else:
            # Also where its quota is used up: asking one by one draws on another.
            problem = page.batch.trouble or outcome or RuntimeError("there is no page")
            self.sweeps.failed(problem, now)
        self._set_aside.extend(self.sweeps.end(self.registry.jobs.values()))

    def _take_hint(self, job: PolledJob, listed: ListedJob, one: Sweep, now: float) -> None:
        one.found = True
        job.type, job.listed_at = one.type, now
        if not job.listable:
            return
        followers = [wait.follower for wait in job.waits]
        hints = {hint(each.run, each.created_from, listed) for each in followers}
        if Hint.LOOK not in hints:
            job.false_hints = 0
        elif job.false_hints < _TRUST:
            job.from_hint = all(each.run.known for each in followers)
            self.registry.put(job, Priority.CONFIRM, min(now, job.due[Priority.CONFIRM]))
            return
        job.due[Priority.FRESH] = math.inf
        self.registry.put_routine(job, now)
        if hints != {Hint.OURS}:
            self.registry.put_age(job, now, max(_DOUBT_AGE, 5 * job.interval))

    def _troubled(self, error: errors.CdmError, now: float) -> None:
        before, lasted = self._breaker.half_open, self._breaker.failed(error, now)
        jobs = self.registry.jobs.values()
        if lasted >= self._grace.outage:
            for wait in (wait for job in jobs for wait in job.waits):
                # Who came later has the same patience.
                own = min(lasted, now - wait.joined_at)
                if own >= self._grace.outage:
                    self._given_up.append((wait, error, own))
        elif self._breaker.half_open and not before:
            log.warning(
                "Cluster %s cannot be asked; %d jobs are waited for, and that goes on for up to"
                " %.0f s: %s",
                *(self.cluster_id, len(jobs), self._grace.outage, error),
            )

    def _at_deadline(self, wait: Wait, now: float) -> None:
        job = self.registry.jobs[wait.job_name]
        if wait.final_poll_sent and not job.in_flight:
            self._end(wait, wait.follower.timed_out(wait.limit))
            return
        # Its run may have ended since the last look, so there is one more; it must not take long.
        wait.final_poll_sent = True
        self.registry.deadlines.add(wait, now + _LAST_LOOK)
        if not job.in_flight:
            self.registry.put(job, Priority.CONFIRM, now)

    def _end(self, wait: Wait, outcome: Submission | Exception) -> None:
        if not wait.over:
            self.registry.leave(wait)
            wait.end(outcome)
