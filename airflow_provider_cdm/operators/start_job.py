"""Operators for CDM jobs."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_cdm._compat import conf
from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.client.jobs.follower import Follower, SideTask
from airflow_provider_cdm.client.jobs.progress import (
    STALLED_AFTER,
    ProgressLog,
    StallPolicy,
    describe,
)
from airflow_provider_cdm.client.jobs.start import start_once
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRequest, StartResult
from airflow_provider_cdm.client.sansio import pause
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.client.whole_database.collect import TableProgress
from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.links import CdmRunLink
from airflow_provider_cdm.tasks.base import fail_without_retry
from airflow_provider_cdm.tasks.journal import Journal
from airflow_provider_cdm.tasks.outcome import RunOutcomeMixin
from airflow_provider_cdm.triggers.submission import (
    CdmSubmissionTrigger,
    SubmissionEvent,
    wait_limit,
)

if TYPE_CHECKING:
    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.sansio import Flow
    from airflow_provider_cdm.client.session import CdmSession

IfRunning = Literal["fail", "wait", "attach"]
OnGivingUp = Literal["leave", "stop"]

#: Seconds within which a killed task must have sent its stop: Airflow kills it for good after five.
_KILL_SECONDS = 4.0
#: Seconds within which a run that an earlier attempt was about to stop does stop.
_STOP_SECONDS = 120.0


class CdmStartJobOperator(RunOutcomeMixin):
    """Starts a CDM job and, if asked to, waits until that run is over.

    Returns, and pushes as XCom, one small JSON object, the same in every mode: ``cluster_id,
    job_name, submission_id, creation_date, status``, and once the run is over also ``progress,
    counters, execute_date, last_update_date, duration_seconds``.

    Fails with :class:`~airflow_provider_cdm.exceptions.CdmSubmissionFailed` and CDM's own reason
    when the run ends in any other way than ``SUCCEEDED``. A failure that no retry can mend, such as
    wrong credentials, fails the task at once
    (:class:`~airflow_provider_cdm.retry_policy.CdmRetryPolicy`).

    :param job_name: name of an existing job (templated).
    :param cluster_id: cluster of the job; by default the connection's (templated).
    :param variables: values for ``${name}`` in the job's parameters, for this run only (templated).
        Pass the logical date here, so that a backfill moves the rows of its own day.
    :param project_id: project of the cluster; by default the connection's (templated).
    :param wait_for_completion: wait until the run is over. Off: end right after the start, and
        leave the waiting to a :class:`~airflow_provider_cdm.sensors.CdmSubmissionSensor`.
    :param deferrable: wait in the triggerer instead of on a worker; needs ``wait_for_completion``.
    :param poll_interval: seconds between two looks at the run.
    :param wait_timeout: seconds after which to stop waiting, with
        :class:`~airflow_provider_cdm.exceptions.CdmWaitTimeout`; the run goes on. By default the
        task waits for as long as the run takes.
    :param stalled_after: seconds in which neither status nor progress nor rows move, and after
        which the log warns; ``None`` for never.
    :param fail_when_stalled: stop waiting then, with
        :class:`~airflow_provider_cdm.exceptions.CdmStalled`; the run goes on.
    :param if_running: what to do when the job has an active run already: ``fail``, ``wait`` until
        it is over and start then, or ``attach`` to it and take it for this task's own.
    :param cancel_on_kill: stop the run when the task is killed, if it is this task's own.
    :param on_giving_up: what to do with a run that is still active when the task fails and has no
        attempt left: ``leave`` it (the log says which, and how to stop it), or ``stop`` it.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).

    ``min_rows_written``, ``max_rows_skipped`` and ``rows_written_equal_read`` are those of
    :class:`~airflow_provider_cdm.tasks.outcome.RunOutcomeMixin`; they need ``wait_for_completion``.
    """

    template_fields: Sequence[str] = (
        "job_name",
        "cluster_id",
        "variables",
        "project_id",
        "cdm_conn_id",
        *RunOutcomeMixin.template_fields,
    )
    template_fields_renderers = {"variables": "json"}  # noqa: RUF012 - as Airflow declares it
    operator_extra_links = (CdmRunLink(),)
    ui_color = "#f4e3e3"
    #: What waits for this operator's run in the triggerer.
    trigger_class: ClassVar[type[CdmSubmissionTrigger]] = CdmSubmissionTrigger

    def __init__(
        self,
        *,
        job_name: str,
        cluster_id: str | None = None,
        variables: Mapping[str, Any] | None = None,
        project_id: str | None = None,
        wait_for_completion: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 30,
        wait_timeout: float | None = None,
        stalled_after: float | None = STALLED_AFTER,
        fail_when_stalled: bool = False,
        if_running: IfRunning = "fail",
        cancel_on_kill: bool = True,
        on_giving_up: OnGivingUp = "leave",
        cdm_conn_id: str = CdmHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.cluster_id = cluster_id
        self.variables = variables
        self.project_id = project_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.wait_timeout = wait_timeout
        self.stalled_after = stalled_after
        self.fail_when_stalled = fail_when_stalled
        self.if_running = if_running
        self.cancel_on_kill = cancel_on_kill
        self.on_giving_up = on_giving_up
        self.cdm_conn_id = cdm_conn_id
        if if_running not in ("fail", "wait", "attach"):
            raise errors.CdmConfigError(
                f"if_running must be 'fail', 'wait' or 'attach', not {if_running!r}."
            )
        if on_giving_up not in ("leave", "stop"):
            raise errors.CdmConfigError(
                f"on_giving_up must be 'leave' or 'stop', not {on_giving_up!r}."
            )
        arguments.positive_seconds(
            poll_interval=poll_interval, wait_timeout=wait_timeout, stalled_after=stalled_after
        )
        if self._thresholds_given and not wait_for_completion:
            raise errors.CdmConfigError(
                f"{' and '.join(self._thresholds_given)}: only a task that waits sees rows. Set"
                " wait_for_completion=True, or give this to the CdmSubmissionSensor."
            )
        self._session: CdmSession | None = None
        self._own_run: RunRef | None = None

    @fail_without_retry
    def execute(self, context: Context) -> dict[str, Any]:
        """Start the job; wait for the run if asked to."""
        session = self._connect()
        seconds, _ = self._limit()
        deadline = None if seconds is None else session.clock() + seconds
        try:
            return self._start_and_wait(context, deadline)
        except Exception as error:
            self._after_failure(context, error)
            raise

    @fail_without_retry
    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Go on after a deferral, by one of the methods below."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except Exception as error:
            self._after_failure(context, error)
            raise

    def start_after_wait(
        self, context: Context, event: Any = None, deadline: float | None = None
    ) -> dict[str, Any]:
        """Go on after a deferred wait for somebody else's run."""
        self._connect()
        try:
            other = SubmissionEvent.unwrap(event)
        except errors.CdmOutcomeUnknown as error:
            self.log.warning("The run that was in the way cannot be seen any more: %s", error)
        else:
            self.log.info("The run that was in the way is over (%s)", other.status)
        return self._start_and_wait(context, deadline)

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        deadline: float | None = None,
        attached_at: float | None = None,
    ) -> dict[str, Any]:
        """Go on after a deferred wait for this task's run."""
        ended = SubmissionEvent.unwrap(event)
        self.log.info("%s", describe(ended, 0))
        return self._conclude(context, ended, deadline, attached_at)

    def on_kill(self) -> None:
        """Stop the run of this task, unless it is over, or not this task's, or ``cancel_on_kill``
        is off.
        """
        run, session = self._own_run, self._session
        if run is None or session is None:
            return
        if not self.cancel_on_kill:
            self.log.warning("Killed; %s is left running (cancel_on_kill is off)", run)
            return
        # In a thread: the signal may have interrupted this one in the middle of an exchange. With
        # the session at hand: while a task is being killed, Airflow answers no look-ups.
        stopper = threading.Thread(target=self._stop, args=(session, run), daemon=True)
        stopper.start()
        stopper.join(_KILL_SECONDS)
        if stopper.is_alive():
            self.log.error(
                "Killed; whether the stop of %s arrived is not known: look in the CDM console", run
            )

    def _stop(self, session: CdmSession, run: RunRef) -> None:
        try:
            sent = session.run(session.api.stop_run(run))
        except errors.CdmError as error:
            self.log.warning("%s could not be stopped; stop it in the CDM console. %s", run, error)
        else:
            result = "CDM was asked to stop it" if sent else "it is not active, nothing to stop"
            self.log.info("%s: %s", run, result)

    def _connect(self) -> CdmSession:
        """Check the rendered arguments and resolve the connection, before anything is started."""
        arguments.job_name(self.job_name)
        self.variables = arguments.variables(self.variables)
        self._thresholds()
        hook = CdmHook(self.cdm_conn_id, self.cluster_id, self.project_id)
        self._session = hook.get_conn()
        self.cluster_id = hook.resolve_cluster()
        return self._session

    def _start_and_wait(self, context: Context, deadline: float | None) -> dict[str, Any]:
        journal = Journal(context)
        session, started = self._start(journal, deadline)
        run = started.run
        self._own_run = RunRef.of(run)
        address = CdmRunLink.store(context, session.settings, run)
        self.log.info("%s is %s. Look at it: %s", self._own_run, run.status, address)
        attached_at = session.clock() if started.from_earlier_attempt else None
        if run.ended:
            return self._conclude(context, run, deadline, attached_at)
        if not self.wait_for_completion:
            journal.leave()
            return self._leave(context, run)
        follower = Follower(self._own_run)
        if self.deferrable:
            # Without one more look: the run was seen active just now.
            waiting = {"deadline": deadline, "attached_at": attached_at}
            self._defer(follower.run, "execute_complete", waiting)
        tables = TableProgress(self._own_definition())
        ended = session.run(self._follow(session, follower, deadline, tables))
        return self._conclude(context, tables.with_job_type(ended), deadline, attached_at)

    def _follow(
        self,
        session: CdmSession,
        follower: Follower,
        deadline: float | None,
        side_task: SideTask | None = None,
    ) -> Flow[Submission]:
        return follower.follow(
            session.api,
            poll_interval=self.poll_interval,
            deadline=deadline,
            on_status=ProgressLog(
                self.log, session.clock, StallPolicy(self.stalled_after, self.fail_when_stalled)
            ),
            side_task=side_task,
        )

    def _limit(self) -> tuple[float | None, str]:
        """How long an attempt may wait, in seconds, and which argument says so."""
        # On a worker Airflow sees to the execution_timeout; while a task is deferred, it does not.
        limit = self.execution_timeout if self.deferrable else None
        return wait_limit(self.wait_timeout, "wait_timeout", limit)

    def _start(self, journal: Journal, deadline: float | None) -> tuple[CdmSession, StartResult]:
        session = self._session or self._connect()
        request = self._request(journal)
        while True:
            start = start_once(session.api, request, journal.read(), StartPolicy())
            try:
                return session, session.run(start, journal.save)
            except errors.CdmAlreadyRunning as refusal:
                if self.if_running == "fail":
                    raise
                self.log.info("%s", refusal)
                other = refusal.submission
            if other is None:
                # It ended between two calls, so the way should be free now.
                session.run(pause(1.0))
            else:
                self._wait_for_other(session, RunRef.of(other), deadline)

    def _request(self, journal: Journal) -> StartRequest:
        """What is to be started."""
        session, cluster = self._session, self.cluster_id
        if session is None or cluster is None:
            raise RuntimeError("_connect comes first")
        settings = session.settings
        return StartRequest(
            project=settings.project_id or settings.project_name or "",
            cluster_id=cluster,
            job_name=self.job_name,
            variables=arguments.variables(self.variables),
            generation=journal.generation,
            if_running=self.if_running,
        )

    def _wait_for_other(self, session: CdmSession, other: RunRef, deadline: float | None) -> None:
        self.log.info("Waiting until %s is over, to start then", other)
        if self.deferrable:
            self._defer(other, "start_after_wait", {"deadline": deadline}, own=False)
        try:
            session.run(self._follow(session, Follower(other), deadline))
        except errors.CdmOutcomeUnknown as error:
            self.log.warning("The run that was in the way cannot be seen any more: %s", error)

    def _defer(
        self, run: RunRef, method_name: str, kwargs: dict[str, Any], *, own: bool = True
    ) -> None:
        self.defer(
            trigger=self.trigger_class(
                job_name=run.job_name,
                cluster_id=run.cluster_id,
                submission_id=run.submission_id,
                creation_date=run.creation_date,
                poll_interval=self.poll_interval,
                deadline=kwargs["deadline"],
                limit=self._limit()[1],
                stalled_after=self.stalled_after,
                fail_when_stalled=self.fail_when_stalled,
                cancel_on_kill=own and self.cancel_on_kill,
                project_id=self.project_id,
                cdm_conn_id=self.cdm_conn_id,
            ),
            method_name=method_name,
            kwargs=kwargs,
        )

    def _conclude(
        self,
        context: Context,
        run: Submission,
        deadline: float | None,
        attached_at: float | None,
    ) -> dict[str, Any]:
        run = self._with_tables(run)
        no_retry = not run.failed or self._gives_up(errors.CdmSubmissionFailed("", run), context)
        Journal(context).conclude(run, final=no_retry)
        if attached_at is not None and _stopped_at_once(run, attached_at):
            self.log.warning(
                "%s was stopped when its task was killed or cleared; starting anew", RunRef.of(run)
            )
            self._connect()
            return self._start_and_wait(context, deadline)
        return self._judge(context, run)

    def _open_session(self) -> CdmSession:
        return self._session or self._connect()

    def _after_failure(self, context: Context, error: Exception) -> None:
        """When no attempt follows, say what becomes of a run that is still active."""
        try:
            journal = Journal(context)
            over = journal.last_attempt or self._gives_up(error, context)
            key = journal.run() if over else None
            if key is None:
                return
            session = self._session or self._connect()
            run = RunRef(str(self.cluster_id), self.job_name, **key)
            if self.on_giving_up == "stop":
                self.log.info("No attempt follows; stopping %s (on_giving_up='stop')", run)
                self._stop(session, run)
                return
        except errors.CdmError as trouble:
            self.log.warning("Cannot say what becomes of the run: %s", trouble)
        else:
            self.log.error(
                "No attempt follows after %s, and %s may still be active. To stop it, use"
                " CdmHook(%r).stop_job(%r, %r) or the CDM console; a cleared task attaches to it."
                " on_giving_up='stop' stops such runs by itself.",
                *(type(error).__name__, run, self.cdm_conn_id, run.job_name, run.cluster_id),
            )


def _stopped_at_once(run: Submission, attached_at: float) -> bool:
    """Whether a run that an earlier attempt had started ended as a stop by that attempt would."""
    if run.status != "STOPPED":
        return False
    return run.last_update_date is None or run.last_update_date / 1000 < attached_at + _STOP_SECONDS
