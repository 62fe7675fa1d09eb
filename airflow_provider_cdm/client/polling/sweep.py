"""Sweeps: when the job list is read instead of polling job by job, and which page comes next."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.api.job_list import JobPage, name_filter
from airflow_provider_cdm.client.api.resources import LISTING_PAGE
from airflow_provider_cdm.client.polling.model import PolledJob
from airflow_provider_cdm.client.polling.pace import Pace
from airflow_provider_cdm.client.polling.polls import Sweep
from airflow_provider_cdm.client.polling.queue import Priority

log = logging.getLogger(__name__)

#: Cost of a page, in status calls: it is about as much work for the server.
_PAGE_COST = 10
#: By how much of the poll interval a listing may show ends later than looks at each job would.
_MAX_LATER = 0.25
#: Multiple of the expected time after which a listing is late.
_LATE = 1.5
#: Seconds for which a known number of pages is relied on.
_PAGE_COUNT_SECONDS = 1800.0
#: Seconds without listings after a failed one; doubles up to the second number.
_PAUSE, _MAX_PAUSE = 60.0, 1800.0
#: Filtered listings in a row without any of the jobs, after which no filter is used for some time.
_MAX_EMPTY = 2
#: Seconds without a filter; doubles up to the second number.
_UNFILTERED, _MAX_UNFILTERED = 600.0, 14_400.0


@dataclass(slots=True)
class SweepPlanner:
    """Decides when to read the job list of one cluster.

    :param pace: how long looks and listings take.
    :param active: the sweep in progress.
    :param page_counts: number of pages by job type and filter, and the time until which it is
        relied on, epoch seconds.
    :param unfiltered_until: no filter by name before this time, epoch seconds.
    :param empty: number of filtered listings in a row that showed none of the jobs.
    :param paused_until: no listing before this time, epoch seconds.
    :param failures: number of failed listings in a row.
    """

    pace: Pace
    active: Sweep | None = None
    page_counts: dict[tuple[int, str], tuple[int, float]] = field(default_factory=dict)
    unfiltered_until: float = 0.0
    empty: int = 0
    paused_until: float = 0.0
    failures: int = 0

    def covers_jobs(self, now: float) -> bool:
        """Return whether a sweep is in progress that can replace status calls."""
        return self.active is not None and now < self.active.covers_until

    def covers(self, job: PolledJob, now: float) -> bool:
        """Return whether the sweep in progress can replace a status call for the job."""
        sweep = self.active
        return (
            sweep is not None
            and self.covers_jobs(now)
            and sweep.type_index == job.type_index
            and job.joined_at <= sweep.started_at
            and job.listable
        )

    def savings(
        self, job: PolledJob, jobs: Iterable[PolledJob], now: float, congested: bool = False
    ) -> int:
        """Return how many status calls a sweep would save now that a job is due.

        Jobs that are due soon count as well: polling them a little early is cheaper than a status
        call later.

        :param job: the job that is due.
        :param jobs: all jobs that are waited for.
        :param congested: whether status calls queue for slots, so that only their number counts,
            not the cost of a page.
        :returns: the number of calls; 0 if the sweep would cost more than it saves.
        """
        if self.active is not None or now < self.paused_until or not job.listable:
            return 0
        soon, type_index, due = now + job.interval / 2, job.type_index, 1
        new, routine = Priority.NEW.value, Priority.ROUTINE.value
        # One pass over all jobs, perhaps ten thousand, hence kept simple.
        for other in jobs:
            if (
                (other.due_at[routine] <= soon or other.due_at[new] <= soon)
                and other.type_index == type_index
                and other is not job
            ):
                due += not other.failures
        # The filter takes another pass, so it is only asked for where it matters.
        if due <= (1 if congested else _PAGE_COST):
            return 0
        pages = self.page_count(type_index, jobs, now)
        if due <= pages:
            return 0
        latency = self.pace.seconds(Quota.LISTING, now)
        looks_seconds = self._looks_seconds(job, jobs, now)
        return due if self._soon_enough(pages, job.interval, looks_seconds, latency, now) else 0

    def page_count(self, type_index: int, jobs: Iterable[PolledJob], now: float) -> int:
        """Return the number of pages of a listing of some jobs, as far as it is known; at least 1.

        A listing has no fewer pages than one with a longer filter.
        """
        name_filter = self._filter_for(type_index, jobs, now)
        counts = [
            count
            for (counted_type, counted), (count, valid_until) in self.page_counts.items()
            if counted_type == type_index and counted.startswith(name_filter) and now < valid_until
        ]
        return max(counts, default=1)

    def _looks_seconds(self, job: PolledJob, jobs: Iterable[PolledJob], now: float) -> float:
        """Return the seconds until a job and all others of its quota have been looked at."""
        count = sum(other.quota is job.quota for other in jobs)
        return self.pace.looks_seconds(count, job.quota, now)

    def _soon_enough(
        self, pages: int, interval: float, looks_seconds: float, latency: float, now: float
    ) -> bool:
        """Return whether a listing shows ends about as soon as a look at each job does.

        What a listing shows is as old as its pages took. To save calls, it may come a little later.

        :param latency: seconds that a page takes.
        """
        oldest = max(interval, self.pace.listing_seconds(pages, latency, now))
        return oldest + latency <= max(interval, looks_seconds) + _MAX_LATER * interval

    def start(self, job: PolledJob, savings: int, jobs: Iterable[PolledJob], now: float) -> None:
        """Start a sweep for a job that is due; from now on it covers all jobs of that type."""
        sweep = Sweep(job.type_index, self._filter_for(job.type_index, jobs, now), now, savings)
        sweep.interval, sweep.looks_seconds = job.interval, self._looks_seconds(job, jobs, now)
        pages, comparison = self.page_count(job.type_index, jobs, now), sweep.comparison
        if self._soon_enough(pages, *comparison, self.pace.last_seconds(Quota.LISTING), now):
            latency = self.pace.seconds(Quota.LISTING, now)
            expected = _LATE * self.pace.listing_seconds(pages, latency, now)
            tolerated = max(_MAX_LATER * job.interval, sweep.looks_seconds / 4, expected)
        else:
            # Listings were slow, long ago; this one finds out whether they still are.
            tolerated = 0.0
        sweep.covers_until = now + tolerated
        self.active = sweep

    def release_late(self, now: float) -> list[PolledJob]:
        """Return the jobs that became due during a sweep which takes longer than expected."""
        sweep = self.active
        if sweep is None or now < sweep.covers_until or not sweep.due_jobs:
            return []
        due_jobs, sweep.due_jobs = list(sweep.due_jobs), {}
        return due_jobs

    def next_release(self) -> float:
        """Return when :meth:`release_late` is needed, epoch seconds; ``inf`` for never."""
        sweep = self.active
        return sweep.covers_until if sweep is not None and sweep.due_jobs else math.inf

    def add_page(self, sweep: Sweep, number: int, page: JobPage, now: float) -> bool:
        """Record a page of a sweep, and return whether the sweep goes on."""
        if sweep is not self.active:
            # It ended for another reason; now there may be a new one.
            return True
        self.failures = 0
        sweep.jobs_read += len(page.jobs)
        pages = self._plan_pages(sweep, number, page)
        key = (sweep.type_index, sweep.name_filter)
        known_count = self.page_counts.get(key, (1, 0.0))[0]
        for expired in [
            k for k, (_, valid_until) in self.page_counts.items() if valid_until <= now
        ]:
            del self.page_counts[expired]
        self.page_counts[key] = (
            sweep.last_page if sweep.complete else max(pages, known_count),
            now + _PAGE_COUNT_SECONDS,
        )
        if sweep.complete or pages > max(_PAGE_COST, sweep.savings):
            # A listing that is too long for what it saves is not read further.
            return False
        latency = self.pace.seconds(Quota.LISTING, now)
        return number > 1 or self._soon_enough(pages, *sweep.comparison, latency, now)

    def _plan_pages(self, sweep: Sweep, number: int, page: JobPage) -> int:
        """Plan which pages to read after one, and return the number of pages so far known."""
        pages = sweep.last_page
        if not (sweep.reading or sweep.to_read):
            if page.total is None:
                sweep.complete = len(page.jobs) < LISTING_PAGE
            else:
                sweep.complete = not page.jobs or sweep.jobs_read >= page.total
            pages += not sweep.complete
        if number == 1 and page.total is not None:
            # The server may return fewer jobs on a page than were requested.
            pages = max(1, math.ceil(page.total / max(1, len(page.jobs))))
        # A total may be any number.
        if sweep.last_page < pages <= max(_PAGE_COST, sweep.savings):
            sweep.to_read.extend(range(sweep.last_page + 1, pages + 1))
            sweep.last_page = pages
        return pages

    def record_failure(self, error: Exception, now: float) -> None:
        """Record a page that could not be read, and pause listings."""
        temporary = isinstance(error, errors.CdmError) and (
            error.retryable or error.refuses_credentials
        )
        pause = min(_MAX_PAUSE, _PAUSE * 2.0 ** min(self.failures, 10))
        self.failures += 1
        self.paused_until = now + (pause if temporary else _MAX_PAUSE)
        log.warning(
            "The job list cannot be read, so for the next %.0f s each job is polled with a status"
            " call of its own. The error: %s",
            self.paused_until - now,
            error,
        )

    def shift(self, seconds: float) -> None:
        """Move all times by some seconds, as the clock was set."""
        self.paused_until += seconds
        if self.active is not None:
            self.active.started_at += seconds
            self.active.covers_until += seconds
        self.pace.shift(seconds)
        self.unfiltered_until += seconds
        self.page_counts = {
            key: (count, valid_until + seconds)
            for key, (count, valid_until) in self.page_counts.items()
        }

    def finish(self, jobs: Iterable[PolledJob], now: float) -> list[PolledJob]:
        """End the sweep, and return the jobs that became due while it lasted.

        A job that was not on any page although all were read has another type, or is never listed.
        """
        sweep, self.active = self.active, None
        if sweep is None:
            return []
        if sweep.complete and sweep.name_filter:
            self._record_filtered(sweep, now)
        elif sweep.complete and not sweep.any_found:
            # No filter hides the jobs: they have another type, or are not listed.
            self.unfiltered_until, self.empty = 0.0, 0
        if sweep.complete and (sweep.any_found or not sweep.name_filter):
            for job in jobs:
                same_type = job.type_index == sweep.type_index
                if same_type and job.listed_at < sweep.started_at >= job.joined_at:
                    job.record_unlisted(now)
        for job in sweep.due_jobs:
            job.missed = job.listed_at < sweep.started_at
        return list(sweep.due_jobs)

    def _record_filtered(self, sweep: Sweep, now: float) -> None:
        """Do without filters for some time if they seem to hide the jobs.

        The server may interpret a filter in another way than we assume. But it may also be a list
        that is out of date, or jobs that are never listed.
        """
        self.empty = 0 if sweep.any_found else self.empty + 1
        if self.empty >= _MAX_EMPTY:
            times = min(self.empty - _MAX_EMPTY, 10)
            self.unfiltered_until = now + min(_MAX_UNFILTERED, _UNFILTERED * 2.0**times)

    def _filter_for(self, type_index: int, jobs: Iterable[PolledJob], now: float) -> str:
        """Return the common beginning of all names of a type that a filter may consist of."""
        if now < self.unfiltered_until:
            return ""
        ordered = [job.name for job in jobs if job.type_index == type_index]
        first, last = min(ordered, default=""), max(ordered, default="")
        pairs = zip(first, last, strict=False)
        common = "".join(pair[0] for pair in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return name_filter(common)
