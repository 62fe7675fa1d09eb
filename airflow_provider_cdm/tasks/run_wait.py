"""The wait of one attempt for a run: on its worker, or in the triggerer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_cdm import metrics
from airflow_provider_cdm.client import errors
from airflow_provider_cdm.client.jobs.follower import Follower
from airflow_provider_cdm.client.jobs.progress import ProgressLog
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.client.whole_database.collect import TableProgress
from airflow_provider_cdm.triggers.event import SubmissionEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.jobs.follower import SideTask
    from airflow_provider_cdm.client.session import CdmSession
    from airflow_provider_cdm.tasks.attempt_options import AttemptOptions
    from airflow_provider_cdm.tasks.outcome import RunOutcomeTask
    from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger


class RunWait:
    """The wait of an attempt for the end of its run, or of one that is in the way.

    :param task: the operator: its connection, its log, and what it does about a stall.
    :param context: context of the running task, as Airflow passes it.
    :param options: how to wait.
    :param trigger_class: what waits in the triggerer.
    """

    def __init__(
        self,
        task: RunOutcomeTask,
        context: Context,
        options: AttemptOptions,
        trigger_class: type[CdmSubmissionTrigger],
    ) -> None:
        self._task = task
        self._context = context
        self._options = options
        self._trigger_class = trigger_class
        self._follower: Follower | None = None

    # On the worker

    def for_run(
        self,
        run: RunRef,
        deadline: float | None,
        definition: Mapping[str, Any] | None,
        *,
        own: bool,
    ) -> Submission:
        """Wait for the run of the task; while it lasts, the log shows also its tables.

        :param deadline: when to stop waiting, epoch seconds; ``None`` for never.
        :param definition: definition of the job, where the task has it.
        :param own: whether the task started the run.
        """
        progress = self._log_progress(run.cluster_id, own=own)
        tables = TableProgress(definition, progress.record_change)
        ended = self._follow(run, deadline, progress, side_task=tables, is_new=True)
        metrics.time_notice(progress.notice_delay, ended.cluster_id)
        return tables.with_job_type(ended)

    def for_other(self, run: RunRef, deadline: float | None) -> Submission:
        """Wait for a run that is in the way.

        :param deadline: as above.
        :raises CdmOutcomeUnknown: when CDM does not tell how it ended.
        """
        return self._follow(run, deadline, self._log_progress(run.cluster_id, own=False))

    def seen_active(self, run: RunRef) -> float | None:
        """Return when this process last saw a run active, by the monotonic clock; or ``None``."""
        follower = self._follower
        if follower is None or follower.last is None or follower.last.ended:
            return None
        return follower.seen_at if run.is_run(follower.last) else None

    def _log_progress(self, cluster_id: str, *, own: bool) -> ProgressLog:
        def report(error: errors.CdmStalled) -> None:
            metrics.count_stall(cluster_id)
            self._task.report_stall(self._context, error)

        session = self._session
        return ProgressLog(
            *(self._task.log, session.monotonic, self._options.stall),
            session.api.exchanger.server_time,
            foreign=not own,
            on_stall=report,
        )

    def _follow(
        self,
        run: RunRef,
        deadline: float | None,
        progress: ProgressLog,
        *,
        side_task: SideTask | None = None,
        is_new: bool = False,
    ) -> Submission:
        self._follower = Follower(run)
        flow = self._follower.follow(
            self._session.api,
            poll_interval=self._options.poll_interval,
            deadline=deadline,
            on_status=progress,
            side_task=side_task,
            is_new=is_new,
        )
        return self._session.run(flow)

    @property
    def _session(self) -> CdmSession:
        return self._task.hook.get_conn()

    # In the triggerer

    def defer(
        self,
        run: RunRef,
        deadline: float | None,
        method_name: str,
        kwargs: dict[str, Any],
        *,
        own: bool,
        progress: Mapping[str, Any] | None = None,
        job_type: str | None = None,
    ) -> None:
        """Defer the task until a run has ended.

        :param deadline: when to stop waiting, epoch seconds; ``None`` for never.
        :param method_name: method of the operator that goes on then, with ``kwargs``.
        :param own: whether the task started it.
        :param progress: what the log of the wait knew before a stall was reported.
        :param job_type: type of the job, if it is known.
        """
        task, options = self._task, self._options
        task.defer(
            trigger=self._trigger_class(
                job_name=run.job_name,
                cluster_id=run.cluster_id,
                submission_id=run.submission_id,
                creation_date=run.creation_date,
                poll_interval=options.poll_interval,
                deadline=deadline,
                limit=options.wait_limit[1],
                stalled_after=options.stall.after,
                fail_when_stalled=options.stall.fail,
                cancel_on_kill=own and options.cancel_on_kill,
                foreign=not own,
                report_stalls=task.on_stalled is not None,
                progress=progress,
                job_type=job_type,
                project_id=task.project_id,
                cdm_conn_id=task.cdm_conn_id,
            ),
            method_name=method_name,
            kwargs=kwargs,
        )

    def run_in(self, event: Any) -> Submission:
        """Return the run that an event of the trigger is about; or raise its error.

        :raises CdmError: what ended the wait instead.
        """
        try:
            return SubmissionEvent.unwrap(event)
        except errors.CdmStalled as error:
            self._task.report_stall(self._context, error)
            raise

    def report_stall(
        self, error: errors.CdmStalled, stall: Mapping[str, Any]
    ) -> tuple[RunRef, Mapping[str, Any]]:
        """Report a stall of a deferred wait, and return what the wait goes on with."""
        self._task.report_stall(self._context, error)
        if error.submission is None:
            raise error
        return RunRef.of(error.submission), stall["progress"]
