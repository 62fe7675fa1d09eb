"""One operation of CDM's API as a value: what to send, and how to read the answer."""

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
    """Which of CDM's quotas a call draws on."""

    STATUS = "status"
    HISTORY = "history"
    LISTING = "job list"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One operation on CDM, before it is authorised.

    :param operation: what it does, to complete the sentence "Could not ...".
    :param path: path after ``/v1.1/{project_id}``, percent-encoded.
    :param parse: makes a value of a successful answer.
    :param body: JSON to send; not in the ``repr``, since a link's holds a password.
    :param idempotent: whether it may be repeated without a thought.
    :param wait_for_quota: whether to wait when a quota is used up.
    :param quota: which quota it draws on, for the calls that waiting makes.
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

    def target(self, project_id: str) -> str:
        """Path and query for one project."""
        query = f"?{urlencode(self.query, quote_via=quote)}" if self.query else ""
        return f"/v1.1/{segment(project_id)}{self.path}{query}"

    def payload(self) -> bytes | None:
        """The body on the wire."""
        return None if self.body is None else json.dumps(self.body).encode()


def segment(text: str) -> str:
    """Percent-encode a name, as one segment of a path."""
    # "." and ".." would be taken for directories by every hop on the way.
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")


def json_object(response: Response, call: Call[Any]) -> Mapping[str, Any]:
    """Read the body of an answer.

    :raises CdmBadResponse: when it is no JSON object.
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
