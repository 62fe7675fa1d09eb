"""Signatures with an access key, compared with known values and the official SDK's signer."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client.auth.signing import sign
from airflow_provider_cdm.client.sansio import Request
from airflow_provider_cdm.client.settings import KeyCredentials

KEYS = KeyCredentials("AKEXAMPLE0000000001", "SKexample00000000000000000000000000000001")
HOST = "cdm.eu-west-101.myhuaweicloud.eu"
PROJECT = "1551c7f6c808414d8e9f3c514a170f2e"
CLUSTER = f"/v1.1/{PROJECT}/clusters/6ec9a0a4-76be-4262-8697-e7af1fac7920/cdm"
NOW = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
HEADERS = {"Content-Type": "application/json", "X-Project-Id": PROJECT}


@pytest.mark.parametrize(
    ("method", "target", "body", "signature"),
    [
        (
            *("PUT", "/job/jdbc2hive/start", b'{"variables":{"dt":"20250101"}}'),
            "e83934aa847778edafad1cf9db755bcfcc1d1c74d34d8226d516b3288a700061",
        ),
        (
            *("GET", "/submissions?jname=jdbc2hive", None),
            "c7fd71d0bd8e3fbc914adeeb19e72da271e6b2bd10a309db300b3efc57b52a27",
        ),
    ],
)
def test_known_signatures(method: str, target: str, body: bytes | None, signature: str) -> None:
    """Two requests get their known signatures."""
    request = Request(method, f"https://{HOST}{CLUSTER}{target}", HEADERS, body)
    assert sign(request, KEYS, NOW).headers["Authorization"].endswith(f"Signature={signature}")


@pytest.mark.long
@settings(max_examples=300)
@example(method="GET", name="%00", query={}, body=None, token=None)
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE"]),
    name=st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=20),
    query=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
    body=st.none() | st.text(max_size=30),
    token=st.none() | st.text("abcdef", min_size=1, max_size=8),
)
def test_same_as_the_official_signer(
    method: str, name: str, query: dict[str, str], body: str | None, token: str | None
) -> None:
    """Any request gets exactly the Authorization header that the official SDK sends."""
    path = f"{CLUSTER}/job/{quote(name, safe='~')}"
    keys = KeyCredentials("AK", "SK", token)
    text = f"?{urlencode(query, quote_via=quote)}" if query else ""
    ours = sign(
        Request(
            method, f"https://{HOST}{path}{text}", HEADERS, None if body is None else body.encode()
        ),
        keys,
        NOW,
    )
    theirs = SdkRequest(
        method=method,
        schema="https",
        host=HOST,
        resource_path=f"{CLUSTER}/job/{quote(name, safe='')}",
        uri=path,
        query_params=list(query.items()),
        header_params={k: v for k, v in ours.headers.items() if k != "Authorization"},
        body=body or "",
    )
    signed = Signer(BasicCredentials("AK", "SK", PROJECT)).sign(theirs)
    assert ours.headers["Authorization"] == signed.header_params["Authorization"]


def test_nothing_secret_is_shown() -> None:
    """Neither the access key's repr nor a signed request contains the secret."""
    request = sign(Request("GET", f"https://{HOST}/"), KEYS, NOW)
    assert KEYS.secret_key not in f"{KEYS!r} {request!r} {request.headers}"
