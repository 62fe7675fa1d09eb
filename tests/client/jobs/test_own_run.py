"""Which run of a history our start created; the model test plays whole schedules."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.runs import History
from airflow_provider_cdm.client.jobs.own_run import find_own_run, with_number
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRecord, StartRequest
from airflow_provider_cdm.client.submission import Submission

REQUEST = StartRequest("p", "c", "j", {})
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
    same_generation: bool = True,
    total: int | None = None,
) -> Submission | None:
    """Our run among these, newest first, after a start that is 60 seconds old."""
    key: Any = None if baseline is None else {"submission_id": baseline}
    record = StartRecord("f", "0", baseline=key, baseline_known=known, intent_at=INTENT_AT, sends=1)
    return find_own_run(
        REQUEST,
        record,
        History([*runs], total),
        policy=StartPolicy(),
        latest=INTENT_AT + 60,
        same_generation=same_generation,
    )


@pytest.mark.parametrize(
    ("runs", "baseline", "known", "ours"),
    [
        ([], None, True, None),
        ([run(1)], None, True, 1),
        ([run(6), run(5)], 5, True, 6),
        ([run(5)], 5, True, None),
        ([run(7), run(6), run(5)], 5, True, 6),
        ([run(7), run(6, auto=True), run(5)], 5, True, 7),
        ([run(6, 63), run(5)], 5, True, None),
        ([run(7, 1), run(6, -9), run(5)], 5, True, 7),
        ([run(6, -9), run(5)], 5, True, 6),
        ([run(6, 1)], None, False, 6),
        ([run(6, -30)], None, False, None),
    ],
)
def test_our_run(runs: list[Submission], baseline: int | None, known: bool, ours: Any) -> None:
    """Our run is the first after the baseline, in time, and not started by CDM's scheduler."""
    found = find(*runs, baseline=baseline, known=known)
    assert (found and found.submission_id) == ours


@pytest.mark.parametrize(
    ("runs", "known", "total", "reason"),
    [
        ([run(6, -9)], False, None, "may be its run or somebody else's"),
        ([run(6, None)], False, None, "may be its run or somebody else's"),
        ([run(number) for number in range(20, 10, -1)], True, None, "does not reach back"),
        ([run(20)], True, 20, "does not reach back"),
        ([], True, 20, "does not reach back"),
    ],
)
def test_unclear(runs: list[Submission], known: bool, total: int | None, reason: str) -> None:
    """Evidence that leaves open whether a run is ours is an error, except after a clear."""
    with pytest.raises(errors.CdmStartUncertain, match=reason) as error:
        find(*runs, known=known, total=total)
    assert error.value.effect_unknown
    find(*runs, known=known, total=total, same_generation=False)


def test_number() -> None:
    """A run that is known by its date gets the number of the first such run after the baseline."""
    record = StartRecord("f", "0", baseline={"submission_id": 4})
    history = History([run(6), run(5), run(4)])
    assert with_number(REQUEST, record, history, run(None)).submission_id == 5
    assert with_number(REQUEST, record, history, run(None, 9)).submission_id is None
