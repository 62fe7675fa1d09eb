"""The values that travel between the web server, the routes and the gateway."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_cdm.simulator.errors import CdmError, WireError


@dataclass(frozen=True)
class Identity:
    """The sender of a request: a user, or an agency acting for its account.

    :param user: name of the user, or ``account/agency``.
    :param domain: name of the account.
    :param projects: ids of the projects that the credentials give access to.
    """

    user: str
    domain: str
    projects: frozenset[str]


@dataclass
class Request:
    """One HTTP request.

    :param path: path as it was sent, still percent-encoded: a ``%2F`` in the name of a job does
        not separate two parts.
    :param query: decoded query parameters; the last value of a repeated parameter.
    :param raw_query: query string as it was sent.
    :param headers: headers by lower-case name.
    :param route: short name of the route, set by the router.
    :param params: decoded values of the placeholders in the route's pattern.
    :param identity: sender of the request, once the gateway has checked the credentials.
    """

    method: str
    path: str
    query: Mapping[str, str]
    raw_query: str
    headers: Mapping[str, str]
    body: bytes
    route: str = "unknown"
    params: Mapping[str, str] = field(default_factory=dict)
    identity: Identity | None = None

    @property
    def user(self) -> str:
        """Name of the sender, as the keys for creation and update show it."""
        return self.identity.user if self.identity else "anonymous"

    @property
    def job(self) -> str | None:
        """Name of the job that the request is about, if any."""
        return self.params.get("job_name") or self.query.get("jname")

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; an absent or empty body is an empty object.

        :raises CdmError: if the body is not a JSON object; code and status are ASSUMED.
        """
        if not self.body.strip():
            return {}
        try:
            value = parse_json(self.body)
        except ValueError:
            value = None
        if value == "":  # one published sample sends an empty string
            return {}
        if not isinstance(value, dict):
            raise CdmError(400, "Cdm.0010", "The request body is not a JSON object.")
        return value


@dataclass
class Response:
    """The HTTP response that a handler returns."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response with a JSON body.

    :param value: any value that JSON can represent.
    :param status: HTTP status.
    :param headers: additional headers.
    """
    try:
        body = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can show
        body = json.dumps(value).encode()
    return Response(status, body, {"Content-Type": "application/json", **(headers or {})})


def error_response(error: WireError) -> Response:
    """Return the response that an error means.

    :param error: error with the id of the request.
    """
    body = error.body()
    if isinstance(body, str):
        headers = {"Content-Type": "text/plain", **error.headers}
        return Response(error.status, body.encode(), headers)
    return json_response(body, error.status, error.headers)


#: Maximum number of lists and objects around a value in JSON, since much that handles it is
#: recursive.
MAX_DEPTH = 100


def parse_json(body: bytes) -> Any:
    """Return the value of JSON that can be shown again.

    :param body: JSON.
    :raises ValueError: if it is not JSON, has values that JSON or Unicode do not have, or is nested
        more than :data:`MAX_DEPTH` levels deep.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"JSON has no {name}")

    def parse_float(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("a number is out of range")
        return number

    try:
        value = json.loads(body, parse_constant=refuse, parse_float=parse_float)
    except RecursionError:
        raise ValueError("JSON is nested too deep") from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            part
            for item in level
            if isinstance(item, (dict, list))
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            break
    else:
        raise ValueError("JSON is nested too deep")
    # Strings with half of a surrogate pair cannot be encoded; UnicodeEncodeError is a ValueError.
    json.dumps(value, ensure_ascii=False).encode()
    return value
