"""What Airflow's logs mask of a token."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import random
import string
import textwrap
from collections.abc import Callable
from urllib.parse import quote, urlencode

import pytest

from airflow_provider_cdm import _compat
from airflow_provider_cdm.client.auth.masking import texts_to_mask
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.simulator import CdmSimulator

RNG = random.Random(18)
#: Characters that must be missing from what is left of a token, each of which holds 6 bits.
MISSING = 16


def token_of(length: int) -> str:
    """Return a token in the form of IAM's: Base64, with a beginning that all have."""
    alphabet = string.ascii_letters + string.digits + "+-/"
    return ("MIIYJQYJKoZIhvcNAQcCoIIYFjCC" + "".join(RNG.choices(alphabet, k=length)))[:length]


TOKENS = {
    "of IAM": token_of(8_000),
    "of IAM, padded": token_of(7_990) + "A" * 400 + "==",
    "short": token_of(90),
    "id": "3f0c9a51d2b44f8e8f0a6f6f3a1d7c52",
    "without a run of letters": "-".join(RNG.choices(string.ascii_letters, k=2_000)),
}
HEADERS = "X-Auth-Token"
LINES: dict[str, Callable[[str], str]] = {
    "line": lambda token: f"sending {token} to CDM",
    "repr of headers": lambda token: repr({HEADERS: token}),
    "bytes": lambda token: repr({HEADERS: token}.items()).encode().decode(),
    "json": lambda token: json.dumps(json.dumps({HEADERS: token})),
    "html": lambda token: html.escape(f"<td>{token}</td>"),
    "url": lambda token: f"https://x/?{urlencode({'token': token})}",
    "path": lambda token: quote(token),
    "hexadecimal": lambda token: f"header {token.encode().hex()}",
    "base64": lambda token: base64.b64encode(token.encode()).decode(),
    "base64 after a byte": lambda token: base64.b64encode(b"x" + token.encode()).decode(),
    "base64 after two": lambda token: base64.b64encode(b"xy" + token.encode() + b"z").decode(),
    "base64 for urls": lambda token: base64.urlsafe_b64encode(f"u:{token}".encode()).decode(),
}


def shown(line: str) -> str:
    """Return a line as Airflow's logs show it."""
    return _compat.redact_secrets({"line": line})["line"]


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("form", LINES)
def test_what_is_left_of_a_token_is_of_no_use(kind: str, form: str) -> None:
    """In whatever form a token gets into a log, what is left lacks more than anyone can guess."""
    token = TOKENS[kind]
    _compat.mask_secret(texts_to_mask(token))
    line = LINES[form](token)
    left = shown(line).replace("***", "")
    assert len(line) - len(left) >= min(MISSING, len(token))


@pytest.mark.parametrize("width", [57, 64, 76, 80, 120, 400])
@pytest.mark.parametrize("kind", ["of IAM", "of IAM, padded"])
def test_lines_that_are_wrapped(kind: str, width: int) -> None:
    """A line break inside of one piece leaves the other to be found."""
    token = TOKENS[kind]
    _compat.mask_secret(texts_to_mask(token))
    for begin in range(width):
        line = "\n".join(textwrap.wrap("x" * begin + token, width))
        assert len(line) - len(shown(line).replace("***", "")) >= MISSING


def test_masking_a_token_is_cheap() -> None:
    """Airflow compiles what it masks, which takes a thousandth of a millisecond a character."""
    assert sum(map(len, texts_to_mask(TOKENS["of IAM"]))) <= 200


@pytest.mark.parametrize("way", ["worker", "triggerer"])
def test_tokens_of_a_hook_are_masked(
    way: str, sim: CdmSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that a task or a trigger gets is masked."""
    monkeypatch.setenv("AIRFLOW_CONN_CDM_DEFAULT", sim.connection_json)
    sim.add_job("orders")

    async def wait() -> None:
        hook = CdmHook()
        session = await hook.aget_conn()
        await session.arun(session.api.active_run(sim.cluster_id, "orders"))

    if way == "worker":
        CdmHook().get_job_status("orders", sim.cluster_id)
    else:
        asyncio.run(wait())
    (token,) = {request.headers["x-auth-token"] for request in sim.requests[1:]}
    assert len(token) > 1_000
    assert len(token) - len(shown(token).replace("***", "")) >= MISSING
