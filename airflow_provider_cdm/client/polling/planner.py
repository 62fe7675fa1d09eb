"""Which call to make next, so that all waits on one cluster end in time and within the quota.

A :class:`Watch` is a plain value: it is told the time, says which call to make, and is told what
came of it. It reads no clock, sends nothing, and sleeps nowhere. Whether a run is over is not its
business either: each wait has a :class:`~airflow_provider_cdm.client.jobs.follower.Follower`, which is
the only judge.
"""

from __future__ import annotations

import logging
import math
from collections import deque

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.call import Quota
from airflow_provider_cdm.client.api.client import CdmFlows
from airflow_provider_cdm.client.api.job_list import JobPage, ListedJob
from airflow_provider_cdm.client.jobs.follower import Patience
from airflow_provider_cdm.client.polling.circuit_breaker import Outage, retry_pause, suspect
from airflow_provider_cdm.client.polling.hint import Hint, hint
from airflow_provider_cdm.client.polling.metered_client import Errand, MeteredFlows, Postponed
from airflow_provider_cdm.client.polling.model import Job, Look, Outcome, Page, Round, Sent, Wait
from airflow_provider_cdm.client.polling.queue import Urgency, forget
from airflow_provider_cdm.client.polling.rate_limit import Budget, Slots
from airflow_provider_cdm.client.polling.registry import SLICE, Roster
from airflow_provider_cdm.client.polling.sweep import Rounds
from airflow_provider_cdm.client.submission import Submission

log = logging.getLogger(__name__)

#: Calls under way at a time; half of them at most for jobs that could not be asked last time.
CALLS = 8
#: Seconds for the look that a deadline asks for.
_LAST_LOOK = 10.0
#: Seconds without a look of its own, for a run of which listings do not say that it is the active
#: one.
_DOUBT_AGE = 150.0
#: Seconds until the next free slot for a look, from which on looks are rather saved.
_QUEUE = 5.0
#: Listings in a row that may be wrong about a job before they are no reason for a look any more.
_TRUST = 2


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
        self.roster = Roster(budget, flows.exchanger.random)
        self.rounds = Rounds()
        self.flying = 0
        self._flows, self._budget = flows, budget
        self._slots = Slots(budget)
        self._random = flows.exchanger.random
        self._outage = Outage(self._random)
        self._patience = patience or Patience()
        self._given_up: deque[tuple[Wait, errors.CdmError, float]] = deque()
        self._set_aside: deque[Job] = deque()
        self._suspects = 0
        self._reading = False

    def join(self, wait: Wait, now: float) -> None:
        """Begin to look for a wait."""
        if not self.roster.jobs:
            # Nothing was asked for a while, so nothing is known either.
            self._outage.over()
        self.roster.join(wait, now)

    def leave(self, wait: Wait) -> None:
        """Stop looking for a wait; nothing happens if it has ended."""
        self.roster.leave(wait)

    def next_call(self, now: float) -> Sent | None:
        """Return the call to make now; to be performed and then given to :meth:`landed`."""
        if self._outage.probing:
            return self._probe(now)
        if self.flying >= CALLS:
            return None
        self._list_due(now)
        for quota in self.roster.schedules:
            if look := self._next_look(quota, now):
                return look
        return self._next_page(now)

    def next_event(self, now: float) -> float:
        """When there is something to do next, epoch seconds; ``inf`` if only a landing can bring
        that about.
        """
        events = [self.roster.deadlines.first()]
        if self._given_up or self._set_aside:
            events.append(now)
        if self._outage.probing:
            job = None if self.flying else suspect(self.roster.jobs.values())
            if job is not None:
                events.append(max(self._outage.probe_at, self._slots.when(job.quota)))
        elif self.flying < CALLS:
            for quota, schedule in self.roster.schedules.items():
                slot = self._slots.when(quota)
                events += [max(due, slot) if due <= now else due for due in schedule.dues()]
            if self.rounds.active is not None and not self._reading:
                events.append(self._slots.when(Quota.LISTING))
        return min(events)

    def tidy(self, now: float) -> None:
        """Do what needs no call; a part of it, if it is much."""
        for _ in range(min(SLICE, len(self._set_aside))):
            job = self._set_aside.popleft()
            if job.waits and not job.flying and job.due[Urgency.ROUTINE] == math.inf:
                self.roster.put(job, Urgency.ROUTINE, now)
        for _ in range(min(SLICE, len(self._given_up))):
            wait, error, lasted = self._given_up.popleft()
            self._end(wait, wait.follower.out_of_sight(error, lasted))
        for wait in self.roster.deadlines.due(now):
            self._at_deadline(wait, now)

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
        listing = bool(self.rounds.lengths) and now >= self.rounds.off_until
        return self.roster.pace(now, self.rounds.pages(0, now) if listing else None)

    def rewind(self, seconds: float) -> None:
        """Have all but the deadlines come some seconds earlier, since the clock was set back."""
        self.roster.rewind(seconds)
        self._outage.probe_at -= seconds
        self.rounds.off_until -= seconds
        self._slots.forget()

    # What to do next

    def _list_due(self, now: float) -> None:
        """Have a listing tell of what is due, which has not to wait for the slot of a look."""
        for schedule in self.roster.schedules.values():
            for urgency in (Urgency.FRESH, Urgency.ROUTINE):
                for _ in range(SLICE):
                    job = schedule.first(urgency, now)
                    if job is None or job.due[Urgency.CONFIRM] <= now or not self._list(job, now):
                        break
                    job.due[Urgency.FRESH] = job.due[Urgency.ROUTINE] = math.inf

    def _next_look(self, quota: Quota, now: float) -> Look | None:
        schedule = self.roster.schedules[quota]
        for _ in range(SLICE):
            if schedule.next_due() > now:
                break
            hurry = schedule.first(Urgency.CONFIRM, now) is not None
            if not self._slots.ready(quota, now, hurry=hurry):
                break
            turn = schedule.pop(now)
            if turn is None:
                break
            job, urgency = turn
            if job.quota is not quota:
                # It moved to the other schedule, and was due here as well.
                self.roster.put(job, urgency, now)
            elif job.failures and self._suspects >= CALLS // 2:
                self.roster.put(job, Urgency.ROUTINE, now + 1)
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
            jobs = self.roster.jobs.values()
            crowded = self._budget.lanes[Quota.STATUS].next_slot(now) > now + _QUEUE
            worth = self.rounds.worth(job, jobs, now, crowded)
            if not worth:
                return False
            self.rounds.begin(job.type, worth, jobs, now)
        if self.rounds.active is not None:
            self.rounds.active.rest.append(job)
        self.roster.put_age(job, now)
        return True

    def _next_page(self, now: float) -> Page | None:
        one = self.rounds.active
        if one is None or self._reading or not self._slots.ready(Quota.LISTING, now):
            return None
        self._reading = True
        self.flying += 1
        return Page(one, self.cluster_id, self._metered(Quota.LISTING))

    def _probe(self, now: float) -> Look | None:
        job = suspect(self.roster.jobs.values())
        if job is None or self.flying or now < self._outage.probe_at:
            return None
        return self._look(job, Urgency.CONFIRM, now) if self._slots.ready(job.quota, now) else None

    def _metered(self, quota: Quota) -> MeteredFlows:
        errand = Errand(paid=(quota, self._slots.use(quota)))
        return MeteredFlows.of(self._flows, self._budget, errand)

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
        self.roster.refresh(job)
        if postponed := [one.until for one in look.outcomes if isinstance(one, Postponed)]:
            until = max(now, *postponed)
            self._outage.probe_at = max(self._outage.probe_at, until)
            self.roster.put(job, min(look.urgency, Urgency.FRESH), until)
        elif errand.trouble is not None:
            job.failures += 1
            pause = retry_pause(errand.trouble, job.failures, self._random)
            self.roster.put(job, Urgency.ROUTINE, now + pause)
        else:
            job.seen(now)
            self.roster.put_routine(job, now)
            self.roster.put_age(job, now)
        if job.again:
            job.again = False
            self.roster.put_fresh(job, now)

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
        if isinstance(outcome, Postponed) and page.errand.trouble is None:
            return
        if isinstance(outcome, JobPage):
            for listed in outcome.jobs:
                if (job := self.roster.jobs.get(listed.name)) is not None:
                    self._take_hint(job, listed, page.round, now)
            if self.rounds.read(outcome, now):
                return
        else:
            # Also where its quota is used up: asking one by one draws on another.
            problem = page.errand.trouble or outcome or RuntimeError("there is no page")
            self.rounds.failed(problem, now)
        self._set_aside.extend(self.rounds.end(self.roster.jobs.values()))

    def _take_hint(self, job: Job, listed: ListedJob, one: Round, now: float) -> None:
        one.found = True
        job.type, job.listed_at = one.type, now
        if not job.listable:
            return
        followers = [wait.follower for wait in job.waits]
        hints = {hint(each.run, each.created_from, listed) for each in followers}
        if Hint.LOOK not in hints:
            job.misled = 0
        elif job.misled < _TRUST:
            job.hinted = all(each.run.known for each in followers)
            self.roster.put(job, Urgency.CONFIRM, min(now, job.due[Urgency.CONFIRM]))
            return
        job.due[Urgency.FRESH] = math.inf
        self.roster.put_routine(job, now)
        if hints != {Hint.OURS}:
            self.roster.put_age(job, now, max(_DOUBT_AGE, 5 * job.interval))

    def _troubled(self, error: errors.CdmError, now: float) -> None:
        before, lasted = self._outage.probing, self._outage.failed(error, now)
        jobs = self.roster.jobs.values()
        if lasted >= self._patience.outage:
            for wait in (wait for job in jobs for wait in job.waits):
                # Who came later has the same patience.
                own = min(lasted, now - wait.joined_at)
                if own >= self._patience.outage:
                    self._given_up.append((wait, error, own))
        elif self._outage.probing and not before:
            log.warning(
                "Cluster %s cannot be asked; %d jobs are waited for, and that goes on for up to"
                " %.0f s: %s",
                *(self.cluster_id, len(jobs), self._patience.outage, error),
            )

    def _at_deadline(self, wait: Wait, now: float) -> None:
        job = self.roster.jobs[wait.job_name]
        if wait.asked_last and not job.flying:
            self._end(wait, wait.follower.timed_out(wait.limit))
            return
        # Its run may have ended since the last look, so there is one more; it must not take long.
        wait.asked_last = True
        self.roster.deadlines.add(wait, now + _LAST_LOOK)
        if not job.flying:
            self.roster.put(job, Urgency.CONFIRM, now)

    def _end(self, wait: Wait, outcome: Submission | Exception) -> None:
        if not wait.over:
            self.roster.leave(wait)
            wait.end(outcome)
