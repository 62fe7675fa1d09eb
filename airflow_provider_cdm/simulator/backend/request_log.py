"""The log of requests, for tests to look at and for people to read: secrets do not show in it."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm.simulator.config.faults import Fault
    from airflow_provider_cdm.simulator.messages import Request

#: How many requests are kept; a demo may be polled for days.
KEPT = 20_000
_HIDDEN = "***"
_SECRET_HEADERS = frozenset(
    {"x-auth-token", "x-subject-token", "authorization", "x-security-token"}
)
_SECRET_WORDS = ("password", "secret", "token", "passcode", "accesskey", "securitykey")


@dataclass
class RecordedRequest:
    """One request the simulator got.

    The fields hold everything as it was sent, so that a test can look; what is printed or shown on
    the page does not: see :meth:`redacted`.

    :param at: when it came, by the simulator's clock, in seconds since 1970.
    :param path: as sent, percent-encoded.
    :param route: short name of the route, ``unknown`` where there is none.
    :param headers: by lower-case name.
    :param status: of the answer; ``None`` when there was none (yet).
    :param user: who sent it, when that was established.
    :param fault: the fault that hit it.
    """

    at: float
    method: str
    path: str
    query: Mapping[str, str]
    route: str
    headers: Mapping[str, str]
    body: bytes
    status: int | None = None
    user: str | None = None
    fault: Fault | None = None

    def json(self) -> Any:
        """Return the body read as JSON, ``None`` for an empty one.

        :raises ValueError: when it is not JSON.
        """
        return json.loads(self.body) if self.body else None

    def redacted(self) -> dict[str, Any]:
        """Return everything as plain data, secrets replaced."""
        headers = {
            name: _HIDDEN if name in _SECRET_HEADERS else value
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
            "body": _redacted_body(self.body),
            "status": self.status,
            "user": self.user,
            "fault": f"{fault.when} {fault.kind}" if fault else None,
        }

    def __repr__(self) -> str:
        shown = {key: value for key, value in self.redacted().items() if key != "headers"}
        inside = ", ".join(f"{key}={value!r}" for key, value in shown.items())
        return f"RecordedRequest({inside})"


class RequestLog:
    """The requests since the start or the last reset; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[RecordedRequest] = deque(maxlen=KEPT)

    def add(self, request: Request, at: float) -> RecordedRequest:
        """Record a request that has just come.

        :param request: the request.
        :param at: the present instant.
        """
        entry = RecordedRequest(
            at=at,
            method=request.method,
            path=request.path,
            query=request.query,
            route=request.route,
            headers=request.headers,
            body=request.body,
        )
        with self._lock:
            self._entries.append(entry)
        return entry

    def entries(self) -> list[RecordedRequest]:
        """Return what is recorded, oldest first."""
        with self._lock:
            return list(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()


def _redacted_body(body: bytes) -> Any:
    if not body:
        return None
    try:
        return _redacted(json.loads(body))
    except ValueError:
        return f"({len(body)} bytes, not JSON)"


def _redacted(value: Any) -> Any:
    if isinstance(value, list):
        return [_redacted(each) for each in value]
    if not isinstance(value, dict):
        return value
    # A link spells its password as {"name": "linkConfig.password", "value": ...}.
    if is_secret(value.get("name")) and "value" in value:
        return {**value, "value": _HIDDEN}
    return {
        key: _HIDDEN if is_secret(key) and isinstance(each, str) else _redacted(each)
        for key, each in value.items()
    }


def is_secret(name: object) -> bool:
    """Return whether what has this name is not for everybody's eyes.

    :param name: of a key or an input.
    """
    text = name.lower() if isinstance(name, str) else ""
    return any(word in text for word in _SECRET_WORDS)
