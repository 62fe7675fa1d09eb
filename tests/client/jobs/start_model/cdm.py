"""The model of CDM: clusters with jobs and runs, a clock, other people, and random faults."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: The job that everybody uses; all others belong to a task.
JOB = "j"
#: The cluster, and the one that some tasks name as stand-by.
CLUSTER, STANDBY = "c", "s"
_HOUR = 3600.0
_DAY = 24 * _HOUR
#: Seconds by which a run may be older than a start that it is mistaken for: a documented limit.
_TOLERANCE = 3.0


class Owner(NamedTuple):
    """Who a start is from: a task, the operator that it executes, and how often it was cleared."""

    task: int
    operator: int
    generation: int


@dataclass(eq=False)
class Run:
    """A run; ``owner``, ``arguments`` and the rest after them are what the protocol cannot see.

    :param created: by the clock of CDM's records.
    :param ends: by the clock of the model, as all other times.
    :param arguments: variables and definition that it has.
    :param noted: whether a journal has had it.
    :param hidden: whether CDM's history has lost it, for a moment or for good, while no journal had
        it: nothing can be done about that, which is a documented limit.
    :param overlooked: whether a history has lacked it, whoever knows it.
    """

    job: str
    number: int
    created: float
    ends: float
    outcome: str
    owner: Owner | None
    arguments: str = ""
    auto: bool = False
    began: float = 0.0
    noted: bool = False
    hidden: bool = False
    overlooked: bool = False

    def status(self, now: float) -> str:
        return self.outcome if now >= self.ends else "RUNNING"

    @property
    def created_ms(self) -> int:
        return int(self.created * 1000)


@dataclass
class Job:
    """A job, its definition (``None`` for the one that everybody uses), and its runs in order."""

    definition: Mapping[str, Any] | None = None
    runs: list[Run] = field(default_factory=list)

    def active(self, now: float) -> Run | None:
        newest = self.runs[-1] if self.runs else None
        return newest if newest and now < newest.ends else None


@dataclass
class Cdm:
    """CDM in one schedule.

    :param seen: number of times that each event occurred, over all schedules.
    :param standby: whether there is a second cluster with the same job, and clusters stop at times.
    :param calm: whether nothing goes wrong any more.
    :param stopped: clusters that are stopped, and since when.
    :param mistaken: owners that may have taken somebody else's run for theirs, which is a
        documented limit while the effect of their start is unknown.
    :param unknown: owners with a start whose effect was unknown at some time, and when the attempt
        that sent it began.
    :param blind: owners that had to start without a baseline.
    :param began: when the last attempt of each owner began.
    """

    seed: int
    seen: Counter[str]
    standby: bool = False
    calm: bool = False
    stopped: dict[str, float] = field(default_factory=dict)
    now: float = 1_000_000_000.0
    trace: list[tuple[float, str, object]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=lambda: {JOB: Job()})
    all_runs: list[Run] = field(default_factory=list)
    late: list[tuple[float, Owner, str, Mapping[str, Any]]] = field(default_factory=list)
    starts: Counter[Owner] = field(default_factory=Counter)
    mistaken: set[Owner] = field(default_factory=set)
    unknown: dict[Owner, float] = field(default_factory=dict)
    blind: set[Owner] = field(default_factory=set)
    began: dict[Owner, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = self.rng = random.Random(self.seed)
        #: Where the number of a run is shown; ``bare``: a start is answered with a status alone.
        self.ids = rng.choice(["present", "present", "absent-in-start", "absent", "bare"])
        # Coarse dates are used only if numbers distinguish the runs.
        self.coarse = self.ids != "absent" and rng.random() < 0.3
        self.server_ahead = rng.uniform(-0.8, 0.8)
        self.tells_time = rng.random() < 0.9
        #: Seconds by which the dates in CDM's records are ahead of the dates of its answers.
        self.records_ahead = rng.choice([0.0] * 6 + [-65.0, 65.0, 65.0, -3 * _HOUR, 3 * _HOUR])
        self.fault_rate = rng.choice([0.0, 0.1, 0.3, 0.5])
        self.stale_rate = rng.choice([0.0, 0.0, 0.1, 0.3])
        self.foreign_rate = rng.choice([0.0, 0.0, 0.02, 0.08])
        self.rebuild_rate = rng.choice([0.0, 0.0, 0.005])
        #: How a stopped cluster answers.
        self.stopped_answer = 0
        if self.standby:
            self.stopped_answer = rng.choice([400, 503, 404])
            self.jobs[job_in(STANDBY)] = Job()
        self.next_number = 1
        self._past_runs()

    def _past_runs(self) -> None:
        """Add runs of the last days."""
        begin = self.now
        ages = [self.rng.uniform(0.1, 10) * _DAY for _ in range(self.rng.choice([0, 1, 3, 12]))]
        for age in sorted(ages, reverse=True):
            self.now = begin - age
            for name in self.public_jobs:
                self.start(name, None)
        self.now = begin

    @property
    def public_jobs(self) -> list[str]:
        """Names of the jobs that everybody uses, as they are kept here."""
        return [JOB, job_in(STANDBY)] if self.standby else [JOB]

    def doubt(self, owner: Owner) -> None:
        """Note that the effect of a start may be unknown, or known and not noted."""
        self.unknown.setdefault(owner, self.began[owner])

    def note(self, what: str, detail: object = "") -> None:
        self.seen[what] += 1
        self.trace.append((self.now, what, detail))

    def pass_time(self, seconds: float) -> None:
        """Let time pass; late effects and the acts of other people happen meanwhile."""
        end = self.now + seconds
        for entry in sorted(self.late, key=lambda entry: entry[0]):
            at, owner, job, variables = entry
            if at <= end:
                self.now = max(self.now, at)
                self.late.remove(entry)
                began = self.start(job, owner, variables)
                self.note("late effect", "began" if began else "refused")
        self.now = max(self.now, end)
        if self.calm:
            return
        if self.rng.random() < self.foreign_rate:
            auto = self.rng.random() < 0.5
            name = self.rng.choice(self.public_jobs) if self.standby else JOB
            if run := self.start(name, None, auto=auto):
                self.note("scheduler's run" if auto else "somebody's run", run)
        if self.standby and self.rng.random() < 0.04:
            self._stop_or_start_cluster()
        if self.rng.random() < self.rebuild_rate:
            self._rebuild()

    def _stop_or_start_cluster(self) -> None:
        """Stop a cluster, which ends what runs in it, or start one that is stopped."""
        cluster = self.rng.choice([CLUSTER, CLUSTER, STANDBY])
        if self.stopped.pop(cluster, None) is not None:
            self.note("cluster started", cluster)
            return
        self.note("cluster stopped", cluster)
        self.stopped[cluster] = self.now
        for name, job in self.jobs.items():
            run = job.active(self.now)
            if run is not None and cluster_of(name) == cluster:
                run.ends, run.outcome = self.now, "FAILED"

    def _rebuild(self) -> None:
        """Make the cluster anew: the jobs are as before, without runs, and numbers begin again."""
        self.note("cluster rebuilt")
        self.next_number = 1
        self.now += 60
        for job in self.jobs.values():
            self.hide(job.runs)
            job.runs.clear()

    def hide(self, runs: list[Run]) -> None:
        """Note that runs are not shown where no journal has them."""
        for run in runs:
            run.overlooked = True
            run.hidden |= not run.noted

    def start(
        self,
        name: str,
        owner: Owner | None,
        variables: Mapping[str, Any] | None = None,
        *,
        auto: bool = False,
    ) -> Run | None:
        """Start a job unless it is running or does not exist."""
        job = self.jobs.get(name)
        if job is None or job.active(self.now) or cluster_of(name) in self.stopped:
            return None
        created = self.now + self.server_ahead + self.records_ahead
        run = Run(
            name,
            self.next_number,
            float(int(created)) if self.coarse else created,
            self.now + self._length(),
            self.rng.choices(["SUCCEEDED", "FAILED", "STOPPED"], [6, 2, 1])[0],
            owner,
            arguments_of(variables or {}, job.definition),
            auto,
            self.now,
        )
        self.next_number += 1
        job.runs.append(run)
        self.all_runs.append(run)
        return run

    def _length(self) -> float:
        """Return how long a run takes; those that only dates distinguish take longer than that."""
        shortest = {"present": 0.3, "absent": 20.0}.get(self.ids, 3.0 if self.coarse else 0.3)
        return max(shortest, self.rng.choice([0.3, 3, 20, 200 if self.ids != "absent" else 20]))

    def find(self, job: str, key: Mapping[str, Any]) -> Run | None:
        """Return the run of a job with the number and creation date of a record or result."""
        number, created = key["submission_id"], key["creation_date"]
        for run in reversed(self.all_runs):
            if (
                run.job == job
                and number in (None, run.number)
                and created in (None, run.created_ms)
            ):
                return run
        return None

    @property
    def misdated(self) -> bool:
        """Whether the dates of runs say little about when they began."""
        return bool(self.records_ahead) or not self.tells_time

    def is_blind(self, owner: Owner) -> bool:
        """Return whether nothing tells an owner which runs are older than its start."""
        return self.misdated and owner in self.blind

    def take(self, owner: Owner, run: Run) -> bool:
        """Return whether an owner may have mistaken somebody's run for its own, and note it.

        That is a limit for runs that began while a start of the owner was not settled.
        """
        # A start of an earlier generation may be open as well.
        since = [at for other, at in self.unknown.items() if other[:2] == owner[:2]]
        if self.ids != "present":
            since.append(self.began[owner])
        # Where no baseline shows which runs are older, dates do, so they have to be right.
        excused = self.is_blind(owner) or (self.misdated and run.overlooked)
        too_old = run.began < min(since, default=0) - _TOLERANCE and not excused
        if run.auto or not since or too_old:
            return False
        self.mistaken.add(owner)
        self.note("mistook another's run for ours")
        return True


def job_in(cluster: str, name: str = JOB) -> str:
    """Return the name under which a job of a cluster is kept."""
    return name if cluster == CLUSTER else f"{cluster}:{name}"


def cluster_of(name: str) -> str:
    """Return the cluster of a job, by the name under which it is kept."""
    return STANDBY if name.startswith(f"{STANDBY}:") else CLUSTER


def arguments_of(variables: Mapping[str, Any], definition: Mapping[str, Any] | None) -> str:
    """Return variables and definition as a text to compare."""
    return json.dumps([variables, definition], sort_keys=True)
