"""What the tests of the client share: the simulator's configuration, both drivers, the wire."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.auth.token import TokenAuth
from airflow_provider_cdm.client.http.retry import Exchanger, RetryPolicy
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.sansio import Request, Response, Sleep, TransportError
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import PasswordCredentials, Settings
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock


@pytest.fixture
def config() -> dict[str, Any]:
    """What the simulator is configured with; a test that parametrises ``config`` replaces it."""
    return {}


@pytest.fixture
def sim(config: dict[str, Any], clock: ManualClock) -> Iterator[CdmSimulator]:
    """A fresh simulator that runs on the test's clock."""
    with CdmSimulator(config, clock=clock) as simulator:
        yield simulator


@pytest.fixture(params=["thread", "event loop"])
def drive(request: pytest.FixtureRequest) -> Callable[[CdmSession, Any], Any]:
    """Perform a flow: once on the calling thread, once on an event loop."""
    if request.param == "thread":
        return lambda session, flow: session.run(flow)
    return lambda session, flow: asyncio.run(session.arun(flow))


@pytest.fixture
def sent(sim: CdmSimulator) -> Callable[..., list[Any]]:
    """What arrived at the simulator on some routes (all but the token's, if none is named)."""

    def sent(*routes: str) -> list[Any]:
        return [
            request
            for request in sim.requests
            if (request.route in routes if routes else request.route != "token")
        ]

    return sent


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be on a machine whose time zone is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        yield
    time.tzset()


BEGIN = 1_735_787_045.0
TOKEN = {"token": {"expires_at": "2099-01-01T00:00:00Z"}}
OURS = RunRef("c", "orders", submission_id=5, creation_date=int(BEGIN * 1000))


@dataclass
class FakeCdm:
    """CDM, played by hand: without sockets, and pauses move the clock.

    What is shown is a list of submissions, or an answer, or an error of the transport.

    :param shown: what the status calls show, one after the other; the last one stays.
    :param histories: the same for the history.
    :param looks: when a status call came, in seconds since the begin.
    :param dice: what stands for a random number.
    """

    shown: list[Any]
    histories: list[Any] = field(default_factory=lambda: [[]])
    now: float = BEGIN
    looks: list[float] = field(default_factory=list)
    dice: float = 0.5

    def __post_init__(self) -> None:
        factory.forget_everything()
        self.shown, self.histories = list(self.shown), list(self.histories)
        exchanger = Exchanger(RetryPolicy(attempts=1), lambda: self.now, lambda: self.dice)
        place = "https://cdm.example"
        setup = Settings(place, place, PasswordCredentials("u", "p", "d"), project_id="p")
        self.api = CdmApi(setup, TokenAuth(setup, exchanger), exchanger)

    def play(self, flow: Any) -> Any:
        """Perform a flow to its end."""
        try:
            step = next(flow)
            while True:
                if isinstance(step, Sleep):
                    self.now += step.seconds
                    step = flow.send(None)
                    continue
                answer = self.answer(step)
                throws = isinstance(answer, TransportError)
                step = flow.throw(answer) if throws else flow.send(answer)
        except StopIteration as end:
            return end.value

    def answer(self, request: Request) -> Response | TransportError:
        """Answer one request."""
        if request.url.endswith("/tokens?nocatalog=true"):
            return Response(201, {"x-subject-token": "MII"}, json.dumps(TOKEN).encode())
        script = self.histories
        if "/submissions?" not in request.url:
            script = self.shown
            self.looks.append(self.now - BEGIN)
            assert len(self.looks) < 5_000, "this never ends"
        shown = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(shown, Response | TransportError):
            return shown
        return Response(200, {}, json.dumps({"submissions": shown}).encode())

    def follow(self, run: RunRef = OURS, *, deadline: float | None = None, **more: Any) -> Any:
        """Follow a run with a look every ten seconds."""
        until = None if deadline is None else BEGIN + deadline
        return self.play(Follower(run, **more).follow(self.api, poll_interval=10, deadline=until))


@pytest.fixture(scope="session")
def play_cdm() -> type[FakeCdm]:
    """Make a CDM that is played by hand."""
    return FakeCdm
