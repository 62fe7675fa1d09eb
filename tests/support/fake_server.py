"""A fake server without sockets: it performs a flow and gives the responses that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.sansio import (
    Flow,
    Offload,
    Request,
    Response,
    Save,
    TransportError,
)
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import (
    Agency,
    KeyCredentials,
    PasswordCredentials,
    Settings,
)
from tests.support.canned_responses import PROJECTS_BODY, TOKEN_BODY, CannedResponse

BEGIN = 1_735_787_045.0
CREATED = int(BEGIN * 1000)
ENDPOINT = "https://cdm.example"
#: Contains characters that JSON and URLs escape.
PASSWORD = 'pass "word" /of\\u+%&é'
TOKEN = "MII" + "token/Of+Iam" * 100
SECRET_KEY, SECURITY_TOKEN = "sk-of-u/+abcdefgh", "sts/Of+U" * 40
SECRETS = (PASSWORD, TOKEN, SECRET_KEY, SECURITY_TOKEN)

_PASSWORD = PasswordCredentials("u", PASSWORD, "d")
_KEYS = KeyCredentials("ak-of-u", SECRET_KEY)
_TEMPORARY = KeyCredentials("ak-of-u", SECRET_KEY, SECURITY_TOKEN)
_AGENCY = Agency("a", "other")
#: Settings by the kind of credentials.
USERS: dict[str, Settings] = {
    "password": Settings(ENDPOINT, ENDPOINT, _PASSWORD, project_id="p"),
    "password, project by name": Settings(ENDPOINT, ENDPOINT, _PASSWORD, project_name="r-1"),
    "keys": Settings(ENDPOINT, ENDPOINT, _KEYS, project_id="p"),
    "keys, project by name": Settings(ENDPOINT, ENDPOINT, _TEMPORARY, project_name="r-1"),
    "agency by password": Settings(ENDPOINT, ENDPOINT, _PASSWORD, _AGENCY, project_name="r-1"),
    "agency by keys": Settings(ENDPOINT, ENDPOINT, _TEMPORARY, _AGENCY, project_id="p"),
}
MakeFlow: TypeAlias = Callable[[CdmApi], Flow[Any]]


@dataclass
class FakeServer:
    """Gives chosen responses to some requests and valid ones to all others.

    :param responses: chosen responses, in order; the last one is repeated.
    :param url_part: part of the URL of the requests that get them.
    :param now: time in epoch seconds; pauses of the flow advance it.
    :param steps: number of steps of the flow so far.
    :param used: number of chosen responses that were given.
    :param record: record that the flow stored last.
    """

    responses: Sequence[CannedResponse | Callable[[Request], CannedResponse]]
    url_part: str
    now: float = BEGIN
    steps: int = 0
    used: int = 0
    record: Mapping[str, Any] | None = field(default=None)

    def run(self, make_flow: MakeFlow, settings: Settings) -> Any:
        """Perform a flow and return its result."""
        factory.forget_everything()
        now = lambda: self.now  # noqa: E731
        session = CdmSession(settings, clock=now, monotonic=now, rng=lambda: 0.5)
        flow = make_flow(session.api)
        step = next(flow, None)
        try:
            while True:
                self.steps += 1
                assert self.steps < 2_000, "the flow does not end"
                if isinstance(step, Request):
                    step = _resume(flow, self._respond(step))
                elif isinstance(step, Save):
                    self.record = json.loads(json.dumps(step.record, allow_nan=False))
                    step = flow.send(None)
                elif isinstance(step, Offload):
                    step = flow.send(step.work())
                else:
                    assert step is not None
                    assert 0 <= step.seconds <= 301
                    self.now += step.seconds
                    step = flow.send(None)
        except StopIteration as end:
            return end.value

    def _respond(self, request: Request) -> CannedResponse:
        _check_request(request)
        self.now += 0.1
        if self.url_part in request.url:
            response = self.responses[min(self.used, len(self.responses) - 1)]
            self.used += 1
            return response(request) if callable(response) else response
        if "/v3/projects" in request.url:
            return Response(200, {}, json.dumps(PROJECTS_BODY).encode())
        if "/v3/" in request.url:
            return Response(201, {"x-subject-token": TOKEN}, json.dumps(TOKEN_BODY).encode())
        run = {"status": "SUCCEEDED", "submission-id": 5, "creation-date": CREATED}
        return Response(200, {}, json.dumps({"submissions": [run], "total": 1}).encode())


def _resume(flow: Flow[Any], response: CannedResponse) -> Any:
    if isinstance(response, TransportError):
        return flow.throw(response)
    return flow.send(response)


def _check_request(request: Request) -> None:
    """Check that earlier responses did not make this request invalid."""
    assert request.url.isascii()
    assert request.url.isprintable()
    assert " " not in request.url
    for value in request.headers.values():
        assert not set(b"\r\n") & set(value.encode("latin-1"))
