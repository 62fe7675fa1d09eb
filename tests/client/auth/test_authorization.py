"""Tokens: shared, renewed in time, requested again once; and a wrong password is sent only once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.auth import token
from airflow_provider_cdm.client.auth.token import LOCKOUT_SECONDS
from airflow_provider_cdm.client.sansio import Request, Response
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.client.fixture_types import Drive, MakeSession, Sent
from tests.support.virtual_time import VirtualTime

JOB = "orders"


@pytest.fixture
def read_status(drive: Drive, sim: CdmSimulator) -> Callable[[CdmSession], Any]:
    """Return a function that makes one status call."""
    sim.add_job(JOB)
    return lambda session: drive(session, session.api.active_run(sim.cluster_id, JOB))


ReadStatus = Callable[[CdmSession], Any]


def test_token_is_kept(read_status: ReadStatus, make_session: MakeSession, sent: Sent) -> None:
    """All sessions of one user in one project share a token."""
    sessions = [make_session(), make_session()]
    for session in sessions * 2:
        read_status(session)
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
    tokens = [drive(s, s.api.auth.authorize()).value for s in sessions * 2]
    assert len(set(tokens)) == len(sent("token")) == len(connections)
    assert tokens[: len(sessions)] == tokens[len(sessions) :]


@pytest.mark.parametrize(
    ("config", "renewed_after"),
    [({}, 86_400 - 300), ({"token_seconds": 1000}, 900), ({"token_seconds": 10}, 9)],
)
def test_token_is_renewed_in_time(
    renewed_after: float,
    read_status: ReadStatus,
    clock: ManualClock,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """A token is replaced five minutes, or a tenth of its lifetime, before it expires."""
    session = make_session()
    read_status(session)
    clock.advance(renewed_after - 0.1)
    read_status(session)
    assert len(sent("token")) == 1
    clock.advance(0.1)
    read_status(session)
    read_status(session)
    assert len(sent("token")) == 2
    assert [request.status for request in sent("status")] == [200] * 4


def test_revoked_token(
    read_status: ReadStatus, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A revoked token is replaced, and the call is repeated."""
    session = make_session()
    read_status(session)
    sim.revoke_tokens()
    read_status(session)
    read_status(session)
    assert [request.status for request in sent("status")] == [200, 401, 200, 200]
    assert len(sent("token")) == 2


def test_late_rejection_of_an_old_token(
    read_status: ReadStatus, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A rejection of an old token that arrives late does not drop the new token."""
    session = make_session()
    late = session.api.call(runs.status(sim.cluster_id, JOB))
    read_status(session)
    first = next(late)
    sim.revoke_tokens()
    read_status(session)
    repeated = late.send(Response(401))
    assert isinstance(first, Request)
    assert isinstance(repeated, Request)
    assert (repeated.method, repeated.url) == (first.method, first.url)
    assert repeated.headers["X-Auth-Token"] != first.headers["X-Auth-Token"]
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
def test_rejected_token(
    method: str,
    status: int,
    code: str,
    renewed: bool,
    drive: Drive,
    sim: CdmSimulator,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """A rejected token is replaced once, never twice; after a missing permission it is not."""
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
    read_status: ReadStatus,
    clock: ManualClock,
    sim: CdmSimulator,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """A rejected password is not sent for as long as IAM may count; then it is sent again."""
    session = make_session(password="wr0ng-w0rd")
    with pytest.raises(errors.CdmAuthError, match="username or password is wrong") as first:
        read_status(session)
    for _ in range(10):
        with pytest.raises(errors.CdmAuthError, match="not sent again for 15 min") as later:
            read_status(make_session(password="wr0ng-w0rd"))
    assert "username or password is wrong" in str(later.value)
    assert (later.value.http_status, later.value.request_id) == (401, first.value.request_id)
    assert len(sent("token")) == 1

    clock.advance(LOCKOUT_SECONDS - 61)
    with pytest.raises(errors.CdmAuthError, match="not sent again for 2 min"):
        read_status(session)
    assert len(sent("token")) == 1
    clock.advance(61)
    with pytest.raises(errors.CdmAuthError) as repeated:
        read_status(session)
    assert "not sent again" not in str(repeated.value)
    assert len(sent("token")) == 2
    assert sent("status") == []


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0], ids=["forward", "back"])
def test_block_lasts_as_long_if_the_clock_is_set(
    jump: float,
    read_status: ReadStatus,
    clock: ManualClock,
    virtual_time: VirtualTime,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """A clock that is set makes a block neither shorter, which may lock the account, nor longer."""
    session = make_session(password="wr0ng-w0rd")
    with pytest.raises(errors.CdmAuthError):
        read_status(session)
    virtual_time.jumped = jump
    clock.advance(LOCKOUT_SECONDS - 1)
    with pytest.raises(errors.CdmAuthError, match="not sent again"):
        read_status(session)
    clock.advance(1)
    with pytest.raises(errors.CdmAuthError):
        read_status(session)
    assert len(sent("token")) == 2


def test_password_that_became_valid(
    read_status: ReadStatus, clock: ManualClock, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """After the block has expired, a password that has become valid is accepted."""
    sim.fail("token", "status", status=401)
    session = make_session()
    with pytest.raises(errors.CdmAuthError):
        read_status(session)
    clock.advance(LOCKOUT_SECONDS)
    read_status(session)


def test_correct_password_is_not_blocked(
    read_status: ReadStatus, make_session: MakeSession, sent: Sent
) -> None:
    """Only the rejected password is blocked; the corrected one is sent immediately."""
    with pytest.raises(errors.CdmAuthError):
        read_status(make_session(password="wr0ng-w0rd"))
    read_status(make_session())
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
    read_status: ReadStatus,
    sim: CdmSimulator,
    make_session: MakeSession,
    sent: Sent,
    virtual_time: Any,
) -> None:
    """A call to IAM is repeated after a temporary failure."""
    sim.fail("token", **fault, times=2)
    read_status(make_session())
    assert len(sent("token")) == 3
    assert virtual_time.slept == [0.5, 1.0]


def test_one_wrong_password_for_many_projects(
    read_status: ReadStatus, make_session: MakeSession, sent: Sent
) -> None:
    """A wrong password for many projects is not sent so often that IAM locks the account."""
    for number in range(6):
        with pytest.raises(errors.CdmAuthError):
            read_status(make_session(password="wr0ng-w0rd", project_id=f"{number:032x}"))
    assert len(sent("token")) == 2
    read_status(make_session())


def test_rejections_are_forgotten(
    make_session: MakeSession, drive: Drive, clock: ManualClock
) -> None:
    """A process that lives on does not keep the rejections of all users that it has ever had."""
    for number in range(20):
        session = make_session(login=f"user_{number}", password="wr0ng-w0rd")
        with pytest.raises(errors.CdmAuthError):
            drive(session, session.api.auth.authorize())
        clock.advance(7200)
    assert len(token._guard.rejections) == 1
