"""Text and JSON from a server, read so that logs, JSON, MessagePack and databases can bear them.

A lone half of a character (a surrogate) cannot be written to a log, a NUL cannot be stored by
PostgreSQL, and a number beyond 64 bits cannot be sent to Airflow's supervisor. All of them are
legal JSON, so they end here.
"""

from __future__ import annotations

import json
import re
from typing import Any

#: Numbers at or above this are none that CDM means.
_LIMIT = 1e18
_NOT_LEGIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
# In JSON these come as escapes; the others are matched so that none is read from its middle.
_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<wrong>\\u(?:[dD][89a-fA-F][0-9a-fA-F]{2}|00[01][0-9a-fA-F])|\\[bf])|\\."
)


def legible(text: str, limit: int) -> str:
    """Text without half characters and control characters but for tabs and line breaks.

    :param limit: how long it may be, in characters; the rest is cut off.
    """
    return _NOT_LEGIBLE.sub("\ufffd", text[:limit])


def read_json(body: bytes) -> Any:
    """Read JSON. What is wrong with a text is replaced; numbers that cannot be meant are ``None``.

    :raises ValueError: when it is not JSON.
    """
    try:
        # As JSON has it: UTF-8, by some marked as such.
        text = body.decode("utf-8-sig")
        return json.loads(
            _ESCAPES.sub(_legible_escape, text) if "\\" in text else text,
            parse_int=_whole,
            parse_float=_number,
            parse_constant=_nothing,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _legible_escape(escape: re.Match[str]) -> str:
    if not escape["wrong"]:
        return escape[0]
    # Tabs and line breaks are fine.
    return escape[0] if escape[0].lower() in ("\\u0009", "\\u000a", "\\u000d") else "\\ufffd"


def _whole(digits: str) -> int | None:
    # Not all digits at once: Python refuses to read some thousands of them.
    return int(digits) if len(digits) <= 19 and abs(int(digits)) < _LIMIT else None


def _number(digits: str) -> float | None:
    number = float(digits)
    return number if abs(number) < _LIMIT else None


def _nothing(_: str) -> None:
    return None
