"""What the poll planner keeps of each wait and each job."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB_TYPES
from airflow_provider_cdm.client.polling.queue import Priority
from airflow_provider_cdm.client.polling.rate_limited_api import (
    RateLimited,
    RateLimitedApi,
)
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import RunRef, Submission

T = TypeVar("T")
#: Seconds for which one list after another must lack a job that lists have shown, to be believed.
_MISSING_SECONDS = 600.0
#: Seconds after which lists are read again for a job that none of them showed; doubles up to the
#: second number.
_LIST_AGAIN, _MAX_LIST_AGAIN = 1800.0, 14_400.0
#: Result of a poll for one wait: the run as CDM shows it, ``None`` if it cannot be seen at present,
#: or an error.
Outcome: TypeAlias = Submission | Exception | None


class FlowRunner(Protocol):
    """Function that runs a flow on the current thread."""

    def __call__(self, flow: Flow[T], /) -> T:
        """Return the result of the flow."""


class Followed(Protocol):
    """What decides from polls whether a wait ends: a follower of one run, or a watch of a job."""

    @property
    def run(self) -> RunRef:
        """The run, as far as it is known."""

    @property
    def created_from(self) -> int:
        """While the run is not known: earliest creation time, epoch milliseconds."""

    @property
    def asks_history(self) -> bool:
        """Whether the next poll begins with the history of the job."""

    @property
    def problems_since(self) -> Mapping[str, float]:
        """The present problems."""

    def poll(self, api: CdmApi) -> Flow[Submission | None]:
        """Make one poll."""

    def timed_out(self, limit: str = ...) -> errors.CdmError:
        """Return the error at the deadline."""

    def unreachable(self, error: errors.CdmError, lasted: float) -> errors.CdmError:
        """Return the error after calls have failed for too long."""


@dataclass(slots=True, eq=False)
class Wait:
    """One wait for one run, or for the next one that ends.

    :param follower: decides from each poll whether the run has ended.
    :param poll_interval: requested seconds between two polls.
    :param on_end: called once with the ended run, or with the error that ended the wait.
    :param on_status: called after each poll with the run, or ``None`` if it could not be seen; an
        exception that it raises ends the wait.
    :param side_task: flow to run after each poll that saw the run, as far as the rate limits leave
        slots free; its errors are ignored. It gets the type of the job, or ``None`` if that is not
        known.
    :param deadline: when to give up, epoch seconds.
    :param limit: name of the task's argument that set the deadline.
    :param watches: whether it is a watch of the job, which goes without polls of its own where
        others wait for runs of the job.
    :param context: context in which polls run, so that their log lines reach the log of the task.
    :param joined_at: when the wait was added, epoch seconds.
    :param final_poll_scheduled: whether the deadline has passed and one last poll was scheduled.
    :param done: whether the wait has ended or was removed.
    """

    follower: Followed
    poll_interval: float
    on_end: Callable[[Submission | Exception], None]
    on_status: Callable[[Submission | None], None] = lambda _: None
    side_task: Callable[[CdmApi, Submission, str | None], Flow[None]] | None = None
    deadline: float | None = None
    limit: str = "wait_timeout"
    watches: bool = False
    context: Context = field(default_factory=copy_context, repr=False)
    joined_at: float = 0.0
    final_poll_scheduled: bool = False
    done: bool = False

    @property
    def job_name(self) -> str:
        """The name of the job."""
        return self.follower.run.job_name

    @property
    def quota(self) -> Quota:
        """The quota on which the first call of a poll draws."""
        return Quota.HISTORY if self.follower.asks_history else Quota.STATUS

    def poll(self, run_flow: FlowRunner, api: RateLimitedApi, job_type: str | None) -> Outcome:
        """Poll the run once, and return the outcome."""
        try:
            seen = run_flow(self.follower.poll(api))
            self.on_status(seen)
            if seen is not None and self.side_task is not None:
                with suppress(errors.CdmError, RateLimited):
                    run_flow(self.side_task(api.for_side_task(), seen, job_type))
        except Exception as error:
            return error
        return seen


@dataclass(slots=True, eq=False)
class PolledJob:
    """A job with at least one wait for a run of it.

    :param due_at: when the next poll is due for each priority, epoch seconds; ``inf`` if not due.
    :param quota: quota of the first call of a poll.
    :param postponed: quota of the last call that a rate limit postponed. If the waits need calls of
        both kinds, the next poll begins with this one, so that neither kind is postponed for ever.
    :param interval: shortest poll interval of the waits, in seconds.
    :param demand: status calls a minute that this asks for; watches alone ask for none.
    :param type_index: index of the job's type in ``JOB_TYPES``, as assumed or seen; past the end if
        no listing shows the job.
    :param joined_at: when the first of the waits was added, epoch seconds.
    :param polled_at: when the last poll was sent, epoch seconds.
    :param listed_at: when a listing last showed the job, epoch seconds.
    :param missed: whether a sweep that was to cover the job did not show it, so that a status call
        comes next.
    :param list_again_at: when lists are read again for the job although none shows it, epoch
        seconds.
    :param times_unlisted: how often the lists of all types did not show the job.
    :param status_at: when the last status call was answered, epoch seconds.
    :param failures: number of polls in a row that failed without a usable answer.
    :param from_hint: whether the next poll was suggested by a listing.
    :param false_hints: how often a listing suggested a poll although the run was still active.
    :param in_flight: whether a poll is in flight.
    :param poll_again: whether to poll once more after that.
    """

    name: str
    waits: list[Wait] = field(default_factory=list)
    due_at: list[float] = field(default_factory=lambda: [math.inf] * len(Priority))
    quota: Quota = Quota.STATUS
    postponed: Quota = Quota.HISTORY
    interval: float = math.inf
    demand: float = 0.0
    type_index: int = 0
    joined_at: float = 0.0
    polled_at: float = -math.inf
    listed_at: float = -math.inf
    missed: bool = False
    list_again_at: float = math.inf
    times_unlisted: int = 0
    status_at: float = 0.0
    failures: int = 0
    from_hint: bool = False
    false_hints: int = 0
    in_flight: bool = False
    poll_again: bool = False

    def refresh(self) -> None:
        """Update interval and quota after waits were added, were removed, or found their run."""
        self.interval = min((wait.poll_interval for wait in self.waits), default=math.inf)
        waits = [wait for wait in self.waits if not wait.watches] or self.waits
        self.demand = 0.0 if all(wait.watches for wait in waits) else 60 / self.interval
        quotas = {wait.quota for wait in waits}
        self.quota = self.postponed if len(quotas) > 1 else next(iter(quotas), Quota.STATUS)

    def record_status(self, now: float) -> None:
        """Record a poll that was answered, and after which waits remain."""
        self.failures, self.status_at, self.missed = 0, now, False
        if now >= self.list_again_at:
            self.type_index, self.list_again_at = 0, math.inf
        self.false_hints += self.from_hint
        self.from_hint = False

    def record_unlisted(self, now: float) -> None:
        """Record that a complete list of the assumed type did not show the job.

        Either it has another type, or it is never listed, or the list was out of date.
        """
        if now - self.listed_at < _MISSING_SECONDS:
            return
        self.type_index += 1
        self.listed_at = -math.inf
        if self.type_index == len(JOB_TYPES):
            pause = min(_MAX_LIST_AGAIN, _LIST_AGAIN * 2.0 ** min(self.times_unlisted, 10))
            self.list_again_at = now + pause
            self.times_unlisted += 1

    def shift(self, seconds: float) -> None:
        """Move all times by some seconds, after the clock was set."""
        self.due_at = [due_at + seconds for due_at in self.due_at]
        self.joined_at += seconds
        self.polled_at += seconds
        self.listed_at += seconds
        self.list_again_at += seconds
        self.status_at += seconds
        for wait in self.waits:
            wait.joined_at += seconds

    @property
    def job_type(self) -> str | None:
        """The type of the job, if a listing has shown it."""
        return JOB_TYPES[self.type_index] if self.listed_at > -math.inf else None

    @property
    def listable(self) -> bool:
        """Whether a listing may replace a status call: the job is listed, and has no problems."""
        if self.in_flight or self.failures or self.missed or self.type_index >= len(JOB_TYPES):
            return False
        # A loop, since this is asked for each job of each list.
        for wait in self.waits:  # noqa: SIM110
            if wait.follower.problems_since:
                return False
        return True

    def run_age(self, now: float) -> float:
        """Return the seconds since the newest run was created; ``inf`` if that is not known."""
        waits = [wait for wait in self.waits if not wait.watches] or self.waits
        created = [wait.follower.run.creation_date for wait in waits]
        if not created or None in created:
            return math.inf
        # The clock of the servers may be ahead of ours.
        return max(now - self.joined_at, now - max(date or 0 for date in created) / 1000)
