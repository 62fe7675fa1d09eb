"""Which call to make next, so that all waits on one cluster end in time and within the quota.

A :class:`Watch` is a plain value: it is told the time, says which call to make, and is told what
came of it. It reads no clock, sends nothing, and sleeps nowhere. Whether a run is over is not its
business either: each wait has a :class:`~airflow_provider_cdm.client.following.Follower`, which is
the only judge.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.budget import Budget, Quota
from airflow_provider_cdm.client.flows import CdmFlows
from airflow_provider_cdm.client.following import Patience
from airflow_provider_cdm.client.listing import Hint, JobPage, ListedJob, hint
from airflow_provider_cdm.client.metering import Errand, MeteredFlows, Postponed
from airflow_provider_cdm.client.models import Submission
from airflow_provider_cdm.client.retry import RetryPolicy
from airflow_provider_cdm.client.rounds import Rounds
from airflow_provider_cdm.client.schedule import Schedule, Urgency, forget
from airflow_provider_cdm.client.waits import Job, Look, Outcome, Page, Round, Sent, Wait

log = logging.getLogger(__name__)

#: Calls under way at a time; half of them at most for jobs that could not be asked last time.
CALLS = 8
#: Seconds until the first look: the task looked before it deferred, and that has to be settled.
_FIRST_LOOK = 5.0
#: Seconds for the look that a deadline asks for.
_LAST_LOOK = 10.0
#: Failures in a row after which only one call at a time probes whether CDM is back.
_SIGNS_OF_OUTAGE = 3
#: Seconds without a look of its own, for a run that listings show active; the second number while
#: they do not say that it is this run.
_MAX_AGE, _DOUBT_AGE = 600.0, 150.0
#: Listings that may be wrong about a job before they are no reason for a look any more.
_TRUST = 2
#: What is done at most in one step, so that no step takes long.
_SLICE = 200

_RETRIES = RetryPolicy(attempts=1_000_000)


class Watch:
    """All waits on one cluster.

    :param cluster_id: the cluster.
    :param flows: of the user who asks.
    :param budget: of that user.
    :param patience: how long it bears that nothing is answered.
    """

    def __init__(
        self, cluster_id: str, flows: CdmFlows, budget: Budget, patience: Patience | None = None
    ) -> None:
        self.cluster_id = cluster_id
        self.jobs: dict[str, Job] = {}
        self.flying = 0
        self.rounds = Rounds()
        self.outage = Outage()
        self._flows, self._budget = flows, budget
        self._random: Callable[[], float] = flows.exchanger.random
        self._patience = patience or Patience()
        self._schedules: dict[Quota, Schedule[Job]] = {
            Quota.STATUS: Schedule(),
            Quota.HISTORY: Schedule(),
        }
        self._deadlines: list[tuple[float, int, Wait]] = []
        self._order = itertools.count()
        self._slots: dict[Quota, float] = {}
        self._suspects = 0
        self._reading = False
        self._given_up: deque[tuple[Wait, errors.CdmError, float]] = deque()
        self._demand = 0.0

    # Who waits

    def join(self, wait: Wait, now: float) -> None:
        """Begin to look for a wait."""
        job = self.jobs.setdefault(wait.job_name, Job(wait.job_name))
        job.waits.append(wait)
        self._refresh(job)
        first = min(_FIRST_LOOK, wait.poll_interval) * self._spread()
        if job.flying:
            job.again = True
        else:
            due = min(now + first, wait.deadline or math.inf, job.due[Urgency.FRESH])
            self._put(job, Urgency.FRESH, due)
        if wait.deadline is not None:
            heapq.heappush(self._deadlines, (wait.deadline, next(self._order), wait))

    def leave(self, wait: Wait) -> None:
        """Stop looking for a wait; nothing happens if it has ended."""
        if wait.over:
            return
        wait.over = True
        job = self.jobs[wait.job_name]
        job.waits.remove(wait)
        self._refresh(job)

    def _end(self, wait: Wait, outcome: Submission | Exception) -> None:
        self.leave(wait)
        wait.end(outcome)

    def _refresh(self, job: Job) -> None:
        known = 60 / job.interval
        before = job.quota
        job.refresh()
        self._demand += 60 / job.interval - known
        if not job.waits:
            forget(job)
            del self.jobs[job.name]
        elif job.quota is not before:
            due = job.due
            forget(job)
            for urgency in Urgency:
                self._put(job, urgency, due[urgency])
