"""Refusals by a policy: they are no rejection of credentials, so nothing is blocked locally."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import Drive, MakeSession, Sent
from tests.support.credentials import KEYS

JOB = "orders"
REFUSED = {"users": [{"name": "airflow", "access_keys": [KEYS], "refused_by_policy": True}]}
KINDS: dict[str, dict[str, Any]] = {
    "password": {},
    "keys": {"login": "", "password": "", "domain_name": None, **KEYS},
}


@pytest.mark.parametrize("config", [REFUSED], ids=["policy"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_policy_blocks_no_credentials(
    kind: str, drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """Each call is sent, once, with the same token, and the error does not blame credentials."""
    sim.add_job(JOB)
    session = make_session(**KINDS[kind])
    for _ in range(4):
        with pytest.raises(errors.CdmAuthError) as caught:
            drive(session, session.api.active_run(sim.cluster_id, JOB))
        text = str(caught.value)
        assert text.startswith("Policy doesn't allow this operation.")
        assert "(EPS.0003, HTTP 401" in text
        assert "a policy refuses the call" in text
        assert not caught.value.refuses_credentials
        assert caught.value.retry_after is None
    assert [request.status for request in sent("status")] == [401] * 4
    assert len(sent("token")) == (kind == "password")


@pytest.mark.parametrize(
    ("body", "pauses"),
    [
        ({"error": {"code": "EPS.0003", "message": "Policy doesn't allow it."}}, False),
        ({"error_code": "PAP5.0012", "error_msg": "Explicitly denied."}, False),
        ({"errCode": "Cdm.0032", "externalMessage": "No permission."}, False),
        ({"error_code": "APIGW.0301", "error_msg": "verify aksk signature fail"}, True),
        ({"error_code": "IAM.0001", "error_msg": "Authentication failed."}, True),
        ({"error": {"code": 401, "message": "No.", "title": "Unauthorized"}}, True),
        ({"code": "Unauthorized", "message": "No."}, True),
        ("", True),
    ],
    ids=str,
)
def test_which_codes_pause_a_key(
    body: Any, pauses: bool, drive: Drive, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """A key is kept back only after the gateway or IAM has refused it, or nobody says who did."""
    sim.add_job(JOB)
    session = make_session(**KINDS["keys"])
    sim.fail("status", "status", status=401, body=body)
    call = session.api.active_run
    with pytest.raises(errors.CdmAuthError):
        drive(session, call(sim.cluster_id, JOB))
    assert session.api.auth.is_refused() is pauses


@pytest.mark.parametrize("number", range(1104, 1109))
def test_an_expired_key_is_refused_whatever_the_status(
    number: int, drive: Drive, sim: CdmSimulator, make_session: MakeSession
) -> None:
    """IAM answers 400 to an access key or security token that has expired."""
    body = {"error_code": f"IAM.{number}", "error_msg": "The token has expired."}
    sim.fail("status", "status", status=400, body=body)
    session = make_session(**KINDS["keys"])
    with pytest.raises(errors.CdmAuthError, match="Security Token of the connection") as caught:
        drive(session, session.api.active_run(sim.cluster_id, JOB))
    assert caught.value.refuses_credentials


def test_a_policy_of_iam_blocks_no_password(
    drive: Drive, sim: CdmSimulator, make_session: MakeSession, sent: Sent
) -> None:
    """A token that a policy refuses says nothing about the password, which may be sent again."""
    body = {"error": {"code": "EPS.0003", "message": "Policy doesn't allow it."}}
    sim.fail("token", "status", status=401, body=body)
    sim.add_job(JOB)
    session = make_session()
    with pytest.raises(errors.CdmAuthError, match="a policy refuses"):
        drive(session, session.api.active_run(sim.cluster_id, JOB))
    drive(session, session.api.active_run(sim.cluster_id, JOB))
    assert [request.status for request in sent("token")] == [401, 201]
