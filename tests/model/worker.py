"""One attempt of a task: the real start, follower and journal, driven step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth import Token, TokenAccess
from airflow_provider_cdm.client.flows import CdmFlows
from airflow_provider_cdm.client.following import Follower, ensure_succeeded
from airflow_provider_cdm.client.messages import (
    Flow,
    Request,
    Response,
    Save,
    Sleep,
    Step,
    TransportError,
    pause,
)
from airflow_provider_cdm.client.models import RunRef, Submission
from airflow_provider_cdm.client.records import Order, Started, key_of
from airflow_provider_cdm.client.retry import Exchanger, RetryPolicy
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from airflow_provider_cdm.client.starting import start_once
from airflow_provider_cdm.journal import Journal
from airflow_provider_cdm.operators import _stopped_at_once

from .cdm import EPOCH, Tag

if TYPE_CHECKING:
    from .world import Task, World

PLACE = "https://cdm.example"
SETTINGS = Settings(PLACE, PLACE, PasswordCredentials("u", "p", "d"), project_id="p")
EXPECTED = (
    errors.CdmAlreadyRunning,
    errors.CdmAuthError,
    errors.CdmBadResponse,
    errors.CdmJournalError,
    errors.CdmStartUncertain,
    errors.CdmSubmissionFailed,
    errors.CdmThrottled,
    errors.CdmUnavailable,
    errors.CdmWaitTimeout,
)


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Note:
    """Something of the operator's to do that ends up in the journal.

    :param last: whether a journal of Variables is blind from here to the end of the task.
    """

    what: str
    write: Callable[[], None]
    last: bool


Steps: TypeAlias = Generator["Step | Note", "Response | None", Submission]


class Access(TokenAccess):
    """Gives tokens, and sometimes takes its time for it."""

    __slots__ = ("fresh", "world")

    def token(self) -> Flow[Token]:
        if not self.fresh:
            world: World = self.world
            object.__setattr__(self, "fresh", True)
            slow = world.choices.chance(0.1)
            yield from pause(world.choices.between(20.0, 130.0) if slow else 0.1)
        return Token("t", 1e18, 1e18)

    def reject(self, token: Token) -> None:
        object.__setattr__(self, "fresh", False)


class Worker:
    """The process of one attempt."""

    def __init__(self, world: World, task: Task) -> None:
        self.world, self.task = world, task
        self.tag: Tag = task.tag()
        self.name = f"task {task.index}, attempt {task.try_number}"
        self.began = world.now
        self.looked_at = world.now
        self.dead = False
        self.intent_at = 0.0
        self.skew = world.choices.between(-world.worker_skew, world.worker_skew)
        exchanger = Exchanger(RetryPolicy(), self.clock, lambda: 0.5)
        access = Access(SETTINGS, exchanger)
        object.__setattr__(access, "world", world)
        object.__setattr__(access, "fresh", False)
        self.flows = CdmFlows(SETTINGS, access, exchanger)
        ti = SimpleNamespace(
            task_id="t",
            run_id="r",
            max_tries=task.max_tries,
            try_number=task.try_number,
        )
        context: Any = {"ti": ti, "task_state_store": self}
        self.journal = Journal(context)
        self.journal._notebook.lasting = world.lasting
        self.flow = self._execute()

    def clock(self) -> float:
        """The time by the clock of this worker."""
        return EPOCH + self.world.now + self.skew

    # The store of the journal

    def get(self, key: str) -> str | None:
        return self.task.kept

    def set(self, key: str, value: str) -> None:
        self.task.kept = value

    def delete(self, key: str) -> None:
        self.task.kept = None

    # What the operator does

    def _execute(self) -> Steps:
        world, journal = self.world, self.journal
        deadline = None if world.deadline is None else self.clock() + world.deadline
        while True:
            started = yield from self._start(deadline)
            self._judge(started)
            attached_at = self.clock() if started.earlier else None
            run = started.run
            if not run.ended:
                if not world.waits:
                    yield Note("left alone", journal.leave, last=True)
                    return run
                run = yield from Follower(RunRef.of(run)).follow(
                    self.flows, poll_interval=30, deadline=deadline
                )
            write = lambda run=run: journal.conclude(run)  # noqa: E731
            yield Note("concluded", write, last=not run.failed)
            if attached_at is None or not _stopped_at_once(run, attached_at):
                return ensure_succeeded(run)
            world.seen["stopped by a restart: started anew"] += 1

    def _start(self, deadline: float | None) -> Generator[Step, Response | None, Started]:
        world, task = self.world, self.task
        order = Order(
            "p",
            "c",
            "orders",
            {"day": task.variables},
            generation=self.journal.generation,
            if_running=world.if_running,
        )
        while True:
            self.kept = self.journal.read() or {}
            flow = start_once(self.flows, order, self.kept or None, world.policy)
            try:
                return (yield from world.variant(flow))
            except errors.CdmAlreadyRunning as refusal:
                other = refusal.submission
                if other is not None:
                    runs = world.cdm.find(other.submission_id, other.creation_date)
                    if all(run.tag == self.tag for run in runs) and not task.misled:
                        raise Violation(f"{self.name} is refused because of its own run") from None
                if world.if_running == "fail":
                    raise
            if other is None:
                yield from pause(1.0)
                continue
            world.seen["waited for somebody's run"] += 1
            try:
                yield from Follower(RunRef.of(other)).follow(
                    self.flows, poll_interval=30, deadline=deadline
                )
            except errors.CdmOutcomeUnknown:
                world.seen["lost sight of somebody's run"] += 1

    def _judge(self, started: Started) -> None:
        world, kept = self.world, self.kept
        runs = world.claim(self, key_of(started.run))
        retry = kept.get("generation") == self.tag.generation
        if kept.get("result") and retry:
            world.seen["retry after a success"] += 1
        elif started.earlier and kept.get("run"):
            world.seen["attached again" if retry else "attached after a clear"] += 1
        elif started.earlier:
            world.seen["found by a retry" if retry else "found after a clear"] += 1
        if not self.misled() and not any(run.ends > (self.task.began or 0.0) for run in runs):
            raise Violation(f"{self.name} takes {runs[-1]}, which was over before the clear")

    # The driver

    def begin(self) -> None:
        """Take the first step."""
        self.world.note(self.name, f"begins, journal {self.task.kept}")
        kept = json.loads(self.task.kept or "{}")
        if kept.get("sends") and not kept.get("run"):
            self.world.seen["open intent taken up"] += 1
        self.resume(None)

    def resume(self, answer: Response | TransportError | None) -> None:
        """Go on to the next step."""
        world = self.world
        if self.dead:
            return
        world.steps += 1
        if world.steps > 20_000:
            raise Violation(f"{self.name} does not come to an end")
        try:
            if isinstance(answer, TransportError):
                step = self.flow.throw(answer)
            else:
                step = self.flow.send(answer)
        except StopIteration as end:
            self._succeeded(end.value)
        except errors.CdmError as error:
            self._failed(error)
        else:
            self._perform(step)

    def _perform(self, step: Step | Note) -> None:
        world = self.world
        dies = world.dies()
        if isinstance(step, Request):
            world.exchange(self, step, deadly=dies)
        elif isinstance(step, Sleep):
            if dies:
                at = world.choices.between(0.0, step.seconds)
                world.at(at, lambda: world.kill(self, "in its sleep"))
            world.at(step.seconds, lambda: self.resume(None))
        elif dies and world.choices.chance(0.5):
            world.kill(self, f"before {step}")
        elif world.faults and world.choices.chance(0.005):
            self.bury()
            self._failed(errors.CdmJournalError("the database is away"))
        else:
            self._keep(step)
            blind = isinstance(step, Note) and step.last and not world.lasting
            if dies and (world.blind_spot or not blind):
                world.kill(self, f"after {step}")
            else:
                world.at(0.01, lambda: self.resume(None))

    def _keep(self, step: Save | Note) -> None:
        world = self.world
        if isinstance(step, Note):
            step.write()
            world.note(self.name, f"{step.what}: {self.task.kept}")
            return
        self.journal.save(step.record)
        world.note(self.name, f"writes {self.task.kept}")
        record = step.record or {}
        if record.get("run"):
            self._found(record)
        elif record.get("sends"):
            self._intends(record)

    def _found(self, record: Mapping[str, Any]) -> None:
        self.world.claim(self, record["run"])

    def _intends(self, record: Mapping[str, Any]) -> None:
        self.world.open_window(self, record)

    def _succeeded(self, run: Submission) -> None:
        world, task = self.world, self.task
        self.dead = True
        runs = world.claim(self, key_of(run))
        if world.waits and all(run.ended_badly for run in runs):
            raise Violation(f"{self.name} reports {runs[-1]} as a success")
        world.note(self.name, f"succeeds with {runs[-1]}")
        world.over(task, "success")

    def _failed(self, error: errors.CdmError) -> None:
        self.dead = True
        if not isinstance(error, EXPECTED):
            raise Violation(f"{self.name} fails with {error!r}") from error
        windows = self.task.windows
        if windows and not windows[-1].ambiguous and not isinstance(error, errors.CdmJournalError):
            windows[-1].until = 0.0
        if type(error) is errors.CdmSubmissionFailed and not self.misled():
            runs = self.world.claim(self, key_of(error.submission))
            if all(run.ends < self.began for run in runs):
                raise Violation(f"{self.name} fails because of {runs[-1]}, which was over before")
        self.world.seen[f"failed: {type(error).__name__}"] += 1
        self.world.note(self.name, f"fails: {error!r}")
        self.world.over(self.task, "error")

    def misled(self) -> bool:
        return (self.tag.generation, self.task.variables) in self.task.misled

    def bury(self) -> None:
        """The process is gone."""
        self.dead = True
        self.flow.close()
