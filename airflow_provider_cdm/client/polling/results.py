"""What the results of polls mean for the waits, the schedule, the sweep and the circuit breaker."""

from __future__ import annotations

import logging

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.job_list import JobPage, ListedJob
from airflow_provider_cdm.client.polling.circuit_breaker import CircuitBreaker, retry_pause
from airflow_provider_cdm.client.polling.hint import Hint, hint_for
from airflow_provider_cdm.client.polling.model import PolledJob
from airflow_provider_cdm.client.polling.polls import ListingPoll, Poll, StatusPoll
from airflow_provider_cdm.client.polling.rate_limited_api import RateLimited
from airflow_provider_cdm.client.polling.registry import WaitRegistry
from airflow_provider_cdm.client.polling.sweep import SweepPlanner

log = logging.getLogger(__name__)

#: False hints in a row after which hints about a job are ignored.
_MAX_FALSE_HINTS = 2
#: Pages in a row that get 429 before a listing is given up.
_MAX_THROTTLED = 3


class PollResults:
    """Applies the results of polls on one cluster.

    :param cluster_id: the cluster, for log lines.
    :param registry: waits that the results are for.
    :param sweeps: state of the job list.
    :param breaker: circuit breaker of the cluster.
    """

    def __init__(
        self,
        cluster_id: str,
        registry: WaitRegistry,
        sweeps: SweepPlanner,
        breaker: CircuitBreaker,
    ) -> None:
        self._cluster_id = cluster_id
        self._registry, self._schedule = registry, registry.schedule
        self._sweeps, self._breaker = sweeps, breaker

    def apply(self, poll: Poll, now: float) -> None:
        """Apply the result of a poll that has completed."""
        if poll.batch.answered:
            self._breaker.close()
        elif poll.batch.failure is not None:
            self._record_failure(poll.batch.failure, now)
        if isinstance(poll, StatusPoll):
            self._apply_status(poll, now)
        else:
            self._apply_page(poll, now)

    def _record_failure(self, error: errors.CdmError, now: float) -> None:
        was_half_open = self._breaker.half_open
        outage = self._breaker.record_failure(error, now)
        grace = self._registry.grace.before_giving_up(error)
        if outage >= grace:
            self._registry.give_up(error, outage, now)
        elif self._breaker.half_open and not was_half_open:
            log.warning(
                "Several polls of cluster %s failed in a row, so only one is sent at a time until"
                " CDM answers again. If this lasts longer than %.0f s, all waits fail (jobs waited"
                " for: %d). The last error: %s",
                *(self._cluster_id, grace, len(self._registry.jobs), error),
            )

    def _apply_status(self, poll: StatusPoll, now: float) -> None:
        job, failure = poll.job, poll.batch.failure
        job.in_flight = False
        for wait, outcome in zip(poll.waits, poll.outcomes, strict=True):
            self._registry.apply_outcome(wait, outcome, now)
        if not job.waits:
            return
        limited = [outcome for outcome in poll.outcomes if isinstance(outcome, RateLimited)]
        if limited:
            job.postponed = limited[-1].quota
        self._registry.refresh(job)
        if limited:
            until = max(now, *(outcome.until for outcome in limited))
            self._breaker.probe_at = max(self._breaker.probe_at, until)
            self._schedule.put_after_rate_limit(job, poll.priority, until)
        elif failure is not None:
            job.failures += 1
            pause = retry_pause(failure, job.failures, self._breaker.random)
            self._schedule.put_after_failure(job, now + pause)
        else:
            job.record_status(now)
            self._schedule.put_after_status(job, now, poll.sent_at)
        if job.poll_again:
            job.poll_again = False
            self._schedule.put_new(job, now)

    def _apply_page(self, poll: ListingPoll, now: float) -> None:
        outcome, failure = poll.outcome, poll.batch.failure
        # With several pollers of a user, a 429 now and then is normal, and most pages are read by
        # then; the limiter makes the next one wait.
        again = isinstance(outcome, RateLimited) and (
            failure is None or poll.sweep.throttled < _MAX_THROTTLED
        )
        poll.sweep.record_end(poll.page, again=again)
        poll.sweep.throttled += failure is not None
        if again:
            return
        if isinstance(outcome, JobPage):
            poll.sweep.throttled = 0
            for listed in outcome.jobs:
                if (job := self._registry.jobs.get(listed.name)) is not None:
                    self._apply_hint(job, listed, poll, now)
            if self._sweeps.add_page(poll.sweep, poll.page, outcome, now):
                return
        elif poll.sweep is not self._sweeps.active:
            return
        else:
            # Also when the quota of listings is used up: status calls draw on another one.
            error = failure or outcome or RuntimeError("the poll ended without a page")
            self._sweeps.record_failure(error, now)
        self._schedule.put_in_backlog(self._sweeps.finish(self._registry.jobs.values(), now))

    def _apply_hint(self, job: PolledJob, listed: ListedJob, poll: ListingPoll, now: float) -> None:
        poll.sweep.any_found = True
        job.type_index = poll.sweep.type_index
        # The clock may have been set since the page was asked for.
        job.listed_at = min(now, max(poll.sent_at, poll.sweep.started_at))
        if not job.listable:
            return
        followers = [wait.follower for wait in job.waits]
        hints = {hint_for(follower.run, follower.created_from, listed) for follower in followers}
        if Hint.POLL not in hints:
            job.false_hints = 0
        elif job.false_hints < _MAX_FALSE_HINTS:
            job.from_hint = all(follower.run.known for follower in followers)
            self._schedule.put_ended(job, now)
            return
        active = hints == {Hint.ACTIVE}
        asked_at = max(poll.sent_at, job.polled_at)
        self._schedule.put_after_hint(job, now, asked_at, active=active)
