"""Operations on runs: start, status, history, stop.

Routes and fields follow the CDM API reference, version 1.1
(https://support.huaweicloud.com/intl/en-us/api-cdm/). The functions return calls; they send
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from airflow_provider_cdm.client.api.call import Call, Quota, json_object, segment
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.sansio import Response
from airflow_provider_cdm.client.submission import Submission, newest_first
from airflow_provider_cdm.client.text import sanitize


def start_job(
    cluster_id: str, job_name: str, variables: Mapping[str, str] | None = None
) -> Call[Submission]:
    """Start a job: ``PUT .../cdm/job/{job_name}/start``.

    Not idempotent, and CDM has no idempotency key: two calls start two runs.

    :param variables: values for ``${name}`` in the job's parameters, for this run only.
    """

    def parse(response: Response, call: Call[Submission]) -> Submission:
        started = _submissions(response, call, cluster_id, job_name)
        if not started:
            raise error_mapping.bad_response(
                response, call.operation, "the answer names no submission"
            )
        return newest_first(started)[0]

    return Call(
        operation=f"start job {job_name!r} in cluster {cluster_id}",
        method="PUT",
        path=f"{_job_path(cluster_id, job_name)}/start",
        parse=parse,
        # Also without any: the documented samples of the vendor send this or no body.
        body={"variables": dict(variables or {})},
        idempotent=False,
    )


def status(cluster_id: str, job_name: str) -> Call[list[Submission]]:
    """Read the latest run of a job: ``GET .../cdm/job/{job_name}/status``.

    The list has one element, or none if CDM has no information yet.
    """
    return Call(
        operation=f"read the status of job {job_name!r} in cluster {cluster_id}",
        method="GET",
        path=f"{_job_path(cluster_id, job_name)}/status",
        parse=lambda response, call: _submissions(response, call, cluster_id, job_name),
        quota=Quota.STATUS,
    )


#: Number of runs in an answer of the history, if the answer does not give a total.
HISTORY_PAGE = 10


@dataclass(frozen=True, slots=True)
class History:
    """Runs of a job.

    :param submissions: runs, newest first.
    :param total: number of all runs of the job, if the server gives it.
    """

    submissions: list[Submission]
    total: int | None = None

    @property
    def complete(self) -> bool:
        """Whether these are certainly all runs that CDM has kept."""
        if self.total is None:
            return len(self.submissions) < HISTORY_PAGE
        return len(self.submissions) >= self.total


def history(cluster_id: str, job_name: str) -> Call[History]:
    """Read the history of a job: ``GET .../cdm/submissions?jname=``.

    ``jname`` is the only documented parameter; the answer may contain only the ten newest runs.
    """

    def parse(response: Response, call: Call[History]) -> History:
        total = json_object(response, call).get("total")
        return History(
            newest_first(_submissions(response, call, cluster_id, job_name)),
            total if isinstance(total, int) else None,
        )

    return Call(
        operation=f"read the runs of job {job_name!r} in cluster {cluster_id}",
        method="GET",
        path=f"/clusters/{segment(cluster_id)}/cdm/submissions",
        query={"jname": job_name},
        parse=parse,
        quota=Quota.HISTORY,
    )


def stop_job(cluster_id: str, job_name: str) -> Call[None]:
    """Stop the active run of a job, whichever it is: ``PUT .../cdm/job/{job_name}/stop``.

    CDM answers before the run has ended. Three forms of the answer are documented
    (``validation-result``, ``submissions``, an empty body); only ERROR entries matter.
    """

    def parse(response: Response, call: Call[None]) -> None:
        if not response.body.strip():
            return
        data = json_object(response, call)
        if texts := error_mapping.validation_messages(data.get("validation-result")):
            raise error_mapping.refused_with_success_status(response, call.operation, texts)

    return Call(
        operation=f"stop job {job_name!r} in cluster {cluster_id}",
        method="PUT",
        path=f"{_job_path(cluster_id, job_name)}/stop",
        parse=parse,
        quota=Quota.STOP,
    )


def _job_path(cluster_id: str, job_name: str) -> str:
    return f"/clusters/{segment(cluster_id)}/cdm/job/{segment(job_name)}"


def _submissions(
    response: Response, call: Call[Any], cluster_id: str, job_name: str
) -> list[Submission]:
    items = json_object(response, call).get("submissions")
    if not isinstance(items, list):
        raise error_mapping.bad_response(response, call.operation, "the answer has no submissions")
    try:
        return [
            Submission.from_wire(item, cluster_id, job_name)
            for item in items
            if not _is_of_another_job(item, job_name)
        ]
    except ValueError as problem:
        raise error_mapping.bad_response(response, call.operation, str(problem)) from problem


def _is_of_another_job(item: Any, job_name: str) -> bool:
    """Return whether a submission names another job than the one that was asked for."""
    name = item.get("job-name") if isinstance(item, Mapping) else None
    # Texts of answers are sanitized when they are read.
    asked = sanitize(job_name, len(job_name))
    return isinstance(name, str) and asked not in (name, unquote(name))
