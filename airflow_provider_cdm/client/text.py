"""Text and JSON from a server: sanitized, so that they can be stored, and redacted for people.

A lone surrogate (half a character) cannot be written to a log, PostgreSQL cannot store a NUL, and
Airflow's supervisor does not accept a number beyond 64 bits. All of them are valid JSON, so they
are replaced here, before anything else reads them.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

#: Numbers from here on are read as ``None``; no field of CDM has such values.
_NUMBER_LIMIT = 1e18
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
# The same as escape sequences in JSON. Valid sequences are matched as well, so that none is read
# from its middle.
_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<unsafe>\\u(?:[dD][89a-fA-F][0-9a-fA-F]{2}|00[01][0-9a-fA-F])|\\[bf])|\\."
)

# What a terminal or a log viewer interprets: other control characters, separators of lines, marks
# of the direction of text, and the marks by which Airflow folds lines of a log.
_INTERPRETED = re.compile(
    "[\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
    r"|(?<=:)(?=:(?:end)?group::)|(?<=\#)(?=\#\[(?:end)?group)",
    re.IGNORECASE,
)

REDACTED = "***"
#: Longest line about the progress of a run, in characters: what fits beside the time on a screen.
LINE_LIMIT = 99
#: Length of the pieces by which a secret is recognized, in characters.
_PIECE_LENGTH = 12
#: Shortest piece of Base64 that is recognized; a shorter one occurs by chance.
_SHORTEST_ENCODED = 8


def sanitize(text: str, limit: int) -> str:
    """Return a text with surrogates and control characters replaced, except tabs and line breaks.

    :param limit: longest result, in characters; the rest is cut off.
    """
    return _UNSAFE.sub("\ufffd", text[:limit])


def printable(text: str, limit: int) -> str:
    """Return a text for people: sanitized, and without what a log viewer would interpret.

    :param limit: longest result, in characters; the rest is cut off.
    """
    return _INTERPRETED.sub(lambda match: "\ufffd" if match[0] else " ", sanitize(text, limit))[
        :limit
    ]


def one_line(text: str, limit: int) -> str:
    """Return a text of a server for people, on one line, so that it cannot look like another one.

    :param limit: longest result, in characters; the rest is cut off.
    """
    return printable(" ".join(text[: 4 * limit].split()), limit)


def end_sentence(text: str) -> str:
    """Return a text that another sentence can follow."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def format_instant(milliseconds: int | None) -> str:
    """Return an instant for people, in UTC, to the second.

    :param milliseconds: epoch milliseconds.
    """
    if milliseconds is None:
        return "an unknown time"
    instant = _instant(milliseconds)
    return f"{milliseconds} ms" if instant is None else f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def iso_instant(milliseconds: int | None) -> str | None:
    """Return an instant in ISO 8601, in UTC, to the millisecond; ``None`` if there is none.

    :param milliseconds: epoch milliseconds.
    """
    instant = None if milliseconds is None else _instant(milliseconds)
    return None if instant is None else instant.isoformat(timespec="milliseconds")


def _instant(milliseconds: int) -> datetime | None:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def format_duration(seconds: float) -> str:
    """Return a duration for people: in seconds up to two minutes, then in minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min {seconds - 60 * minutes:02.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def read_json(body: bytes) -> Any:
    """Read JSON, with texts sanitized and numbers from 10^18 on, NaN and Infinity as ``None``.

    :raises ValueError: when the body is not JSON.
    """
    try:
        # JSON is UTF-8; some servers put a byte order mark in front.
        text = body.decode("utf-8-sig")
        return json.loads(
            _ESCAPES.sub(_sanitize_escape, text) if "\\" in text else text,
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=lambda _: None,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _sanitize_escape(escape: re.Match[str]) -> str:
    if not escape["unsafe"]:
        return escape[0]
    # Tabs and line breaks are kept.
    return escape[0] if escape[0].lower() in ("\\u0009", "\\u000a", "\\u000d") else "\\ufffd"


def _parse_int(digits: str) -> int | None:
    # The length comes first, since Python refuses to convert thousands of digits.
    return int(digits) if len(digits) <= 19 and abs(int(digits)) < _NUMBER_LIMIT else None


def _parse_float(digits: str) -> float | None:
    number = float(digits)
    return number if abs(number) < _NUMBER_LIMIT else None


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text with secrets, and pieces of them, replaced by ``***``.

    A server may repeat what it was sent: escaped in some way, in part, or truncated.

    :param secrets: texts that must not be shown.
    """
    is_secret = bytearray(len(text))
    for secret in secrets:
        for spelling in set(_spellings(secret)):
            length = min(_PIECE_LENGTH, len(spelling))
            for start in range(len(text) - length + 1):
                if text[start : start + length] in spelling:
                    is_secret[start : start + length] = b"\1" * length
    return "".join(_redacted(text, is_secret))


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret in the ways in which it may be repeated."""
    if not secret:
        return
    escaped = json.dumps(secret)[1:-1]
    yield from (secret, escaped, json.dumps(escaped)[1:-1], repr(secret)[1:-1])
    yield html.escape(secret)
    content = secret.encode("utf-8", "replace")
    yield from (quote(content), quote(content, safe=""), content.hex(), content.hex().upper())
    yield from (encoded for encoded in base64_parts(content) if len(encoded) >= _SHORTEST_ENCODED)


def base64_parts(content: bytes) -> Iterator[str]:
    """Yield what the Base64 of anything that contains some bytes contains, in both alphabets.

    What stands before the bytes shifts them by 0, 1 or 2; characters that depend on what is around
    are left out.
    """
    for shift, begin in ((0, 0), (1, 2), (2, 3)):
        shifted = bytes(shift) + content
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(shifted).decode()[begin : len(shifted) * 4 // 3]


def _redacted(text: str, is_secret: bytearray) -> Iterator[str]:
    previous = 0
    for character, hidden in zip(text, is_secret, strict=True):
        if not hidden:
            yield character
        elif not previous:
            yield REDACTED
        previous = hidden
