from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cdm.date_macros import MacroError, fill, format_date, shift
from tests.hostile.test_forks import ending

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


#: The clocks of Dublin go forward at 1:00 UTC on March 31, and back at 1:00 UTC on October 27;
#: those of Sao Paulo went forward at midnight, and those of Lord Howe change by half an hour.
MINUTES = "${timestamp(dateformat(yyyyMMddHHmm))}"
DAYS = "${timestamp(dateformat(yyyyMMdd))}"
CLOCK_CHANGES = [
    # seconds, minutes and hours are exact
    ("Europe/Dublin", "2024-03-31T00:30Z", "${dateformat(HH:mm, 1, HOUR)}", "02:30"),
    ("Europe/Dublin", "2024-03-31T00:30Z", "${dateformat(HH:mm, 30, MINUTE)}", "02:00"),
    ("Europe/Dublin", "2024-03-31T01:00Z", "${dateformat(HH:mm:ss, -1, SECOND)}", "00:59:59"),
    ("Europe/Dublin", "2024-10-27T00:30Z", "${dateformat(HH:mm, 1, HOUR)}", "01:30"),
    ("Europe/Dublin", "2024-10-27T00:30Z", "${timestamp(1, HOUR)}", "2024-10-27T01:30Z"),
    ("Europe/Dublin", "2024-10-27T02:30Z", "${timestamp(-2, HOUR)}", "2024-10-27T00:30Z"),
    ("Europe/Dublin", "2024-03-31T12:00Z", "${dateformat(dd HH, -24, HOUR)}", "30 12"),
    # days, months and years keep the time of day
    ("Europe/Dublin", "2024-03-31T12:00Z", "${dateformat(dd HH, -1, DAY)}", "30 13"),
    ("Europe/Dublin", "2024-03-31T12:00Z", "${timestamp(-1, DAY)}", "2024-03-30T13:00Z"),
    ("Europe/Dublin", "2024-01-31T12:00Z", "${dateformat(MM-dd HH, 6, MONTH)}", "07-31 12"),
    ("Europe/Dublin", "2024-01-31T12:00Z", "${timestamp(6, MONTH)}", "2024-07-31T11:00Z"),
    # unless it does not exist, or exists twice
    ("Europe/Dublin", "2024-03-30T01:30Z", "${dateformat(dd HH:mm, 1, DAY)}", "31 02:30"),
    ("Europe/Dublin", "2024-03-30T01:30Z", "${timestamp(1, DAY)}", "2024-03-31T01:30Z"),
    ("Europe/Dublin", "2024-02-29T01:30Z", "${dateformat(MM-dd HH:mm, 1, MONTH)}", "03-29 01:30"),
    ("Europe/Dublin", "2023-03-31T00:30Z", "${dateformat(HH:mm, 1, YEAR)}", "02:30"),
    ("Europe/Dublin", "2024-10-26T00:30Z", "${timestamp(1, DAY)}", "2024-10-27T00:30Z"),
    ("Europe/Dublin", "2024-10-28T01:30Z", "${timestamp(-1, DAY)}", "2024-10-27T00:30Z"),
    ("Europe/Dublin", "2024-10-27T01:30Z", "${timestamp(0, DAY)}", "2024-10-27T01:30Z"),
    ("Europe/Dublin", "2024-10-27T00:30Z", "${timestamp(0, DAY)}", "2024-10-27T00:30Z"),
    ("America/Sao_Paulo", "2018-11-03T03:30Z", "${dateformat(dd HH:mm, 1, DAY)}", "04 01:30"),
    ("Australia/Lord_Howe", "2024-10-05T15:15Z", "${dateformat(HH:mm, 30, MINUTE)}", "02:45"),
    # what is parsed back does not know more than its text
    (
        "Europe/Dublin",
        "2024-10-27T00:30Z",
        "${timestamp(dateformat(yyyyMMddHHmm))}",
        "2024-10-27T01:30Z",
    ),
    (
        "Europe/Dublin",
        "2024-10-27T01:30Z",
        "${timestamp(dateformat(yyyyMMddHHmm))}",
        "2024-10-27T01:30Z",
    ),
    (
        "Europe/Dublin",
        "2024-03-31T12:00Z",
        "${timestamp(dateformat(yyyyMMdd))}",
        "2024-03-31T00:00Z",
    ),
    (
        "Europe/Dublin",
        "2024-04-01T12:00Z",
        "${timestamp(dateformat(yyyyMMdd))}",
        "2024-03-31T23:00Z",
    ),
    (
        "America/Sao_Paulo",
        "2018-11-04T12:00Z",
        "${timestamp(dateformat(yyyyMMdd))}",
        "2018-11-04T03:00Z",
    ),
    (
        "Asia/Kathmandu",
        "2024-06-01T00:00Z",
        "${timestamp(dateformat(yyyyMMdd))}",
        "2024-05-31T18:15Z",
    ),
    # Dublin was an hour ahead of UTC in the winter of 1970
    ("Europe/Dublin", "2024-06-01T12:00Z", "${timestamp(dateformat(HH))}", "1970-01-01T12:00Z"),
]


@pytest.mark.parametrize(("zone", "at", "text", "expected"), CLOCK_CHANGES)
def test_clock_changes(zone: str, at: str, text: str, expected: str) -> None:
    """Where clocks change, hours are exact, days keep the time of day, and each time exists."""
    now = datetime.fromisoformat(at).astimezone(ZoneInfo(zone))
    if expected.endswith("Z"):
        expected = str(int(datetime.fromisoformat(expected).timestamp()) * 1000)
    assert fill(text, {}, now) == expected


@pytest.mark.parametrize(
    ("at", "text", "expected"),
    [
        ("2024-01-31", "${dateformat(yyyy-MM-dd, 1, MONTH)}", "2024-02-29"),
        ("2023-01-31", "${dateformat(yyyy-MM-dd, 1, MONTH)}", "2023-02-28"),
        ("2024-02-29", "${dateformat(yyyy-MM-dd, 1, YEAR)}", "2025-02-28"),
        ("2024-02-29", "${dateformat(yyyy-MM-dd, -4, YEAR)}", "2020-02-29"),
        ("2024-12-31", "${dateformat(yyyy-MM-dd DDD, 2, MONTH)}", "2025-02-28 059"),
        ("2024-12-31", "${dateformat(DDD)}", "366"),
        ("2024-01-01", "${dateformat(yyyy-MM-dd, -1, MONTH)}", "2023-12-01"),
        ("2024-01-01", "${dateformat(yyyy-MM-dd, -13, MONTH)}", "2022-12-01"),
        # lenient: 1970 has no February 29
        ("2024-02-29", "${timestamp(dateformat(MM-dd))}", "1970-03-01"),
        ("2024-12-31", "${timestamp(dateformat(dd))}", "1970-01-31"),
        ("2024-03-01", "${timestamp(dateformat(DDD))}", "1970-03-02"),
        ("2024-03-01", "${timestamp(dateformat(yyyyDDD))}", "2024-03-01"),
        ("1960-02-29", "${timestamp()}", "1960-02-29"),
    ],
)
def test_ends_of_months(at: str, text: str, expected: str) -> None:
    """A shift by months ends in its month; a day that does not exist is parsed as a later one."""
    now = datetime.fromisoformat(f"{at}T00:00Z")
    if "timestamp" in text:
        expected = str(int(datetime.fromisoformat(f"{expected}T00:00Z").timestamp()) * 1000)
    assert fill(text, {}, now) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${dateformat(yyyy, 99999999999999999999, DAY)}", "outside the calendar"),
        ("${dateformat(yyyy, " + "9" * 5000 + ", SECOND)}", "outside the calendar"),
        ("${timestamp(-" + "9" * 5000 + ", YEAR)}", "outside the calendar"),
        ("${timestamp(2147483648, SECOND)}", "outside the calendar"),
        ("${timestamp(2147483647, MONTH)}", "outside the calendar"),
        ("${timestamp(-2147483648, HOUR)}", "outside the calendar"),
        ("${dateformat(yyyy, -2024, YEAR)}", "outside the calendar"),
        ("${dateformat(yyyy, \u0661x, DAY)}", "not supported"),
        ("${dateformat()}", "empty"),
        ("${dateformat( )}", "empty"),
        ("${dateformat(, 1, DAY)}", "empty"),
        ("${timestamp(yyyy, 1, DAY)}", "not supported"),
        ("${timestamp(1, 2, DAY)}", "not supported"),
        ("${timestamp(dateformat(yyyy), 1, DAY)}", "not supported"),
        ("${dateformat(yyyy, 1, day)}", "unit .day. is not supported"),
        ("${dateformat(yyyy, 1.5, DAY)}", "not supported"),
        ("${dateformat(''')}", "unclosed quote"),
        ("${DATEFORMAT(yyyy)}", "not supported"),
        ("${dateformat(yyyy}", "not supported"),
    ],
)
def test_offsets_and_formats_that_are_not_valid(text: str, reason: str) -> None:
    """An offset that leaves Java's range or the calendar, and a wrong format, are short errors."""
    with pytest.raises(MacroError, match=reason) as caught:
        fill(text, {}, AT)
    assert len(str(caught.value)) < 300


def test_long_expressions() -> None:
    """Blanks, quotes, parentheses and commas by the ten thousands do not hold up a worker."""
    assert ending(_fill_long_expressions) == "no error"


def _fill_long_expressions() -> None:
    many = 20_000
    for filler in (
        " ",
        "\t",
        ",",
        "(",
        ")",
        "'",
        "''",
        "y",
        "timestamp(",
        "dateformat(",
        ", 1",
        "$",
    ):
        for head in ("timestamp(dateformat(", "dateformat(", "timestamp(", ""):
            for tail in ("", ")", "))", ", 1, DAY)", "x"):
                with contextlib.suppress(MacroError):
                    fill("${" + head + filler * many + tail + "}", {}, AT)
                with contextlib.suppress(MacroError):
                    fill(("${" + head + filler + tail) * 1000, {}, AT)


def test_values_that_would_fill_the_memory() -> None:
    """A text that repeats a long value too often is an error before it exists."""
    with pytest.raises(MacroError, match="16,777,216 characters"):
        fill("${a}" * 100_000, {"a": "x" * 1_000_000}, AT)


@given(st.text(st.sampled_from("tdimesapfr()ymDdHhEa',+-0123456789 ADY$\n"), max_size=60), INSTANTS)
def test_any_expression(expression: str, at: datetime) -> None:
    """Any expression has a value or is an error of its own kind."""
    for zone in ("UTC", "Europe/Dublin", "America/Sao_Paulo"):
        for text in (
            expression,
            f"dateformat({expression})",
            f"timestamp(dateformat({expression}))",
        ):
            with contextlib.suppress(MacroError):
                fill(f"${{{text}}}", {}, at.astimezone(ZoneInfo(zone)))


@given(INSTANTS, st.integers(-400, 400), st.sampled_from(["DAY", "HOUR", "MINUTE", "MONTH"]))
def test_every_shifted_time_exists(at: datetime, offset: int, unit: str) -> None:
    """A shifted time is one that a clock of its zone shows."""
    zone = ZoneInfo("Europe/Dublin")
    local = shift(at.astimezone(zone), str(offset), unit)
    assert local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None)
