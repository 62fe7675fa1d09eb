"""A report of expected and actual values, with times."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """One check.

    :param part: name of the part of the report.
    :param seconds: time since the start of the part.
    """

    part: str
    what: str
    expected: Any
    seen: Any
    ok: bool
    seconds: float


@dataclass
class Report:
    """All checks; those of a part are added by one test or by related tests."""

    checks: list[Check] = field(default_factory=list)

    def part(self, name: str, started_at: float | None = None) -> Part:
        """Return a new part.

        :param started_at: its start by :func:`time.monotonic`, if not now.
        """
        return Part(self, name, time.monotonic() if started_at is None else started_at)

    def table(self) -> Iterable[str]:
        """Yield the lines of a table, one for each check."""
        form = "{:<19} {:<58} {:<26} {:<26} {:>6}  {}"
        yield form.format("part", "what", "expected", "seen", "s", "").rstrip()
        for check in self.checks:
            cells = (check.part, check.what, _shorten(check.expected), _shorten(check.seen))
            yield form.format(*cells, f"{check.seconds:.0f}", "ok" if check.ok else "WRONG")


@dataclass
class Part:
    """One part of a report."""

    report: Report
    name: str
    started_at: float

    def equal(self, what: str, expected: Any, seen: Any) -> None:
        """Check that a value is the expected one."""
        self._add(what, expected, seen, ok=seen == expected)

    def at_most(self, what: str, limit: float, seen: float) -> None:
        """Check that a value is not above a limit."""
        self._add(what, f"at most {limit:g}", seen, ok=seen <= limit)

    def more_than(self, what: str, bound: float, seen: float) -> None:
        """Check that a value is above a bound."""
        self._add(what, f"more than {bound:g}", seen, ok=seen > bound)

    @property
    def wrong(self) -> list[str]:
        """Failed checks of this part."""
        return [
            f"{check.what}: expected {check.expected!r}, seen {check.seen!r}"
            for check in self.report.checks
            if check.part == self.name and not check.ok
        ]

    def _add(self, what: str, expected: Any, seen: Any, *, ok: bool) -> None:
        seconds = time.monotonic() - self.started_at
        self.report.checks.append(Check(self.name, what, expected, seen, ok, seconds))


def _shorten(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list | set | dict) and len(str(value)) > 26:
        return f"{len(value)} of them"
    return str(value)[:26]
