"""Which run of a history our start created; the model test plays whole schedules."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.runs import History
from airflow_provider_cdm.client.jobs.own_run import (
    Evidence,
    find_own_run,
    start_uncertain,
    with_number,
)
from airflow_provider_cdm.client.jobs.start_record import (
    Generation,
    StartPolicy,
    StartRecord,
    StartRequest,
)
from airflow_provider_cdm.client.submission import Submission

REQUEST = StartRequest("c", "j", {})
INTENT_AT = 1_000.0
DATE = 1_000_000


def run(number: int | None, seconds: float | None = 1, *, auto: bool = False) -> Submission:
    """A run created so many seconds after the intent."""
    date = None if seconds is None else int(DATE + 1000 * seconds)
    return Submission("c", "j", "RUNNING", number, date, is_execute_auto=auto)


def find(
    *runs: Submission,
    baseline: int | None = None,
    known: bool = True,
    total: int | None = None,
) -> Evidence:
    """Our run among these, newest first, after a start that is 60 seconds old."""
    key: Any = None if baseline is None else {"submission_id": baseline}
    record = StartRecord(
        "f", Generation(), baseline=key, baseline_known=known, intent_at=INTENT_AT, sends=1
    )
    return find_own_run(
        REQUEST,
        record,
        History([*runs], total),
        policy=StartPolicy(),
        latest=INTENT_AT + 60,
    )


DAY = 86_400


@pytest.mark.parametrize(
    ("runs", "baseline", "known", "ours"),
    [
        ([], None, True, None),
        ([run(1)], None, True, 1),
        ([run(6), run(5)], 5, True, 6),
        ([run(5)], 5, True, None),
        ([run(7), run(6, auto=True), run(5)], 5, True, 7),
        ([run(7, 1), run(6, -9)], None, False, 7),
        ([run(7, 99), run(6, 1), run(5)], 5, True, 6),
        ([run(6, 1)], None, False, 6),
        ([run(6, -2 * DAY)], None, False, None),
        ([run(6, -5 * DAY)], None, True, None),
        ([run(7, 1), run(6, -5 * DAY)], None, True, 7),
        ([run(6, None), run(5)], 5, True, 6),
    ],
)
def test_our_run(runs: list[Submission], baseline: int | None, known: bool, ours: Any) -> None:
    """Our run is the one after the baseline, in time, and not started by CDM's scheduler."""
    found = find(*runs, baseline=baseline, known=known)
    assert (found.run and found.run.submission_id) == ours
    assert found.doubt is None


@pytest.mark.parametrize(
    ("runs", "baseline", "known", "total", "reason"),
    [
        ([run(6, -9)], None, False, None, "may be its run or somebody else's"),
        ([run(6, None)], None, False, None, "may be its run or somebody else's"),
        ([run(6, -9), run(5)], 5, True, None, "may be its run or somebody else's"),
        ([run(6, 65), run(5)], 5, True, None, "may be its run or somebody else's"),
        ([run(6, 7200), run(5)], 5, True, None, "may be its run or somebody else's"),
        ([run(6, -7200), run(5)], 5, True, None, "may be its run or somebody else's"),
        ([run(6, -7200)], None, True, None, "may be its run or somebody else's"),
        (
            [run(7, 1), run(6, -65), run(5)],
            5,
            True,
            None,
            "any of run 6 and",
        ),
        ([run(7), run(6), run(5)], 5, True, None, "any of run 6 and run 7"),
        ([run(n) for n in range(20, 10, -1)], None, False, 30, "any of run 11"),
        ([run(20, -90_000)], None, True, 20, None),
        ([], None, True, 20, "does not reach back"),
    ],
)
def test_doubt(
    runs: list[Submission], baseline: int | None, known: bool, total: int | None, reason: str | None
) -> None:
    """A run that may be ours is neither taken nor a proof that nothing was started."""
    found = find(*runs, baseline=baseline, known=known, total=total)
    if reason is None:
        assert found.doubt is None
    else:
        assert found.run is None
        assert reason in (found.doubt or "")


def test_numbers_that_begin_again_are_doubtful() -> None:
    """After a cluster was rebuilt, a lower number with a later date may be our run."""
    date = DATE - 1000 * DAY
    record = StartRecord(
        "f",
        Generation(),
        baseline={"submission_id": 900, "creation_date": date},
        baseline_known=True,
        intent_at=INTENT_AT,
        sends=1,
    )
    history = History([run(1, 1)], 1)
    found = find_own_run(REQUEST, record, history, policy=StartPolicy(), latest=INTENT_AT + 60)
    assert found.run is None
    assert "may be its run" in (found.doubt or "")


def test_number() -> None:
    """A run that is known by its date gets the number of the first such run after the baseline."""
    record = StartRecord("f", Generation(), baseline={"submission_id": 4})
    history = History([run(6), run(5), run(4)])
    assert with_number(REQUEST, record, history, run(None)).submission_id == 5
    assert with_number(REQUEST, record, history, run(None, 9)).submission_id is None
    assert with_number(REQUEST, record, history, run(None, 0.5)).submission_id is None


@pytest.mark.parametrize(
    ("milliseconds", "ours", "doubtful"),
    [
        (-DAY * 1000 - 2_001, False, False),
        (-DAY * 1000 - 2_000, False, True),
        (-2_001, False, True),
        (-2_000, True, False),
        (62_000, True, False),
        (62_001, False, True),
    ],
)
def test_limits_of_the_window(milliseconds: int, ours: bool, doubtful: bool) -> None:
    """Two seconds around intent and end of the search are tolerated; a day before, doubt begins."""
    created = Submission("c", "j", "RUNNING", 6, DATE + milliseconds)
    for baseline, known in ((5, True), (None, True), (None, False)):
        found = find(created, baseline=baseline, known=known)
        assert (found.run is not None, found.doubt is not None) == (ours, doubtful)


@pytest.mark.parametrize(
    ("count", "total", "oldest", "baseline", "doubtful"),
    [
        (9, None, 1, None, False),
        (10, None, 1, None, True),
        (11, None, 1, None, True),
        (10, None, -100, None, False),
        (10, 10, 1, None, False),
        (9, 10, 1, None, True),
        (9, 10, 1, 1, False),
        (9, 10, 1, 0, True),
    ],
)
def test_history_that_is_cut_off(
    count: int, total: int | None, oldest: float, baseline: int | None, doubtful: bool
) -> None:
    """Where older runs may be missing, the history must reach back to the baseline or the start."""
    later = [run(number, 2, auto=True) for number in range(count, 1, -1)]
    found = find(*later, run(1, oldest, auto=True), baseline=baseline, total=total)
    assert found.run is None
    assert ("does not reach back" in (found.doubt or "")) is doubtful


def test_doubt_names_the_first_run() -> None:
    """Of several doubtful runs the oldest one is named."""
    found = find(run(7, -50), run(6, -60), run(5), baseline=5)
    assert (found.doubt or "").startswith("run 6, of 1970-01-01 00:15:40 UTC, may")


def test_number_of_the_first_of_many() -> None:
    """Of all runs of one date the first one after the baseline counts."""
    record = StartRecord("f", Generation(), baseline={"submission_id": 4})
    history = History([run(7), run(6), run(5), run(4)])
    assert with_number(REQUEST, record, history, run(None)).submission_id == 5
    by_date = StartRecord("f", Generation())
    assert with_number(REQUEST, by_date, history, run(None)).submission_id == 4
    scheduled = History([run(6), run(5, auto=True)])
    assert with_number(REQUEST, record, scheduled, run(None)).submission_id == 6


def test_error() -> None:
    """The error says that the start may have had an effect, why that is unknown, and what next."""
    cause = errors.CdmUnavailable("CDM is down.")
    error = start_uncertain(REQUEST, "because", cause)
    assert error.effect_unknown
    assert error.__cause__ is cause
    assert "job 'j' was started: because. The last error: CDM is down." in str(error)
    assert "last error" not in str(start_uncertain(REQUEST, "because"))
