"""The search itself finds secrets in all encodings."""

from __future__ import annotations

import base64
import html
import json
import quopri
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest

from tests.secrets.search import PIECE, Search

SECRET = 'sEcret/pass+"word" %ü\\ of mine'
SEARCH = Search({"password": SECRET})


def found(text: str) -> bool:
    return [find.secret for find in SEARCH.find_in("here", text.encode())] == ["password"]


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"x{SECRET}y",
        quote(SECRET),
        quote_plus(SECRET),
        urlencode({"p": SECRET}),
        json.dumps({"a": SECRET}),
        json.dumps(json.dumps({"a": SECRET})),
        json.dumps(SECRET, ensure_ascii=False),
        str({"a": SECRET}),
        SECRET.encode().hex(),
        SECRET[:PIECE],
        SECRET[-PIECE:],
        SECRET[7 : 7 + PIECE],
    ],
)
def test_encodings(text: str) -> None:
    """A secret is found in every encoding, and so is a piece of it."""
    assert found(text)
    assert found(f"before {text} after")


@pytest.mark.parametrize(
    "text",
    [
        quote(quote(SECRET, safe=""), safe=""),
        quote(SECRET, safe="").lower(),
        "".join(f"%{byte:02x}" for byte in SECRET.encode()),
        "".join(f"&#{ord(character)};" for character in SECRET),
        "".join(f"&#x{ord(character):x};" for character in SECRET),
        "".join(f"\\u{ord(character):04x}" for character in SECRET),
        "".join(f"\\x{byte:02x}" for byte in SECRET.encode()),
        quopri.encodestring(SECRET.encode()).decode(),
        SECRET.encode().hex().upper(),
    ],
)
def test_encodings_of_each_character(text: str) -> None:
    """A secret whose characters are written out is found, and so is half of it."""
    assert found(f"before {text} after")
    assert found(text[: len(text) * 2 // 3]) or found(text[len(text) // 3 :])


SPECIAL = '+/"<&>\\=?*' * 3
#: Encodings of a secret in which no character stands for itself, each with a search of its own.
WAYS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "an address": lambda text: quote(text, safe=""),
    "an address in an address": lambda text: quote(quote(text, safe=""), safe=""),
    "three addresses": lambda text: quote(quote(quote(text, safe=""), safe=""), safe=""),
    "HTML": html.escape,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON in JSON": lambda text: json.dumps(json.dumps(text))[3:-3],
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 in an address": lambda text: quote(base64.b64encode(text.encode()), safe=""),
    "hex": lambda text: text.encode().hex(),
    "hex in capitals": lambda text: text.encode().hex().upper(),
    "a mail": lambda text: "".join(f"={byte:02X}" for byte in text.encode()),
    "decimals": lambda text: "".join(f"&#{byte};" for byte in text.encode()),
    "hexadecimals": lambda text: "".join(f"&#x{byte:X};" for byte in text.encode()),
    "escapes of JSON": lambda text: "".join(f"\\u{byte:04x}" for byte in text.encode()),
    "escapes of Python": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
}


@pytest.mark.parametrize("way", WAYS)
def test_special_characters(way: str) -> None:
    """A secret of which no character stands for itself is found in every encoding."""
    search = Search({"password": SPECIAL})
    text = f"before {WAYS[way](SPECIAL)} after"
    assert [find.secret for find in search.find_in("here", text.encode())] == ["password"]


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:"])
@pytest.mark.parametrize("after", ["", "z", "zz"])
def test_base64(before: str, after: str) -> None:
    """A secret in base64 is found at every alignment."""
    data = f"{before}{SECRET}{after}".encode()
    assert found(base64.b64encode(data).decode())
    assert found(base64.urlsafe_b64encode(data).decode())


@pytest.mark.parametrize("text", ["", "***", SECRET[: PIECE - 1], SECRET[::-1], "password"])
def test_nothing(text: str) -> None:
    """Other texts are not reported."""
    assert not found(text)


def test_short_secrets() -> None:
    """A secret that is too short is an error."""
    with pytest.raises(ValueError, match="too short"):
        Search({"pin": "1234"})
