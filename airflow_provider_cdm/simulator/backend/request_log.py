"""The log of requests, for tests and for the page; secrets are redacted where it is shown."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.messages import Request, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm.simulator.config.faults import Fault

#: Maximum number of requests in the log, since a demo may be polled for days.
MAX_ENTRIES = 20_000
#: Maximum size of all requests in the log, and of a body that it keeps, in bytes.
MAX_SIZE = 64 * 1024**2
MAX_BODY = 1024**2
_REDACTED = "***"
_SECRET_HEADERS = frozenset(
    {"x-auth-token", "x-subject-token", "authorization", "x-security-token"}
)
_SECRET_WORDS = ("password", "secret", "token", "passcode", "accesskey", "securitykey")


@dataclass
class RecordedRequest:
    """One request that the simulator received.

    The fields contain the request as it was sent, so that tests can check it. ``repr`` and the page
    show :meth:`redacted` values only.

    :param at: time at which it was received, by the simulator's clock, in seconds since 1970.
    :param path: path as it was sent, percent-encoded.
    :param route: short name of the route, ``unknown`` if there is none.
    :param headers: headers by lower-case name.
    :param body: body as it was sent; empty if it was larger than :data:`MAX_BODY`.
    :param body_size: size of the body in bytes.
    :param status: HTTP status of the response; ``None`` if none was sent (yet).
    :param user: name of the sender, if the credentials were valid.
    :param fault: fault that hit the request.
    :param error: error code and message of the response.
    """

    at: float
    method: str
    path: str
    query: Mapping[str, str]
    route: str
    headers: Mapping[str, str]
    body: bytes
    body_size: int
    status: int | None = None
    user: str | None = None
    fault: Fault | None = None
    error: str | None = None

    def json(self) -> Any:
        """Return the JSON value of the body, ``None`` for an empty body.

        :raises ValueError: if the body is not JSON, or was too large to be kept.
        """
        if self.body_size > len(self.body):
            raise ValueError(f"a body of {self.body_size} bytes was not kept")
        return json.loads(self.body) if self.body else None

    def redacted(self) -> dict[str, Any]:
        """Return the request as plain data with redacted secrets."""
        headers = {
            name: _REDACTED if name in _SECRET_HEADERS else value
            for name, value in self.headers.items()
        }
        fault = self.fault
        return {
            "at": self.at,
            "method": self.method,
            "path": self.path,
            "query": dict(self.query),
            "route": self.route,
            "headers": headers,
            "body": self._redacted_body(),
            "status": self.status,
            "user": self.user,
            "fault": f"{fault.when} {fault.kind}" if fault else None,
            "error": self.error,
        }

    @property
    def size(self) -> int:
        """Approximate size in memory."""
        texts = (self.method, self.path, self.route, *self.headers.values(), *self.query.values())
        return 1000 + len(self.body) + sum(map(len, texts)) + sum(map(len, self.query))

    def _redacted_body(self) -> Any:
        if not self.body_size:
            return None
        try:
            return _redacted(parse_json(self.body))
        except ValueError:
            kept = "not JSON" if self.body else "too large to be kept"
            return f"({self.body_size} bytes, {kept})"

    def __repr__(self) -> str:
        shown = {key: value for key, value in self.redacted().items() if key != "headers"}
        fields = ", ".join(f"{key}={value!r}" for key, value in shown.items())
        return f"RecordedRequest({fields})"


class RequestLog:
    """The requests since the start or the last reset; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[RecordedRequest] = deque()
        self._size = 0

    def add(self, request: Request, at: float) -> RecordedRequest:
        """Record a request.

        :param request: request that was received.
        :param at: current time in seconds since 1970.
        """
        entry = RecordedRequest(
            at=at,
            method=request.method,
            path=request.path,
            query=request.query,
            route=request.route,
            headers=request.headers,
            body=request.body if len(request.body) <= MAX_BODY else b"",
            body_size=len(request.body),
        )
        with self._lock:
            self._entries.append(entry)
            self._size += entry.size
            while len(self._entries) > MAX_ENTRIES or self._size > MAX_SIZE:
                self._size -= self._entries.popleft().size
        return entry

    def entries(self) -> list[RecordedRequest]:
        """Return the recorded requests, the oldest first."""
        with self._lock:
            return list(self._entries)

    def clear(self) -> None:
        """Remove all requests."""
        with self._lock:
            self._entries.clear()
            self._size = 0


def error_of(body: bytes) -> str | None:
    """Return code and message of an error response, ``None`` if its body has neither.

    :param body: body of a response of CDM, the gateway or IAM.
    """
    try:
        error = parse_json(body)
    except ValueError:
        return None
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    if not isinstance(error, dict):
        return None
    codes = (error.get(key) for key in ("errCode", "error_code", "code"))
    texts = (error.get(key) for key in ("externalMessage", "error_msg", "message"))
    parts = (next(filter(None, values), None) for values in (codes, texts))
    # The code of a Keystone error is the status, which is shown anyway.
    return ": ".join(part for part in parts if isinstance(part, str)) or None


def _redacted(value: Any) -> Any:
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    if not isinstance(value, dict):
        return value
    # The password of a link is sent as {"name": "linkConfig.password", "value": ...}.
    if is_secret(value.get("name")) and "value" in value:
        return {**value, "value": _REDACTED}
    return {
        key: _REDACTED if is_secret(key) and isinstance(item, str) else _redacted(item)
        for key, item in value.items()
    }


def is_secret(name: object) -> bool:
    """Return whether the value with this name is a secret.

    :param name: name of a key or an input.
    """
    text = name.lower() if isinstance(name, str) else ""
    return any(word in text for word in _SECRET_WORDS)
