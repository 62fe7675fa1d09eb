"""What the commands do. A result goes to the standard output, and an error is one message."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from typing import Any

from airflow_provider_cdm._compat import (
    AirflowException,
    ignore_underscore_in_command,
    read_stored_connections,
)
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api import resources
from airflow_provider_cdm.client.api.definitions import JOB_TYPES
from airflow_provider_cdm.client.jobs.failure_report import ensure_succeeded
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.connection.fields import CONN_TYPE
from airflow_provider_cdm.hooks import CdmHook

#: Most pages of a listing that are read, of a hundred jobs each.
_MOST_PAGES = 1_000
#: Seconds between two looks at a run that is waited for.
_POLL_INTERVAL = 10.0
Row = Mapping[str, Any]


def perform(name: str, options: argparse.Namespace) -> None:
    """Perform a command.

    :param options: its arguments, and the stream for the result as ``out``.
    :raises SystemExit: after a failure; a success returns.
    """
    read_stored_connections()
    ignore_underscore_in_command(CONN_TYPE)
    try:
        _COMMANDS[name](options)
    except (errors.CdmError, AirflowException) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _check(options: argparse.Namespace) -> None:
    works, message = CdmHook(options.conn_id).test_connection()
    if options.output == "json":
        options.out.write(json.dumps({"works": works, "message": message}, indent=2) + "\n")
    elif works:
        options.out.write(f"{message}\n")
    if not works:
        sys.exit(message)


def _jobs(options: argparse.Namespace) -> None:
    hook = _hook(options)
    rows = [
        {
            "job": job.name,
            "type": job_type,
            "last_status": job.status or None,
            "last_run": _instant(job.created),
        }
        for job_type in JOB_TYPES
        for job in _listed(hook, job_type, options.filter)
    ]
    _show(options, rows, "no jobs")


def _listed(hook: CdmHook, job_type: str, name_filter: str) -> Iterator[Any]:
    """Yield all jobs of one type."""
    session, cluster, seen = hook.get_conn(), hook.resolve_cluster(), 0
    for number in range(1, _MOST_PAGES + 1):
        call = resources.list_jobs(cluster, number, job_type=job_type, name_filter=name_filter)
        page = session.run(session.api.call(call))
        yield from page.jobs
        seen += len(page.jobs)
        if not page.jobs or (page.total is not None and seen >= page.total):
            return


def _runs(options: argparse.Namespace) -> None:
    _show(
        options, [_row(run) for run in _hook(options).list_submissions(options.job_name)], "no runs"
    )


def _status(options: argparse.Namespace) -> None:
    run = _hook(options).get_job_status(options.job_name)
    _show(options, [_row(run)], "no run")


def _start(options: argparse.Namespace) -> None:
    hook = _hook(options)
    run = hook.start_job(options.job_name, dict(options.var))
    if options.wait:
        session = hook.get_conn()
        follower = Follower(RunRef.of(run))
        run = session.run(follower.follow(session.api, poll_interval=_POLL_INTERVAL))
    _show(options, [_row(run)], "no run")
    if run.ended:
        ensure_succeeded(run)


def _stop(options: argparse.Namespace) -> None:
    hook = _hook(options)
    active = hook.get_job_status(options.job_name)
    if not hook.stop_job(options.job_name):
        sys.exit(f"Job {options.job_name!r} has no active run.")
    _show(options, [{**_row(active), "status": "stopping"}], "no run")


def _simulator(options: argparse.Namespace) -> None:
    from airflow_provider_cdm.simulator.__main__ import main

    with redirect_stdout(options.out):
        sys.exit(main(options.arguments))


def _hook(options: argparse.Namespace) -> CdmHook:
    return CdmHook(options.conn_id, cluster_id=options.cluster_id)


def _row(run: Submission) -> dict[str, Any]:
    """Return what a person asks about a run first."""
    ended = run.last_update_date if run.ended else None
    row = {
        "run": run.submission_id,
        "status": run.status,
        "created": _instant(run.creation_date),
        "ended": _instant(ended),
        "seconds": run.duration_seconds,
        "rows_written": run.write_rows
        if run.write_rows is not None
        else run.counters.get("ROWS_WRITTEN"),
        "user": run.creation_user,
    }
    return {**row, "reason": run.error_summary} if run.failed else row


def _instant(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return None


def _show(options: argparse.Namespace, rows: Sequence[Row], none: str) -> None:
    """Write rows as a table or as JSON."""
    if options.output == "json":
        options.out.write(json.dumps(list(rows), indent=2) + "\n")
    elif not rows:
        options.out.write(f"{none}\n")
    else:
        options.out.write("\n".join(_table(rows)) + "\n")


def _table(rows: Sequence[Row]) -> Iterator[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[name.replace("_", " ").upper() for name in names]]
    lines += [["-" if row.get(name) is None else str(row[name]) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(names))]
    for line in lines:
        yield "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "check": _check,
    "jobs": _jobs,
    "runs": _runs,
    "status": _status,
    "start": _start,
    "stop": _stop,
    "simulator": _simulator,
}
