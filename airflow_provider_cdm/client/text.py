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
from urllib.parse import quote, quote_plus

#: Numbers from here on are read as ``None``; no field of CDM has such values.
_NUMBER_LIMIT = 1e18
#: Most levels of objects and lists. Python reads JSON with ten thousand levels, but a recursive
#: function that goes through so many raises RecursionError.
_MAX_LEVELS = 100
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
#: Characters of a user's value that a message shows.
_SHOWN = 200
#: Length of the pieces by which a secret is recognized, in characters.
_PIECE_LENGTH = 12
#: Shortest beginning of a secret that is recognized where a text was cut off.
_SHORTEST_BEGINNING = 6
#: Encodings on top of each other that are undone in search of a secret.
_LAYERS = 3
# Characters as they are written in addresses, HTML, JSON, source code and mails.
_ENCODED = re.compile(
    r"%(?:25)*(?P<url>[0-9A-Fa-f]{2})|&#0*(?P<number>[0-9]{1,7});?"
    r"|&#[xX]0*(?P<hex>[0-9A-Fa-f]{1,6});?|&(?P<name>quot|amp|lt|gt|apos|nbsp|sol|plus|equals);"
    r"|\\+u\{?0*(?P<unicode>[0-9A-Fa-f]{2,4})\}?|\\+x(?P<byte>[0-9A-Fa-f]{2})"
    r"|=(?P<mail>[0-9A-Fa-f]{2})|=\r?\n|\\+(?P<escaped>.)"
)
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


def shown(value: Any) -> str:
    """Return a value of a user for a message; only its type, if it cannot be shown."""
    try:
        text = repr(value)
    except Exception:  # such as an integer of thousands of digits
        return type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


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

    :raises ValueError: when the body is not JSON, or nested more deeply than any answer of CDM.
    """
    try:
        # JSON is UTF-8; some servers put a byte order mark in front.
        text = body.decode("utf-8-sig")
        data = json.loads(
            _ESCAPES.sub(_sanitize_escape, text) if "\\" in text else text,
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=lambda _: None,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("{") + text.count("[") > _MAX_LEVELS and _is_deep(data):
        raise ValueError("nested too deeply")
    return data


def _is_deep(data: Any) -> bool:
    """Return whether a value has more levels than CDM's answers."""
    level: list[Any] = [[data]]
    for _ in range(_MAX_LEVELS + 1):
        level = [
            item
            for container in level
            for item in (container.values() if container.__class__ is dict else container)
            if item.__class__ is dict or item.__class__ is list
        ]
        if not level:
            return False
    return True


def _sanitize_escape(escape: re.Match[str]) -> str:
    if not escape["unsafe"]:
        return escape[0]
    # Tabs and line breaks are kept.
    return escape[0] if escape[0].lower() in ("\\u0009", "\\u000a", "\\u000d") else "\\ufffd"


def _parse_int(digits: str) -> int | None:
    # A list of jobs has thousands of numbers, nearly all of them short.
    if len(digits) < 19:
        return int(digits)
    # Python refuses to convert thousands of digits.
    return int(digits) if len(digits) == 19 and abs(int(digits)) < _NUMBER_LIMIT else None


def _parse_float(digits: str) -> float | None:
    number = float(digits)
    return number if abs(number) < _NUMBER_LIMIT else None


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text with secrets, and pieces of them, replaced by ``***``.

    A server may repeat what it was sent: escaped in some way, in part, or truncated.

    :param secrets: texts that must not be shown.
    """
    spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
    is_secret = bytearray(len(text))
    for spelling in spellings:
        for start, end in _pieces(text, spelling):
            is_secret[start:end] = b"\1" * (end - start)
    # An encoding may write any character in several ways, so it is undone.
    decoded, places = text, list(range(len(text) + 1))
    for _ in range(_LAYERS):
        before, (decoded, places) = decoded, _decoded(decoded, places)
        if decoded == before:
            break
        for spelling in spellings:
            for start, end in _pieces(decoded, spelling):
                first, last = places[start], places[end]
                is_secret[first:last] = b"\1" * (last - first)
    return "".join(_redacted(text, is_secret))


def _pieces(text: str, spelling: str) -> Iterator[tuple[int, int]]:
    """Yield where a text holds pieces of a secret: begin and end."""
    length = min(_PIECE_LENGTH, len(spelling))
    for start in range(len(text) - length + 1):
        if text[start : start + length] in spelling:
            yield start, start + length
    # A piece may be shorter where the text was cut off.
    for rest in range(min(_PIECE_LENGTH, len(spelling)) - 1, _SHORTEST_BEGINNING - 1, -1):
        if text.endswith(spelling[:rest]):
            yield len(text) - rest, len(text)
            break


def _decoded(text: str, places: list[int]) -> tuple[str, list[int]]:
    """Undo one layer of encodings of characters.

    :param places: where each character of the text begins in the original, and its end.
    :returns: the decoded text, and the same of it.
    """
    characters: list[str] = []
    kept: list[int] = []
    at = 0
    for match in _ENCODED.finditer(text):
        characters += text[at : match.start()]
        kept += places[at : match.start()]
        at = match.end()
        if character := _character(match):
            characters.append(character)
            kept.append(places[match.start()])
    return "".join([*characters, *text[at:]]), [*kept, *places[at:]]


def _character(match: re.Match[str]) -> str:
    kind, value = match.lastgroup, match[match.lastgroup] if match.lastgroup else ""
    if kind == "name":
        return html.unescape(f"&{value};")
    if kind == "number":
        return chr(min(int(value), 0x10FFFF))
    if kind in ("escaped", None):
        return value
    return chr(min(int(value, 16), 0x10FFFF))


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret in the ways in which it may be repeated."""
    if not secret:
        return
    escaped = json.dumps(secret)[1:-1]
    yield from (secret, escaped, json.dumps(escaped)[1:-1], repr(secret)[1:-1])
    yield html.escape(secret)
    content = secret.encode("utf-8", "replace")
    yield from (quote(content), quote(content, safe=""), content.hex(), content.hex().upper())
    # As bytes: each byte may be encoded for itself. A blank in a form is a plus.
    yield from (content.decode("latin-1"), quote_plus(content), secret.replace(" ", "+"))
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
