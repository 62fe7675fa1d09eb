"""Definitions and their files, written by mistake or with ill will: an error of the configuration.

The same for names of tables, which a definition may write as patterns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.client.api import parsing, reading
from airflow_provider_cdm.client.whole_database import table_names
from airflow_provider_cdm.operators import CdmCreateJobOperator
from tests.hostile.test_forks import ending, in_child
from tests.operators.test_rendered_text import render

BEGIN = "name: j\njob_type: NORMAL_JOB\n"


def merged(levels: int) -> str:
    """Return a mapping that merges another one eight times, which does the same, and so on."""
    lines = ["a0: &a0 {k: v}"]
    for level in range(1, levels):
        again = ", ".join([f"*a{level - 1}"] * 8)
        lines.append(f"a{level}: &a{level} {{<<: [{again}]}}")
    return "\n".join(lines)


TEXTS = {
    "a truth that is none": f"{BEGIN}x: !!bool maybe",
    "a truth by its full tag": f"{BEGIN}x: !<tag:yaml.org,2002:bool> maybe",
    "a truth by a tag of its own": "%TAG ! tag:yaml.org,2002:\n---\nx: !bool maybe",
    "no number": f"{BEGIN}x: !!int ''",
    "a sign as a number": f"{BEGIN}x: !!int '+'",
    "a number of 5,000 digits": f"{BEGIN}x: !!int {'9' * 5000}",
    "a number of base 60": f"{BEGIN}x: !!int {'1:' * 50_000}1",
    "a fraction that is none": f"{BEGIN}x: !!float ''",
    "a time that is none": f"{BEGIN}x: !!timestamp soon",
    "a time that cannot be": f"{BEGIN}x: !!timestamp 9999-99-99",
    "a number as a key": f"{BEGIN}!!int '': x",
    "bytes": f"{BEGIN}x: !!binary '***'",
    "a set": f"{BEGIN}x: !!set {{a, b}}",
    "pairs": f"{BEGIN}x: !!pairs [a: b]",
    "an object of Python": f"{BEGIN}x: !!python/object/apply:os.system [id]",
    "a name of Python": f"{BEGIN}x: !!python/name:os.system",
    "a tag that nobody knows": f"{BEGIN}x: !jdbc y",
    "a list in itself": f"{BEGIN}x: &a [*a]",
    "a mapping in itself": f"{BEGIN}x: &a {{y: *a}}",
    "a mapping merged with itself": f"{BEGIN}x: &a {{<<: *a}}",
    "a mapping as a key": f"{BEGIN}? {{a: b}}\n: c",
    "an alias of nothing": f"{BEGIN}x: *nothing",
    "merges that explode": merged(60),
    "merges of what is no mapping": f"{BEGIN}<<: [x, y]",
    "two documents": f"{BEGIN}---\n{BEGIN}",
    "nothing": "",
    "null": "null",
    "a number": "5",
    "a byte that YAML forbids": f"{BEGIN}x: \x07",
    "NUL": "\x00",
    "half a character": '{"name": "\\ud800"}',
    "brackets without an end": "[" * 100_000,
    "objects without an end": '{"a":' * 100_000,
    "braces without an end": "{" * 100_000,
    "steps without an end": "- " * 100_000,
    "a quote without an end": "'" * 200_001,
    "no number in JSON": '{"name": NaN}',
    "infinity in JSON": '{"name": -Infinity}',
    "10,000 digits in JSON": "9" * 10_000,
    "ten million letters": "a" * 10_000_001,
}


@pytest.mark.parametrize("what", TEXTS)
def test_texts(what: str) -> None:
    """A text that is no definition is an error of the configuration, soon and of any kind."""
    assert ending(lambda: parsing.job(TEXTS[what])).startswith("CdmConfigError: ")


def test_merges_keep_their_meaning() -> None:
    """Of mappings that are merged, the first one counts, and what a mapping says itself."""
    text = "a: &a {k: 1st, l: 1st}\nb: &b {k: 2nd, m: 2nd}\nx: {<<: [*a, *b, *a], l: own}"
    assert reading.read(text)["x"] == {"k": "1st", "l": "own", "m": "2nd"}


def huge(path: Path) -> None:
    """Make a file of a terabyte, without its content."""
    with path.open("wb") as file:
        file.truncate(2**40)


FILES: dict[str, Callable[[Path], Any]] = {
    "a named pipe": lambda path: os.mkfifo(path),
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nowhere": lambda path: path.symlink_to("/nowhere/at/all"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "bytes that are no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a terabyte": huge,
    "more than ten million bytes": lambda path: path.write_text("#" * 10_000_001),
}


@pytest.mark.parametrize("way", ["absolute", "beside the DAG", "by another folder"])
@pytest.mark.parametrize("what", FILES)
def test_files(what: str, way: str, tmp_path: Path) -> None:
    """What is no file with a text of usual size is an error of the configuration."""
    (tmp_path / "dags").mkdir()
    FILES[what](tmp_path / "a.yaml")
    paths = {"absolute": tmp_path / "a.yaml", "beside the DAG": Path("a.yaml")}
    path = paths.get(way, Path("dags/../a.yaml"))
    task = CdmCreateJobOperator(task_id="t", definition=path)
    end = ending(lambda: render(task, {}, native=False, template_searchpath=str(tmp_path)))
    assert end.startswith("CdmConfigError: ")
    assert "a.yaml" in end


PATTERNS = {
    "asterisks": "*a" * 40 + "b",
    "per cent signs": "%a" * 40 + "b",
    "both": "*%*%a" * 40 + "b",
    "asterisks and question marks": "*?" * 40 + "b",
    "many lists": "&".join(f"*{'a*' * number}b" for number in range(60)),
    "braces": "${" * 40_000,
    "dollars": "$a(" * 30_000,
    "percent-encoded braces": "%24%7B" * 10_000,
}


@pytest.mark.parametrize("what", PATTERNS)
def test_patterns_of_tables(what: str) -> None:
    """Comparing a name with any pattern ends: a triggerer stands still meanwhile."""

    def compare() -> bool:
        pattern = table_names.pattern_of(PATTERNS[what])
        table_names.without_variables(PATTERNS[what] * 50)
        return pattern is not None and pattern.fullmatch("a" * 5_000 + "!") is not None

    assert in_child(compare) is False


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a*", "a", True),
        ("a*", "ba", False),
        ("*a", "aba", True),
        ("*ab", "abab", True),
        ("*ab", "aba", False),
        ("a*b*c", "a1b2b3c", True),
        ("a*b*c", "a1c2b", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("*a?c*", "aacabcx", True),
        ("a%b", "axb", True),
        ("**a**", "bab", True),
        ("A*", "abc", True),
        ("a.b*", "b1", True),
        ("x&a*z", "abz", True),
    ],
)
def test_patterns_mean_what_they_say(pattern: str, name: str, fits: bool) -> None:
    """An asterisk stands for any characters, a question mark for one."""
    found = table_names.pattern_of(pattern)
    assert isinstance(found, re.Pattern)
    assert bool(found.fullmatch(name)) is fits
