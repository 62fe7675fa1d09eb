"""The base of the operators that start a job and wait for its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.links import CdmRunLink
from airflow_provider_cdm.tasks.base import (
    Duration,
    fail_without_retry,
    poll_interval_or_default,
)
from airflow_provider_cdm.tasks.outcome import RunOutcomeTask

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.jobs.job_check import CheckVariables, JobCheck
    from airflow_provider_cdm.tasks.attempt import Attempt, AttemptJob
    from airflow_provider_cdm.tasks.attempt_options import IfRunning, OnGivingUp


class JobRunOperator(RunOutcomeTask):
    """Starts a job once per generation of the task and, if asked to, waits for its run.

    A subclass says which job; its docstring describes the parameters.
    """

    template_fields: Sequence[str] = (
        "variables",
        *RunOutcomeTask.template_fields,
        "poll_interval",
        "wait_timeout",
        "stalled_after",
    )
    object_fields = frozenset({"variables"})
    durations: ClassVar[Mapping[str, bool]] = {
        "poll_interval": False,
        "wait_timeout": True,
        "stalled_after": True,
    }
    process_fields = RunOutcomeTask.process_fields | {"_attempt"}
    operator_extra_links = (CdmRunLink(),)
    ui_color = "#f4e3e3"
    #: Other clusters that hold the job, where a subclass has such an argument.
    standby_cluster_ids: Any = None
    _attempt: Attempt | None = None

    def __init__(
        self,
        *,
        variables: Mapping[str, Any] | None = None,
        wait_for_completion: bool = True,
        poll_interval: Duration | None = None,
        wait_timeout: Duration | None = None,
        stalled_after: Duration | None = arguments.STALLED_AFTER,
        fail_when_stalled: bool = False,
        if_running: IfRunning = "fail",
        cancel_on_kill: bool = True,
        on_giving_up: OnGivingUp = "leave",
        check_variables: CheckVariables = "warn",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.variables = variables
        self._variables_given = variables is not None
        self.wait_for_completion = wait_for_completion
        self.poll_interval: Any = poll_interval_or_default(poll_interval)
        self.wait_timeout: Any = wait_timeout
        self.stalled_after: Any = stalled_after
        self.fail_when_stalled = fail_when_stalled
        self.if_running = if_running
        self.cancel_on_kill = cancel_on_kill
        self.on_giving_up = on_giving_up
        self.check_variables = check_variables
        arguments.one_of("if_running", if_running, ("fail", "wait", "attach"))
        arguments.one_of("on_giving_up", on_giving_up, ("leave", "stop"))
        arguments.one_of("check_variables", check_variables, ("warn", "fail", "off"))
        if self.given_thresholds and not wait_for_completion:
            raise errors.CdmConfigError(
                f"{' and '.join(self.given_thresholds)}: only a task that waits sees rows. Set"
                " wait_for_completion=True, or give this to the CdmSubmissionSensor."
            )

    @fail_without_retry
    def execute(self, context: Context) -> dict[str, Any]:
        """Start the job; wait for the run if ``wait_for_completion`` is set."""
        attempt = self._open_attempt(context)
        try:
            return attempt.run()
        except Exception as error:
            from airflow_provider_cdm.tasks import kills

            kills.give_up(attempt, error)
            raise

    @fail_without_retry
    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Go on after a deferral, with one of the methods below."""
        attempt = self._open_attempt(context)
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except Exception as error:
            from airflow_provider_cdm.tasks import kills

            kills.give_up(attempt, error)
            raise

    def start_after_wait(
        self,
        context: Context,
        event: Any = None,
        deadline: float | None = None,
        attempt_id: str = "",
        checked: str | None = None,
    ) -> dict[str, Any]:
        """Go on after a deferred wait for a run that was in the way."""
        return self._resumed_attempt(context, deadline, attempt_id, checked).resume_start(event)

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        deadline: float | None = None,
        attached_at: float | None = None,
        attempt_id: str = "",
        cleared: bool = False,
        own: bool = True,
        checked: str | None = None,
    ) -> dict[str, Any]:
        """Go on after a deferred wait for the run of this task."""
        attempt = self._resumed_attempt(context, deadline, attempt_id, checked)
        attempt.attached_at, attempt.cleared = attached_at, cleared
        return attempt.resume_wait(event, own=own)

    @property
    def job_definition(self) -> Mapping[str, Any] | None:
        """Definition of the job, where the task has it."""
        own = self._attempt.job.definition if self._attempt is not None else None
        return own or super().job_definition

    def on_kill(self) -> None:
        """Stop the run of this task, unless it has ended or ``cancel_on_kill`` is off."""
        from airflow_provider_cdm.tasks import kills

        if self._attempt is not None:
            kills.kill(self._attempt)

    def _job(self, context: Context) -> AttemptJob:
        """Return the job to start.

        :raises CdmConfigError: when the task's arguments describe no usable job.
        """
        raise NotImplementedError

    def _job_check(self, context: Context, job_name: str, macro_hint: str) -> JobCheck:
        """Return the check of the job's definition.

        :param macro_hint: what to do about a date macro, as a sentence.
        """
        from airflow_provider_cdm.client.jobs.job_check import JobCheck
        from airflow_provider_cdm.tasks.planned_day import PlannedDays

        days = PlannedDays.of(context)
        return JobCheck(
            *(job_name, self.check_variables, self.variables or {}),
            *(days.differ_from, macro_hint, self.log),
        )

    def _open_attempt(self, context: Context) -> Attempt:
        """Check the rendered arguments, before anything is started.

        :raises CdmConfigError: when one of them cannot be used.
        """
        from airflow_provider_cdm.client.jobs.progress import StallPolicy
        from airflow_provider_cdm.tasks.attempt import Attempt
        from airflow_provider_cdm.tasks.attempt_options import AttemptOptions

        if self.wait_for_completion:
            # Before anything is started: a kill while a module is imported finds only half of it.
            from airflow_provider_cdm.tasks import kills, run_wait  # noqa: F401

        if self._variables_given:
            arguments.ensure_rendered("variables", self.variables)
        self.variables = arguments.variables(self.variables)
        self._settle_durations()
        self.check_outcome_arguments()
        options = AttemptOptions(
            variables=self.variables,
            wait_for_completion=self.wait_for_completion,
            poll_interval=self.poll_interval,
            wait_limit=self.wait_limit(self.wait_timeout, "wait_timeout"),
            stall=StallPolicy(self.stalled_after, self.fail_when_stalled),
            if_running=self.if_running,
            cancel_on_kill=self.cancel_on_kill,
            on_giving_up=self.on_giving_up,
            standby_cluster_ids=self.standby_cluster_ids,
        )
        self._attempt = Attempt(self, context, self._job(context), options)
        return self._attempt

    def _resumed_attempt(
        self, context: Context, deadline: float | None, attempt_id: str, checked: str | None
    ) -> Attempt:
        attempt = self._attempt or self._open_attempt(context)
        attempt.job.check.restore(checked)
        attempt.deadline, attempt.attempt_id = deadline, attempt_id or attempt.attempt_id
        return attempt
