"""Text from a server: cleaned, so that it can be stored, and redacted, so that it can be shown.

A lone half of a character (a surrogate) cannot be written to a log, a NUL cannot be stored by
PostgreSQL, and a number beyond 64 bits cannot be sent to Airflow's supervisor. All of them are
legal JSON, so they end here.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

#: Numbers at or above this are none that CDM means.
_LIMIT = 1e18
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
# In JSON these come as escapes; the others are matched so that none is read from its middle.
_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<wrong>\\u(?:[dD][89a-fA-F][0-9a-fA-F]{2}|00[01][0-9a-fA-F])|\\[bf])|\\."
)

REDACTED = "***"
#: Shortest piece of a secret that is recognised, in characters.
_PIECE = 12


def sanitize(text: str, limit: int) -> str:
    """Text without half characters and control characters but for tabs and line breaks.

    :param limit: how long it may be, in characters; the rest is cut off.
    """
    return _UNSAFE.sub("\ufffd", text[:limit])


def read_json(body: bytes) -> Any:
    """Read JSON. What is wrong with a text is replaced; numbers that cannot be meant are ``None``.

    :raises ValueError: when it is not JSON.
    """
    try:
        # As JSON has it: UTF-8, by some marked as such.
        text = body.decode("utf-8-sig")
        return json.loads(
            _ESCAPES.sub(_sanitize_escape, text) if "\\" in text else text,
            parse_int=_whole,
            parse_float=_number,
            parse_constant=_nothing,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _sanitize_escape(escape: re.Match[str]) -> str:
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


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return the text without secrets, nor pieces of them, in any usual spelling.

    A server may repeat what it was sent: escaped, in part, or cut where its own limit was.
    """
    pieces = {piece for secret in secrets for piece in _pieces(secret)}
    if not pieces:
        return text
    lengths = {len(piece) for piece in pieces}
    secret = bytearray(len(text))
    for length in lengths:
        for at in range(len(text) - length + 1):
            if text[at : at + length] in pieces:
                secret[at : at + length] = b"\1" * length
    return "".join(_shown(text, secret))


def _pieces(secret: str) -> Iterator[str]:
    escaped = json.dumps(secret)[1:-1]
    spellings = (
        secret,
        escaped,
        json.dumps(escaped)[1:-1],
        repr(secret)[1:-1],
        html.escape(secret),
        quote(secret),
        quote(secret, safe=""),
    )
    for spelling in {each for each in spellings if each}:
        length = min(_PIECE, len(spelling))
        for at in range(len(spelling) - length + 1):
            yield spelling[at : at + length]


def _shown(text: str, secret: bytearray) -> Iterator[str]:
    before = 0
    for character, hidden in zip(text, secret, strict=True):
        if not hidden:
            yield character
        elif not before:
            yield REDACTED
        before = hidden
