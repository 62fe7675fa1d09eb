"""What is not part of the cloud: the web page, and controls for other processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.config.faults import Fault
from airflow_provider_cdm.simulator.config.reader import ConfigError, read
from airflow_provider_cdm.simulator.messages import Answer, Call, json_answer
from airflow_provider_cdm.simulator.routes.routing import Route
from airflow_provider_cdm.simulator.web import page, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_cdm.simulator.backend.backend import World


def show_overview(world: World, _call: Call) -> Answer:
    """Show clusters, jobs, runs and requests."""
    return _html(page.overview(snapshot.world(world)))


def show_run(world: World, call: Call) -> Answer:
    """Show one run; this is where a link from Airflow leads."""
    cluster = world.clusters.get(call.params["cluster_id"])
    for life in cluster.lives if cluster else ():
        found = (life.run.job_name, str(life.run.submission_id))
        if cluster is not None and found == (
            call.params["job_name"],
            call.params["submission_id"],
        ):
            return _html(page.run(cluster.name, snapshot.run(life), snapshot.tables(life)))
    return _html(page.missing("There is no such run, or the simulator was restarted since."), 404)


def show_state(world: World, _call: Call) -> Answer:
    """Return what the page shows as JSON."""
    return json_answer(snapshot.world(world))


def show_requests(world: World, _call: Call) -> Answer:
    """Return the log of requests, oldest first, secrets replaced."""
    return json_answer([each.redacted() for each in world.log.entries()])


def add_faults(world: World, call: Call) -> Answer:
    """Script one fault, or several as a list."""

    def add() -> None:
        given = _json(call)
        each = given if isinstance(given, list) else [given]
        faults = [read(Fault, fault, f"faults[{i}]") for i, fault in enumerate(each)]
        world.faults.add(*faults)

    return _done(add)


def reset(world: World, _call: Call) -> Answer:
    """Begin anew as configured."""
    return _done(world.reset)


def change_job(world: World, call: Call) -> Answer:
    """Add a job, or change these of its settings; ``cluster_id`` in the query picks the cluster."""

    def change() -> None:
        given = _json(call)
        if not isinstance(given, dict):
            raise ConfigError(["an object with settings of a job wanted"])
        first = next(iter(world.clusters))
        cluster = world.clusters.get(call.query.get("cluster_id", first))
        if cluster is None:
            raise ConfigError(["there is no such cluster"])
        cluster.change_job(call.params["job_name"], given)

    return _done(change)


def _json(call: Call) -> Any:
    try:
        return json.loads(call.body or b"{}")
    except ValueError as exc:
        raise ConfigError([f"not JSON: {exc}"]) from exc


def _done(action: Callable[[], None]) -> Answer:
    try:
        action()
    except ConfigError as exc:
        return json_answer({"problems": exc.problems}, 400)
    return json_answer({})


def _html(text: str, status: int = 200) -> Answer:
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": page.POLICY}
    return Answer(status, text.encode(), headers)


ROUTES = [
    Route("page", "GET", "/", show_overview, "own"),
    Route("run_page", "GET", page.RUN_PAGE, show_run, "own"),
    Route("sim_state", "GET", "/_sim/state", show_state, "own"),
    Route("sim_requests", "GET", "/_sim/requests", show_requests, "own"),
    Route("sim_faults", "POST", "/_sim/faults", add_faults, "own"),
    Route("sim_reset", "POST", "/_sim/reset", reset, "own"),
    Route("sim_job", "POST", "/_sim/jobs/{job_name}", change_job, "own"),
]
