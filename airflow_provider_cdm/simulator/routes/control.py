"""What is not part of the cloud: the web page, and controls for other processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.config.faults import Fault
from airflow_provider_cdm.simulator.config.reader import ConfigError, read
from airflow_provider_cdm.simulator.messages import Response, Request, json_response
from airflow_provider_cdm.simulator.routes.routing import Route
from airflow_provider_cdm.simulator.web import page, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cdm.simulator.backend.backend import Backend


def show_overview(backend: Backend, _call: Request) -> Response:
    """Show clusters, jobs, runs and requests."""
    return _html(page.overview(snapshot.state(backend)))


def show_run(backend: Backend, request: Request) -> Response:
    """Show one run; this is where a link from Airflow leads."""
    cluster = backend.clusters.get(request.params["cluster_id"])
    for lifecycle in cluster.lifecycles if cluster else ():
        found = (lifecycle.run.job_name, str(lifecycle.run.submission_id))
        if cluster is not None and found == (
            request.params["job_name"],
            request.params["submission_id"],
        ):
            return _html(page.run(cluster.name, snapshot.run(lifecycle), snapshot.tables(lifecycle)))
    return _html(page.missing("There is no such run, or the simulator was restarted since."), 404)


def show_state(backend: Backend, _call: Request) -> Response:
    """Return what the page shows as JSON."""
    return json_response(snapshot.state(backend))


def show_requests(backend: Backend, _call: Request) -> Response:
    """Return the log of requests, oldest first, secrets replaced."""
    return json_response([each.redacted() for each in backend.log.entries()])


def add_faults(backend: Backend, request: Request) -> Response:
    """Script one fault, or several as a list."""

    def add() -> None:
        given = _json(request)
        each = given if isinstance(given, list) else [given]
        faults = [read(Fault, fault, f"faults[{i}]") for i, fault in enumerate(each)]
        backend.faults.add(*faults)

    return _done(add)


def reset(backend: Backend, _call: Request) -> Response:
    """Begin anew as configured."""
    return _done(backend.reset)


def change_job(backend: Backend, request: Request) -> Response:
    """Add a job, or change these of its settings; ``cluster_id`` in the query picks the cluster."""

    def change() -> None:
        given = _json(request)
        if not isinstance(given, dict):
            raise ConfigError(["an object with settings of a job wanted"])
        first = next(iter(backend.clusters))
        cluster = backend.clusters.get(request.query.get("cluster_id", first))
        if cluster is None:
            raise ConfigError(["there is no such cluster"])
        cluster.change_job(request.params["job_name"], given)

    return _done(change)


def _json(request: Request) -> Any:
    try:
        return json.loads(request.body or b"{}")
    except ValueError as exc:
        raise ConfigError([f"not JSON: {exc}"]) from exc


def _done(action: Callable[[], None]) -> Response:
    try:
        action()
    except ConfigError as exc:
        return json_response({"problems": exc.problems}, 400)
    return json_response({})


def _html(text: str, status: int = 200) -> Response:
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": page.POLICY}
    return Response(status, text.encode(), headers)


ROUTES = [
    Route("page", "GET", "/", show_overview, "own"),
    Route("run_page", "GET", page.RUN_PAGE, show_run, "own"),
    Route("sim_state", "GET", "/_sim/state", show_state, "own"),
    Route("sim_requests", "GET", "/_sim/requests", show_requests, "own"),
    Route("sim_faults", "POST", "/_sim/faults", add_faults, "own"),
    Route("sim_reset", "POST", "/_sim/reset", reset, "own"),
    Route("sim_job", "POST", "/_sim/jobs/{job_name}", change_job, "own"),
]
