"""Access keys and agencies: projects by name, clocks that are wrong, and keys that are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.auth.access_key import LOCKOUT_SECONDS
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.connection import settings_from
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.support.credentials import ACCOUNT, CONNECTIONS

Drive = Callable[[CdmSession, Any], Any]
MakeSession = Callable[..., CdmSession]
Sent = Callable[..., list[Any]]

JOB = "orders"
pytestmark = pytest.mark.parametrize("config", [ACCOUNT], ids=[""])


@pytest.fixture
def open_session(sim: CdmSimulator, virtual_time: Any) -> Callable[..., CdmSession]:
    """Make a session with a kind of credentials; ``extra`` changes the connection."""

    def open_session(kind: str, *, ahead: float = 0.0, **extra: Any) -> CdmSession:
        made = CONNECTIONS[kind](sim)
        fields: dict[str, Any] = dict.fromkeys(("schema", "port", "login", "password"))
        changed = {**made, "extra": {**made["extra"], **extra}, "conn_id": "cdm_default"}
        connection = SimpleNamespace(**{**fields, **changed})
        options = virtual_time.options()
        now = options["clock"]
        options["clock"] = lambda: now() + ahead
        return CdmSession(settings_from(connection), **options)

    return open_session


OpenSession = Callable[..., CdmSession]


@pytest.fixture
def read_status(drive: Drive, sim: CdmSimulator) -> Callable[[CdmSession], Any]:
    """Make one call to CDM, on the cluster that the session's settings name."""
    for cluster in sim.config.clusters:
        sim.add_job(JOB, cluster.id)
    return lambda session: drive(
        session, session.api.active_run(str(session.settings.cluster_id), JOB)
    )


ReadStatus = Callable[[CdmSession], Any]


def test_project_is_looked_up_once(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """Without a project id, the region's project is found by its name, once for all sessions."""
    for session in [open_session("keys"), open_session("keys")] * 2:
        read_status(session)
    [lookup] = sent("project_list")
    assert lookup.query == {"name": sim.region}
    assert {request.headers["x-project-id"] for request in sent("status")} == {sim.project_id}
    assert sent("token") == []


def test_project_id_needs_no_look_up(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """With a project id there is one call, and no other."""
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
    """No project of that name, or several, is an error that lists them and names the field."""
    body = {"projects": [{"name": name, "id": number} for name, number in projects]}
    sim.fail("project_list", "body", body=body)
    with pytest.raises(errors.CdmConfigError, match=rf"{listed}\. Fill in Project ID"):
        read_status(open_session("keys"))
    assert sent() == sent("project_list")


def test_exact_name_wins(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator
) -> None:
    """A project of exactly that name is meant, though others look alike."""
    like = {"name": f"{sim.region}_sub", "id": "0" * 32}
    body = {"projects": [like, {"name": sim.region, "id": sim.project_id}]}
    sim.fail("project_list", "body", body=body)
    read_status(open_session("keys"))


@pytest.mark.parametrize(
    "body", ["<html>", "", "[]", "{}", '{"projects": [{}]}', '{"projects": 7}']
)
def test_nonsense_instead_of_projects(
    body: str, read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator
) -> None:
    """An answer that lists no projects says so, and is not kept."""
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
    """A clock that is off by more than the server bears is corrected once, with a warning."""
    with caplog.at_level(logging.WARNING):
        for session in [open_session(kind, ahead=ahead), open_session(kind, ahead=ahead)]:
            read_status(session)
    assert len([request for request in sim.requests if request.status == 401]) == 1
    [warning] = [
        request.getMessage() for request in caplog.records if "clock" in request.getMessage()
    ]
    side = "ahead of" if ahead > 0 else "behind"
    assert f"{abs(ahead):.0f} s {side}" in warning


@pytest.mark.parametrize("ahead", [-500, 0, 500])
def test_refusal_that_is_not_the_clocks(
    ahead: float, read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """A refused signature with a clock that will do is not tried again."""
    with pytest.raises(errors.CdmAuthError):
        read_status(open_session("keys", ahead=ahead, secret_key="wrong"))
    assert len(sim.requests) == 1


def test_wrong_key_is_tried_once(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, clock: ManualClock
) -> None:
    """A refused key is not used again for as long as the gateway would lock it, then it is."""
    session = open_session("keys", secret_key="wrong")
    with pytest.raises(errors.CdmAuthError, match="verify aksk signature fail"):
        read_status(session)
    for _ in range(10):
        with pytest.raises(errors.CdmAuthError, match="not sent again for 5 min") as later:
            read_status(open_session("keys", secret_key="wrong"))
    assert "verify aksk signature fail" in str(later.value)
    assert len(sim.requests) == 1
    read_status(open_session("keys"))
    clock.advance(LOCKOUT_SECONDS)
    before = len(sim.requests)
    with pytest.raises(errors.CdmAuthError):
        read_status(session)
    assert len(sim.requests) == before + 1


def test_missing_permission_is_no_refusal(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator
) -> None:
    """A key that may not do something may still do other things."""
    sim.fail("status", "status", status=403, body={"error_code": "APIGW.0302", "error_msg": "no"})
    session = open_session("keys")
    with pytest.raises(errors.CdmAuthError):
        read_status(session)
    read_status(session)


@pytest.mark.parametrize("kind", ["agency by password", "agency by keys"])
def test_agency_token(
    kind: str, read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """The agency's token is for the delegating account's project, and is kept."""
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


def test_delegated_users_token_dies(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator, sent: Sent
) -> None:
    """When both tokens died, both are replaced, and the call succeeds."""
    session = open_session("agency by password")
    read_status(session)
    sim.revoke_tokens()
    read_status(session)
    assert [request.status for request in sent("status")] == [200, 401, 200]
    # Two at first; then the agency's is refused for the dead one of the user, which is replaced.
    assert [request.status for request in sent("token")] == [201, 201, 401, 201, 201]


def test_unknown_agency(
    read_status: ReadStatus, open_session: OpenSession, sim: CdmSimulator
) -> None:
    """An agency that IAM does not let us assume is named, and locks nobody out."""
    session = open_session("agency by password", agency_name="nobody")
    for _ in range(3):
        with pytest.raises(errors.CdmAuthError, match=r"agency 'nobody'.*no permission to assume"):
            read_status(session)
    read_status(open_session("agency by password"))
