"""Text and JSON from a server: valid values are kept, and unsafe ones are replaced."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_cdm.client.text import read_json, sanitize

_SAFE_TEXT = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\t\n\r\\"/')
_SAFE_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(_SAFE_TEXT, max_size=20),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.text(_SAFE_TEXT, max_size=5), inside, max_size=4)
    ),
    max_leaves=20,
)
PROPERTY = settings(derandomize=True, max_examples=200)


@given(_SAFE_JSON, st.booleans())
@PROPERTY
def test_safe_json_is_kept(value: Any, escaped: bool) -> None:
    """Safe values are read unchanged, escaped or not."""
    assert read_json(json.dumps(value, ensure_ascii=escaped).encode()) == value


@given(st.text(st.characters(), max_size=30))
@PROPERTY
def test_any_text_is_sanitized(text: str) -> None:
    """Any text in JSON is read as a text of the same length that can be stored."""
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
        ("-999999999999999999", -999999999999999999),
        ("1000000000000000000", None),
        ("-1000000000000000000", None),
        ("-1e400", None),
        ("1" * 5000, None),
        ("[NaN, Infinity, -Infinity]", [None, None, None]),
        ("\ufeff{}", {}),
    ],
)
def test_unsafe_values_are_replaced(written: str, read: Any) -> None:
    """Surrogates, control characters and enormous numbers are replaced, and nothing else."""
    assert read_json(written.encode()) == read


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"\xff", b"[" * 100_000, '"ü"'.encode("latin-1"), b'"\x00"', b"[1,]"),
        *(b"[" * levels + b"]" * levels for levels in (101, 5_000)),
        b'{"a":[' * 51 + b"]}" * 51,
    ],
)
def test_not_json(body: bytes) -> None:
    """Everything that is not JSON, or nested more deeply than any answer, is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        read_json(body)


def test_nested_json() -> None:
    """What is nested a hundred times is read, and so are brackets in texts and side by side."""
    assert read_json(b"[" * 100 + b"]" * 100)
    assert read_json(json.dumps(["[" * 200]).encode()) == ["[" * 200]
    assert read_json(json.dumps([[{}]] * 200).encode()) == [[{}]] * 200
