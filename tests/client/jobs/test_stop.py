"""Stopping one run from a process of its own, while hundreds of others do the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.stop import how_to_stop, stop_in_time
from airflow_provider_cdm.client.session import CdmSession
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.simulator import CdmSimulator, ManualClock

JOB = "orders"
#: The calls that tell which run is active, in the order in which they are tried.
LOOKS = ["status", "submissions", "list_jobs"]


@pytest.fixture
def run(sim: CdmSimulator, clock: ManualClock) -> RunRef:
    """Start a job that runs for long, and return the run."""
    return start(sim, clock)


def start(sim: CdmSimulator, clock: ManualClock, name: str = JOB) -> RunRef:
    """Start a job that runs for long, and return the run."""
    sim.add_job(name, seconds=100_000)
    started = sim.start(name)
    clock.advance(0.01)
    return RunRef(sim.cluster_id, name, started.submission_id, int(started.created * 1000))


def refuse(sim: CdmSimulator, routes: Sequence[str], **settings: Any) -> None:
    """Let the quota of some calls be used up."""
    for route in routes:
        sim.fail(route, "status", status=429, times=None, **settings)


@pytest.mark.parametrize("refused", [0, 1, 2], ids=lambda count: "+".join(LOOKS[:count]) or "none")
def test_any_quota_that_is_left_tells_whose_run_is_active(
    refused: int, sim: CdmSimulator, run: RunRef, make_session: Callable[..., CdmSession]
) -> None:
    """Where the quota of one call is used up, the next one is made at once."""
    refuse(sim, LOOKS[:refused])
    session = make_session()
    assert session.run(stop_in_time(session.api, run, within=4)) is True
    assert [call.route for call in sim.requests if call.route != "token"] == [
        *LOOKS[: refused + 1],
        "stop",
    ]


@pytest.mark.parametrize("refused", [0, 1, 2], ids=lambda count: "+".join(LOOKS[:count]) or "none")
def test_somebody_elses_run_is_not_stopped(
    refused: int,
    sim: CdmSimulator,
    run: RunRef,
    clock: ManualClock,
    make_session: Callable[..., CdmSession],
) -> None:
    """Whichever call tells it, a later run than ours is left alone."""
    sim.stop(JOB)
    clock.advance(1)
    sim.start(JOB)
    refuse(sim, LOOKS[:refused])
    session = make_session()
    try:
        assert session.run(stop_in_time(session.api, run, within=4)) is False
    except errors.CdmThrottled:
        assert refused == 2
    clock.advance(10)
    assert sim.runs(JOB)[-1].status == "RUNNING"


@pytest.mark.parametrize(("age", "sent"), [(5.0, True), (15.0, False)])
def test_run_seen_active_a_moment_ago_is_stopped_without_any_look(
    age: float,
    sent: bool,
    sim: CdmSimulator,
    run: RunRef,
    make_session: Callable[..., CdmSession],
) -> None:
    """Where all quotas are used up, a look of the last ten seconds is good enough; an older one is
    not, and the stop fails.
    """
    refuse(sim, LOOKS)
    session = make_session()
    seen_at = session.monotonic() - age
    flow = stop_in_time(session.api, run, within=4, seen_active=lambda: seen_at)
    if sent:
        assert session.run(flow) is True
    else:
        with pytest.raises(errors.CdmThrottled):
            session.run(flow)
    assert [call.route for call in sim.requests].count("stop") == sent


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("status", {"status": 503}), ("status", {"status": 429}), ("drop", {}), ("reset", {})],
)
@pytest.mark.parametrize("route", ["status", "stop"])
def test_failures_are_repeated_within_the_time(
    route: str,
    kind: Any,
    settings: dict[str, Any],
    sim: CdmSimulator,
    run: RunRef,
    clock: ManualClock,
    make_session: Callable[..., CdmSession],
) -> None:
    """A failed call, whether it had its effect or not, does not lose the stop."""
    sim.fail(route, kind, times=3, **settings)
    session = make_session()
    session.run(stop_in_time(session.api, run, within=60))
    clock.advance(10)
    assert sim.runs(JOB)[-1].status == "STOPPED"


def test_look_is_repeated_when_the_stop_is_late(
    sim: CdmSimulator,
    run: RunRef,
    clock: ManualClock,
    make_session: Callable[..., CdmSession],
) -> None:
    """A stop that has to wait for its quota is sent after another look only: by then somebody else
    may have started the job.
    """
    refuse(sim, ["stop"], headers={"Retry-After": "30"}, when="before")
    session = make_session()
    flow = stop_in_time(session.api, run, within=60)
    sleep = session._sleep

    def start_again_meanwhile(seconds: float) -> None:
        sim.faults.clear()
        sim.stop(JOB)
        sleep(seconds)
        sim.start(JOB)

    session._sleep = start_again_meanwhile
    assert session.run(flow) is False
    clock.advance(10)
    assert sim.runs(JOB)[-1].status == "RUNNING"


@pytest.mark.long
@pytest.mark.parametrize("config", [{"quotas": "documented"}])
def test_400_workers_stop_as_many_runs_as_all_quotas_tell_about(
    sim: CdmSimulator, clock: ManualClock, make_session: Callable[..., CdmSession]
) -> None:
    """400 tasks that are killed on workers at once do not know of each other: 360 of them find a
    quota that tells whose run is active, instead of the 120 of the status call.
    """
    refs = [start(sim, clock, f"{JOB}_{number}") for number in range(400)]
    outcomes: Counter[str] = Counter()
    for ref in refs:
        session = make_session()
        # No time for a second try, as on a worker of Airflow 3.
        try:
            session.run(stop_in_time(session.api, ref, within=0))
        except errors.CdmThrottled:
            outcomes["refused"] += 1
        else:
            outcomes["stopped"] += 1
    assert outcomes == {"stopped": 360, "refused": 40}


def test_sentence_says_how_to_stop_a_run() -> None:
    """The call for a person names connection, project, job and cluster."""
    run = RunRef("c", JOB, 5)
    assert "CdmHook('x').stop_job('orders', 'c')" in how_to_stop(run, "x")
    assert "CdmHook('x', project_id='p').stop_job(" in how_to_stop(run, "x", "p")
