"""Interprets failed exchanges: the only code that turns status, headers and body into an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.http import advice
from airflow_provider_cdm.client.http.dates import parse_http_date
from airflow_provider_cdm.client.sansio import Obstacle, Request, Response, TransportError
from airflow_provider_cdm.client.text import end_sentence, one_line, read_json, redact

#: Longest part of a body that is quoted in an error, in characters.
_EXCERPT_LIMIT = 300
_ID_LIMIT = 100
#: Longest time that a server may ask to wait, in seconds; a longer one counts as this.
MAX_RETRY_AFTER = 3600.0
#: Numbers that a text may spell out, and the seconds of a unit by its first letter.
_NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "ten": 10, "thirty": 30, "sixty": 60}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
# A time in a text, such as "5 minute", "60s", "one minute", "per second" or "/minute".
_TIME = re.compile(
    r"(?i)(?:\b(?P<number>[0-9]{1,6}(?:\.[0-9]{1,3})?)[\s-]*"
    rf"|\b(?P<word>an?|one|per|each|every|{'|'.join(_NUMBERS)})\s+(?=[a-z]{{3}})|/\s*(?=[a-z]{{3}}))"
    r"(?P<unit>s|m|h|(?:sec|second|min|minute|hour|day)s?)\b"
)

# Only codes that mean the same in every edition of the error tables are listed; every other code
# of CDM is a final refusal (https://support.huaweicloud.com/intl/en-us/api-cdm/, "Error codes").
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
    **{
        f"Cdm.{number:04d}": errors.CdmRefused
        for number in (
            *(1, 4, 9, 10, 11, 14, 18, 21, 24, 37, 51, 55, 56, 57, 58, 59, 60, 61, 65, 85, 89),
            *(317, 320, 327),
            # Faults of the connection to a database.
            *range(900, 951),
        )
    },
}

#: How the standard library reports a proxy that wants other credentials for a tunnel.
_TUNNEL_REFUSED = "Tunnel connection failed: 407"
_TRANSPORT_ADVICE: dict[Obstacle | None, str] = {
    Obstacle.NAME: (
        "Check the spelling of the endpoint, or of the region that it is made of, and that this"
        " machine can resolve the name."
    ),
    Obstacle.REFUSED: (
        "Nothing accepts connections to this address: check host and port of the endpoint, and"
        " that the network lets this machine connect to it."
    ),
    Obstacle.NO_ROUTE: (
        "Check that the network lets this machine connect to this address (firewall, security"
        " group, Proxy of the connection). If it usually does, this is temporary."
    ),
    Obstacle.CERTIFICATE: (
        "Check the endpoint; for a certificate of your own authority, set Verify TLS of the"
        " connection to the path of its CA bundle."
    ),
    Obstacle.PROXY: "Check Proxy of the connection, or HTTPS_PROXY and NO_PROXY of this machine.",
}


def from_transport(error: TransportError, operation: str, request: Request) -> errors.CdmError:
    """Return the error for an exchange without a usable response.

    :param error: failure of the transport.
    :param operation: what was tried, such as ``start job 'a' in cluster 'b'``.
    :param request: request that was sent.
    """
    parts = urlsplit(request.url)
    server = f"{parts.scheme}://{parts.netloc}"
    outcome = f"{server} gave no complete answer" if error.sent else f"Cannot connect to {server}"
    reason = redact(error.reason, request.secrets)
    if _TUNNEL_REFUSED in reason:
        return errors.CdmAuthError(
            f"{outcome} ({reason}). Could not {operation}. {advice.PROXY}", http_status=407
        )
    what_to_do = _TRANSPORT_ADVICE.get(error.obstacle, advice.TEMPORARY)
    return errors.CdmUnavailable(
        f"{outcome} ({reason}). Could not {operation}. {what_to_do}",
        effect_unknown=error.sent,
    )


def from_response(response: Response, operation: str, now: float) -> errors.CdmError | None:
    """Interpret a response: return ``None`` for a success, else the error that it means.

    CDM's own code takes precedence over the HTTP status, since the same code is documented with
    status 400 and 500. The error bodies of CDM, the API gateway and IAM are understood.

    :param response: response of the server.
    :param operation: what was tried, such as ``start job 'a' in cluster 'b'``.
    :param now: epoch seconds, to convert an HTTP date in ``Retry-After`` to seconds if the response
        has no date.
    """
    if 200 <= response.status < 300:
        return None
    body = parse_error_body(response.body)
    reason = redact(_redirect(response) or body.message, response.secrets)
    code = body.code if body.code == redact(body.code or "", response.secrets) else None
    # CDM sends status 500 for a failed validation, which is not a failure on its side.
    cls = (
        errors.CdmRefused if body.is_validation else _class_of(response.status, code, body.message)
    )
    request_id = _request_id(response, body.request_id)
    parts = (code, f"HTTP {response.status}", request_id and f"request id {request_id}")
    details = ", ".join(part for part in parts if part)
    given = advice.advice_for(cls, response.status, code, body.message)
    if body.is_validation:
        given = advice.Advice(advice.VALIDATION)
    error = cls(
        f"{end_sentence(reason or 'The server gave no reason')} Could not {operation} ({details})."
        f" {given.text}",
        http_status=response.status,
        code=code,
        request_id=request_id,
        retry_after=_retry_after(response, body.message, now),
        retryable=_retryable(cls, response.status),
        effect_unknown=cls is errors.CdmUnavailable or _may_have_had_its_effect(response, body),
    )
    error.advice, error.concerns_project = given
    return error


def as_not_found(error: errors.CdmRefused) -> errors.CdmError:
    """Return the error for what does not exist if CDM says that with HTTP 404 and any code.

    :param error: refusal of a call about a thing that may not exist; returned if it is another one.
    """
    if error.http_status != 404:
        return error
    given = advice.advice_for(errors.CdmNotFound, 404, error.code, "")
    missing = errors.CdmNotFound(
        f"{error.message.removesuffix(error.advice)}{given.text}",
        http_status=404,
        code=error.code,
        request_id=error.request_id,
    )
    missing.advice, missing.concerns_project = given
    return missing


def bad_response(response: Response, operation: str, problem: str) -> errors.CdmBadResponse:
    """Return the error for a response that is not what the API documents.

    :param response: response of the server, with any status.
    :param operation: what was tried, to complete the sentence "Could not ...".
    :param problem: how the response differs.
    """
    request_id = _request_id(response)
    details = f"HTTP {response.status}" + (f", request id {request_id}" if request_id else "")
    problem = redact(problem, response.secrets)
    problem = problem[:1].upper() + problem[1:]
    beginning = redact(excerpt(response.body), response.secrets)
    return errors.CdmBadResponse(
        f"{problem}. Could not {operation} ({details}; the body begins with {beginning!r})."
        f" {advice.BAD_RESPONSE}",
        http_status=response.status,
        request_id=request_id,
        effect_unknown=True,
    )


def refused_with_success_status(
    response: Response, operation: str, reasons: list[str]
) -> errors.CdmRefused:
    """Return the error for a response that has a 2xx status but reports errors in its body.

    :param response: response of the server.
    :param operation: what was tried, to complete the sentence "Could not ...".
    :param reasons: messages of the errors in the body.
    """
    reason = redact(one_line("; ".join(reasons), 4 * _EXCERPT_LIMIT), response.secrets)
    return errors.CdmRefused(
        f"{end_sentence(reason)} Could not {operation} (HTTP {response.status}).",
        http_status=response.status,
        request_id=_request_id(response),
    )


def excerpt(body: bytes) -> str:
    """Return the beginning of a body on one line, for an error message."""
    return one_line(body[: 4 * _EXCERPT_LIMIT].decode("utf-8", "replace"), _EXCERPT_LIMIT)


class ErrorBody(NamedTuple):
    """Content of the body of an error response.

    :param code: error code in its usual spelling; ``None`` if there is none.
    :param message: reason of the error; may be empty.
    :param request_id: id of the request, which the gateway repeats in the body.
    :param is_validation: whether it is the result of a failed validation (``validation-result``).
    """

    code: str | None
    message: str
    request_id: str | None = None
    is_validation: bool = False


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
    # One documented example spells the key "ternalMessage".
    message = _first(
        data, "externalMessage", "ternalMessage", "error_msg", "errorMsg", "message", "title"
    )
    validation_errors = validation_messages(data.get("validation-result"))
    return ErrorBody(
        code=code,
        message=one_line(message or "; ".join(validation_errors), 4 * _EXCERPT_LIMIT),
        request_id=one_line(_first(data, "request_id") or "", _ID_LIMIT) or None,
        is_validation=bool(validation_errors) and code is None,
    )


def validation_messages(result: Any, status: str = "ERROR") -> list[str]:
    """Return the messages in a ``validation-result``, however deeply they are nested.

    :param result: value of ``validation-result``.
    :param status: status of the messages to return, ``ERROR`` or ``WARNING``.
    """
    messages: list[str] = []
    pending = [result]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            if str(value.get("status", "")).upper() == status:
                messages.append(str(value.get("message", "no reason given")))
                continue
            value = list(value.values())
        if isinstance(value, list):
            pending.extend(reversed(value))
    return messages


def _first(data: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = data.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return None


def _usual_code(code: str | None) -> str | None:
    # The gateway's prefix is APIG or APIGW, and one documented code has five digits (Cdm.00095).
    # A bare number or its name only repeats the HTTP status (Keystone), and a sentence is no code.
    if code is None or code.isdigit() or not re.fullmatch(r"[\w.-]{1,64}", code):
        return None
    if code.lower() == "unauthorized":
        return None
    if match := re.fullmatch(r"(?i)cdm\.0*(\d{1,9})", code):
        return f"Cdm.{int(match[1]):04d}"
    if match := re.fullmatch(r"(?i)apigw?\.(\d+)", code):
        return f"APIGW.{match[1]}"
    return code


def _class_of(status: int, code: str | None, message: str) -> type[errors.CdmError]:
    # "Deleting a Link" documents this code for a link in use; the table has another meaning.
    if code == "Cdm.0021" and "in use" in message.lower():
        return errors.CdmInUse
    if code is not None and code.startswith("Cdm."):
        # This code means "missing" as well as "invalid"; only the status distinguishes them.
        if code == "Cdm.0001" and status == 404:
            return errors.CdmNotFound
        return _CDM_CODES.get(code, errors.CdmRefused)
    if status == 429:
        return errors.CdmThrottled
    rejected = 400 <= status < 500 and errors.CREDENTIAL_CODES.fullmatch(code or "")
    if status in (401, 403, 407) or rejected:
        return errors.CdmAuthError
    if status == 404:
        return errors.CdmNotFound
    # 410 is IAM's "service in failover".
    if status in (408, 410, 425) or status >= 500:
        return errors.CdmUnavailable
    if status >= 400:
        return errors.CdmRefused
    return errors.CdmBadResponse


def _may_have_had_its_effect(response: Response, body: ErrorBody) -> bool:
    """Return whether CDM failed with a code that is not documented, perhaps after the effect."""
    return (
        response.status >= 500 and str(body.code).startswith("Cdm.") and body.code not in _CDM_CODES
    )


def _retryable(cls: type[errors.CdmError], status: int) -> bool:
    if cls is errors.CdmUnavailable and status in (501, 505):
        return False
    return cls.default_retryable


def _redirect(response: Response) -> str | None:
    if 300 <= response.status < 400:
        target = one_line(response.headers.get("location", "an unnamed address"), _EXCERPT_LIMIT)
        target = target.split("?")[0]
        return f"The server redirects to {target}, and redirects are not followed"
    return None


def _retry_after(response: Response, message: str, now: float) -> float | None:
    """Return for how many seconds the server asked to wait; at most ``MAX_RETRY_AFTER``.

    The header counts only where its meaning is defined for an API. Without it, the gateway's text
    names the window of the limit that was reached; all of it may still lie ahead.
    """
    if response.status not in (429, 503):
        return None
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", value):
        return min(float(value), MAX_RETRY_AFTER)
    date = parse_http_date(value)
    if date is not None:
        # By the server's clock where it is known, since ours may be hours off.
        sent_at = parse_http_date(response.headers.get("date", ""))
        return min(max(0.0, date - (now if sent_at is None else sent_at)), MAX_RETRY_AFTER)
    return _window(message or excerpt(response.body)) if response.status == 429 else None


def _window(text: str) -> float | None:
    """Return the longest time that the text of a 429 names, in seconds: the window of a limit.

    The gateway says ``limit:200,time:5 minute`` (its limits are per second, minute, hour or day),
    IAM ``Threshold: 5 times per 60 seconds``, a service ``exceeded rate limit is 5 times per
    minute``.
    """
    longest = 0.0
    for number, word, unit in ((m["number"], m["word"], m["unit"]) for m in _TIME.finditer(text)):
        count = float(number) if number else _NUMBERS.get((word or "").lower(), 1)
        longest = max(longest, count * _SECONDS[unit[0].lower()])
    return min(longest, MAX_RETRY_AFTER) or None


def _request_id(response: Response, body: str | None = None) -> str | None:
    headers = response.headers
    request_id = headers.get("x-request-id") or headers.get("x-iam-trace-id") or body
    shown = one_line(request_id or "", 2 * _ID_LIMIT)
    return redact(shown, response.secrets)[:_ID_LIMIT] or None
