"""Thresholds for the rows of a succeeded run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.thresholds import Thresholds
from airflow_provider_cdm.client.submission import Submission

COUNTS = st.none() | st.integers(-1, 6)


def run(read: int | None, written: int | None, skipped: int | None) -> Submission:
    """Return a succeeded run with these counters."""
    counters = {"ROWS_READ": read, "ROWS_WRITTEN": written, "ROWS_WRITTEN_SKIPPED": skipped}
    known = {name: count for name, count in counters.items() if count is not None}
    return Submission("c", "orders", "SUCCEEDED", 7, counters=known)


#: Thresholds; rows read, written and skipped; the expected error, if any.
TABLE: list[tuple[dict[str, Any], tuple[int | None, int | None, int | None], str | None]] = [
    ({}, (0, 0, 5), None),
    ({}, (None, None, None), None),
    ({"min_rows_written": 1}, (1, 1, 0), None),
    ({"min_rows_written": "1"}, (1, 1, 0), None),
    ({"min_rows_written": 0}, (0, 0, 0), None),
    ({"min_rows_written": 1}, (1, 0, 0), "0 rows written, min_rows_written is 1"),
    ({"min_rows_written": 1200}, (9, 1199, 0), "1,199 rows written, min_rows_written is 1,200"),
    ({"min_rows_written": 1}, (1, None, 0), "an unknown number of rows written"),
    ({"min_rows_written": 0}, (-1, -1, -1), "an unknown number of rows written"),
    ({"max_rows_skipped": 2}, (9, 7, 2), None),
    ({"max_rows_skipped": 2}, (9, 6, 3), "3 rows skipped, max_rows_skipped is 2"),
    ({"max_rows_skipped": 2}, (9, 7, None), "an unknown number of rows skipped"),
    ({"rows_written_equal_read": True}, (9, 9, 0), None),
    ({"rows_written_equal_read": True}, (9, 8, 1), "9 rows read and 8 rows written"),
    ({"rows_written_equal_read": True}, (-1, -1, 0), "an unknown number of rows read and"),
    ({"min_rows_written": 5, "max_rows_skipped": 0}, (9, 4, 5), "written.*; 5 rows skipped"),
]


@pytest.mark.parametrize(("limits", "rows", "expected"), TABLE)
def test_thresholds(
    limits: dict[str, Any], rows: tuple[int | None, int | None, int | None], expected: str | None
) -> None:
    """Every missed threshold is reported, with both numbers."""
    thresholds = Thresholds.of(
        limits.get("min_rows_written"),
        limits.get("max_rows_skipped"),
        limits.get("rows_written_equal_read", False),
    )
    if expected is None:
        thresholds.check(run(*rows))
        return
    with pytest.raises(errors.CdmThresholdMissed, match=expected) as missed:
        thresholds.check(run(*rows))
    assert missed.value.submission == run(*rows)
    assert missed.value.final


@given(least=COUNTS, most=COUNTS, equal=st.booleans(), rows=st.tuples(COUNTS, COUNTS, COUNTS))
def test_nothing_unknown_passes(
    least: int | None,
    most: int | None,
    equal: bool,
    rows: tuple[int | None, int | None, int | None],
) -> None:
    """A run passes only if reported numbers meet every threshold."""
    least, most = (None if limit == -1 else limit for limit in (least, most))
    try:
        Thresholds(least, most, equal).check(run(*rows))
    except errors.CdmThresholdMissed:
        passed = False
    else:
        passed = True
    read, written, skipped = (-1 if count is None else count for count in rows)
    enough = least is None or written >= least
    few_enough = most is None or 0 <= skipped <= most
    same = not equal or (read == written and read >= 0)
    assert passed == (enough and few_enough and same and not (least is not None and written < 0))


class Strange:
    """An object such as an undefined variable of a template, which raises whatever is done."""

    def __int__(self) -> int:
        raise KeyError


@pytest.mark.parametrize(
    "value",
    [-1, "many", 1.5, True, False, [], "-3", float("nan"), float("inf"), b"3", "", " ", Strange()],
)
@pytest.mark.parametrize("name", ["min_rows_written", "max_rows_skipped"])
def test_invalid_numbers(name: str, value: Any) -> None:
    """A threshold that is not an integer is rejected, and the error names it."""
    given = {"min_rows_written": None, "max_rows_skipped": None, name: value}
    with pytest.raises(errors.CdmConfigError, match=f"{name} must be an integer"):
        Thresholds.of(**given, rows_written_equal_read=False)


def test_large_numbers() -> None:
    """Numbers are read exactly; what no counter of CDM can reach is an error."""
    for number in (2**53 + 1, 10**18 - 1):
        assert Thresholds.of(number, str(number), False) == Thresholds(number, number)
    with pytest.raises(errors.CdmConfigError, match="min_rows_written must be below 10"):
        Thresholds.of(10**400, None, False)


def test_invalid_flag() -> None:
    """A flag that is neither true nor false is rejected."""
    with pytest.raises(errors.CdmConfigError, match="True or False, not 'yes'"):
        Thresholds.of(None, None, "yes")
