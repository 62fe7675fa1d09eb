"""Which run a sensor waits for, from its rendered arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_cdm.client import arguments, errors, instants
from airflow_provider_cdm.client.submission import RunRef
from airflow_provider_cdm.client.text import format_instant


def name_run(
    submission: Any, job_name: Any, submission_id: Any, started_after: Any, cluster_id: str | None
) -> tuple[RunRef, int]:
    """Return the run, and the least creation date of a run whose number and date are not known.

    The parameters are those of :class:`~airflow_provider_cdm.sensors.CdmSubmissionSensor`.

    :returns: the run, its cluster empty if nothing names one; the date in epoch milliseconds, 0 for
        a run that is known.
    :raises CdmConfigError: when they name no run, or more than one.
    """
    if submission is not None:
        return _from_submission(submission, cluster_id), 0
    name = arguments.job_name(job_name)
    number = arguments.non_negative_int("submission_id", submission_id)
    if (number is None) == (started_after is None):
        raise errors.CdmConfigError(
            "Name the run: pass submission (the output of CdmStartJobOperator), or job_name"
            " with either submission_id or started_after."
        )
    run = RunRef(cluster_id or "", name, number)
    return run, 0 if run.known else instants.epoch_ms("started_after", started_after)


def describe_wait(run: RunRef, created_from: int, conn_id: str) -> str:
    """Return the first line of the log of a wait: later ones name neither job nor cluster."""
    which = run.number if run.known else f"the first run since {format_instant(created_from)}"
    return (
        f"Waiting for {which} of job {run.job_name!r} in cluster {run.cluster_id}, connection"
        f" {conn_id!r}"
    )


def _from_submission(given: Any, cluster_id: str | None) -> RunRef:
    if not isinstance(given, Mapping):
        raise errors.CdmConfigError(
            f"submission must be what CdmStartJobOperator returned, not {_describe(given)}. Pass"
            " the operator's output, as in submission=start.output; a template of it renders to"
            " text. A run's number goes into submission_id, with job_name."
        )
    number = arguments.non_negative_int("submission['submission_id']", given.get("submission_id"))
    created = arguments.non_negative_int("submission['creation_date']", given.get("creation_date"))
    if number is None and created is None:
        raise errors.CdmConfigError(
            "submission names no run: it has neither submission_id nor creation_date."
        )
    return RunRef(
        given.get("cluster_id") or cluster_id or "",
        arguments.job_name(given.get("job_name")),
        number,
        created,
    )


def _describe(given: Any) -> str:
    if isinstance(given, str):
        return f"text ({given[:80]!r})"
    return type(given).__name__
