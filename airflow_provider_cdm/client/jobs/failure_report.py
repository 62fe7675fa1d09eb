"""The report of a failed run: enough to know what to do without opening the console."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB, inputs_of
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict
from airflow_provider_cdm.client.text import one_line
from airflow_provider_cdm.client.whole_database.tables import failure_lines

#: Lines of CDM's details to show; the rest of a stack trace rarely helps.
_DETAIL_LINES = 15
#: Last parts of the names of inputs that say where a job reads or writes.
_LOCATION_INPUTS = (
    *("bucketName", "database", "schemaName", "tableName", "table", "inputDirectory"),
    *("outputDirectory", "streamName", "topicsName", "index", "collectionName"),
)
#: Characters to show of the reason.
_LINE_LIMIT = 2_000
#: Characters to show of the value of such an input.
_LOCATION_LIMIT = 120


def ensure_succeeded(
    run: Submission, definition: Mapping[str, Any] | None = None, address: str | None = None
) -> Submission:
    """Return the run if it succeeded.

    :param definition: definition of its job, if it is known.
    :param address: URL at which a person can see the run.
    :raises CdmSubmissionFailed: for any other run, with a report of the failure.
    """
    if run.verdict is Verdict.SUCCESS:
        return run
    raise errors.CdmSubmissionFailed(_report(run, definition, address), run)


def _report(run: Submission, definition: Mapping[str, Any] | None, address: str | None) -> str:
    reason = one_line(run.error_summary or "", _LINE_LIMIT) or "CDM gave no reason."
    lines = [f"{RunRef.of(run)} ended {run.status}: {reason}"]
    if definition is not None:
        lines += [f"  from: {_side(definition, 'from')}", f"  to: {_side(definition, 'to')}"]
    lines += [f"  when: {_times(run)}", f"  rows: {_rows(run)}"]
    lines += failure_lines(run)
    if address:
        lines.append(f"  look at it: {address}")
    details = (run.error_details or "").strip().splitlines()
    if details:
        hidden = len(details) - _DETAIL_LINES
        # Marked, so that no line looks like one that Airflow or this package has logged.
        lines += ["Details:", *(f"  | {line}" for line in details[:_DETAIL_LINES])]
        lines += [f"... {hidden} more lines in the CDM console"] if hidden > 0 else []
    return "\n".join(lines)


def read_definition(api: CdmApi, run: Submission) -> Flow[dict[str, Any] | None]:
    """Read the definition of a run's job; return ``None`` if that fails."""
    try:
        return (yield from api.find(JOB, run.cluster_id, run.job_name))
    except errors.CdmError:
        return None


def _side(definition: Mapping[str, Any], side: str) -> str:
    """Describe the source or target of a job: its link, and the usual inputs for a location."""
    inputs = inputs_of(definition, f"{side}-config-values")
    locations = (
        f"{name.rpartition('.')[2]} {value[:_LOCATION_LIMIT]!r}"
        for name, value in inputs.items()
        if value and name.rpartition(".")[2] in _LOCATION_INPUTS
    )
    link = str(definition.get(f"{side}-link-name"))
    connector = definition.get(f"{side}-connector-name")
    return ", ".join((f"link {link!r} ({connector})", *locations))


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
    """Describe the rows moved; CDM sends counters only for runs that succeed, else rows written."""
    counts = {
        "written": run.write_rows,
        "updated": run.update_rows,
        "deleted": run.delete_rows,
        "read": run.counters.get("ROWS_READ"),
    }
    known = [f"{count:,} {verb}" for verb, count in counts.items() if count is not None]
    return (", ".join(known) + " when it ended") if known else "unknown; check the target"
