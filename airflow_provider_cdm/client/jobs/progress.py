"""Log lines about an active run: one for each change, and one a minute without changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.arguments import STALLED_AFTER
from airflow_provider_cdm.client.submission import RunRef, Submission

#: Seconds between two lines while nothing changes.
_QUIET_SECONDS = 60.0


class Log(Protocol):
    """The methods of a logger that are used here."""

    def info(self, msg: str, /, *args: object) -> object:
        """Log a message."""

    def warning(self, msg: str, /, *args: object) -> object:
        """Log a warning."""


@dataclass(frozen=True, slots=True)
class StallPolicy:
    """When a run counts as stalled, and what happens then.

    :param after: seconds without a change of status, progress or rows; ``None`` for never.
    :param fail: whether to end the wait instead of logging a warning.
    """

    after: float | None = STALLED_AFTER
    fail: bool = False


class ProgressLog:
    """Logs what polls of a run show.

    :param log: logger for the lines.
    :param clock: function that returns epoch seconds.
    :param stall: when the run counts as stalled.
    """

    __slots__ = (
        "_changed_at",
        "_clock",
        "_line",
        "_line_at",
        "_log",
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
        self._line_at = self._changed_at = self._warned_at = 0.0
        self._rows = 0

    def __call__(self, seen: Submission | None) -> None:
        """Log the result of a poll, if there is anything to say.

        :param seen: run as the poll showed it; ``None`` if it did not show the run.
        :raises CdmStalled: when the run has stalled and the policy is to fail.
        """
        if seen is None:
            return
        now, line = self._clock(), _state(seen)
        if line != self._line:
            self._changed_at = self._warned_at = now
        elif not seen.ended:
            self._check(seen, now)
        if line != self._line or now - self._line_at >= _QUIET_SECONDS:
            since = now - self._line_at if self._line_at else 0.0
            self._log.info("%s", describe(seen, now, self._changed_at, self._speed(seen, since)))
            self._line, self._line_at, self._rows = line, now, _rows(seen)

    def dump(self) -> dict[str, Any] | None:
        """Return what another process needs to continue, as plain JSON."""
        if self._line is None:
            return None
        return {"state": [*self._line], "moved_at": self._changed_at, "warned_at": self._warned_at}

    def restore(self, dump: dict[str, Any] | None) -> None:
        """Continue where another process stopped.

        :param dump: what :meth:`dump` returned there.
        """
        if dump:
            self._line = tuple(dump["state"])
            self._changed_at, self._warned_at = dump["moved_at"], dump["warned_at"]

    def _check(self, seen: Submission, now: float) -> None:
        after, unchanged = self._stall.after, now - self._changed_at
        if after is None or unchanged < after:
            return
        if self._stall.fail:
            raise errors.CdmStalled(
                f"{RunRef.of(seen)} is {seen.status}, but nothing has changed for {unchanged:.0f} s"
                f" (stalled_after={after:g}, fail_when_stalled=True). The run was not stopped;"
                " check it in the CDM console, and stop it there if it hangs.",
                seen,
            )
        if now - self._warned_at >= after:
            self._warned_at = now
            self._log.warning(
                "%s is %s, but nothing has changed for %.0f s. It may hang; check it in the CDM"
                " console. The wait continues (fail_when_stalled=True would end it).",
                *(RunRef.of(seen), seen.status, unchanged),
            )

    def _speed(self, seen: Submission, seconds: float) -> float | None:
        """Return the rows a second since the last line, or ``None`` if there were no new rows."""
        rows = _rows(seen) - self._rows
        return rows / seconds if seconds > 0 and rows > 0 else None


def describe(
    seen: Submission,
    now: float,
    changed_at: float | None = None,
    speed: float | None = None,
) -> str:
    """Return one line about a run: its status, its progress as far as CDM reports it, and its age.

    :param now: current time, epoch seconds.
    :param changed_at: time of the last change, epoch seconds.
    :param speed: rows a second.
    """
    parts = [f"{RunRef.of(seen)}: {seen.status}"]
    if seen.progress is not None and seen.progress >= 0 and not seen.ended:
        # Some versions count up to 1, others up to 100; only a value above 1 shows which.
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
    if changed_at is not None and not seen.ended and now > changed_at:
        parts.append(f"last change {now - changed_at:.0f} s ago")
    return ", ".join(parts)


def _state(seen: Submission) -> tuple[object, ...]:
    """Return what counts as a change. Dates do not: CDM may renew them for every status call."""
    return (seen.status, seen.progress, seen.write_rows, seen.update_rows, seen.delete_rows)


def _rows(seen: Submission) -> int:
    return sum(rows or 0 for rows in (seen.write_rows, seen.update_rows, seen.delete_rows))
