"""Replaces ``${name}`` and CDM's date macros in the parameters of a job.

The syntax is that of "Using Macro Variables of Date and Time" in the user guide:
``${dateformat(fmt)}``, ``${dateformat(fmt, offset, TYPE)}``, ``${timestamp()}``,
``${timestamp(offset, TYPE)}`` and ``${timestamp(dateformat(...))}``; ``fmt`` is a Java
``SimpleDateFormat`` with the letters ``y M d H h m s S a E D``, the only ones that are supported.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_SHIFT = r"(?:,\s*(?P<offset>[+-]?\d+)\s*,\s*(?P<unit>[A-Z]+)\s*)?"
_DATEFORMAT = re.compile(rf"dateformat\(\s*(?P<format>.+?)\s*{_SHIFT}\)")
_TIMESTAMP = re.compile(r"timestamp\(\s*(?:(?P<offset>[+-]?\d+)\s*,\s*(?P<unit>[A-Z]+)\s*)?\)")
_TIMESTAMP_OF = re.compile(rf"timestamp\(\s*{_DATEFORMAT.pattern}\s*\)")
_TOKEN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']")
_SPANS = {"SECOND": "seconds", "MINUTE": "minutes", "HOUR": "hours", "DAY": "days"}

_LETTERS: dict[str, Callable[[datetime, int], str]] = {
    "y": lambda at, n: f"{at.year % 100:02d}" if n == 2 else f"{at.year:0{n}d}",
    "M": lambda at, n: (
        (calendar.month_name if n > 3 else calendar.month_abbr)[at.month]
        if n > 2
        else f"{at.month:0{n}d}"
    ),
    "d": lambda at, n: f"{at.day:0{n}d}",
    "H": lambda at, n: f"{at.hour:0{n}d}",
    "h": lambda at, n: f"{at.hour % 12 or 12:0{n}d}",
    "m": lambda at, n: f"{at.minute:0{n}d}",
    "s": lambda at, n: f"{at.second:0{n}d}",
    "S": lambda at, n: f"{at.microsecond // 1000:0{n}d}",
    "a": lambda at, _: "AM" if at.hour < 12 else "PM",
    "E": lambda at, n: (calendar.day_name if n > 3 else calendar.day_abbr)[at.weekday()],
    "D": lambda at, n: f"{at.timetuple().tm_yday:0{n}d}",
}


class MacroError(ValueError):
    """A placeholder that cannot be replaced."""


def fill(
    text: str, variables: Mapping[str, str], at: datetime, *, keep_undefined: bool = False
) -> str:
    """Return ``text`` with its placeholders replaced; placeholders within values are kept.

    :param text: value of a job's parameter.
    :param variables: values by name.
    :param at: point in time for date macros, in their time zone.
    :param keep_undefined: whether an undefined name is kept unchanged instead of an error.
    :raises MacroError: for an undefined name, an unknown function or an invalid date format.
    """

    def value(match: re.Match[str]) -> str:
        content = match[1].strip()
        if content in variables:
            return variables[content]
        if "(" in content:
            return _macro(content, at)
        if keep_undefined:
            return match[0]
        raise MacroError(f"variable {content!r} is not defined")

    return _PLACEHOLDER.sub(value, text)


def _macro(expression: str, at: datetime) -> str:
    if match := _DATEFORMAT.fullmatch(expression):
        return format_date(match["format"], shift(at, match["offset"], match["unit"]))
    if match := _TIMESTAMP.fullmatch(expression):
        return _millis(shift(at, match["offset"], match["unit"]))
    if match := _TIMESTAMP_OF.fullmatch(expression):
        moment = shift(at, match["offset"], match["unit"])
        return _millis(_as_parsed_back(match["format"], moment))
    raise MacroError(f"macro {expression!r} is not supported")


def shift(at: datetime, offset: str | None, unit: str | None) -> datetime:
    """Return a point in time shifted by a number of units.

    As in Java, a day beyond the end of the new month becomes the last day of that month.

    :param at: point in time to shift.
    :param offset: signed integer, or ``None`` for no shift.
    :param unit: SECOND, MINUTE, HOUR, DAY, MONTH or YEAR.
    :raises MacroError: for another unit, or a date outside the calendar.
    """
    if offset is None or unit is None:
        return at
    try:
        if unit in _SPANS:
            return at + timedelta(**{_SPANS[unit]: int(offset)})
        if unit in {"MONTH", "YEAR"}:
            months = at.year * 12 + at.month - 1 + int(offset) * (12 if unit == "YEAR" else 1)
            year, month = divmod(months, 12)
            last = calendar.monthrange(year, month + 1)[1]
            return at.replace(year=year, month=month + 1, day=min(at.day, last))
    except (OverflowError, ValueError) as exc:
        raise MacroError(f"an offset of {offset} {unit} is outside the calendar") from exc
    raise MacroError(f"unit {unit!r} is not supported")


def format_date(pattern: str, at: datetime) -> str:
    """Return a point in time in a Java ``SimpleDateFormat``.

    :param pattern: date format, such as ``yyyy-MM-dd'T'HH:mm``.
    :param at: point in time to format.
    :raises MacroError: for a letter that is not supported, or an unclosed quote.
    """
    if pattern.replace("''", "").count("'") % 2:
        raise MacroError(f"date format {pattern!r} has an unclosed quote")

    def token(match: re.Match[str]) -> str:
        quoted, letter = match[1], match[2]
        if quoted is not None:  # '' is a quotation mark, also within quotes
            return quoted.replace("''", "'") or "'"
        if letter is None:
            return match[0]
        if letter not in _LETTERS:
            raise MacroError(f"date format {pattern!r}: letter {letter!r} is not supported")
        return _LETTERS[letter](at, len(match[0]))

    return _TOKEN.sub(token, pattern)


def _as_parsed_back(pattern: str, at: datetime) -> datetime:
    """Return what Java parses from a formatted date; missing parts are those of 1970-01-01."""
    format_date(pattern, at)  # raises an error for an invalid format
    shown = {match[2] for match in _TOKEN.finditer(pattern) if match[2]}
    hour = at.hour if "H" in shown or {"h", "a"} <= shown else at.hour % 12 if "h" in shown else 0
    return at.replace(
        year=at.year if "y" in shown else 1970,
        month=at.month if shown & {"M", "D"} else 1,
        day=at.day if shown & {"d", "D"} else 1,
        hour=hour,
        minute=at.minute if "m" in shown else 0,
        second=at.second if "s" in shown else 0,
        microsecond=at.microsecond if "S" in shown else 0,
    )


def _millis(at: datetime) -> str:
    return str(int(at.timestamp() * 1000))
