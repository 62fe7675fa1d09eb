"""The values of rows: what a driver is given, and whether the database has kept it."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import re
import uuid
from typing import Any

#: Declared types of columns for numbers. SQLite also stores text as a number where it does not know
#: the declared type, such as STRING or JSON.
_NUMBER_TYPE = re.compile(
    r"\s*(unsigned|(tiny|small|medium|big)?int(?!erval)|num|dec|real|float|double|bool|money|serial)",
    re.IGNORECASE,
)


def plain(value: Any) -> Any:
    """Return a driver's value as one that drivers of other databases accept.

    :param value: value as a driver returns it.
    :raises ValueError: if there is no such value.
    """
    if value is None or isinstance(value, (bool, int, float, str, bytes, decimal.Decimal)):
        return value
    if isinstance(value, (memoryview, bytearray)):
        return bytes(value)
    if isinstance(value, (dt.datetime, dt.date, dt.time, uuid.UUID)):
        return value
    if isinstance(value, dt.timedelta):
        return _duration(value)
    if isinstance(value, (dict, list, tuple)):
        return _json(value)
    raise ValueError(f"there is no conversion for values of type {type(value).__name__}")


def for_sqlite(value: Any, affinity: str) -> Any:
    """Return a plain value as one that the sqlite3 module accepts.

    :param value: result of :func:`plain`.
    :param affinity: affinity of the column: ``TEXT``, ``NUM``, ``INT``, ``REAL`` or nothing.
    """
    if isinstance(value, dt.datetime):
        return value.isoformat(" ")
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(decimal.Decimal(value))  # str(int) has a limit
    if isinstance(value, float) and affinity == "TEXT":
        return repr(value)  # SQLite itself would round it to 15 digits
    return value


def for_postgresql(value: Any, type_name: str) -> Any:
    """Return a plain value as one that drivers of PostgreSQL send without a change.

    :param value: result of :func:`plain`.
    :param type_name: name of the column's type in upper case, without parameters.
    """
    if type_name == "BOOLEAN" and isinstance(value, int) and value in (0, 1):
        return bool(value)  # other databases have no type for this
    if type_name == "NUMERIC" and isinstance(value, float):
        return decimal.Decimal(repr(value))  # PostgreSQL itself would round it to 15 digits
    return value


def is_kept(sent: Any, stored: Any, declared: str) -> bool:
    """Return whether a database has stored what it was given.

    :param sent: result of :func:`plain`.
    :param stored: value as the driver returns it.
    :param declared: declared type of the column.
    """
    if sent is None or stored is None:
        return sent is stored
    if isinstance(stored, (int, float, decimal.Decimal)) and not isinstance(stored, bool):
        if isinstance(sent, str):
            same_text = str(stored) == sent.strip()
            return same_text or (bool(_NUMBER_TYPE.match(declared)) and _same(sent, stored))
        return _same(sent, stored)
    if isinstance(sent, (int, float, decimal.Decimal)):
        return not isinstance(stored, str) or _same(sent, stored)
    # Another database than SQLite converts text to its own types, or refuses it.
    return True


def _same(one: Any, other: Any) -> bool:
    """Return whether two numbers are written with the same digits."""
    first, second = _number(one), _number(other)
    if first is None or second is None:
        return False
    return first == second or (first.is_nan() and second.is_nan())


def _number(value: Any) -> decimal.Decimal | None:
    text = repr(value) if isinstance(value, float) else value
    try:
        return decimal.Decimal(text.strip() if isinstance(text, str) else text)
    except (decimal.InvalidOperation, TypeError, ValueError):
        return None


def _duration(value: dt.timedelta) -> str:
    """Return a duration as hours, minutes and seconds, which all databases read."""
    total = abs(value)
    seconds = total.days * 86_400 + total.seconds
    fraction = f".{total.microseconds:06d}" if total.microseconds else ""
    sign = "-" if value < dt.timedelta() else ""
    return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"


def _json(value: Any) -> str:
    try:
        _check_json(value)
        return json.dumps(value, ensure_ascii=False, default=_json_part)
    except RecursionError:
        raise ValueError("a nested value is too deep") from None


def _json_part(value: Any) -> Any:
    simple = plain(value)
    if isinstance(simple, bytes):
        raise ValueError("JSON has no binary values")
    return for_sqlite(simple, "")


def _check_json(value: Any) -> None:
    """Refuse what :func:`json.dumps` would change."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("the names in a JSON object must be text")
        for part in value.values():
            _check_json(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _check_json(part)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("JSON has no infinite numbers")
