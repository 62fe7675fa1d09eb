"""The table of the design that says how many hostile inputs these tests send."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "design.md"
BEGIN, END = "<!-- hostile inputs -->\n", "<!-- end -->"
#: Areas, and the modules with their tests.
AREAS = {
    "answers of a server or a proxy, as bytes": ("test_exchanges", "test_any_bytes"),
    "look-ups of host names": ("test_names",),
    "delays that a server asks for, and slow answers during a wait": ("test_waits",),
    "dates of a server and of tokens": ("test_clocks",),
    "spoiled answers to a start": ("test_starts",),
    "texts, counters and names, and secrets in other encodings": ("test_texts",),
    "connections": ("test_connection_fields",),
    "arguments of tasks": ("test_arguments",),
    "definitions, their files, and patterns of tables": ("test_definitions",),
    "files of the token cache": ("test_token_caches",),
    "requests of web pages to the simulator": ("..simulator.test_web_access",),
}
#: Parameters that say how an input is received, and not what it is.
_WAYS = frozenset({"config", "deferrable", "drive", "suffix", "triggerer", "way"})


def rows(module: str) -> Iterator[int]:
    """Yield the number of inputs of each test that is given a list of them."""
    found = importlib.import_module(module, __package__)
    for function in vars(found).values():
        marks: list[Any] = getattr(function, "pytestmark", None) or []
        inputs = [
            len(list(mark.args[1]))
            for mark in marks
            if mark.name == "parametrize" and mark.args[0] not in _WAYS
        ]
        if inputs and getattr(function, "__module__", None) == found.__name__:
            yield math.prod(inputs)


def table() -> str:
    """Return the table."""
    counts = {
        area: sum(sum(rows(name if name[0] == "." else f".{name}")) for name in modules)
        for area, modules in AREAS.items()
    }
    lines = [f"| {area} | {count:,} |" for area, count in counts.items()]
    return "\n".join(
        ["| Area | Inputs |", "|---|--:|", *lines, f"| all | {sum(counts.values()):,} |", ""]
    )


def test_counts() -> None:
    """The design says how many hostile inputs are sent, by area; this file prints the table."""
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == table().strip()


if __name__ == "__main__":
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{begin}{table()}{END}{rest.partition(END)[2]}")
