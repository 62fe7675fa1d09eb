"""The base of the sensors: deferral, time-outs, and what their failures mean in every mode.

A failure means the same whether a sensor pokes, reschedules or defers: what Airflow's loop in poke
mode makes of it. Airflow's own rules for deferred sensors differ from it, and between its versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow_provider_cdm._compat import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    delete_xcom,
)
from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.tasks.base import (
    DeferrableCdmTask,
    Duration,
    configured_poll_interval,
    fail_without_retry,
    is_known_later,
)

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import BaseTrigger, Context, PokeReturnValue

#: Where Airflow resumes a task whose trigger failed.
_TRIGGER_FAILED = "__fail__"


def _log_skip(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of a sensor log why it skips the task.

    Airflow does that in a part of the log that its page folds, and only with the name of the
    argument if it skips by itself.
    """

    @wraps(method)
    def wrapper(self: CdmSensor, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except AirflowSkipException as skip:
            reason = str(skip)
            if skip.__cause__ and str(skip.__cause__) not in reason:
                reason = f"{reason} {skip.__cause__}"
            self.log.warning("%s", reason)
            raise

    return wrapper


class CdmSensor(DeferrableCdmTask, BaseSensorOperator):
    """Base of the sensors of this package.

    :param deferrable: wait in the triggerer. ``poke_interval``, ``timeout``, ``soft_fail``,
        ``never_fail`` and ``silent_fail`` mean the same there. ``exponential_backoff`` does not: in
        the triggerer the pauses do not grow, and the log warns.
    :param poke_interval: seconds between two polls, as a number or a ``timedelta`` (templated); by
        default ``[cdm] poll_interval`` of ``airflow.cfg``, or 60 as in Airflow's sensors.
    :param timeout: seconds after which the sensor times out, as a number or a ``timedelta``
        (templated).
    """

    template_fields: Sequence[str] = (
        *DeferrableCdmTask.template_fields,
        "poke_interval",
        "timeout",
    )
    #: Errors that are an outcome of what the sensor waits for: with ``soft_fail`` it is skipped.
    soft_failures: ClassVar[tuple[type[errors.CdmError], ...]] = ()
    ui_color = "#e3ecf4"

    def __init__(
        self,
        *,
        poke_interval: Duration | None = None,
        timeout: Duration | None = None,
        **kwargs: Any,
    ) -> None:
        if poke_interval is None:
            poke_interval = configured_poll_interval()
        later = {}
        for name, value in (("poke_interval", poke_interval), ("timeout", timeout)):
            if is_known_later(value):
                later[name] = value
            elif value is not None:
                kwargs[name] = arguments.seconds(name, value, positive=False)
        super().__init__(**kwargs)
        # Airflow's constructor takes numbers only.
        for name, value in later.items():
            setattr(self, name, value)

    @fail_without_retry
    @_log_skip
    def execute(self, context: Context) -> Any:
        """Wait, by poking or by deferring."""
        self._settle_durations()
        if not self.deferrable:
            return self._wait_here(context)
        deadline = self._as_poke(self._deadline)
        if deadline is None:
            return self._wait_here(context)
        answer = self._as_poke(lambda: self._poll(context))
        if answer:
            return answer.xcom_value
        if self.exponential_backoff:
            self.log.warning(
                "exponential_backoff has no effect while this sensor is deferred: it polls every"
                " %g s (poke_interval). To poll less often, set poke_interval; for growing pauses,"
                " set deferrable=False",
                self.poke_interval,
            )
        return self._wait_deferred(context, deadline)

    @fail_without_retry
    @_log_skip
    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Go on after a deferral, or after a trigger that failed."""
        if self.start_from_trigger and context["ti"].try_number > 1:
            # Airflow deletes the results of earlier attempts only where a worker begins.
            delete_xcom(context["ti"], "return_value")
        self._settle_durations()
        try:
            # Not as Airflow's sensors do it.
            return super(BaseSensorOperator, self).resume_execution(
                next_method, next_kwargs, context
            )
        except AirflowException as failure:
            if next_method != _TRIGGER_FAILED:
                raise
            timed_out = "timeout" in str(failure).lower()
            if timed_out and self.start_from_trigger:
                self._time_out(
                    errors.CdmWaitTimeout(
                        "The wait timed out, and the triggerer did not report it in time. The run"
                        " was not stopped."
                    )
                )
            self._skip_if(failure, "soft_fail")
            if timed_out or not self.silent_fail:
                self._skip_if(failure, "never_fail")
                raise
            self.log.error("The trigger failed: %s", failure)  # noqa: TRY400 - its log has more
        return self._wait_again(context, self._deadline(context))

    def execute_complete(
        self, context: Context, event: Any = None, deadline: float | None = None
    ) -> Any:
        """Go on after a deferred wait."""
        try:
            result = self._as_poke(lambda: self._complete(context, event))
        except errors.CdmWaitTimeout as error:
            if isinstance(error, errors.CdmStalled):
                raise
            self._time_out(error)
        return self._wait_again(context, deadline) if result is None else result

    # What each sensor does

    def _poll(self, context: Context) -> PokeReturnValue:
        """Read the state once."""
        raise NotImplementedError

    def _complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Return the result from the event of the trigger.

        :raises CdmWaitTimeout: when the deadline of the trigger has passed.
        """
        raise NotImplementedError

    def _trigger(self, deadline: float, limit: str, delay: float) -> BaseTrigger:
        """Return what waits in the triggerer.

        :param deadline: when to give up, epoch seconds.
        :param limit: name of the argument that set the deadline.
        :param delay: seconds before the first poll.
        """
        raise NotImplementedError

    # What they share

    def _settle_durations(self) -> None:
        super()._settle_durations()
        for name in ("poke_interval", "timeout"):
            value = arguments.seconds(name, getattr(self, name), optional=False, positive=False)
            setattr(self, name, value)

    def _deadline(self, context: Context | None = None) -> float:
        """Return when to stop waiting, epoch seconds.

        :param context: for a wait that began when the attempt did; by default it begins now.
        """
        began = getattr(context["ti"], "start_date", None) if context else None
        start = began.timestamp() if began else self.hook.get_conn().clock()
        seconds, _ = self.wait_limit(self.timeout, "timeout")
        return float(start + (seconds or 0.0))

    def _wait_here(self, context: Context) -> Any:
        """Wait on the worker, as Airflow's sensors do."""
        try:
            return super().execute(context)
        except AirflowTaskTimeout as error:
            # Airflow skips only if it came during a poke, and not between two.
            self._skip_if(error, "soft_fail", "never_fail")
            raise

    def _wait_deferred(self, context: Context, deadline: float, delay: float = 0.0) -> Any:
        _, limit = self.wait_limit(self.timeout, "timeout")
        trigger = self._as_poke(lambda: self._trigger(deadline, limit, delay))
        if trigger is None:
            # With arguments that cannot be used there is nothing that could wait elsewhere.
            return self._wait_here(context)
        return self.defer(
            trigger=trigger, method_name="execute_complete", kwargs={"deadline": deadline}
        )

    def _wait_again(self, context: Context, deadline: float | None) -> Any:
        """Go on waiting after a failure that ``silent_fail`` passes over."""
        if deadline is None:
            deadline = self._deadline(context)
        left = deadline - self.hook.get_conn().clock()
        if left <= 0:
            self._time_out(errors.CdmWaitTimeout("The wait timed out (timeout)."))
        return self._wait_deferred(context, deadline, delay=min(left, self.poke_interval))

    def _as_poke(self, step: Callable[[], Any]) -> Any:
        """Return what a step of a deferred wait returns, and treat its failure as one of a poke.

        :returns: ``None`` after a failure that ``silent_fail`` passes over.
        """
        try:
            return step()
        except AirflowSkipException:
            raise
        except (AirflowSensorTimeout, AirflowFailException) as error:
            self._skip_if(error, "soft_fail", "never_fail")
            raise
        except Exception as error:
            if isinstance(error, errors.CdmWaitTimeout) and not isinstance(
                error, errors.CdmStalled
            ):
                raise
            if not self.silent_fail:
                self._skip_if(error, "never_fail")
                raise
            self.log.error("Sensor poke failed (silent_fail): %s", error)  # noqa: TRY400 - as above
            return None

    @contextmanager
    def _soft_outcomes(self) -> Iterator[None]:
        """Skip the task with ``soft_fail`` when what it waits for ended badly."""
        try:
            yield
        except self.soft_failures as failure:
            self._skip_if(failure, "soft_fail")
            raise

    def _skip_if(self, error: BaseException, *flags: str) -> None:
        """Skip the task instead of failing it, if one of its arguments says so.

        :param flags: names of the arguments, such as ``soft_fail``.
        :raises AirflowSkipException: with the error as its cause.
        """
        for flag in flags:
            if getattr(self, flag):
                raise AirflowSkipException(f"Skipped because of {flag}: {error}") from error

    def _time_out(self, error: errors.CdmWaitTimeout) -> NoReturn:
        """End a deferred wait at its limit, as Airflow ends one in poke mode."""
        _, limit = self.wait_limit(self.timeout, "timeout")
        self._skip_if(error, "soft_fail")
        if limit == "timeout":
            raise AirflowSensorTimeout(str(error)) from None  # it says the same
        self._skip_if(error, "never_fail")
        raise error
