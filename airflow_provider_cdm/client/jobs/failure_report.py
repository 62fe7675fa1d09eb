"""The report of a failed run: enough to know what to do without opening the console.

The first line is the reason, since lists and mails show no more; the last one is status, rows and
duration, since that is where a log ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.client import CdmApi
from airflow_provider_cdm.client.api.definitions import JOB, MASK, inputs_of, is_secret
from airflow_provider_cdm.client.jobs.placeholders import decoded
from airflow_provider_cdm.client.jobs.progress import outcome_line
from airflow_provider_cdm.client.sansio import Flow
from airflow_provider_cdm.client.submission import RunRef, Submission, Verdict
from airflow_provider_cdm.client.text import format_duration, format_instant, one_line
from airflow_provider_cdm.client.whole_database.tables import failure_lines
from airflow_provider_cdm.date_macros import PLACEHOLDER

#: Lines of CDM's details to show; the rest of a stack trace rarely helps.
_DETAIL_LINES = 8
#: Last parts of the names of inputs that say where a job reads or writes.
_LOCATION_INPUTS = (
    *("bucketName", "database", "schemaName", "tableName", "table", "inputDirectory"),
    *("outputDirectory", "streamName", "topicsName", "index", "collectionName"),
)
#: Last parts of the names of inputs with a condition, and what a line calls them.
_CONDITIONS = {"whereClause": "where", "sql": "sql"}
#: Lines about what a job selects, and characters of each.
_SELECTIONS_SHOWN, _SELECTION_LIMIT = 10, 600
#: Characters to show of the value of such an input, and of a variable.
_VALUE_LIMIT = 120
#: Number of variables to show.
_VARIABLES_SHOWN = 20
#: Characters to show of CDM's reason, and of a line of its details: the end of the report must not
#: fall victim to the limit for all messages.
_REASON_LIMIT, _LINE_LIMIT = 2_000, 300


def ensure_succeeded(
    run: Submission,
    definition: Mapping[str, Any] | None = None,
    address: str | None = None,
    variables: Mapping[str, str] | None = None,
    *,
    foreign: bool = False,
) -> Submission:
    """Return the run if it succeeded.

    :param definition: definition of its job, if it is known.
    :param address: URL at which a person can see the run.
    :param variables: what the run was started with, if that is known. Values whose name says that
        they are secret are masked here; others must be masked already.
    :param foreign: whether the task did not start the run.
    :raises CdmSubmissionFailed: for any other run, with a report of the failure.
    """
    if run.verdict is Verdict.SUCCESS:
        return run
    last = outcome_line(run, foreign=foreign)
    report = "\n".join([*_report(run, definition, address, variables), last])
    raise errors.CdmSubmissionFailed(report, run)


def _report(
    run: Submission,
    definition: Mapping[str, Any] | None,
    address: str | None,
    variables: Mapping[str, str] | None,
) -> Iterator[str]:
    """Yield all lines but the last one."""
    reason = one_line(run.error_summary or "", _REASON_LIMIT)
    yield reason or f"{run.status}, and CDM gave no reason."
    yield f"  run: {RunRef.of(run)}, cluster {run.cluster_id}"
    if variables:
        yield f"  variables: {_variables(variables)}"
    if definition is not None:
        yield f"  from: {_side(definition, 'from')}"
        yield f"  to: {_side(definition, 'to')}"
        yield from islice(_selections(definition, variables or {}), _SELECTIONS_SHOWN)
    yield f"  when: {_times(run)}"
    yield f"  rows: {_rows(run)}"
    yield from failure_lines(run)
    if address:
        yield f"  see: {address}"
    details = (run.error_details or "").strip().splitlines()
    if details:
        yield "Details:"
        # Marked, so that no line looks like one that Airflow or this package has logged.
        yield from (f"  | {line[:_LINE_LIMIT]}" for line in details[:_DETAIL_LINES])
    if (hidden := len(details) - _DETAIL_LINES) > 0:
        yield f"... {hidden} more lines in the CDM console"


def _variables(variables: Mapping[str, str]) -> str:
    shown = [
        f"{name}={MASK if is_secret(name) else repr(value[:_VALUE_LIMIT])}"
        for name, value in list(variables.items())[:_VARIABLES_SHOWN]
    ]
    hidden = len(variables) - len(shown)
    return ", ".join(shown) + (f" and {hidden} more" if hidden else "")


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
        f"{name.rpartition('.')[2]} {value[:_VALUE_LIMIT]!r}"
        for name, value in inputs.items()
        if value and name.rpartition(".")[2] in _LOCATION_INPUTS
    )
    link = str(definition.get(f"{side}-link-name"))
    connector = definition.get(f"{side}-connector-name")
    return ", ".join((f"link {link!r} ({connector})", *locations))


def _selections(definition: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each input that selects what is moved: conditions, and what is filled in."""
    shown = {name: MASK if is_secret(name) else text for name, text in variables.items()}
    for block in ("from-config-values", "to-config-values"):
        for name, value in inputs_of(definition, block).items():
            last, text = name.rpartition(".")[2], decoded(value)
            if is_secret(name) or not text:
                continue
            if last not in _CONDITIONS and not PLACEHOLDER.search(text):
                continue
            filled = PLACEHOLDER.sub(lambda match: shown.get(match[1].strip(), match[0]), text)
            written = "" if filled == text else f" (in the job: {one_line(text, _REASON_LIMIT)})"
            line = f"  {_CONDITIONS.get(last, last)}: {one_line(filled, _REASON_LIMIT)}{written}"
            yield line[:_SELECTION_LIMIT]


def _times(run: Submission) -> str:
    created, ended = format_instant(run.creation_date), format_instant(run.last_update_date)
    seconds = run.duration_seconds
    return f"{created} to {ended}" + ("" if seconds is None else f", {format_duration(seconds)}")


def _rows(run: Submission) -> str:
    """Describe the rows moved; CDM sends counters only for runs that succeed, else rows written."""
    counts = {
        "written": run.write_rows,
        "updated": run.update_rows,
        "deleted": run.delete_rows,
        "read": run.counters.get("ROWS_READ"),
    }
    known = [
        f"{count:,} {verb}" for verb, count in counts.items() if count is not None and count >= 0
    ]
    return (", ".join(known) + " when it ended") if known else "unknown; check the target"
