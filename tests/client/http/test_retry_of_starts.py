"""Repeated starts: a start has no idempotency key, so only some failures allow to repeat it.

These tests are about one call. How the effect of an ambiguous start is established is tested
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import runs
from airflow_provider_cdm.simulator import CdmSimulator
from tests.client.fixture_types import Drive, MakeSession, Sent

JOB = "orders"
AMBIGUOUS: list[dict[str, Any]] = [
    {"kind": "drop"},
    {"kind": "reset"},
    {"kind": "hang"},
    {"kind": "status", "status": 408},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 500, "body": ""},
    {"kind": "status", "status": 501, "body": ""},
    {"kind": "status", "status": 502, "body": "<html>"},
    {"kind": "status", "status": 503, "headers": {"Retry-After": "1"}},
    {"kind": "status", "status": 504},
    {"kind": "status", "status": 400, "body": {"errCode": "Cdm.0000"}},
    {"kind": "status", "status": 400, "body": {"errCode": "Cdm.0031"}},
    {"kind": "body", "body": ""},
    {"kind": "body", "body": "<html>Sign in</html>"},
    {"kind": "body", "body": {"submissions": []}},
]
REFUSED: list[tuple[type[errors.CdmError], int, Any]] = [
    (errors.CdmRefused, 400, {"errCode": "Cdm.0059", "externalMessage": "Job is disabled"}),
    (errors.CdmRefused, 500, {"errCode": "Cdm.0037", "externalMessage": "Cannot be submitted"}),
    (errors.CdmNotFound, 500, {"errCode": "Cdm.0100", "externalMessage": "No such job"}),
    (errors.CdmAlreadyRunning, 400, {"errCode": "Cdm.0052", "externalMessage": "Job is running"}),
    (errors.CdmAlreadyRunning, 409, {"errCode": "Cdm.0323", "externalMessage": "It exists"}),
    (errors.CdmAuthError, 403, None),
    (errors.CdmNotFound, 404, None),
    (errors.CdmRefused, 400, "<html>Bad request</html>"),
    (errors.CdmBadResponse, 302, ""),
]


def name_of(fault: Any) -> str:
    """Return a short name of a fault."""
    return " ".join(map(str, fault.values())) if isinstance(fault, dict) else str(fault)


@pytest.fixture
def start(drive: Drive, sim: CdmSimulator, make_session: MakeSession) -> Callable[..., Any]:
    """Return a function that sends one start of a job."""
    sim.add_job(JOB)

    def start(**extra: Any) -> Any:
        session = make_session(**extra)
        return drive(session, session.api.call(runs.start_job(sim.cluster_id, JOB)))

    return start


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", AMBIGUOUS, ids=name_of)
def test_ambiguous(
    fault: dict[str, Any],
    when: Any,
    drive: Drive,
    sim: CdmSimulator,
    make_session: MakeSession,
    start: Any,
    sent: Sent,
    virtual_time: Any,
) -> None:
    """A start with an unknown effect is not repeated, whether the job runs or not."""
    sim.fail("start", when=when, **fault, times=None)
    # Get a token first, since that may take longer than the timeout of this start.
    other = make_session()
    drive(other, other.api.call(runs.status(sim.cluster_id, JOB)))
    with pytest.raises(errors.CdmError) as caught:
        start(read_timeout=0.05 if fault["kind"] == "hang" else 30)
    assert caught.value.effect_unknown
    assert len(sent("start")) == 1
    assert len(sim.runs(JOB)) == (1 if when == "after" else 0)
    assert virtual_time.slept == []


@pytest.mark.parametrize(("cls", "status", "body"), REFUSED)
def test_refused(
    cls: type[errors.CdmError],
    status: int,
    body: Any,
    sim: CdmSimulator,
    start: Any,
    sent: Sent,
    virtual_time: Any,
) -> None:
    """A refused start is reported immediately, and certainly has no effect."""
    sim.fail("start", "status", status=status, body=body, times=None)
    with pytest.raises(errors.CdmError) as caught:
        start()
    assert type(caught.value) is cls
    assert not caught.value.effect_unknown
    assert len(sent("start")) == 1
    assert virtual_time.slept == []


def test_already_running(sim: CdmSimulator, start: Any, sent: Sent, virtual_time: Any) -> None:
    """A start of a job with an active run is not repeated after that run has ended."""
    sim.start(JOB)
    with pytest.raises(errors.CdmAlreadyRunning, match="if_running"):
        start()
    assert (len(sent("start")), virtual_time.slept) == (1, [])
    assert len(sim.runs(JOB)) == 1


@pytest.mark.parametrize("header", [None, "7"])
def test_throttled(
    header: str | None, sim: CdmSimulator, start: Any, sent: Sent, virtual_time: Any
) -> None:
    """A throttled start had no effect, so it is repeated, and there is one run."""
    headers = {"Retry-After": header} if header else None
    sim.fail("start", "status", status=429, headers=headers, times=2)
    assert start().submission_id == 1
    assert (len(sent("start")), len(sim.runs(JOB))) == (3, 1)
    assert virtual_time.slept == ([7.5, 7.5] if header else [0.5, 1.0])


@pytest.mark.parametrize("status", [401, 503])
def test_no_token_no_start(status: int, sim: CdmSimulator, start: Any, sent: Sent) -> None:
    """Without a token, nothing is sent to CDM, so the start certainly has no effect."""
    sim.fail("token", "status", status=status, times=None)
    with pytest.raises((errors.CdmUnavailable, errors.CdmAuthError)) as caught:
        start()
    assert not caught.value.effect_unknown
    assert sent("start") == []
