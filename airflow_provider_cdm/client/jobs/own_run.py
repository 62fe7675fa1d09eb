"""Which run in the history of a job our start created; decides without any I/O.

The evidence is the journal's record of the start: the newest run before it (the *baseline*), and
when the intent was written, by the server's clock.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.runs import History
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRecord, StartRequest
from airflow_provider_cdm.client.submission import RunRef, Submission

log = logging.getLogger(__name__)

#: Runs from which on a history without a total may have been cut off.
_HISTORY_LIMIT = 10


def find_own_run(
    request: StartRequest,
    record: StartRecord,
    history: History,
    *,
    policy: StartPolicy,
    latest: float,
    same_generation: bool,
) -> Submission | None:
    """Find the run that our start created: the first one after the baseline.

    :param request: what was started.
    :param record: what the journal says about the start.
    :param history: runs of the job.
    :param policy: tolerances for dates.
    :param latest: time after which a run was created too late to be ours, in epoch seconds by the
        server's clock.
    :param same_generation: whether the start belongs to the generation of ``request``. If not, the
        task was cleared and must start again, so unclear evidence counts as no run.
    :returns: the run, or ``None`` if the history does not show one.
    :raises CdmStartUncertain: when a run that is shown, or that is no longer shown, may be ours.
    """
    baseline = request.run(record.baseline)
    earliest = (record.intent_at - policy.date_tolerance) * 1000
    shown = [run for run in reversed(history.submissions) if RunRef.of(run).known]
    newer = [run for run in shown if not baseline.known or baseline.is_before(run)]
    if same_generation and len(newer) == len(shown) and _starts_too_late(history, newer, earliest):
        raise start_uncertain(request, "the history of the job does not reach back to the start")
    candidates = _created_until(newer, (latest + policy.date_tolerance) * 1000)
    timely = [
        run
        for run in candidates
        if (record.baseline_known if run.creation_date is None else run.creation_date >= earliest)
    ]
    if not record.baseline_known and not timely:
        if same_generation:
            _ensure_none_is_close(request, candidates, earliest - policy.clock_tolerance * 1000)
        return None
    return _first(timely or candidates)


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
        f"It is not known whether job {request.job_name!r} in cluster {request.cluster_id} was"
        f" started: {reason}.{last_error} A retry of this task searches for the run before it"
        " starts anything. Check the runs of the job in the CDM console. Clearing the task starts"
        " the job again once it has no active run.",
        effect_unknown=True,
    )
    error.__cause__ = cause
    return error


def _starts_too_late(history: History, newer: Sequence[Submission], earliest: float) -> bool:
    """Whether the history is cut off and its oldest run is newer than our start.

    :param newer: all runs that the history shows, oldest first; none is older than the baseline.
    """
    cut_off = len(newer) >= _HISTORY_LIMIT if history.total is None else not history.complete
    oldest = newer[0].creation_date if newer else None
    return cut_off and (oldest or earliest) >= earliest


def _created_until(runs: Sequence[Submission], date: float) -> list[Submission]:
    """Return the runs that were not created later, and not started by CDM's scheduler."""
    return [
        run
        for run in runs
        if not run.is_execute_auto and (run.creation_date is None or run.creation_date <= date)
    ]


def _ensure_none_is_close(
    request: StartRequest, candidates: Sequence[Submission], close_from: float
) -> None:
    close = [
        run for run in candidates if run.creation_date is None or run.creation_date >= close_from
    ]
    if close:
        raise start_uncertain(
            request,
            f"{RunRef.of(close[0])} was created at about the time of the start, and may be its run"
            " or somebody else's",
        )


def _first(candidates: Sequence[Submission]) -> Submission | None:
    if len(candidates) > 1:
        names = ", ".join(str(RunRef.of(run)) for run in candidates)
        log.warning("Several runs began after the start: %s. The first one is taken.", names)
    return candidates[0] if candidates else None
