"""The application: records each request, lets it be answered, and spoils answers as scripted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from airflow_provider_cdm.simulator.errors import GatewayError, IamError, WireError
from airflow_provider_cdm.simulator.messages import Answer, Call
from airflow_provider_cdm.simulator.routes.router import ROUTER
from airflow_provider_cdm.simulator.server import drop, reset

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from airflow_provider_cdm.simulator.backend.backend import World
    from airflow_provider_cdm.simulator.backend.request_log import RecordedRequest
    from airflow_provider_cdm.simulator.config.faults import Fault
    from airflow_provider_cdm.simulator.routes.routing import Route


class App:
    """An ASGI application over one world.

    :param world: the simulator's state.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._release = asyncio.Event()

    def release(self) -> None:
        """End every hang and delay that is going on; to be called in the event loop."""
        self._release.set()
        self._release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            call = await _call(Request(scope, receive))
        except ClientDisconnect:
            return
        route = ROUTER.find(call)
        if route is not None and route.side == "own":
            own = await run_in_threadpool(ROUTER.handle, self._world, call, route)
            await _respond(own, scope, receive, send)
            return
        entry = self._world.log.add(call, self._world.clock.now())
        answer = await self._answer(call, route, entry)
        if answer is not None:
            entry.status = answer.status
            await _respond(answer, scope, receive, send)
            return
        rude = entry.fault is not None and entry.fault.kind == "reset"
        (reset if rude else drop)(scope["state"]["transport"])
        while (await receive())["type"] != "http.disconnect":  # or uvicorn would answer 500
            pass

    async def _answer(
        self, call: Call, route: Route | None, entry: RecordedRequest
    ) -> Answer | None:
        """Return what is sent; ``None`` breaks the connection."""
        faults = self._world.faults
        fault = entry.fault = faults.take(call.route, call.job, answers_first=True)
        if fault is not None and fault.kind != "delay":
            if fault.effect_delay is not None:
                await run_in_threadpool(self._plan_effect, fault.effect_delay, call, route)
            return await self._spoilt(fault, route, None)
        if fault is not None:
            await self._pause(fault.seconds)
        answer = await run_in_threadpool(ROUTER.handle, self._world, call, route)
        entry.user = call.identity.user if call.identity else None
        if fault is None and answer.status < 400:
            fault = entry.fault = faults.take(call.route, call.job, answers_first=False)
            if fault is not None:
                return await self._spoilt(fault, route, answer)
        return answer

    def _plan_effect(self, seconds: float, call: Call, route: Route | None) -> None:
        world = self._world

        def effect() -> None:
            ROUTER.handle(world, call, route)

        world.agenda.after(seconds, effect)

    async def _spoilt(
        self, fault: Fault, route: Route | None, answer: Answer | None
    ) -> Answer | None:
        """Return what is sent instead of an answer, when it is time; ``None`` is nothing."""
        if fault.kind in {"hang", "delay"}:
            await self._pause(fault.seconds)
            return answer if fault.kind == "delay" else None
        return _scripted(fault, route) if fault.kind in {"status", "body"} else None

    async def _pause(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._release.wait(), seconds)


async def _call(request: Request) -> Call:
    raw_query = request.scope["query_string"].decode("latin-1")
    return Call(
        method=request.method,
        path=request.scope["raw_path"].decode("ascii"),
        query=dict(parse_qsl(raw_query, keep_blank_values=True)),
        raw_query=raw_query,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=await request.body(),
    )


async def _respond(answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    await Response(answer.body, answer.status, answer.headers)(scope, receive, send)


#: What the gateway says with some statuses; a fault may say something else.
_PLAUSIBLE = {
    401: ("APIGW.0301", "Incorrect IAM authentication information: decrypt token fail"),
    403: ("APIGW.0302", "The IAM user is not authorized to access the API."),
    404: ("APIGW.0101", "The API does not exist or has not been published."),
    429: ("APIGW.0308", "The throttling threshold has been reached: policy user over ratelimit"),
    500: ("APIGW.0601", "Internal server error."),
    502: ("APIGW.0610", "No backend available."),
    503: ("APIGW.0613", "IAM is unavailable."),
    504: ("APIGW.0201", "Backend timeout."),
}


def _scripted(fault: Fault, route: Route | None) -> Answer:
    """Return the answer of a fault of kind ``status`` or ``body``."""
    request_id = secrets.token_hex(16)
    status, body = (fault.status or 200) if fault.kind == "status" else 200, fault.body
    if status >= 400 and body is None:
        code, text = _PLAUSIBLE.get(status, ("APIGW.0201", "Request error."))
        iam = route is not None and route.side == "iam"
        error: WireError = IamError(status, "", text) if iam else GatewayError(status, code, text)
        error.request_id = request_id
        body = error.body()
    headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
    return Answer(status, _bytes(body), {**headers, **(fault.headers or {})})


def _bytes(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()
