"""Routes that are not part of the cloud: the page, and controls for other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.backend import run_control
from airflow_provider_cdm.simulator.backend.run_control import RunAction
from airflow_provider_cdm.simulator.config.faults import Fault
from airflow_provider_cdm.simulator.config.reader import ConfigError, read
from airflow_provider_cdm.simulator.messages import Request, Response, json_response, parse_json
from airflow_provider_cdm.simulator.routes.routing import Route
from airflow_provider_cdm.simulator.web import page, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cdm.simulator.backend.backend import Backend
    from airflow_provider_cdm.simulator.backend.cluster import Cluster
    from airflow_provider_cdm.simulator.backend.lifecycle import RunLifecycle


def show_overview(backend: Backend, _request: Request) -> Response:
    """Show clusters, jobs, runs and requests."""
    return _html(page.overview(snapshot.state(backend)))


def show_job_runs(backend: Backend, request: Request) -> Response:
    """Show the runs of a job; the link "CDM run" leads here while the number is not known."""
    cluster = backend.clusters.get(request.params["cluster_id"])
    name = request.params["job_name"]
    runs = snapshot.runs_of(cluster, name) if cluster else None
    if cluster is None or runs is None:
        return _html(page.missing("This job does not exist, or the simulator was restarted."), 404)
    return _html(page.job(cluster.name, name, runs))


def show_run(backend: Backend, request: Request) -> Response:
    """Show one run; the link "CDM run" in Airflow leads here."""
    found = _find_run(backend, request)
    if found is None:
        return _html(page.missing("This run does not exist, or the simulator was restarted."), 404)
    cluster, lifecycle = found
    whole = next(
        (
            snapshot.run(item)
            for item in cluster.lifecycles
            if item.run.submission_id == lifecycle.run.part_of
        ),
        None,
    )
    tables = snapshot.tables(cluster, lifecycle)
    return _html(page.run(cluster.name, snapshot.run(lifecycle), tables, whole))


def control_run(backend: Backend, request: Request) -> Response:
    """Stop an active run, fail it, or slow it down."""

    def control() -> None:
        found = _find_run(backend, request)
        if found is None:
            raise ConfigError(["the run does not exist"])
        run_control.apply(read(RunAction, _json(request), ""), *found)

    return _apply(control)


def _find_run(backend: Backend, request: Request) -> tuple[Cluster, RunLifecycle] | None:
    cluster = backend.clusters.get(request.params["cluster_id"])
    key = (request.params["job_name"], request.params["submission_id"])
    for lifecycle in cluster.lifecycles if cluster else ():
        run = lifecycle.run
        if cluster is not None and (run.job_name, str(run.submission_id)) == key:
            return cluster, lifecycle
    return None


def show_state(backend: Backend, _request: Request) -> Response:
    """Return the content of the page as JSON."""
    return json_response(snapshot.state(backend))


def show_requests(backend: Backend, _request: Request) -> Response:
    """Return the request log, the oldest request first, with redacted secrets."""
    return json_response([request.redacted() for request in backend.log.entries()])


def add_faults(backend: Backend, request: Request) -> Response:
    """Add one fault, or a list of faults."""

    def add() -> None:
        body = _json(request)
        items = body if isinstance(body, list) else [body]
        faults = [read(Fault, item, f"faults[{i}]") for i, item in enumerate(items)]
        backend.faults.add(*faults)

    return _apply(add)


def reset(backend: Backend, _request: Request) -> Response:
    """Return to the configured state."""
    return _apply(backend.reset)


def change_job(backend: Backend, request: Request) -> Response:
    """Add a job, or change some of its settings, in the cluster ``cluster_id`` of the query."""

    def change() -> None:
        settings = _json(request)
        if not isinstance(settings, dict):
            raise ConfigError(["expected an object with settings of a job"])
        first = next(iter(backend.clusters))
        cluster = backend.clusters.get(request.query.get("cluster_id", first))
        if cluster is None:
            raise ConfigError(["the cluster does not exist"])
        cluster.change_job(request.params["job_name"], settings)

    return _apply(change)


def _json(request: Request) -> Any:
    try:
        return parse_json(request.body or b"{}")
    except ValueError as exc:
        raise ConfigError([f"not JSON: {exc}"]) from exc


def _apply(action: Callable[[], None]) -> Response:
    try:
        action()
    except ConfigError as exc:
        return json_response({"problems": exc.problems}, 400)
    return json_response({})


def _html(text: str, status: int = 200) -> Response:
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": page.POLICY}
    return Response(status, text.encode(errors="replace"), headers)


ROUTES = [
    Route("page", "GET", "/", show_overview, "control"),
    Route("job_page", "GET", page.JOB_PAGE, show_job_runs, "control"),
    Route("run_page", "GET", page.RUN_PAGE, show_run, "control"),
    Route("sim_state", "GET", "/_sim/state", show_state, "control"),
    # Thousands of requests take a second to show.
    Route("sim_requests", "GET", "/_sim/requests", show_requests, "control", needs_lock=False),
    Route("sim_faults", "POST", "/_sim/faults", add_faults, "control"),
    Route("sim_reset", "POST", "/_sim/reset", reset, "control"),
    Route("sim_run", "POST", f"/_sim{page.RUN_PAGE}", control_run, "control"),
    Route("sim_job", "POST", "/_sim/jobs/{job_name}", change_job, "control"),
]
