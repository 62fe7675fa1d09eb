"""Link routes: create, show, update, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.backend.cluster import NORMAL
from airflow_provider_cdm.simulator.backend.run_errors import first_line
from airflow_provider_cdm.simulator.errors import CdmError, CdmWriteError, LinkTestError
from airflow_provider_cdm.simulator.messages import Request, Response, json_response
from airflow_provider_cdm.simulator.routes import serializers
from airflow_provider_cdm.simulator.routes.routing import Route
from airflow_provider_cdm.simulator.transfer import jdbc

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.backend import Backend
    from airflow_provider_cdm.simulator.backend.cluster import Cluster
    from airflow_provider_cdm.simulator.backend.event_queue import Result
    from airflow_provider_cdm.simulator.backend.models import Link

#: Maximum time for the test of a connection, in seconds.
TEST_SECONDS = 10.0


def create_link(backend: Backend, request: Request) -> Response:
    """Handle "Creating a Link"; with ``validate=true`` the link is tested but not created."""
    cluster = _cluster(backend, request)
    wire = _link_in(request.json())
    _require_new(cluster, wire["name"])
    _test_connection(backend, cluster, wire["name"])
    _require_new(cluster, wire["name"])
    if request.query.get("validate", "").lower() != "true":
        cluster.links.put(wire, request.user)
    return json_response({"name": wire["name"], "validation-result": [{}]})


def show_link(backend: Backend, request: Request) -> Response:
    """Handle "Querying a Link"; the response does not contain secrets."""
    link = _link(_cluster(backend, request), request, "Cdm.0101")
    body = {
        "links": [serializers.link(link, backend.behaviour)],
        "fromTo-unMapping": "",
        "batchFromTo-mapping": "",
    }
    return json_response(body)


def update_link(backend: Backend, request: Request) -> Response:
    """Handle "Modifying a Link"; the name in the body is ignored (ASSUMED)."""
    cluster = _cluster(backend, request)
    link = _link(cluster, request, "Cdm.0316")
    wire = {**_link_in(request.json()), "name": link.name}
    _test_connection(backend, cluster, link.name)
    _link(cluster, request, "Cdm.0316")
    cluster.links.put(wire, request.user)
    return json_response({"validation-result": [{}]})


def delete_link(backend: Backend, request: Request) -> Response:
    """Handle "Deleting a Link"; for a link in use, the error code is that of the page's sample."""
    cluster = _cluster(backend, request)
    link = _link(cluster, request, "Cdm.0101")
    if cluster.users_of(link.name):
        raise CdmError(500, "Cdm.0021", "Given link name is in use")
    del cluster.links[link.name]
    return Response()


def _cluster(backend: Backend, request: Request) -> Cluster:
    cluster = backend.cluster(request.params["cluster_id"], request.params["project_id"])
    cluster.require_status(NORMAL)
    return cluster


def _link(cluster: Cluster, request: Request, code: str) -> Link:
    name = request.params["link_name"]
    link = cluster.links.get(name)
    if link is None:
        status = int(cluster.behaviour.not_found_status)
        raise CdmError(status, code, f"Link [{name}] doesn't exist.")
    return link


def _link_in(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the single link in the body of a create or update call."""
    links = body.get("links")
    if not isinstance(links, list) or len(links) != 1 or not isinstance(links[0], dict):
        raise CdmWriteError(400, "Cdm.0018", "Exactly one link is expected.")
    link: dict[str, Any] = links[0]
    for key in ("name", "connector-name"):
        if not isinstance(link.get(key), str) or not link[key]:
            raise CdmWriteError(400, "Cdm.0018", f"The link has no {key}.")
    return link


def _require_new(cluster: Cluster, name: str) -> None:
    if name in cluster.links:
        raise CdmWriteError(400, "Cdm.0315", f"Link [{name}] already exists.")


def _test_connection(backend: Backend, cluster: Cluster, name: str) -> None:
    """Connect to the database behind a link, if it has one; other requests do not wait for it."""
    old = cluster.links.get(name)
    url = cluster.links.url_of(name, old.url if old else None)
    if url is None:
        return
    results: list[Result[None]] = []
    backend.event_queue.offload(lambda: jdbc.check(url), results.append)
    if not backend.event_queue.wait_until(lambda: bool(results), TEST_SECONDS):
        raise LinkTestError(f"Cannot connect: no answer within {TEST_SECONDS:.0f} s")
    if results[0].error is not None:
        raise LinkTestError(f"Cannot connect: {first_line(results[0].error)}")


_LINKS = "/v1.1/{project_id}/clusters/{cluster_id}/cdm/link"
_LINK = f"{_LINKS}/{{link_name}}"

ROUTES = [
    Route("create_link", "POST", _LINKS, create_link),
    Route("show_link", "GET", _LINK, show_link),
    Route("update_link", "PUT", _LINK, update_link),
    Route("delete_link", "DELETE", _LINK, delete_link),
]
