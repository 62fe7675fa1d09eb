"""When a listing is read instead of asking job by job, and how far its reading has got."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.job_list import JobPage, name_filter
from airflow_provider_cdm.client.api.resources import LISTING_PAGE
from airflow_provider_cdm.client.polling.model import PolledJob, Sweep
from airflow_provider_cdm.client.polling.queue import Priority

log = logging.getLogger(__name__)

#: A page weighs about as much as this many answers of the status call.
_PAGE_WEIGHT = 10
#: Seconds for which the length of a listing is taken for granted.
_MEMORY = 1800.0
#: Seconds without listings after one that failed; it doubles up to the second number.
_REST, _LONGEST_REST = 60.0, 1800.0


@dataclass(slots=True)
class SweepPlanner:
    """Decides on the listings of one cluster.

    :param active: the listing that is being read.
    :param lengths: how many pages there were by type and filter, and until when that is believed.
    :param filters: whether the name filter is used.
    :param off_until: no listing before this instant, epoch seconds.
    :param failures: listings in a row that failed.
    """

    active: Sweep | None = None
    lengths: dict[tuple[int, str], tuple[int, float]] = field(default_factory=dict)
    filters: bool = True
    off_until: float = 0.0
    failures: int = 0

    def covers(self, job: PolledJob) -> bool:
        """Whether the listing that is being read will tell of the job."""
        one = self.active
        return (
            one is not None
            and one.type == job.type
            and job.joined_at <= one.began_at
            and job.listable
        )

    def worth(
        self, job: PolledJob, jobs: Iterable[PolledJob], now: float, crowded: bool = False
    ) -> int:
        """How many looks a listing would save now that this job is due; 0 if it costs more.

        What will be due soon counts as well: to look a little early is better than twice.

        :param crowded: whether looks have to queue, so that their number counts and no weight.
        """
        if self.active is not None or now < self.off_until or not job.listable:
            return 0
        soon, kind, due = now + job.interval / 2, job.type, 1
        fresh, routine = Priority.FRESH.value, Priority.ROUTINE.value
        # One pass over all jobs, maybe ten thousand, so it is kept simple.
        for other in jobs:
            if (other.due[routine] <= soon or other.due[fresh] <= soon) and other.type == kind:
                due += not other.failures
        return due if due > max(1 if crowded else _PAGE_WEIGHT, self.pages(kind, now)) else 0

    def pages(self, job_type: int, now: float) -> int:
        """How many pages a listing of this type has, as far as is known; else 1."""
        known = [
            pages
            for (one, _), (pages, until) in self.lengths.items()
            if one == job_type and now < until
        ]
        return min(known, default=1)

    def begin(self, job_type: int, worth: int, jobs: Iterable[PolledJob], now: float) -> None:
        """Begin to read a listing; from now on it stands for looks at all jobs of its type."""
        names = (job.name for job in jobs if job.type == job_type)
        self.active = Sweep(job_type, self._filter(names), now, worth)

    def read(self, page: JobPage, now: float) -> bool:
        """Take note of a page; returns whether there is another one worth reading."""
        one = self.active
        if one is None:
            return False
        self.failures = 0
        one.shown += len(page.jobs)
        one.page_no += 1
        if page.total is None:
            one.complete = len(page.jobs) < LISTING_PAGE
            pages = one.page_no - one.complete
        else:
            one.complete = not page.jobs or one.shown >= page.total
            # The server may show less on a page than it was asked for.
            pages = math.ceil(page.total / max(1, one.shown)) if one.page_no == 2 else one.page_no
        known = self.lengths.get((one.type, one.name_filter), (1, 0.0))[0]
        self.lengths[one.type, one.name_filter] = (
            one.page_no - 1 if one.complete else max(pages, known),
            now + _MEMORY,
        )
        # Too long for what it saves: asking job by job is cheaper.
        return not one.complete and pages <= max(_PAGE_WEIGHT, one.worth)

    def failed(self, error: Exception, now: float) -> None:
        """Take note of a page that could not be read."""
        passing = isinstance(error, errors.CdmError) and error.retryable
        rest = min(_LONGEST_REST, _REST * 2.0 ** min(self.failures, 10))
        self.failures += 1
        self.off_until = now + (rest if passing else _LONGEST_REST)
        log.warning(
            "The jobs cannot be listed, so each is asked for by itself for %.0f s: %s",
            self.off_until - now,
            error,
        )

    def end(self, jobs: Iterable[PolledJob]) -> list[PolledJob]:
        """End the reading, and return what has become due meanwhile.

        What did not show up although all pages were read is of another type, or shows nowhere.
        """
        one, self.active = self.active, None
        if one is None:
            return []
        if one.complete and one.name_filter and not one.found:
            # The filter may mean something else than we think.
            self.filters = False
        elif one.complete:
            for job in jobs:
                if job.type == one.type and job.listed_at < one.began_at >= job.joined_at:
                    job.type += 1
                    job.listed_at = -math.inf
        return one.rest

    def _filter(self, names: Iterable[str]) -> str:
        """What all names begin with, as far as a filter surely means nothing else by it."""
        if not self.filters:
            return ""
        ordered = list(names)
        first, last = min(ordered, default=""), max(ordered, default="")
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
        common = "".join(pair[0] for pair in alike)
        return name_filter(common)
