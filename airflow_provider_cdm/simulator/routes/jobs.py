"""Job routes: create, show, list, update, delete; start, stop, status, history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.backend import whole_database
from airflow_provider_cdm.simulator.backend.cluster import NORMAL, STOPPING
from airflow_provider_cdm.simulator.backend.run import INVISIBLE
from airflow_provider_cdm.simulator.config.job_config import JobConfig
from airflow_provider_cdm.simulator.errors import CdmError, CdmWriteError
from airflow_provider_cdm.simulator.messages import Request, Response, json_response
from airflow_provider_cdm.simulator.routes import serializers
from airflow_provider_cdm.simulator.routes.routing import Route

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.backend import Backend
    from airflow_provider_cdm.simulator.backend.cluster import Cluster
    from airflow_provider_cdm.simulator.backend.lifecycle import RunLifecycle
    from airflow_provider_cdm.simulator.backend.models import Job

JOB_TYPES = ("NORMAL_JOB", "BATCH_JOB", "SCENARIO_JOB")
HISTORY_PAGE_SIZE = 10
#: The largest number that the API takes, that of Java's ``int`` (ASSUMED), and its digits.
MAX_INT = 2**31 - 1
MAX_DIGITS = 10


def start_job(backend: Backend, request: Request) -> Response:
    """Handle "Starting a Job"; the body may be absent, empty, ``{}`` or have ``variables``."""
    cluster = _cluster(backend, request)
    variables = _variables(request.json())
    lifecycle = cluster.start(request.params["job_name"], variables, request.user)
    submission = serializers.submission(lifecycle, backend.behaviour, started=True)
    return json_response({"submissions": [submission]})


def stop_job(backend: Backend, request: Request) -> Response:
    """Handle "Stopping a Job"; there are three generations of responses."""
    lifecycle = _cluster(backend, request).stop(request.params["job_name"])
    if backend.behaviour.stop_answer == "empty":
        return Response()
    if backend.behaviour.stop_answer == "submissions":
        return json_response(
            {"submissions": [serializers.submission(lifecycle, backend.behaviour)]}
        )
    return json_response({})  # as in the sample; a list would contain validation errors


def show_status(backend: Backend, request: Request) -> Response:
    """Handle "Querying Job Status"; for a job without runs, the submission is artificial."""
    job = _cluster(backend, request, STOPPING).job(request.params["job_name"], "Cdm.0054")
    if job.last is not None:
        _advance_scripts(backend, [job.last])
    if job.last is None or job.last.run.status == INVISIBLE:
        now = backend.event_queue.now()
        submission = serializers.never_executed(job.name, job.user, now, backend.behaviour)
    else:
        submission = serializers.submission(job.last, backend.behaviour)
    return json_response({"submissions": [submission]})


def list_submissions(backend: Backend, request: Request) -> Response:
    """Handle "Querying Job Execution History": the newest first, ten by default."""
    cluster = _cluster(backend, request, STOPPING)
    name = request.query.get("jname")
    if not name:
        raise CdmError(400, "Cdm.0009", "Parameter jname is missing.")
    lifecycles: list[RunLifecycle] = []
    if name in cluster.jobs or backend.behaviour.unknown_history == "error":
        lifecycles = list(reversed(cluster.job(name, "Cdm.0054").lifecycles))
    paging = backend.behaviour.history_paging
    page_no = _number(request, "page_no", 1, 1, MAX_INT) if paging else 1
    size = _number(request, "page_size", HISTORY_PAGE_SIZE, 1, 100) if paging else HISTORY_PAGE_SIZE
    page = lifecycles[(page_no - 1) * size : page_no * size]
    _advance_scripts(backend, page)
    visible = [lifecycle for lifecycle in page if lifecycle.run.status != INVISIBLE]
    hidden = len(page) - len(visible)
    return json_response(
        {
            "submissions": [
                serializers.submission(lifecycle, backend.behaviour) for lifecycle in visible
            ],
            "total": len(lifecycles) - hidden,
            "page_no": page_no,
            "page_size": size,
        }
    )


def create_job(backend: Backend, request: Request) -> Response:
    """Handle "Creating a Job in a Specified Cluster"; the job is not started."""
    cluster = _cluster(backend, request)
    wire = _job_in(cluster, request.json())
    name = wire.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 240:
        raise CdmWriteError(400, "Cdm.0018", "The name of a job has 1 to 240 characters.")
    if name in cluster.jobs:
        text = f"Job name {name} exists or was created by another user."
        raise CdmWriteError(400, "Cdm.0104", text)
    type_ = wire.get("job_type", JOB_TYPES[0])
    cluster.put_job(JobConfig(name=name, type=type_, wire=wire), request.user)
    return json_response({"name": name, "validation-result": []})


def update_job(backend: Backend, request: Request) -> Response:
    """Handle "Modifying a Job"; it is ASSUMED that a running job cannot be modified."""
    cluster = _cluster(backend, request)
    wire = _job_in(cluster, request.json())
    job = cluster.jobs.get(request.params["job_name"])
    if job is None:  # errCode has five digits in the sample of the page
        text = f"Job[{request.params['job_name']}] doesn't exist."
        raise CdmWriteError(400, "Cdm.0095", text, err_code="Cdm.00095")
    if job.active:
        raise CdmWriteError(400, "Cdm.0322", f"Job {job.name} is in use.")
    cluster.replace_wire(job, wire)
    return json_response({"validation-result": [{}, {}, {}]})


def delete_job(backend: Backend, request: Request) -> Response:
    """Handle "Deleting a Job" with an empty body; it is ASSUMED that a running job is kept."""
    cluster = _cluster(backend, request)
    status = backend.behaviour.delete_not_found_status
    job = cluster.job(request.params["job_name"], "Cdm.0100", status)
    if job.active:
        raise CdmError(400, "Cdm.0322", f"Job {job.name} is in use.")
    whole_database.delete(cluster.jobs, job, backend.behaviour)
    return Response()


def show_job(backend: Backend, request: Request) -> Response:
    """Handle "Querying a Job": one job, or a page of all jobs of a type."""
    cluster = _cluster(backend, request, STOPPING)
    name = request.params["job_name"]
    if name == "all":
        return _list(backend, cluster, request)
    job = cluster.job(name, "Cdm.0100")
    type_ = request.query.get("jobType") or JOB_TYPES[0]
    if backend.behaviour.show_needs_job_type and _listed_as(backend, job) != type_:
        status = int(backend.behaviour.not_found_status)
        raise CdmError(status, "Cdm.0100", f"Job[{name}] doesn't exist.")
    # The total of a query for a single job is 0 (SDK, ShowJobsResponse).
    objects = [serializers.job(job, backend.behaviour)]
    return json_response({"total": 0, "jobs": objects, "page_no": 1, "page_size": 10})


def _list(backend: Backend, cluster: Cluster, request: Request) -> Response:
    type_ = request.query.get("jobType") or JOB_TYPES[0]
    if type_ not in JOB_TYPES:
        raise CdmError(400, "Cdm.0010", f"Parameter jobType is none of {', '.join(JOB_TYPES)}.")
    part = request.query.get("filter", "").lower()
    jobs: list[Job] = [
        job
        for job in cluster.jobs.values()
        if _listed_as(backend, job) == type_ and part in job.name.lower()
    ]
    page_no = _number(request, "page_no", 1, 1, MAX_INT)
    size = _number(request, "page_size", 10, 10, 100)
    page = jobs[(page_no - 1) * size : page_no * size]
    objects = [serializers.job(job, backend.behaviour, listed=True) for job in page]
    return json_response(
        {"total": len(jobs), "jobs": objects, "page_no": page_no, "page_size": size}
    )


def _listed_as(backend: Backend, job: Job) -> str:
    return job.config.type if job.part_of is None else backend.behaviour.sub_jobs_listed_as


def _cluster(backend: Backend, request: Request, *statuses: str) -> Cluster:
    """Return the cluster of a request, if it is running or in one of some other statuses."""
    cluster = backend.cluster(request.params["cluster_id"], request.params["project_id"])
    cluster.require_status(NORMAL, *statuses)
    return cluster


def _advance_scripts(backend: Backend, lifecycles: Sequence[RunLifecycle]) -> None:
    """Let runs take their next scripted status.

    A scripted run moves its rows when it succeeds. The response shows it, unless it takes long.
    """
    waiting = [lifecycle for lifecycle in lifecycles if lifecycle.advance_script()]
    backend.event_queue.wait_until(lambda: not any(lifecycle.busy for lifecycle in waiting))


def _variables(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a start call: text by name. The error code is ASSUMED."""
    variables = body.get("variables")
    if variables is None:
        return {}
    if not isinstance(variables, dict):
        raise CdmError(400, "Cdm.0010", "Parameter variables is not an object.")
    for name, value in variables.items():
        if not isinstance(value, str):
            raise CdmError(400, "Cdm.0010", f"Variable {name} is not a string.")
    return variables


def _job_in(cluster: Cluster, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the single job in the body of a create or update call."""
    jobs = body.get("jobs")
    if not isinstance(jobs, list) or len(jobs) != 1 or not isinstance(jobs[0], dict):
        raise CdmWriteError(400, "Cdm.0018", "Exactly one job is expected.")
    job: dict[str, Any] = jobs[0]
    if job.get("job_type", JOB_TYPES[0]) not in JOB_TYPES:
        raise CdmWriteError(400, "Cdm.0055", f"Job type {job['job_type']!r} is not supported.")
    for end in ("from", "to"):
        for key in (f"{end}-connector-name", f"{end}-link-name"):
            if not isinstance(job.get(key), str):
                raise CdmWriteError(400, "Cdm.0018", f"The job has no {key}.")
        link = job[f"{end}-link-name"]
        if cluster.behaviour.check_links and link not in cluster.links:
            raise CdmWriteError(400, "Cdm.0101", f"Link [{link}] doesn't exist.")
    return job


def _number(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None or text == "":
        return default
    # Neither signs nor the digits of other scripts, and never more digits than int() takes.
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else -1
    if not low <= number <= high:
        shown = text if len(text) <= 100 else f"{text[:100]}..."
        raise CdmError(400, "Cdm.0009", f"Parameter {name} is out of range: {shown}")
    return number


_JOBS = "/v1.1/{project_id}/clusters/{cluster_id}/cdm/job"
_JOB = f"{_JOBS}/{{job_name}}"
_HISTORY = "/v1.1/{project_id}/clusters/{cluster_id}/cdm/submissions"

ROUTES = [
    Route("create_job", "POST", _JOBS, create_job),
    Route("show_job", "GET", _JOB, show_job),
    Route("update_job", "PUT", _JOB, update_job),
    Route("delete_job", "DELETE", _JOB, delete_job),
    Route("start", "PUT", f"{_JOB}/start", start_job),
    Route("stop", "PUT", f"{_JOB}/stop", stop_job),
    Route("status", "GET", f"{_JOB}/status", show_status),
    Route("submissions", "GET", _HISTORY, list_submissions),
]
