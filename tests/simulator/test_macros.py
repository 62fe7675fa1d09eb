from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.simulator.transfer.macros import MacroError, fill, format_date

AT = datetime(2024, 3, 31, 15, 4, 5, 67_000, tzinfo=UTC)
INSTANTS = st.integers(-(2**31), 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
NAMES = st.text(st.characters(exclude_characters="${}()", exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${dateformat(yyyy-MM-dd)}", "2024-03-31"),
        ("${ dateformat( yyyyMMddHHmmssSSS ) }", "20240331150405067"),
        ("${dateformat(yy-M-d h:m a)}", "24-3-31 3:4 PM"),
        ("${dateformat(EEE, d MMM yyyy)}", "Sun, 31 Mar 2024"),
        ("${dateformat(EEEE d MMMM)}", "Sunday 31 March"),
        ("${dateformat(yyyy-MM-dd'T'HH:mm)}", "2024-03-31T15:04"),
        ("${dateformat(h 'o''clock')}", "3 o'clock"),
        ("${dateformat(yyyy'''Q'DDD)}", "2024'Q091"),
        ("${dateformat(yyyy-MM-dd, -1, DAY)}", "2024-03-30"),
        ("${dateformat(yyyy-MM-dd,-1,MONTH)}", "2024-02-29"),
        ("${dateformat(yyyyMMdd, +1, YEAR)}", "20250331"),
        ("${dateformat(HH:mm:ss, 56, SECOND)}", "15:05:01"),
        ("${timestamp()}", "1711897445067"),
        ("${timestamp(-1, HOUR)}", "1711893845067"),
        ("${timestamp(dateformat(yyyyMMdd))}", "1711843200000"),
        ("${timestamp(dateformat(yyyyMMdd,-1,DAY))}", "1711756800000"),
        ("/in/${dateformat(yyyy)}/${dateformat(MM)}/x", "/in/2024/03/x"),
    ],
)
def test_documented_forms(text: str, expected: str) -> None:
    """Each documented form of a macro returns the same text as in Java."""
    assert fill(text, {}, AT) == expected


def test_time_zone_of_macros() -> None:
    """A macro uses the time zone of the given time."""
    assert fill("${dateformat(HH)}", {}, AT.astimezone(ZoneInfo("Europe/Dublin"))) == "16"


@pytest.mark.parametrize(
    "text",
    [
        "${dt}",
        "${dateformat(yyyy, 1, WEEK)}",
        "${dateformat(QQ)}",
        "${dateformat('yyyy)}",
        "${dateformat(yyyy, 9999, YEAR)}",
        "${dateformat(yyyy, 99999999999, DAY)}",
        "${now()}",
        "${timestamp(1)}",
    ],
)
def test_invalid_placeholders(text: str) -> None:
    """Undefined names, unknown functions and invalid formats are errors."""
    with pytest.raises(MacroError):
        fill(text, {"other": "x"}, AT)


def test_keep_undefined() -> None:
    """With ``keep_undefined``, undefined names are kept; unknown functions are still errors."""
    assert fill("a ${b} ${c}", {"c": "d"}, AT, keep_undefined=True) == "a ${b} d"
    with pytest.raises(MacroError):
        fill("${now()}", {}, AT, keep_undefined=True)


@given(st.dictionaries(NAMES.map(str.strip).filter(bool), st.text(), min_size=1), st.data())
def test_values_are_not_expanded(variables: dict[str, str], data: st.DataObject) -> None:
    """A value is inserted unchanged, even if it contains a placeholder."""
    name = data.draw(st.sampled_from(sorted(variables)))
    assert fill(f"<${{{name}}}>", variables, AT) == f"<{variables[name]}>"


@given(st.text(st.characters(exclude_characters="$")))
def test_text_without_placeholders(text: str) -> None:
    """Text without placeholders is returned unchanged."""
    assert fill(text, {}, AT) == text


@given(INSTANTS, st.integers(-5000, 5000))
def test_shift_by_days(at: datetime, days: int) -> None:
    """Numeric formats and shifts by days agree with the standard library."""
    shown = fill(f"${{dateformat(yyyy-MM-dd HH:mm:ss DDD, {days}, DAY)}}", {}, at)
    assert shown == f"{at + timedelta(days=days):%Y-%m-%d %H:%M:%S %j}"


@given(INSTANTS, st.integers(-1000, 1000))
def test_shift_by_months(at: datetime, months: int) -> None:
    """A shift by months changes the month by exactly this number, whatever its length."""
    year, month = fill(f"${{dateformat(yyyy MM, {months}, MONTH)}}", {}, at).split()
    assert int(year) * 12 + int(month) - (at.year * 12 + at.month) == months


@given(st.text(st.characters(exclude_characters="'", exclude_categories=["Cs"]), min_size=1))
def test_quoted_text(text: str) -> None:
    """Quoted text is not a format, and a doubled quotation mark is one quotation mark."""
    assert format_date(f"''yyyy'{text}'", AT) == f"'2024{text}"
