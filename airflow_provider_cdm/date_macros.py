"""Replaces ``${name}`` and CDM's date macros in the parameters of a job.

The simulator does it as CDM would, and ``CdmRunJobOperator`` fills in the macros itself; so this
module is below both, and imports neither.

The syntax is that of "Using Macro Variables of Date and Time" in the user guide:
``${dateformat(fmt)}``, ``${dateformat(fmt, offset, TYPE)}``, ``${timestamp()}``,
``${timestamp(offset, TYPE)}`` and ``${timestamp(dateformat(...))}``; ``fmt`` is a Java
``SimpleDateFormat`` with the letters ``y M d H h m s S a E D``, the only ones that are supported.

Where clocks change, shifts are those of Java's ``ZonedDateTime`` (ASSUMED): seconds, minutes and
hours are exact, and days, months and years keep the time of day. A time of day that does not exist
is as much later as the clocks go forward, and one that exists twice stays in its half. Text does
not tell which of both it means: parsed back, it is the second, as with ``SimpleDateFormat``.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta

#: Maximum length of a filled text, since a short text can repeat a long value many times.
MAX_LENGTH = 16 * 1024 * 1024
#: Matches ``${...}``; the group is what is between the braces.
PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_MACRO = re.compile(r"(dateformat|timestamp)\s*\(.*\)", re.DOTALL)
_OFFSET = re.compile(r"[+-]?[0-9]+")
_UNIT = re.compile(r"[A-Za-z]+")
#: Java's ``int``.
_OFFSETS = range(-(2**31), 2**31)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
    :raises MacroError: for an undefined name, an unknown function or an invalid date format, and if
        the text becomes longer than :data:`MAX_LENGTH`.
    """
    length = len(text)

    def value(match: re.Match[str]) -> str:
        nonlocal length
        result = _value(match, variables, at, keep_undefined)
        length += len(result) - len(match[0])
        if length > MAX_LENGTH:
            raise MacroError(f"a parameter has more than {MAX_LENGTH:,} characters")
        return result

    return PLACEHOLDER.sub(value, text)


def is_macro(content: str) -> bool:
    """Return whether what is between the braces of a placeholder is a date macro.

    Its arguments are not checked.
    """
    return _MACRO.fullmatch(content.strip()) is not None


def fill_macros(text: str, variables: Collection[str], at: datetime) -> str:
    """Return ``text`` with its date macros replaced, and every other placeholder as it is.

    :param text: value of a job's parameter.
    :param variables: names that have a value of their own, and so are no macros.
    :param at: point in time for the macros, in their time zone.
    :raises MacroError: for a macro that is not valid.
    """

    def value(match: re.Match[str]) -> str:
        content = match[1].strip()
        return match[0] if content in variables or not is_macro(content) else _macro(content, at)

    return PLACEHOLDER.sub(value, text)


def _value(
    match: re.Match[str], variables: Mapping[str, str], at: datetime, keep_undefined: bool
) -> str:
    content = match[1].strip()
    if content in variables:
        return variables[content]
    if "(" in content:
        return _macro(content, at)
    if keep_undefined:
        return match[0]
    raise MacroError(f"variable {_shown(content)} is not defined")


def _macro(expression: str, at: datetime) -> str:
    try:
        if (arguments := _arguments_of("dateformat", expression)) is not None:
            pattern, offset, unit = _split(arguments)
            return format_date(pattern, shift(at, offset, unit))
        if (arguments := _arguments_of("timestamp", expression)) is not None:
            if (inner := _arguments_of("dateformat", arguments)) is not None:
                pattern, offset, unit = _split(inner)
                return _millis(_as_parsed_back(pattern, shift(at, offset, unit)))
            pattern, offset, unit = _split(f",{arguments}")
            if not arguments or (offset is not None and not pattern):
                return _millis(shift(at, offset, unit))
    except OverflowError as exc:
        raise MacroError(f"macro {_shown(expression)} is outside the calendar") from exc
    raise MacroError(f"macro {_shown(expression)} is not supported")


def _arguments_of(function: str, expression: str) -> str | None:
    """Return what is between the parentheses of a call; ``None`` for anything else."""
    if expression.startswith(f"{function}(") and expression.endswith(")"):
        return expression[len(function) + 1 : -1].strip()
    return None


def _split(arguments: str) -> tuple[str, str | None, str | None]:
    """Return a date format, which may contain commas, and the shift after it, if any."""
    parts = [part.strip() for part in arguments.rsplit(",", 2)]
    if len(parts) == 3 and _OFFSET.fullmatch(parts[1]) and _UNIT.fullmatch(parts[2]):
        return parts[0], parts[1], parts[2]
    return arguments, None, None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")


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
    error = MacroError(f"an offset of {_shown(offset)} {_shown(unit)} is outside the calendar")
    if unit not in {*_SPANS, "MONTH", "YEAR"}:
        raise MacroError(f"unit {_shown(unit)} is not supported")
    if len(offset) > 11 or (number := int(offset)) not in _OFFSETS:
        raise error
    try:
        if unit == "DAY":
            return _existing((at + timedelta(days=number)).replace(fold=at.fold))
        if unit in _SPANS:
            span = timedelta(**{_SPANS[unit]: number})
            return (at.astimezone(UTC) + span).astimezone(at.tzinfo)
        months = at.year * 12 + at.month - 1 + number * (12 if unit == "YEAR" else 1)
        year, month = divmod(months, 12)
        last = calendar.monthrange(year, month + 1)[1]
        return _existing(at.replace(year=year, month=month + 1, day=min(at.day, last)))
    except (OverflowError, ValueError) as exc:
        raise error from exc


def _existing(at: datetime) -> datetime:
    """Return a time of day that does not exist as the later one that it means."""
    if at.tzinfo is None:
        return at
    # Fold 0 means the offset before the clocks go forward.
    same = at.replace(fold=0).astimezone(UTC).astimezone(at.tzinfo)
    return at if same.replace(tzinfo=None, fold=0) == at.replace(tzinfo=None, fold=0) else same


def format_date(pattern: str, at: datetime) -> str:
    """Return a point in time in a Java ``SimpleDateFormat``.

    :param pattern: date format, such as ``yyyy-MM-dd'T'HH:mm``.
    :param at: point in time to format.
    :raises MacroError: for a letter that is not supported, an unclosed quote, or no format.
    """
    if not pattern:
        raise MacroError("a date format is empty")
    if pattern.count("'") % 2:
        raise MacroError(f"date format {_shown(pattern)} has an unclosed quote")

    def token(match: re.Match[str]) -> str:
        quoted, letter = match[1], match[2]
        if quoted is not None:  # '' is a quotation mark, also within quotes
            return quoted.replace("''", "'") or "'"
        if letter is None:
            return match[0]
        if letter not in _LETTERS:
            text = f"date format {_shown(pattern)}: letter {letter!r} is not supported"
            raise MacroError(text)
        return _LETTERS[letter](at, len(match[0]))

    return _TOKEN.sub(token, pattern)


def _as_parsed_back(pattern: str, at: datetime) -> datetime:
    """Return what Java parses from a formatted date; missing parts are those of 1970-01-01.

    A day that the month does not have, such as that of February 29 without its year, is one of the
    next month.
    """
    format_date(pattern, at)  # raises an error for an invalid format
    shown = {match[2] for match in _TOKEN.finditer(pattern) if match[2]}
    year = at.year if "y" in shown else 1970
    month = at.month if "M" in shown else 1
    day = at.day if "d" in shown else 1
    if "D" in shown and not {"M", "d"} & shown:
        day = at.timetuple().tm_yday
    hour = at.hour % 12 if "h" in shown else 0
    if "H" in shown:
        hour = at.hour
    elif "a" in shown and at.hour >= 12:
        hour += 12
    midnight = datetime(year, month, 1, tzinfo=at.tzinfo) + timedelta(days=day - 1)
    parsed = midnight.replace(
        hour=hour,
        minute=at.minute if "m" in shown else 0,
        second=at.second if "s" in shown else 0,
        microsecond=at.microsecond // 1000 * 1000 if "S" in shown else 0,
        fold=1,
    )
    return _existing(parsed)


def _millis(at: datetime) -> str:
    return str((at - _EPOCH) // timedelta(milliseconds=1))
