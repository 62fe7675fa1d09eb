"""Responses of IAM: expiry and project of a token, and responses that are not tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.client.fixture_types import Drive, MakeSession, Sent

ReadStatus = Callable[[CdmSession], Any]

JOB = "orders"
TWO_PROJECTS = {
    "projects": [{"name": "eu-west-101"}, {"name": "eu-west-101_other"}],
    "clusters": [{"name": "one"}, {"name": "two", "project": "eu-west-101_other"}],
}


@pytest.fixture
def read_status(drive: Drive, sim: CdmSimulator) -> ReadStatus:
    """Return a function that makes one status call."""
    sim.add_job(JOB)
    return lambda session: drive(session, session.api.active_run(sim.cluster_id, JOB))


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("config", [TWO_PROJECTS], ids=["two projects"])
def test_project_of_the_token(
    number: int, drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A connection without a project id uses the project of its region's token."""
    project, cluster = sim.config.projects[number], sim.config.clusters[number]
    sim.add_job(JOB, cluster.id)
    session = make_session(project_id=None, region=project.name)
    drive(session, session.api.active_run(cluster.id, JOB))
    [request] = sent()
    assert request.path.startswith(f"/v1.1/{project.id}/clusters/{cluster.id}/")
    assert sent("token")[0].json()["auth"]["scope"] == {"project": {"name": project.name}}


TOKEN = {"token": {"expires_at": "2025-01-03T03:04:05.000000Z"}}


def with_project(project: Any) -> dict[str, Any]:
    """Return the body of a token for a project."""
    return {"token": TOKEN["token"] | {"project": project}}


@pytest.mark.parametrize(
    ("body", "header", "problem"),
    [
        ("<html>Sign in</html>", "MII", "not a token"),
        ("", "MII", "not a token"),
        ([], "MII", "not a token"),
        ({}, "MII", "not a token"),
        ({"token": None}, "MII", "not a token"),
        ({"token": "MII"}, "MII", "not a token"),
        ({"token": {}}, "MII", "not a token"),
        ({"token": {"expires_at": None}}, "MII", "not a token"),
        ({"token": {"expires_at": "tomorrow"}}, "MII", "not a token"),
        (TOKEN, None, "no X-Subject-Token"),
    ],
    ids=str,
)
def test_responses_that_are_no_token(
    body: Any,
    header: str | None,
    problem: str,
    read_status: ReadStatus,
    sim: CdmSimulator,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """A response that is not a token is an error; the call is not repeated, and nothing is kept."""
    headers = {"X-Subject-Token": header} if header else {}
    sim.fail("token", "body", body=body, headers=headers)
    session = make_session()
    with pytest.raises(errors.CdmBadResponse, match=problem) as caught:
        read_status(session)
    assert str(caught.value.request_id) in str(caught.value)
    assert (len(sent("token")), len(sent("status"))) == (1, 0)
    read_status(session)


@pytest.mark.parametrize(
    "project", [None, {}, {"id": None}, {"id": ""}, {"id": 7}, {"id": ["p"]}, "p"], ids=str
)
def test_token_without_a_project(
    project: Any, read_status: ReadStatus, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A token without a project is an error if the connection does not name one either."""
    headers = {"X-Subject-Token": "MII"}
    sim.fail("token", "body", body=with_project(project), headers=headers, times=None)
    with pytest.raises(errors.CdmConfigError, match="Fill in Project ID"):
        read_status(make_session(project_id=None))
    assert sent("status") == []


@pytest.mark.parametrize(
    "expires_at",
    [
        "2025-01-02T04:04:05Z",
        "2025-01-02T04:04:05.000000Z",
        "2025-01-02T04:04:05",
        "2025-01-02T05:04:05+01:00",
    ],
)
@pytest.mark.usefixtures("far_from_utc")
def test_expiry_of_a_token(
    expires_at: str, drive: Drive, sim: CdmSimulator, clock: ManualClock, make_session: MakeSession
) -> None:
    """The expiry of a token is read in all formats; without a time zone it is UTC."""
    body = json.dumps({"token": {"expires_at": expires_at}})
    sim.fail("token", "body", body=body, headers={"X-Subject-Token": "MII"})
    session = make_session()
    token = drive(session, session.api.auth.authorize())
    assert token.expires_at == clock.now() + 3600


@pytest.mark.parametrize("ahead", [-1e6, 1e6])
@pytest.mark.parametrize("issued", [True, False], ids=["with its issue", "by the Date header"])
def test_life_of_a_token_is_judged_by_the_clock_of_iam(
    ahead: float,
    issued: bool,
    read_status: ReadStatus,
    sim: CdmSimulator,
    clock: ManualClock,
    virtual_time: Any,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """A machine whose clock is off by more than a token's life keeps its token."""
    virtual_time.jumped = ahead
    if not issued:
        token = {"expires_at": "2025-01-03T03:04:05.000000Z"}
        headers = {"X-Subject-Token": "MII", "Date": "Thu, 02 Jan 2025 03:04:05 GMT"}
        sim.fail("token", "body", body=json.dumps({"token": token}), headers=headers)
        sim.fail("status", "body", body='{"submissions": []}', times=None)
    session = make_session()
    for _ in range(23):
        read_status(session)
        clock.advance(3600)
    assert len(sent("token")) == 1
    clock.advance(3600)
    read_status(session)
    assert len(sent("token")) == 2
