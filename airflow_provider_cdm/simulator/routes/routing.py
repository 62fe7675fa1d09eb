"""From method and path to a handler, and from its result or error to an answer."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from airflow_provider_cdm.simulator.errors import GatewayError, IamError, WireError
from airflow_provider_cdm.simulator.messages import Response, Request, json_response

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.backend import Backend

Handler = Callable[["World", Request], Response]
#: ``cdm`` wants credentials for the project in the path, ``iam`` looks after itself, ``own`` is not
#: part of the cloud: pages and controls.
Side = Literal["cdm", "iam", "own"]


@dataclass(frozen=True)
class Route:
    """One operation.

    :param name: short name, as faults, quotas and the log use it.
    :param pattern: path with ``{name}`` for a part to take out.
    """

    name: str
    method: str
    pattern: str
    handler: Handler
    service: Side = "cdm"

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """Return the parts taken out of a path, or ``None`` when it is another route's.

        :param method: of the request.
        :param path: still percent-encoded; it is split before it is decoded.
        """
        if method != self.method:
            return None
        wanted, given = self.pattern.split("/"), path.split("/")
        if len(wanted) != len(given):
            return None
        params: dict[str, str] = {}
        for pattern, raw in zip(wanted, given, strict=True):
            part = unquote(raw, errors="replace")
            if pattern.startswith("{"):
                if not part:
                    return None
                params[pattern.strip("{}")] = part
            elif pattern != part:
                return None
        return params


class Router:
    """All routes of a simulator.

    :param routes: the first that matches gets the request.
    """

    def __init__(self, routes: list[Route]) -> None:
        self._routes = routes

    def names(self) -> list[str]:
        """Return the short names of all operations of the cloud."""
        plain = {route.name for route in self._routes if route.service != "own"}
        return sorted(plain | {"list_jobs", *_ACTIONS.values()})

    def find(self, request: Request) -> Route | None:
        """Return the route of a request and note its name and parameters in the request.

        :param request: the request.
        """
        for route in self._routes:
            params = route.match(request.method, request.path)
            if params is not None:
                request.route, request.params = _name(route, request, params), params
                return route
        return None

    def handle(self, backend: Backend, request: Request, route: Route | None) -> Response:
        """Answer a request: settle what is due, check the caller, count, act.

        :param backend: the simulator's state.
        :param request: the request.
        :param route: what :meth:`find` returned.
        """
        request_id = secrets.token_hex(16)
        with backend.lock:
            backend.event_queue.run_due()
            now = backend.event_queue.now()
            try:
                response = self._act(backend, request, route, now)
            except WireError as error:
                error.request_id = request_id
                response = json_response(error.body(), error.status, error.headers)
        iam = route is not None and route.service == "iam"
        response.headers["X-IAM-Trace-Id" if iam else "X-Request-Id"] = request_id
        response.headers.setdefault("X-Request-Id", request_id)
        response.headers["Date"] = formatdate(now, usegmt=True)
        return response

    def _act(self, backend: Backend, request: Request, route: Route | None, now: float) -> Response:
        if route is None:
            if request.path.startswith("/v3"):
                raise IamError(404, "", f"No IAM route {request.method} {request.path} is simulated.")
            known = ", ".join(self.names())
            text = f"The API does not exist; {request.method} {request.path} is none of: {known}"
            raise GatewayError(404, "APIGW.0101", text)
        if route.service == "cdm":
            if backend.config.auth:
                request.identity = backend.gateway.authorize(request, now)
            else:
                backend.require_project(request.params["project_id"])
            backend.quotas.charge(request.user, request.route, now)
        return route.handler(backend, request)


_ACTIONS = {"start": "start_cluster", "stop": "stop_cluster", "restart": "restart_cluster"}


def _name(route: Route, request: Request, params: Mapping[str, str]) -> str:
    """Tell apart what shares method and path: lists from single jobs, and the cluster actions."""
    if route.name == "show_job" and params["job_name"] == "all":
        return "list_jobs"
    if route.name == "cluster_action":
        with contextlib.suppress(WireError):  # the handler will say what is wrong with the body
            return next((_ACTIONS[key] for key in request.json() if key in _ACTIONS), route.name)
    return route.name
