"""Which run is followed: by number, by date, the first since a date, and across processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.follower import Follower, GracePeriods
from airflow_provider_cdm.client.sansio import Response
from airflow_provider_cdm.client.submission import RunRef

Play = Callable[..., Any]
CREATED = 1_735_787_045_000
UNKNOWN_RUN = RunRef("c", "orders")
GONE = Response(400, {}, b'{"errCode": "Cdm.0054", "externalMessage": "no such job"}')
DOWN = Response(503)


def run(status: str, number: int | None = None, created: int | None = None) -> dict[str, Any]:
    """Return a submission on the wire."""
    keys = {"submission-id": number, "creation-date": created}
    return {"status": status} | {name: value for name, value in keys.items() if value is not None}


@pytest.mark.parametrize(
    ("number", "created"), [(5, None), (None, CREATED), (5, CREATED)], ids=["id", "date", "both"]
)
@pytest.mark.parametrize(
    ("wire_number", "wire_created", "offset"),
    [(True, False, 0), (False, True, 0), (True, True, 0), (True, True, 7)],
    ids=["shows ids", "shows dates", "shows both", "dates differ"],
)
def test_identity(
    number: int | None,
    created: int | None,
    wire_number: bool,
    wire_created: bool,
    offset: int,
    play_cdm: Play,
) -> None:
    """Numbers identify runs if both sides have them, else dates; else no run is taken."""

    def shown(status: str, later: int = 0) -> dict[str, Any]:
        date = CREATED + offset + later * 60_000
        return run(status, 5 + later if wire_number else None, date if wire_created else None)

    stale, busy, newer, done = (
        shown("FAILED", -1),
        shown("RUNNING"),
        shown("FAILED", 1),
        shown("SUCCEEDED"),
    )
    cdm = play_cdm([[stale], [busy], [newer]], [[newer, done, stale]])
    ref = RunRef("c", "orders", number, created)
    by_number = number is not None and wire_number
    if by_number or (created is not None and wire_created and not offset):
        assert cdm.follow(ref).status == "SUCCEEDED"
        assert cdm.looks == [0, 10, 20]
    else:
        with pytest.raises(errors.CdmOutcomeUnknown):
            cdm.follow(ref)


def test_identity_is_completed(play_cdm: Play) -> None:
    """A run without a number is identified by its date, until a poll shows the number, and one
    without a date by its number.
    """
    cdm = play_cdm([[run("RUNNING", 5, CREATED)], [run("SUCCEEDED", 5)]])
    assert cdm.follow(RunRef("c", "orders", None, CREATED)).submission_id == 5
    cdm = play_cdm([[run("RUNNING", 5, CREATED)], [run("SUCCEEDED", None, CREATED)]])
    assert cdm.follow(RunRef("c", "orders", 5)).status == "SUCCEEDED"


def test_nothing_to_compare(play_cdm: Play) -> None:
    """A run without number and date cannot be followed, and the wait ends."""
    cdm = play_cdm([[run("SUCCEEDED")]])
    with pytest.raises(errors.CdmOutcomeUnknown, match="is unknown"):
        cdm.follow()
    assert cdm.looks[-1] == 120


HISTORY = [run("BOOTING", 7, CREATED + 90), run("SUCCEEDED", 6, CREATED), run("FAILED", 5, 1)]


@pytest.mark.parametrize(
    ("histories", "since", "number", "looks"),
    [
        ([HISTORY], CREATED, 6, [0]),
        ([HISTORY], 0, 5, [0]),
        ([HISTORY], CREATED + 1, 7, [0]),
        ([[], [], HISTORY], CREATED, 6, [20]),
        ([DOWN, DOWN, HISTORY], CREATED, 6, [20]),
    ],
)
def test_discovery(
    histories: list[Any], since: int, number: int, looks: list[float], play_cdm: Play
) -> None:
    """A run that is not known yet is the first one since a date, however long that takes."""
    ended = [run("SUCCEEDED", n, created) for n, created in ((5, 1), (6, CREATED))]
    shown = [item for item in ended if item["submission-id"] == number]
    cdm = play_cdm([shown or [run("FAILED", 7, CREATED + 90)]], histories)
    assert cdm.follow(UNKNOWN_RUN, created_from=since).submission_id == number
    assert cdm.looks == looks


@pytest.mark.parametrize(
    ("history", "error", "text"),
    [
        (GONE, errors.CdmNotFound, "no such job"),
        (DOWN, errors.CdmUnavailable, "could not be read for 10 min 00 s"),
        (Response(403), errors.CdmAuthError, "HTTP 403"),
        ([], errors.CdmWaitTimeout, "has had no run since 2025-01-02 03:04:05 UTC"),
    ],
    ids=["no job", "outage", "forbidden", "no run"],
)
def test_discovery_ends(
    history: Any, error: type[errors.CdmError], text: str, play_cdm: Play
) -> None:
    """Searching for a run ends at once if it is pointless, else by grace period or deadline."""
    cdm = play_cdm([[]], [history])
    with pytest.raises(error, match=text) as caught:
        cdm.follow(UNKNOWN_RUN, created_from=CREATED, deadline=700)
    assert type(caught.value) is error


def restored(follower: Follower) -> Follower:
    """Return the follower as another process restores it."""
    copy = Follower(UNKNOWN_RUN, created_from=follower.created_from, grace=follower.grace)
    copy.restore(json.loads(json.dumps(follower.dump())))
    return copy


@pytest.mark.parametrize(
    ("problem", "grace"),
    [([run("UNKNOWN", 5, CREATED)], 600), ([], 120), (DOWN, 600)],
    ids=["unknown_status", "no_run", "outage"],
)
def test_grace_periods_outlive_a_process(problem: Any, grace: float, play_cdm: Play) -> None:
    """A wait that changes processes between polls tolerates a problem no longer than others."""
    cdm = play_cdm([[run("RUNNING", 5, CREATED)], problem])

    def poll_forever(follower: Follower) -> None:
        while True:
            cdm.play(follower.poll(cdm.api))
            follower = restored(follower)
            cdm.now += 10

    with pytest.raises(errors.CdmError):
        poll_forever(Follower(RunRef("c", "orders", 5, CREATED)))
    assert cdm.looks[-1] == 10 + grace


def test_discovery_outlives_a_process(play_cdm: Play) -> None:
    """The run that was found is followed, even if the history has changed since then."""
    cdm = play_cdm([[run("RUNNING", 7, CREATED + 90)]], [HISTORY, [run("RUNNING", 8, CREATED)]])
    follower = Follower(UNKNOWN_RUN, created_from=CREATED + 1)
    assert cdm.play(follower.poll(cdm.api)).submission_id == 7
    copy = restored(follower)
    assert copy.run == RunRef("c", "orders", 7, CREATED + 90)
    assert cdm.play(copy.poll(cdm.api)).submission_id == 7


@pytest.mark.parametrize("dump", [None, {}])
def test_nothing_to_restore(dump: Any) -> None:
    """The first process has nothing to restore, and follows the run it was given."""
    follower = Follower(RunRef("c", "orders", 5, CREATED))
    follower.restore(dump)
    assert follower.run == RunRef("c", "orders", 5, CREATED)


def test_on_status(play_cdm: Play) -> None:
    """The callback is called after every poll, also after those that did not show the run."""
    seen: list[Any] = []
    cdm = play_cdm([DOWN, [], [run("RUNNING", 5, CREATED)], [run("FAILED", 5, CREATED)]])
    follower = Follower(RunRef("c", "orders", 5), grace=GracePeriods())
    cdm.play(follower.follow(cdm.api, poll_interval=10, on_status=seen.append))
    assert [poll and poll.status for poll in seen] == [None, None, "RUNNING", "FAILED"]


@pytest.mark.parametrize(("dice", "gap"), [(0.0, 27.0), (0.5, 30.0), (0.999999, 33.0)])
def test_polls_have_jitter(dice: float, gap: float, play_cdm: Play) -> None:
    """Intervals vary by a tenth, so that tasks that began together do not poll together."""
    cdm = play_cdm([[run("RUNNING", 5, CREATED)], [run("SUCCEEDED", 5, CREATED)]], dice=dice)
    cdm.play(Follower(RunRef("c", "orders", 5)).follow(cdm.api, poll_interval=30))
    assert cdm.looks == [0, pytest.approx(gap, abs=1e-4)]
