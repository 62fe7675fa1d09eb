"""What a person reads while a run goes on: a line when something changed, else one a minute."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_cdm.client.models import RunRef, Submission

_QUIET_SECONDS = 60.0


class ProgressLog:
    """Turns looks at a run into log lines.

    :param info: writes one line.
    :param clock: epoch seconds.
    """

    def __init__(self, info: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._info = info
        self._clock = clock
        self._shown: tuple[object, ...] | None = None
        self._shown_at = 0.0

    def __call__(self, seen: Submission | None) -> None:
        """Take note of one look."""
        if seen is None:
            return
        now = self._clock()
        state = (seen.status, seen.progress, seen.write_rows)
        if state == self._shown and now - self._shown_at < _QUIET_SECONDS:
            return
        self._shown, self._shown_at = state, now
        self._info(describe(seen, now))


def describe(seen: Submission, now: float) -> str:
    """One line about a run: status, progress as CDM gives it, rows so far, time since it began.

    :param now: epoch seconds.
    """
    parts = [f"{RunRef.of(seen)}: {seen.status}"]
    if seen.progress is not None and seen.progress >= 0 and not seen.ended:
        parts.append(f"progress {seen.progress:g}")
    if seen.ended and seen.counters:
        read, written = seen.counters.get("ROWS_READ", -1), seen.counters.get("ROWS_WRITTEN", -1)
        parts.extend(
            f"{n} rows {verb}" for n, verb in ((read, "read"), (written, "written")) if n >= 0
        )
    elif seen.write_rows:
        parts.append(f"{seen.write_rows} rows written")
    if seen.duration_seconds is not None:
        parts.append(f"took {seen.duration_seconds:.1f} s")
    elif seen.creation_date is not None:
        parts.append(f"created {max(0.0, now - seen.creation_date / 1000):.0f} s ago")
    return ", ".join(parts)
