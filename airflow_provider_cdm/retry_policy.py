"""Which failures of a task are retried: the retry policy of all operators and sensors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_cdm._compat import AirflowFailException, RetryDecision, RetryPolicy
from airflow_provider_cdm.client.errors import CdmError, CdmOutcomeUnknown, CdmSubmissionFailed

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context

__all__ = ["CdmRetryPolicy"]


class CdmRetryPolicy(RetryPolicy):
    """Decides from the error whether a task of this package is retried.

    Errors that no retry can fix fail the task at once, whatever ``retries`` says: wrong credentials
    or a missing permission, a job, link or cluster that does not exist, wrong input, a missed
    threshold. When the server named a time to wait (``Retry-After``, at most an hour) that is
    longer than the task's ``retry_delay``, the retry follows after that time. Other errors are
    retried as the task's arguments say.

    All operators and sensors of this package use this policy unless they are given another
    ``retry_policy``. Airflow below 3.3 has no retry policies: there the tasks fail at once by
    themselves, and Airflow decides when a retry follows.

    :param retry_failed_runs: whether a task whose run failed in CDM is retried; each retry starts a
        new run.
    """

    def __init__(self, *, retry_failed_runs: bool = True) -> None:
        self.retry_failed_runs = retry_failed_runs

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow passes it, as the next two
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,
    ) -> RetryDecision:
        """Return the decision; called by Airflow 3.3 and later."""
        name = type(exception).__name__
        if self.is_final(exception):
            return RetryDecision.fail(f"{name}: no retry can fix this")
        from airflow_provider_cdm.client.http.error_mapping import MAX_RETRY_AFTER

        delay = exception.retry_after if isinstance(exception, CdmError) else None
        if delay and delay > _retry_delay(context):
            delay = min(delay, MAX_RETRY_AFTER)
            return RetryDecision.retry(
                timedelta(seconds=delay), f"{name}: the server asked for {delay:g} s"
            )
        return RetryDecision.default()

    def is_final(self, exception: BaseException) -> bool:
        """Return whether no retry may follow."""
        if isinstance(exception, CdmSubmissionFailed):
            unknown = isinstance(exception, CdmOutcomeUnknown)
            return not self.retry_failed_runs and not unknown
        return isinstance(exception, CdmError) and exception.final

    def serialize(self) -> dict[str, Any]:
        """Return this policy as plain JSON."""
        return {"retry_failed_runs": self.retry_failed_runs}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CdmRetryPolicy:
        """Return the policy that :meth:`serialize` returned as JSON."""
        return cls(**data)


def action_of(policy: RetryPolicy, error: Exception, context: Context) -> str:
    """Return what Airflow does after a failure: ``fail``, ``retry``, ``default`` or ``reschedule``.

    :param policy: any retry policy. Its reschedules have bounds, beyond which Airflow does what it
        does by default.
    """
    ti: Any = context["ti"]
    decision: Any = policy.evaluate(error, ti.try_number, ti.max_tries, context)
    action = str(decision.action.value)
    return "default" if action == "reschedule" and _is_used_up(decision, context) else action


def as_policy_says(error: CdmError, policy: Any) -> CdmError:
    """Return the error in the class that makes Airflow below 3.3 do what the policy says."""
    if isinstance(error, AirflowFailException) or not (
        isinstance(policy, CdmRetryPolicy) and policy.is_final(error)
    ):
        return error
    return _with_fail_exception(error)


def as_final(error: CdmError) -> CdmError:
    """Return an error that no retry can fix as an ``AirflowFailException`` as well, which Airflow
    never retries; other errors as they are.
    """
    if isinstance(error, AirflowFailException) or not error.final:
        return error
    return _with_fail_exception(error).with_traceback(error.__traceback__)


def _is_used_up(decision: Any, context: Context) -> bool:
    """Return whether a task has been rescheduled as often, or for as long, as a decision allows."""
    most, longest = decision.max_reschedules, decision.reschedule_timeout
    if most is not None and cast("Any", context)["task_reschedule_count"] >= most:
        return True
    began = None if longest is None else context["ti"].get_first_reschedule_date(context)
    return began is not None and datetime.now(UTC) - began >= longest


def _retry_delay(context: Context | None) -> float:
    """Return the task's own delay, in seconds."""
    delay = getattr(context["task"], "retry_delay", None) if context else None
    return delay.total_seconds() if isinstance(delay, timedelta) else 0.0


def _with_fail_exception(error: CdmError) -> CdmError:
    """Return the same error as an instance of its own class and of ``AirflowFailException``."""
    cls = _as_fail_exception(type(error))
    final = cls.__new__(cls)
    final.args = error.args
    final.__dict__.update(error.__dict__)
    return final


def _as_fail_exception(cls: type[CdmError]) -> type[CdmError]:
    def reduce(self: CdmError) -> tuple[Any, ...]:
        rebuild, (_, *rest) = CdmError.__reduce__(self)
        return rebuild, (cls, *rest)

    body = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__reduce__": reduce}
    return type(cls.__name__, (cls, AirflowFailException), body)
