"""Operations on jobs, links and clusters: create, update, show, list, delete, start, stop.

Routes and fields follow the CDM API reference, version 1.1
(https://support.huaweicloud.com/intl/en-us/api-cdm/). The functions return calls; they send
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.api.call import Call, Quota, json_object, segment
from airflow_provider_cdm.client.api.definitions import JOB, Definition, Kind
from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.sansio import Response

if TYPE_CHECKING:
    from airflow_provider_cdm.client.api.cluster import Cluster
    from airflow_provider_cdm.client.api.job_list import JobPage


def create(cluster_id: str, definition: Definition) -> Call[list[str]]:
    """Create a job or link: ``POST .../cdm/job``, ``.../cdm/link``. A job is not started.

    Safe to repeat, since names are unique: at worst the answer is that the name exists.

    :returns: warnings from CDM.
    """
    kind = definition.kind
    return Call(
        operation=f"create {kind.noun} {definition.name!r} in cluster {cluster_id}",
        method="POST",
        path=f"/clusters/{segment(cluster_id)}/cdm/{kind.noun}",
        parse=_validated,
        body=definition.body,
    )


def update(cluster_id: str, definition: Definition) -> Call[list[str]]:
    """Replace the definition of a job or link: ``PUT .../cdm/job/{job_name}``.

    :returns: warnings from CDM.
    """
    kind = definition.kind
    return Call(
        operation=f"update {kind.noun} {definition.name!r} in cluster {cluster_id}",
        method="PUT",
        path=_path(kind, cluster_id, definition.name),
        parse=_validated,
        body=definition.body,
    )


def show(
    kind: Kind, cluster_id: str, name: str, job_type: str | None = None
) -> Call[dict[str, Any]]:
    """Read the definition of a job or link: ``GET .../cdm/job/{job_name}``.

    :param job_type: type of the job. Without one, CDM may show jobs of the type ``NORMAL_JOB``
        only, so :meth:`.CdmApi.find` asks again with the others.
    :raises CdmConfigError: for a job named ``all``, since that name lists all jobs.
    """
    if kind is JOB and name == "all":
        raise errors.CdmConfigError(
            "CDM cannot show a job named 'all', because it lists all jobs under that name. Rename"
            " the job."
        )

    def parse(response: Response, call: Call[dict[str, Any]]) -> dict[str, Any]:
        items = json_object(response, call).get(kind.plural)
        if not isinstance(items, list) or not items or not isinstance(items[0], dict):
            problem = f"the answer contains no {kind.noun}"
            error = error_mapping.bad_response(response, call.operation, problem)
            error.is_empty = items == []
            raise error
        return items[0]

    return Call(
        operation=f"show {kind.noun} {name!r} in cluster {cluster_id}",
        method="GET",
        path=_path(kind, cluster_id, name),
        query=None if job_type is None else {"jobType": job_type},
        parse=parse,
        quota=Quota.LISTING if kind is JOB else None,
    )


def delete(kind: Kind, cluster_id: str, name: str) -> Call[None]:
    """Delete a job or link: ``DELETE .../cdm/job/{job_name}``; the answer is empty."""
    return Call(
        operation=f"delete {kind.noun} {name!r} in cluster {cluster_id}",
        method="DELETE",
        path=_path(kind, cluster_id, name),
        parse=lambda _response, _call: None,
        quota=Quota.DELETE if kind is JOB else None,
    )


#: Maximum number of jobs on one page of a listing.
LISTING_PAGE = 100


def list_jobs(
    cluster_id: str, page_no: int, *, job_type: str = "NORMAL_JOB", name_filter: str = ""
) -> Call[JobPage]:
    """Read a page of the list of jobs: ``GET .../cdm/job/all``.

    :param page_no: number of the page, from 1.
    :param job_type: ``NORMAL_JOB``, ``BATCH_JOB`` (whole databases) or ``SCENARIO_JOB``; a listing
        shows one type only.
    :param name_filter: part of the names of the jobs to list; empty for all jobs.
    """

    def parse(response: Response, call: Call[JobPage]) -> JobPage:
        from airflow_provider_cdm.client.api.job_list import JobPage, ListedJob

        data = json_object(response, call)
        jobs, total = data.get("jobs"), data.get("total")
        if not isinstance(jobs, list):
            raise error_mapping.bad_response(response, call.operation, "the answer has no jobs")
        try:
            listed = [ListedJob.from_wire(item) for item in jobs]
        except ValueError as problem:
            raise error_mapping.bad_response(response, call.operation, str(problem)) from problem
        return JobPage(listed, total if isinstance(total, int) else None)

    paging = {"page_no": str(page_no), "page_size": str(LISTING_PAGE), "jobType": job_type}
    return Call(
        operation=f"list the jobs of cluster {cluster_id}",
        method="GET",
        path=_path(JOB, cluster_id, "all"),
        query={"filter": name_filter, **paging} if name_filter else paging,
        parse=parse,
        quota=Quota.LISTING,
    )


def list_clusters() -> Call[list[Cluster]]:
    """Read all clusters of the project: ``GET /clusters``."""

    def parse(response: Response, call: Call[list[Cluster]]) -> list[Cluster]:
        items = json_object(response, call).get("clusters")
        if not isinstance(items, list):
            raise error_mapping.bad_response(response, call.operation, "the answer has no clusters")
        return [_cluster(response, call, item, None) for item in items]

    return Call(operation="list the clusters", method="GET", path="/clusters", parse=parse)


def show_cluster(cluster_id: str) -> Call[Cluster]:
    """Read the details of a cluster: ``GET /clusters/{cluster_id}``."""
    return Call(
        operation=f"read the state of cluster {cluster_id}",
        method="GET",
        path=f"/clusters/{segment(cluster_id)}",
        parse=lambda response, call: _cluster(
            response, call, json_object(response, call), cluster_id
        ),
        missing_if_404=True,
    )


def start_cluster(cluster_id: str) -> Call[None]:
    """Start a stopped cluster: ``POST /clusters/{cluster_id}/action``.

    CDM answers before the cluster has started; its details show when it has.
    """
    return _action(cluster_id, "start", {})


def stop_cluster(cluster_id: str, *, graceful: bool, delay: int | None = None) -> Call[None]:
    """Stop a running cluster: ``POST /clusters/{cluster_id}/action``.

    CDM answers before the cluster has stopped; its details show when it has.

    :param graceful: whether active runs may end first; otherwise they fail.
    :param delay: seconds for which active runs may go on; ``None`` until they have ended.
    """
    mode = "GRACEFULLY" if graceful else "IMMEDIATELY"
    return _action(
        cluster_id, "stop", {"stopMode": mode, "delayTime": -1 if delay is None else delay}
    )


#: Ways to restart a cluster, and CDM's names for them.
RESTART_MODES = {"immediate": "IMMEDIATELY", "soft": "SOFTLY", "force": "FORCELY"}


def restart_cluster(cluster_id: str, *, mode: str, delay: int = 0) -> Call[None]:
    """Restart the service of a cluster: ``POST /clusters/{cluster_id}/action``.

    CDM answers before the restart; active runs fail in every mode.

    :param mode: one of :data:`RESTART_MODES`.
    :param delay: seconds to wait before the restart.
    """
    options = {
        "restartDelayTime": delay,
        "restartMode": RESTART_MODES[mode],
        "restartLevel": "SERVICE",
        "type": "cdm",
        "instance": "",
        "group": "",
    }
    return _action(cluster_id, "restart", options)


def _action(cluster_id: str, action: str, options: Mapping[str, Any]) -> Call[None]:
    """Return the call of an action; its answer contains nothing useful.

    Not idempotent: the state that the first call leads to may make CDM reject a second one.
    """
    return Call(
        operation=f"{action} cluster {cluster_id}",
        method="POST",
        path=f"/clusters/{segment(cluster_id)}/action",
        parse=lambda _response, _call: None,
        body={action: options},
        idempotent=False,
        missing_if_404=True,
    )


def _path(kind: Kind, cluster_id: str, name: str) -> str:
    return f"/clusters/{segment(cluster_id)}/cdm/{kind.noun}/{segment(name)}"


def _validated(response: Response, call: Call[list[str]]) -> list[str]:
    if not response.body.strip():
        return []
    result = json_object(response, call).get("validation-result")
    if texts := error_mapping.validation_messages(result):
        raise error_mapping.refused_with_success_status(response, call.operation, texts)
    return error_mapping.validation_messages(result, "WARNING")


def _cluster(response: Response, call: Call[Any], data: Any, cluster_id: str | None) -> Cluster:
    from airflow_provider_cdm.client.api.cluster import Cluster

    try:
        return Cluster.from_wire(data, cluster_id)
    except ValueError as problem:
        raise error_mapping.bad_response(response, call.operation, str(problem)) from problem
