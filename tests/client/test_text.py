"""Reading text and JSON from a server: what is sane is kept, what cannot be borne is replaced."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client.text import read_json, sanitize

_PRINTED = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\t\n\r\\"/')
_SANE = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(_PRINTED, max_size=20),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.text(_PRINTED, max_size=5), inside, max_size=4)
    ),
    max_leaves=20,
)
PROPERTY = settings(derandomize=True, max_examples=200)


@given(_SANE, st.booleans())
@PROPERTY
def test_sane_json_is_kept(value: Any, escaped: bool) -> None:
    """What is sane is read as everybody reads it, escaped or not."""
    assert read_json(json.dumps(value, ensure_ascii=escaped).encode()) == value


@given(st.text(st.characters(), max_size=30))
@PROPERTY
def test_any_text_becomes_legible(text: str) -> None:
    """Any text that JSON can spell is read as one that can be written down, and no shorter."""
    read = read_json(json.dumps(text).encode())
    read.encode()
    assert read == sanitize(text, 30)
    assert len(read) == len(text)
    assert all(c in "\t\n\r" or ord(c) >= 32 for c in read)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r'"\ud83d\ude00"', "😀"),
        (r'"\ud83d \ude00"', "\ufffd \ufffd"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd😀"),
        (r'"\\ud83d \\\ud83d"', "\\ud83d \\\ufffd"),
        (r'"\u0000\b\u001B[31m\u0070\u0009\n"', "\ufffd\ufffd\ufffd[31mp\t\n"),
        (r'"\u00201"', " 1"),
        (r'{"\u0000": "\\u0000"}', {"\ufffd": "\\u0000"}),
        ("999999999999999999", 999999999999999999),
        ("1000000000000000000", None),
        ("-1e400", None),
        ("1" * 5000, None),
        ("[NaN, Infinity, -Infinity]", [None, None, None]),
        ("\ufeff{}", {}),
    ],
)
def test_what_cannot_be_borne(written: str, read: Any) -> None:
    """Half characters, control characters and senseless numbers are replaced, and nothing else."""
    assert read_json(written.encode()) == read


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000, '"ü"'.encode("latin-1"), b'"\x00"', b"[1,]"]
)
def test_not_json(body: bytes) -> None:
    """What is not JSON is one kind of error, however it is wrong."""
    with pytest.raises(ValueError, match=r"."):
        read_json(body)
