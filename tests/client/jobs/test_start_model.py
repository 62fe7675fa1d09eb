"""The start protocol against a small model of CDM, of Airflow's attempts, and of faults.

Each schedule is a random sequence of crashes, lost and late answers, runs of other people, retries
and clears, without sockets, threads or sleeping. ``CDM_MODEL_SCHEDULES`` sets the number of
schedules (1,000 by default).
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.auth.token import Token, TokenAuth
from airflow_provider_cdm.client.http.retry import Exchanger, RetryPolicy
from airflow_provider_cdm.client.jobs.start import start_once
from airflow_provider_cdm.client.jobs.start_record import (
    Generation,
    StartPolicy,
    StartRecord,
    StartRequest,
    StartResult,
)
from airflow_provider_cdm.client.sansio import (
    Request,
    Response,
    Save,
    Sleep,
    TransportError,
)
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings

JOB = "j"
Owner = tuple[int, int]


class Crash(BaseException):
    """The worker process has died."""


class FixedToken(TokenAuth):
    """An authenticator without IAM, which has tests of its own."""

    def token(self) -> Generator[Any, Any, Token]:
        yield from ()
        return Token("t", 1e12, 1e12, "p")


@dataclass
class Run:
    """A run in the model; ``owner`` is who started it, which the protocol cannot see."""

    number: int
    created: float
    ends: float
    outcome: str
    owner: Owner | None
    auto: bool = False

    def status(self, now: float) -> str:
        return self.outcome if now >= self.ends else "RUNNING"


@dataclass
class CdmModel:
    """One schedule: CDM with one job, a clock, and random faults.

    :param seen: number of times that each event occurred, over all schedules.
    """

    seed: int
    seen: Counter[str]
    calm: bool = False
    trace: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    late: list[tuple[float, Owner]] = field(default_factory=list)
    now: float = 1_000_000.0
    #: Whether a run that somebody else started at the time of ours was taken for ours, which is a
    #: documented limit.
    mistaken: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.ids = self.rng.choice(["present", "present", "absent-in-start", "absent"])
        # Coarse dates are used only if numbers distinguish the runs.
        self.coarse = self.ids != "absent" and self.rng.random() < 0.3
        self.skew = self.rng.uniform(-0.8, 0.8)
        self.fault_rate = self.rng.choice([0.0, 0.1, 0.3, 0.5])
        self.foreign = self.rng.choice([0.0, 0.0, 0.02, 0.08])

    def note(self, what: str, detail: object = "") -> None:
        self.seen[what] += 1
        self.trace.append(f"{self.now:12.2f} {what} {detail}")

    def pass_time(self, seconds: float) -> None:
        """Let time pass; late effects and runs of other people may begin meanwhile."""
        end = self.now + seconds
        for at, owner in sorted(self.late):
            if at <= end:
                self.now = max(self.now, at)
                self.late.remove((at, owner))
                self.note("late effect", "began" if self.start(owner) else "refused")
        self.now = max(self.now, end)
        if not self.calm and self.rng.random() < self.foreign:
            auto = self.rng.random() < 0.5
            if self.start(None, auto=auto):
                self.note("scheduler's run" if auto else "somebody's run", self.runs[-1])

    @property
    def active(self) -> Run | None:
        newest = self.runs[-1] if self.runs else None
        return newest if newest and self.now < newest.ends else None

    def start(self, owner: Owner | None, *, auto: bool = False) -> bool:
        if self.active:
            return False
        created = self.now + self.skew
        created = float(int(created)) if self.coarse else created
        length = self.rng.choice([0.3, 3, 20, 200]) if self.ids != "absent" else 20
        outcome = self.rng.choices(["SUCCEEDED", "FAILED", "STOPPED"], [6, 2, 1])[0]
        run = Run(len(self.runs) + 1, created, self.now + length, outcome, owner, auto)
        self.runs.append(run)
        return True

    # The wire

    def exchange(self, request: Request, owner: Owner) -> Response:
        """Answer a request, or raise a transport error."""
        self.pass_time(self.rng.uniform(0.05, 1.0))
        start = request.url.endswith("/start")
        mishap = None
        if not self.calm and self.rng.random() < self.fault_rate:
            mishap = self.rng.choice(_MISHAPS if start else _MISHAPS[:-2])
        if mishap in ("refused", "lost", "503 before", "429", "late"):
            self.note(f"{mishap}: {'start' if start else 'other call'}")
            if mishap == "late":
                self.late.append((self.now + self.rng.uniform(0, 55), owner))
            return self._fail(mishap)
        answer = self._act(request, owner)
        self.pass_time(self.rng.uniform(0.05, 1.0))
        if mishap is None:
            return answer
        self.note(f"{mishap}: {'start' if start else 'other call'}")
        if mishap == "broken":
            return Response(200, self._headers(), b'{"submissions": [')
        return self._fail(mishap)

    def _fail(self, mishap: str) -> Response:
        if mishap == "refused":
            raise TransportError("refused", sent=False)
        if mishap in ("lost", "unanswered", "late"):
            self.pass_time(self.rng.choice([0.1, 10, 60]))
            raise TransportError("time-out", sent=True)
        status = 429 if mishap == "429" else 503
        return Response(status, self._headers(), b"")

    def _headers(self) -> dict[str, str]:
        return {"date": formatdate(self.now + self.skew, usegmt=True)}

    def _act(self, request: Request, owner: Owner) -> Response:
        if request.url.endswith("/start"):
            if not self.start(owner):
                self.note("0052")
                body: Any = {"errCode": "Cdm.0052", "externalMessage": "Job is running"}
                return Response(400, self._headers(), json.dumps(body).encode())
            self.note("started", self.runs[-1])
            shown = [self._wire(self.runs[-1], start=True)]
        elif request.url.endswith("/status"):
            never = {"status": "NEVER_EXECUTED", "creation-date": int(self.now * 1000)}
            shown = [self._wire(self.runs[-1])] if self.runs else [never]
        else:
            shown = [self._wire(run) for run in reversed(self.runs[-10:])]
        body = {"submissions": shown, "total": len(self.runs)}
        return Response(200, self._headers(), json.dumps(body).encode())

    def _wire(self, run: Run, *, start: bool = False) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "status": run.status(self.now),
            "creation-date": int(run.created * 1000),
            "is-execute-auto": run.auto,
        }
        if self.ids == "present" or (self.ids == "absent-in-start" and not start):
            shown["submission-id"] = run.number
        return shown

    def find(self, number: int | None, created: int | None) -> Run:
        """Return the run with this number or date."""
        for run in self.runs:
            if number == run.number or (number is None and created == int(run.created * 1000)):
                return run
        raise AssertionError(f"no such run: {number}, {created}")


#: The last two, late effects, happen only to starts.
_MISHAPS = ["refused", "lost", "503 before", "429", "unanswered", "503 after", "broken"] + [
    "late"
] * 2
Driver = Callable[["Task", Generator[Any, Any, StartResult]], StartResult]


@dataclass
class Task:
    """One task instance and its journal; does what the operator does around the start protocol.

    :param changing: whether its variables are others in each attempt.
    :param clocks: seconds by which the clocks of workers may be ahead.
    """

    cdm: CdmModel
    number: int
    if_running: str
    policy: StartPolicy
    crashes: float
    retries: int
    record: dict[str, Any] | None = None
    generation: int = 0
    cleared_at: float = 0.0
    created_again: bool = False
    changing: bool = False
    clocks: tuple[float, ...] = ()
    airflow: Generation = field(default_factory=Generation)
    problems: list[str] = field(default_factory=list)

    def attempt(self, drive: Driver) -> bool:
        """Perform one attempt; return whether the task succeeded."""
        cdm = self.cdm
        variables = {"task": str(self.number)}
        if self.changing:
            variables["now"] = str(self.airflow.try_number)
        request = StartRequest(
            *("p", "c", JOB, variables, self.airflow, self.if_running),
            attempt_id=f"{self.generation} {self.airflow.try_number}",
        )
        # Each attempt may be on another worker.
        ahead = cdm.rng.choice([0.0, 0.0, *self.clocks])
        settings = Settings(
            "http://c", "http://i", PasswordCredentials("u", "p", "d"), project_id="p"
        )
        exchanger = Exchanger(RetryPolicy(attempts=3), lambda: cdm.now + ahead, cdm.rng.random)
        api = CdmApi(settings, FixedToken(settings, exchanger), exchanger)
        for _ in range(200):
            try:
                started = drive(self, start_once(api, request, self.record, self.policy))
                break
            except errors.CdmAlreadyRunning:
                cdm.note("already running")
                if self.if_running == "fail":
                    return False
                cdm.pass_time(30)
            except (errors.CdmStartUncertain, errors.CdmUnavailable, errors.CdmThrottled,
                    errors.CdmOutcomeUnknown, errors.CdmBadResponse) as error:  # fmt: skip
                cdm.note(type(error).__name__)
                return False
        else:
            raise AssertionError("stuck behind other runs")
        self._check(started)
        return self._follow(started)

    def _check(self, started: StartResult) -> None:
        """Check that the run is ours, or that a documented limit applies."""
        run = self.cdm.find(started.run.submission_id, started.run.creation_date)
        if run.owner == (self.number, self.generation):
            return
        if run.owner and run.owner[0] == self.number and started.from_earlier_attempt:
            self.cdm.note("attached after a clear")
            # A documented limit: the first attempt of a DAG run that was created again died before
            # its intent, so the second one looks like a retry of the earlier DAG run.
            if run.ends <= self.cleared_at and not (
                self.created_again and self.airflow.try_number > 1
            ):
                self.problems.append(f"started nothing after a clear, but took {run}")
        elif self.if_running == "attach":
            self.cdm.note("attached to another's")
            self.cdm.mistaken = True
        elif run.owner is None and not run.auto:
            self.cdm.note("mistook somebody's run for ours")
            self.cdm.mistaken = True
        elif run.owner and any(": start" in line or "crash" in line for line in self.cdm.trace):
            # Two tasks start one job, and the effect of one start is unknown: the same limit.
            self.cdm.note("mistook another task's run for ours")
            self.cdm.mistaken = True
        else:
            self.problems.append(f"took {run}")

    def _follow(self, started: StartResult) -> bool:
        cdm = self.cdm
        self.maybe_crash()
        run = cdm.find(started.run.submission_id, started.run.creation_date)
        cdm.pass_time(max(0.0, run.ends - cdm.now) + 0.1)
        self.maybe_crash()
        record = StartRecord.from_payload(self.record or {})
        seen = started.run.from_wire(cdm._wire(run), "c", JOB)
        if seen.failed:
            self.record = record.ended_badly(seen).to_payload()
            cdm.note("ended badly")
            return False
        self.record = record.ended_well(seen).to_payload()
        self.maybe_crash()
        if run.outcome != "SUCCEEDED":
            self.problems.append(f"called {run} good")
        cdm.note("ended well")
        return True

    def maybe_crash(self) -> None:
        if not self.cdm.calm and self.cdm.rng.random() < self.crashes:
            self.cdm.note("crash")
            raise Crash

    def perform(self, step: Any) -> Response | None:
        """Perform a step of a flow."""
        if isinstance(step, Request):
            return self.cdm.exchange(step, (self.number, self.generation))
        if isinstance(step, Sleep):
            self.cdm.pass_time(step.seconds)
        elif isinstance(step, Save):
            self.keep(step.record)
        return None

    def keep(self, record: Mapping[str, Any] | None) -> None:
        self.record = None if record is None else json.loads(json.dumps(record))
        if record and record["run"] and not record["foreign"]:
            taken = self.cdm.find(record["run"]["submission_id"], record["run"]["creation_date"])
            if taken.owner is None:
                # Also if it has failed, so that the start is sent again: the same limit.
                self.cdm.note("mistook somebody's run for ours")
                self.cdm.mistaken = True


def drive(task: Task, flow: Generator[Any, Any, StartResult]) -> StartResult:
    """Drive a flow, with crashes before and after every step."""
    try:
        step = next(flow)
        while True:
            task.maybe_crash()
            try:
                answer = task.perform(step)
            except TransportError as failure:
                task.maybe_crash()
                step = flow.throw(failure)
            else:
                task.maybe_crash()
                step = flow.send(answer)
    except StopIteration as end:
        started: StartResult = end.value
        return started
    finally:
        flow.close()


def drive_and_save_too_late(task: Task, flow: Generator[Any, Any, StartResult]) -> StartResult:
    """Drive a flow wrongly: what must be saved before a request is saved after it."""
    waiting: list[Save] = []
    perform = task.perform

    def late(step: Any) -> Response | None:
        if isinstance(step, Save):
            waiting.append(step)
            return None
        try:
            answer = perform(step)
        except TransportError:
            task.maybe_crash()
            remember()
            raise
        task.maybe_crash()
        remember()
        return answer

    def remember() -> None:
        for saved in waiting:
            perform(saved)
        waiting.clear()

    task.perform = late  # type: ignore[method-assign]
    try:
        started = drive(task, flow)
        remember()
        return started
    finally:
        del task.perform


@dataclass
class Explorer:
    """Runs schedules and finds violations of the protocol."""

    seen: Counter[str] = field(default_factory=Counter)

    def play(
        self, seed: int, policy: StartPolicy | None = None, driver: Driver = drive
    ) -> list[str]:
        """Run one schedule; return its violations, each with the trace."""
        cdm = CdmModel(seed, self.seen)
        rng = cdm.rng
        tasks = [
            Task(
                cdm,
                number,
                if_running=rng.choice(["fail", "wait", "attach"]),
                policy=policy or StartPolicy(),
                crashes=rng.choice([0.0, 0.02, 0.1]),
                retries=rng.choice([0, 2, 4]),
                changing=rng.random() < 0.2,
                clocks=rng.choice([(), (-3600.0, -170.0, 170.0, 3600.0)]),
            )
            for number in range(rng.choice([1, 1, 2]))
        ]
        for generation in range(rng.choice([1, 2])):
            for task in tasks:
                self._attempts(task, generation, driver)
        cdm.calm = True
        cdm.pass_time(1000)
        problems = [problem for task in tasks for problem in task.problems]
        if not cdm.mistaken:
            problems += _doubles(cdm)
        return [f"seed {seed}: {problem}\n" + "\n".join(cdm.trace) for problem in problems]

    def _attempts(self, task: Task, generation: int, driver: Driver) -> None:
        """Perform all attempts between two clears."""
        cdm = task.cdm
        airflow = task.airflow
        airflow = self._clear(task) if generation else Generation(1, task.retries, 0, task.retries)
        task.generation = generation
        for number in range(task.retries + 1):
            task.airflow = replace(airflow, try_number=airflow.try_number + number)
            try:
                if task.attempt(driver):
                    return
            except Crash:
                pass
            cdm.note("retry")
            if cdm.rng.random() < 0.1:
                cdm.note("clear of another task")
                airflow = replace(airflow, clear_number=(airflow.clear_number or 0) + 1)
            cdm.pass_time(cdm.rng.choice([0.5, 10, 100]))

    def _clear(self, task: Task) -> Generation:
        """Return what Airflow says about the first attempt after a clear of the task."""
        cdm, airflow = task.cdm, task.airflow
        task.cleared_at = cdm.now
        if cdm.rng.random() < 0.2:
            cdm.note("DAG run created again")
            task.created_again = True
            return Generation(1, task.retries, 0, task.retries)
        cdm.note("clear")
        if cdm.rng.random() < 0.3:
            cdm.note("edited retries")
            task.retries = cdm.rng.choice([0, 1, 2, 3, 4])
        return Generation(
            airflow.try_number + 1,
            airflow.try_number + task.retries,
            (airflow.clear_number or 0) + 1,
            task.retries,
        )


def _doubles(cdm: CdmModel) -> list[str]:
    """Return the runs that one task and generation started after one of its runs succeeded."""
    by_owner: dict[Owner, list[Run]] = {}
    for run in cdm.runs:
        if run.owner:
            by_owner.setdefault(run.owner, []).append(run)
    return [
        f"doubled: {runs}"
        for runs in by_owner.values()
        if any(earlier.outcome == "SUCCEEDED" for earlier in runs[:-1])
    ]


SCHEDULES = int(os.environ.get("CDM_MODEL_SCHEDULES", "2000"))
#: Events that must occur for the test to prove anything.
OCCURRENCES = [
    *(
        "crash",
        "retry",
        "clear",
        "clear of another task",
        "DAG run created again",
        "edited retries",
    ),
    *("0052", "already running", "late effect"),
    *("lost: start", "unanswered: start", "503 before: start", "503 after: start"),
    *("429: start", "429: other call", "broken: start", "refused: start", "late: start"),
    *("somebody's run", "scheduler's run", "attached to another's", "attached after a clear"),
    *("ended badly", "ended well", "CdmStartUncertain", "CdmUnavailable"),
]


def test_never_doubled_never_mistaken() -> None:
    """No schedule starts a run twice, loses a start, or wrongly takes a run for ours."""
    explorer = Explorer()
    for seed in range(SCHEDULES):
        problems = explorer.play(seed)
        assert not problems, problems[0]
    missing = [name for name in OCCURRENCES if not explorer.seen[name]]
    assert not missing, explorer.seen
    # The documented limit: a run that somebody else starts during a lost start may be taken.
    mistaken = sum(n for name, n in explorer.seen.items() if name.startswith("mistook"))
    assert mistaken < 0.1 * SCHEDULES


def test_an_intent_saved_after_the_start_is_detected() -> None:
    """The model detects the second run of an implementation that saves the intent too late."""
    found = [
        p for seed in range(600) for p in Explorer().play(seed, driver=drive_and_save_too_late)
    ]
    assert any("doubled" in problem for problem in found)


@pytest.mark.parametrize("settle", [0.0, 5.0])
def test_a_short_settling_time_is_detected(settle: float) -> None:
    """The model detects the second run of an implementation that ignores late effects."""
    policy = StartPolicy(settle=settle, clock_tolerance=0)
    found = [p for seed in range(600) for p in Explorer().play(seed, policy)]
    assert any("doubled" in problem for problem in found)
