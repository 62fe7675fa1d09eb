"""Airflow, the wire and all that can go wrong, around the real client; time is a number."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from airflow_provider_cdm.client.messages import Flow, Request, Response, TransportError
from airflow_provider_cdm.client.records import Started, StartPolicy

from .cdm import EPOCH, Cdm, Run, Tag
from .choices import Choices
from .worker import SETTINGS, Violation, Worker

#: How late a start may take effect after it was given up: within what the provider promises.
LATE = 0.99 * StartPolicy().settle
#: Longest time for which an exchange can last.
EXCHANGE = SETTINGS.connect_timeout + SETTINGS.read_timeout
_READ = {"fine": 86.0, "throttled": 4.0, "503": 3.0, "lost": 4.0, "garbage": 1.0}
FATES: dict[str, dict[str, float]] = {
    "start": {
        "fine": 55.0,
        "lost": 8.0,
        "answer lost": 8.0,
        "late": 8.0,
        "503": 4.0,
        "503 after": 4.0,
        "garbage": 3.0,
        "throttled": 4.0,
        "refused": 3.0,
        "401": 2.0,
        "403": 1.0,
    },
    "submissions": _READ | {"throttled": 12.0},
    "status": _READ,
}
_GARBAGE = (b'{"subm', b"{}", b"<html>", b"")
Variant: TypeAlias = Callable[[Flow[Started]], Flow[Started]]


@dataclass
class Window:
    """When a run that somebody else starts cannot be told from the one that a task starts."""

    since: float
    until: float
    ambiguous: bool = True
    earlier: bool = False


def refused(answer: object) -> bool:
    return isinstance(answer, Response) and answer.status == 400


SURELY_NOTHING = ("refused", "throttled", "401", "403")


@dataclass
class Task:
    """A task instance: what Airflow knows of it, and what only the model knows.

    :param kept: the journal.
    :param taken: runs of others that were taken for its own, and rightly so by the rules.
    :param misled: generations in which that was a mistake that the rules cannot avoid.
    """

    index: int
    variables: str
    retries: int
    clears: int
    max_tries: int = 0
    try_number: int = 0
    kept: str | None = None
    state: str = "scheduled"
    began: float | None = None
    windows: list[Window] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)
    misled: set[tuple[str, str]] = field(default_factory=set)
    remapped: bool = False

    def tag(self) -> Tag:
        """What the server notes when this task's attempt starts the job."""
        return Tag(self.index, self.variables, str(self.max_tries), self.try_number)

    def owns(self, run: Run) -> bool:
        """Whether it is a run that this task started, for these variables."""
        tag = run.tag
        return tag is not None and (tag.task, tag.variables) == (self.index, self.variables)


@dataclass
class World:
    """One schedule.

    :param variant: changes the protocol, to see that it is noticed.
    :param blind_spot: also crash where a journal of Variables is known to see nothing.
    """

    choices: Choices
    policy: StartPolicy = field(default_factory=StartPolicy)
    variant: Variant = lambda flow: flow
    blind_spot: bool = False
    now: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)
    trace: list[tuple[float, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        pick, chance, between = self.choices.pick, self.choices.chance, self.choices.between
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.steps = 0
        self.lasting = pick({"lasting": 2, "variable": 1}) == "lasting"
        self.if_running = pick({"fail": 2, "wait": 2, "attach": 1})
        self.waits = not chance(0.1)
        self.deadline = between(5.0, 200.0) if chance(0.1) else None
        self.deaths = int(between(0, 6))
        self.deadliness = between(0.0, 0.1)
        self.worker_skew = between(0.0, 0.5)
        self.faults = not chance(0.1)
        looks = {
            "all exact": 4, "all coarse": 2, "not in answers exact": 1, "not in answers coarse": 1,
            "not in answers not in answers": 1, "none exact": 1, "none coarse": 1, "all none": 1,
        }  # fmt: skip
        look = pick(looks)
        ids = next(name for name in ("all", "not in answers", "none") if look.startswith(name))
        self.cdm = Cdm(
            self.choices,
            ids=ids,
            dates=look.removeprefix(ids).strip(),
            skew=between(-1.0, 1.0),
            says_date=not chance(0.2),
            says_total=not chance(0.3),
        )
        self.outage = (between(0.0, 300.0), between(10.0, 900.0)) if chance(0.1) else (0.0, 0.0)
        self.company = chance(0.6)
        self.tasks = [
            Task(index, f"day {index}", int(between(0, 4)), clears=int(between(0, 3)))
            for index in range(1 + (int(between(0, 2.5)) if self.company else 0))
        ]
        for _ in range(int(between(0, 4)) if self.company else 0):
            self.at(between(0.0, 1500.0), self.other)

    # Time

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self.queue, (self.now + delay, next(self.numbers), action))

    def note(self, who: str, what: str) -> None:
        """Write a line of the trace."""
        self.trace.append((self.now, who, what))

    def play(self) -> None:
        """Let everything happen that happens; then see what came of it."""
        for task in self.tasks:
            task.max_tries = task.retries
            self.at(self.choices.between(0.0, 20.0), lambda task=task: self.begin(task))  # type: ignore[misc]
        self._run()
        self._check()
        self._heal()

    def _run(self) -> None:
        while self.queue:
            self.now, _, action = heapq.heappop(self.queue)
            action()
        for task in self.tasks:
            if task.state not in ("success", "failed"):
                raise Violation(f"task {task.index} is stuck: {task.state}")

    def _heal(self) -> None:
        """When nothing goes wrong any more, a clear must do; nothing may be in its way for good."""
        self.choices.calm = True
        self.outage, self.deadline = (0.0, 0.0), None
        self.note("world", "all is calm")
        for task in self.tasks:
            self.now = max([self.now, *(run.ends for run in self.cdm.runs)]) + 1
            known = len(self.cdm.runs)
            self.clear(task)
            self._run()
            if task.state != "success" or len(self.cdm.runs) != known + 1:
                raise Violation(f"task {task.index}, cleared in calm, did not make one run")

    # Airflow

    def begin(self, task: Task) -> None:
        """Start the next attempt."""
        before = task.tag()
        task.try_number += 1
        task.state = "running"
        others = [other for other in self.tasks if other is not task]
        if others and task.try_number > 1 and not task.remapped and self.choices.chance(0.05):
            task.remapped = True
            task.variables = f"{task.variables} after a change"
            task.windows = []
            self.seen["list of a mapped task changed"] += 1
        if task.began is None or before.generation != task.tag().generation:
            task.began = self.now
        Worker(self, task).begin()

    def clear(self, task: Task) -> None:
        """Clear a task that is not running."""
        self.note(f"task {task.index}", f"cleared when {task.state}")
        task.max_tries = task.try_number + task.retries
        task.began = self.now
        self.begin(task)

    def over(self, task: Task, how: str) -> None:
        """An attempt is over: ``success``, ``error``, ``died``, ``restarted`` or ``cleared``."""
        delays = {"60": 2, "5": 2, "300": 2, "2000": 1}
        delay = float(self.choices.pick(delays)) * self.choices.between(0.8, 1.2)
        if how == "cleared":
            task.state = "deferred"
            self.at(delay, lambda: self.clear(task))
        elif how == "restarted" or (how != "success" and task.try_number <= task.max_tries):
            task.state = "up for retry"
            self.at(delay, lambda: self.begin(task))
        else:
            task.state = "success" if how == "success" else "failed"
            if task.clears and self.choices.chance(0.5):
                task.clears -= 1
                self.seen[f"cleared after {task.state}"] += 1
                self.at(delay, lambda: self.clear(task))

    # Other people

    def other(self, *, auto: bool | None = None, quick: bool = False) -> None:
        """Somebody else, or CDM's scheduler, starts the job."""
        auto = self.choices.chance(0.4) if auto is None else auto
        run = self.cdm.begin(self.now, None, auto=auto, quick=quick)
        if run is not None:
            self.seen["run of CDM's scheduler" if auto else "run of somebody else"] += 1
            self.note("other", f"starts {run}")

    def crowd(self) -> None:
        """So many runs that the history does not reach back."""
        self.seen["history overrun"] += 1
        auto = not self.choices.chance(0.3)
        for number in range(12):
            self.at(3.5 * number, lambda: self.other(auto=auto, quick=True))

    # The wire

    def exchange(self, worker: Worker, request: Request, *, deadly: bool) -> None:
        """Carry a request to CDM and an answer back, or not."""
        choices, kind = self.choices, request.url.split("?")[0].rsplit("/", 1)[1]
        fate = choices.pick(FATES[kind]) if self.faults else "fine"
        up = choices.between(0.01, 0.2)
        back = up + (choices.between(1.0, 25.0) if choices.chance(0.05) else 0.1)
        if fate in ("lost", "answer lost", "late"):
            back = up + (SETTINGS.read_timeout if choices.chance(0.3) else 0.1)
        if kind != "start" and self.outage[0] <= self.now < sum(self.outage):
            fate = "503"
        if kind == "start":
            if self.company and choices.chance(0.05):
                self.seen["somebody starts right before us"] += 1
                self.at(up / 2, lambda: self.other(quick=choices.chance(0.5)))
            if self.company and fate in ("lost", "late", "503") and choices.chance(0.2):
                self.seen["somebody starts while we wait for our run"] += 1
                self.at(choices.between(0.2, 70.0), self.other)
        tag = worker.task.tag()
        given_up = choices.between(0.0, back) if deadly else back
        if deadly:
            self.at(given_up, lambda: self.kill(worker, f"in {kind}, {fate}"))
        answers: list[Response] = []
        window = worker.task.windows[-1] if kind == "start" else Window(0, 0)
        def arrive() -> None:
            answers.append(self.cdm.answer(request, self.now, tag))
            if kind == "submissions":
                worker.looked_at = self.now
            if kind == "start":
                self.note("cdm", f"start: {answers[0].status} {self.cdm.runs[-1]}")

        def come_back() -> None:
            answer = self._answer(fate, answers)
            if not worker.dead:
                said = answer.status if isinstance(answer, Response) else answer
                self.note(worker.name, f"{kind}: {fate}, {said!r}")
            if fate != "fine":
                self.seen[f"{kind}: {fate}"] += 1
            if fate == "answer lost" and kind == "start" and answers[0].status == 400:
                self.seen["start: Cdm.0052 lost"] += 1
            if not worker.dead:
                if fate in SURELY_NOTHING or refused(answer):
                    window.ambiguous = window.earlier
                else:
                    window.earlier = True
            worker.resume(answer)

        if fate in ("fine", "answer lost", "503 after", "garbage"):
            self.at(up, arrive)
        elif fate == "late":
            self.at(given_up + choices.between(0.0, LATE), arrive)
        self.at(back, come_back)

    def _answer(self, fate: str, answers: list[Response]) -> Response | TransportError:
        cdm, choices = self.cdm, self.choices
        if fate == "fine":
            return answers[0]
        if fate == "refused":
            return TransportError("connection refused", sent=False)
        if fate == "late" and choices.chance(0.3):
            return cdm.respond(self.now, {}, 504)
        if fate in ("lost", "answer lost", "late"):
            return TransportError("reset", sent=True)
        if fate == "garbage":
            return Response(200, {}, _GARBAGE[int(choices.between(0, len(_GARBAGE)))])
        if fate == "throttled":
            headers = {"5": {"retry-after": "5"}, "none": {}, "100": {"retry-after": "100"}}
            return cdm.respond(self.now, {}, 429, **headers[choices.pick(dict.fromkeys(headers, 1))])
        if fate in ("401", "403"):
            return cdm.respond(self.now, {}, int(fate))
        if choices.chance(0.3):
            return cdm.refuse(self.now, 500, "Cdm.0000")
        return cdm.respond(self.now, {}, 503)

    # Death

    def dies(self) -> bool:
        """Whether the attempt dies in its next step."""
        return self.deaths > 0 and self.choices.chance(self.deadliness)

    def kill(self, worker: Worker, where: str) -> None:
        """End an attempt without any last word."""
        if worker.dead:
            return
        self.deaths -= 1
        how = self.choices.pick({"died": 6, "restarted": 2, "cleared": 1})
        self.seen[f"attempt {how}"] += 1
        self.note(worker.name, f"{how} {where}")
        worker.bury()
        active = self.cdm.active(self.now)
        if how == "restarted" and active and worker.task.owns(active) and self.choices.chance(0.7):
            self.note(worker.name, f"stops {active}")
            self.cdm.stop(self.now)
        if self.company and self.choices.chance(0.08):
            self.at(self.choices.between(0.0, 10.0), self.crowd)
        self.over(worker.task, how)

    # Judgement

    def open_window(self, worker: Worker, record: Mapping[str, Any]) -> None:
        """Note an intent: from its baseline on, runs of others may be confused with its run."""
        since = worker.looked_at if record["baseline_known"] else self.now - 5.0
        reach = EXCHANGE + self.policy.settle + self.policy.grace + 5.0
        if self.cdm.dates == "none":
            reach = 1e9
        if record["intent_at"] != worker.intent_at:
            worker.intent_at = record["intent_at"]
            worker.task.windows.append(Window(since, 0.0))
            self.seen["baseline known" if record["baseline_known"] else "baseline unknown"] += 1
        elif record["sends"] > 1:
            self.seen["sent again"] += 1
        worker.task.windows[-1].ambiguous = True
        worker.task.windows[-1].until = max(worker.task.windows[-1].until, self.now + reach)

    def claim(self, worker: Worker, key: Mapping[str, Any]) -> list[Run]:
        """Check that a run may be taken for a task's own.

        :returns: the run; several only where nothing tells them apart.
        """
        task = worker.task
        runs = self.cdm.find(key.get("submission_id"), key.get("creation_date"))
        if not runs:
            raise Violation(f"{worker.name} follows a run that does not exist: {key}")
        if any(task.owns(run) or run.number in task.taken for run in runs):
            return runs
        run = runs[-1]
        if not run.auto and any(w.since <= run.began <= w.until for w in task.windows):
            self.seen["somebody's run taken for ours"] += 1
            task.misled.add((worker.tag.generation, task.variables))
        elif self.if_running == "attach" and run.ends > worker.began:
            self.seen["attached to somebody's run"] += 1
        else:
            raise Violation(f"{worker.name} takes {run} for its own; windows: {task.windows}")
        task.taken.add(run.number)
        return runs

    def _check(self) -> None:
        ours: dict[tuple[int, str, str], list[Run]] = {}
        for run in self.cdm.runs:
            if run.tag is not None:
                key = (run.tag.task, run.tag.generation, run.tag.variables)
                ours.setdefault(key, []).append(run)
        for (index, generation, variables), runs in ours.items():
            if (generation, variables) in self.tasks[index].misled:
                continue
            for earlier, later in itertools.pairwise(runs):
                if not earlier.ended_badly:
                    raise Violation(f"doubled: {earlier}, then {later}")
