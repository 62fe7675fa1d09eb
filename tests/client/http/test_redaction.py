"""Redaction: secrets that a server repeats in its response are not shown to people."""

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

#: Length of the pieces of a secret that must not be shown, in characters.
PIECE_LENGTH = 12
REQUEST = StartRequest("c", "j", {"dt": "1"})


def start_job(api: CdmApi) -> Flow[Any]:
    """Start a job, with all calls that this needs."""
    return start_once(api, REQUEST, None, StartPolicy())


@dataclass(frozen=True)
class Echo:
    """A secret that a server repeats: kind of credentials, part of the URL, and the secret."""

    user: str
    url_part: str
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
    "message": lambda text: Response(400, {}, json.dumps({"message": f"No: {text}!"}).encode()),
    "message of the gateway": lambda text: Response(
        401, {}, json.dumps({"error_code": "APIGW.0301", "error_msg": f"bad {text}"}).encode()
    ),
    "message of a call that is repeated": lambda text: Response(
        503, {}, json.dumps({"errCode": "Cdm.0000", "externalMessage": text}).encode()
    ),
    "validation": lambda text: Response(
        500, {}, json.dumps({"validation-result": [{"message": text, "status": "ERROR"}]}).encode()
    ),
    "code": lambda text: Response(400, {}, json.dumps({"errCode": text[:60]}).encode()),
    "page": lambda text: Response(502, {}, f"<html>{html.escape(text)}</html>".encode()),
    "page, as sent": lambda text: Response(403, {}, f"<html>{text}</html>".encode()),
    "page with a success status": lambda text: Response(200, {}, f"<pre>{text}</pre>".encode()),
    "half of it": lambda text: Response(400, {}, text[: len(text) // 2].encode()),
    "address": lambda text: Response(302, {"location": f"https://x/{quote(text)}"}, b""),
    "request id": lambda text: Response(400, {"x-request-id": text[:60]}, b""),
}


def shown(echo: Echo, repeat: Repeat, complete: bool, caplog: pytest.LogCaptureFixture) -> str:
    """Return errors and logs when the server repeats a secret, or the complete request."""

    def respond(request: Request) -> Response | TransportError:
        if echo.secret not in f"{request.headers}{json.loads(request.body or b'null')}":
            # An earlier call that does not contain this secret.
            return Response(201, {"x-subject-token": TOKEN}, json.dumps(TOKEN_BODY).encode())
        sent = (
            f"{dict(request.headers)} {(request.body or b'').decode()}" if complete else echo.secret
        )
        return repeat(sent)

    with caplog.at_level(logging.DEBUG):
        try:
            result: Any = FakeServer([respond], echo.url_part).run(start_job, USERS[echo.user])
        except errors.CdmError as error:
            result = f"{error} {error!r} {error.__dict__} {errors.to_payload(error)}"
    return f"{result}\n{caplog.text}"


def pieces(secret: str) -> set[str]:
    """Return the pieces of a secret in every spelling."""
    spellings = {secret, json.dumps(secret)[1:-1], html.escape(secret), quote(secret)}
    spellings |= {repr(secret)[1:-1], json.dumps(json.dumps(secret)[1:-1])[1:-1]}
    return {
        spelling[start : start + PIECE_LENGTH]
        for spelling in spellings
        for start in range(max(1, len(spelling) - PIECE_LENGTH + 1))
    }


@pytest.mark.parametrize("name", sorted(ECHOES))
def test_nothing_of_a_secret_is_shown(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither errors nor logs show a piece of a secret that a server repeats."""
    echo = ECHOES[name]
    failures = []
    for way, repeat in WAYS.items():
        for complete in (False, True):
            caplog.clear()
            seen = shown(echo, repeat, complete, caplog)
            if any(piece in seen for piece in pieces(echo.secret)):
                failures.append(f"{way}, {'in the request' if complete else 'alone'}")
    assert not failures


def test_the_search_finds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """The search of the test above finds a secret if there is one."""
    seen = shown(
        ECHOES["token at CDM"], lambda text: Response(400, {}, b"not secret"), True, caplog
    )
    assert "not secret" in seen
    assert any(piece in f"{seen} {TOKEN[100:130]}" for piece in pieces(TOKEN))
