"""The project id of an access key: found with the fewest rights, and never guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import Drive, MakeSession, Sent
from tests.support.credentials import KEYS, REGION

JOB = "orders"
PROJECTS = [{"name": REGION}, {"name": f"{REGION}_other"}, {"name": "MOS"}]


def account(*, signed: bool = True, **rights: bool) -> dict[str, Any]:
    """Return an account with one user, who has an access key and some rights."""
    user = {"name": "airflow", "access_keys": [KEYS], **rights}
    behaviour = {"signed_auth_projects": signed}
    return {"users": [user], "projects": PROJECTS, "behaviour": behaviour}


FEW_RIGHTS = account(lists_projects=False)
NO_LOOK_UP = account(lists_projects=False, signed=False)


@pytest.fixture
def read_status(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession
) -> Callable[..., CdmSession]:
    """Return a function that makes one status call with the access key, in the region's project."""
    sim.add_job(JOB)

    def read_status(**extra: Any) -> CdmSession:
        fields = {"region": REGION, "project_id": None, "domain_name": None, **KEYS, **extra}
        session = make_session(login="", password="", **fields)
        drive(session, session.api.active_run(sim.cluster_id, JOB))
        return session

    return read_status


ReadStatus = Callable[..., CdmSession]


@pytest.mark.parametrize("config", [FEW_RIGHTS], ids=["few rights"])
def test_a_key_with_few_rights_finds_its_project(
    read_status: ReadStatus, sim: CdmSimulator, sent: Sent
) -> None:
    """Without the permission to list projects, those that the user may use are read, once."""
    read_status()
    read_status()
    assert [request.status for request in sent("project_list", "own_project_list")] == [403, 200]
    assert {request.headers["x-project-id"] for request in sent("status")} == {sim.project_id}


@pytest.mark.parametrize("config", [FEW_RIGHTS], ids=["few rights"])
def test_another_project_of_the_region_is_found_by_its_name(
    read_status: ReadStatus, sim: CdmSimulator, sent: Sent
) -> None:
    """Of all projects that are listed, the one with exactly that name counts."""
    with pytest.raises(errors.CdmError):  # the cluster belongs to the other one
        read_status(region=f"{REGION}_other")
    assert {request.headers["x-project-id"] for request in sent("status")} == {
        sim.config.projects[1].id
    }


@pytest.mark.parametrize("config", [NO_LOOK_UP], ids=["no look-up"])
def test_a_refused_look_up_names_the_field_to_fill_in(
    read_status: ReadStatus, sim: CdmSimulator, sent: Sent
) -> None:
    """If neither list is shown, the error says so, blames no password, and blocks no key."""
    with pytest.raises(errors.CdmAuthError) as caught:
        read_status()
    text = str(caught.value)
    assert text.startswith("You are not authorized to perform the requested action.")
    assert f"Could not find project '{REGION}' at {sim.iam_url} (HTTP 403" in text
    assert "may not see projects" in text
    assert "Fill in Project ID in the connection" in text
    assert "password" not in text
    assert caught.value.concerns_project
    assert not caught.value.refuses_credentials
    assert [r.status for r in sent("project_list", "own_project_list")] == [403, 401]
    read_status(project_id=sim.project_id)


@pytest.mark.parametrize("config", [NO_LOOK_UP], ids=["no look-up"])
def test_a_refused_look_up_does_not_lock_the_key(read_status: ReadStatus, sent: Sent) -> None:
    """However often the look-up is refused, the key stays usable for everything else."""
    for _ in range(6):
        with pytest.raises(errors.CdmAuthError, match="Fill in Project ID"):
            read_status()
    assert len(sent("project_list")) == 6


@pytest.mark.parametrize("config", [account(), FEW_RIGHTS], ids=["all rights", "few rights"])
def test_a_region_without_a_project(read_status: ReadStatus, sent: Sent) -> None:
    """A wrong region is an error that lists the projects of the key, and makes no call of CDM."""
    with pytest.raises(errors.CdmConfigError) as caught:
        read_status(region="nowhere")
    text = str(caught.value)
    assert text.startswith("One project named 'nowhere' was expected, but these were found: ")
    assert f"{REGION} (" in text
    assert "Check Region. Fill in Project ID" in text
    assert sent("status") == []


@pytest.mark.parametrize("config", [account()], ids=["all rights"])
def test_a_project_of_another_name_is_not_taken(
    read_status: ReadStatus, sim: CdmSimulator, sent: Sent
) -> None:
    """The only project that is shown is no guess for the one that was asked for."""
    other = {"projects": [{"name": f"{REGION}_other", "id": "0" * 32}]}
    sim.fail("project_list", "body", body=other)
    sim.fail("own_project_list", "body", body=other)
    with pytest.raises(errors.CdmConfigError, match=rf"found: {REGION}_other \(0{{32}}\)\."):
        read_status()
    assert sent("status") == []


@pytest.mark.parametrize("config", [FEW_RIGHTS], ids=["few rights"])
def test_a_wrong_key_is_sent_once(read_status: ReadStatus, sim: CdmSimulator) -> None:
    """A rejected signature ends the look-up: another call would count as one more rejection."""
    with pytest.raises(errors.CdmAuthError, match="verify aksk signature fail") as caught:
        read_status(secret_key="wrong")
    assert caught.value.refuses_credentials
    assert "Check Access Key, Secret Key" in str(caught.value)
    assert len(sim.requests) == 1


@pytest.mark.parametrize("config", [FEW_RIGHTS], ids=["few rights"])
def test_an_outage_of_the_second_list_is_temporary(
    read_status: ReadStatus, sim: CdmSimulator, sent: Sent
) -> None:
    """A failure of IAM is no answer about the project, so a later attempt may succeed."""
    sim.fail("own_project_list", "status", status=503, times=5)
    with pytest.raises(errors.CdmUnavailable) as caught:
        read_status()
    assert caught.value.retryable
    read_status()
    assert sent("status")


@pytest.mark.parametrize("config", [account()], ids=["all rights"])
@pytest.mark.parametrize("field", ["region", "project_id"])
def test_a_project_that_iam_does_not_know(
    field: str, drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """With a password, IAM's 404 for a project is about the connection, and not about a job."""
    fields = {"project_id": None, "region": REGION, field: "nowhere"}
    session = make_session(**fields)
    with pytest.raises(errors.CdmConfigError) as caught:
        drive(session, session.api.active_run(sim.cluster_id, JOB))
    text = str(caught.value)
    assert text.startswith("Could not find project: nowhere.")
    assert "IAM does not know project 'nowhere': check" in text
    assert "Project ID" in text
    assert "job" not in text
    assert caught.value.http_status == 404
    assert len(sent("token")) == 1


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("Could not find agency: migrations.", "check Agency Name and Agency Account Name"),
        ("Could not find project: x.", "check Project ID in the connection"),
    ],
)
def test_what_iam_does_not_know(
    reason: str, advice: str, drive: Drive, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """IAM's 404 to a request for the token of an agency may be about the agency itself."""
    body = {"error": {"code": 404, "message": reason, "title": "Not Found"}}
    sim.fail("token", "status", status=404, body=body, skip=1)
    session = make_session(agency_name="migrations", agency_domain_name="partner")
    with pytest.raises(errors.CdmConfigError, match=advice):
        drive(session, session.api.active_run(sim.cluster_id, JOB))


@pytest.mark.parametrize(
    ("status", "body", "hinted"),
    [
        (401, {"error": {"code": 401, "title": "Unauthorized"}}, True),
        (401, {"error": {"code": 401, "message": "The username or password is wrong."}}, False),
        (401, {"error_code": "IAM.0061", "error_msg": "The account is locked."}, False),
        (400, {"error": {"code": 400, "message": "The request body is invalid"}}, True),
        (503, "", False),
    ],
    ids=str,
)
def test_a_token_that_is_refused_without_a_reason(
    status: int,
    body: Any,
    hinted: bool,
    drive: Drive,
    sim: CdmSimulator,
    make_session: MakeSession,
) -> None:
    """Where IAM gives no reason, the error also names the project, which may be the cause."""
    sim.fail("token", "status", status=status, body=body, times=None)
    session = make_session()
    with pytest.raises(errors.CdmError) as caught:
        drive(session, session.api.active_run(sim.cluster_id, JOB))
    assert ("check Region and Project ID" in str(caught.value)) is hinted
