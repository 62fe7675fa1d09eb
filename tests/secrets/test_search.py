"""The search itself finds what it has to find."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus, urlencode

import pytest

from tests.secrets.search import PIECE, Search

SECRET = 'sEcret/pass+"word" %ü\\ of mine'
SEARCH = Search({"password": SECRET})


def found(text: str) -> bool:
    return [find.secret for find in SEARCH.look("here", text.encode())] == ["password"]


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
def test_spellings(text: str) -> None:
    """A secret is found in every spelling, and so is a piece of it."""
    assert found(text)
    assert found(f"before {text} after")


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:"])
@pytest.mark.parametrize("after", ["", "z", "zz"])
def test_base64(before: str, after: str) -> None:
    """In base64 it is found at every alignment."""
    data = f"{before}{SECRET}{after}".encode()
    assert found(base64.b64encode(data).decode())
    assert found(base64.urlsafe_b64encode(data).decode())


@pytest.mark.parametrize("text", ["", "***", SECRET[: PIECE - 1], SECRET[::-1], "password"])
def test_nothing(text: str) -> None:
    """What is no secret is not found."""
    assert not found(text)


def test_short_secrets() -> None:
    """What is too short is not passed over in silence."""
    with pytest.raises(ValueError, match="too short"):
        Search({"pin": "1234"})
