"""A search for secrets and pieces of them, in all usual encodings."""

from __future__ import annotations

import base64
import html
import json
import quopri
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

#: Length in bytes of the pieces that are searched for. Shorter secrets cannot be searched for.
PIECE = 12


def encodings(secret: str) -> Iterator[str]:
    """Yield a secret in all encodings in which it may have been written."""
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
            # The first and last characters also depend on the text before and after the secret.
            encoded = alphabet(b"?" * shift + secret.encode()).decode().rstrip("=")
            inner = encoded[-(-8 * shift // 6) : -1]
            yield inner
            yield quote(inner, safe="")
    yield secret.encode().hex()


def written_out(secret: str) -> Iterator[str]:
    """Yield a secret in encodings that write each of its characters, or several layers."""
    data = secret.encode()
    yield quote(quote(secret, safe=""), safe="")
    yield quote(quote(quote(secret, safe=""), safe=""), safe="")
    yield quote(secret, safe="").lower()
    yield quopri.encodestring(data).decode().replace("=\n", "")
    yield data.hex().upper()
    for one in ("%{:02x}", "%{:02X}", "%25{:02X}", "\\x{:02x}", "={:02X}"):
        yield "".join(one.format(byte) for byte in data)
    for one in ("&#{};", "&#x{:x};", "&#x{:X};", "\\u{:04x}", "\\u{:04X}", "\\\\u{:04x}"):
        yield "".join(one.format(ord(character)) for character in secret)


@dataclass(frozen=True)
class Find:
    """A secret that was found.

    :param secret: name of the secret.
    :param place: path of the file, or name of the table.
    :param context: text around the secret.
    """

    secret: str
    place: str
    context: str


class Search:
    """Searches texts for any piece of some secrets.

    :param secrets: secrets by name, all at least :data:`PIECE` bytes long.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._names: dict[bytes, str] = {}
        #: Halves of secrets that are written out, where a piece would be a few characters.
        self._halves: dict[bytes, str] = {}
        for name, secret in secrets.items():
            if len(secret) < PIECE:
                raise ValueError(f"{name} is too short to be searched for")
            for encoded in encodings(secret):
                data = encoded.encode()
                for at in range(len(data) - PIECE + 1):
                    self._names.setdefault(data[at : at + PIECE], name)
            for encoded in written_out(secret):
                data, half = encoded.encode(), (len(encoded.encode()) + 1) // 2
                for piece in (data[:half], data[-half:]):
                    self._halves.setdefault(piece, name)

    def find_in(self, place: str, data: bytes) -> Iterator[Find]:
        """Yield the secrets in the data of a file or a table, each once."""
        names = self._names
        seen: set[str] = set()
        for at in range(len(data) - PIECE + 1):
            name = names.get(data[at : at + PIECE])
            if name is not None and name not in seen:
                seen.add(name)
                yield Find(name, place, _around(data, at))
        for piece, name in self._halves.items():
            if name not in seen and piece in data:
                seen.add(name)
                yield Find(name, place, _around(data, data.index(piece)))


def _around(data: bytes, at: int) -> str:
    return data[max(0, at - 300) : at + 200].decode(errors="replace")
