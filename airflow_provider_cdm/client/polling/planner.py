"""Which poll to send next, so that all waits on one cluster end in time and within the quotas.

A :class:`PollPlanner` does no I/O: the caller passes in the time, sends the polls that it returns,
and hands them back when they have completed. It reads no clock and never sleeps. It does not decide
whether a run has ended either: that is up to the
:class:`~airflow_provider_cdm.client.jobs.follower.Follower` of each wait.
"""

from __future__ import annotations

from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.jobs.follower import GracePeriods
from airflow_provider_cdm.client.polling.circuit_breaker import CircuitBreaker, next_probe
from airflow_provider_cdm.client.polling.in_flight import InFlight
from airflow_provider_cdm.client.polling.model import PolledJob, Wait
from airflow_provider_cdm.client.polling.pace import Pace
from airflow_provider_cdm.client.polling.polls import ListingPoll, Poll, StatusPoll, Sweep
from airflow_provider_cdm.client.polling.queue import Priority, unschedule
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.polling.rate_limited_api import CallBatch, RateLimitedApi
from airflow_provider_cdm.client.polling.registry import WaitRegistry
from airflow_provider_cdm.client.polling.reservations import Reservations
from airflow_provider_cdm.client.polling.results import PollResults
from airflow_provider_cdm.client.polling.schedule import MAX_PER_STEP
from airflow_provider_cdm.client.polling.sweep import SweepPlanner

#: Seconds until the next free slot for a status call from which on listings are preferred.
_CONGESTED_SECONDS = 5.0
#: Seconds by which routine polls may be late while a listing covers jobs, so that thousands of jobs
#: that become due one after another do not wake the planner for each of them.
_COVERED_DELAY = 0.2


class PollPlanner:
    """Plans the polls for all waits on one cluster.

    :param cluster_id: the cluster.
    :param api: API of the user who waits.
    :param limits: rate limits of that user.
    :param grace: how long to tolerate that CDM does not answer.
    """

    def __init__(
        self, cluster_id: str, api: CdmApi, limits: RateLimits, grace: GracePeriods | None = None
    ) -> None:
        random = api.exchanger.random
        self.cluster_id = cluster_id
        self.registry = WaitRegistry(limits, random, grace or GracePeriods())
        self._pace = Pace(limits)
        self.sweeps = SweepPlanner(self._pace)
        self.in_flight = InFlight()
        self._api, self._limits = api, limits
        self._schedule = self.registry.schedule
        self._reservations = Reservations(limits)
        self._breaker = CircuitBreaker(random)
        self._results = PollResults(cluster_id, self.registry, self.sweeps, self._breaker)

    def add(self, wait: Wait, now: float) -> None:
        """Add a wait, whose run is polled from now on."""
        if not self.registry.jobs:
            # No poll was sent for some time, so it is not known whether CDM answers.
            self._breaker.close()
        self.registry.add(wait, now)

    def remove(self, wait: Wait) -> None:
        """Remove a wait, unless it has ended."""
        self.registry.remove(wait)

    def next_poll(self, now: float) -> Poll | None:
        """Return the poll to send now, to be performed and then passed to :meth:`completed`."""
        poll = self._choose_poll(now)
        if poll is not None:
            self.in_flight.add(poll)
        return poll

    def next_event(self, now: float) -> float:
        """Return when there is something to do next, epoch seconds.

        Returns ``inf`` if there is nothing to do until a poll completes or a wait is added.
        """
        events = [self.registry.next_end(now), self.sweeps.next_release()]
        if self._schedule.has_backlog:
            events.append(now)
        if self._breaker.half_open:
            job = None if self.in_flight.total else self._next_probe()
            if job is not None:
                events.append(max(self._breaker.probe_at, self._reservations.slot(job.quota)))
        elif not self.in_flight.full:
            for quota, queue in self._schedule.queues.items():
                slot, due_times = self._reservations.slot(quota), queue.due_times()
                if self.sweeps.covers_jobs(now) and due_times[Priority.ROUTINE] > now:
                    due_times[Priority.ROUTINE] += _COVERED_DELAY
                events += [max(due_at, slot) if due_at <= now else due_at for due_at in due_times]
            if self._next_sweep() is not None:
                events.append(self._reservations.slot(Quota.LISTING))
        return min(events)

    def housekeeping(self, now: float) -> None:
        """Do what needs no call; only a part of it, if there is much to do."""
        self._schedule.put_in_backlog(self.sweeps.release_late(now))
        self._schedule.requeue_backlog(now)
        self.registry.end_due_waits(now)

    def completed(self, poll: Poll, now: float) -> None:
        """Apply the result of a poll that has completed."""
        self.in_flight.remove(poll)
        if poll.batch.answered:
            self._pace.record(poll.quota, now - poll.sent_at, now)
        if poll.batch.reserved is not None:
            quota, slot = poll.batch.reserved
            self._limits.limiters[quota].release(slot)
        self._results.apply(poll, now)

    def close(self) -> None:
        """Give back what is reserved; no poll is asked for any more."""
        self._reservations.give_back()

    def poll_intervals(self, now: float) -> tuple[float, float]:
        """Return the seconds between two polls of a run: allowed by the quota, and requested."""
        listed = bool(self.sweeps.page_counts) and now >= self.sweeps.paused_until
        pages = self.sweeps.page_count(0, self.registry.jobs.values(), now) if listed else None
        return self._schedule.poll_intervals(now, pages)

    def shift(self, seconds: float) -> None:
        """Move all times but the deadlines by the seconds by which the clock was set forward.

        Otherwise it would end grace periods; set back (a negative number), it would delay polls.
        """
        self._schedule.shift(seconds)
        self._breaker.shift(seconds)
        self.sweeps.shift(seconds)
        self._reservations.clear()

    def _choose_poll(self, now: float) -> Poll | None:
        if self._breaker.half_open:
            return self._probe(now)
        if self.in_flight.full:
            return None
        self._cover_due_jobs(now)
        polls = (self._next_poll_of(quota, now) for quota in self.in_flight.by_share())
        return next((poll for poll in polls if poll is not None), None)

    def _next_poll_of(self, quota: Quota, now: float) -> Poll | None:
        if quota is Quota.LISTING:
            return self._next_listing_poll(now)
        return self._next_status_poll(quota, now)

    def _cover_due_jobs(self, now: float) -> None:
        """Serve due jobs from a listing where possible; a listing needs no status slot."""
        for queue in self._schedule.queues.values():
            for priority in (Priority.NEW, Priority.ROUTINE):
                for _ in range(MAX_PER_STEP):
                    job = queue.peek(priority, now)
                    if job is None or job.due_at[Priority.CONFIRM] <= now:
                        break
                    if not self._cover(job, now):
                        break

    def _cover(self, job: PolledJob, now: float) -> bool:
        """Serve a due job from a listing if that is cheaper; return whether it is."""
        if not self.sweeps.covers(job, now):
            jobs = self.registry.jobs.values()
            next_slot = self._limits.limiters[Quota.STATUS].next_slot(now)
            congested = (
                next_slot > now + _CONGESTED_SECONDS
                or self._schedule.demand > self._pace.looks_per_minute(now)
            )
            savings = self.sweeps.savings(job, jobs, now, congested)
            if not savings:
                return False
            self.sweeps.start(job, savings, jobs, now)
        if self.sweeps.active is not None:
            self.sweeps.active.due_jobs[job] = None
        self._schedule.put_covered(job, now)
        return True

    def _next_status_poll(self, quota: Quota, now: float) -> StatusPoll | None:
        queue = self._schedule.queues[quota]
        for _ in range(MAX_PER_STEP):
            due_at = queue.next_due()
            if due_at > now:
                break
            urgent = queue.peek(Priority.CONFIRM, now) is not None
            if not self._reservations.ready(quota, now, urgent=urgent, due_at=due_at):
                break
            due = queue.pop(now)
            if due is None:
                break
            job, priority = due
            if job.quota is not quota:
                # It moved to the queue of the other quota, and was due in this one as well.
                self._schedule.put_back(job, priority, now)
            elif not self.in_flight.allows(job):
                self._schedule.put_after_failure(job, now + 1)
            elif priority not in (Priority.NEW, Priority.ROUTINE) or not self._cover(job, now):
                return self._status_poll(job, priority, now)
        return None

    def _next_listing_poll(self, now: float) -> ListingPoll | None:
        sweep = self._next_sweep()
        if sweep is None:
            return None
        if not self._reservations.ready(Quota.LISTING, now, due_at=sweep.started_at):
            return None
        api = self._rate_limited_api(Quota.LISTING)
        return ListingPoll(sweep, sweep.take_page(), self.cluster_id, api, now)

    def _next_sweep(self) -> Sweep | None:
        """Return the sweep of which a page can be read now."""
        sweep = self.sweeps.active
        return sweep if sweep is not None and sweep.to_read and self.in_flight.may_list else None

    def _probe(self, now: float) -> StatusPoll | None:
        job = self._next_probe()
        if job is None or self.in_flight.total or now < self._breaker.probe_at:
            return None
        if not self._reservations.ready(job.quota, now):
            return None
        return self._status_poll(job, Priority.CONFIRM, now)

    def _next_probe(self) -> PolledJob | None:
        return next_probe(self.registry.jobs.values(), self._breaker.random)

    def _status_poll(self, job: PolledJob, priority: Priority, now: float) -> StatusPoll:
        unschedule(job)
        job.in_flight, job.polled_at = True, now
        # The reserved slot is for the first call.
        waits = sorted(job.waits, key=lambda wait: wait.quota is not job.quota)
        api = self._rate_limited_api(job.quota)
        return StatusPoll(job, priority, api, waits, job.quota, now)

    def _rate_limited_api(self, quota: Quota) -> RateLimitedApi:
        batch = CallBatch(reserved=(quota, self._reservations.use(quota)))
        return RateLimitedApi.wrap(self._api, self._limits, batch)
