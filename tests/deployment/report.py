"""What was expected, what was seen, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    :param seconds: since the part that it belongs to began.
    """

    part: str
    what: str
    expected: Any
    seen: Any
    ok: bool
    seconds: float


@dataclass
class Report:
    """All lines; those of a part are added by one test."""

    lines: list[Line] = field(default_factory=list)

    def part(self, name: str, began: float | None = None) -> Part:
        """Begin a part.

        :param began: when it did, if not now, by :func:`time.monotonic`.
        """
        return Part(self, name, time.monotonic() if began is None else began)

    def table(self) -> Iterable[str]:
        """As text, a line for each thing that was looked at."""
        form = "{:<19} {:<58} {:<26} {:<26} {:>6}  {}"
        yield form.format("part", "what", "expected", "seen", "s", "").rstrip()
        for line in self.lines:
            cells = (line.part, line.what, _short(line.expected), _short(line.seen))
            yield form.format(*cells, f"{line.seconds:.0f}", "ok" if line.ok else "WRONG")


@dataclass
class Part:
    """One part of a report."""

    report: Report
    name: str
    began: float

    def equal(self, what: str, expected: Any, seen: Any) -> None:
        """Something must be so."""
        self._add(what, expected, seen, ok=seen == expected)

    def at_most(self, what: str, limit: float, seen: float) -> None:
        """Something must not be more."""
        self._add(what, f"at most {limit:g}", seen, ok=seen <= limit)

    def more_than(self, what: str, bound: float, seen: float) -> None:
        """Something must be more."""
        self._add(what, f"more than {bound:g}", seen, ok=seen > bound)

    @property
    def wrong(self) -> list[str]:
        """What is not as it should be."""
        return [
            f"{line.what}: expected {line.expected!r}, seen {line.seen!r}"
            for line in self.report.lines
            if line.part == self.name and not line.ok
        ]

    def _add(self, what: str, expected: Any, seen: Any, *, ok: bool) -> None:
        seconds = time.monotonic() - self.began
        self.report.lines.append(Line(self.name, what, expected, seen, ok, seconds))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list | set | dict) and len(str(value)) > 26:
        return f"{len(value)} of them"
    return str(value)[:26]
