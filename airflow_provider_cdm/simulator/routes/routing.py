"""Selects the handler of a request, and builds the response from its result or error."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from airflow_provider_cdm.simulator.errors import GatewayError, IamError, WireError
from airflow_provider_cdm.simulator.messages import Request, Response, error_response

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.backend import Backend

Handler = Callable[["Backend", Request], Response]
#: Routes of ``cdm`` need credentials for the project in the path; those of ``iam`` check them in
#: the handler; ``control`` is not part of the cloud: the page and the controls of the simulator.
Service = Literal["cdm", "iam", "control"]


@dataclass(frozen=True)
class Route:
    """One operation.

    :param name: short name for faults, quotas and the request log.
    :param pattern: path with placeholders such as ``{job_name}``.
    :param needs_lock: whether the handler uses the state that the backend's lock protects.
    """

    name: str
    method: str
    pattern: str
    handler: Handler
    service: Service = "cdm"
    needs_lock: bool = True

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """Return the values of the placeholders, or ``None`` if the path does not match.

        :param method: HTTP method of the request.
        :param path: percent-encoded path, which is split before it is decoded.
        """
        if method != self.method:
            return None
        patterns, parts = self.pattern.split("/"), path.split("/")
        if len(patterns) != len(parts):
            return None
        params: dict[str, str] = {}
        for pattern, raw in zip(patterns, parts, strict=True):
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

    :param routes: routes in the order in which they are tried.
    """

    def __init__(self, routes: list[Route]) -> None:
        self._routes = routes

    def names(self) -> list[str]:
        """Return the short names of all operations of CDM and IAM."""
        names = {route.name for route in self._routes if route.service != "control"}
        return sorted(names | {"list_jobs", *_ACTIONS.values()})

    def match(self, request: Request) -> Route | None:
        """Return the route of a request whose body need not be read yet.

        :param request: request to route.
        """
        for route in self._routes:
            if route.match(request.method, request.path) is not None:
                return route
        return None

    def find(self, request: Request) -> Route | None:
        """Return the route of a request, and set the request's route name and parameters.

        :param request: request to route.
        """
        for route in self._routes:
            params = route.match(request.method, request.path)
            if params is not None:
                request.route, request.params = _name_of(route, request, params), params
                return route
        return None

    def handle(self, backend: Backend, request: Request, route: Route | None) -> Response:
        """Run the due events, check credentials and quota, and return the handler's response.

        :param backend: state of the simulator.
        :param request: request to handle.
        :param route: route that :meth:`find` returned.
        """
        if route is not None and not route.needs_lock:
            return route.handler(backend, request)
        request_id = secrets.token_hex(16)
        with backend.lock:
            backend.event_queue.run_due()
            now = backend.event_queue.now()
            try:
                response = self._call_handler(backend, request, route, now)
            except WireError as error:
                error.request_id = request_id
                response = error_response(error)
        iam = route is not None and route.service == "iam"
        response.headers["X-IAM-Trace-Id" if iam else "X-Request-Id"] = request_id
        response.headers.setdefault("X-Request-Id", request_id)
        response.headers["Date"] = formatdate(now, usegmt=True)
        return response

    def _call_handler(
        self, backend: Backend, request: Request, route: Route | None, now: float
    ) -> Response:
        if route is None:
            if request.path.startswith("/v3"):
                raise IamError(
                    404, "", f"The simulator has no IAM route {request.method} {request.path}."
                )
            known = ", ".join(self.names())
            text = f"The API does not exist: {request.method} {request.path} is none of {known}"
            raise GatewayError(404, "APIGW.0101", text)
        if route.service == "cdm":
            if backend.config.auth:
                request.identity = backend.gateway.authorize(request, now)
            else:
                backend.require_project(request.params["project_id"])
            backend.quotas.charge(request.user, request.route, now)
        return route.handler(backend, request)


_ACTIONS = {"start": "start_cluster", "stop": "stop_cluster", "restart": "restart_cluster"}


def _name_of(route: Route, request: Request, params: Mapping[str, str]) -> str:
    """Return the short name of an operation, also where several share a method and path."""
    if route.name == "show_job" and params["job_name"] == "all":
        return "list_jobs"
    if route.name == "cluster_action":
        with contextlib.suppress(WireError):  # the handler reports an invalid body
            return next((_ACTIONS[key] for key in request.json() if key in _ACTIONS), route.name)
    return route.name
