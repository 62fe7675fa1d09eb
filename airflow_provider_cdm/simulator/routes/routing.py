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
from airflow_provider_cdm.simulator.messages import Answer, Call, json_answer

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.backend import World

Handler = Callable[["World", Call], Answer]
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
    side: Side = "cdm"

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
        plain = {route.name for route in self._routes if route.side != "own"}
        return sorted(plain | {"list_jobs", *_ACTIONS.values()})

    def find(self, call: Call) -> Route | None:
        """Return the route of a request and note its name and parameters in the request.

        :param call: the request.
        """
        for route in self._routes:
            params = route.match(call.method, call.path)
            if params is not None:
                call.route, call.params = _name(route, call, params), params
                return route
        return None

    def handle(self, world: World, call: Call, route: Route | None) -> Answer:
        """Answer a request: settle what is due, check the caller, count, act.

        :param world: the simulator's state.
        :param call: the request.
        :param route: what :meth:`find` returned.
        """
        request_id = secrets.token_hex(16)
        with world.lock:
            world.agenda.settle()
            now = world.agenda.now()
            try:
                answer = self._act(world, call, route, now)
            except WireError as error:
                error.request_id = request_id
                answer = json_answer(error.body(), error.status, error.headers)
        iam = route is not None and route.side == "iam"
        answer.headers["X-IAM-Trace-Id" if iam else "X-Request-Id"] = request_id
        answer.headers.setdefault("X-Request-Id", request_id)
        answer.headers["Date"] = formatdate(now, usegmt=True)
        return answer

    def _act(self, world: World, call: Call, route: Route | None, now: float) -> Answer:
        if route is None:
            if call.path.startswith("/v3"):
                raise IamError(404, "", f"No IAM route {call.method} {call.path} is simulated.")
            known = ", ".join(self.names())
            text = f"The API does not exist; {call.method} {call.path} is none of: {known}"
            raise GatewayError(404, "APIGW.0101", text)
        if route.side == "cdm":
            if world.config.auth:
                call.identity = world.gateway.authorise(call, now)
            else:
                world.require_project(call.params["project_id"])
            world.quotas.charge(call.user, call.route, now)
        return route.handler(world, call)


_ACTIONS = {"start": "start_cluster", "stop": "stop_cluster", "restart": "restart_cluster"}


def _name(route: Route, call: Call, params: Mapping[str, str]) -> str:
    """Tell apart what shares method and path: lists from single jobs, and the cluster actions."""
    if route.name == "show_job" and params["job_name"] == "all":
        return "list_jobs"
    if route.name == "cluster_action":
        with contextlib.suppress(WireError):  # the handler will say what is wrong with the body
            return next((_ACTIONS[key] for key in call.json() if key in _ACTIONS), route.name)
    return route.name
