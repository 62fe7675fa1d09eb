"""Following a run: what each poll shows, how long it may be unclear, and whose run decides.

The follower does no I/O, so these tests need no server: a script says what status calls and the
history show, poll after poll, and pauses advance the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.jobs.failure_report import ensure_succeeded
from airflow_provider_cdm.client.jobs.follower import Follower, GracePeriods
from airflow_provider_cdm.client.sansio import Flow, Response, TransportError
from airflow_provider_cdm.client.submission import RunRef, Submission

Play = Callable[..., Any]
CREATED = 1_735_787_045_000
OURS = RunRef("c", "orders", 5, CREATED)


def run(status: str, number: int | None = 5, created: int | None = CREATED) -> dict[str, Any]:
    """Return a submission on the wire; ours by default."""
    keys = {"submission-id": number, "creation-date": created, "job-name": "orders"}
    return {"status": status} | {name: value for name, value in keys.items() if value is not None}


#: What one status call may show.
BUSY, DONE, BAD = [run("RUNNING")], [run("SUCCEEDED")], [run("FAILED")]
DOUBT, UNLISTED = [run("UNKNOWN")], [run("HIBERNATING")]
NEVER = [run("NEVER_EXECUTED", None, CREATED + 9_000)]
STALE, NEWER = [run("SUCCEEDED", 4, CREATED - 60_000)], [run("SUCCEEDED", 6, CREATED + 60_000)]
NOTHING: list[Any] = []
DOWN, LOST = Response(503), TransportError("reset", sent=True)
FULL, PAGE = Response(429), Response(200, {}, b"<html>Sign in</html>")
GONE = Response(400, {}, b'{"errCode": "Cdm.0054", "externalMessage": "no such job"}')
NO_API, FORBIDDEN = Response(404, {}, b"<html>"), Response(403)


@pytest.mark.parametrize(
    ("shown", "status", "looks"),
    [
        ([DONE], "SUCCEEDED", 1),
        ([BAD], "FAILED", 1),
        ([[run("STOPPED")]], "STOPPED", 1),
        ([[run("FAILURE_ON_SUBMIT")]], "FAILURE_ON_SUBMIT", 1),
        ([[run("PENDING")], [run("BOOTING")], BUSY, DONE], "SUCCEEDED", 4),
        ([DOUBT, UNLISTED, DOUBT, DONE], "SUCCEEDED", 4),
        ([NEVER, NOTHING, STALE, BUSY, DONE], "SUCCEEDED", 5),
        ([DOWN, LOST, FULL, PAGE, DONE], "SUCCEEDED", 5),
        ([STALE + BUSY, STALE + DONE], "SUCCEEDED", 2),
        ([BUSY, NEVER, BUSY, BAD], "FAILED", 4),
        ([BUSY] * 500 + [DONE], "SUCCEEDED", 501),
    ],
)
def test_ends(play_cdm: Play, shown: list[Any], status: str, looks: int) -> None:
    """The run is followed to its own end, whatever polls show in between."""
    cdm = play_cdm(shown)
    ended = cdm.follow()
    assert (ended.status, ended.submission_id) == (status, 5)
    assert cdm.looks == [10.0 * n for n in range(looks)]


@pytest.mark.parametrize(
    ("poll_interval", "looks"),
    [(30, [0, 1, 2, 4, 8, 16, 32, 62, 92]), (3, [0, 1, 2, 4, 7, 10]), (0.5, [0, 0.5, 1, 1.5, 2])],
)
def test_new_run_is_polled_sooner(play_cdm: Play, poll_interval: float, looks: list[float]) -> None:
    """A run that was started just now may be short, so it is polled more often at first."""
    cdm = play_cdm([BUSY] * (len(looks) - 1) + [DONE])
    assert cdm.follow(poll_interval=poll_interval, is_new=True).status == "SUCCEEDED"
    assert cdm.looks == looks


@pytest.mark.parametrize("problem", [FULL, DOWN, DOUBT, NOTHING])
def test_new_run_is_polled_no_sooner_while_polls_fail(play_cdm: Play, problem: Any) -> None:
    """Where the quota is used up, or CDM shows nothing, the poll interval counts at once."""
    cdm = play_cdm([BUSY, problem, problem, DONE])
    assert cdm.follow(is_new=True).status == "SUCCEEDED"
    assert cdm.looks == [0, 1, 11, 21]


@pytest.mark.parametrize(
    ("shown", "history", "wanted"),
    [
        (NEWER, NEWER + DONE, "SUCCEEDED"),
        (NEWER, NEWER + BAD + STALE, "FAILED"),
        ([run("RUNNING", 6)], [run("RUNNING", 6), run("STOPPED")], "STOPPED"),
        (NEWER, NEWER + STALE, errors.CdmOutcomeUnknown),
        (NEWER, NEWER, errors.CdmOutcomeUnknown),
        (NEWER, [], errors.CdmOutcomeUnknown),
        (NEWER, GONE, errors.CdmOutcomeUnknown),
        (NEWER, FORBIDDEN, errors.CdmAuthError),
    ],
)
def test_newer_run_of_somebody_else(play_cdm: Play, shown: Any, history: Any, wanted: Any) -> None:
    """A later run never decides: ours is read from the history, and its absence is a failure."""
    cdm = play_cdm([BUSY, shown], [history])
    if isinstance(wanted, str):
        ended = cdm.follow()
        assert (ended.status, ended.submission_id) == (wanted, 5)
    else:
        with pytest.raises(wanted):
            cdm.follow()


@pytest.mark.parametrize(
    ("stuck", "grace", "text"),
    [
        (DOUBT, 600, "status UNKNOWN"),
        (UNLISTED, 600, "status HIBERNATING"),
        (NEVER, 120, "no run"),
        (NOTHING, 120, "no run"),
        (STALE, 120, "run 4, SUCCEEDED,"),
    ],
)
def test_unclear_status_ends(play_cdm: Play, stuck: Any, grace: float, text: str) -> None:
    """A missing status is tolerated for its grace period, and never counts as a success."""
    cdm = play_cdm([BUSY, stuck])
    with pytest.raises(errors.CdmOutcomeUnknown, match=r"outcome of run 5 .* is unknown") as caught:
        cdm.follow()
    assert f"CDM has shown {text} for" in str(caught.value)
    assert cdm.looks[-1] == 10 + grace
    assert caught.value.submission.submission_id == 5
    seen = stuck[0]["status"] if "status" in text else "RUNNING"
    assert caught.value.submission.status == seen


@pytest.mark.parametrize("answer", [DOWN, LOST, FULL, PAGE], ids=["503", "reset", "429", "page"])
def test_outage_ends(play_cdm: Play, answer: Any) -> None:
    """An outage is tolerated for ten minutes; the error allows a retry."""
    cdm = play_cdm([BUSY, answer])
    with pytest.raises(errors.CdmUnavailable, match="could not be read for 10 min 00 s") as caught:
        cdm.follow()
    assert caught.value.retryable
    assert caught.value.http_status == getattr(answer, "status", None)
    assert cdm.looks[-1] == 610


@pytest.mark.parametrize(
    ("final", "error", "text"),
    [
        (GONE, errors.CdmOutcomeUnknown, "is unknown: its job no longer exists"),
        (NO_API, errors.CdmNotFound, "HTTP 404"),
        (FORBIDDEN, errors.CdmAuthError, "HTTP 403"),
        (Response(400), errors.CdmRefused, "HTTP 400"),
    ],
    ids=["job gone", "404", "403", "400"],
)
def test_refusals_end_the_wait(
    play_cdm: Play, final: Response, error: type[errors.CdmError], text: str
) -> None:
    """A missing job, or a refusal that would be repeated, ends the wait at once."""
    cdm = play_cdm([BUSY, final])
    with pytest.raises(error, match=text) as caught:
        cdm.follow()
    assert type(caught.value) is error
    assert cdm.looks == [0, 10]


@pytest.mark.parametrize(
    ("problems", "at_most"),
    [
        ([DOUBT, NOTHING], 120),
        ([DOUBT, DOWN], 600),
        ([NOTHING, DOWN], 120),
        ([DOUBT, NOTHING, DOWN, STALE], 120),
        ([DOUBT, UNLISTED], 600),
        ([PAGE, FULL, LOST], 600),
    ],
)
def test_alternating_problems_end(play_cdm: Play, problems: list[Any], at_most: float) -> None:
    """Alternating problems do not restart each other's grace period."""
    cdm = play_cdm([BUSY, *problems * 200])
    with pytest.raises(errors.CdmError):
        cdm.follow()
    assert cdm.looks[-1] <= 10 + at_most + 10 * len(problems)


def test_a_good_poll_restarts_grace_periods(play_cdm: Play) -> None:
    """After a poll that showed the active run, each grace period is complete again."""
    spells = [[NOTHING] * 11 + [BUSY], [DOUBT] * 59 + [BUSY], [DOWN] * 59 + [BUSY]] * 3
    ended = play_cdm([*(poll for spell in spells for poll in spell), DONE]).follow()
    assert ended.status == "SUCCEEDED"


@pytest.mark.parametrize(
    ("deadline", "looks"), [(0, [0]), (5, [0, 5]), (20, [0, 10, 20]), (25, [0, 10, 20, 25])]
)
def test_deadline(play_cdm: Play, deadline: float, looks: list[float]) -> None:
    """The last poll is made at the deadline, and the run is not stopped."""
    cdm = play_cdm([BUSY])
    with pytest.raises(
        errors.CdmWaitTimeout, match="was last seen RUNNING, and was not stopped"
    ) as end:
        cdm.follow(deadline=deadline)
    assert cdm.looks == looks
    assert end.value.submission is not None
    assert end.value.submission.status == "RUNNING"


def test_what_is_asked_first(play_cdm: Play) -> None:
    """The history is asked while the run is not known, and after a later run was shown."""
    cdm = play_cdm([BUSY, NEWER], [DOWN, NEWER + BUSY])
    assert Follower(RunRef("c", "orders")).asks_history
    follower = Follower(OURS)
    asked = [follower.asks_history]
    for _ in range(3):
        cdm.play(follower.poll(cdm.api))
        asked.append(follower.asks_history)
    assert asked == [False, False, True, False]


def test_error_names_the_newest_run(play_cdm: Play) -> None:
    """Of several later runs the newest one is named, whatever their order."""
    cdm = play_cdm([[run("FAILED", 6), run("RUNNING", 8), run("FAILED", 7)]], [NEWER])
    with pytest.raises(errors.CdmOutcomeUnknown, match=r"later one \(run 8\)"):
        cdm.follow()


def test_limit_of_a_wait_in_seconds(play_cdm: Play) -> None:
    """A wait may be limited by a duration, which no clock that is set can change."""
    cdm = play_cdm([BUSY])
    exchanger = replace(cdm.api.exchanger, clock=lambda: cdm.now + 7200, monotonic=lambda: cdm.now)
    api = replace(cdm.api, exchanger=exchanger)
    with pytest.raises(errors.CdmWaitTimeout):
        cdm.play(Follower(OURS).follow(api, poll_interval=10, within=25))
    assert cdm.looks == [0, 10, 20, 25]
    cdm.looks.clear()
    deadline = cdm.now + 7200 + 25
    with pytest.raises(errors.CdmWaitTimeout):
        cdm.play(Follower(OURS).follow(api, poll_interval=10, deadline=deadline))
    assert len(cdm.looks) == 4


def test_timeout_says_what_becomes_of_the_run() -> None:
    """At an ``execution_timeout`` the task decides whether its run is stopped, and says so."""
    follower = Follower(OURS)
    assert "was never seen, and was not stopped." in str(follower.timed_out())
    for limit in ("wait_timeout", "timeout"):
        assert f"({limit})" in str(follower.timed_out(limit))
        assert "was not stopped" in str(follower.timed_out(limit))
    assert "stopped" not in str(follower.timed_out("execution_timeout"))


@pytest.mark.parametrize(("stuck", "ends_at"), [(NOTHING, 150), (DOUBT, 600), (DOWN, 600)])
def test_grace_period_may_end_between_two_polls(play_cdm: Play, stuck: Any, ends_at: int) -> None:
    """It ends with the first poll after it, whose error has what is known of the run."""
    cdm = play_cdm([stuck])
    with pytest.raises(errors.CdmError) as caught:
        cdm.play(Follower(OURS).follow(cdm.api, poll_interval=50))
    assert cdm.looks[-1] == ends_at
    if stuck is NOTHING:
        assert isinstance(caught.value, errors.CdmOutcomeUnknown)
        assert caught.value.submission == Submission("c", "orders", "UNKNOWN", 5, CREATED)


def test_log_says_once_that_the_run_is_not_shown(
    play_cdm: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """Each spell of a problem is one line."""
    play_cdm([NOTHING, NOTHING, BUSY, NOTHING, NOTHING, NOTHING, DONE]).follow()
    assert caplog.text.count("CDM shows no run for run 5") == 2


def test_grace_periods() -> None:
    """They are as long as the documentation says."""
    grace = GracePeriods()
    assert (grace.outage, grace.unknown_status, grace.no_run) == (600, 600, 120)


def test_few_failures_far_apart_end_no_wait(play_cdm: Play) -> None:
    """A run that is polled seldom is given up after five failures, not after the grace period."""
    for before in ([], [BUSY], [DOWN, DOWN, BUSY]):
        cdm = play_cdm([*before, DOWN])
        with pytest.raises(errors.CdmUnavailable, match="for 13 min 20 s"):
            cdm.play(Follower(OURS).follow(cdm.api, poll_interval=200))
        assert len(cdm.looks) == len(before) + 5


def test_side_task_follows_each_poll_that_showed_the_run(play_cdm: Play) -> None:
    """What else is read while a run goes on is read when it was seen, and only then."""
    cdm, seen = play_cdm([BUSY, NOTHING, DOWN, BUSY, DONE]), []

    def note(_: CdmApi, shown: Submission) -> Flow[None]:
        yield from ()
        seen.append(shown.status)

    cdm.play(Follower(OURS).follow(cdm.api, poll_interval=10, side_task=note))
    assert seen == ["RUNNING", "RUNNING", "SUCCEEDED"]


def test_an_end_at_the_deadline_counts(play_cdm: Play) -> None:
    """A run that has ended by the deadline has not timed out."""
    assert play_cdm([BUSY, DONE]).follow(deadline=10).status == "SUCCEEDED"


def test_the_history_is_asked_for_until_it_answers(play_cdm: Play) -> None:
    """After a later run was shown, polls begin with the history, until that has been read once."""
    histories = [DOWN, DOWN, NEWER + BUSY, NEWER + DONE]
    cdm = play_cdm([BUSY, NEWER], histories)
    assert cdm.follow().status == "SUCCEEDED"
    assert cdm.looks == [0, 10, 40]


STATUSES = st.sampled_from(["PENDING", "RUNNING", "UNKNOWN", "HIBERNATING", "SUCCEEDED", "FAILED"])
STEPS = st.one_of(
    st.builds(lambda status: [run(status)], STATUSES),
    st.sampled_from([NEVER, NOTHING, STALE, NEWER, DOWN, LOST, FULL, PAGE, GONE]),
)


@given(st.lists(STEPS, max_size=80), STATUSES, st.sampled_from([DOUBT, NOTHING, STALE, DOWN]))
@settings(derandomize=True, max_examples=100)
def test_whatever_is_shown(play_cdm: Play, shown: list[Any], past: str, stuck: Any) -> None:
    """The wait ends with our run, as CDM showed it, or with our error; and it does end."""
    cdm = play_cdm([*shown, stuck], [[*NEWER, run(past), *STALE]])
    try:
        ended = cdm.follow(grace=GracePeriods(outage=300, unknown_status=300, no_run=60))
    except errors.CdmError:
        pass
    else:
        assert ended.submission_id == 5
        assert ended.status in ("SUCCEEDED", "FAILED")
        assert [run(ended.status)] in shown or (NEWER in shown and past == ended.status)
    assert cdm.looks[-1] <= 10 * len(shown) + 310


@pytest.mark.parametrize("status", ["FAILED", "STOPPED", "FAILURE_ON_SUBMIT", "UNKNOWN", "RUNNING"])
def test_only_success_is_success(status: str) -> None:
    """Any other status is raised, with the reason and the details from CDM."""
    submission = Submission("c", "j", status, 5, error_summary="Too long", error_details="at X")
    with pytest.raises(errors.CdmSubmissionFailed) as caught:
        ensure_succeeded(submission)
    for text in ("run: run 5 of job 'j', cluster c", status, "Too long", "at X"):
        assert text in str(caught.value)
    assert caught.value.submission is submission
    done = Submission("c", "j", "SUCCEEDED", 5)
    assert ensure_succeeded(done) is done


@pytest.mark.parametrize(("code", "seconds"), [("APIGW.0301", 2.0), (None, 1.0)])
def test_patience_with_refused_credentials(code: str | None, seconds: float) -> None:
    """Refused credentials have a grace period of their own, since a person has to replace them."""
    error = errors.CdmAuthError("no", http_status=401 if code else 403, code=code)
    assert GracePeriods(outage=1.0, refused=2.0).before_giving_up(error) == seconds
