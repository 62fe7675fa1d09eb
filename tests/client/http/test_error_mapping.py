"""Errors of failed exchanges: every documented body, and bodies that are not JSON."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.sansio import Obstacle, Request, Response, TransportError
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import Drive, MakeSession

NOW = 1_735_787_045.0  # 2025-01-02T03:04:05Z
SAMPLES = json.loads((Path(__file__).parents[2] / "wire" / "errors.json").read_text())
JOB = "orders"


def error_of(
    status: int, body: bytes | Any = b"", headers: dict[str, str] | None = None
) -> errors.CdmError:
    """Return the error that a response means."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = error_mapping.from_response(Response(status, headers or {}, raw), "start job 'a'", NOW)
    assert error is not None
    return error


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample["name"] for sample in SAMPLES])
def test_samples(sample: dict[str, Any]) -> None:
    """Each documented body gives class, code, reason and advice."""
    body = sample["raw"].encode() if "raw" in sample else sample["body"]
    error = error_of(sample["status"], body, sample.get("headers"))
    cls, code, *texts = sample["means"]
    assert (type(error).__name__, error.code) == (cls, code)
    assert error.http_status == sample["status"]
    for text in (" Could not start job 'a' (", f"HTTP {sample['status']}", *texts):
        assert text in str(error)
    # The reason comes first: a line of the log may be cut off behind it.
    assert not str(error).startswith("Could not")
    temporary = cls in ("CdmThrottled", "CdmUnavailable")
    assert error.retryable is sample.get("retryable", temporary)
    assert error.effect_unknown is (cls == "CdmUnavailable")
    assert sample["source"].startswith(("documented", "recorded", "assumed"))


CODES = {
    errors.CdmUnavailable: "0000 0031 0036 0201 0202 0307",
    errors.CdmAuthError: "0032",
    errors.CdmAlreadyRunning: "0052 0323",
    errors.CdmNotRunning: "0053",
    errors.CdmNotFound: "0054 0095 0100 0101 0102 0316 0319",
    errors.CdmAlreadyExists: "0104 0315 0318",
    errors.CdmInUse: "0321 0322",
    errors.CdmRefused: "0004 0009 0010 0011 0014 0018 0021 0024 0037 0051 0055 0056 0057 0058"
    " 0059 0060 0061 0065 0085 0089 0317 0320 0327 0901 0950 4711",
}


@pytest.mark.parametrize("status", [400, 404, 500])
@pytest.mark.parametrize(
    ("cls", "number"), [(cls, n) for cls, numbers in CODES.items() for n in numbers.split()]
)
def test_code_before_status(cls: type[errors.CdmError], number: str, status: int) -> None:
    """A code of CDM alone decides, since the same code is documented with status 400 and 500."""
    error = error_of(status, {"errCode": f"Cdm.{number}", "externalMessage": "text"})
    assert type(error) is cls
    assert error.code == f"Cdm.{number}"
    undocumented_failure = (number, status) == ("4711", 500)
    assert error.effect_unknown is (cls is errors.CdmUnavailable or undocumented_failure)


@pytest.mark.parametrize(
    ("status", "cls"), [(400, errors.CdmRefused), (404, errors.CdmNotFound)], ids=str
)
def test_a_code_with_two_meanings(status: int, cls: type[errors.CdmError]) -> None:
    """The status decides for the one code that means "missing" as well as "invalid"."""
    assert type(error_of(status, {"errCode": "Cdm.0001", "externalMessage": "text"})) is cls


GATEWAY = [
    (errors.CdmNotFound, 404, "0101"),
    (errors.CdmUnavailable, 500, "0103 0104 0105 0201 0601 0605 0606 0608 0609 0611"),
    (errors.CdmUnavailable, 502, "0201 0610"),
    (errors.CdmUnavailable, 503, "0613"),
    (errors.CdmUnavailable, 504, "0201"),
    (errors.CdmRefused, 400, "0106 0201 0204 0602 0607"),
    (errors.CdmRefused, 414, "0201"),
    (errors.CdmRefused, 494, "0201"),
    (errors.CdmAuthError, 401, "0301 0303 0305 0307 0311"),
    (errors.CdmAuthError, 403, "0302 0304 0306 0310 0401 0402 0403 0404 0802"),
    (errors.CdmThrottled, 429, "0308"),
]


@pytest.mark.parametrize("prefix", ["APIGW", "APIG", "apig"])
@pytest.mark.parametrize(
    ("cls", "status", "number"), [(c, s, n) for c, s, numbers in GATEWAY for n in numbers.split()]
)
def test_gateway_codes(cls: type[errors.CdmError], status: int, number: str, prefix: str) -> None:
    """A code of the gateway is reported in one spelling, and the status decides."""
    error = error_of(status, {"error_code": f"{prefix}.{number}", "error_msg": "text"})
    assert type(error) is cls
    assert error.code == f"APIGW.{number}"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (" 1.5 ", 1.5),
        ("Thu, 02 Jan 2025 03:04:35 GMT", 30.0),
        ("Thu, 02 Jan 2025 04:04:35 +0100", 30.0),
        ("Thursday, 02-Jan-25 03:04:35 GMT", 30.0),
        ("Thu Jan  2 03:04:35 2025", 30.0),
        ("Thu, 02 Jan 2025 03:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("1e3", None),
        ("99999999999999999999", None),
        ("Thu, 99 Jan 2025 03:04:35 GMT", None),
        ("Thu, 02 Jan 2025 03:04:35 +99999999999999", None),
    ],
)
@pytest.mark.usefixtures("far_from_utc")
def test_retry_after(header: str, seconds: float | None) -> None:
    """Seconds and HTTP dates are read in any time zone; other values are ignored."""
    assert error_of(429, headers={"retry-after": header}).retry_after == seconds


@pytest.mark.parametrize(
    ("headers", "body", "request_id"),
    [
        ({"x-request-id": "r-1"}, {"request_id": "r-3"}, "r-1"),
        ({"x-iam-trace-id": "r-2"}, {}, "r-2"),
        ({}, {"request_id": "r-3"}, "r-3"),
        ({}, {}, None),
    ],
)
def test_request_id(headers: dict[str, str], body: dict[str, str], request_id: str | None) -> None:
    """The request id, which support asks for, is in the error's attributes and message."""
    error = error_of(500, body, headers)
    assert error.request_id == request_id
    assert (f"request id {request_id}" in str(error)) is (request_id is not None)


@given(
    st.integers(100, 999),
    st.dictionaries(
        st.sampled_from(["retry-after", "location", "x-request-id"]),
        st.text(st.characters(max_codepoint=255), max_size=40),
    ),
    st.binary(max_size=60)
    | st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=30)
        | st.text(min_size=1300, max_size=1310),
        lambda inside: (
            st.lists(inside, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "errCode", "error_code", "message", "validation-result"]),
                inside,
                max_size=3,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
@settings(derandomize=True, max_examples=100)
def test_any_answer_is_interpreted(status: int, headers: dict[str, str], body: bytes) -> None:
    """Only a 2xx status is a success; any other response is an error with a short message."""
    error = error_mapping.from_response(Response(status, headers, body), "start job 'a'", NOW)
    assert (error is None) is (200 <= status < 300)
    if error is not None:
        assert error.http_status == status
        assert len(str(error)) < 2_000
        assert error.retry_after is None or error.retry_after >= 0


@pytest.mark.parametrize("depth", [900, 100_000])
def test_deep_bodies(depth: int) -> None:
    """A deeply nested body is interpreted like any other."""
    body = b'{"validation-result": ' + b"[" * depth + b"]" * depth + b"}"
    assert type(error_of(500, body)) is errors.CdmUnavailable


def test_enormous_code() -> None:
    """A code with thousands of digits is ignored."""
    assert error_of(500, {"errCode": "Cdm." + "1" * 5000}).code is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("route", ["token", "start", "status"])
def test_redirects_are_not_followed(
    route: str, status: int, drive: Drive, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """A redirect is an error that names the target, and nothing is sent to the target."""
    sim.add_job(JOB)
    session = make_session()
    with CdmSimulator() as elsewhere:
        target = f"{elsewhere.url}/v1.1/p/clusters/c/cdm/job/orders/start"
        sim.fail(route, "status", status=status, headers={"Location": f"{target}?a=secret"})
        flow = (
            session.api.call(runs.status(sim.cluster_id, JOB))
            if route == "status"
            else session.api.call(runs.start_job(sim.cluster_id, JOB))
        )
        with pytest.raises(errors.CdmBadResponse) as caught:
            drive(session, flow)
        assert elsewhere.requests == []
    assert f"redirects to {target}, and redirects are not followed" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert [r.status for r in sim.requests if r.route == route] == [status]
    assert sim.runs(JOB) == []


@pytest.mark.parametrize(
    ("obstacle", "advice"),
    [
        (Obstacle.NAME, "Check the spelling of the endpoint"),
        (Obstacle.REFUSED, "check host and port of the endpoint"),
        (Obstacle.NO_ROUTE, "Check that the network lets this machine connect to"),
        (Obstacle.CERTIFICATE, "Verify TLS"),
        (Obstacle.PROXY, "Check Proxy of the connection"),
        (None, "usually temporary"),
    ],
)
def test_advice_for_a_connection_that_cannot_be_made(
    obstacle: Obstacle | None, advice: str
) -> None:
    """What kept a request from being sent decides what the user is told to check."""
    failure = TransportError("some reason", sent=False, obstacle=obstacle)
    request = Request("GET", "https://cdm.example/v1.1/p/clusters?x=1")
    error = error_mapping.from_transport(failure, "list the clusters", request)
    assert str(error).startswith("Cannot connect to https://cdm.example (some reason). Could not")
    assert advice in str(error)
    assert pickle.loads(pickle.dumps(failure)).obstacle is obstacle


def test_a_proxy_that_wants_a_password_is_no_matter_of_the_iam_user() -> None:
    """HTTP 407 comes from the proxy, so its address in the connection is what to check."""
    assert "Proxy of the connection" in str(error_of(407))


ADVICE: list[tuple[int, Any, str, bool]] = [
    (404, ("APIG.0101", "The API does not exist"), "CDM does not exist in this region", True),
    (404, ("APIGW.0103", "The backend does not exist"), "no such API at this endpoint", True),
    (400, ("APIGW.0104", "The plug-ins do not exist"), "no such API at this endpoint", True),
    (400, ("APIGW.0105", "The backend is not configured"), "no such API at this endpoint", True),
    (500, ("APIGW.0103", "The backend does not exist"), "usually temporary", False),
    (401, ("APIGW.0307", "The token must be updated"), "another region or cloud", True),
    (400, ("APIGW.0307", "The token must be updated"), "another region or cloud", True),
    (401, ("APIGW.0301", "x: decrypt token fail"), "the account is in arrears", True),
    (401, ("APIGW.0301", "x: token expires, expires_at: 2025"), "Check Region", True),
    (401, ("APIGW.0301", "x: x-auth-token not found"), "no proxy removes headers", False),
    (401, ("APIGW.0301", "x: verify aksk signature fail"), "Check Access Key", False),
    (
        401,
        (
            "APIGW.0301",
            "verify aksk signature fail, canonicalRequest:GET|/v1.1/||x-security-token:a||e3b0",
        ),
        "Security Token of the connection",
        False,
    ),
    (401, ("APIGW.0301", "ak AKX not exist"), "Check Access Key", False),
    (401, ("APIGW.0301", "Get secretKey failed,ak:AKX,err:ak not exist"), "Access Key", False),
    (401, ("APIGW.0301", "AK access failed to reach the limit,forbidden"), "Access Key", False),
    (401, ("APIGW.0301", "Unauthorized"), "Check user, password (or access key)", False),
    (401, ("APIGW.0303", "Incorrect app authentication"), "no such API at this endpoint", True),
    (401, ("IAM.0062", "Incorrect password"), "Check user, password (or access key)", False),
    (401, ("IAM.0061", "The account is locked"), "wait for 15 minutes", False),
    (403, ("IAM.0081", "Console access only"), "Allow programmatic access", False),
    (401, ("PAP5.0012", "Explicitly denied"), "a policy refuses the call", False),
    (403, ("APIGW.0302", "The IAM user is not authorized"), "lack the permission", False),
    (403, ("APIGW.0310", "The project is not accessible"), "Check Project ID, Region", True),
    (403, ("APIGW.0802", "The IAM user is forbidden in the region"), "Check Project ID", True),
    (403, ("APIGW.0401", "The IP address is not authorized"), "an access list refuses", False),
    (403, ("IAM.0003", "Not allowed"), "lack the permission", False),
    (403, ("Cdm.0032", "No permission"), "lack the permission", False),
    (429, ("APIGW.0308", "policy ip over ratelimit,limit:5,time:1 minute"), "this address", False),
    (429, ("APIGW.0308", "policy user over ratelimit"), "several IAM users", False),
]


@pytest.mark.parametrize(("status", "answer", "advice", "concerns_project"), ADVICE, ids=str)
def test_advice_fits_the_code(
    status: int, answer: tuple[str, str], advice: str, concerns_project: bool
) -> None:
    """What the user is told to check is what the code, and the text of a refusal, are about."""
    error = error_of(status, {"error_code": answer[0], "error_msg": answer[1]})
    assert advice in error.advice
    assert str(error).endswith(error.advice)
    assert error.concerns_project is concerns_project
    if advice != "Check user, password (or access key)":
        assert "Check user, password" not in str(error)
    assert "job or link" not in str(error)


def test_advice_can_be_replaced() -> None:
    """Who knows what a call was for gives other advice, which replaces the first."""
    error = error_of(404, {"error": {"code": 404, "message": "Could not find project: x."}})
    error.advise("Check the project.")
    assert str(error) == (
        "Could not find project: x. Could not start job 'a' (HTTP 404). Check the project."
    )
    error.advise("Check Region.")
    assert str(pickle.loads(pickle.dumps(error))).endswith("(HTTP 404). Check Region.")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Threshold: 5 times per 60 seconds", 60.0),
        ("policy user over ratelimit,limit:200,time:5 minute", 300.0),
        ("Please wait up to one minute.", 60.0),
        # Documented or recorded of other services behind the same gateway.
        ("policy user over ratelimit,limit:9,time:1 second", 1.0),
        ("policy ip over ratelimit,limit:5,time:5 second", 5.0),
        ("Too many requests. exceeded rate limit is 60 times per minute.", 60.0),
        # The unit of a limit may be a day; what is longer than an hour counts as an hour.
        ("policy app over ratelimit,limit:1000,time:1 day", 3600.0),
        ("policy app over ratelimit, limit: 9, time: 10 minutes", 600.0),
        ("POLICY USER OVER RATELIMIT,LIMIT:9,TIME:5 MINUTE", 300.0),
        # Assumed.
        ("Rate limit exceeded, retry in 30s", 30.0),
        ("Try again after 2.5 minutes", 150.0),
        ("At most 60 requests/minute", 60.0),
        ("At most 10 requests per second and 100 per hour", 3600.0),
        ("Wait for two minutes", 120.0),
        ("A 5-minute window", 300.0),
        ("policy user over ratelimit,limit:9,time:0 minute", None),
        ("policy user over ratelimit,limit:10", None),
        ("Too many requests", None),
        ("As many requests as 5 servers, 2 hosts and a man may send", None),
    ],
)
def test_windows_of_the_gateway_and_of_iam(text: str, seconds: float | None) -> None:
    """Without Retry-After, the window that the text of a 429 names counts, in JSON or not."""
    assert error_of(429, {"error_code": "IAM.0012", "error_msg": text}).retry_after == seconds
    assert error_of(429, text.encode()).retry_after == seconds
    assert error_of(429, {"detail": text}).retry_after == seconds
    assert error_of(400, {"error_msg": text}).retry_after is None
