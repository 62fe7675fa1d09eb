"""Reading the jobs that may be sub-jobs of a whole-database job, one for each table, from listings.

It is not documented which type's listing shows them, if any. So the listings of all types are read
and combined, and :mod:`~airflow_provider_cdm.client.whole_database.look_alikes` tells sub-jobs from
other jobs whose names begin alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import BATCH_JOB, JOB, JOB_TYPES
from airflow_provider_cdm.client.api.job_list import JobPage, ListedJob, name_filter
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import Submission, Verdict, verdict_of
from airflow_provider_cdm.client.whole_database.look_alikes import (
    LINKS,
    SOURCE,
    ClassifiedJob,
    Parent,
    Standing,
    classify,
)

log = logging.getLogger(__name__)

#: Pages after which a listing counts as endless: 10,000 tables.
_MAX_PAGES = 100
#: How often a listing is read that changes while its pages are read.
_READINGS = 3
#: What tells sub-jobs from other jobs.
_TELLING = (*LINKS, SOURCE, "creation-date")


@dataclass(slots=True)
class SubJobReader:
    """Reads the sub-jobs of a whole-database job.

    :param run: run of that job.
    :param definition: definition of that job, if it is known; otherwise that in a listing is used.
    :param job_types: types whose listings to read.
    :param wait_for_quota: whether to wait while the quota is used up.
    :param pages: number of pages read.
    :param found_in: types whose listings show certain sub-jobs.
    """

    api: CdmApi
    run: Submission
    definition: Mapping[str, Any] | None
    job_types: Sequence[str] = JOB_TYPES
    wait_for_quota: bool = True
    pages: int = 0
    found_in: Sequence[str] = ()
    _jobs: dict[str, ListedJob] = field(default_factory=dict)

    @property
    def parent(self) -> Parent:
        """What is known of the whole-database run."""
        return Parent.of(self.run, self.definition)

    def read(self) -> Flow[list[ClassifiedJob]]:
        """Return all jobs with names like those of sub-jobs, and what they are for the run.

        :raises CdmBadResponse: when a listing has no end.
        """
        names: dict[str, set[str]] = {}
        for job_type in self.job_types:
            jobs = yield from self._list(job_type)
            names[job_type] = {job.name for job in jobs}
            self._combine(jobs)
        classified = self._classify()
        ours = {each.job.name for each in classified if each.standing is Standing.OURS}
        self.found_in = [job_type for job_type, listed in names.items() if listed & ours]
        return classified

    def look_again(self, names: Sequence[str]) -> Flow[list[ClassifiedJob]]:
        """Read jobs one by one, since that may show what the listings do not show.

        :param names: names of the jobs.
        :returns: the same as :meth:`read`.
        """
        try:
            if not self.definition:
                self.definition = yield from self._show(self.run.job_name)
            for name in names:
                shown = (yield from self._show(name)) or {}
                more = {key: shown[key] for key in _TELLING if key in shown}
                job = self._jobs[name]
                self._jobs[name] = replace(job, wire={**more, **_filled(job.wire)})
        except errors.CdmError as error:
            log.info("The jobs that may be sub-jobs cannot be read one by one: %s", error)
        return self._classify()

    def _show(self, name: str) -> Flow[dict[str, Any] | None]:
        return self.api.find(JOB, self.run.cluster_id, name)

    def _classify(self) -> list[ClassifiedJob]:
        return classify(self._jobs.values(), self.parent)

    def _combine(self, jobs: Iterable[ListedJob]) -> None:
        """Add the jobs of a listing; one that two listings show is one job.

        If they show different states, the less favorable one is kept, which a status call settles.
        """
        for job in jobs:
            if job.name == self.run.job_name:
                self.definition = self.definition or job.wire
            before = self._jobs.get(job.name, job)
            first, last = sorted((before, job), key=_last)
            self._jobs[job.name] = replace(last, wire={**_filled(first.wire), **_filled(last.wire)})

    def _list(self, job_type: str) -> Flow[list[ListedJob]]:
        """Read a listing, again if jobs appeared or disappeared meanwhile and moved others."""
        jobs: list[ListedJob] = []
        for _ in range(_READINGS):
            read, totals = yield from self._list_once(job_type)
            jobs += read
            if len(totals) == 1:
                break
        return jobs

    def _list_once(self, job_type: str) -> Flow[tuple[list[ListedJob], set[int | None]]]:
        jobs: list[ListedJob] = []
        totals: set[int | None] = set()
        for page_no in range(1, _MAX_PAGES + 1):
            page = yield from self._page(job_type, page_no)
            jobs += page.jobs
            totals.add(page.total)
            full = len(page.jobs) >= resources.LISTING_PAGE
            # A total that is smaller than what was read is none.
            if not page.jobs or (not full and len(jobs) >= (page.total or 0)):
                return jobs, totals
        raise errors.CdmBadResponse(
            f"The listing of jobs whose names begin with {self.run.job_name!r} has no end."
        )

    def _page(self, job_type: str, page_no: int) -> Flow[JobPage]:
        # Among the whole-database jobs is the job itself, with its definition.
        own = job_type == BATCH_JOB and not self.definition
        prefix = self.run.job_name if own else f"{self.run.job_name}_"
        call = resources.list_jobs(
            self.run.cluster_id, page_no, job_type=job_type, name_filter=name_filter(prefix)
        )
        page = yield from self.api.call(replace(call, wait_for_quota=self.wait_for_quota))
        self.pages += 1
        return page


def _last(job: ListedJob) -> tuple[bool, int]:
    return verdict_of(job.status) is not Verdict.SUCCESS, job.created or 0


def _filled(wire: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wire.items() if value not in (None, "")}
