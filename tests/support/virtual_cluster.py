"""A cluster with many jobs and many who wait, played in virtual time without sockets or threads."""

from __future__ import annotations

import heapq
import itertools
import json
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.http.retry import Exchanger, RetryPolicy
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.polling.model import Poll, Wait
from airflow_provider_cdm.client.polling.planner import PollPlanner
from airflow_provider_cdm.client.polling.rate_limit import RateLimits
from airflow_provider_cdm.client.sansio import Request, Response, Sleep, TransportError
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from airflow_provider_cdm.client.submission import RunRef, Submission

BEGIN = 1_735_787_045.0
PLACE = "https://cdm.example"
TOKEN = {"token": {"expires_at": "2099-01-01T00:00:00Z"}}


@dataclass
class PlayedRun:
    """One run of a played job, in seconds since the begin."""

    number: int
    created: float
    ended: float
    status: str = "SUCCEEDED"

    def shown(self, now: float, name: str) -> dict[str, Any]:
        return {
            "submission-id": self.number,
            "job-name": name,
            "creation-date": self.created_ms,
            "status": self.status if now >= self.ended else "RUNNING",
        }

    @property
    def created_ms(self) -> int:
        return int((BEGIN + self.created) * 1000)


@dataclass
class PlayedJob:
    """A job; ``runs`` in order, not overlapping.

    :param listed: how it shows in listings: ``well``, ``without dates``, ``late`` (a minute
        behind), ``wrong`` (never active), ``never``.
    :param broken: what its status call answers instead.
    """

    name: str
    runs: list[PlayedRun]
    type: str = "NORMAL_JOB"
    deleted: float = float("inf")
    listed: str = "well"
    broken: Callable[[float], Response | TransportError | None] = lambda _: None

    def latest(self, now: float) -> PlayedRun | None:
        return max((run for run in self.runs if run.created <= now), key=_number, default=None)

    def entry(self, now: float) -> dict[str, Any]:
        run = self.latest(now - 60 if self.listed == "late" else now)
        if run is None:
            return {"name": self.name, "status": "NEW"}
        shown = {"name": self.name, "status": run.shown(now, "")["status"]}
        if self.listed == "wrong":
            shown["status"] = "FAILED"
        if self.listed != "without dates":
            shown["execute_create_date"] = run.created_ms
        return shown


def _number(run: PlayedRun) -> int:
    return run.number


@dataclass
class PlayedCluster:
    """CDM for one cluster; time is in seconds since the begin.

    :param quota: calls of a kind in any minute; what is beyond gets 429.
    :param trouble: what a call gets instead of its answer at some time.
    :param latency: how long a call takes.
    :param calls: when which kind of call came.
    """

    jobs: dict[str, PlayedJob] = field(default_factory=dict)
    quota: float = float("inf")
    now: float = 0.0
    trouble: Callable[[str, float], Response | TransportError | None] = lambda _, __: None
    latency: Callable[[str, float], float] = lambda _, __: 0.1
    calls: dict[str, list[float]] = field(
        default_factory=lambda: {"status": [], "history": [], "list": []}
    )
    throttled: Counter[str] = field(default_factory=Counter)
    heard: dict[str, list[float]] = field(default_factory=dict)
    unheard: dict[str, list[float]] = field(default_factory=dict)
    unheard_all: list[float] = field(default_factory=list)
    heard_all: list[float] = field(default_factory=list)
    took: float = 0.0
    _minute: dict[str, deque[float]] = field(default_factory=dict)
    _order: dict[str, list[PlayedJob]] = field(default_factory=dict)

    def add(self, job: PlayedJob) -> None:
        self.jobs[job.name] = job
        self._order.clear()

    def answer(self, request: Request) -> Response | TransportError:
        if request.url.endswith("/tokens?nocatalog=true"):
            return Response(201, {"x-subject-token": "MII"}, json.dumps(TOKEN).encode())
        parts = urlsplit(request.url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        kind, name = _route(parts.path, query)
        self.calls[kind].append(self.now)
        self.took += self.latency(kind, self.now)
        answer = self._answer(kind, name, query)
        if isinstance(answer, Response) and answer.status < 429 and answer.body[:1] == b"{":
            self.heard_all.append(self.now)
            if kind == "status":
                self.heard.setdefault(name, []).append(self.now)
        else:
            self.unheard.setdefault(name, []).append(self.now)
            self.unheard_all.append(self.now)
        return answer

    def _answer(self, kind: str, name: str, query: dict[str, str]) -> Response | TransportError:
        if not self.charge(kind):
            self.throttled[kind] += 1
            return Response(429)
        if (trouble := self.trouble(kind, self.now)) is not None:
            return trouble
        if kind == "list":
            return self._list(query)
        job = self.jobs.get(name)
        if job is None or job.deleted <= self.now:
            body = {"errCode": "Cdm.0054", "externalMessage": "no such job"}
            return Response(400, {}, json.dumps(body).encode())
        if (trouble := job.broken(self.now)) is not None:
            return trouble
        begun = [run for run in job.runs if run.created <= self.now]
        newest = sorted(begun, key=_number, reverse=True)
        if kind == "history":
            shown = [run.shown(self.now, name) for run in newest[:10]]
            return _json({"submissions": shown, "total": len(begun)})
        if not newest:
            return _json({"submissions": [{"status": "NEVER_EXECUTED"}]})
        return _json({"submissions": [newest[0].shown(self.now, name)]})

    def charge(self, kind: str) -> bool:
        """Count a call, ours or somebody else's; ``False`` is 429."""
        minute = self._minute.setdefault(kind, deque())
        while minute and minute[0] <= self.now - 60:
            minute.popleft()
        if len(minute) >= self.quota:
            return False
        minute.append(self.now)
        return True

    def _list(self, query: dict[str, str]) -> Response:
        kind, part = query["jobType"], query.get("filter", "")
        if kind not in self._order:
            self._order[kind] = [
                job for job in self.jobs.values() if job.type == kind and job.listed != "never"
            ]
        jobs = [job for job in self._order[kind] if part in job.name and job.deleted > self.now]
        size = int(query["page_size"])
        first = (int(query["page_no"]) - 1) * size
        page = [job.entry(self.now) for job in jobs[first : first + size]]
        return _json({"total": len(jobs), "jobs": page})


def _route(path: str, query: dict[str, str]) -> tuple[str, str]:
    if path.endswith("/submissions"):
        return "history", query["jname"]
    if path.endswith("/job/all"):
        return "list", ""
    found = re.search(r"/job/([^/]+)/status$", path)
    assert found is not None, path
    return "status", unquote(found[1])


def _json(content: dict[str, Any]) -> Response:
    return Response(200, {}, json.dumps(content).encode())


@dataclass
class Waiter:
    """One wait and what became of it."""

    job: str
    number: int | None
    watch: PollPlanner
    wait: Wait | None = None
    deadline: float | None = None
    joined: float = 0.0
    by: str = "number"
    ends: list[tuple[float, Submission | Exception]] = field(default_factory=list)
    left: bool = False

    @property
    def outcome(self) -> Submission | Exception:
        ((_, outcome),) = self.ends
        return outcome


class Play:
    """Drives watches through virtual time: one, or that of each of several triggerers.

    :param cluster: what is watched.
    :param budgets: one for each watch.
    """

    def __init__(
        self,
        cluster: PlayedCluster,
        *budgets: RateLimits,
        random: Callable[[], float] = lambda: 0.5,
    ) -> None:
        factory.forget_everything()
        self.cluster = cluster
        self.now = 0.0
        self.waiters: list[Waiter] = []
        self.steps, self.most_steps = 0, 200_000
        exchanger = Exchanger(RetryPolicy(), lambda: BEGIN + cluster.now, random)
        place = Settings(PLACE, PLACE, PasswordCredentials("u", "p", "d"), project_id="p")
        api = CdmApi(place, factory.authenticator_for(place, exchanger), exchanger)
        self.watches = [PollPlanner("c", api, limits) for limits in budgets]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def watch(self) -> PollPlanner:
        """The only watch, or the first one."""
        return self.watches[0]

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Plan something, in seconds since the begin."""
        heapq.heappush(self._events, (when, next(self._order), action))

    def wait_for(
        self,
        job: str,
        run: PlayedRun | None,
        *,
        at: float = 0.0,
        poll_interval: float = 30.0,
        deadline: float | None = None,
        created_from: float = 0.0,
        know_date: bool = True,
        watch: int = 0,
    ) -> Waiter:
        """Have somebody wait for a run, or for the first run since an instant."""
        ref = RunRef("c", job)
        if run is not None:
            ref = RunRef("c", job, run.number, run.created_ms if know_date else None)
        number = run.number if run else None
        waiter = Waiter(job, number, self.watches[watch], deadline=deadline, joined=at)
        since = int((BEGIN + created_from) * 1000)

        def join() -> None:
            waiter.wait = Wait(
                Follower(ref, created_from=since),
                poll_interval,
                end=lambda outcome: waiter.ends.append((self.now, outcome)),
                deadline=None if deadline is None else BEGIN + deadline,
            )
            waiter.watch.join(waiter.wait, BEGIN + self.now)

        self.waiters.append(waiter)
        self.at(at, join)
        return waiter

    def leave(self, waiter: Waiter, at: float) -> None:
        """Have somebody go away."""

        def go() -> None:
            if waiter.wait is not None and not waiter.ends:
                waiter.watch.leave(waiter.wait)
                waiter.left = True

        self.at(at, go)

    def run(self, until: float) -> None:
        """Let time pass until an instant, or until nothing is left to happen."""
        while self.now <= until:
            self.steps += 1
            assert self.steps < self.most_steps, f"no end in sight at {self.now:.1f} s"
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            upcoming = min(self._step(watch) for watch in self.watches)
            # As a loop does: no nap is shorter than this, but what happens ends one.
            upcoming = max(upcoming, self.now + 0.05)
            if self._events:
                upcoming = min(upcoming, self._events[0][0])
            if upcoming == float("inf"):
                return
            self.now = max(self.now, upcoming)

    def _step(self, watch: PollPlanner) -> float:
        now = BEGIN + self.now
        watch.housekeeping(now)
        while (sent := watch.next_call(now)) is not None:
            self._perform(watch, sent)
        return watch.next_event(now) - BEGIN

    def _perform(self, watch: PollPlanner, sent: Poll) -> None:
        self.cluster.now, self.cluster.took = self.now, 0.0
        sent.perform(self._play)
        lasted = self.cluster.now - self.now + self.cluster.took
        self.at(self.now + lasted, lambda: watch.completed(sent, BEGIN + self.now))

    def _play(self, flow: Any) -> Any:
        try:
            step = next(flow)
            while True:
                if isinstance(step, Sleep):
                    self.cluster.now += step.seconds
                    step = flow.send(None)
                    continue
                assert isinstance(step, Request), step
                answer = self.cluster.answer(step)
                throws = isinstance(answer, TransportError)
                step = flow.throw(answer) if throws else flow.send(answer)
        except StopIteration as end:
            return end.value


def most_in_a_minute(times: list[float]) -> int:
    """The largest number of calls in any minute."""
    window: deque[float] = deque()
    most = 0
    for time in sorted(times):
        window.append(time)
        while window[0] <= time - 60:
            window.popleft()
        most = max(most, len(window))
    return most
