"""What a person reads while a run goes on: a line when something changed, else one a minute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import RunRef, Submission

#: Seconds without any movement after which a run is taken for stalled.
STALLED_AFTER = 1800.0
_QUIET_SECONDS = 60.0


class Log(Protocol):
    """What a logger is used for here."""

    def info(self, msg: str, /, *args: object) -> object:
        """Write a line."""

    def warning(self, msg: str, /, *args: object) -> object:
        """Write a line that deserves attention."""


@dataclass(frozen=True, slots=True)
class StallPolicy:
    """When a run counts as stalled, and what follows.

    :param after: seconds in which neither status nor progress nor rows moved; ``None`` for never.
    :param fail: end the wait then, instead of a warning.
    """

    after: float | None = STALLED_AFTER
    fail: bool = False


class ProgressLog:
    """Turns looks at a run into log lines.

    :param log: takes the lines.
    :param clock: epoch seconds.
    :param stall: when the run counts as stalled.
    """

    __slots__ = (
        "_clock",
        "_line",
        "_line_at",
        "_log",
        "_moved_at",
        "_rows",
        "_stall",
        "_warned_at",
    )

    def __init__(
        self, log: Log, clock: Callable[[], float], stall: StallPolicy | None = None
    ) -> None:
        self._log = log
        self._clock = clock
        self._stall = stall or StallPolicy()
        self._line: tuple[object, ...] | None = None
        self._line_at = self._moved_at = self._warned_at = 0.0
        self._rows = 0

    def __call__(self, seen: Submission | None) -> None:
        """Take note of one look.

        :raises CdmStalled: when the run has stalled, and that is to end the wait.
        """
        if seen is None:
            return
        now, line = self._clock(), _state(seen)
        if line != self._line:
            self._moved_at = self._warned_at = now
        elif not seen.ended:
            self._check(seen, now)
        if line != self._line or now - self._line_at >= _QUIET_SECONDS:
            since = now - self._line_at if self._line_at else 0.0
            self._log.info("%s", describe(seen, now, self._moved_at, self._speed(seen, since)))
            self._line, self._line_at, self._rows = line, now, _rows(seen)

    def dump(self) -> dict[str, Any] | None:
        """What another process needs to go on, as plain JSON."""
        if self._line is None:
            return None
        return {"state": [*self._line], "moved_at": self._moved_at, "warned_at": self._warned_at}

    def restore(self, dump: dict[str, Any] | None) -> None:
        """Go on where another process left off.

        :param dump: what :meth:`dump` returned there.
        """
        if dump:
            self._line = tuple(dump["state"])
            self._moved_at, self._warned_at = dump["moved_at"], dump["warned_at"]

    def _check(self, seen: Submission, now: float) -> None:
        after, still = self._stall.after, now - self._moved_at
        if after is None or still < after:
            return
        if self._stall.fail:
            raise errors.CdmStalled(
                f"{RunRef.of(seen)} is {seen.status}, but nothing has moved for {still:.0f} s"
                f" (stalled_after={after:g}, fail_when_stalled=True). It was left alone; look at it"
                " in the CDM console, and stop it there if it hangs.",
                seen,
            )
        if now - self._warned_at >= after:
            self._warned_at = now
            self._log.warning(
                "%s is %s, but nothing has moved for %.0f s. It may hang; look at it in the CDM"
                " console. The wait goes on (fail_when_stalled=True would end it).",
                *(RunRef.of(seen), seen.status, still),
            )

    def _speed(self, seen: Submission, seconds: float) -> float | None:
        """Rows a second since the last line, once there are any."""
        moved = _rows(seen) - self._rows
        return moved / seconds if seconds > 0 and moved > 0 else None


def describe(
    seen: Submission,
    now: float,
    moved_at: float | None = None,
    speed: float | None = None,
) -> str:
    """One line about a run: status, progress as far as CDM tells it, and since when.

    :param now: epoch seconds.
    :param moved_at: when something changed last, epoch seconds.
    :param speed: rows a second.
    """
    parts = [f"{RunRef.of(seen)}: {seen.status}"]
    if seen.progress is not None and seen.progress >= 0 and not seen.ended:
        # Some versions count to 1, others to 100; only above 1 it is clear which.
        parts.append(f"{seen.progress:g} %" if seen.progress > 1 else f"progress {seen.progress:g}")
    if seen.ended and seen.counters:
        read, written = seen.counters.get("ROWS_READ", -1), seen.counters.get("ROWS_WRITTEN", -1)
        parts.extend(
            f"{n} rows {verb}" for n, verb in ((read, "read"), (written, "written")) if n >= 0
        )
    elif seen.write_rows:
        parts.append(f"{seen.write_rows} rows written")
    if speed is not None and not seen.ended:
        parts.append(f"{speed:.3g} rows/s")
    if seen.duration_seconds is not None:
        parts.append(f"took {seen.duration_seconds:.1f} s")
    elif seen.creation_date is not None:
        parts.append(f"created {max(0.0, now - seen.creation_date / 1000):.0f} s ago")
    if moved_at is not None and not seen.ended and now > moved_at:
        parts.append(f"last change {now - moved_at:.0f} s ago")
    return ", ".join(parts)


def _state(seen: Submission) -> tuple[object, ...]:
    """What counts as movement. Dates do not: CDM may renew them whenever it is asked."""
    return (seen.status, seen.progress, seen.write_rows, seen.update_rows, seen.delete_rows)


def _rows(seen: Submission) -> int:
    return sum(rows or 0 for rows in (seen.write_rows, seen.update_rows, seen.delete_rows))
