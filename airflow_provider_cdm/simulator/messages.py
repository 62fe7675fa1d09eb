"""A request on its way to a handler, and the answer on its way back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.simulator.errors import CdmError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm.simulator.gateway.api_gateway import Identity


@dataclass
class Request:
    """One request.

    :param path: as sent, still percent-encoded: a ``%2F`` in a job's name is no separator.
    :param query: decoded parameters; of a repeated one the last value.
    :param raw_query: the query as sent.
    :param headers: by lower-case name.
    :param params: what the route's pattern took out of the path, decoded.
    :param identity: who sent it, once that is established.
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
        """Name of the caller, as creation and update keys show it."""
        return self.identity.user if self.identity else "anonymous"

    @property
    def job(self) -> str | None:
        """The job it is about, if any."""
        return self.params.get("job_name") or self.query.get("jname")

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; an absent or empty body is an empty object.

        :raises CdmError: when it is something else; code and status are ASSUMED.
        """
        if not self.body.strip():
            return {}
        try:
            value = json.loads(self.body)
        except (ValueError, UnicodeDecodeError):
            value = None
        if value == "":  # one published sample sends an empty string
            return {}
        if not isinstance(value, dict):
            raise CdmError(400, "Cdm.0010", "The request body is not a JSON object.")
        return value


@dataclass
class Response:
    """What a handler returns."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer with a JSON body.

    :param value: anything JSON can spell.
    :param status: HTTP status.
    :param headers: additional headers.
    """
    body = json.dumps(value, ensure_ascii=False).encode()
    return Response(status, body, {"Content-Type": "application/json", **(headers or {})})
