"""What a watch keeps of each wait and each job, and the calls that it sends out."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB_TYPES
from airflow_provider_cdm.client.api.job_list import JobPage
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.polling.metered_client import (
    CallBatch,
    RateLimited,
    RateLimitedApi,
)
from airflow_provider_cdm.client.polling.queue import Priority
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import Submission

T = TypeVar("T")
#: What a look came to: an ended or active run, ``None`` for nothing usable, or why there was none.
Outcome: TypeAlias = Submission | Exception | None


class Run(Protocol):
    """Performs a flow on this thread."""

    def __call__(self, flow: Flow[T], /) -> T:
        """Return what the flow returns."""


@dataclass(slots=True, eq=False)
class Wait:
    """One wait for one run.

    :param follower: judges what is seen of the run.
    :param poll_interval: seconds between two looks, as wished.
    :param end: told once how it ended: the ended run, or why it ended otherwise.
    :param on_status: told what each look saw; what it raises ends the wait.
    :param side_task: performed after each look that saw the run, as far as the budget has calls left;
        what CDM refuses it does not matter. It is told the type of the job if that is known.
    :param deadline: epoch seconds at which to give up.
    :param limit: the task's argument that set the deadline.
    :param context: where looks are logged from, so that the lines reach the right task's log.
    :param joined_at: when it came, epoch seconds.
    :param final_poll_sent: whether the look that the deadline asks for is due.
    :param over: whether it has ended, or was left.
    """

    follower: Follower
    poll_interval: float
    end: Callable[[Submission | Exception], None]
    on_status: Callable[[Submission | None], None] = lambda _: None
    side_task: Callable[[CdmApi, Submission, str | None], Flow[None]] | None = None
    deadline: float | None = None
    limit: str = "wait_timeout"
    context: Context = field(default_factory=copy_context, repr=False)
    joined_at: float = 0.0
    final_poll_sent: bool = False
    over: bool = False

    @property
    def job_name(self) -> str:
        """The job of its run."""
        return self.follower.run.job_name

    def poll(self, run: Run, api: RateLimitedApi, job_type: str | None) -> Outcome:
        """Look once, and say what came of it."""
        try:
            seen = run(self.follower.poll(api))
            self.on_status(seen)
            if seen is not None and self.side_task is not None:
                with suppress(errors.CdmError, RateLimited):
                    run(self.side_task(api.side_task(), seen, job_type))
        except Exception as error:
            return error
        return seen


@dataclass(slots=True, eq=False)
class PolledJob:
    """A job with somebody waiting for a run of it.

    :param due: when it is to be looked at, by urgency.
    :param quota: what the first call of a look draws on.
    :param interval: the shortest of the waits' intervals, in seconds.
    :param type: place of its type in ``JOB_TYPES``; beyond the last one if no listing shows it.
    :param joined_at: when the first of the waits came, epoch seconds.
    :param tried_at: begin of the last look, epoch seconds.
    :param listed_at: when a listing showed it last, epoch seconds.
    :param seen_at: when its own status was seen last, epoch seconds.
    :param failures: looks in a row that failed for lack of an answer.
    :param from_hint: whether a listing has asked for the next look.
    :param false_hints: how often a listing did so although the run went on.
    :param in_flight: whether it is being looked at.
    :param poll_again: whether it is to be looked at once more after that.
    """

    name: str
    waits: list[Wait] = field(default_factory=list)
    due: list[float] = field(default_factory=lambda: [math.inf] * len(Priority))
    quota: Quota = Quota.STATUS
    interval: float = math.inf
    type: int = 0
    joined_at: float = 0.0
    tried_at: float = -math.inf
    listed_at: float = -math.inf
    seen_at: float = 0.0
    failures: int = 0
    from_hint: bool = False
    false_hints: int = 0
    in_flight: bool = False
    poll_again: bool = False

    def refresh(self) -> None:
        """Take note that waits came, went, or found their run."""
        self.interval = min((wait.poll_interval for wait in self.waits), default=math.inf)
        unknown = any(not wait.follower.run.known for wait in self.waits)
        self.quota = Quota.HISTORY if unknown else Quota.STATUS

    def seen(self, now: float) -> None:
        """Take note of a look that was answered, and left somebody waiting."""
        self.failures, self.seen_at = 0, now
        self.false_hints += self.from_hint
        self.from_hint = False

    def shift(self, seconds: float) -> None:
        """Move all its instants, since the clock was set."""
        self.due = [due + seconds for due in self.due]
        self.joined_at += seconds
        self.tried_at += seconds
        self.listed_at += seconds
        self.seen_at += seconds

    @property
    def job_type(self) -> str | None:
        """Its type, if a listing has shown it."""
        return JOB_TYPES[self.type] if self.listed_at > -math.inf else None

    @property
    def listable(self) -> bool:
        """Whether a listing may stand for a look: the job shows there, and nothing is odd."""
        return (
            self.type < len(JOB_TYPES)
            and not (self.in_flight or self.failures)
            and not any(wait.follower.problems_since for wait in self.waits)
        )

    def age(self, now: float) -> float:
        """Seconds since the youngest run was created; ``inf`` if that is not known."""
        created = [wait.follower.run.creation_date for wait in self.waits]
        if not created or None in created:
            return math.inf
        # The servers' clock may be ahead of ours.
        return max(now - self.joined_at, now - max(date or 0 for date in created) / 1000)


@dataclass(slots=True)
class StatusPoll:
    """A look at all runs of one job that are waited for.

    :param outcomes: what it came to, wait for wait.
    """

    job: PolledJob
    priority: Priority
    api: RateLimitedApi
    waits: list[Wait]
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def batch(self) -> CallBatch:
        """What came of its calls."""
        return self.api.batch

    def perform(self, run: Run) -> None:
        """Look, wait for wait; made for a thread, and to be landed afterwards."""
        for wait in self.waits:
            # Without a slot for the first, there is none for the others.
            postponed = self.outcomes and isinstance(self.outcomes[-1], RateLimited)
            outcome = (
                self.outcomes[-1]
                if postponed
                else wait.context.run(wait.poll, run, self.api, self.job.job_type)
            )
            self.outcomes.append(outcome)

    def failed(self, error: BaseException) -> None:
        """Take note that it came to no end of its own."""
        outcome = error if isinstance(error, Exception) else RuntimeError(repr(error))
        self.outcomes = [outcome] * len(self.waits)


@dataclass(slots=True)
class Sweep:
    """One reading of all pages of a listing.

    :param type: place of the jobs' type in ``JOB_TYPES``.
    :param began_at: epoch seconds; it tells of the jobs that were waited for by then.
    :param worth: how many looks it is to save.
    :param rest: jobs that became due meanwhile.
    :param page_no: the page to read next.
    :param shown: how many jobs were on the pages so far.
    :param found: whether one of ours was among them.
    :param complete: whether all pages have been read.
    """

    type: int
    name_filter: str
    began_at: float
    worth: int
    rest: list[PolledJob] = field(default_factory=list)
    page_no: int = 1
    shown: int = 0
    found: bool = False
    complete: bool = False


@dataclass(slots=True)
class ListingPoll:
    """The reading of one page.

    :param outcome: the page, or why there is none.
    """

    round: Sweep
    cluster_id: str
    api: RateLimitedApi
    outcome: JobPage | Exception | None = None

    @property
    def batch(self) -> CallBatch:
        """What came of its call."""
        return self.api.batch

    def perform(self, run: Run) -> None:
        """Read the page; made for a thread, since pages can be long."""
        one = self.round
        call = resources.list_jobs(
            self.cluster_id,
            one.page_no,
            job_type=JOB_TYPES[one.type],
            name_filter=one.name_filter,
        )
        try:
            self.outcome = run(self.api.call(call))
        except (errors.CdmError, RateLimited) as error:
            self.outcome = error

    def failed(self, error: BaseException) -> None:
        """Take note that it came to no end of its own."""
        self.outcome = error if isinstance(error, Exception) else RuntimeError(repr(error))


Poll: TypeAlias = StatusPoll | ListingPoll
