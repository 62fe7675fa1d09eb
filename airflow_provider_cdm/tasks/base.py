"""Which failures a retry can mend, and the base of all tasks, which acts on that."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_cdm._compat import (
    HAS_RETRY_POLICY,
    AirflowFailException,
    BaseOperator,
)
from airflow_provider_cdm.client.errors import CdmError
from airflow_provider_cdm.retry_policy import CdmRetryPolicy

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context

F = TypeVar("F", bound=Callable[..., Any])


class CdmTask(BaseOperator):
    """Base of all operators and sensors of this package.

    :param retry_policy: decides by the error whether the task is tried again; by default a
        :class:`CdmRetryPolicy`.
    """

    def __init__(self, *, retry_policy: Any = None, **kwargs: Any) -> None:
        policy = CdmRetryPolicy() if retry_policy is None else retry_policy
        if HAS_RETRY_POLICY:
            kwargs["retry_policy"] = policy
        super().__init__(**kwargs)
        self.retry_policy = policy

    def _gives_up(self, error: Exception, context: Context) -> bool:
        """Whether no attempt follows this error, though some may be left."""
        if isinstance(error, AirflowFailException):
            return True
        if isinstance(self.retry_policy, CdmRetryPolicy):
            return self.retry_policy.is_final(error)
        if not HAS_RETRY_POLICY or self.retry_policy is None:
            return False
        ti = context["ti"]
        try:
            decision = self.retry_policy.evaluate(error, ti.try_number, ti.max_tries, context)
        except Exception:
            return False  # as Airflow takes it, which also writes it to the log
        return bool(decision.action.value == "fail")


def fail_without_retry(method: F) -> F:
    """Let a task's method end the task where no retry can mend an error.

    For ``execute`` and whatever Airflow calls in its place. Airflow 3.3 and later see to it by the
    retry policy themselves.
    """
    if HAS_RETRY_POLICY:
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
            raise _as_final(error).with_traceback(error.__traceback__) from error.__cause__

    return cast("F", watched)


def _as_final(error: CdmError) -> CdmError:
    """The same error, of its own class and of the one by which Airflow knows not to retry."""
    both = _as_fail_exception(type(error))
    twin = both.__new__(both)
    twin.args = error.args
    twin.__dict__.update(error.__dict__)
    return twin


def _as_fail_exception(cls: type[CdmError]) -> type[CdmError]:
    def reduce(self: CdmError) -> tuple[Any, ...]:
        rebuild, (_, *rest) = CdmError.__reduce__(self)
        return rebuild, (cls, *rest)

    body = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__reduce__": reduce}
    return type(cls.__name__, (cls, AirflowFailException), body)
