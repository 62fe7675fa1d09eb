"""Searching for secrets, however they are spelt, and for pieces of them."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

#: Bytes of a secret that are enough to call it found; shorter secrets cannot be searched for.
PIECE = 12


def spellings(secret: str) -> Iterator[str]:
    """All ways in which a secret may be written."""
    yield secret
    yield quote(secret)
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield html.escape(secret)
    yield repr(secret)[1:-1]
    once = json.dumps(secret)[1:-1]
    yield once
    yield json.dumps(once)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1].replace("/", "\\/")
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            # What stands before it, and after it, decides about the characters at its ends.
            coded = alphabet(b"?" * shift + secret.encode()).decode().rstrip("=")
            cut = coded[-(-8 * shift // 6) : -1]
            yield cut
            yield quote(cut, safe="")
    yield secret.encode().hex()


@dataclass(frozen=True)
class Find:
    """A secret that was found.

    :param secret: what people call it.
    :param place: where it was found.
    :param around: what stands there.
    """

    secret: str
    place: str
    around: str


class Search:
    """Searches texts for any piece of some secrets.

    :param secrets: by what people call them; all longer than :data:`PIECE`.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._names: dict[bytes, str] = {}
        for name, secret in secrets.items():
            if len(secret) < PIECE:
                raise ValueError(f"{name} is too short to be searched for")
            for spelt in spellings(secret):
                data = spelt.encode()
                for at in range(len(data) - PIECE + 1):
                    self._names.setdefault(data[at : at + PIECE], name)

    def look(self, place: str, data: bytes) -> Iterator[Find]:
        """Find secrets in something, each once."""
        names = self._names
        told: set[str] = set()
        for at in range(len(data) - PIECE + 1):
            name = names.get(data[at : at + PIECE])
            if name is not None and name not in told:
                told.add(name)
                around = data[max(0, at - 300) : at + 200].decode(errors="replace")
                yield Find(name, place, around)
