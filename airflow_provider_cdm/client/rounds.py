"""When a listing is read instead of asking job by job, and how far its reading has got."""

from __future__ import annotations

import logging
import math
import os.path
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.endpoints import LISTING_PAGE
from airflow_provider_cdm.client.listing import JobPage
from airflow_provider_cdm.client.schedule import Urgency
from airflow_provider_cdm.client.waits import JOB_TYPES, Job, Round

log = logging.getLogger(__name__)

#: A page weighs about as much as this many answers of the status call.
_PAGE_WEIGHT = 10
#: Seconds for which the length of a listing is taken for granted.
_MEMORY = 1800.0
#: Seconds without listings after one that failed; it doubles up to the second number.
_REST, _LONGEST_REST = 60.0, 1800.0


@dataclass(slots=True)
class Rounds:
    """Decides on the listings of one cluster.

    :param active: the listing that is being read.
    :param lengths: how many pages there were by type and filter, and until when that is believed.
    :param filters: whether the name filter is used.
    :param off_until: no listing before this instant, epoch seconds.
    :param failures: listings in a row that failed.
    """

    active: Round | None = None
    lengths: dict[tuple[int, str], tuple[int, float]] = field(default_factory=dict)
    filters: bool = True
    off_until: float = 0.0
    failures: int = 0

    def covers(self, job: Job) -> bool:
        """Whether the listing that is being read will tell of the job."""
        return self.active is not None and self.active.type == job.type and job.listable

    def worth(self, job: Job, jobs: Iterable[Job], now: float) -> bool:
        """Whether a listing costs less than asking job by job, now that this job is due.

        What will be due soon counts as well: to look a little early is better than twice.
        """
        if self.active is not None or now < self.off_until or not job.listable:
            return False
        bound = max(_PAGE_WEIGHT, self.pages(job.type, now))
        soon, due = now + job.interval / 2, 1
        for other in jobs:
            routine = min(other.due[Urgency.FRESH], other.due[Urgency.ROUTINE])
            if routine <= soon and other.type == job.type and other.listable:
                due += 1
                if due > bound:
                    return True
        return False

    def pages(self, job_type: int, now: float) -> int:
        """How many pages a listing of this type has, as far as is known; else 1."""
        known = [
            pages
            for (one, _), (pages, until) in self.lengths.items()
            if one == job_type and now < until
        ]
        return min(known, default=1)

    def begin(self, job_type: int, jobs: Iterable[Job], now: float) -> Round:
        """Begin to read a listing; from now on it stands for all jobs of its type."""
        covered = {job.name: job for job in jobs if job.type == job_type and job.listable}
        self.active = Round(job_type, self._filter(covered), covered, began_at=now)
        return self.active

    def read(self, page: JobPage, now: float) -> bool:
        """Take note of a page; returns whether there is another one worth reading."""
        one = self.active
        if one is None:
            return False
        self.failures = 0
        one.shown += len(page.jobs)
        size = len(page.jobs) if one.page_no == 1 else LISTING_PAGE
        total = page.total if page.total is not None else math.inf
        one.page_no += 1
        if page.jobs and one.shown < total and (total < math.inf or size >= LISTING_PAGE):
            pages = one.page_no if total == math.inf else math.ceil(total / size)
            self.lengths[one.type, one.name_filter] = (int(pages), now + _MEMORY)
            # The first page tells how long it is; too long, and asking job by job is cheaper.
            return one.page_no > 2 or pages <= max(_PAGE_WEIGHT, len(one.covered))
        self.lengths[one.type, one.name_filter] = (one.page_no - 1, now + _MEMORY)
        return False

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

    def end(self, *, complete: bool) -> Round | None:
        """End the reading, and return what was read.

        :param complete: whether all pages were read: what did not show up is not in this listing.
        """
        one, self.active = self.active, None
        if one is None or not complete:
            return one
        if one.name_filter and not one.found and one.covered:
            # The filter may mean something else than we think.
            self.filters = False
            return one
        for job in one.covered.values():
            if job.type == one.type:
                job.type = min(job.type + 1, len(JOB_TYPES))
        return one

    def _filter(self, names: Iterable[str]) -> str:
        """What all names begin with, as far as a filter surely means nothing else by it."""
        common = os.path.commonprefix(list(names)) if self.filters else ""
        match = re.match(r"[A-Za-z0-9_-]*", common)
        return match[0] if match else ""
