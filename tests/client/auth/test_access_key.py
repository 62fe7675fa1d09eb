"""Access keys and agencies: projects by name, wrong clocks, and rejected keys."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth.access_key import PAUSES
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.connection.reader import settings_from
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.client.fixture_types import Drive, Sent
from tests.support.credentials import ACCOUNT, CONNECTIONS

JOB = "orders"
pytestmark = pytest.mark.parametrize("config", [ACCOUNT], ids=[""])


@pytest.fixture
def open_session(sim: CdmSimulator, virtual_time: Any) -> Callable[..., CdmSession]:
    """Return a function that opens a session with a kind of credentials.

    ``ahead`` sets its clock forward by some seconds; ``extra`` changes the connection.
    """

    def open_session(kind: str, *, ahead: float = 0.0, **extra: Any) -> CdmSession:
        connection = CONNECTIONS[kind](sim)
        fields: dict[str, Any] = dict.fromkeys(("schema", "port", "login", "password"))
        changed = {**connection, "extra": {**connection["extra"], **extra}}
        airflow_connection = SimpleNamespace(**{**fields, **changed, "conn_id": "cdm_default"})
        options = virtual_time.options()
        now = options["clock"]
        options["clock"] = lambda: now() + ahead
        return CdmSession(settings_from(airflow_connection), **options)

    return open_session


OpenSession = Callable[..., CdmSession]


@pytest.fixture
def read_status(drive: Drive, sim: CdmSimulator) -> Callable[[CdmSession], Any]:
    """Return a function that makes one status call, on the cluster of the session's settings."""
    for cluster in sim.config.clusters:
        sim.add_job(JOB, cluster.id)
    return lambda session: drive(
        session, session.api.active_run(str(session.settings.cluster_id), JOB)
    )


ReadStatus = Callable[[CdmSession], Any]


def test_project_is_read_once(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """Without a project id, the region's project is found by its name, once for all sessions."""
    for session in [open_session("keys"), open_session("keys")] * 2:
        read_status(session)
    [lookup] = sent("project_list")
    assert lookup.query == {"name": sim.region}
    assert {request.headers["x-project-id"] for request in sent("status")} == {sim.project_id}
    assert sent("token") == []


def test_project_id_needs_no_further_call(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """With a project id, the status call is the only call."""
    read_status(open_session("keys", project_id=sim.project_id))
    assert [request.route for request in sim.requests] == ["status"]


@pytest.mark.parametrize(
    ("projects", "listed"),
    [
        ([], "these were found: none"),
        ([("a", "1"), ("b", "2")], r"these were found: a \(1\), b \(2\)"),
        (
            [("eu-west-101", "1"), ("eu-west-101", "2")],
            r"found: eu-west-101 \(1\), eu-west-101 \(2\)",
        ),
    ],
)
def test_unclear_project(
    projects: list[tuple[str, str]],
    listed: str,
    read_status: ReadStatus,
    open_session: OpenSession,
    sim: CdmSimulator,
    sent: Sent,
) -> None:
    """If no project or several have that name, an error lists them and names the field."""
    body = {"projects": [{"name": name, "id": number} for name, number in projects]}
    for route in ("project_list", "own_project_list"):
        sim.fail(route, "body", body=body)
    with pytest.raises(errors.CdmConfigError, match=rf"{listed}\. .* Fill in Project ID"):
        read_status(open_session("keys"))
    assert sent() == sent("project_list", "own_project_list")


def test_exact_name_wins(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator
) -> None:
    """A project with exactly that name is chosen, even if others have similar names."""
    like = {"name": f"{sim.region}_sub", "id": "0" * 32}
    body = {"projects": [like, {"name": sim.region, "id": sim.project_id}]}
    sim.fail("project_list", "body", body=body)
    read_status(open_session("keys"))


@pytest.mark.parametrize(
    "body", ["<html>", "", "[]", "{}", '{"projects": [{}]}', '{"projects": 7}']
)
def test_response_without_projects(
    body: str, read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator
) -> None:
    """A response that lists no projects is an error, and is not cached."""
    sim.fail("project_list", "body", body=body)
    session = open_session("keys")
    with pytest.raises(errors.CdmBadResponse, match="lists no projects"):
        read_status(session)
    read_status(session)


@pytest.mark.parametrize("kind", ["keys", "temporary keys", "agency by keys"])
@pytest.mark.parametrize("ahead", [-86_400, -1000, 1000, 86_400])
def test_wrong_clock(
    kind: str,
    ahead: float,
    read_status: ReadStatus,
    open_session: OpenSession,
    sim: CdmSimulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A clock difference that the server does not accept is corrected once, with a warning."""
    with caplog.at_level(logging.WARNING):
        for session in [open_session(kind, ahead=ahead), open_session(kind, ahead=ahead)]:
            read_status(session)
    assert len([request for request in sim.requests if request.status == 401]) == 1
    [warning] = [text for text in caplog.messages if "clock" in text]
    side = "ahead of" if ahead > 0 else "behind"
    assert f"{abs(ahead):.0f} s {side}" in warning


@pytest.mark.parametrize("ahead", [-500, 0, 500])
def test_rejection_with_a_good_clock(
    ahead: float, read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """A rejected signature with an acceptable clock difference is not sent again."""
    with pytest.raises(errors.CdmAuthError):
        read_status(open_session("keys", ahead=ahead, secret_key="wrong"))
    assert len(sim.requests) == 1


def test_wrong_key_is_tried_seldom(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, clock: ManualClock
) -> None:
    """A rejected key is used again after pauses that grow, so that the gateway does not lock it."""
    session = open_session("keys", secret_key="wrong")
    with pytest.raises(errors.CdmAuthError, match="verify aksk signature fail"):
        read_status(session)
    for _ in range(10):
        with pytest.raises(errors.CdmAuthError, match="not sent again for 1 min") as later:
            read_status(open_session("keys", secret_key="wrong"))
    assert "verify aksk signature fail" in str(later.value)
    assert len(sim.requests) == 1
    read_status(open_session("keys"))
    for pause in PAUSES:
        clock.advance(pause - 1)
        before = len(sim.requests)
        with pytest.raises(errors.CdmAuthError):
            read_status(session)
        clock.advance(1)
        with pytest.raises(errors.CdmAuthError):
            read_status(session)
        assert len(sim.requests) == before + 1


def test_missing_permission_is_no_rejection(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator
) -> None:
    """A key without a permission can still be used for other calls."""
    sim.fail("status", "status", status=403, body={"error_code": "APIGW.0302", "error_msg": "no"})
    session = open_session("keys")
    with pytest.raises(errors.CdmAuthError):
        read_status(session)
    read_status(session)


@pytest.mark.parametrize("kind", ["agency by password", "agency by keys"])
def test_agency_token(
    kind: str, read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """The agency's token is for the delegating account's project, and is kept for later calls."""
    for session in [open_session(kind), open_session(kind)] * 2:
        read_status(session)
    *own, assumed = sent("token")
    assert len(own) == (1 if kind == "agency by password" else 0)
    assert assumed.json()["auth"] == {
        "identity": {
            "methods": ["assume_role"],
            "assume_role": {"domain_name": "partner", "agency_name": "migrations"},
        },
        "scope": {"project": {"name": sim.region}},
    }
    assert [request.json()["auth"]["scope"] for request in own] == [
        {"domain": {"name": sim.domain}}
    ] * len(own)
    assert {request.path.split("/")[2] for request in sent("status")} == {"f" * 32}


def test_revoked_tokens_of_an_agency(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """When both tokens have been revoked, both are replaced, and the call succeeds."""
    session = open_session("agency by password")
    read_status(session)
    sim.revoke_tokens()
    read_status(session)
    assert [request.status for request in sent("status")] == [200, 401, 200]
    # Two at first. Then IAM rejects the user's revoked token, so both are requested again.
    assert [request.status for request in sent("token")] == [201, 201, 401, 201, 201]


def test_unknown_agency(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator
) -> None:
    """If IAM does not permit an agency, the error names it, and no credentials are blocked."""
    session = open_session("agency by password", agency_name="nobody")
    for _ in range(3):
        with pytest.raises(errors.CdmAuthError, match=r"no permission to assume.*agency 'nobody'"):
            read_status(session)
    read_status(open_session("agency by password"))
