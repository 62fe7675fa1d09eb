"""Log lines about a run: one for each change, one a minute without changes, one for the end.

They begin with the number of the run, and end before the hundredth character: the task names job
and cluster once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.arguments import STALLED_AFTER
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.client.text import LINE_LIMIT, format_duration

#: Characters of a status that a line shows; documented ones are shorter.
_STATUS_LIMIT = 30
#: Seconds between two lines while nothing changes.
_QUIET_SECONDS = 60.0
#: Why a run may stand still.
_HANGS = "It may hang."
_FULL = (
    "It has moved no rows, so the cluster may be full: surplus runs wait, as PENDING or as RUNNING"
    " without rows, until others have ended. How many run at a time is the cluster's setting"
    " Maximum Concurrent Extractors."
)
#: Seconds by which what two answers say of the server's time may differ.
_CLOCK_SECONDS = 5.0


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

    Durations are by a clock that nobody can set. Time in which polls did not show the run is no
    time without a change.

    :param log: logger for the lines.
    :param uptime: function that returns seconds by the monotonic clock.
    :param stall: when the run counts as stalled.
    :param clock: function that returns epoch seconds by the server's clock, which dates the run and
        is the same for all processes; by default ``uptime``.
    :param foreign: whether the task did not start the run, which each line then says.
    :param on_stall: called once for each stall, with the error that ``fail_when_stalled`` raises;
        what it raises itself ends the wait.
    """

    __slots__ = (
        "_changed_at",
        "_clock",
        "_foreign",
        "_line",
        "_line_at",
        "_log",
        "_missed_at",
        "_on_stall",
        "_reported",
        "_restored",
        "_rows",
        "_stall",
        "_uptime",
        "_warned_at",
        "notice_delay",
    )

    def __init__(
        self,
        log: Log,
        uptime: Callable[[], float],
        stall: StallPolicy | None = None,
        clock: Callable[[], float] | None = None,
        *,
        foreign: bool = False,
        on_stall: Callable[[errors.CdmStalled], None] = lambda _: None,
    ) -> None:
        self._log = log
        self._on_stall = on_stall
        #: Whether ``on_stall`` has been called since the last change.
        self._reported = False
        self._foreign = foreign
        self._uptime = uptime
        self._clock = clock or uptime
        self._stall = stall or StallPolicy()
        self._line: tuple[object, ...] | None = None
        self._line_at: float | None = None
        self._changed_at = self._warned_at = 0.0
        #: When polls ceased to show the run.
        self._missed_at: float | None = None
        #: What :meth:`dump` returns as long as nothing has changed.
        self._restored: dict[str, Any] | None = None
        self._rows = 0
        #: Seconds from the end of the run to the poll that showed it; ``None`` if this log did not
        #: see the run active before.
        self.notice_delay: float | None = None

    def __call__(self, seen: Submission | None) -> None:
        """Log the result of a poll, if there is anything to say.

        :param seen: run as the poll showed it; ``None`` if it did not show the run.
        :raises CdmStalled: when the run has stalled and the policy is to fail.
        """
        now = self._uptime()
        self._resume(now)
        if seen is None:
            self._missed_at = now if self._missed_at is None else self._missed_at
            return
        if self._missed_at is not None:
            missed, self._missed_at = now - self._missed_at, None
            self._changed_at += missed
            self._warned_at += missed
        if seen.ended and self._line is not None and seen.last_update_date is not None:
            self.notice_delay = self._clock() - seen.last_update_date / 1000
        line = _state(seen)
        if line != self._line:
            self._changed_at = self._warned_at = now
            self._reported = False
        elif not seen.ended:
            self._check(seen, now)
        since = None if self._line_at is None else now - self._line_at
        # Whoever judges the run logs its end, once for all processes that saw it.
        if not seen.ended and (line != self._line or since is None or since >= _QUIET_SECONDS):
            unchanged, speed = now - self._changed_at, self._speed(seen, since or 0.0)
            text = progress_line(seen, self._clock(), unchanged, speed, foreign=self._foreign)
            self._log.info("%s", text)
            self._line_at, self._rows = now, _rows(seen)
        self._line = line

    def record_change(self) -> None:
        """Record a change that the run itself does not show, such as one of its tables."""
        self._changed_at = self._warned_at = self._uptime()
        self._reported = False

    def dump(self) -> dict[str, Any] | None:
        """Return what another process needs to continue, as plain JSON."""
        if self._line is None:
            return self._restored
        ahead = self._clock() - self._uptime()
        dump: dict[str, Any] = {"state": [*self._line], "reported": self._reported}
        dump |= {
            name: None if at is None else round(at + ahead)
            for name, at in (
                ("moved_at", self._changed_at),
                ("warned_at", self._warned_at),
                ("missed_at", self._missed_at),
            )
        }
        # The server tells whole seconds: nothing is stored anew because of a rounded one.
        if self._restored is None or not _is_about(dump, self._restored):
            self._restored = dump
        return self._restored

    def restore(self, dump: dict[str, Any] | None) -> None:
        """Continue where another process stopped.

        :param dump: what :meth:`dump` returned there.
        """
        if dump:
            self._line, self._restored = None, dump

    def _resume(self, now: float) -> None:
        """Take over what another process left, once an answer has told the server's time."""
        if self._line is not None or self._restored is None:
            return
        dump, ago = self._restored, self._clock() - now
        self._line = tuple(dump["state"])
        self._reported = dump.get("reported", False)
        # Nothing lies in the future.
        self._changed_at = min(dump["moved_at"] - ago, now)
        self._warned_at = min(dump["warned_at"] - ago, now)
        missed_at = dump.get("missed_at")
        self._missed_at = None if missed_at is None else min(missed_at - ago, now)

    def _check(self, seen: Submission, now: float) -> None:
        after, unchanged = self._stall.after, now - self._changed_at
        if after is None or unchanged < after:
            return
        reason = _FULL if _may_wait_for_room(seen) else _HANGS
        error = errors.CdmStalled(
            f"{RunRef.of(seen)} is {seen.status}, but nothing has changed for {unchanged:.0f} s"
            f" (stalled_after={after:g}). {reason} The run was not stopped; check it in the CDM"
            f" console (cluster {seen.cluster_id}), and stop it there if it hangs.",
            seen,
        )
        if not self._stall.fail and now - self._warned_at >= after:
            self._warned_at = now
            self._log.warning(
                "%s is %s, but nothing has changed for %.0f s. %s Check it in the CDM console. The"
                " wait continues (fail_when_stalled=True would end it).",
                *(title_of(seen, foreign=self._foreign), seen.status, unchanged, reason),
            )
        if not self._reported:
            self._reported = True
            self._on_stall(error)
        if self._stall.fail:
            raise error

    def _speed(self, seen: Submission, seconds: float) -> float | None:
        """Return the rows a second since the last line, or ``None`` if there were no new rows."""
        rows = _rows(seen) - self._rows
        return rows / seconds if seconds > 0 and rows > 0 else None


def progress_line(
    seen: Submission,
    now: float,
    unchanged: float = 0.0,
    speed: float | None = None,
    *,
    foreign: bool = False,
) -> str:
    """Return one line about an active run: its status, its progress as far as CDM reports it, and
    its age.

    :param now: current time, epoch seconds.
    :param unchanged: seconds since the last change.
    :param speed: rows a second.
    :param foreign: whether the task did not start the run.
    """
    parts = [f"{title_of(seen, foreign=foreign)}: {seen.status[:_STATUS_LIMIT]}"]
    if seen.progress is not None and seen.progress >= 0:
        # Some versions count up to 1, others up to 100; only a value above 1 shows which.
        parts.append(f"{seen.progress:g} %" if seen.progress > 1 else f"progress {seen.progress:g}")
    if (written := _count(seen.write_rows)) > 0:
        parts.append(f"{written:,} rows written")
    if speed is not None:
        parts.append(f"{speed:.3g} rows/s")
    if unchanged > 0:
        parts.append(f"last change {format_duration(unchanged)} ago")
    if seen.creation_date is not None:
        age = max(0.0, now - seen.creation_date / 1000)
        parts.append(f"created {format_duration(age)} ago")
    return _join(parts)


def outcome_line(run: Submission, *, foreign: bool = False) -> str:
    """Return one line about a run that has ended: its status, the rows, and how long it took.

    :param foreign: whether the task did not start the run.
    """
    parts = [f"{title_of(run, foreign=foreign)}: {run.status[:_STATUS_LIMIT]}"]
    if run.tables and (lost := run.tables["total"] - run.tables["succeeded"]):
        parts.append(f"{lost} of {run.tables['total']} tables not moved")
    written = run.counters.get("ROWS_WRITTEN", run.write_rows)
    counts = ((run.counters.get("ROWS_READ"), "read"), (written, "written"))
    known = [f"{count:,} rows {verb}" for count, verb in counts if count is not None and count >= 0]
    parts += known or ["rows unknown"]
    if run.duration_seconds is not None:
        seconds = run.duration_seconds
        took = f"{seconds:.1f} s" if seconds < 60 else format_duration(seconds)
        parts.append(f"took {took}")
    return _join(parts)


def title_of(run: Submission, *, foreign: bool) -> str:
    """Return what each line about a run begins with.

    :param foreign: whether the task did not start the run.
    """
    return RunRef.of(run).title + (" (not of this task)" if foreign else "")


def _join(parts: list[str]) -> str:
    """Return as many parts as fit in one line; those in front matter more."""
    while len(parts) > 1 and len(", ".join(parts)) > LINE_LIMIT:
        parts.pop()
    return ", ".join(parts)[:LINE_LIMIT]


def _state(seen: Submission) -> tuple[object, ...]:
    """Return what counts as a change. Dates do not: CDM may renew them for every status call."""
    return (seen.status, seen.progress, seen.write_rows, seen.update_rows, seen.delete_rows)


def _is_about(dump: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two dumps describe the same state, apart from the seconds of a clock."""

    def differ(name: str) -> bool:
        a, b = dump[name], other.get(name)
        return (a is None) != (b is None) or abs((a or 0) - (b or 0)) > _CLOCK_SECONDS

    same = dump["state"] == list(other["state"]) and dump["reported"] == other.get("reported")
    return same and not any(map(differ, ("moved_at", "warned_at", "missed_at")))


def _may_wait_for_room(seen: Submission) -> bool:
    """Return whether a run looks like one that waits in a full cluster.

    CDM shows such runs as ``PENDING``, or as ``RUNNING`` without rows.
    """
    status = seen.status.upper()
    if status == "RUNNING":
        # A job of files has no rows, but its progress may be above 1 %.
        rows = _rows(seen) + _count(seen.counters.get("ROWS_READ"))
        return rows == 0 and (seen.progress or 0) <= 1
    return status in ("PENDING", "BOOTING")


def _rows(seen: Submission) -> int:
    return sum(map(_count, (seen.write_rows, seen.update_rows, seen.delete_rows)))


def _count(rows: int | None) -> int:
    """Return a number of rows; CDM sends -1 for one that does not apply."""
    return max(0, rows or 0)
