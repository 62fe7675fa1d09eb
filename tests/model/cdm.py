"""CDM as far as a start concerns it: one job that runs once at a time, and its history."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from airflow_provider_cdm.client.messages import Request, Response

from .choices import Choices

EPOCH = 1_735_787_045.0
ROWS = 10
BAD = ("FAILED", "STOPPED", "FAILURE_ON_SUBMIT")


@dataclass(frozen=True)
class Tag:
    """Who sent a start: what the model knows and no client can see."""

    task: int
    variables: str
    generation: str
    attempt: int


@dataclass
class Run:
    """A run of the job.

    :param shown: its creation date on the wire.
    :param tag: who started it; ``None`` for people and for CDM's scheduler.
    """

    number: int
    shown: int
    began: float
    ends: float
    end: str
    tag: Tag | None
    auto: bool

    def active(self, now: float) -> bool:
        """Whether it has not ended yet."""
        return now < self.ends

    @property
    def ended_badly(self) -> bool:
        """Whether it ends in another way than well."""
        return self.end in BAD

    def __str__(self) -> str:
        who = self.tag or ("CDM's scheduler" if self.auto else "somebody")
        return f"run {self.number} [{self.began:.1f} to {self.ends:.1f} {self.end}] of {who}"


@dataclass
class Cdm:
    """The server.

    :param ids: ``all``, ``not in answers`` to a start, or ``none`` at all.
    :param dates: ``exact``, ``coarse`` (whole seconds), ``none``, or ``not in answers``.
    :param skew: seconds by which its clock is ahead of the world's.
    """

    choices: Choices
    ids: str
    dates: str
    skew: float
    says_date: bool
    says_total: bool
    runs: list[Run] = field(default_factory=list)

    def active(self, now: float) -> Run | None:
        """The run that is active."""
        return self.runs[-1] if self.runs and self.runs[-1].active(now) else None

    def begin(
        self, now: float, tag: Tag | None, *, auto: bool = False, quick: bool = False
    ) -> Run | None:
        """Start the job, unless it is running."""
        if self.active(now):
            return None
        length = "quick" if quick else self.choices.pick({"medium": 4, "quick": 3, "long": 2})
        low, high = {"quick": (0.2, 3.0), "medium": (5.0, 60.0), "long": (100.0, 400.0)}[length]
        end = self.choices.pick({"SUCCEEDED": 6, "FAILED": 3, "FAILURE_ON_SUBMIT": 1})
        stamp = int((EPOCH + now + self.skew) * 1000)
        if self.dates == "coarse":
            stamp -= stamp % 1000
        ends = now + self.choices.between(low, high)
        self.runs.append(Run(len(self.runs) + 1, stamp, now, ends, end, tag, auto))
        return self.runs[-1]

    def stop(self, now: float) -> None:
        """Stop the active run, a little later."""
        if (run := self.active(now)) is not None:
            run.ends, run.end = min(run.ends, now + 2.0), "STOPPED"

    def answer(self, request: Request, now: float, tag: Tag) -> Response:
        """Do what is asked for."""
        if request.url.endswith("/start"):
            run = self.begin(now, tag)
            if run is None:
                return self.refuse(now, 400, "Cdm.0052")
            return self.respond(now, {"submissions": [self._row(run, now, answer=True)]})
        if request.url.endswith("/status"):
            rows = [self._row(run, now) for run in self.runs[-1:]]
            return self.respond(now, {"submissions": rows})
        rows = [self._row(run, now) for run in reversed(self.runs[-ROWS:])]
        total = {"total": len(self.runs)} if self.says_total else {}
        return self.respond(now, {"submissions": rows, **total})

    def respond(self, now: float, body: Any, status: int = 200, **headers: str) -> Response:
        """Make an answer."""
        if self.says_date:
            headers["date"] = formatdate(EPOCH + now + self.skew, usegmt=True)
        return Response(status, headers, json.dumps(body).encode())

    def refuse(self, now: float, status: int, code: str, **headers: str) -> Response:
        """Make an answer that says no."""
        return self.respond(now, {"errCode": code, "externalMessage": "no"}, status, **headers)

    def find(self, number: int | None, created: int | None) -> list[Run]:
        """The runs that are meant; several only where nothing tells them apart."""
        if number is not None:
            return [run for run in self.runs if run.number == number]
        return [run for run in self.runs if run.shown == created]

    def _row(self, run: Run, now: float, *, answer: bool = False) -> dict[str, Any]:
        ended = not run.active(now)
        row: dict[str, Any] = {
            "job-name": "orders",
            "status": run.end if ended else "RUNNING" if now > run.began + 1 else "BOOTING",
            "is-execute-auto": run.auto,
        }
        if self.ids == "all" or (self.ids == "not in answers" and not answer):
            row["submission-id"] = run.number
        if self.dates != "none" and not (answer and self.dates == "not in answers"):
            row["creation-date"] = run.shown
        if ended:
            row["last-update-date"] = int((EPOCH + run.ends + self.skew) * 1000)
        return row
