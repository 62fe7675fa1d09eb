"""A server that repeats what it was sent, in its answer: nothing of that may be shown to people."""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.jobs.start import start_once
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRequest
from airflow_provider_cdm.client.sansio import Flow, Request, Response, TransportError
from tests.support.canned_responses import TOKEN_BODY
from tests.support.fake_server import PASSWORD, SECURITY_TOKEN, TOKEN, USERS, FakeServer

#: As much of a secret as must not be shown.
PIECE = 12
ORDER = StartRequest("p", "c", "j", {"dt": "1"})


def visit(api: CdmApi) -> Flow[Any]:
    """Start a job, with all that this takes."""
    return start_once(api, ORDER, None, StartPolicy())


@dataclass(frozen=True)
class Echo:
    """Who is asked, which secret that is sent there, and as whom."""

    who: str
    route: str
    secret: str


ECHOES = {
    "password at IAM": Echo("password", "/auth/tokens", PASSWORD),
    "token at CDM": Echo("password", "/v1.1/", TOKEN),
    "token at IAM": Echo("agency by password", "/auth/tokens", TOKEN),
    "security token at CDM": Echo("keys, project by name", "/v1.1/", SECURITY_TOKEN),
    "security token at IAM": Echo("keys, project by name", "/v3/projects", SECURITY_TOKEN),
    "security token for an agency": Echo("agency by keys", "/auth/tokens", SECURITY_TOKEN),
}
Repeat = Callable[[str], Response | TransportError]
WAYS: dict[str, Repeat] = {
    "message": lambda said: Response(400, {}, json.dumps({"message": f"No: {said}!"}).encode()),
    "message of the gateway": lambda said: Response(
        401, {}, json.dumps({"error_code": "APIGW.0301", "error_msg": f"bad {said}"}).encode()
    ),
    "message that is tried again": lambda said: Response(
        503, {}, json.dumps({"errCode": "Cdm.0000", "externalMessage": said}).encode()
    ),
    "validation": lambda said: Response(
        500, {}, json.dumps({"validation-result": [{"message": said, "status": "ERROR"}]}).encode()
    ),
    "code": lambda said: Response(400, {}, json.dumps({"errCode": said[:60]}).encode()),
    "page": lambda said: Response(502, {}, f"<html>{html.escape(said)}</html>".encode()),
    "page, as sent": lambda said: Response(403, {}, f"<html>{said}</html>".encode()),
    "success that is none": lambda said: Response(200, {}, f"<pre>{said}</pre>".encode()),
    "half of it": lambda said: Response(400, {}, said[: len(said) // 2].encode()),
    "address": lambda said: Response(302, {"location": f"https://x/{quote(said)}"}, b""),
    "request id": lambda said: Response(400, {"x-request-id": said[:60]}, b""),
}


def shown(echo: Echo, repeat: Repeat, whole: bool, caplog: pytest.LogCaptureFixture) -> str:
    """All that people get to see when the server repeats a secret, or the whole request."""

    def answer(request: Request) -> Response | TransportError:
        if echo.secret not in f"{request.headers}{json.loads(request.body or b'null')}":
            # The call of the delegated user, before the one that carries this secret.
            return Response(201, {"x-subject-token": TOKEN}, json.dumps(TOKEN_BODY).encode())
        sent = f"{dict(request.headers)} {(request.body or b'').decode()}" if whole else echo.secret
        return repeat(sent)

    with caplog.at_level(logging.DEBUG):
        try:
            found: Any = FakeServer([answer], echo.route).run(visit, USERS[echo.who])
        except errors.CdmError as error:
            found = f"{error} {error!r} {error.__dict__} {errors.to_payload(error)}"
    return f"{found}\n{caplog.text}"


def pieces(secret: str) -> set[str]:
    """Pieces of a secret, as it may be spelt."""
    spellings = {secret, json.dumps(secret)[1:-1], html.escape(secret), quote(secret)}
    spellings |= {repr(secret)[1:-1], json.dumps(json.dumps(secret)[1:-1])[1:-1]}
    return {
        spelt[at : at + PIECE]
        for spelt in spellings
        for at in range(max(1, len(spelt) - PIECE + 1))
    }


@pytest.mark.parametrize("name", sorted(ECHOES))
def test_nothing_of_a_secret_is_shown(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither errors nor logs show any piece of a secret that a server repeats."""
    echo = ECHOES[name]
    showing = []
    for way, repeat in WAYS.items():
        for whole in (False, True):
            caplog.clear()
            seen = shown(echo, repeat, whole, caplog)
            if any(piece in seen for piece in pieces(echo.secret)):
                showing.append(f"{way}, {'in the request' if whole else 'alone'}")
    assert not showing


def test_the_search_finds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """What the test above searches would show a secret, if one was there."""
    seen = shown(
        ECHOES["token at CDM"], lambda said: Response(400, {}, b"not secret"), True, caplog
    )
    assert "not secret" in seen
    assert any(piece in f"{seen} {TOKEN[100:130]}" for piece in pieces(TOKEN))
