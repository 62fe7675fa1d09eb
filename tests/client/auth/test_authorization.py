"""Tokens: one for all, renewed in time, asked for again once; and a wrong password only once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.auth.token import LOCKOUT_SECONDS
from airflow_provider_cdm.client.sansio import Request, Response
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock

Drive = Callable[[CdmSession, Any], Any]
MakeSession = Callable[..., CdmSession]
Sent = Callable[..., list[Any]]

JOB = "orders"


@pytest.fixture
def look(drive: Drive, sim: CdmSimulator) -> Callable[[CdmSession], Any]:
    """Make one call to CDM."""
    sim.add_job(JOB)
    return lambda session: drive(session, session.api.active_run(sim.cluster_id, JOB))


StatusPoll = Callable[[CdmSession], Any]


def test_token_is_kept(look: StatusPoll, make_session: MakeSession, sent: Sent) -> None:
    """All sessions of one user in one project share a token."""
    sessions = [make_session(), make_session()]
    for session in sessions * 2:
        look(session)
    assert len(sent("token")) == 1
    assert len({request.headers["x-auth-token"] for request in sent("status")}) == 1


@pytest.mark.parametrize(
    "config",
    [
        {
            "projects": [{"name": "eu-west-101"}, {"name": "eu-west-101_other"}],
            "users": [{"name": "airflow", "password": "a"}, {"name": "other", "password": "a"}],
        }
    ],
    ids=["two of each"],
)
def test_token_is_not_shared_with_others(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """Another user, project, scope or IAM endpoint needs a token of its own."""
    other = sim.config.projects[1]
    connections: list[dict[str, Any]] = [
        {},
        {"login": "other"},
        {"project_id": other.id},
        {"project_id": None, "region": sim.region},
        {"project_id": None, "region": other.name},
        {"iam_endpoint": sim.iam_url.replace("127.0.0.1", "localhost")},
    ]
    sessions = [make_session(**connection) for connection in connections]
    tokens = [drive(each, each.api.auth.authorize()).value for each in sessions * 2]
    assert len(set(tokens)) == len(sent("token")) == len(connections)
    assert tokens[: len(sessions)] == tokens[len(sessions) :]


@pytest.mark.parametrize(
    ("config", "renewed_after"),
    [({}, 86_400 - 300), ({"token_seconds": 1000}, 900), ({"token_seconds": 10}, 9)],
)
def test_token_is_renewed_in_time(
    renewed_after: float,
    look: StatusPoll,
    clock: ManualClock,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """A token is replaced five minutes, or a tenth of its life, before it ends; no call fails."""
    session = make_session()
    look(session)
    clock.advance(renewed_after - 0.1)
    look(session)
    assert len(sent("token")) == 1
    clock.advance(0.1)
    look(session)
    look(session)
    assert len(sent("token")) == 2
    assert [request.status for request in sent("status")] == [200] * 4


def test_revoked_token(
    look: StatusPoll, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A token that died early is replaced, and the call is made again."""
    session = make_session()
    look(session)
    sim.revoke_tokens()
    look(session)
    look(session)
    assert [request.status for request in sent("status")] == [200, 401, 200, 200]
    assert len(sent("token")) == 2


def test_late_refusal_of_an_old_token(
    look: StatusPoll, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A refusal that arrives when the token was replaced already does not cost the new one."""
    session = make_session()
    late = session.api.call(runs.status(sim.cluster_id, JOB))
    look(session)
    first = next(late)
    sim.revoke_tokens()
    look(session)
    poll_again = late.send(Response(401))
    assert isinstance(first, Request)
    assert isinstance(poll_again, Request)
    assert (poll_again.method, poll_again.url) == (first.method, first.url)
    assert poll_again.headers["X-Auth-Token"] != first.headers["X-Auth-Token"]
    assert len(sent("token")) == 2


@pytest.mark.parametrize("method", ["status", "start"])
@pytest.mark.parametrize(
    ("status", "code", "renewed"),
    [
        (401, "APIGW.0301", True),
        (401, "APIG.0301", True),
        (401, "APIGW.0307", True),
        (400, "APIGW.0307", True),
        (401, "APIGW.0303", True),
        (401, "", True),
        (403, "APIGW.0302", False),
        (403, "Cdm.0032", False),
    ],
)
def test_refused_token(
    method: str,
    status: int,
    code: str,
    renewed: bool,
    drive: Drive,
    sim: CdmSimulator,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """One new token is tried for a refused one, never two; a missing permission needs none."""
    sim.add_job(JOB)
    body = {"errCode" if code.startswith("Cdm") else "error_code": code, "error_msg": "no"}
    sim.fail(method, "status", status=status, body=body, times=None)
    session = make_session()
    call: Callable[[str, str], Any]
    call = runs.status if method == "status" else runs.start_job
    with pytest.raises(errors.CdmError) as caught:
        drive(session, session.api.call(call(sim.cluster_id, JOB)))
    assert caught.value.http_status == status
    tried = 2 if renewed else 1
    assert (len(sent(method)), len(sent("token"))) == (tried, tried)

    sim.faults.clear()
    sim.fail(method, "status", status=status, body=body)
    if renewed:
        drive(session, session.api.call(call(sim.cluster_id, JOB)))
        assert len(sim.runs(JOB)) == (1 if method == "start" else 0)


def test_wrong_password(
    look: StatusPoll, clock: ManualClock, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A refused password is not sent again for as long as IAM may be counting, then it is."""
    session = make_session(password="wr0ng-w0rd")
    with pytest.raises(errors.CdmAuthError, match="username or password is wrong") as first:
        look(session)
    for _ in range(10):
        with pytest.raises(errors.CdmAuthError, match="not sent again for 15 min") as later:
            look(make_session(password="wr0ng-w0rd"))
    assert "username or password is wrong" in str(later.value)
    assert (later.value.http_status, later.value.request_id) == (401, first.value.request_id)
    assert len(sent("token")) == 1

    clock.advance(LOCKOUT_SECONDS - 61)
    with pytest.raises(errors.CdmAuthError, match="not sent again for 2 min"):
        look(session)
    assert len(sent("token")) == 1
    clock.advance(61)
    with pytest.raises(errors.CdmAuthError) as poll_again:
        look(session)
    assert "not sent again" not in str(poll_again.value)
    assert len(sent("token")) == 2
    assert sent("status") == []


def test_password_that_became_right(
    look: StatusPoll, clock: ManualClock, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """Once the memory of a refusal is over, a password that is right by now works."""
    sim.fail("token", "status", status=401)
    session = make_session()
    with pytest.raises(errors.CdmAuthError):
        look(session)
    clock.advance(LOCKOUT_SECONDS)
    look(session)


def test_right_password_is_not_held_back(
    look: StatusPoll, make_session: MakeSession, sent: Sent
) -> None:
    """The refusal is that of one password: the corrected one is sent at once."""
    with pytest.raises(errors.CdmAuthError):
        look(make_session(password="wr0ng-w0rd"))
    look(make_session())
    assert len(sent("token")) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop"},
        {"kind": "reset"},
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 500, "body": {"error_code": "IAM.0006", "error_msg": "x"}},
        {"kind": "status", "status": 410, "body": {"error_code": "IAM.0020", "error_msg": "x"}},
        {"kind": "status", "status": 503},
    ],
    ids=str,
)
def test_iam_outage(
    fault: dict[str, Any],
    look: StatusPoll,
    sim: CdmSimulator,
    make_session: MakeSession,
    sent: Sent,
    virtual_time: Any,
) -> None:
    """IAM that cannot answer just now is asked again."""
    sim.fail("token", **fault, times=2)
    look(make_session())
    assert len(sent("token")) == 3
    assert virtual_time.slept == [0.5, 1.0]


def test_one_wrong_password_for_many_projects(
    look: StatusPoll, make_session: MakeSession, sent: Sent
) -> None:
    """However many projects the password is for, it is not sent so often that IAM locks up."""
    for number in range(6):
        with pytest.raises(errors.CdmAuthError):
            look(make_session(password="wr0ng-w0rd", project_id=f"{number:032x}"))
    assert len(sent("token")) == 2
    look(make_session())
