"""Fixtures of the tests of the client: both drivers, and a fake CDM without sockets."""

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
from airflow_provider_cdm.simulator import CdmSimulator


@pytest.fixture(params=["thread", "event loop"])
def drive(request: pytest.FixtureRequest) -> Callable[[CdmSession, Any], Any]:
    """Return a function that performs a flow: once on the calling thread, once on an event loop."""
    if request.param == "thread":
        return lambda session, flow: session.run(flow)
    return lambda session, flow: asyncio.run(session.arun(flow))


@pytest.fixture
def sent(sim: CdmSimulator) -> Callable[..., list[Any]]:
    """Return a function that returns the simulator's requests on some routes.

    Without routes, it returns all requests but those for a token.
    """

    def sent(*routes: str) -> list[Any]:
        return [
            request
            for request in sim.requests
            if (request.route in routes if routes else request.route != "token")
        ]

    return sent


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set a time zone that is not UTC."""
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
    """A fake CDM without sockets; pauses of a flow advance its clock.

    A response is a list of submissions, a :class:`Response`, or an error of the transport.

    :param shown: responses to status calls, in order; the last one is repeated.
    :param histories: responses to history calls, in the same form.
    :param now: time in epoch seconds.
    :param looks: times of the status calls, in seconds since ``BEGIN``.
    :param dice: number that is used for every random number.
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
        endpoint = "https://cdm.example"
        settings = Settings(endpoint, endpoint, PasswordCredentials("u", "p", "d"), project_id="p")
        self.api = CdmApi(settings, TokenAuth(settings, exchanger), exchanger)

    def play(self, flow: Any) -> Any:
        """Perform a flow and return its result."""
        try:
            step = next(flow)
            while True:
                if isinstance(step, Sleep):
                    self.now += step.seconds
                    step = flow.send(None)
                    continue
                response = self.respond(step)
                failed = isinstance(response, TransportError)
                step = flow.throw(response) if failed else flow.send(response)
        except StopIteration as end:
            return end.value

    def respond(self, request: Request) -> Response | TransportError:
        """Return the next response to a request."""
        if request.url.endswith("/tokens?nocatalog=true"):
            return Response(201, {"x-subject-token": "MII"}, json.dumps(TOKEN).encode())
        script = self.histories
        if "/submissions?" not in request.url:
            script = self.shown
            self.looks.append(self.now - BEGIN)
            assert len(self.looks) < 5_000, "the flow does not end"
        shown = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(shown, Response | TransportError):
            return shown
        return Response(200, {}, json.dumps({"submissions": shown}).encode())

    def follow(
        self,
        run: RunRef = OURS,
        *,
        deadline: float | None = None,
        poll_interval: float = 10,
        is_new: bool = False,
        **more: Any,
    ) -> Any:
        """Follow a run, by default with a status call every ten seconds."""
        until = None if deadline is None else BEGIN + deadline
        follower = Follower(run, **more)
        return self.play(
            follower.follow(self.api, poll_interval=poll_interval, deadline=until, is_new=is_new)
        )


@pytest.fixture(scope="session")
def play_cdm() -> type[FakeCdm]:
    """Return the class of the fake CDM."""
    return FakeCdm
