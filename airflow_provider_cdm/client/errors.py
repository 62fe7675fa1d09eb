"""Every error this package raises.

::

    CdmError
    ├── CdmConfigError        the connection or an argument is wrong; nothing was sent
    ├── CdmAuthError          IAM or CDM refused the credentials, or permission is missing
    ├── CdmRefused            the request itself is wrong; repeating it cannot help
    │   ├── CdmNotFound       no such job, link, cluster, or API at this endpoint
    │   ├── CdmAlreadyExists  a job or link of that name exists
    │   ├── CdmAlreadyRunning the job has an active run
    │   ├── CdmNotRunning     the job has no active run
    │   ├── CdmInUse          a job that runs, or a link that jobs use, cannot be changed now
    │   └── CdmClusterUnusable the cluster is frozen or has failed; only a person can help
    ├── CdmThrottled          too many calls; may be repeated later
    ├── CdmUnavailable        no answer, or a failure on the server's side; may be repeated
    ├── CdmBadResponse        an answer that is not what the API documents
    ├── CdmJournalError       the journal of starts cannot be read or written
    ├── CdmStartUncertain     a start whose effect could not be established
    ├── CdmWaitTimeout        the time given for waiting is over; the run goes on
    │   └── CdmStalled        nothing has moved for long; the run goes on
    ├── CdmSubmissionFailed   the run ended, and not well
    │   └── CdmOutcomeUnknown how the run ended can no longer be learnt
    └── CdmThresholdMissed    the run ended well, but moved other numbers of rows than it has to

Three questions are answered on the error itself, not by lists of codes in callers:
``retryable`` (can the same call succeed later?), ``effect_unknown`` (may the call have had its
effect although it failed? decisive for a start, which must not be sent twice), and ``final`` (is a
later attempt of the task bound to fail as well, until a person has mended something?).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_cdm.client.text import sanitize

if TYPE_CHECKING:
    from airflow_provider_cdm.client.submission import Submission

#: The longest text of an error, in characters; a server's share in it may be of any length.
MESSAGE_LIMIT = 12_000


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
    #: Whether no later attempt of the task can succeed either, until a person has mended something.
    final: ClassVar[bool] = False

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
        message = sanitize(message, MESSAGE_LIMIT)
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable = self.default_retryable if retryable is None else retryable
        self.effect_unknown = effect_unknown

    def tell_more(self, text: str) -> None:
        """Append what was found out since to the message."""
        self.message = sanitize(self.message + text, MESSAGE_LIMIT)
        self.args = (self.message,)

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.args, dict(self.__dict__))


def _revive(cls: type[CdmError], args: tuple[Any, ...], state: dict[str, Any]) -> CdmError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class CdmConfigError(CdmError, ValueError):
    """The connection or an argument cannot work; raised before anything is sent."""

    final = True


class CdmAuthError(CdmError):
    """IAM or CDM refused the credentials, or the user lacks a permission."""

    final = True


class CdmRefused(CdmError):
    """CDM understood the request and refused it for good."""

    final = True


class CdmNotFound(CdmRefused):
    """The job, link or cluster does not exist, or is hidden from this user."""

    @property
    def reported_by_cdm(self) -> bool:
        """Whether CDM itself says so; the gateway says "not found" of a wrong address as well,
        which tells nothing about the job or link.
        """
        return self.code is not None and self.code.startswith("Cdm.")


class CdmAlreadyExists(CdmRefused):
    """A job or link of that name exists already, perhaps another user's."""


class CdmAlreadyRunning(CdmRefused):
    """The job has an active run, and CDM runs a job only once at a time.

    ``submission`` is that run, where it was seen.
    """

    default_retryable = True
    final = False
    submission: Submission | None = None


class CdmNotRunning(CdmRefused):
    """There is no active run to stop."""

    final = False


class CdmInUse(CdmRefused):
    """The job has an active run, or jobs use the link, so it cannot be changed or deleted now.

    A later attempt of the task may find it free.
    """

    final = False


class CdmClusterUnusable(CdmRefused):
    """The cluster is frozen, or has failed; no waiting and no call brings it back."""


class CdmThrottled(CdmError):
    """A quota is used up (HTTP 429); the call had no effect."""

    default_retryable = True


class CdmUnavailable(CdmError):
    """The service could not be reached, or failed on its own side."""

    default_retryable = True


class CdmBadResponse(CdmError):
    """An answer that the API does not document: a proxy's page, broken JSON, missing fields."""


class CdmJournalError(CdmError):
    """What was started cannot be remembered, so nothing is started."""

    default_retryable = True


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


class CdmStalled(CdmWaitTimeout):
    """The run is active, but nothing has moved for long. The run itself was left alone."""


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


class CdmThresholdMissed(CdmError):
    """The run ended well, but the numbers of its rows are not what the task demands.

    The rows are in the target, so no attempt runs the job again by itself.

    :param submission: the run.
    """

    final = True

    def __init__(self, message: str, submission: Submission) -> None:
        super().__init__(message)
        self.submission = submission


def to_payload(error: CdmError) -> dict[str, Any]:
    """An error as plain JSON, to cross from the triggerer to a worker (without its submission)."""
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
    """Read what :func:`to_payload` made; whatever it is, the result is an error.

    :param submission: run that the error is about.
    """
    if not isinstance(payload, dict) or not isinstance(payload.get("message"), str):
        return CdmBadResponse(f"The trigger reported an error that cannot be read: {payload!r}")
    named = globals().get(str(payload.get("type")))
    cls = named if isinstance(named, type) and issubclass(named, CdmError) else CdmError
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
