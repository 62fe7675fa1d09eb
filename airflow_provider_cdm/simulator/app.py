"""The ASGI application: records requests, calls their handlers, and applies scripted faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse

from airflow_provider_cdm.simulator.backend.request_log import error_of
from airflow_provider_cdm.simulator.errors import GatewayError, IamError, WireError
from airflow_provider_cdm.simulator.messages import Request, Response, json_response
from airflow_provider_cdm.simulator.routes.router import ROUTER
from airflow_provider_cdm.simulator.server import close_connection, reset_connection

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from airflow_provider_cdm.simulator.backend.backend import Backend
    from airflow_provider_cdm.simulator.backend.request_log import RecordedRequest
    from airflow_provider_cdm.simulator.config.faults import Fault
    from airflow_provider_cdm.simulator.gateway.web_access import WebAccess
    from airflow_provider_cdm.simulator.routes.routing import Route


#: Maximum size of a request's body, that of the cloud's API gateway by default.
MAX_BODY = 12 * 1024**2


class App:
    """The ASGI application.

    :param backend: state of the simulator.
    :param access: decides which requests are answered.
    """

    def __init__(self, backend: Backend, access: WebAccess) -> None:
        self._backend, self._access = backend, access
        self._release = asyncio.Event()

    def release(self) -> None:
        """End all current hangs and delays; must be called in the event loop."""
        self._release.set()
        self._release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request."""
        http = HttpRequest(scope, receive)
        request = _request_head(http)
        try:
            self._access.check(request, str(scope["server"][0]), ROUTER.match(request))
            request.body = await _read_body(http)
        except ClientDisconnect:
            return
        except GatewayError as error:
            error.request_id = secrets.token_hex(16)
            # The rest of the body is not read.
            headers = {"X-Request-Id": error.request_id, "Connection": "close"}
            refusal = json_response(error.body(), error.status, headers)
            await _send(refusal, scope, receive, send)
            return
        route = ROUTER.find(request)
        if route is not None and route.service == "control":
            control = await run_in_threadpool(ROUTER.handle, self._backend, request, route)
            await _send(control, scope, receive, send)
            return
        entry = self._backend.log.add(request, self._backend.clock.now())
        response = await self._respond(request, route, entry)
        if response is not None:
            entry.status = response.status
            if response.status >= 400:
                entry.error = error_of(response.body)
            await _send(response, scope, receive, send)
            return
        reset = entry.fault is not None and entry.fault.kind == "reset"
        (reset_connection if reset else close_connection)(scope["state"]["transport"])
        # uvicorn sends status 500 if the application returns before the connection is closed.
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _respond(
        self, request: Request, route: Route | None, entry: RecordedRequest
    ) -> Response | None:
        """Return the response to send; ``None`` closes or resets the connection."""
        faults = self._backend.faults
        fault = entry.fault = faults.take(request.route, request.job, precedes_handling=True)
        if fault is not None and fault.kind != "delay":
            if fault.effect_delay is not None:
                await run_in_threadpool(self._schedule_effect, fault.effect_delay, request, route)
            return await self._faulty_response(fault, route, None)
        if fault is not None:
            await self._pause(fault.seconds)
        response = await run_in_threadpool(ROUTER.handle, self._backend, request, route)
        entry.user = request.identity.user if request.identity else None
        if fault is None and response.status < 400:
            fault = entry.fault = faults.take(request.route, request.job, precedes_handling=False)
            if fault is not None:
                return await self._faulty_response(fault, route, response)
        return response

    def _schedule_effect(self, seconds: float, request: Request, route: Route | None) -> None:
        backend = self._backend

        def effect() -> None:
            ROUTER.handle(backend, request, route)

        backend.event_queue.call_later(seconds, effect)

    async def _faulty_response(
        self, fault: Fault, route: Route | None, response: Response | None
    ) -> Response | None:
        """Return the response of a fault when it is due; ``None`` if there is none."""
        if fault.kind in {"hang", "delay"}:
            await self._pause(fault.seconds)
            return response if fault.kind == "delay" else None
        return _scripted_response(fault, route) if fault.kind in {"status", "body"} else None

    async def _pause(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._release.wait(), seconds)


def _request_head(http: HttpRequest) -> Request:
    """Return a request whose body has not been read."""
    raw_query = http.scope["query_string"].decode("latin-1")
    return Request(
        method=http.method,
        path=http.scope["raw_path"].decode("latin-1"),
        query=dict(parse_qsl(raw_query, keep_blank_values=True)),
        raw_query=raw_query,
        headers={name.lower(): value for name, value in http.headers.items()},
        body=b"",
    )


async def _read_body(http: HttpRequest) -> bytes:
    """Return the body of a request.

    :raises GatewayError: 413 if it is too large; the rest is not read.
    """
    body = bytearray()
    async for chunk in http.stream():
        body += chunk
        if len(body) > MAX_BODY:
            text = f"The request body is larger than {MAX_BODY // 1024**2} MB."
            raise GatewayError(413, "APIGW.0201", text)
    return bytes(body)


async def _send(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    await HttpResponse(response.body, response.status, response.headers)(scope, receive, send)


#: Error codes and messages of the gateway by status, for faults without a body.
_DEFAULT_ERRORS = {
    401: ("APIGW.0301", "Incorrect IAM authentication information: decrypt token fail"),
    403: ("APIGW.0302", "The IAM user is not authorized to access the API."),
    404: ("APIGW.0101", "The API does not exist or has not been published."),
    429: ("APIGW.0308", "The throttling threshold has been reached: policy user over ratelimit"),
    500: ("APIGW.0601", "Internal server error."),
    502: ("APIGW.0610", "No backend available."),
    503: ("APIGW.0613", "IAM is unavailable."),
    504: ("APIGW.0201", "Backend timeout."),
}


def _scripted_response(fault: Fault, route: Route | None) -> Response:
    """Return the response of a fault of kind ``status`` or ``body``."""
    request_id = secrets.token_hex(16)
    status, body = (fault.status or 200) if fault.kind == "status" else 200, fault.body
    if status >= 400 and body is None:
        code, text = _DEFAULT_ERRORS.get(status, ("APIGW.0201", "Request error."))
        iam = route is not None and route.service == "iam"
        error: WireError = IamError(status, "", text) if iam else GatewayError(status, code, text)
        error.request_id = request_id
        body = error.body()
    headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
    return Response(status, _encode(body), {**headers, **(fault.headers or {})})


def _encode(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode(errors="replace")
