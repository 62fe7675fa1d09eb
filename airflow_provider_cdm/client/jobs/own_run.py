"""Which run in the history of a job our start created; decides without any I/O.

The evidence is the journal's record of the start: the newest run before it (the *baseline*), and
when the intent was written, by the server's clock. The rules:

* A run is ours if it comes after the baseline and its creation date is between the intent and the
  end of the settling time.
* Several such runs are doubtful: one of them at most is ours.
* A run that was created long before the intent is never ours, even if no baseline shows it:
  the history may have been out of date when the baseline was read.
* A run whose number and dates contradict that is doubtful: the clock of CDM's records may differ
  from that of its answers, and numbers may have begun again. Doubt is no proof that nothing was
  started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.runs import History
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRecord, StartRequest
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.client.text import format_instant

#: Runs from which on a history without a total may have been cut off.
_HISTORY_LIMIT = 10


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a history says about a start.

    :param run: the run that the start created, if it is shown.
    :param doubt: why our run may be one that is shown, or is no longer shown; ``None`` if none may.
    """

    run: Submission | None = None
    doubt: str | None = None


class _Kind(Enum):
    OURS = "ours"
    DOUBTFUL = "doubtful"
    OTHER = "other"


def find_own_run(
    request: StartRequest,
    record: StartRecord,
    history: History,
    *,
    policy: StartPolicy,
    latest: float,
) -> Evidence:
    """Find the run that our start created.

    :param request: what was started.
    :param record: what the journal says about the start.
    :param history: runs of the job.
    :param policy: tolerances for dates.
    :param latest: time after which a run was created too late to be ours, in epoch seconds by the
        server's clock.
    """
    window = _Window(record, policy, latest, request.run(record.baseline))
    shown = [run for run in reversed(history.submissions) if RunRef.of(run).known]
    kinds = [(window.kind_of(run), run) for run in shown]
    ours = [run for kind, run in kinds if kind is _Kind.OURS]
    doubtful = [run for kind, run in kinds if kind is _Kind.DOUBTFUL]
    if ours:
        candidates = [*filter(window.is_early, doubtful), *ours]
        if len(candidates) == 1:
            return Evidence(ours[0])
        names = " and ".join(RunRef.of(run).number for run in candidates)
        return Evidence(doubt=f"any of {names} may be its run, and the others somebody else's")
    if doubtful:
        return Evidence(
            doubt=f"{RunRef.of(doubtful[0]).number},"
            f" of {format_instant(doubtful[0].creation_date)}, may be its run or somebody else's"
        )
    if window.may_be_cut_off(history, shown):
        return Evidence(doubt="the history of the job does not reach back to the start")
    return Evidence()


def with_number(
    request: StartRequest, record: StartRecord, history: History, run: Submission
) -> Submission:
    """Return a run as the history shows it, with its number, or unchanged if it is not there.

    :param run: run from the answer to a start that gave a creation date only. Two runs may have the
        same date; the first one after the baseline is ours.
    """
    baseline = request.run(record.baseline)
    matches = [
        other
        for other in history.submissions
        if other.creation_date == run.creation_date
        and not other.is_execute_auto
        and (not baseline.known or baseline.is_before(other))
    ]
    return matches[-1] if matches else run


def start_uncertain(
    request: StartRequest, reason: str, cause: errors.CdmError | None = None
) -> errors.CdmStartUncertain:
    """Return the error for a start of which nobody can say whether it took effect.

    :param reason: why not, to complete a sentence.
    :param cause: error of the last call, if one failed.
    """
    last_error = f" The last error: {cause}" if cause else ""
    error = errors.CdmStartUncertain(
        f"It is not known whether job {request.job_name!r} was started: {reason}.{last_error} A"
        " retry of this task searches for the run before it starts anything. Check the runs of the"
        f" job in the CDM console (cluster {request.cluster_id}). Clearing the task starts the job"
        " again once it has no active run.",
        effect_unknown=True,
    )
    error.__cause__ = cause
    return error


@dataclass(frozen=True, slots=True)
class _Window:
    """The runs among which ours must be, by number and by date."""

    record: StartRecord
    policy: StartPolicy
    latest: float
    baseline: RunRef

    @property
    def earliest(self) -> float:
        """Creation date from which on a run is not older than the intent, epoch milliseconds."""
        return (self.record.intent_at - self.policy.date_tolerance) * 1000

    def kind_of(self, run: Submission) -> _Kind:
        """Say whether a run is ours."""
        if run.is_execute_auto or (self.baseline.known and self._is_baseline_or_before(run)):
            return _Kind.OTHER
        ordered = not self.baseline.known or self.baseline.is_before(run)
        if run.creation_date is None:
            return _Kind.OURS if ordered and self.record.baseline_known else _Kind.DOUBTFUL
        if self.earliest <= run.creation_date <= (self.latest + self.policy.date_tolerance) * 1000:
            return _Kind.OURS if ordered else _Kind.DOUBTFUL
        return _Kind.DOUBTFUL if self._may_be_misdated(run.creation_date) else _Kind.OTHER

    def is_early(self, run: Submission) -> bool:
        """Return whether a run comes after the baseline, but before the start by its date.

        If the clock of CDM's records is slow, it is our run, and a later one somebody else's.
        """
        created = run.creation_date
        return self.record.baseline_known and created is not None and created < self.earliest

    def may_be_cut_off(self, history: History, shown: Sequence[Submission]) -> bool:
        """Return whether the history is cut off and its oldest run is newer than our start.

        :param shown: the runs of the history, oldest first.
        """
        cut_off = len(shown) >= _HISTORY_LIMIT if history.total is None else not history.complete
        if not cut_off or any(
            map(self._is_baseline_or_before, shown if self.baseline.known else ())
        ):
            return False
        oldest = shown[0].creation_date if shown else None
        return (oldest or self.earliest) >= self.earliest

    def _is_baseline_or_before(self, run: Submission) -> bool:
        return not (self.baseline.is_before(run) or self.baseline.is_unordered(run))

    def _may_be_misdated(self, created: float) -> bool:
        """Return whether a run outside of the window may be ours with a wrong date.

        Every run is suspect as far as CDM's clocks can differ, unless the baseline shows that it is
        older. Without a baseline that includes earlier runs: better doubt than a second run.
        """
        return created >= self.earliest - self.policy.max_record_skew * 1000
