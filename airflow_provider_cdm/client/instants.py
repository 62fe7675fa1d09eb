"""Instants that users write, in any common form; what may mean two things is refused."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from airflow_provider_cdm.client.errors import CdmConfigError
from airflow_provider_cdm.client.text import shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_NUMBER = re.compile(r"([0-9]+)(\.[0-9]+)?")
#: Digits of epoch milliseconds, from 2001 to 2286. Fewer are a date, or epoch seconds.
_MS_DIGITS = 13
#: Dates and times that are written in digits alone, by the number of digits.
_COMPACT = {8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}
#: Digits of the longest number that is written out.
_MOST_DIGITS = 100
#: Years in which digits alone are taken for a date.
_YEARS = range(1970, 2200)
_FORMS = (
    "Use a datetime, a date, an ISO 8601 text such as 2025-01-02T03:04:05+00:00 (UTC if it names no"
    " zone), 2025-01-02, 20250102, 20250102T030405, or epoch milliseconds (13 digits)."
)


def epoch_ms(argument: str, value: Any) -> int:
    """Return an instant in epoch milliseconds, rounded down.

    The number 0 is the beginning of all history. A date is its midnight, and a time that names no
    zone is UTC.

    :param argument: name of the argument, for the message.
    :param value: ``datetime``, ``date``, ISO 8601 text, a date or time in digits (``ds_nodash``,
        ``ts_nodash``), or epoch milliseconds as a number or as text.
    :raises CdmConfigError: when the value is anything else, or may be something else, such as epoch
        seconds.
    """
    try:
        return _epoch_ms(argument, value)
    except OverflowError:
        raise CdmConfigError(f"{argument} is {value}, which no calendar has in UTC.") from None


def _epoch_ms(argument: str, value: Any) -> int:
    if isinstance(value, datetime):
        return _ms_of(value)
    if isinstance(value, date):
        return _ms_of(datetime(value.year, value.month, value.day, tzinfo=UTC))
    if isinstance(value, str):
        text = value.strip()
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        text = _written(value)
    else:
        raise CdmConfigError(f"{argument} must be a time, not {type(value).__name__}. {_FORMS}")
    if number := _NUMBER.fullmatch(text):
        return _from_digits(argument, value, number[1], fraction=float(number[2] or 0))
    try:
        return _ms_of(datetime.fromisoformat(text))
    except ValueError:
        nothing = text in ("", "None")
        reason = "its template rendered to nothing" if nothing else "this is no known form"
        raise CdmConfigError(f"{argument} is {shown(value)}: {reason}. {_FORMS}") from None


def _written(value: float | Decimal) -> str:
    if isinstance(value, float):
        return f"{value:f}"
    # Python writes an integer of thousands of digits as Decimal only. An exponent of millions,
    # which no time has, is not written out: that would fill the memory.
    number = Decimal(value)
    return f"{number:f}" if abs(number.adjusted()) < _MOST_DIGITS else str(number)


def _from_digits(argument: str, value: Any, digits: str, *, fraction: float) -> int:
    if len(digits) == _MS_DIGITS or value == 0:
        return int(digits)
    if len(digits) in _COMPACT and not fraction:
        with suppress(ValueError):
            instant = datetime.strptime(digits, _COMPACT[len(digits)]).replace(tzinfo=UTC)
            if instant.year in _YEARS:
                return _ms_of(instant)
    hint = ""
    if len(digits) in (9, 10):
        hint = " If these are epoch seconds, multiply them by 1000."
    raise CdmConfigError(
        f"{argument} is {shown(value)}, which is neither a date nor epoch milliseconds.{hint}"
        f" {_FORMS}"
    )


def _ms_of(instant: datetime) -> int:
    aware = instant.astimezone(UTC) if instant.tzinfo else instant
    # A plain datetime: differences of pendulum's cannot be divided.
    plain = datetime.combine(
        date(aware.year, aware.month, aware.day),
        time(aware.hour, aware.minute, aware.second, aware.microsecond, tzinfo=UTC),
    )
    # Rounded down: a run created in the same millisecond counts.
    return (plain - _EPOCH) // _MILLISECOND
