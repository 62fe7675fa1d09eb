"""A token near its end: who renews it, and what the others do meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.client.auth import token
from airflow_provider_cdm.client.sansio import Request, Sleep
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.client.fixture_types import Drive, MakeSession, Sent

#: Seconds of a token's life, and those before its end from which on it is renewed.
LIFETIME, AHEAD = 86_400.0, 300.0


@pytest.fixture
def near_the_end(drive: Drive, clock: ManualClock, make_session: MakeSession) -> CdmSession:
    """Return a session whose token is to be renewed by now, and is still valid."""
    session = make_session()
    drive(session, session.api.auth.authorize())
    clock.advance(LIFETIME - AHEAD + 1)
    return session


@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 503}, {"kind": "drop"}], ids=["503", "no answer"]
)
def test_iam_is_spared_while_it_fails(
    fault: dict[str, Any],
    near_the_end: CdmSession,
    drive: Drive,
    clock: ManualClock,
    sim: CdmSimulator,
    sent: Sent,
) -> None:
    """While IAM fails, each call uses the old token, and a renewal is tried each half minute."""
    sim.fail("token", **fault, times=None)
    sim.add_job("orders")
    for _ in range(58):
        drive(near_the_end, near_the_end.api.call(runs.status(sim.cluster_id, "orders")))
        clock.advance(5)
    assert [request.status for request in sent("status")] == [200] * 58
    # The first one was for the token that is to be renewed.
    assert 10 <= len(sent("token")) <= 11
    # Past its end, the old token is of no use.
    clock.advance(20)
    with pytest.raises(errors.CdmUnavailable):
        drive(near_the_end, near_the_end.api.auth.authorize())


def test_nobody_waits_for_a_renewal(near_the_end: CdmSession) -> None:
    """While one caller renews the token, the others go on with the old one."""
    auth = near_the_end.api.auth
    renewal = auth.authorize()
    assert isinstance(next(renewal), Request)
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(auth.authorize())
    renewal.close()


def test_callers_wait_less_and_less_often_for_the_first_token(make_session: MakeSession) -> None:
    """Without a token, the others wait for the one that requests it, and look for it ever less."""
    auth = make_session().api.auth
    first, second = auth.authorize(), auth.authorize()
    assert isinstance(next(first), Request)
    pauses = []
    for _ in range(8):
        step = next(second)
        assert isinstance(step, Sleep)
        pauses.append(step.seconds)
    assert pauses[:3] == [0.05, 0.1, 0.2]
    assert pauses[-1] == 1.0
    first.close()
    second.close()


def test_connections_with_different_proxies_do_not_wait_for_each_other(
    make_session: MakeSession,
) -> None:
    """A proxy that does not answer delays no connection of the same user without it."""
    behind_proxy = make_session(proxy="http://127.0.0.1:1").api.auth.authorize()
    direct = make_session().api.auth.authorize()
    assert isinstance(next(behind_proxy), Request)
    assert isinstance(next(direct), Request)
    behind_proxy.close()
    direct.close()


def test_tokens_of_earlier_passwords_are_forgotten(
    drive: Drive, clock: ManualClock, make_session: MakeSession, sim: CdmSimulator
) -> None:
    """A process that lives on while passwords change keeps neither them nor their tokens."""
    for number in range(5):
        password = f"passw0rd-number-{number}"
        sim.rotate(password=password)
        session = make_session(password=password)
        drive(session, session.api.auth.authorize())
        clock.advance(LIFETIME + 1)
    kept = token._states
    assert len(kept) == 1
    assert "passw0rd" not in str([*kept])
