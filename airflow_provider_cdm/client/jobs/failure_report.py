"""What a person reads when a run has failed: enough to know what to do, without the console."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB, inputs_of
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict
from airflow_provider_cdm.client.whole_database.tables import failure_lines

#: Lines of CDM's details that are shown; the rest of a stack trace helps few.
_DETAIL_LINES = 15
#: Inputs of a job that tell a place, by the end of their names.
_PLACES = (
    *("bucketName", "database", "schemaName", "tableName", "table", "inputDirectory"),
    *("outputDirectory", "streamName", "topicsName", "index", "collectionName"),
)
_PLACE_LIMIT = 120


def ensure_succeeded(
    run: Submission, definition: Mapping[str, Any] | None = None, address: str | None = None
) -> Submission:
    """Return an ended run that ended well.

    :param definition: definition of its job, if it is at hand.
    :param address: where a person can look at the run.
    :raises CdmSubmissionFailed: for any other run, with all that helps to understand it.
    """
    if run.verdict is Verdict.SUCCESS:
        return run
    raise errors.CdmSubmissionFailed(_report(run, definition, address), run)


def _report(run: Submission, definition: Mapping[str, Any] | None, address: str | None) -> str:
    lines = [f"{RunRef.of(run)} ended {run.status}: {run.error_summary or 'CDM gives no reason.'}"]
    if definition is not None:
        lines += [f"  from: {_side(definition, 'from')}", f"  to: {_side(definition, 'to')}"]
    lines += [f"  when: {_times(run)}", f"  rows: {_rows(run)}"]
    lines += failure_lines(run)
    if address:
        lines.append(f"  look at it: {address}")
    details = (run.error_details or "").strip().splitlines()
    if details:
        left = len(details) - _DETAIL_LINES
        lines += ["Details:", *details[:_DETAIL_LINES]]
        lines += [f"... {left} more lines in the CDM console"] if left > 0 else []
    return "\n".join(lines)


def read_definition(api: CdmApi, run: Submission) -> Flow[dict[str, Any] | None]:
    """Read the definition of a run's job; ``None`` when that is not possible now."""
    try:
        return (yield from api.find(JOB, run.cluster_id, run.job_name))
    except errors.CdmError:
        return None


def _side(definition: Mapping[str, Any], side: str) -> str:
    """One end of a job: its link, and the place behind it as far as the usual inputs tell."""
    inputs = inputs_of(definition, f"{side}-config-values")
    places = (
        f"{name.rpartition('.')[2]} {value[:_PLACE_LIMIT]!r}"
        for name, value in inputs.items()
        if value and name.rpartition(".")[2] in _PLACES
    )
    link = f"link {str(definition.get(f'{side}-link-name'))!r} ({definition.get(f'{side}-connector-name')})"
    return ", ".join((link, *places))


def _times(run: Submission) -> str:
    took = f", after {run.duration_seconds:.0f} s" if run.duration_seconds is not None else ""
    return f"created {_instant(run.creation_date)}, ended {_instant(run.last_update_date)}{took}"


def _instant(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "at an unknown time"
    try:
        return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"at {milliseconds} ms"


def _rows(run: Submission) -> str:
    """CDM sends counters only for runs that succeed; while one runs, it tells what it wrote."""
    so_far = {
        "written": run.write_rows,
        "updated": run.update_rows,
        "deleted": run.delete_rows,
        "read": run.counters.get("ROWS_READ"),
    }
    known = [f"{count:,} {verb}" for verb, count in so_far.items() if count is not None]
    return (", ".join(known) + " when it ended") if known else "CDM does not tell; check the target"
