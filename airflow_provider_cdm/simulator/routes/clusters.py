"""Cluster routes: list, detail, and the actions start, stop and restart."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.backend.cluster import NORMAL, STOPPED, STOPPING
from airflow_provider_cdm.simulator.errors import CdmError
from airflow_provider_cdm.simulator.messages import Request, Response, json_response
from airflow_provider_cdm.simulator.routes import serializers
from airflow_provider_cdm.simulator.routes.routing import Route

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.backend import Backend
    from airflow_provider_cdm.simulator.backend.cluster import Cluster

STARTING = "920"
RESTARTING = "500"
RESTART_LEVELS = ("SERVICE", "VM")
RESTART_MODES = ("IMMEDIATELY", "GRACEFULL", "FORCELY", "SOFTLY")


def list_clusters(backend: Backend, request: Request) -> Response:
    """Handle "Querying the Cluster List" with the clusters of the project."""
    project = request.params["project_id"]
    clusters = [item for item in backend.clusters.values() if item.project_id == project]
    return json_response({"clusters": [serializers.cluster(cluster) for cluster in clusters]})


def show_cluster(backend: Backend, request: Request) -> Response:
    """Handle "Querying Cluster Details"; the response is the object itself."""
    return json_response(serializers.cluster(_cluster(backend, request)))


def handle_action(backend: Backend, request: Request) -> Response:
    """Handle the three actions; the details of the cluster show when an action has ended."""
    cluster = _cluster(backend, request)
    body = request.json()
    actions = {"start": _start, "stop": _stop, "restart": _restart}
    names = [name for name in actions if isinstance(body.get(name), dict)]
    if len(names) != 1:
        raise CdmError(400, "Cdm.0010", "Exactly one of start, stop and restart is expected.")
    actions[names[0]](cluster, body[names[0]])
    job_id = secrets.token_hex(16)
    as_list = names[0] != "restart" or backend.behaviour.restart_job_id == "list"
    return json_response({"jobId": [job_id] if as_list else job_id})


def _cluster(backend: Backend, request: Request) -> Cluster:
    cluster = backend.clusters.get(request.params["cluster_id"])
    if cluster is None or cluster.project_id != request.params["project_id"]:
        code = backend.behaviour.cluster_not_found_code
        raise CdmError(404, code, f"Cluster {request.params['cluster_id']} does not exist.")
    return cluster


def _start(cluster: Cluster, _options: Mapping[str, Any]) -> None:
    cluster.require_status(STOPPED)
    cluster.set_status(STARTING)
    cluster.event_queue.call_later(cluster.config.seconds.start, lambda: cluster.set_status(NORMAL))


def _stop(cluster: Cluster, options: Mapping[str, Any]) -> None:
    """Stop at once, or when all runs have ended, at most ``delayTime`` seconds later."""
    cluster.require_status(NORMAL)
    mode = options.get("stopMode", "IMMEDIATELY")
    delay = options.get("delayTime", -1)
    if mode not in ("IMMEDIATELY", "GRACEFULLY", "GRACEFULL") or not _is_seconds(delay, -1):
        raise CdmError(400, "Cdm.0010", "Parameter stopMode or delayTime is invalid.")
    cluster.set_status(STOPPING)
    if mode == "IMMEDIATELY":
        cluster.fail_active_runs("The cluster was stopped.")
    elif delay >= 0:
        cluster.event_queue.call_later(
            delay, lambda: cluster.fail_active_runs("The cluster was stopped.")
        )
    cluster.drain()


def _restart(cluster: Cluster, options: Mapping[str, Any]) -> None:
    """Restart; according to the documentation, running jobs fail in every mode."""
    cluster.require_status(NORMAL)
    delay = options.get("restartDelayTime", 0)
    mode, level = options.get("restartMode", "IMMEDIATELY"), options.get("restartLevel", "SERVICE")
    if mode not in RESTART_MODES or not _is_seconds(delay, 0):
        raise CdmError(400, "Cdm.0010", "Parameter restartMode or restartDelayTime is invalid.")
    part = options.get("instance") or options.get("group")
    if level not in RESTART_LEVELS or options.get("type", "cdm") != "cdm":
        raise CdmError(400, "Cdm.0010", "Parameter restartLevel or type is invalid.")
    if level == "SERVICE" and part:
        raise CdmError(400, "Cdm.0010", "For SERVICE, instance and group must be empty.")

    def begin() -> None:
        cluster.set_status(RESTARTING)
        cluster.fail_active_runs("The cluster was restarted.")
        cluster.event_queue.call_later(
            cluster.config.seconds.restart, lambda: cluster.set_status(NORMAL)
        )

    if delay:
        cluster.event_queue.call_later(delay, begin)
    else:
        begin()


def _is_seconds(value: Any, least: int) -> bool:
    """Return whether a value is an integer that the API takes; the limit is ASSUMED."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


_CLUSTERS = "/v1.1/{project_id}/clusters"
_CLUSTER = f"{_CLUSTERS}/{{cluster_id}}"

ROUTES = [
    Route("list_clusters", "GET", _CLUSTERS, list_clusters),
    Route("show_cluster", "GET", _CLUSTER, show_cluster),
    Route("cluster_action", "POST", f"{_CLUSTER}/action", handle_action),
]
