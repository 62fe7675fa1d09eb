"""The base of all operators and sensors: connection, retries, deferral."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar, cast

from airflow_provider_cdm._compat import (
    DEFERRAL_MARGIN,
    FRAMES_COME_FIRST,
    HAS_RETRY_POLICY,
    START_MARGIN,
    AirflowFailException,
    AirflowSensorTimeout,
    BaseOperator,
    BaseOperatorMeta,
    conf,
    config_values,
    is_reference,
)
from airflow_provider_cdm.client import arguments
from airflow_provider_cdm.client.errors import CdmConfigError, CdmError, CdmOutcomeUnknown
from airflow_provider_cdm.connection import CONFIG_SECTION, DEFAULT_CONN_ID
from airflow_provider_cdm.retry_policy import CdmRetryPolicy, action_of, as_final, as_policy_says

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_provider_cdm._compat import Context, XComArg
    from airflow_provider_cdm.hooks import CdmHook

F = TypeVar("F", bound=Callable[..., Any])
#: A duration as users write it; text is a number of seconds, or a template that renders to one.
Duration: TypeAlias = "float | timedelta | str | XComArg"

#: Seconds between two polls of an operator, where neither its argument nor the deployment says.
POLL_INTERVAL = 30


class _CdmTaskMeta(BaseOperatorMeta):
    """Makes tasks of this package, and checks their arguments.

    A mapped task is made when it runs, as part of a task that has no retry policy yet; so with
    wrong arguments it fails without a retry.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - of a metaclass
        is_mapped = kwargs.get("_airflow_from_mapped", False)
        try:
            task = super().__call__(*args, **kwargs)
            task._check_arguments()  # noqa: SLF001 - of the class that this makes
        except Exception as error:
            if not is_mapped:
                raise
            problem = f"The arguments of this mapped task cannot be used: {error}"
            cdm_error = error if isinstance(error, CdmError) else CdmConfigError(problem)
            raise as_final(cdm_error) from error
        return task

    @property
    def __signature__(self) -> inspect.Signature:
        # Of the constructor, and not of the method above, for documentation and editors.
        signature = inspect.signature(self.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class CdmTask(BaseOperator, metaclass=_CdmTaskMeta):
    """Base of all operators and sensors of this package.

    Templates of arguments render to text, also with ``render_template_as_native_obj``. One that
    comes to nothing (``None``) is an error that names the argument: it is not what was meant, and
    neither another cluster nor the text ``None`` may be used silently.

    :param cluster_id: the cluster; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).
    :param retry_policy: decides from the error whether the task is retried; by default a
        :class:`~airflow_provider_cdm.retry_policy.CdmRetryPolicy`.
    """

    template_fields: Sequence[str] = ("cluster_id", "project_id", "cdm_conn_id")
    #: Arguments that are no text. With ``render_template_as_native_obj``, a template that consists
    #: of one mapping or list is that.
    object_fields: ClassVar[frozenset[str]] = frozenset()
    #: Arguments that are durations (templated), and whether they may be ``None``.
    durations: ClassVar[Mapping[str, bool]] = {}
    #: Attributes that belong to the process that runs the task; a copy of the task has none.
    process_fields: ClassVar[frozenset[str]] = frozenset({"hook"})

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
        self._nothing: dict[str, str] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # What the process holds, such as connections, cannot be copied, and stays with it.
        left_out = self.process_fields & self.__dict__.keys()
        kept = [self.__dict__[name] for name in left_out]
        memo.update((id(value), value) for value in kept if value is not None)
        copied = super().__deepcopy__(memo)
        for name in left_out:
            copied.__dict__.pop(name, None)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        # The logger of Airflow 3 cannot be pickled either once it has been used.
        left_out = {*self.process_fields, "_log", "_cached_logger"}
        return {key: value for key, value in self.__dict__.items() if key not in left_out}

    @cached_property
    def hook(self) -> CdmHook:
        """The hook of this task, made from the rendered arguments on first use.

        :raises CdmConfigError: when an argument was given, but its template rendered to nothing.
        """
        from airflow_provider_cdm.hooks import CdmHook

        self.ensure_rendered()
        for name in self._given_places:
            arguments.ensure_names_something(name, getattr(self, name))
        return CdmHook(self.cdm_conn_id, self.cluster_id, self.project_id)

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: Any = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render an argument, or a part of one; text renders to text.

        :raises CdmConfigError: when the rendered argument cannot be used; no retry follows.
        """
        from airflow_provider_cdm import rendering

        if rendering.is_text_environment(jinja_env):
            return self._render_part(content, context, jinja_env, seen_oids)
        given = jinja_env or self.get_template_env()
        names = [name for name in self.template_fields if getattr(self, name, None) is content]
        environment = rendering.text_environment(given, self.get_dag())
        rendered = None
        try:
            if isinstance(content, str) and self.object_fields.intersection(names):
                rendered = self._render_object(content, context, given, seen_oids)
            if rendered is None:
                rendered = self._render_argument(content, context, environment, seen_oids)
        except CdmError as error:
            raise as_final(error) from error.__cause__
        except rendering.TEMPLATE_ERRORS as error:
            problem = f"The template of {names[0] if names else 'an argument'} cannot be rendered"
            raise as_final(CdmConfigError(f"{problem}: {error}.")) from None
        rendered, nothing = rendering.take_nothing(names[0] if names else "", content, rendered)
        if nothing:
            self._nothing = {**self._nothing, **{each.where: each.template for each in nothing}}
        return rendered

    def _render_argument(
        self, content: Any, context: Context, environment: Any, seen_oids: set[int] | None
    ) -> Any:
        """Render a whole argument; a subclass may read one from elsewhere."""
        return self._render_part(content, context, environment, seen_oids)

    def _render_part(
        self, content: Any, context: Context, environment: Any, seen_oids: set[int] | None
    ) -> Any:
        from airflow_provider_cdm import rendering

        if not isinstance(content, str):
            return super().render_template(content, context, environment, seen_oids)
        # The output of another task is no template.
        if seen_oids is not None and id(content) in seen_oids:
            return content
        return rendering.render(environment.from_string(content), context)

    def _render_object(
        self, content: str, context: Context, environment: Any, seen_oids: set[int] | None
    ) -> Any:
        """Return the object that a whole argument renders to, if the DAG has native objects."""
        from airflow_provider_cdm import rendering

        if "{{" not in content or (seen_oids is not None and id(content) in seen_oids):
            return None
        return rendering.native_object(content, context, environment)

    def ensure_rendered(self) -> None:
        """Check that no template of an argument rendered to nothing.

        :raises CdmConfigError: when some did; the error names them all.
        """
        if self._nothing:
            from airflow_provider_cdm import rendering

            raise CdmConfigError(rendering.describe_nothing(self._nothing))

    def _check_arguments(self) -> None:
        """Check what can be checked where the task is made.

        :raises CdmConfigError: when an argument cannot be used.
        """
        self._check_durations()

    def _check_durations(self) -> None:
        """Replace durations by their seconds, unless they are known only when the task runs.

        :raises CdmConfigError: when one cannot be used.
        """
        for name, optional in self.durations.items():
            value = getattr(self, name)
            if not is_known_later(value):
                setattr(self, name, arguments.seconds(name, value, optional=optional))

    def _settle_durations(self) -> None:
        """Replace rendered durations by their seconds, before the task uses them.

        :raises CdmConfigError: when one cannot be used.
        """
        for name, optional in self.durations.items():
            setattr(self, name, arguments.seconds(name, getattr(self, name), optional=optional))

    def ends_for_good(self, error: Exception, context: Context, *, last_attempt: bool) -> bool:
        """Return whether no attempt follows this error.

        :param last_attempt: whether no attempts are left. A retry policy may end the task before
            that, or let it begin again without using one.
        """
        if isinstance(error, AirflowFailException):
            return True
        if isinstance(self.retry_policy, CdmRetryPolicy):
            return last_attempt or self.retry_policy.is_final(error)
        if not HAS_RETRY_POLICY or self.retry_policy is None:
            return last_attempt
        try:
            action = action_of(self.retry_policy, error, context)
        except Exception:
            return last_attempt  # as Airflow does, which also logs the exception
        return action == "fail" or (last_attempt and action != "reschedule")


class DeferrableCdmTask(CdmTask):
    """Base of the tasks that can wait in the triggerer.

    :param deferrable: wait in the triggerer instead of on a worker; by default as ``[operators]
        default_deferrable`` says.
    """

    def __init__(
        self,
        *,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
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
        margin = START_MARGIN if self.start_from_trigger else DEFERRAL_MARGIN
        left = total - min(margin, total / 10)
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
            failure = error if HAS_RETRY_POLICY else as_policy_says(error, self.retry_policy)
        if FRAMES_COME_FIRST:
            self.log.error("%s", str(failure).partition("\n")[0])
        # Out here, so that the error is not chained to itself.
        raise failure.with_traceback(None) from None

    return cast("F", wrapper)


def configured_poll_interval() -> float | None:
    """Return the seconds between two polls that the deployment sets, ``[cdm] poll_interval``.

    :raises CdmConfigError: when the option cannot be used.
    """
    value = config_values(CONFIG_SECTION, ["poll_interval"]).get("poll_interval")
    seconds: float | None = arguments.seconds("[cdm] poll_interval in airflow.cfg", value)
    return seconds


def poll_interval_or_default(given: Duration | None) -> Duration:
    """Return the ``poll_interval`` of an operator: its argument, the deployment's, or 30 seconds.

    :raises CdmConfigError: when the deployment's is needed and cannot be used.
    """
    if given is not None:
        return given
    configured = configured_poll_interval()
    return POLL_INTERVAL if configured is None else configured


def is_known_later(value: Any) -> bool:
    """Return whether the value of an argument is known only when the task runs."""
    is_template = isinstance(value, str) and ("{{" in value or "{%" in value)
    return is_template or is_reference(value) or callable(value)
