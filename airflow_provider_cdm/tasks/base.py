"""Which failures a retry can mend, and the base of all tasks, which acts on that."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_cdm._compat import (
    RETRIES_BY_POLICY,
    AirflowFailException,
    BaseOperator,
    RetryDecision,
    RetryPolicy,
)
from airflow_provider_cdm.client.errors import CdmError, CdmOutcomeUnknown, CdmSubmissionFailed

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context

F = TypeVar("F", bound=Callable[..., Any])


class CdmRetryPolicy(RetryPolicy):
    """Decides by the error whether a task of this package is tried again.

    What no retry can mend fails the task at once, whatever ``retries`` says: wrong credentials or a
    missing permission, a job, link or cluster that does not exist, wrong input, rows that miss a
    threshold. When the server said how long to wait, the retry comes after that time. Anything else
    is retried as the task says.

    All operators and sensors of this package have one unless they are given another
    ``retry_policy``. Below Airflow 3.3, which has no such policies, they act on it themselves, but
    for the time of the retry, which Airflow decides there.

    :param retry_failed_runs: whether a run that CDM reports as failed is tried again; each retry is
        a run of its own.
    """

    def __init__(self, *, retry_failed_runs: bool = True) -> None:
        self.retry_failed_runs = retry_failed_runs

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow passes it, as the next two
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide; called by Airflow 3.3 and later."""
        name = type(exception).__name__
        if self.is_final(exception):
            return RetryDecision.fail(f"{name}: no retry can mend this")
        delay = getattr(exception, "retry_after", None) if isinstance(exception, CdmError) else None
        if delay:
            return RetryDecision.retry(
                timedelta(seconds=delay), f"{name}: the server asked for {delay:g} s"
            )
        return RetryDecision.default()

    def is_final(self, exception: BaseException) -> bool:
        """Whether no retry is to follow."""
        if isinstance(exception, CdmSubmissionFailed):
            unknown = isinstance(exception, CdmOutcomeUnknown)
            return not self.retry_failed_runs and not unknown
        return isinstance(exception, CdmError) and exception.final

    def serialize(self) -> dict[str, Any]:
        """Describe this policy as plain JSON."""
        return {"retry_failed_runs": self.retry_failed_runs}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CdmRetryPolicy:
        """Make the policy that :meth:`serialize` described."""
        return cls(**data)


class CdmTask(BaseOperator):
    """Base of all operators and sensors of this package.

    :param retry_policy: decides by the error whether the task is tried again; by default a
        :class:`CdmRetryPolicy`.
    """

    def __init__(self, *, retry_policy: Any = None, **kwargs: Any) -> None:
        policy = CdmRetryPolicy() if retry_policy is None else retry_policy
        if RETRIES_BY_POLICY:
            kwargs["retry_policy"] = policy
        super().__init__(**kwargs)
        self.retry_policy = policy

    def _gives_up(self, error: Exception, context: Context) -> bool:
        """Whether no attempt follows this error, though some may be left."""
        if isinstance(error, AirflowFailException):
            return True
        if isinstance(self.retry_policy, CdmRetryPolicy):
            return self.retry_policy.is_final(error)
        if not RETRIES_BY_POLICY or self.retry_policy is None:
            return False
        ti = context["ti"]
        try:
            decision = self.retry_policy.evaluate(error, ti.try_number, ti.max_tries, context)
        except Exception:
            return False  # as Airflow takes it, which also writes it to the log
        return bool(decision.action.value == "fail")


def fails_for_good(method: F) -> F:
    """Let a task's method end the task where no retry can mend an error.

    For ``execute`` and whatever Airflow calls in its place. Airflow 3.3 and later see to it by the
    retry policy themselves.
    """
    if RETRIES_BY_POLICY:
        return method

    @functools.wraps(method)
    def watched(self: CdmTask, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except CdmError as error:
            policy = self.retry_policy
            if isinstance(error, AirflowFailException) or not (
                isinstance(policy, CdmRetryPolicy) and policy.is_final(error)
            ):
                raise
            raise _for_good(error).with_traceback(error.__traceback__) from error.__cause__

    return cast("F", watched)


def _for_good(error: CdmError) -> CdmError:
    """The same error, of its own class and of the one by which Airflow knows not to retry."""
    both = _both(type(error))
    twin = both.__new__(both)
    twin.args = error.args
    twin.__dict__.update(error.__dict__)
    return twin


def _both(cls: type[CdmError]) -> type[CdmError]:
    def reduce(self: CdmError) -> tuple[Any, ...]:
        rebuild, (_, *rest) = CdmError.__reduce__(self)
        return rebuild, (cls, *rest)

    body = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__reduce__": reduce}
    return type(cls.__name__, (cls, AirflowFailException), body)
