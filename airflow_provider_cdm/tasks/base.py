"""The base of all operators and sensors: connection, retries, deferral."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_cdm._compat import (
    DEFERRAL_MARGIN,
    FRAMES_COME_FIRST,
    HAS_RETRY_POLICY,
    AirflowFailException,
    AirflowSensorTimeout,
    BaseOperator,
    conf,
)
from airflow_provider_cdm.client import arguments
from airflow_provider_cdm.client.errors import CdmError, CdmOutcomeUnknown
from airflow_provider_cdm.connection import DEFAULT_CONN_ID
from airflow_provider_cdm.retry_policy import CdmRetryPolicy

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.hooks import CdmHook

F = TypeVar("F", bound=Callable[..., Any])


class CdmTask(BaseOperator):
    """Base of all operators and sensors of this package.

    :param cluster_id: the cluster; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    :param retry_policy: decides from the error whether the task is retried; by default a
        :class:`~airflow_provider_cdm.retry_policy.CdmRetryPolicy`.

    The first three are errors when they are given and render to nothing: another cluster or project
    than the one that was meant must not be used silently.
    """

    template_fields: Sequence[str] = ("cluster_id", "project_id", "cdm_conn_id")

    def __init__(
        self,
        *,
        cluster_id: str | None = None,
        project_id: str | None = None,
        cdm_conn_id: str = DEFAULT_CONN_ID,
        retry_policy: Any = None,
        **kwargs: Any,
    ) -> None:
        policy = CdmRetryPolicy() if retry_policy is None else retry_policy
        if HAS_RETRY_POLICY:
            kwargs["retry_policy"] = policy
        super().__init__(**kwargs)
        self.retry_policy = policy
        self.cluster_id = cluster_id
        self.project_id = project_id
        self.cdm_conn_id = cdm_conn_id
        #: Kept from before the templates are rendered, which may make nothing of them.
        self._given_places = [
            name for name in CdmTask.template_fields if getattr(self, name) is not None
        ]

    @cached_property
    def hook(self) -> CdmHook:
        """The hook of this task, made from the rendered arguments on first use.

        :raises CdmConfigError: when an argument for it was given, but its template rendered to
            nothing.
        """
        from airflow_provider_cdm.hooks import CdmHook

        for name in self._given_places:
            arguments.ensure_names_something(name, getattr(self, name))
        return CdmHook(self.cdm_conn_id, self.cluster_id, self.project_id)

    def ends_without_retry(self, error: Exception, context: Context) -> bool:
        """Return whether the retry policy ends the task on this error, attempts left or not."""
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
            return False  # as Airflow does, which also logs the exception
        return bool(decision.action.value == "fail")


class DeferrableCdmTask(CdmTask):
    """Base of the tasks that can wait in the triggerer.

    :param deferrable: wait in the triggerer instead of on a worker; by default as ``[operators]
        default_deferrable`` says.
    """

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable

    def wait_limit(self, seconds: float | None, argument: str) -> tuple[float | None, str]:
        """Return how long an attempt may wait, in seconds, and which argument sets that limit.

        On a worker Airflow enforces the ``execution_timeout``. It does not while a task is
        deferred, so there the limit of the wait covers it.

        :param seconds: limit of the wait; ``None`` for none.
        :param argument: name of the argument that sets it.
        """
        if not self.deferrable or self.execution_timeout is None:
            return seconds, argument
        total = self.execution_timeout.total_seconds()
        left = total - min(DEFERRAL_MARGIN, total / 10)
        if seconds is not None and seconds <= left:
            return seconds, argument
        return left, "execution_timeout"


def fail_without_retry(method: F) -> F:
    """Let a method of a task fail the task at once on errors that no retry can fix.

    For ``execute`` and the methods that Airflow calls in its place. Airflow 3.3 and later ask the
    retry policy themselves.

    Errors of this package leave without the frames that led to them: their text says what failed,
    and Airflow would print thirty lines of code around it. The frames are logged at level DEBUG.
    """

    @functools.wraps(method)
    def wrapper(self: CdmTask, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except AirflowSensorTimeout as timeout:
            failure: Exception = timeout
        except CdmError as error:
            self.log.debug("The task fails", exc_info=True)
            error.name_connection(self.cdm_conn_id)
            if isinstance(error, CdmOutcomeUnknown):
                from airflow_provider_cdm import metrics

                metrics.count_run("unknown", self, error.submission)
            failure = error if HAS_RETRY_POLICY else _with_policy(error, self.retry_policy)
        if FRAMES_COME_FIRST:
            self.log.error("%s", str(failure).partition("\n")[0])
        # Out here, so that the error is not chained to itself.
        raise failure.with_traceback(None) from None

    return cast("F", wrapper)


def _with_policy(error: CdmError, policy: Any) -> CdmError:
    """Return the error in the class that makes Airflow below 3.3 do what the policy says."""
    if isinstance(error, AirflowFailException) or not (
        isinstance(policy, CdmRetryPolicy) and policy.is_final(error)
    ):
        return error
    return _as_final(error)


def _as_final(error: CdmError) -> CdmError:
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
