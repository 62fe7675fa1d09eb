"""What an attempt notes about the end that it brings to its run, for the attempt after it.

Kept apart from the journal's record: a process that is being killed may write late, and must not
overwrite what the next attempt has written by then.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client.jobs.start_record import key_of
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict, verdict_of
from airflow_provider_cdm.tasks.journal import TaskStore, Trail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.jobs.start_record import StartRecord

log = logging.getLogger(__name__)

#: Seconds within which a run that was asked to stop must have ended.
STOP_SECONDS = 120.0
#: Seconds by which an instant of CDM's records may be off after a conversion.
_DATE_TOLERANCE = 2.0
#: Seconds from which on the date of a run is not explained by a start that took effect late.
_LATEST_EFFECT = 75.0
#: What the reason of a run that was stopped says where CDM calls it ``FAILED``.
_KILLED = "KILLED"


@dataclass(frozen=True, slots=True)
class StopNote:
    """How an attempt that followed a run left it.

    :param run: key of the run.
    :param try_number: number of the attempt.
    :param asked_at: when it was about to ask CDM to stop the run, epoch seconds by the server's
        clock; ``None`` if it ended without stopping it.
    """

    run: Mapping[str, Any]
    try_number: int
    asked_at: float | None

    @classmethod
    def of(cls, content: Mapping[str, Any] | None) -> StopNote | None:
        """Return a note from what is stored; ``None`` if that is no note."""
        content = content or {}
        run, number, at = (content.get(name) for name in ("run", "try_number", "asked_at"))
        if not isinstance(run, dict) or not isinstance(number, int):
            return None
        return cls(run, number, at) if at is None or isinstance(at, int | float) else None

    def is_about(self, run: RunRef) -> bool:
        """Return whether the note is about a run."""
        return replace(run, **self.run).is_run(run)


class StopNotes:
    """The note of a task instance about its run: the last one counts.

    Best effort: without a note a stop of ours may not be recognized, and is reported as a failure.

    :param context: context of the running task.
    :param subject: what the journal is about, see :class:`~airflow_provider_cdm.tasks.journal`.
    """

    def __init__(self, context: Context, subject: str) -> None:
        self._store = TaskStore(context, f"stop_of_{subject}")
        self._trail = None if self._store.is_managed else Trail(context, self._store.key)
        self._try_number = context["ti"].try_number

    def write(self, run: RunRef, asked_at: float | None) -> None:
        """Note that this attempt is about to stop a run, or ended without stopping it.

        :param asked_at: time by the server's clock; ``None`` if nothing is stopped.
        """
        content = {"run": key_of(run), "try_number": self._try_number, "asked_at": asked_at}
        try:
            self._store.write(content)
        except Exception as error:
            # Airflow 3 refuses it where the task was cleared, and its answer would fill the log.
            log.debug("How this attempt left %s could not be noted: %s", run, error)
        else:
            if self._trail is not None:
                self._trail.add()

    def read(self) -> StopNote | None:
        """Return the last note, or ``None``."""
        try:
            return StopNote.of(self._store.read())
        except Exception as error:
            log.info("How the last attempt left its run cannot be read: %s", error)
            return None

    def show_own_end(self, run: RunRef) -> bool:
        """Return whether the last attempt was not killed, but left a run alone at its end."""
        note = self.read()
        return note is not None and note.is_about(run) and self._is_own_end(note)

    def _is_own_end(self, note: StopNote) -> bool:
        # The same number: a retry policy of Airflow 3.4 rescheduled this try.
        last = (self._try_number - 1, self._try_number)
        return note.asked_at is None and note.try_number in last

    def show_our_stop(
        self,
        run: Submission,
        record: StartRecord | None,
        *,
        attached_at: float,
        now: float,
        expected: bool,
    ) -> bool:
        """Return whether a run that was taken over while it was active ended by a stop of ours.

        A note proves it, whatever CDM calls the end. A kill may leave none; then the task was
        cleared while it ran, and CDM must show that somebody stopped the run.

        :param run: the run, ended.
        :param record: what the journal says about its start.
        :param attached_at: when it was taken over, epoch seconds by the server's clock.
        :param now: the present time by that clock.
        :param expected: whether the task was cleared before, so that a kill stops the run.
        """
        if verdict_of(run.status) is not Verdict.FAILURE or run.status == "FAILURE_ON_SUBMIT":
            return False
        ended_at, note = _ended_at(run, record, now), self.read()
        if note is not None and note.is_about(RunRef.of(run)):
            if note.asked_at is not None:
                return -_DATE_TOLERANCE <= ended_at - note.asked_at < STOP_SECONDS
            if self._is_own_end(note):
                return False
        stopped = run.status == "STOPPED" or _KILLED in (run.error_summary or "")
        return expected and stopped and ended_at < attached_at + STOP_SECONDS


def _ended_at(run: Submission, record: StartRecord | None, now: float) -> float:
    """Return when a run ended, epoch seconds by the server's clock.

    CDM's records may be by another clock than the server's answers. How far they are apart shows in
    the date of the run, which began when the start was sent.
    """
    if run.last_update_date is None:
        return now
    ahead = 0.0
    if record is not None and record.sent_at and not record.foreign and run.creation_date:
        ahead = run.creation_date / 1000 - record.sent_at
    return run.last_update_date / 1000 - (ahead if abs(ahead) > _LATEST_EFFECT else 0.0)
