"""Taking secrets out of texts that servers have a hand in."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote

HIDDEN = "***"
#: Shortest piece of a secret that is recognised, in characters.
_PIECE = 12


def hide(text: str, secrets: Iterable[str]) -> str:
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
            yield HIDDEN
        before = hidden
