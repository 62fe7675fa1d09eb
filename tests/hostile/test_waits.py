"""Waits with a deadline: they end at it, whatever a server does while they look at their run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from airflow_provider_cdm._compat import HAS_RETRY_POLICY
from airflow_provider_cdm.client import errors, poll_loop
from airflow_provider_cdm.client.auth import factory
from airflow_provider_cdm.client.http.error_mapping import MAX_RETRY_AFTER
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.settings import KeyCredentials, Settings
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.retry_policy import CdmRetryPolicy
from airflow_provider_cdm.simulator import CdmSimulator
from tests.support.byte_server import ByteServer, Respond, first, forever

HANGS = 60.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"
SLOW: dict[str, Respond] = {
    "a body": first(HEAD, forever(b" ", 0.02)),
    "nothing": forever(b"", 0.02),
    "a header": first(b"HTTP/1.1 200 OK\r\n", forever(b"a", 0.02)),
}


@pytest.fixture
def server() -> Iterator[ByteServer]:
    """Start a server that answers with any bytes."""
    server = ByteServer()
    yield server
    server.close()


@pytest.mark.long
@pytest.mark.parametrize("what", SLOW)
def test_a_wait_ends_while_a_look_is_under_way(
    what: str, server: ByteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that drips does not keep a worker waiting far beyond its deadline."""
    monkeypatch.setattr(poll_loop, "LAST_POLL", 0.5)
    server.respond = SLOW[what]
    factory.forget_everything()
    keys = KeyCredentials("ak", "sk")
    follower = Follower(RunRef("c", "orders", 5))
    outcomes: list[BaseException] = []

    def wait() -> None:
        with CdmSession(Settings(server.url, server.url, keys, project_id="p")) as session:
            try:
                session.run(follower.follow(session.api, poll_interval=1, within=0.5))
            except BaseException as error:
                outcomes.append(error)

    caller = threading.Thread(target=wait, daemon=True)
    caller.start()
    caller.join(HANGS)
    assert [type(outcome) for outcome in outcomes] == [errors.CdmWaitTimeout]


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_ends_before_a_pause_that_the_server_asks_for(
    status: int, sim: CdmSimulator, make_session: Any, virtual_time: Any
) -> None:
    """A wait does not sleep beyond its deadline because the server asks for a long pause."""
    sim.add_job("orders", seconds=3600)
    run = sim.start("orders")
    sim.fail("status", "status", status=status, headers={"Retry-After": "100"}, times=None)
    session = make_session()
    follower = Follower(RunRef(sim.cluster_id, "orders", run.submission_id))
    with pytest.raises(errors.CdmWaitTimeout):
        session.run(follower.follow(session.api, poll_interval=5, within=30))
    assert sum(virtual_time.slept) <= 30 + poll_loop.LAST_POLL


BY_OUR_CLOCK = {
    "31 years": "999999999",
    "the end of time": "Fri, 31 Dec 9999 23:59:59 GMT",
    "the end of time, further west": "Fri, 31 Dec 9999 23:59:59 -1200",
    "nineteen digits": "9" * 19,
    "a fraction": "99999999.9",
    "below zero": "-5",
    "an exponent": "1e9",
    "infinity": "inf",
    "no number": "nan",
    "a sign": "+999999999",
    "5,000 digits": "9" * 5_000,
    "the beginning of time": "Mon, 01 Jan 0001 00:00:00 +2359",
    "a day that is none": "Fri, 99 Xyz 9999 99:99:99 GMT",
    "a zone that is none": "Fri, 31 Dec 9999 23:59:59 -9999999999",
    "a zone beyond all": "Fri, 31 Dec 9999 23:59:59 +99999999999999",
    "another form of date": "9999-12-31T23:59:59Z",
    "several": "1, 999999999",
}


@pytest.mark.parametrize("what", BY_OUR_CLOCK)
@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 429, 500, 502, 503])
def test_a_named_delay_has_a_bound(
    what: str, status: int, sim: CdmSimulator, make_session: Any
) -> None:
    """Retry-After counts for 429 and 503 only, and for an hour at most, also in Airflow's retry."""
    sim.add_job("orders")
    headers = {"Retry-After": BY_OUR_CLOCK[what], "Location": "/x"}
    sim.fail("status", "status", status=status, headers=headers, times=None)
    session = make_session()
    with pytest.raises(errors.CdmError) as caught:
        session.run(session.api.active_run(sim.cluster_id, "orders"))
    after = caught.value.retry_after
    assert after is None or (status in (429, 503) and after <= MAX_RETRY_AFTER)
    if not HAS_RETRY_POLICY:
        return
    policy: Any = CdmRetryPolicy()
    decision = policy.evaluate(caught.value, 1, 3)
    assert decision.retry_delay is None or decision.retry_delay.total_seconds() <= MAX_RETRY_AFTER


WINDOWS = {
    "a hundred years": "limit:200,time:876600 hour",
    "all hours": "limit:200,time:999999 hour",
    "more digits than fit": "limit:200,time:99999999999999999999 hour",
    "seconds of years": "Threshold: 5 times per 999999 seconds",
}


@pytest.mark.parametrize("what", WINDOWS)
def test_a_window_has_a_bound(what: str, sim: CdmSimulator, make_session: Any) -> None:
    """The window that the text of a refusal names counts for an hour at most."""
    sim.add_job("orders")
    body = {"error_code": "APIGW.0308", "error_msg": f"Throttled, {WINDOWS[what]}"}
    sim.fail("status", "status", status=429, body=body, times=None)
    session = make_session()
    with pytest.raises(errors.CdmThrottled) as caught:
        session.run(session.api.active_run(sim.cluster_id, "orders"))
    assert (caught.value.retry_after or 0) <= MAX_RETRY_AFTER


def test_a_date_is_relative_to_the_servers_clock(
    sim: CdmSimulator, make_session: Any, virtual_time: Any, clock: Any
) -> None:
    """A date in Retry-After is compared with the server's own date, not with our clock."""
    sim.add_job("orders")
    now = clock.now() + 5 * 3600
    headers = {
        "Date": formatdate(now, usegmt=True),
        "Retry-After": formatdate(now + 20, usegmt=True),
    }
    sim.fail("status", "status", status=503, headers=headers)
    session = make_session()
    session.run(session.api.active_run(sim.cluster_id, "orders"))
    assert virtual_time.slept == [20.5]


@pytest.mark.skipif(not HAS_RETRY_POLICY, reason="Airflow decides when a retry follows")
def test_the_tasks_own_delay_is_kept(make_context: Callable[..., Any]) -> None:
    """A server that asks for less than the task's retry_delay does not shorten it."""
    policy: Any = CdmRetryPolicy()
    error = errors.CdmThrottled("429", retry_after=5)
    assert policy.evaluate(error, 1, 3, make_context(300)).retry_delay is None
    assert policy.evaluate(error, 1, 3, make_context(1)).retry_delay.total_seconds() == 5


@pytest.fixture
def make_context() -> Callable[..., Any]:
    """Return a function that returns a context of a task with a retry_delay in seconds."""
    from datetime import timedelta

    from airflow_provider_cdm.operators import CdmStartJobOperator

    def make(seconds: float) -> Any:
        delay = timedelta(seconds=seconds)
        return {"task": CdmStartJobOperator(task_id="t", job_name="j", retry_delay=delay)}

    return make
