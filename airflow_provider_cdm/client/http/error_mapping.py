"""The one interpreter of failed exchanges: from status, headers and body to an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.sansio import Request, Response, TransportError
from airflow_provider_cdm.client.text import read_json, redact, sanitize

_EXCERPT = 300
_ID_LIMIT = 100

# Only codes whose meaning is the same in every edition of the error tables are listed; any other
# CDM code is a final refusal (https://support.huaweicloud.com/intl/en-us/api-cdm/, "Error codes").
_CDM_CODES: dict[str, type[errors.CdmError]] = {
    "Cdm.0000": errors.CdmUnavailable,
    "Cdm.0031": errors.CdmUnavailable,
    "Cdm.0032": errors.CdmAuthError,
    "Cdm.0036": errors.CdmUnavailable,
    "Cdm.0052": errors.CdmAlreadyRunning,
    "Cdm.0053": errors.CdmNotRunning,
    "Cdm.0054": errors.CdmNotFound,
    "Cdm.0095": errors.CdmNotFound,
    "Cdm.0100": errors.CdmNotFound,
    "Cdm.0101": errors.CdmNotFound,
    "Cdm.0102": errors.CdmNotFound,
    "Cdm.0104": errors.CdmAlreadyExists,
    "Cdm.0201": errors.CdmUnavailable,
    "Cdm.0202": errors.CdmUnavailable,
    "Cdm.0307": errors.CdmUnavailable,
    "Cdm.0315": errors.CdmAlreadyExists,
    "Cdm.0316": errors.CdmNotFound,
    "Cdm.0318": errors.CdmAlreadyExists,
    "Cdm.0319": errors.CdmNotFound,
    "Cdm.0321": errors.CdmInUse,
    "Cdm.0322": errors.CdmInUse,
    "Cdm.0323": errors.CdmAlreadyRunning,
}

_HINTS: dict[type[errors.CdmError], str] = {
    errors.CdmAuthError: (
        "Check user, password (or access key), domain and project of the connection, and that the"
        " IAM user may use CDM in this project."
    ),
    errors.CdmNotFound: (
        "Check the spelling of the job or link, the cluster id, project and region; with user"
        " isolation on, a cluster hides the jobs and links of other users."
    ),
    errors.CdmAlreadyExists: "Choose another name, or update what exists.",
    errors.CdmAlreadyRunning: (
        "Wait until that run has ended, or set if_running to 'wait' or 'attach'."
    ),
    errors.CdmInUse: (
        "A job is in use while it runs, a link while jobs refer to it: wait for those runs, or stop"
        " or delete those jobs."
    ),
    errors.CdmThrottled: "Poll less often, or spread the work over several IAM users.",
    errors.CdmUnavailable: (
        "Usually passes by itself; check the endpoint and the proxy if it does not."
    ),
    errors.CdmBadResponse: (
        "Check that the endpoint is that of CDM, and that no proxy answers for it."
    ),
}
#: Beside what a check of CDM found wrong.
_CHECKED_HINT = (
    "CDM tried what was sent: check host, port, user and password, and that the cluster reaches"
    " the other side."
)


def from_transport(
    error: TransportError, operation: str, request: Request
) -> errors.CdmUnavailable:
    """Make our error of a failed exchange.

    :param operation: what was tried, such as ``start job 'a' in cluster 'b'``.
    :param request: what was sent.
    """
    came_back = "no complete answer arrived" if error.sent else "the server could not be reached"
    parts = urlsplit(request.url)
    reason = redact(error.reason, request.secrets)
    return errors.CdmUnavailable(
        f"Could not {operation}: {came_back} from {parts.scheme}://{parts.netloc} ({reason}). "
        + _HINTS[errors.CdmUnavailable],
        effect_unknown=error.sent,
    )


def from_response(response: Response, operation: str, now: float) -> errors.CdmError | None:
    """Interpret an answer: ``None`` when it is a success, else the error that it means.

    CDM's own code decides before the HTTP status does, since the same code is documented with
    status 400 and 500. Understands the bodies of CDM, the API gateway and IAM.

    :param operation: what was tried, such as ``start job 'a' in cluster 'b'``.
    :param now: epoch seconds, to turn an HTTP date in ``Retry-After`` into seconds.
    """
    if 200 <= response.status < 300:
        return None
    body = parse_error_body(response.body)
    text = redact(_redirect(response) or body.text, response.secrets)
    code = body.code if body.code == redact(body.code or "", response.secrets) else None
    # CDM answers 500 to a check that failed, and that is no failure on its side.
    cls = errors.CdmRefused if body.checked else _class_of(response.status, code, body.text)
    request_id = _request_id(response, body.request_id)
    came_back = ", ".join(
        part
        for part in (code, f"HTTP {response.status}", request_id and f"request id {request_id}")
        if part
    )
    hint = _HINTS.get(cls, "The request has to be changed; repeating it will not help.")
    if body.checked:
        hint = _CHECKED_HINT
    return cls(
        f"Could not {operation}: {text or 'no reason given'} ({came_back}). {hint}",
        http_status=response.status,
        code=code,
        request_id=request_id,
        retry_after=_retry_after(response, now),
        retryable=_retryable(cls, response.status),
        effect_unknown=cls is errors.CdmUnavailable,
    )


def bad_response(response: Response, operation: str, problem: str) -> errors.CdmBadResponse:
    """Make the error for an answer that arrived but cannot be what the API documents."""
    request_id = _request_id(response)
    came_back = f"HTTP {response.status}" + (f", request id {request_id}" if request_id else "")
    problem = redact(problem, response.secrets)
    begins = redact(excerpt(response.body), response.secrets)
    return errors.CdmBadResponse(
        f"Could not {operation}: {problem} ({came_back}; the body begins {begins!r})."
        f" {_HINTS[errors.CdmBadResponse]}",
        http_status=response.status,
        request_id=request_id,
        effect_unknown=True,
    )


def refused(response: Response, operation: str, reasons: list[str]) -> errors.CdmRefused:
    """Make the error for an answer of success that tells of errors all the same."""
    text = redact("; ".join(reasons), response.secrets)
    return errors.CdmRefused(
        f"Could not {operation}: {text} (HTTP {response.status}).",
        http_status=response.status,
        request_id=_request_id(response),
    )


def excerpt(body: bytes) -> str:
    """The beginning of a body on one line, for people."""
    return sanitize(
        " ".join(body[: 4 * _EXCERPT].decode("utf-8", "replace").split()), limit=_EXCERPT
    )


class ErrorBody(NamedTuple):
    """What an error body says.

    :param code: in its usual spelling; ``None`` if there is none.
    :param text: may be empty.
    :param request_id: of the gateway, which repeats its header there.
    :param checked: whether it is the result of a check that CDM made and that failed.
    """

    code: str | None
    text: str
    request_id: str | None = None
    checked: bool = False


def parse_error_body(body: bytes) -> ErrorBody:
    """Read any of the documented error bodies, and as much as possible of any other."""
    try:
        data = read_json(body)
    except ValueError:
        data = None
    if not isinstance(data, Mapping):
        return ErrorBody(None, excerpt(body))
    nested = data.get("error")
    if isinstance(nested, Mapping):
        data = nested
    code = _usual_code(_first(data, "errCode", "error_code", "errorCode", "code"))
    # "ternalMessage" is how one documented answer spells it.
    text = _first(
        data, "externalMessage", "ternalMessage", "error_msg", "errorMsg", "message", "title"
    )
    complaints = validation_messages(data.get("validation-result"))
    return ErrorBody(
        code=code,
        text=(text or "; ".join(complaints))[: 4 * _EXCERPT],
        request_id=(_first(data, "request_id") or "")[:_ID_LIMIT] or None,
        checked=bool(complaints) and code is None,
    )


def validation_messages(found: Any, status: str = "ERROR") -> list[str]:
    """Collect the texts of a ``validation-result``, however deep they are nested.

    :param status: ``ERROR`` or ``WARNING``.
    """
    texts: list[str] = []
    pending = [found]
    while pending:
        one = pending.pop()
        if isinstance(one, Mapping):
            if str(one.get("status", "")).upper() == status:
                texts.append(str(one.get("message", "no reason given")))
                continue
            one = list(one.values())
        if isinstance(one, list):
            pending.extend(reversed(one))
    return texts


def _first(data: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = data.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return None


def _usual_code(code: str | None) -> str | None:
    # The gateway is called APIG or APIGW; one documented sample has five digits (Cdm.00095).
    # A bare number (keystone puts the HTTP status there) says nothing new, a sentence is no code.
    if code is None or code.isdigit() or not re.fullmatch(r"[\w.-]{1,64}", code):
        return None
    if match := re.fullmatch(r"(?i)cdm\.0*(\d{1,9})", code):
        return f"Cdm.{int(match[1]):04d}"
    if match := re.fullmatch(r"(?i)apigw?\.(\d+)", code):
        return f"APIGW.{match[1]}"
    return code


def _class_of(status: int, code: str | None, text: str) -> type[errors.CdmError]:
    # "Deleting a Link" has this code for a link in use, the table gives it another meaning.
    if code == "Cdm.0021" and "in use" in text.lower():
        return errors.CdmInUse
    if code is not None and code.startswith("Cdm."):
        # What is missing, or wrong in another way; only with this status is it clear which.
        if code == "Cdm.0001" and status == 404:
            return errors.CdmNotFound
        return _CDM_CODES.get(code, errors.CdmRefused)
    if status == 429:
        return errors.CdmThrottled
    if status in (401, 403, 407):
        return errors.CdmAuthError
    if status == 404:
        return errors.CdmNotFound
    # 410 is IAM's "service in failover".
    if status in (408, 410, 425) or status >= 500:
        return errors.CdmUnavailable
    if status >= 400:
        return errors.CdmRefused
    return errors.CdmBadResponse


def _retryable(cls: type[errors.CdmError], status: int) -> bool:
    if cls is errors.CdmUnavailable and status in (501, 505):
        return False
    return cls.default_retryable


def _redirect(response: Response) -> str | None:
    if 300 <= response.status < 400:
        target = sanitize(response.headers.get("location", "an unnamed place"), _EXCERPT)
        target = target.split("?")[0]
        return f"the server redirects to {target}, and redirects are not followed"
    return None


def _retry_after(response: Response, now: float) -> float | None:
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
        # HTTP dates are in UTC, and one of their forms does not say so.
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(0.0, at.timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _request_id(response: Response, body: str | None = None) -> str | None:
    headers = response.headers
    found = headers.get("x-request-id") or headers.get("x-iam-trace-id") or body
    return sanitize(redact(found, response.secrets), _ID_LIMIT) if found else None
