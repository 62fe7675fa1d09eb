"""What the outcome of its tables means for a run: its texts, its counters and its errors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict, verdict_of
from airflow_provider_cdm.client.text import format_duration
from airflow_provider_cdm.client.whole_database.look_alikes import ClassifiedJob, Standing
from airflow_provider_cdm.client.whole_database.tables import Table, TableReport, join_names

log = logging.getLogger(__name__)

#: Maximum number of doubtful jobs in one line of text.
_DOUBTS_SHOWN = 3


def log_other_jobs(run: Submission, classified: Sequence[ClassifiedJob]) -> None:
    """Log which jobs are called like sub-jobs and do not count, and why."""
    others = [
        f"{each.job.name!r} ({each.reason})"
        for each in classified
        if each.standing is Standing.OTHER
    ]
    if others:
        log.info(
            "%s: %d jobs are called like sub-jobs, but are none, and do not count: %s",
            *(RunRef.of(run).title, len(others), join_names(others)),
        )


def summarize(run: Submission, report: TableReport) -> Submission:
    """Log the outcome of the tables, and return the run with it."""
    name = RunRef.of(run).title
    _log_stale(run, report)
    if report.missing:
        log.warning(
            "%s: the definition lists %d tables for which CDM shows no sub-job of this run, so they"
            " were probably not moved: %s. Check that they exist, and how they are written.",
            *(name, len(report.missing), join_names(report.missing)),
        )
    if doubts := report.doubts():
        log.warning("%s: %s", name, _describe_doubts(run, doubts))
    if not report.tables:
        log.warning(
            "%s is a run of a whole-database job, but CDM shows none of its tables, so only the"
            " status of the run is known. Set min_rows_written to check that it moved rows.",
            name,
        )
    else:
        log.info("%s", report.progress_line(name))
    counters = {name: count for name, count in run.counters.items() if count >= 0}
    run = replace(
        run,
        tables=report.to_dict(),
        counters={**run.counters, **report.totals(), **counters},
    )
    if failure_summary := report.failure_summary():
        own = run.error_summary or f"CDM reports {run.status}"
        text = f"{own.rstrip('.')}; {failure_summary}."
        doubts = [each for each in doubts if verdict_of(each.status) is not Verdict.SUCCESS]
        if doubts:
            text = f"{text} {_describe_doubts(run, doubts)}"
        run = replace(run, error_summary=text)
    return run


def _log_stale(run: Submission, report: TableReport) -> None:
    stale = [name for name in report.stale if name not in report.older]
    if stale:
        log.warning(
            "%s: %d sub-jobs are from earlier runs: %s. Their tables are no longer moved, or the"
            " run ended before it moved them.",
            *(RunRef.of(run).title, len(stale), join_names(stale)),
        )
    if report.older:
        names = [f"{run.job_name}_{name}" for name in report.older]
        log.warning(
            "%s: %d jobs are called like sub-jobs, but were there before the run, which makes its"
            " sub-jobs anew. So what they did since then does not count: %s.",
            *(RunRef.of(run).title, len(names), join_names(names)),
        )


def _describe_doubts(run: Submission, doubts: Sequence[Table]) -> str:
    """Return what jobs were taken for, and why that is not certain."""
    shown = [
        f"job {run.job_name + '_' + table.name!r} as table {table.name} ({table.doubt})"
        for table in doubts[:_DOUBTS_SHOWN]
    ]
    hidden = len(doubts) - len(shown)
    more = f" and {hidden} more" if hidden else ""
    return (
        f"Not certainly sub-jobs, but counted, so that no failed table goes unnoticed:"
        f" {', '.join(shown)}{more}. If they are other jobs, rename them."
    )


def superseded(run: Submission, later: Submission) -> Submission:
    """Return a failed run; of any other, the outcome of the tables must be known."""
    reason = (
        f"The outcome of the tables of {RunRef.of(run)} is unknown, because"
        f" {RunRef.of(later).number} has replaced its sub-jobs."
    )
    if run.failed:
        log.warning("%s", reason)
        return run
    raise errors.CdmOutcomeUnknown(
        f"{reason} CDM reports {run.status} for the run itself. Check the target (cluster"
        f" {run.cluster_id}).",
        run,
    )


def tables_unavailable(
    run: Submission, error: errors.CdmError, lasted: float
) -> errors.CdmUnavailable:
    """Return the error for a run that succeeded, while its tables could not be listed."""
    return errors.CdmUnavailable(
        f"{error} CDM reports {run.status} for {RunRef.of(run)}, but its tables could not be listed"
        f" for {format_duration(lasted)}, and some may have failed. A retry of this task tries"
        " again, and starts nothing before it has succeeded.",
        http_status=error.http_status,
        code=error.code,
        request_id=error.request_id,
        retry_after=error.retry_after,
    )
