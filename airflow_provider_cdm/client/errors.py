"""The errors that this package raises.

::

    CdmError
    ├── CdmConfigError        the connection or an argument is wrong; nothing was sent
    ├── CdmAuthError          IAM or CDM refused the credentials, or a permission is missing
    ├── CdmRefused            the request itself is wrong; repeating it cannot help
    │   ├── CdmNotFound       no such job, link, cluster, or API at this endpoint
    │   ├── CdmAlreadyExists  a job or link of that name exists
    │   ├── CdmAlreadyRunning the job has an active run
    │   ├── CdmNotRunning     the job has no active run
    │   ├── CdmInUse          a job that runs, or a link that jobs use, cannot be changed now
    │   └── CdmClusterUnusable the cluster is frozen or has failed; only a person can fix it
    ├── CdmThrottled          the rate limit is reached; the call can be repeated later
    ├── CdmUnavailable        no response, or a failure of the server; the call can be repeated
    ├── CdmBadResponse        a response that is not what the API documents
    ├── CdmJournalError       the journal of starts cannot be read or written
    ├── CdmStartUncertain     a start whose effect could not be established
    ├── CdmWaitTimeout        the time limit for waiting was reached; the run continues
    │   └── CdmStalled        the run has made no progress for a long time; it continues
    ├── CdmSubmissionFailed   the run ended without success
    │   └── CdmOutcomeUnknown how the run ended can no longer be found out
    ├── CdmKilled             Airflow kills the task, so it does nothing more
    └── CdmThresholdMissed    the run succeeded, but did not move the required numbers of rows

Every error answers three questions, so that callers need no lists of codes: ``retryable`` (can the
same call succeed later?), ``effect_unknown`` (may the call have had its effect although it failed?
This decides about a start, which must not be sent twice), and ``final`` (will later attempts of the
task fail as well, until a person has fixed the cause?).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_cdm.client.text import printable

if TYPE_CHECKING:
    from airflow_provider_cdm.client.submission import Submission

#: Longest message of an error, in characters; the text that a server adds may be of any length.
MESSAGE_LIMIT = 12_000

#: Codes that refuse credentials whatever the status: a bad signature or token, a token that must be
#: renewed, and an access key or security token that has expired (IAM, "Error Codes", HTTP 400).
CREDENTIAL_CODES = re.compile(r"APIGW\.030[17]|IAM\.110[4-8]")
#: Codes with which a 401 refuses credentials; other services answer 401 where a policy forbids.
_CREDENTIAL_SERVICES = ("APIGW.", "IAM.")


class CdmError(Exception):
    """Base class of all errors of this package. Errors are picklable with all attributes.

    :param message: what was tried, why it failed, and what the user can do.
    :param http_status: HTTP status of the response, if there was one.
    :param code: error code of CDM (``Cdm.0054``), the API gateway (``APIGW.0301``) or IAM
        (``IAM.0061``).
    :param request_id: id by which Huawei Cloud support finds the call.
    :param retry_after: seconds to wait before the call is repeated, as the server asked; for
        credentials that were refused, so that nobody is locked out.
    :param retryable: whether the same call can succeed later; by default decided by the class.
    :param effect_unknown: whether the call may have had its effect although it failed.
    """

    default_retryable: ClassVar[bool] = False
    #: Whether later attempts of the task will fail as well, until a person has fixed the cause.
    final: ClassVar[bool] = False
    #: Whether the connection could not be looked up again after its credentials were refused.
    connection_unread: bool = False
    #: Whether the project, or the region of an endpoint, is in doubt, and not the credentials.
    concerns_project: bool = False
    #: What the user can do; the end of the message, as long as nothing was appended.
    advice: str = ""

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
        message = printable(message, MESSAGE_LIMIT)
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable = self.default_retryable if retryable is None else retryable
        self.effect_unknown = effect_unknown

    @property
    def refuses_credentials(self) -> bool:
        """Whether credentials were refused, also by a proxy; a missing permission is another
        failure, also where a service answers 401 with a code of its own.
        """
        if self.http_status == 407 or CREDENTIAL_CODES.fullmatch(self.code or ""):
            return True
        ours = self.code is None or self.code.startswith(_CREDENTIAL_SERVICES)
        return self.http_status == 401 and ours

    def add_detail(self, text: str) -> None:
        """Append something that was found out later to the message."""
        self.message = printable(self.message + text, MESSAGE_LIMIT)
        self.args = (self.message,)

    def advise(self, text: str) -> None:
        """Replace the advice at the end of the message, by who knows what the call was for."""
        self.message = self.message.removesuffix(self.advice).rstrip()
        self.advice = text
        self.add_detail(f" {text}")

    def name_connection(self, conn_id: str) -> None:
        """Say which connection an error is about, if its text speaks of one."""
        if "the connection" in self.message and repr(conn_id) not in self.message:
            self.add_detail(f" The connection is {conn_id!r}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(cls: type[CdmError], args: tuple[Any, ...], state: dict[str, Any]) -> CdmError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class CdmConfigError(CdmError, ValueError):
    """The connection or an argument is wrong. Raised before anything is sent."""

    final = True


class CdmAuthError(CdmError):
    """IAM or CDM refused the credentials, or the user lacks a permission."""

    final = True


class CdmRefused(CdmError):
    """CDM understood the request and refused it; repeating it cannot help."""

    final = True


class CdmNotFound(CdmRefused):
    """The job, link or cluster does not exist, or is hidden from this user."""

    @property
    def reported_by_cdm(self) -> bool:
        """Whether the error is from CDM. The gateway reports "not found" for a wrong address as
        well, which says nothing about the job or link.
        """
        return self.code is not None and self.code.startswith("Cdm.")


class CdmAlreadyExists(CdmRefused):
    """A job or link of that name exists already; it may belong to another user."""


class CdmAlreadyRunning(CdmRefused):
    """The job has an active run, and CDM allows one run of a job at a time.

    ``submission`` is that run, if it was read.
    """

    default_retryable = True
    final = False
    submission: Submission | None = None


class CdmNotRunning(CdmRefused):
    """The job has no active run that could be stopped."""

    final = False


class CdmInUse(CdmRefused):
    """The job has an active run, or jobs use the link, so it cannot be changed or deleted now.

    A later attempt of the task may succeed.
    """

    final = False


class CdmClusterUnusable(CdmRefused):
    """The cluster is frozen or has failed. Neither waiting nor a call of the API changes that."""


class CdmThrottled(CdmError):
    """A rate limit is reached (HTTP 429). The call had no effect."""

    default_retryable = True


class CdmUnavailable(CdmError):
    """The service could not be reached, or it failed."""

    default_retryable = True


class CdmBadResponse(CdmError):
    """A response that the API does not document: a page of a proxy, broken JSON, missing fields."""

    #: Whether the answer has the form that is documented, but not what was asked for.
    is_empty: bool = False


class CdmJournalError(CdmError):
    """The journal of starts cannot be read or written, so nothing is started."""

    default_retryable = True


class CdmStartUncertain(CdmError):
    """A start was sent, and whether it had its effect could not be established."""

    default_retryable = True


class CdmWaitTimeout(CdmError):
    """The time limit for waiting was reached. The run was not stopped.

    :param message: see :class:`CdmError`.
    :param submission: the run as last read, if it was read.
    """

    default_retryable = True

    def __init__(self, message: str, submission: Submission | None = None) -> None:
        super().__init__(message)
        self.submission = submission


class CdmStalled(CdmWaitTimeout):
    """The run is active, but has made no progress for a long time. It was not stopped."""


class CdmSubmissionFailed(CdmError):
    """The run ended without success.

    :param message: see :class:`CdmError`.
    :param submission: the run as last read, with ``error_summary`` and ``error_details``.
    """

    default_retryable = True

    def __init__(self, message: str, submission: Submission) -> None:
        super().__init__(message)
        self.submission = submission


class CdmOutcomeUnknown(CdmSubmissionFailed):
    """How the run ended can no longer be found out, so it does not count as a success."""


class CdmKilled(CdmError):
    """Airflow kills the task, so this attempt does nothing more. What became of its run is in the
    log before this error.

    :param message: see :class:`CdmError`.
    """

    default_retryable = True

    def __init__(
        self,
        message: str = "Ended by Airflow: the task was cleared or marked, or its worker shuts down."
        " The lines before say what became of its run.",
        **details: Any,
    ) -> None:
        super().__init__(message, **details)


class CdmThresholdMissed(CdmError):
    """The run succeeded, but its numbers of rows are not what the task requires.

    The rows are in the target, so the task is not retried automatically.

    :param message: see :class:`CdmError`.
    :param submission: the run.
    """

    final = True

    def __init__(self, message: str, submission: Submission) -> None:
        super().__init__(message)
        self.submission = submission


def to_payload(error: CdmError) -> dict[str, Any]:
    """Return an error as plain JSON, without its submission, for a trigger's event."""
    return {
        "type": type(error).__name__,
        "message": error.message,
        "http_status": error.http_status,
        "code": error.code,
        "request_id": error.request_id,
        "retry_after": error.retry_after,
        "retryable": error.retryable,
    }


def from_payload(payload: Any, submission: Submission | None = None) -> CdmError:
    """Return the error that :func:`to_payload` was called on, or an error if it cannot be read.

    :param payload: result of :func:`to_payload`, or anything else.
    :param submission: run that the error is about.
    """
    if not isinstance(payload, dict) or not isinstance(payload.get("message"), str):
        return CdmBadResponse(f"The event of the trigger cannot be read as an error: {payload!r}")
    value = globals().get(str(payload.get("type")))
    cls = value if isinstance(value, type) and issubclass(value, CdmError) else CdmError
    message = payload["message"]
    error: CdmError
    if issubclass(cls, CdmSubmissionFailed | CdmThresholdMissed):
        error = CdmError(message) if submission is None else cls(message, submission)
    elif issubclass(cls, CdmWaitTimeout):
        error = cls(message, submission)
    else:
        error = cls(message)
    error.http_status, error.code = payload.get("http_status"), payload.get("code")
    error.request_id, error.retry_after = payload.get("request_id"), payload.get("retry_after")
    error.retryable = bool(payload.get("retryable", error.retryable))
    return error
