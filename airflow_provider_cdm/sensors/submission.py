"""The sensor for one run of a CDM job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_cdm._compat import PokeReturnValue
from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.links import CdmRunLink
from airflow_provider_cdm.sensors.base import CdmSensor
from airflow_provider_cdm.tasks.base import Duration
from airflow_provider_cdm.tasks.outcome import SOFT_FAILURES, RunOutcomeTask

if TYPE_CHECKING:
    from datetime import date, datetime

    from airflow_provider_cdm._compat import BaseTrigger, Context, XComArg
    from airflow_provider_cdm.client.jobs.follower import Follower
    from airflow_provider_cdm.client.jobs.progress import ProgressLog
    from airflow_provider_cdm.client.submission import Submission
    from airflow_provider_cdm.client.whole_database.collect import TableProgress


class CdmSubmissionSensor(RunOutcomeTask, CdmSensor):
    """Waits until one run of a CDM job has ended, and fails unless it succeeded.

    It judges the run that was asked for and no other: neither an earlier run that the status still
    shows, nor a later one that somebody else started. Returns the same object as
    :class:`~airflow_provider_cdm.operators.CdmStartJobOperator`.

    Name the run in one of three ways:

    :param submission: what the operator returned, as ``start.output`` (templated; a template gives
        it only in a DAG with ``render_template_as_native_obj``, elsewhere text).
    :param job_name: name of the job, with one of the next two (templated).
    :param submission_id: number of the run (templated).
    :param started_after: take the first run created at or after this instant: a ``datetime``, a
        ``date``, a text in ISO 8601 (UTC if it names no zone), as ``ds_nodash`` or ``ts_nodash``,
        or epoch milliseconds (templated). What may mean two things, such as epoch seconds, is an
        error.
    :param cluster_id: cluster of the job; by default the connection's (templated).
    :param project_id: project of the cluster; by default the connection's (templated).
    :param stalled_after: seconds without a change of status, progress or rows after which the log
        warns; ``None`` for never.
    :param fail_when_stalled: stop waiting then, with
        :class:`~airflow_provider_cdm.exceptions.CdmStalled`; the run is not stopped.
    :param poke_interval: seconds between two polls (templated); by default ``[cdm] poll_interval``
        of ``airflow.cfg``, or 60.
    :param timeout: seconds after which the sensor times out (templated); by default ``[sensors]
        default_timeout``, which is seven days.
    :param deferrable: wait in the triggerer. ``poke_interval`` and ``timeout`` mean the same there;
        ``exponential_backoff`` has no effect there, and the log warns.
    :param start_from_trigger: begin in the triggerer, without a worker; implies ``deferrable``.
        Needs Airflow 3.3. The triggerer renders the arguments: they may be plain values and
        templates such as ``{{ data_interval_end }}``, or ``xcom_pull`` with ``map_indexes``, and
        neither outputs of other tasks nor functions. Mapped tasks cannot begin there. Airflow asks
        no pool, and no limit of tasks that run at the same time, before the run has ended.
    :param cdm_conn_id: connection of type ``huaweicloud_cdm`` (templated).

    ``min_rows_written``, ``max_rows_skipped`` and ``rows_written_equal_read`` are those of
    :class:`~airflow_provider_cdm.tasks.outcome.RunOutcomeTask`.
    """

    template_fields: Sequence[str] = (
        "submission",
        "job_name",
        "submission_id",
        "started_after",
        *RunOutcomeTask.template_fields,
        "stalled_after",
        "poke_interval",
        "timeout",
    )
    object_fields = frozenset({"submission"})
    durations: ClassVar[Mapping[str, bool]] = {"stalled_after": True}
    process_fields = RunOutcomeTask.process_fields | {"_follower", "_progress", "_tables"}
    soft_failures = SOFT_FAILURES
    template_fields_renderers = {"submission": "json"}  # noqa: RUF012 - as Airflow declares it
    operator_extra_links = (CdmRunLink(),)

    def __init__(
        self,
        *,
        submission: Mapping[str, Any] | XComArg | str | None = None,
        job_name: str | None = None,
        submission_id: int | str | None = None,
        started_after: datetime | date | str | int | None = None,
        stalled_after: Duration | None = arguments.STALLED_AFTER,
        fail_when_stalled: bool = False,
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        if start_from_trigger:
            from airflow_provider_cdm.sensors import trigger_start

            trigger_start.check_place(self, start_from_trigger, kwargs)
            kwargs["deferrable"] = True
        super().__init__(**kwargs)
        self.start_from_trigger = bool(start_from_trigger)
        self.submission = submission
        self.job_name = job_name
        self.submission_id = submission_id
        self.started_after = started_after
        self.stalled_after: Any = stalled_after
        self.fail_when_stalled = fail_when_stalled
        self._has_link = False
        self._announced = False
        #: State of the progress log of a trigger that ended to report a stall.
        self._trigger_progress: Mapping[str, Any] | None = None
        self._context: Context | None = None

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Map the task, as Airflow does, unless it is to start in the triggerer.

        :raises CdmConfigError: when it is.
        """
        from airflow_provider_cdm.sensors import mapped_start

        mapped_start.check_mapping(kwargs.get("default_args") or {})
        return mapped_start.CheckedPartial(super().partial(**kwargs))

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if self.start_from_trigger:
            from airflow_provider_cdm.sensors import trigger_start

            options = {
                "rows_written_equal_read": self.rows_written_equal_read,
                "fail_when_stalled": self.fail_when_stalled,
                "report_stalls": self.on_stalled is not None,
            }
            self.start_trigger_args = trigger_start.arguments_of(
                self, CdmSubmissionSensor.template_fields, options
            )

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once: find the run if it is not known yet, else read its status.

        :raises CdmSubmissionFailed: when the run ended and did not succeed.
        """
        from airflow_provider_cdm.tasks.journal import SensorStore

        if not self.reschedule:
            return self._poll(context)
        # Each poke of this mode is a process of its own, so what a poll found out is stored.
        store = SensorStore(context, self._question(context))
        stored = store.read()
        self._restore(stored)
        self._announced = stored is not None
        state = None
        try:
            answer = self._poll(context)
            if not answer.is_done:
                state = self._dump()
        finally:
            if state is None or state != stored:
                store.replace(state)
        return answer

    def execute_complete(
        self, context: Context, event: Any = None, deadline: float | None = None
    ) -> Any:
        """Go on after a deferred wait, which may have ended only to report a stall."""
        from airflow_provider_cdm.client.submission import RunRef
        from airflow_provider_cdm.triggers.event import SubmissionEvent

        noted = SubmissionEvent.stall_in(event)
        if noted is None:
            return super().execute_complete(context, event, deadline)
        error, to_go_on = noted
        self.report_stall(context, error)
        if error.submission is not None:
            self._follower.run = RunRef.of(error.submission)
        self._trigger_progress = to_go_on["progress"]
        return self._wait_deferred(context, to_go_on["deadline"])

    def _question(self, context: Context) -> dict[str, Any]:
        """Return what this attempt waits for: another attempt, or other arguments, start afresh."""
        run = self._follower.run
        return {
            "try_number": context["ti"].try_number,
            "run": [run.cluster_id, run.job_name, run.submission_id, run.creation_date],
            "created_from": self._follower.created_from,
        }

    @cached_property
    def _follower(self) -> Follower:
        """What reads the status of the run, for all pokes of this process.

        :raises CdmConfigError: when an argument cannot be used.
        """
        from airflow_provider_cdm.client.jobs.follower import Follower
        from airflow_provider_cdm.client.named_run import name_run

        run, created_from = name_run(
            self.submission, self.job_name, self.submission_id, self.started_after, self.cluster_id
        )
        self.check_outcome_arguments()
        cluster_id = self.hook.resolve_cluster(run.cluster_id or None)
        return Follower(replace(run, cluster_id=cluster_id), created_from=created_from)

    @cached_property
    def _progress(self) -> ProgressLog:
        from airflow_provider_cdm import metrics
        from airflow_provider_cdm.client.jobs.progress import ProgressLog, StallPolicy

        stall = StallPolicy(self.stalled_after, self.fail_when_stalled)
        session = self.hook.get_conn()

        def report(error: errors.CdmStalled) -> None:
            metrics.count_stall(self._follower.run.cluster_id)
            if self._context is not None:
                self.report_stall(self._context, error)

        server_time = session.api.exchanger.server_time
        return ProgressLog(self.log, session.monotonic, stall, server_time, on_stall=report)

    @cached_property
    def _tables(self) -> TableProgress:
        from airflow_provider_cdm.client.whole_database.collect import TableProgress

        tables = TableProgress(on_change=self._progress.record_change)
        tables.job_type = self._job_type
        return tables

    @property
    def _job_type(self) -> str | None:
        """Type of the job, where the task that started the run knew it."""
        from airflow_provider_cdm.client.api.definitions import job_type_of

        return job_type_of(self.submission) if isinstance(self.submission, Mapping) else None

    def _poll(self, context: Context) -> PokeReturnValue:
        from airflow_provider_cdm import metrics

        self._context = context
        session, follower = self.hook.get_conn(), self._follower
        self._announce()
        with self._soft_outcomes():
            run = session.run(follower.poll(session.api))
            if not follower.run.known:
                self.log.info("No such run yet")
            self._progress(run)
            metrics.time_notice(self._progress.notice_delay, follower.run.cluster_id)
            if run is None:
                return PokeReturnValue(is_done=False)
            if not self._has_link:
                CdmRunLink.store(context, session.settings, run)
                self._has_link = True
            session.run(self._tables(session.api, run))
            if not run.ended:
                return PokeReturnValue(is_done=False)
            ended = self.with_tables(self._tables.with_job_type(run))
            return PokeReturnValue(is_done=True, xcom_value=self.judge_run(context, ended))

    def _complete(self, context: Context, event: Any) -> dict[str, Any]:
        from airflow_provider_cdm.triggers.event import SubmissionEvent

        with self._soft_outcomes():
            try:
                run = SubmissionEvent.unwrap(event)
                self._store_link(context, run)
                return self.judge_run(context, self.with_tables(run))
            except errors.CdmStalled as error:
                self.report_stall(context, error)
                raise

    def _store_link(self, context: Context, run: Submission) -> None:
        """Store the address of a run that was not known before the task deferred."""
        try:
            session = self.hook.get_conn()
        except Exception as error:
            # What counts is how the run ended.
            self.log.warning("%s So the button 'CDM run' has no address.", error)
        else:
            CdmRunLink.store(context, session.settings, run)

    def _announce(self) -> None:
        """Name job and cluster once: the lines about the run do not."""
        if not self._announced:
            from airflow_provider_cdm.client.named_run import describe_wait

            self._announced = True
            run, created_from = self._follower.run, self._follower.created_from
            self.log.info("%s", describe_wait(run, created_from, self.cdm_conn_id))

    def _dump(self) -> dict[str, Any]:
        """Return what the next poke needs to go on, as plain JSON."""
        return {
            **self._follower.dump(),
            "progress": self._progress.dump(),
            "tables": self._tables.dump(),
        }

    def _restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on where an earlier poke stopped.

        :param state: what :meth:`_dump` returned there; ``None`` for the first poke.
        """
        self._follower.restore(state)
        self._progress.restore((state or {}).get("progress"))
        self._tables.restore((state or {}).get("tables"))

    def _trigger(self, deadline: float, limit: str, delay: float) -> BaseTrigger:
        from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger

        follower = self._follower
        return CdmSubmissionTrigger(
            job_name=follower.run.job_name,
            cluster_id=follower.run.cluster_id,
            submission_id=follower.run.submission_id,
            creation_date=follower.run.creation_date,
            started_after=None if follower.run.known else follower.created_from,
            poll_interval=self.poke_interval,
            deadline=deadline,
            limit=limit,
            delay=delay,
            stalled_after=self.stalled_after,
            fail_when_stalled=self.fail_when_stalled,
            report_stalls=self.on_stalled is not None,
            progress=self._trigger_progress,
            job_type=self._job_type,
            project_id=self.project_id,
            cdm_conn_id=self.cdm_conn_id,
        )
