"""The retry policy: which calls are repeated, how often, after which delay, and which never are."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.http.retry import RetryPolicy
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.client.fixture_types import Drive, MakeSession, Sent

JOB = "orders"
DOWN = errors.CdmUnavailable("down")
AMBIGUOUS = errors.CdmUnavailable("no answer", effect_unknown=True)
FULL = errors.CdmThrottled("full")


@pytest.mark.parametrize(
    ("error", "attempt", "idempotent", "delay"),
    [
        (AMBIGUOUS, 1, True, 0.5),
        (AMBIGUOUS, 2, True, 1.0),
        (AMBIGUOUS, 3, True, 2.0),
        (AMBIGUOUS, 4, True, 4.0),
        (AMBIGUOUS, 5, True, None),
        (AMBIGUOUS, 1, False, None),
        (DOWN, 1, False, 0.5),
        (FULL, 1, False, 0.5),
        (errors.CdmThrottled("full", retry_after=7), 1, False, 7.5),
        (errors.CdmThrottled("full", retry_after=0), 4, True, 0.5),
        (errors.CdmThrottled("full", retry_after=500), 1, True, 300.5),
        (errors.CdmThrottled("full", retry_after=30), 2, False, 30.5),
        (errors.CdmThrottled("full", retry_after=30), 3, True, None),
        (errors.CdmThrottled("full", retry_after=1), 4, False, 1.5),
        (errors.CdmUnavailable("down", retry_after=7), 4, True, 7.5),
        (errors.CdmThrottled("full", retry_after=7), 5, True, None),
        (errors.CdmUnavailable("for good", retryable=False), 1, True, None),
        (errors.CdmAlreadyRunning("busy"), 1, True, None),
        (errors.CdmNotFound("gone"), 1, True, None),
        (errors.CdmAuthError("no"), 1, True, None),
        (errors.CdmBadResponse("html"), 1, True, None),
    ],
)
def test_policy(
    error: errors.CdmError, attempt: int, idempotent: bool, delay: float | None
) -> None:
    """The policy in examples, with 0.5 as the random number."""
    policy = RetryPolicy()
    actual = policy.delay(error, attempt=attempt, idempotent=idempotent, random=lambda: 0.5)
    assert actual == delay


@given(
    policy=st.builds(
        RetryPolicy,
        attempts=st.integers(1, 2000),
        base=st.floats(0, 100),
        cap=st.floats(0, 1000),
        retry_after_cap=st.floats(0, 1000),
        throttled_attempts=st.integers(1, 10),
    ),
    cls=st.sampled_from([errors.CdmUnavailable, errors.CdmThrottled, errors.CdmRefused]),
    retry_after=st.none() | st.floats(0, 1e9),
    effect_unknown=st.booleans(),
    attempt=st.integers(1, 2000),
    idempotent=st.booleans(),
    random=st.floats(0, 1, exclude_max=True),
)
@settings(derandomize=True, max_examples=300)
def test_policy_bounds(
    policy: RetryPolicy,
    cls: type[errors.CdmError],
    retry_after: float | None,
    effect_unknown: bool,
    attempt: int,
    idempotent: bool,
    random: float,
) -> None:
    """Delays have bounds, attempts end, and a start with an unknown effect is never repeated."""
    error = cls("x", retry_after=retry_after, effect_unknown=effect_unknown)
    delay = policy.delay(error, attempt=attempt, idempotent=idempotent, random=lambda: random)
    named = cls is errors.CdmThrottled and (retry_after or 0) > policy.cap
    final = cls is errors.CdmRefused or attempt >= policy.attempts
    final = final or (named and attempt >= policy.throttled_attempts)
    assert (delay is None) is (final or (effect_unknown and not idempotent))
    if delay is None:
        return
    if retry_after is None:
        assert 0 <= delay <= policy.cap
    else:
        requested = min(retry_after, policy.retry_after_cap)
        assert requested <= delay <= requested + 1


def cdm(number: str) -> dict[str, Any]:
    """Return the body of an error of CDM."""
    return {"errCode": f"Cdm.{number}", "externalMessage": "text"}


TEMPORARY: list[dict[str, Any]] = [
    {"kind": "drop"},
    {"kind": "drop", "when": "after"},
    {"kind": "reset"},
    {"kind": "reset", "when": "after"},
    {"kind": "hang"},
    {"kind": "status", "status": 408},
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 500, "body": ""},
    {"kind": "status", "status": 502, "body": "<html>"},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 504, "when": "after"},
    {"kind": "status", "status": 400, "body": cdm("0000")},
    {"kind": "status", "status": 500, "body": cdm("0202")},
]
FINAL: list[dict[str, Any]] = [
    {"kind": "status", "status": 302, "headers": {"Location": "/elsewhere"}},
    {"kind": "status", "status": 400},
    {"kind": "status", "status": 400, "body": cdm("0054")},
    {"kind": "status", "status": 403},
    {"kind": "status", "status": 404},
    {"kind": "status", "status": 500, "body": cdm("0100")},
    {"kind": "status", "status": 500, "body": cdm("0001")},
    {"kind": "status", "status": 501, "body": ""},
    {"kind": "body", "body": "<html>Sign in</html>"},
    {"kind": "body", "body": '{"submissions": [{"sta'},
    {"kind": "body", "body": ""},
]


def name_of(fault: dict[str, Any]) -> str:
    """Return a short name of a fault."""
    return " ".join(str(value) for value in fault.values())


@pytest.fixture
def active_run(drive: Drive, sim: CdmSimulator, make_session: MakeSession) -> Callable[..., Any]:
    """Return a function that asks for the active run of a job, with a status call."""
    sim.add_job(JOB)

    def active_run(**extra: Any) -> Any:
        session = make_session(**extra)
        return drive(session, session.api.active_run(sim.cluster_id, JOB))

    return active_run


@pytest.mark.parametrize("fault", TEMPORARY, ids=name_of)
def test_temporary_failures_are_repeated(
    fault: dict[str, Any], sim: CdmSimulator, active_run: Any, sent: Sent, virtual_time: Any
) -> None:
    """A call without effects is repeated until it succeeds, after increasing delays."""
    times = 1 if fault["kind"] == "hang" else 3
    sim.fail("status", **fault, times=times)
    assert active_run(read_timeout=0.5 if fault["kind"] == "hang" else 30) is None
    assert len(sent("status")) == times + 1
    assert virtual_time.slept == [0.5, 1.0, 2.0][:times]


@pytest.mark.parametrize("fault", FINAL, ids=name_of)
def test_final_failures_are_not_repeated(
    fault: dict[str, Any], sim: CdmSimulator, active_run: Any, sent: Sent, virtual_time: Any
) -> None:
    """A failure that is not temporary is reported immediately."""
    sim.fail("status", **fault)
    with pytest.raises(errors.CdmError):
        active_run()
    assert len(sent("status")) == 1
    assert virtual_time.slept == []


def test_attempts_end(sim: CdmSimulator, active_run: Any, sent: Sent, virtual_time: Any) -> None:
    """After five attempts the last failure is reported."""
    sim.fail("status", "drop", times=None)
    with pytest.raises(errors.CdmUnavailable, match="gave no complete answer") as caught:
        active_run()
    assert caught.value.retryable
    assert len(sent("status")) == 5
    assert virtual_time.slept == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize(("header", "delay"), [("7", 7.5), ("0", 0.5), ("600", 300.5), ("?", 0.5)])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_respected(
    header: str, delay: float, status: int, sim: CdmSimulator, active_run: Any, virtual_time: Any
) -> None:
    """The server's Retry-After decides the delay, up to five minutes."""
    sim.fail("status", "status", status=status, headers={"Retry-After": header})
    active_run()
    assert virtual_time.slept == [delay]


def test_retry_after_as_a_date(
    sim: CdmSimulator, clock: ManualClock, make_session: MakeSession, virtual_time: Any
) -> None:
    """A date in Retry-After is understood as well."""
    sim.add_job(JOB)
    date = formatdate(clock.now() + 30, usegmt=True)
    sim.fail("status", "status", status=503, headers={"Retry-After": date})
    session = make_session()
    session.run(session.api.active_run(sim.cluster_id, JOB))
    assert virtual_time.slept == [30.5]


@pytest.mark.parametrize(
    ("status", "text", "headers", "slept"),
    [
        # Recorded at the gateway, see "Throttling" in its documentation.
        (429, "policy user over ratelimit,limit:200,time:5 minute", {}, [300.5]),
        (429, "policy ip over ratelimit,limit:5,time:1 minute", {}, [60.5]),
        (429, "Too many requests, please wait up to one minute", {}, [60.5]),
        (429, "policy app over ratelimit,limit:9,time:2 hour", {}, [300.5]),
        (429, "policy api over ratelimit,limit:1000,time:1 day", {}, [300.5]),
        (429, "policy app over ratelimit,limit:9,time:0 minute", {}, [0.5]),
        (429, "time:5 minute", {"Retry-After": "3"}, [3.5]),
        (503, "time:5 minute", {}, [0.5]),
    ],
)
def test_the_window_of_a_limit_is_waited_for(
    status: int,
    text: str,
    headers: dict[str, str],
    slept: list[float],
    sim: CdmSimulator,
    active_run: Any,
    virtual_time: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A throttled call is repeated after the window that the text names, and the log says when."""
    caplog.set_level("INFO")
    body = {"error_code": "APIGW.0308", "error_msg": text}
    sim.fail("status", "status", status=status, body=body, headers=headers)
    active_run()
    assert virtual_time.slept == slept
    assert re.search(r"Trying again in [\d.]+ s, at \d\d:\d\d:\d\d UTC", caplog.text)


@pytest.mark.parametrize(
    "config", [{"quotas": {"status": 2}, "behaviour": {"retry_after": True}}], ids=["2 a minute"]
)
def test_quota_is_waited_for(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession, virtual_time: Any
) -> None:
    """A throttled call is delayed until it can succeed."""
    sim.add_job(JOB)
    session = make_session()
    for _ in range(3):
        drive(session, session.api.active_run(sim.cluster_id, JOB))
    assert virtual_time.slept == [60.5]


@pytest.fixture
def closed_port() -> int:
    """Return a port without a server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("call", [runs.start_job, runs.status])
def test_refused_connections(
    call: Callable[[str, str], Any],
    drive: Drive,
    sim: CdmSimulator,
    clock: ManualClock,
    make_session: MakeSession,
    closed_port: int,
    virtual_time: Any,
) -> None:
    """Nothing was sent over a refused connection, so even a start is repeated, and runs once."""
    late = CdmSimulator({"auth": False}, port=closed_port, clock=clock)
    late.add_job(JOB)
    session = CdmSession(
        replace(make_session().settings, cdm_endpoint=f"http://127.0.0.1:{closed_port}"),
        **virtual_time.options(),
    )
    flow = session.api.call(call(sim.cluster_id, JOB))
    with pytest.raises(errors.CdmUnavailable, match="Cannot connect to") as caught:
        drive(session, flow)
    assert not caught.value.effect_unknown
    assert virtual_time.slept == [0.5, 1.0, 2.0, 4.0]

    try:
        virtual_time.sleep = lambda seconds: late.__enter__()
        session = CdmSession(session.settings, **virtual_time.options())
        drive(session, session.api.call(call(sim.cluster_id, JOB)))
        assert len(late.runs(JOB)) == (1 if call is runs.start_job else 0)
    finally:
        late.__exit__(None, None, None)
