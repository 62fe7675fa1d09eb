"""A fake cluster with many jobs and many waits, in virtual time, without sockets or threads."""

from __future__ import annotations

import heapq
import itertools
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.http.retry import Exchanger, RetryPolicy
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.polling.model import Wait
from airflow_provider_cdm.client.polling.planner import PollPlanner
from airflow_provider_cdm.client.polling.polls import Poll
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.sansio import Offload, Request, Response, Sleep, TransportError
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from airflow_provider_cdm.client.submission import RunRef, Submission

#: When virtual time begins, epoch seconds.
BEGIN = 1_735_787_045.0
ENDPOINT = "https://cdm.example"
#: Minutes for which others make calls.
_FOREIGN_MINUTES = 90
TOKEN = {"token": {"expires_at": "2099-01-01T00:00:00Z"}}


@dataclass
class FakeRun:
    """One run of a fake job; times are in seconds since the begin."""

    number: int
    created: float
    ended: float
    status: str = "SUCCEEDED"

    def to_wire(self, now: float, job_name: str) -> dict[str, Any]:
        return {
            "submission-id": self.number,
            "job-name": job_name,
            "creation-date": self.created_ms,
            "status": self.status if now >= self.ended else "RUNNING",
        }

    @property
    def created_ms(self) -> int:
        return int((BEGIN + self.created) * 1000)


@dataclass
class FakeJob:
    """A job; its ``runs`` are in order and do not overlap.

    :param deleted: when the job is deleted, seconds since the begin.
    :param listed: how listings show the job: ``correct``, ``undated``, ``delayed`` (by a minute),
        ``inactive`` (always), ``hidden``.
    :param fault: returns what the status call answers instead at some time; ``None`` for no fault.
    :param cluster: cluster whose listings show the job; all of them by default.
    """

    name: str
    runs: list[FakeRun]
    type: str = "NORMAL_JOB"
    deleted: float = float("inf")
    listed: str = "correct"
    fault: Callable[[float], Response | TransportError | None] = lambda _: None
    cluster: str | None = None

    def latest_run(self, now: float) -> FakeRun | None:
        return max((run for run in self.runs if run.created <= now), key=_number, default=None)

    def list_entry(self, now: float) -> dict[str, Any]:
        run = self.latest_run(now - 60 if self.listed == "delayed" else now)
        if run is None:
            return {"name": self.name, "status": "NEW"}
        entry = {"name": self.name, "status": run.to_wire(now, "")["status"]}
        if self.listed == "inactive":
            entry["status"] = "FAILED"
        if self.listed != "undated":
            entry["execute_create_date"] = run.created_ms
        return entry


def _number(run: FakeRun) -> int:
    return run.number


@dataclass
class FakeAccount:
    """A user of the fake cluster.

    :param password: what IAM accepts; tokens that another password got are refused.
    :param held: what the user's connection holds.
    :param calls: times of the user's calls by kind, in seconds since the begin.
    """

    name: str
    password: str = "p"
    held: str = "p"
    calls: dict[str, list[float]] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """What the connection of the user says."""
        credentials = PasswordCredentials(self.name, self.held, "d")
        return Settings(ENDPOINT, ENDPOINT, credentials, project_id="p", conn_id=self.name)

    @property
    def token(self) -> str:
        return f"{self.name}-{self.password}"


@dataclass
class FakeCluster:
    """CDM for one cluster, or several of a user; times are in seconds since the begin.

    :param quota: calls of one kind in any minute; further calls get 429.
    :param fault: returns what a kind of call answers instead at some time; ``None`` for no fault.
    :param latency: returns how many seconds a kind of call takes at some time.
    :param foreign_calls: calls of each kind per minute that others make, for an hour and a half.
    :param other_jobs: names of the jobs that nobody waits for, without a number, and how many each
        cluster has.
    :param accounts: the users, by name.
    :param asked: cluster of the last call.
    :param calls: times of all calls by kind.
    :param throttled: number of calls by kind that got 429.
    :param answered: times of answered status calls by job.
    :param failed: times of calls without a usable answer by job.
    :param elapsed: seconds that calls have taken since the last poll began.
    """

    jobs: dict[str, FakeJob] = field(default_factory=dict)
    quota: float = float("inf")
    now: float = 0.0
    fault: Callable[[str, float], Response | TransportError | None] = lambda _, __: None
    latency: Callable[[str, float], float] = lambda _, __: 0.1
    foreign_calls: float = 0.0
    other_jobs: tuple[str, int] = "other_", 0
    accounts: dict[str, FakeAccount] = field(default_factory=dict)
    asked: str = ""
    calls: dict[str, list[float]] = field(
        default_factory=lambda: {"status": [], "history": [], "list": []}
    )
    throttled: Counter[str] = field(default_factory=Counter)
    answered: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, list[float]] = field(default_factory=dict)
    all_answered: list[float] = field(default_factory=list)
    all_failed: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    _minute: dict[str, deque[float]] = field(default_factory=dict)
    _deleted_from: float = float("inf")
    _foreign_made: Counter[str] = field(default_factory=Counter)
    _listed: dict[tuple[str, ...], list[FakeJob]] = field(default_factory=dict)

    def add(self, job: FakeJob) -> None:
        self.jobs[job.name] = job
        self._deleted_from = min(self._deleted_from, job.deleted)
        self._listed.clear()

    def handle(self, request: Request) -> Response | TransportError:
        if request.url.endswith("/tokens?nocatalog=true"):
            return self._issue_token(json.loads(request.body or b""))
        parts = urlsplit(request.url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        kind, name = _kind_and_job(parts.path, query)
        self.asked = parts.path.split("/clusters/")[1].split("/")[0]
        self.calls[kind].append(self.now)
        token = request.headers["X-Auth-Token"]
        account = self.accounts[token.partition("-")[0]]
        account.calls.setdefault(kind, []).append(self.now)
        self.elapsed += self.latency(kind, self.now)
        if token == account.token:
            answer = self._answer(kind, name, query)
        else:
            answer = Response(401, {}, b'{"error_code": "APIGW.0301"}')
        if isinstance(answer, Response) and answer.status < 429 and answer.body[:1] == b"{":
            self.all_answered.append(self.now)
            if kind == "status":
                self.answered.setdefault(name, []).append(self.now)
        else:
            self.failed.setdefault(name, []).append(self.now)
            self.all_failed.append(self.now)
        return answer

    def _issue_token(self, content: Any) -> Response:
        user = content["auth"]["identity"]["password"]["user"]
        account = self.accounts[user["name"]]
        if user["password"] != account.password:
            return Response(401, {}, b'{"error": {"code": 401, "message": "wrong password"}}')
        return Response(201, {"x-subject-token": account.token}, json.dumps(TOKEN).encode())

    def _answer(self, kind: str, name: str, query: dict[str, str]) -> Response | TransportError:
        if not self._count_call(kind):
            self.throttled[kind] += 1
            return Response(429)
        if (fault := self.fault(kind, self.now)) is not None:
            return fault
        if kind == "list":
            return self._list(query)
        job = self.jobs.get(name)
        if job is None or job.deleted <= self.now:
            body = {"errCode": "Cdm.0054", "externalMessage": "no such job"}
            return Response(400, {}, json.dumps(body).encode())
        if (fault := job.fault(self.now)) is not None:
            return fault
        created = [run for run in job.runs if run.created <= self.now]
        newest_first = sorted(created, key=_number, reverse=True)
        if kind == "history":
            submissions = [run.to_wire(self.now, name) for run in newest_first[:10]]
            return _json({"submissions": submissions, "total": len(created)})
        if not newest_first:
            return _json({"submissions": [{"status": "NEVER_EXECUTED"}]})
        return _json({"submissions": [newest_first[0].to_wire(self.now, name)]})

    def _count_call(self, kind: str) -> bool:
        """Count a call against the quota; return whether the quota allows it."""
        if self.quota == float("inf"):
            return True
        # The foreign calls since the last call are counted now: as events of the simulation of
        # their own they would wake all planners, and most steps would be theirs.
        while (made := self._foreign_made[kind]) < self.foreign_calls * _FOREIGN_MINUTES:
            if (at := made * 60 / self.foreign_calls) > self.now:
                break
            self._foreign_made[kind] += 1
            self._use_quota(kind, at)
        return self._use_quota(kind, self.now)

    def _use_quota(self, kind: str, at: float) -> bool:
        minute = self._minute.setdefault(kind, deque())
        while minute and minute[0] <= at - 60:
            minute.popleft()
        if len(minute) >= self.quota:
            return False
        minute.append(at)
        return True

    def _list(self, query: dict[str, str]) -> Response:
        job_type, name_filter = query["jobType"], query.get("filter", "")
        key = job_type, name_filter, self.asked
        if key not in self._listed:
            self._listed[key] = [
                job
                for job in self.jobs.values()
                if job.type == job_type and job.listed != "hidden" and name_filter in job.name
                if job.cluster in (None, self.asked)
            ]
        jobs = self._listed[key]
        if self._deleted_from <= self.now:
            jobs = [job for job in jobs if job.deleted > self.now]
        size = int(query["page_size"])
        first = (int(query["page_no"]) - 1) * size
        page = [job.list_entry(self.now) for job in jobs[first : first + size]]
        other_name, others = self.other_jobs
        others *= name_filter in other_name
        numbers = range(max(0, first - len(jobs)), min(others, first + size - len(jobs)))
        page += [{"name": f"{other_name}{number}", "status": "NEW"} for number in numbers]
        return _json({"total": len(jobs) + others, "jobs": page})


def _kind_and_job(path: str, query: dict[str, str]) -> tuple[str, str]:
    if path.endswith("/submissions"):
        return "history", query["jname"]
    if path.endswith("/job/all"):
        return "list", ""
    match = re.search(r"/job/([^/]+)/status$", path)
    assert match is not None, path
    return "status", unquote(match[1])


def _json(content: dict[str, Any]) -> Response:
    return Response(200, {}, json.dumps(content).encode())


@dataclass
class RecordedWait:
    """One wait and how it ended; times are in seconds since the begin.

    :param number: number of the run that it is to end with.
    :param identified_by: what was known of the run when the wait was added.
    :param ends: time and outcome of each call of ``on_end``; there should be one.
    """

    job: str
    number: int | None
    planner: PollPlanner
    wait: Wait | None = None
    deadline: float | None = None
    joined: float = 0.0
    identified_by: str = "number"
    ends: list[tuple[float, Submission | Exception]] = field(default_factory=list)
    removed: bool = False

    @property
    def outcome(self) -> Submission | Exception:
        ((_, outcome),) = self.ends
        return outcome


class Simulation:
    """Drives poll planners through virtual time, each like the planner of a triggerer of its own.

    :param cluster: the cluster that all of them poll.
    :param rate_limits: rate limits for each planner.
    :param random: function that returns a number in [0, 1).
    :param users: name of each planner's user; by default all are of one user.
    """

    def __init__(
        self,
        cluster: FakeCluster,
        *rate_limits: RateLimits,
        random: Callable[[], float] = lambda: 0.5,
        users: Sequence[str] = (),
    ) -> None:
        factory.forget_everything()
        self.cluster = cluster
        self.now = 0.0
        self.waits: list[RecordedWait] = []
        self.steps, self.max_steps = 0, 200_000
        exchanger = new_exchanger(cluster, random)
        users = users or ["u"] * len(rate_limits)
        cluster.accounts = {user: FakeAccount(user) for user in users}
        apis = {user: api_of(account, exchanger) for user, account in cluster.accounts.items()}
        self.planners = [
            PollPlanner(f"c{index}", apis[user], limits)
            for index, (user, limits) in enumerate(zip(users, rate_limits, strict=True))
        ]
        #: The planner whose polls are performed.
        self.stepping = self.planners[0]
        #: When each planner has something to do next.
        self._wake_at = dict.fromkeys(self.planners, 0.0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()

    @property
    def planner(self) -> PollPlanner:
        """The only planner, or the first one."""
        return self.planners[0]

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Schedule an action, in seconds since the begin."""
        heapq.heappush(self._events, (time, next(self._sequence), action))

    def wait_for(
        self,
        job: str,
        run: FakeRun | None,
        *,
        at: float = 0.0,
        poll_interval: float = 30.0,
        deadline: float | None = None,
        created_from: float = 0.0,
        know_date: bool = True,
        planner: int = 0,
    ) -> RecordedWait:
        """Add a wait for a run, or for the first run created since some time.

        :param at: when to add it, seconds since the begin.
        :param know_date: whether the creation date of the run is known.
        :param planner: index of the planner.
        """
        ref = RunRef("c", job)
        if run is not None:
            ref = RunRef("c", job, run.number, run.created_ms if know_date else None)
        number = run.number if run else None
        recorded = RecordedWait(job, number, self.planners[planner], deadline=deadline, joined=at)
        created_from_ms = int((BEGIN + created_from) * 1000)

        def add() -> None:
            recorded.wait = Wait(
                Follower(ref, created_from=created_from_ms),
                poll_interval,
                on_end=lambda outcome: recorded.ends.append((self.now, outcome)),
                deadline=None if deadline is None else BEGIN + deadline,
            )
            recorded.planner.add(recorded.wait, BEGIN + self.now)
            self._wake_at[recorded.planner] = self.now

        self.waits.append(recorded)
        self.at(at, add)
        return recorded

    def remove(self, recorded: RecordedWait, at: float) -> None:
        """Remove a wait at some time, unless it has ended by then."""

        def remove() -> None:
            if recorded.wait is not None and not recorded.ends:
                recorded.planner.remove(recorded.wait)
                recorded.removed = True

        self.at(at, remove)

    def run(self, until: float) -> None:
        """Let time pass until some time, or until nothing can happen any more."""
        while self.now <= until:
            self.steps += 1
            assert self.steps < self.max_steps, f"the simulation does not end: {self.now:.1f} s"
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            for planner, wake_at in self._wake_at.items():
                if wake_at <= self.now:
                    # As in the poller: no sleep is shorter than this, but events interrupt it.
                    self._wake_at[planner] = max(self._step(planner), self.now + 0.05)
            next_time = min(self._wake_at.values())
            if self._events:
                next_time = min(next_time, self._events[0][0])
            if next_time == float("inf"):
                return
            self.now = max(self.now, next_time)

    def _step(self, planner: PollPlanner) -> float:
        self.stepping, now = planner, BEGIN + self.now
        planner.housekeeping(now)
        while (poll := planner.next_poll(now)) is not None:
            self._perform(planner, poll)
        return planner.next_event(now) - BEGIN

    def _perform(self, planner: PollPlanner, poll: Poll) -> None:
        self.cluster.now, self.cluster.elapsed = self.now, 0.0
        poll.perform(self._run_flow)
        duration = self.cluster.now - self.now + self.cluster.elapsed

        def complete() -> None:
            planner.completed(poll, BEGIN + self.now)
            self._wake_at[planner] = self.now

        self.at(self.now + duration, complete)

    def _run_flow(self, flow: Any) -> Any:
        try:
            step = next(flow)
            while True:
                if isinstance(step, Sleep):
                    self.cluster.now += step.seconds
                    step = flow.send(None)
                    continue
                if isinstance(step, Offload):
                    step = flow.send(step.work())
                    continue
                assert isinstance(step, Request), step
                answer = self.cluster.handle(step)
                throws = isinstance(answer, TransportError)
                step = flow.throw(answer) if throws else flow.send(answer)
        except StopIteration as end:
            return end.value


def new_exchanger(cluster: FakeCluster, random: Callable[[], float]) -> Exchanger:
    """Return an exchanger whose clock is that of the cluster."""
    return Exchanger(RetryPolicy(), lambda: BEGIN + cluster.now, random)


def api_of(account: FakeAccount, exchanger: Exchanger) -> CdmApi:
    """Return the API for a user, with what the user's connection holds at the time."""
    auth = factory.rotating_auth_for(account.settings, exchanger, look_up=lambda: account.settings)
    return CdmApi(account.settings, auth, exchanger)


def most_in_a_minute(times: list[float]) -> int:
    """Return the largest number of calls in any minute."""
    window: deque[float] = deque()
    most = 0
    for time in sorted(times):
        window.append(time)
        while window[0] <= time - 60:
            window.popleft()
        most = max(most, len(window))
    return most
