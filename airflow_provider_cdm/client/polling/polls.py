"""The polls that the poll planner sends out, each with its result once it has been performed."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.api.definitions import JOB_TYPES
from airflow_provider_cdm.client.api.job_list import JobPage
from airflow_provider_cdm.client.polling.model import FlowRunner, Outcome, PolledJob, Wait
from airflow_provider_cdm.client.polling.queue import Priority
from airflow_provider_cdm.client.polling.rate_limited_api import (
    CallBatch,
    RateLimited,
    RateLimitedApi,
)


@dataclass(slots=True)
class StatusPoll:
    """A poll of all runs of one job that are waited for.

    :param job: the job to poll.
    :param priority: why the job was due.
    :param api: the API, with the slot that was reserved for the first call.
    :param waits: waits to poll for, in this order.
    :param quota: quota of the first call.
    :param sent_at: when the poll was sent, epoch seconds.
    :param outcomes: results in the order of the waits.
    """

    job: PolledJob
    priority: Priority
    api: RateLimitedApi
    waits: list[Wait]
    quota: Quota
    sent_at: float
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def batch(self) -> CallBatch:
        """The calls that were made, and their results."""
        return self.api.batch

    def perform(self, run_flow: FlowRunner) -> None:
        """Poll for one wait after the other; meant for a thread."""
        job_type = self.job.job_type
        for wait in self.waits:
            if wait.watches and self.batch.failure is not None:
                # CDM does not answer at the moment; one call has shown that.
                self.outcomes.append(None)
                continue
            self.outcomes.append(wait.context.run(wait.poll, run_flow, self.api, job_type))

    def fail(self, error: BaseException) -> None:
        """Record an error that :meth:`perform` raised."""
        outcome = error if isinstance(error, Exception) else RuntimeError(repr(error))
        self.outcomes = [outcome] * len(self.waits)


@dataclass(slots=True)
class Sweep:
    """One reading of all pages of the job list, for one type of job.

    :param type_index: index of the type in ``JOB_TYPES``.
    :param name_filter: filter for job names; empty for none.
    :param started_at: epoch seconds; the sweep covers the jobs that were waited for by then.
    :param savings: number of status calls that it is expected to save.
    :param interval: poll interval of the job that the sweep was started for, in seconds.
    :param looks_seconds: seconds that a look at each job would take instead.
    :param covers_until: when the sweep is late, so that jobs are polled one by one, epoch seconds.
    :param due_jobs: jobs that became due while the sweep was in progress, each once, as keys.
    :param to_read: numbers of pages to read next.
    :param reading: number of pages that are being read.
    :param throttled: number of pages in a row that got 429.
    :param last_page: largest number of a page that was read or is to be read.
    :param jobs_read: number of jobs on the pages read so far.
    :param any_found: whether one of the jobs that are waited for was among them.
    :param complete: whether all pages have been read.
    """

    type_index: int
    name_filter: str
    started_at: float
    savings: int
    interval: float = math.inf
    looks_seconds: float = math.inf
    covers_until: float = math.inf
    due_jobs: dict[PolledJob, None] = field(default_factory=dict)
    to_read: deque[int] = field(default_factory=lambda: deque([1]))
    reading: int = 0
    throttled: int = 0
    last_page: int = 1
    jobs_read: int = 0
    any_found: bool = False
    complete: bool = False

    @property
    def comparison(self) -> tuple[float, float]:
        """The poll interval, and the seconds that a look at each job would take."""
        return self.interval, self.looks_seconds

    def take_page(self) -> int:
        """Return the number of the next page, which is going to be read."""
        self.reading += 1
        return self.to_read.popleft()

    def record_end(self, page: int, *, again: bool) -> None:
        """Record that a page is not being read any more.

        :param again: whether to read it once more.
        """
        self.reading -= 1
        if again:
            self.to_read.appendleft(page)


@dataclass(slots=True)
class ListingPoll:
    """The reading of one page of the job list.

    :param sweep: the sweep that the page belongs to.
    :param page: number of the page.
    :param cluster_id: cluster of the jobs.
    :param api: the API, with the slot that was reserved for the call.
    :param sent_at: when the poll was sent, epoch seconds.
    :param outcome: the page, or an error.
    """

    quota: ClassVar[Quota] = Quota.LISTING

    sweep: Sweep
    page: int
    cluster_id: str
    api: RateLimitedApi
    sent_at: float
    outcome: JobPage | Exception | None = None

    @property
    def batch(self) -> CallBatch:
        """The call that was made, and its result."""
        return self.api.batch

    def perform(self, run_flow: FlowRunner) -> None:
        """Read the page; meant for a thread, since pages can be long."""
        call = resources.list_jobs(
            self.cluster_id,
            self.page,
            job_type=JOB_TYPES[self.sweep.type_index],
            name_filter=self.sweep.name_filter,
        )
        try:
            self.outcome = run_flow(self.api.call(call))
        except (errors.CdmError, RateLimited) as error:
            self.outcome = error

    def fail(self, error: BaseException) -> None:
        """Record an error that :meth:`perform` raised."""
        self.outcome = error if isinstance(error, Exception) else RuntimeError(repr(error))


Poll: TypeAlias = StatusPoll | ListingPoll
