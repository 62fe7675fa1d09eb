"""One operation of CDM's API as a value: what to send, and how to parse the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from airflow_provider_cdm.client.http import error_mapping
from airflow_provider_cdm.client.sansio import Response
from airflow_provider_cdm.client.text import read_json

T = TypeVar("T")


class Quota(Enum):
    """The quotas of CDM on which calls draw; each is 120 calls a minute, that of stops 1,200."""

    STATUS = "status"
    HISTORY = "history"
    LISTING = "job list"
    STOP = "stop"
    DELETE = "delete"

    # The poll planner looks quotas up all the time, and Enum computes this one in Python.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One operation of CDM, without authorization.

    :param operation: what it does, to complete the sentence "Could not ...".
    :param method: HTTP method.
    :param path: path after ``/v1.1/{project_id}``, percent-encoded.
    :param parse: function that returns the value of a successful answer.
    :param query: parameters of the query string, not encoded.
    :param body: JSON to send; not in the ``repr``, since that of a link contains a password.
    :param idempotent: whether it may be repeated when the effect of the first call is unknown.
    :param wait_for_quota: whether to wait while its quota is used up.
    :param quota: quota on which it draws, for calls that are made while waiting or after it.
    :param missing_if_404: whether any code of CDM with HTTP 404 means that there is no such thing.
    """

    operation: str
    method: str
    path: str
    parse: Callable[[Response, Call[T]], T]
    query: Mapping[str, str] | None = None
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    idempotent: bool = True
    wait_for_quota: bool = True
    quota: Quota | None = None
    missing_if_404: bool = False

    def target(self, project_id: str) -> str:
        """Return path and query for one project."""
        query = f"?{urlencode(self.query, quote_via=quote)}" if self.query else ""
        return f"/v1.1/{segment(project_id)}{self.path}{query}"

    def payload(self) -> bytes | None:
        """Return the body as it is sent."""
        return None if self.body is None else json.dumps(self.body).encode()


def segment(text: str) -> str:
    """Percent-encode a name as one segment of a path."""
    # Proxies on the way would resolve "." and ".." as directories.
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")


def json_object(response: Response, call: Call[Any]) -> Mapping[str, Any]:
    """Read the body of an answer.

    :raises CdmBadResponse: when it is not a JSON object.
    """
    if not response.body.strip():
        raise error_mapping.bad_response(response, call.operation, "the answer is empty")
    try:
        data = read_json(response.body)
    except ValueError:
        raise error_mapping.bad_response(
            response, call.operation, "the answer is not JSON"
        ) from None
    if not isinstance(data, dict):
        raise error_mapping.bad_response(
            response, call.operation, "the answer is not a JSON object"
        )
    return data
