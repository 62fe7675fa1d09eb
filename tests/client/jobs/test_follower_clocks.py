"""How long a problem has lasted: by which clock, and what does not count."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.clusters import ClusterWaiter
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.sansio import Response
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.simulator import CdmSimulator

Play = Callable[..., Any]
CREATED = 1_735_787_045_000
OURS = RunRef("c", "orders", 5, CREATED)
DOWN = Response(503)


def run(status: str) -> dict[str, Any]:
    """Return our run on the wire."""
    return {"status": status, "submission-id": 5, "creation-date": CREATED}


BUSY, DOUBT, DONE = [run("RUNNING")], [run("UNKNOWN")], [run("SUCCEEDED")]
NOTHING: list[Any] = []
PROBLEMS = pytest.mark.parametrize(
    ("problem", "grace"),
    [(DOUBT, 600), (NOTHING, 120), (DOWN, 600)],
    ids=["unknown_status", "no_run", "outage"],
)


def next_process(follower: Follower) -> Follower:
    """Return the follower as another process restores it."""
    copy = Follower(RunRef("c", "orders"))
    copy.restore(json.loads(json.dumps(follower.dump())))
    return copy


@pytest.mark.parametrize("problem", [DOUBT, NOTHING], ids=["unknown_status", "no_run"])
@pytest.mark.parametrize("outages", [1, 5])
def test_doubt_does_not_grow_through_an_outage(problem: Any, outages: int, play_cdm: Play) -> None:
    """Time in which CDM could not be asked does not count against an unclear status."""
    cdm = play_cdm([BUSY, *[problem, *[DOWN] * 50] * outages, problem, DONE])
    assert cdm.follow().status == "SUCCEEDED"


@pytest.mark.parametrize(("problem", "grace"), [(DOUBT, 600), (NOTHING, 120)])
def test_doubt_goes_on_after_an_outage(problem: Any, grace: float, play_cdm: Play) -> None:
    """An outage interrupts a grace period and does not begin it anew."""
    cdm = play_cdm([BUSY, *[problem] * 6, *[DOWN] * 51, problem])
    with pytest.raises(errors.CdmOutcomeUnknown):
        cdm.follow()
    assert cdm.looks[-1] == 10 + grace + 500


def test_doubt_does_not_grow_through_an_outage_of_several_processes(play_cdm: Play) -> None:
    """That holds for a sensor that polls from a new process each time."""
    cdm = play_cdm([DOUBT, *[DOWN] * 50, DOUBT, *[DOWN] * 50, DOUBT, DONE])
    follower, seen = Follower(OURS), None
    while seen is None or not seen.ended:
        seen = cdm.play(follower.poll(cdm.api))
        follower = next_process(follower)
        cdm.now += 10
    assert seen.status == "SUCCEEDED"


def polls_until_the_end(cdm: Any, follower: Follower) -> int:
    """Poll every ten seconds, from a new process each time; return the number of polls."""
    for poll in itertools.count(1):
        follower = next_process(follower)
        try:
            cdm.play(follower.poll(cdm.api))
        except errors.CdmError:
            return poll
        cdm.now += 10
    raise AssertionError


def test_outage_of_several_processes_adds_nothing_to_doubt(play_cdm: Play) -> None:
    """Before an outage the run was missing for ten seconds, so after it for 110 more."""
    cdm = play_cdm([NOTHING, *[DOWN] * 50, NOTHING])
    assert polls_until_the_end(cdm, Follower(OURS)) == 1 + 50 + 12


@PROBLEMS
@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_clock_that_is_set_between_two_processes_ends_no_wait(
    jump: float, problem: Any, grace: float, play_cdm: Play
) -> None:
    """One leap of the clock between two processes does not exhaust a grace period, nor begin it
    anew.
    """
    cdm = play_cdm([problem])
    follower = Follower(OURS)
    cdm.play(follower.poll(cdm.api))
    cdm.now += jump
    for _ in range(2):
        follower = next_process(follower)
        cdm.play(follower.poll(cdm.api))
        cdm.now += 10
    assert polls_until_the_end(cdm, follower) <= grace / 10


@PROBLEMS
def test_long_time_between_two_processes_is_half_a_grace_period(
    problem: Any, grace: float, play_cdm: Play
) -> None:
    """However long nobody polled, half of the grace period is left."""
    cdm = play_cdm([problem])
    follower = Follower(OURS)
    for _ in range(4):
        cdm.play(follower.poll(cdm.api))
    cdm.now += 7200
    follower = next_process(follower)
    cdm.play(follower.poll(cdm.api))
    cdm.now += grace / 2 - 1
    cdm.play(follower.poll(cdm.api))
    cdm.now += 1
    with pytest.raises(errors.CdmError):
        cdm.play(follower.poll(cdm.api))


def test_no_time_between_two_processes_is_none(play_cdm: Play) -> None:
    """A process that polls right after another one adds nothing to a problem."""
    cdm = play_cdm([NOTHING])
    follower = Follower(OURS)
    cdm.play(follower.poll(cdm.api))
    cdm.now += 119.5
    cdm.play(follower.poll(cdm.api))
    assert cdm.play(next_process(follower).poll(cdm.api)) is None


def test_clock_that_is_set_back_between_two_processes_prolongs_nothing(play_cdm: Play) -> None:
    """The problem has lasted as long as the earlier process saw it last."""
    cdm = play_cdm([NOTHING])
    follower = Follower(OURS)
    cdm.play(follower.poll(cdm.api))
    cdm.now += 119.5
    cdm.play(follower.poll(cdm.api))
    cdm.now -= 7200
    follower = next_process(follower)
    assert cdm.play(follower.poll(cdm.api)) is None
    cdm.now += 0.5
    with pytest.raises(errors.CdmOutcomeUnknown):
        cdm.play(follower.poll(cdm.api))


def test_failures_are_counted_across_processes(play_cdm: Play) -> None:
    """A process that takes over another problem begins with no failure."""
    cdm = play_cdm([DOUBT, DOWN])
    follower = Follower(OURS)
    cdm.play(follower.poll(cdm.api))
    with pytest.raises(errors.CdmUnavailable, match="for 13 min 20 s"):
        cdm.play(next_process(follower).follow(cdm.api, poll_interval=200))


@pytest.mark.parametrize("ahead", [7200.0, -7200.0])
def test_doubt_through_an_outage_is_measured_by_the_monotonic_clock(
    ahead: float, play_cdm: Play
) -> None:
    """What a wrong clock of the wall says does not matter."""
    cdm = play_cdm([*[NOTHING] * 6, *[DOWN] * 20, NOTHING])
    exchanger = replace(cdm.api.exchanger, clock=lambda: cdm.now + ahead, monotonic=lambda: cdm.now)
    follow = Follower(OURS).follow(replace(cdm.api, exchanger=exchanger), poll_interval=10)
    with pytest.raises(errors.CdmOutcomeUnknown):
        cdm.play(follow)
    assert cdm.looks[-1] == 120 + 200 - 10


@PROBLEMS
@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_clock_that_is_set_while_waiting_changes_nothing(
    jump: float, problem: Any, grace: float, play_cdm: Play
) -> None:
    """Within one process, problems last as long as a clock says that nobody can set."""
    cdm = play_cdm([problem])
    began, wall = cdm.now, [0.0]
    exchanger = replace(
        cdm.api.exchanger, clock=lambda: cdm.now + wall[0], monotonic=lambda: cdm.now
    )
    api, follower = replace(cdm.api, exchanger=exchanger), Follower(OURS)

    def poll_forever() -> None:
        while True:
            cdm.play(follower.poll(api))
            wall[0] = jump
            cdm.now += 10

    with pytest.raises(errors.CdmError):
        poll_forever()
    assert cdm.now - began == grace


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_wait_for_a_cluster_measures_outages_in_the_same_way(
    jump: float, sim: CdmSimulator, make_session: Callable[..., Any], virtual_time: Any
) -> None:
    """A clock that is set does not end the wait for a cluster, nor prolong it."""
    session = make_session()
    sim.fail("show_cluster", "status", status=503, times=None)
    waiter = ClusterWaiter(sim.cluster_id, ["stopped"])
    assert session.run(waiter.poll(session.api)) is None
    virtual_time.jumped = jump
    assert session.run(waiter.poll(session.api)) is None
    virtual_time.sleep(600)
    with pytest.raises(errors.CdmUnavailable):
        session.run(waiter.poll(session.api))
