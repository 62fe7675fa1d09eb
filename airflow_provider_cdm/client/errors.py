"""Every error this package raises, and the one interpreter of failed answers.

::

    CdmError
    ├── CdmConfigError        the connection or an argument is wrong; nothing was sent
    ├── CdmAuthError          IAM or CDM refused the credentials, or permission is missing
    ├── CdmRefused            the request itself is wrong; repeating it cannot help
    │   ├── CdmNotFound       no such job, link, cluster, or API at this endpoint
    │   ├── CdmAlreadyExists  a job or link of that name exists
    │   ├── CdmAlreadyRunning the job has an active run
    │   └── CdmNotRunning     the job has no active run
    ├── CdmThrottled          too many calls; may be repeated later
    ├── CdmUnavailable        no answer, or a failure on the server's side; may be repeated
    ├── CdmBadResponse        an answer that is not what the API documents
    ├── CdmStartUncertain     a start whose effect could not be established
    ├── CdmWaitTimeout        the time given for waiting is over; the run goes on
    └── CdmSubmissionFailed   the run ended, and not well
        └── CdmOutcomeUnknown how the run ended can no longer be learnt

Two questions are answered on the error itself, not by lists of codes in callers:
``retryable`` (can the same call succeed later?) and ``effect_unknown`` (may the call have had its
effect although it failed? decisive for a start, which must not be sent twice).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from airflow_provider_cdm.client.messages import Response, TransportError
    from airflow_provider_cdm.client.models import Submission

_EXCERPT = 300


class CdmError(Exception):
    """Base of all errors of this package; picklable with all its attributes.

    :param message: what was tried, what came back, and what to do about it.
    :param http_status: HTTP status of the answer, if there was one.
    :param code: code of CDM (``Cdm.0054``), the API gateway (``APIGW.0301``) or IAM (``IAM.0061``).
    :param request_id: id under which Huawei Cloud support finds the call.
    :param retry_after: seconds the server asked us to wait.
    :param retryable: whether the same call can succeed later; by default the class decides.
    :param effect_unknown: whether the call may have had its effect although it failed.
    """

    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        effect_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable = self.default_retryable if retryable is None else retryable
        self.effect_unknown = effect_unknown

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.args, dict(self.__dict__))


def _revive(cls: type[CdmError], args: tuple[Any, ...], state: dict[str, Any]) -> CdmError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class CdmConfigError(CdmError, ValueError):
    """The connection or an argument cannot work; raised before anything is sent."""


class CdmAuthError(CdmError):
    """IAM or CDM refused the credentials, or the user lacks a permission."""


class CdmRefused(CdmError):
    """CDM understood the request and refused it for good."""


class CdmNotFound(CdmRefused):
    """The job, link or cluster does not exist, or is hidden from this user."""


class CdmAlreadyExists(CdmRefused):
    """A job or link of that name exists already, perhaps another user's."""


class CdmAlreadyRunning(CdmRefused):
    """The job has an active run, and CDM runs a job only once at a time."""

    default_retryable = True


class CdmNotRunning(CdmRefused):
    """There is no active run to stop."""


class CdmThrottled(CdmError):
    """A quota is used up (HTTP 429); the call had no effect."""

    default_retryable = True


class CdmUnavailable(CdmError):
    """The service could not be reached, or failed on its own side."""

    default_retryable = True


class CdmBadResponse(CdmError):
    """An answer that the API does not document: a proxy's page, broken JSON, missing fields."""


class CdmStartUncertain(CdmError):
    """A start was sent, and whether it took effect could not be established."""

    default_retryable = True


class CdmWaitTimeout(CdmError):
    """The time given for waiting is over. The run itself was left alone.

    :param submission: the run as last seen, if it was seen.
    """

    default_retryable = True

    def __init__(self, message: str, submission: Submission | None = None) -> None:
        super().__init__(message)
        self.submission = submission


class CdmSubmissionFailed(CdmError):
    """The run ended, and not well.

    :param submission: the run as last seen, with ``error_summary`` and ``error_details``.
    """

    default_retryable = True

    def __init__(self, message: str, submission: Submission) -> None:
        super().__init__(message)
        self.submission = submission


class CdmOutcomeUnknown(CdmSubmissionFailed):
    """How the run ended can no longer be learnt, so it does not count as a success."""


# Only codes whose meaning is the same in every edition of the error tables are listed; any other
# CDM code is a final refusal (https://support.huaweicloud.com/intl/en-us/api-cdm/, "Error codes").
_CDM_CODES: dict[str, type[CdmError]] = {
    "Cdm.0000": CdmUnavailable,
    "Cdm.0031": CdmUnavailable,
    "Cdm.0032": CdmAuthError,
    "Cdm.0036": CdmUnavailable,
    "Cdm.0052": CdmAlreadyRunning,
    "Cdm.0053": CdmNotRunning,
    "Cdm.0054": CdmNotFound,
    "Cdm.0095": CdmNotFound,
    "Cdm.0100": CdmNotFound,
    "Cdm.0101": CdmNotFound,
    "Cdm.0102": CdmNotFound,
    "Cdm.0104": CdmAlreadyExists,
    "Cdm.0201": CdmUnavailable,
    "Cdm.0202": CdmUnavailable,
    "Cdm.0307": CdmUnavailable,
    "Cdm.0315": CdmAlreadyExists,
    "Cdm.0316": CdmNotFound,
    "Cdm.0318": CdmAlreadyExists,
    "Cdm.0319": CdmNotFound,
    "Cdm.0323": CdmAlreadyRunning,
}

_HINTS: dict[type[CdmError], str] = {
    CdmAuthError: (
        "Check user, password, domain and project of the connection, and that the IAM user may use"
        " CDM in this project."
    ),
    CdmNotFound: (
        "Check the spelling of the job, the cluster id, project and region; with user isolation on,"
        " a cluster hides the jobs of other users."
    ),
    CdmAlreadyExists: "Choose another name, or update what exists.",
    CdmAlreadyRunning: "Wait until that run has ended, or set if_running to 'wait' or 'attach'.",
    CdmThrottled: "Poll less often, or spread the work over several IAM users.",
    CdmUnavailable: "Usually passes by itself; check the endpoint and the proxy if it does not.",
    CdmBadResponse: "Check that the endpoint is that of CDM, and that no proxy answers for it.",
}


def from_transport(error: TransportError, operation: str, host: str) -> CdmUnavailable:
    """Make our error of a failed exchange.

    :param operation: what was tried, such as ``start job 'a' in cluster 'b'``.
    :param host: scheme, host and port that were tried.
    """
    came_back = "no complete answer arrived" if error.sent else "the server could not be reached"
    return CdmUnavailable(
        f"Could not {operation}: {came_back} from {host} ({error.reason}). "
        + _HINTS[CdmUnavailable],
        effect_unknown=error.sent,
    )


def from_response(response: Response, operation: str, now: float) -> CdmError | None:
    """Interpret an answer: ``None`` when it is a success, else the error that it means.

    CDM's own code decides before the HTTP status does, since the same code is documented with
    status 400 and 500. Understands the bodies of CDM, the API gateway and IAM.

    :param operation: what was tried, such as ``start job 'a' in cluster 'b'``.
    :param now: epoch seconds, to turn an HTTP date in ``Retry-After`` into seconds.
    """
    if 200 <= response.status < 300:
        return None
    code, text = decipher(response.body)
    cls = _class_of(response.status, code)
    request_id = response.headers.get("x-request-id") or response.headers.get("x-iam-trace-id")
    came_back = ", ".join(
        part
        for part in (code, f"HTTP {response.status}", request_id and f"request id {request_id}")
        if part
    )
    hint = _HINTS.get(cls, "The request has to be changed; repeating it will not help.")
    return cls(
        f"Could not {operation}: {text or _redirect(response) or 'no reason given'}"
        f" ({came_back}). {hint}",
        http_status=response.status,
        code=code,
        request_id=request_id,
        retry_after=_retry_after(response, now),
        retryable=_retryable(cls, response.status),
        effect_unknown=cls is CdmUnavailable,
    )


def bad_response(response: Response, operation: str, problem: str) -> CdmBadResponse:
    """Make the error for an answer that arrived but cannot be what the API documents."""
    request_id = response.headers.get("x-request-id")
    came_back = f"HTTP {response.status}" + (f", request id {request_id}" if request_id else "")
    return CdmBadResponse(
        f"Could not {operation}: {problem} ({came_back}; the body begins"
        f" {excerpt(response.body)!r}). {_HINTS[CdmBadResponse]}",
        http_status=response.status,
        request_id=request_id,
        effect_unknown=True,
    )


def excerpt(body: bytes) -> str:
    """The beginning of a body on one line, for people."""
    return " ".join(body[: 4 * _EXCERPT].decode("utf-8", "replace").split())[:_EXCERPT]


def decipher(body: bytes) -> tuple[str | None, str]:
    """Read code and text from any of the documented error bodies.

    :returns: the code in its usual spelling (``None`` if there is none) and the text (maybe empty).
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None, excerpt(body)
    if not isinstance(data, Mapping):
        return None, excerpt(body)
    nested = data.get("error")
    if isinstance(nested, Mapping):
        data = nested
    code = _first(data, "errCode", "error_code", "errorCode", "code")
    # "ternalMessage" is how one documented answer spells it.
    text = _first(
        data, "externalMessage", "ternalMessage", "error_msg", "errorMsg", "message", "title"
    )
    if text is None and "validation-result" in data:
        text = "; ".join(validation_messages(data["validation-result"]))
    return _usual_code(code), (text or "")[: 4 * _EXCERPT]


def validation_messages(found: Any) -> list[str]:
    """Collect the ERROR texts of a ``validation-result``, however deep they are nested."""
    if isinstance(found, Mapping):
        if str(found.get("status", "")).upper() == "ERROR":
            return [str(found.get("message", "no reason given"))]
        return [text for value in found.values() for text in validation_messages(value)]
    if isinstance(found, list):
        return [text for value in found for text in validation_messages(value)]
    return []


def _first(data: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = data.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return None


def _usual_code(code: str | None) -> str | None:
    # The gateway is called APIG or APIGW; one documented sample has five digits (Cdm.00095).
    # A bare number (keystone puts the HTTP status there) says nothing new.
    if code is None or code.isdigit():
        return None
    if match := re.fullmatch(r"(?i)cdm\.0*(\d+)", code):
        return f"Cdm.{int(match[1]):04d}"
    if match := re.fullmatch(r"(?i)apigw?\.(\d+)", code):
        return f"APIGW.{match[1]}"
    return code


def _class_of(status: int, code: str | None) -> type[CdmError]:
    if code is not None and code.startswith("Cdm."):
        return _CDM_CODES.get(code, CdmRefused)
    if status == 429:
        return CdmThrottled
    if status in (401, 403, 407):
        return CdmAuthError
    if status == 404:
        return CdmNotFound
    # 410 is IAM's "service in failover".
    if status in (408, 410, 425) or status >= 500:
        return CdmUnavailable
    if status >= 400:
        return CdmRefused
    return CdmBadResponse


def _retryable(cls: type[CdmError], status: int) -> bool:
    if cls is CdmUnavailable and status in (501, 505):
        return False
    return cls.default_retryable


def _redirect(response: Response) -> str | None:
    if 300 <= response.status < 400:
        target = response.headers.get("location", "an unnamed place").split("?")[0]
        return f"the server redirects to {target}, and redirects are not followed"
    return None


def _retry_after(response: Response, now: float) -> float | None:
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None
