"""What follows while CDM refuses a start but shows no run that is in the way."""

from __future__ import annotations

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.tasks.refusals import Refusals

REFUSAL = errors.CdmAlreadyRunning("busy", http_status=400, code="Cdm.0052", request_id="r1")


def _refusals(poll_interval: float = 5.0) -> Refusals:
    return Refusals(RunRef("c", "j"), poll_interval)


@pytest.mark.parametrize(
    ("poll_interval", "pauses"),
    [
        (5.0, [1, 2, 4, 8, 10, 10]),
        (10.0, [1, 2, 4, 8, 10, 10]),
        (30.0, [1, 2, 4, 8, 16, 30, 30]),
    ],
)
def test_pauses_grow_up_to_a_poll_interval(poll_interval: float, pauses: list[float]) -> None:
    """Pauses double up to ten seconds, or up to the interval of polls if that is longer."""
    refusals = _refusals(poll_interval)
    assert [refusals.pause_after(REFUSAL, 0.0, None, "x") for _ in pauses] == pauses
    assert refusals.count == len(pauses)


def test_pauses_do_not_overflow() -> None:
    """Thousands of refusals are no problem for the arithmetic."""
    refusals = _refusals(1e9)
    refusals.count = 5_000
    assert refusals.pause_after(REFUSAL, 0.0, None, "x") == 2.0**20


def test_a_pause_ends_at_the_deadline() -> None:
    """The last pause is as long as the time that is left; there is none after the deadline."""
    refusals = _refusals()
    assert refusals.pause_after(REFUSAL, 100.0, 0.25, "wait_timeout") == 0.25
    assert refusals.pause_after(REFUSAL, 100.25, 1.5, "wait_timeout") == 1.5
    with pytest.raises(errors.CdmWaitTimeout) as caught:
        refusals.pause_after(REFUSAL, 107.0, 0.0, "execution_timeout")
    assert "(execution_timeout)" in str(caught.value)
    assert "3 times within 7 s CDM said that job 'j' is running" in str(caught.value)
    with pytest.raises(errors.CdmWaitTimeout):
        refusals.pause_after(REFUSAL, 107.0, -1.0, "wait_timeout")


def test_without_a_deadline_it_ends_after_ten_minutes() -> None:
    """The grace period begins with the first refusal, and the error keeps what CDM said."""
    refusals = _refusals()
    assert refusals.pause_after(REFUSAL, 1_000.0, None, "x") == 1
    assert refusals.pause_after(REFUSAL, 1_599.9, None, "x") == 2
    with pytest.raises(errors.CdmAlreadyRunning) as caught:
        refusals.pause_after(REFUSAL, 1_600.0, None, "x")
    error = caught.value
    assert (error.http_status, error.code, error.request_id) == (400, "Cdm.0052", "r1")
    assert "3 times within 600 s" in str(error)
    assert str(error).endswith("The last answer: busy")


def test_grace_period_may_end_between_two_refusals() -> None:
    """It need not be met exactly."""
    refusals = _refusals()
    refusals.pause_after(REFUSAL, 0.0, None, "x")
    with pytest.raises(errors.CdmAlreadyRunning, match="2 times within 701 s"):
        refusals.pause_after(REFUSAL, 701.0, None, "x")


def test_a_deadline_outlasts_the_grace_period() -> None:
    """An attempt with a deadline goes on until then."""
    refusals = _refusals()
    refusals.pause_after(REFUSAL, 0.0, 5_000.0, "x")
    assert refusals.pause_after(REFUSAL, 4_000.0, 1_000.0, "x") == 2
