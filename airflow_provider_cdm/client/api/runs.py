"""The API operations, each a value: what to send and how to read the answer.

Routes and fields follow the CDM API reference, version 1.1
(https://support.huaweicloud.com/intl/en-us/api-cdm/). Nothing here sends anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.job_list import JobPage, ListedJob
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.polling.rate_limit import Quota
from airflow_provider_cdm.client.sansio import Response
from airflow_provider_cdm.client.submission import Submission, newest_first
from airflow_provider_cdm.client.text import read_json

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One operation on CDM, before it is authorised.

    :param operation: what it does, to complete the sentence "Could not ...".
    :param path: path after ``/v1.1/{project_id}``, percent-encoded.
    :param parse: makes a value of a successful answer.
    :param body: JSON to send; not in the ``repr``, since a link's holds a password.
    :param idempotent: whether it may be repeated without a thought.
    :param patient: whether to wait when a quota is used up.
    :param quota: which quota it draws on, for the calls that waiting makes.
    """

    operation: str
    method: str
    path: str
    parse: Callable[[Response, Call[T]], T]
    query: Mapping[str, str] | None = None
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    idempotent: bool = True
    patient: bool = True
    quota: Quota | None = None

    def target(self, project_id: str) -> str:
        """Path and query for one project."""
        query = f"?{urlencode(self.query, quote_via=quote)}" if self.query else ""
        return f"/v1.1/{segment(project_id)}{self.path}{query}"

    def payload(self) -> bytes | None:
        """The body on the wire."""
        return None if self.body is None else json.dumps(self.body).encode()


def start_job(
    cluster_id: str, job_name: str, variables: Mapping[str, str] | None = None
) -> Call[Submission]:
    """Start a job: ``PUT .../cdm/job/{job_name}/start``.

    Not idempotent, and there is no idempotency key: two of these are two runs.

    :param variables: values for ``${name}`` in the job's parameters, for this run only.
    """

    def parse(response: Response, call: Call[Submission]) -> Submission:
        found = _submissions(response, call, cluster_id, job_name)
        if not found:
            raise error_mapping.bad_response(
                response, call.operation, "the answer names no submission"
            )
        return newest_first(found)[0]

    return Call(
        operation=f"start job {job_name!r} in cluster {cluster_id}",
        method="PUT",
        path=f"{_job_path(cluster_id, job_name)}/start",
        parse=parse,
        body={"variables": dict(variables)} if variables else {},
        idempotent=False,
    )


def job_status(cluster_id: str, job_name: str) -> Call[list[Submission]]:
    """Read the latest run of a job: ``GET .../cdm/job/{job_name}/status``.

    The list has one element, or none where CDM has nothing to say yet.
    """
    return Call(
        operation=f"read the status of job {job_name!r} in cluster {cluster_id}",
        method="GET",
        path=f"{_job_path(cluster_id, job_name)}/status",
        parse=lambda response, call: _submissions(response, call, cluster_id, job_name),
        quota=Quota.STATUS,
    )


#: How many runs the history shows unless it says otherwise.
HISTORY_PAGE = 10


@dataclass(frozen=True, slots=True)
class History:
    """Runs of a job, newest first.

    :param total: how many runs the job has in all, if the server says so.
    """

    submissions: list[Submission]
    total: int | None = None

    @property
    def complete(self) -> bool:
        """Whether these are surely all runs that CDM remembers."""
        if self.total is None:
            return len(self.submissions) < HISTORY_PAGE
        return len(self.submissions) >= self.total


def submissions(cluster_id: str, job_name: str) -> Call[History]:
    """Read the history of a job: ``GET .../cdm/submissions?jname=``.

    ``jname`` is the only documented parameter; the answer may hold only the ten newest runs.
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
    """Stop whatever run of the job is active: ``PUT .../cdm/job/{job_name}/stop``.

    The answer comes before the run has ended. Three generations of it are documented
    (``validation-result``, ``submissions``, an empty body); only ERROR entries matter.
    """

    def parse(response: Response, call: Call[None]) -> None:
        if not response.body.strip():
            return
        data = json_object(response, call)
        if texts := error_mapping.validation_messages(data.get("validation-result")):
            raise error_mapping.refused(response, call.operation, texts)

    return Call(
        operation=f"stop job {job_name!r} in cluster {cluster_id}",
        method="PUT",
        path=f"{_job_path(cluster_id, job_name)}/stop",
        parse=parse,
    )


def show_job(cluster_id: str, job_name: str) -> Call[dict[str, Any]]:
    """Read the definition of a job: ``GET .../cdm/job/{job_name}``.

    :raises CdmConfigError: for a job named ``all``, since that name lists all jobs.
    """
    if job_name == "all":
        raise errors.CdmConfigError(
            "CDM cannot show a job named 'all': under that name it lists all jobs. Rename the job."
        )

    def parse(response: Response, call: Call[dict[str, Any]]) -> dict[str, Any]:
        jobs = json_object(response, call).get("jobs")
        if not isinstance(jobs, list) or not jobs or not isinstance(jobs[0], dict):
            raise error_mapping.bad_response(response, call.operation, "the answer holds no job")
        return jobs[0]

    return Call(
        operation=f"show job {job_name!r} in cluster {cluster_id}",
        method="GET",
        path=_job_path(cluster_id, job_name),
        parse=parse,
        quota=Quota.LISTING,
    )


#: The most jobs that one page of a listing shows.
LISTING_PAGE = 100


def list_jobs(
    cluster_id: str, page_no: int, *, job_type: str = "NORMAL_JOB", name_filter: str = ""
) -> Call[JobPage]:
    """Read a page of the list of jobs: ``GET .../cdm/job/all``.

    :param page_no: counted from 1.
    :param job_type: ``NORMAL_JOB``, ``BATCH_JOB`` (whole databases) or ``SCENARIO_JOB``; a listing
        shows one type only.
    :param name_filter: a part of the names of the jobs to list; empty for all.
    """

    def parse(response: Response, call: Call[JobPage]) -> JobPage:
        data = json_object(response, call)
        jobs, total = data.get("jobs"), data.get("total")
        if not isinstance(jobs, list):
            raise error_mapping.bad_response(response, call.operation, "the answer has no jobs")
        try:
            listed = [ListedJob.from_wire(one) for one in jobs]
        except ValueError as problem:
            raise error_mapping.bad_response(response, call.operation, str(problem)) from problem
        return JobPage(listed, total if isinstance(total, int) else None)

    paging = {"page_no": str(page_no), "page_size": str(LISTING_PAGE), "jobType": job_type}
    return Call(
        operation=f"list the jobs of cluster {cluster_id}",
        method="GET",
        path=_job_path(cluster_id, "all"),
        query={"filter": name_filter, **paging} if name_filter else paging,
        parse=parse,
        quota=Quota.LISTING,
    )


def _job_path(cluster_id: str, job_name: str) -> str:
    return f"/clusters/{segment(cluster_id)}/cdm/job/{segment(job_name)}"


def segment(text: str) -> str:
    """Percent-encode a name, as one segment of a path."""
    # "." and ".." would be taken for directories by every hop on the way.
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")


def json_object(response: Response, call: Call[Any]) -> Mapping[str, Any]:
    """Read the body of an answer.

    :raises CdmBadResponse: when it is no JSON object.
    """
    if not response.body.strip():
        raise error_mapping.bad_response(response, call.operation, "the answer is empty")
    try:
        data = read_json(response.body)
    except ValueError:
        raise error_mapping.bad_response(
            response, call.operation, "the answer is not JSON"
        ) from None
    if not isinstance(data, dict):
        raise error_mapping.bad_response(
            response, call.operation, "the answer is not a JSON object"
        )
    return data


def _submissions(
    response: Response, call: Call[Any], cluster_id: str, job_name: str
) -> list[Submission]:
    found = json_object(response, call).get("submissions")
    if not isinstance(found, list):
        raise error_mapping.bad_response(response, call.operation, "the answer has no submissions")
    try:
        return [Submission.from_wire(one, cluster_id, job_name) for one in found]
    except ValueError as problem:
        raise error_mapping.bad_response(response, call.operation, str(problem)) from problem
