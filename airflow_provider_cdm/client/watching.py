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

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.budget import Budget, Quota, Slots
from airflow_provider_cdm.client.flows import CdmFlows
from airflow_provider_cdm.client.following import Patience
from airflow_provider_cdm.client.listing import Hint, JobPage, ListedJob, hint
from airflow_provider_cdm.client.metering import Errand, MeteredFlows, Postponed
from airflow_provider_cdm.client.models import Submission
from airflow_provider_cdm.client.outage import Outage, retry_pause, suspect
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
#: Seconds without a look of its own, for a run that listings show active: people want to read how
#: it gets on, so a quarter of the quota is for that. The third number is the most for a run of
#: which listings do not say that it is the active one.
_MIN_AGE, _MAX_AGE, _DOUBT_AGE = 60.0, 600.0, 150.0
#: Listings that may be wrong about a job before they are no reason for a look any more.
_TRUST = 2
#: What is done at most in one step, so that no step takes long.
_SLICE = 200


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
        self._flows, self._budget = flows, budget
        self._slots = Slots(budget)
        self._random: Callable[[], float] = flows.exchanger.random
        self._outage = Outage(self._random)
        self._patience = patience or Patience()
        self._schedules: dict[Quota, Schedule[Job]] = {
            Quota.STATUS: Schedule(),
            Quota.HISTORY: Schedule(),
        }
        self._deadlines: list[tuple[float, int, Wait]] = []
        self._order = itertools.count()
        self._given_up: deque[tuple[Wait, errors.CdmError, float]] = deque()
        self._set_aside: deque[Job] = deque()
        self._suspects = 0
        self._reading = False
        self._demand = 0.0

    def join(self, wait: Wait, now: float) -> None:
        """Begin to look for a wait."""
        job = self.jobs.get(wait.job_name)
        if job is None:
            job = self.jobs[wait.job_name] = Job(wait.job_name, joined_at=now, seen_at=now)
        wait.joined_at = now
        job.waits.append(wait)
        self._refresh(job)
        job.again = job.flying
        if not job.flying:
            self._put_fresh(job, now)
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

    def next_call(self, now: float) -> Sent | None:
        """Return the call to make now; to be performed and then given to :meth:`landed`."""
        if self._outage.probing:
            return self._probe(now)
        if self.flying >= CALLS:
            return None
        for quota in self._schedules:
            if look := self._next_look(quota, now):
                return look
        return self._next_page(now)

    def next_event(self, now: float) -> float:
        """When there is something to do next, epoch seconds; ``inf`` if only a landing can bring
        that about.
        """
        events = [self._deadlines[0][0]] if self._deadlines else []
        if self._given_up or self._set_aside:
            events.append(now)
        if self._outage.probing:
            if not self.flying and self.jobs:
                events.append(max(self._outage.probe_at, self._probe_slot()))
        elif self.flying < CALLS:
            for quota, schedule in self._schedules.items():
                due = schedule.next_due()
                events.append(max(due, self._slots.when(quota)) if due <= now else due)
            if self.rounds.active is not None and not self._reading:
                events.append(self._slots.when(Quota.LISTING))
        return min(events, default=math.inf)

    def tidy(self, now: float) -> None:
        """Do what needs no call; a part of it, if it is much."""
        for _ in range(_SLICE):
            if not self._set_aside:
                break
            job = self._set_aside.popleft()
            if job.waits and not job.flying and job.due[Urgency.ROUTINE] == math.inf:
                self._put(job, Urgency.ROUTINE, now)
        for _ in range(_SLICE):
            if not self._given_up:
                break
            wait, error, lasted = self._given_up.popleft()
            if not wait.over:
                self._end(wait, wait.follower.out_of_sight(error, lasted))
        for _ in range(_SLICE):
            if not self._deadlines or self._deadlines[0][0] > now:
                break
            self._at_deadline(heapq.heappop(self._deadlines)[2], now)

    def landed(self, sent: Sent, now: float) -> None:
        """Take note of what came of a call."""
        self.flying -= 1
        errand = sent.errand
        if errand.paid is not None:
            quota, slot = errand.paid
            self._budget.lanes[quota].give_back(slot)
        if errand.answered:
            self._outage.over()
        elif errand.trouble is not None:
            self._troubled(errand.trouble, now)
        if isinstance(sent, Look):
            self._land_look(sent, now)
        else:
            self._land_page(sent, now)

    def pace(self, now: float) -> tuple[float, float]:
        """Seconds between two looks at a run: what the quota allows, and what is wished."""
        jobs = len(self.jobs)
        if not jobs or self._demand <= 0:
            return 0.0, 0.0
        wish = 60 * jobs / self._demand
        allowed = 60 * jobs / self._budget.lanes[Quota.STATUS].pace(now)
        if self.rounds.lengths and now >= self.rounds.off_until:
            listing = 60 * self.rounds.pages(0, now) / self._budget.lanes[Quota.LISTING].pace(now)
            allowed = min(allowed, listing)
        return max(wish, allowed), wish

    def rewind(self, seconds: float) -> None:
        """Have everything due some seconds earlier, since the clock was set back; no deadline."""
        for job in self.jobs.values():
            job.shift(-seconds)
        for quota, schedule in self._schedules.items():
            schedule.rebuild(job for job in self.jobs.values() if job.quota is quota)
        self._outage.probe_at -= seconds
        self.rounds.off_until -= seconds
        self._slots.forget()

    # What to do next

    def _next_look(self, quota: Quota, now: float) -> Look | None:
        schedule = self._schedules[quota]
        for _ in range(_SLICE):
            if schedule.next_due() > now or not self._slots.ready(quota, now):
                break
            turn = schedule.pop(now)
            if turn is None:
                break
            job, urgency = turn
            if job.quota is not quota:
                # It moved to the other schedule, and was due here as well.
                self._put(job, urgency, now)
            elif job.failures and self._suspects >= CALLS // 2:
                self._put(job, Urgency.ROUTINE, now + 1)
            elif urgency not in (Urgency.FRESH, Urgency.ROUTINE) or not self._list(job, now):
                return self._look(job, urgency, now)
        return None

    def _look(self, job: Job, urgency: Urgency, now: float) -> Look:
        forget(job)
        job.flying, job.tried_at = True, now
        self.flying += 1
        self._suspects += bool(job.failures)
        # The slot at hand is for the first call, and who knows no run yet begins with the history.
        waits = sorted(job.waits, key=lambda wait: wait.follower.run.known)
        return Look(job, urgency, self._metered(job.quota), waits)

    def _list(self, job: Job, now: float) -> bool:
        """Have a listing tell of a job that is due, if that is cheaper."""
        if not self.rounds.covers(job):
            worth = self.rounds.worth(job, self.jobs.values(), now)
            if not worth:
                return False
            self.rounds.begin(job.type, worth, self.jobs.values(), now)
        if self.rounds.active is not None:
            self.rounds.active.rest.append(job)
        self._put(job, Urgency.AGE, job.seen_at + self._age(now))
        return True

    def _next_page(self, now: float) -> Page | None:
        one = self.rounds.active
        if one is None or self._reading or not self._slots.ready(Quota.LISTING, now):
            return None
        self._reading = True
        self.flying += 1
        return Page(one, self.cluster_id, self._metered(Quota.LISTING))

    def _probe(self, now: float) -> Look | None:
        job = suspect(self.jobs.values())
        if job is None or self.flying or now < self._outage.probe_at:
            return None
        return self._look(job, Urgency.CONFIRM, now) if self._slots.ready(job.quota, now) else None

    # What came of it

    def _land_look(self, look: Look, now: float) -> None:
        job, errand = look.job, look.errand
        self._suspects -= bool(job.failures)
        job.flying = False
        for wait, outcome in zip(look.waits, look.outcomes, strict=True):
            if not wait.over:
                self._settle(wait, outcome, now)
        if not job.waits:
            return
        self._refresh(job)
        postponed = [one.until for one in look.outcomes if isinstance(one, Postponed)]
        if postponed:
            until = max(now, *postponed)
            self._outage.probe_at = max(self._outage.probe_at, until)
            self._put(job, min(look.urgency, Urgency.FRESH), until)
        elif errand.trouble is not None:
            job.failures += 1
            pause = retry_pause(errand.trouble, job.failures, self._random)
            self._put(job, Urgency.ROUTINE, now + pause)
        else:
            job.failures, job.seen_at = 0, now
            job.misled += job.hinted
            job.hinted = False
            self._put(job, Urgency.ROUTINE, now + self._gap(job, now))
            self._put(job, Urgency.AGE, now + self._age(now))
        if job.again:
            job.again = False
            self._put_fresh(job, now)

    def _settle(self, wait: Wait, outcome: Outcome, now: float) -> None:
        late = wait.deadline is not None and now >= wait.deadline
        if isinstance(outcome, Postponed):
            if late:
                self._at_deadline(wait, now)
        elif isinstance(outcome, Exception) or (outcome is not None and outcome.ended):
            self._end(wait, outcome)
        elif late:
            self._end(wait, wait.follower.timed_out(wait.limit))

    def _land_page(self, page: Page, now: float) -> None:
        self._reading = False
        outcome = page.outcome
        if page.round is not self.rounds.active or isinstance(outcome, Postponed):
            return
        if isinstance(outcome, JobPage):
            for listed in outcome.jobs:
                if (job := self.jobs.get(listed.name)) is not None:
                    self._take_hint(job, listed, page.round, now)
            if self.rounds.read(outcome, now):
                return
        else:
            self.rounds.failed(outcome or RuntimeError("no page"), now)
        self._set_aside.extend(self.rounds.end(self.jobs.values()))

    def _take_hint(self, job: Job, listed: ListedJob, one: Round, now: float) -> None:
        one.found = True
        job.type, job.listed_at = one.type, now
        if not job.listable:
            return
        followers = [wait.follower for wait in job.waits]
        hints = {hint(each.run, each.created_from, listed) for each in followers}
        if Hint.LOOK in hints and job.misled < _TRUST:
            job.hinted = all(each.run.known for each in followers)
            self._put(job, Urgency.CONFIRM, min(now, job.due[Urgency.CONFIRM]))
            return
        self._put(job, Urgency.ROUTINE, now + self._gap(job, now))
        job.due[Urgency.FRESH] = math.inf
        if hints != {Hint.OURS}:
            soon = job.seen_at + max(_DOUBT_AGE, 5 * job.interval)
            self._put(job, Urgency.AGE, max(now, min(job.due[Urgency.AGE], soon)))

    def _troubled(self, error: errors.CdmError, now: float) -> None:
        before = self._outage.probing
        lasted = self._outage.failed(error, now)
        if lasted >= self._patience.outage:
            for wait in (wait for job in self.jobs.values() for wait in job.waits):
                # Who came later has the same patience.
                own = min(lasted, now - wait.joined_at)
                if own >= self._patience.outage:
                    self._given_up.append((wait, error, own))
        elif self._outage.probing and not before:
            log.warning(
                "Cluster %s cannot be asked; %d jobs are waited for, and that goes on for up to"
                " %.0f s: %s",
                *(self.cluster_id, len(self.jobs), self._patience.outage, error),
            )

    def _at_deadline(self, wait: Wait, now: float) -> None:
        if wait.over:
            return
        job = self.jobs[wait.job_name]
        if wait.asked_last and not job.flying:
            self._end(wait, wait.follower.timed_out(wait.limit))
            return
        # Its run may have ended since the last look, so there is one more; it must not take long.
        wait.asked_last = True
        heapq.heappush(self._deadlines, (now + _LAST_LOOK, next(self._order), wait))
        if not job.flying:
            self._put(job, Urgency.CONFIRM, now)

    # Small steps

    def _end(self, wait: Wait, outcome: Submission | Exception) -> None:
        self.leave(wait)
        wait.end(outcome)

    def _refresh(self, job: Job) -> None:
        """Take note that waits of a job came, went, or found their run."""
        before, quota = 60 / job.interval, job.quota
        job.refresh()
        self._demand += 60 / job.interval - before
        if not job.waits:
            forget(job)
            del self.jobs[job.name]
            if not self.jobs:
                # Nothing will be asked, so nothing will tell whether it goes on.
                self._outage.over()
        elif job.quota is not quota:
            for urgency in Urgency:
                self._put(job, urgency, job.due[urgency])

    def _put(self, job: Job, urgency: Urgency, due: float) -> None:
        self._schedules[job.quota].put(job, urgency, due)

    def _put_fresh(self, job: Job, now: float) -> None:
        first = now + min(_FIRST_LOOK, job.interval) * self._spread()
        limits = [wait.deadline for wait in job.waits if wait.deadline is not None]
        self._put(job, Urgency.FRESH, min(first, job.due[Urgency.FRESH], *limits))

    def _gap(self, job: Job, now: float) -> float:
        """Seconds until the next look; a young run is looked at sooner, if that is cheap."""
        gap = job.interval
        if self._demand <= self._budget.lanes[Quota.STATUS].pace(now) / 2:
            gap = min(gap, max(_FIRST_LOOK, job.age(now) / 2))
        return gap * self._spread()

    def _age(self, now: float) -> float:
        """Seconds for which listings may stand for looks."""
        affordable = len(self.jobs) * 4 * 60 / self._budget.lanes[Quota.STATUS].pace(now)
        return min(_MAX_AGE, max(_MIN_AGE, affordable))

    def _spread(self) -> float:
        return 0.9 + 0.2 * self._random()

    def _metered(self, quota: Quota) -> MeteredFlows:
        errand = Errand(paid=(quota, self._slots.use(quota)))
        return MeteredFlows.of(self._flows, self._budget, errand)

    def _probe_slot(self) -> float:
        job = suspect(self.jobs.values())
        return self._slots.when(job.quota) if job is not None else 0.0
