"""Finding runs: the active one, the first since a date, and the one to stop."""

from __future__ import annotations

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock
from tests.client.fixture_types import Drive, MakeSession, Sent

JOB = "orders"


@pytest.mark.parametrize(
    ("script", "active"),
    [
        (["PENDING"], True),
        (["BOOTING"], True),
        (["RUNNING"], True),
        (["UNKNOWN"], True),
        (["PAUSED"], True),
        (["SUCCEEDED"], False),
        (["FAILED"], False),
        (["FAILURE_ON_SUBMIT"], False),
        (["STOPPED"], False),
        (["NEVER_EXECUTED"], False),
        (None, False),
    ],
)
def test_active_run(
    script: list[str] | None,
    active: bool,
    drive: Drive,
    sim: CdmSimulator,
    make_session: MakeSession,
) -> None:
    """A run is active until CDM shows its end; a job that never ran has no active run."""
    sim.add_job(JOB, statuses=script or [])
    if script:
        sim.start(JOB)
    session = make_session()
    found = drive(session, session.api.active_run(sim.cluster_id, JOB))
    assert (found is not None) is active


@pytest.mark.parametrize("who", ["another run", "an ended run", "no run"])
def test_stop_run_stops_no_other(
    who: str,
    drive: Drive,
    sim: CdmSimulator,
    clock: ManualClock,
    make_session: MakeSession,
    sent: Sent,
) -> None:
    """CDM stops by the job's name, so nothing is sent unless the run is the active one."""
    sim.add_job(JOB)
    if who != "no run":
        sim.start(JOB)
        clock.advance(10)
    if who == "another run":
        sim.start(JOB)
    session = make_session()
    assert drive(session, session.api.stop_run(RunRef(sim.cluster_id, JOB, 1))) is False
    assert sent("stop") == []


def test_stop_without_a_run(drive: Drive, sim: CdmSimulator, make_session: MakeSession) -> None:
    """Stopping a job without an active run (Cdm.0053) is no error, and returns ``False``."""
    sim.add_job(JOB)
    session = make_session()
    assert drive(session, session.api.stop(sim.cluster_id, JOB)) is False


@pytest.mark.parametrize(
    ("runs", "since", "expected"),
    [(0, 0, None), (3, 0, 1), (3, 100, 2), (3, 101, 3), (3, 201, None), (12, 1100, 12)],
)
def test_first_run_since(
    runs: int,
    since: int,
    expected: int | None,
    drive: Drive,
    sim: CdmSimulator,
    clock: ManualClock,
    make_session: MakeSession,
) -> None:
    """The first run created at or after a date is found among runs 100 s apart."""
    sim.add_job(JOB)
    began = clock.now()
    for _ in range(runs):
        sim.start(JOB)
        clock.advance(100)
    session = make_session()
    instant = int((began + since) * 1000)
    found = drive(session, session.api.first_run_since(sim.cluster_id, JOB, instant))
    assert (found.submission_id if found else None) == expected


def test_first_run_beyond_the_history(
    drive: Drive, sim: CdmSimulator, clock: ManualClock, make_session: MakeSession
) -> None:
    """If all ten runs that CDM shows are new, an eleventh may have been the first."""
    sim.add_job(JOB)
    for _ in range(11):
        sim.start(JOB)
        clock.advance(10)
    session = make_session()
    with pytest.raises(errors.CdmOutcomeUnknown, match="10 newest of 11"):
        drive(session, session.api.first_run_since(sim.cluster_id, JOB, 0))
