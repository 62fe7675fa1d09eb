"""One attempt of a task to start a job and wait for its run: everything it owns, and its course."""

from __future__ import annotations

import uuid
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_cdm import metrics
from airflow_provider_cdm.client import arguments, errors
from airflow_provider_cdm.client.api.definitions import job_type_of
from airflow_provider_cdm.client.jobs.start import start_once
from airflow_provider_cdm.client.jobs.start_record import StartPolicy, StartRequest
from airflow_provider_cdm.client.sansio import pause
from airflow_provider_cdm.client.submission import RunRef, Submission
from airflow_provider_cdm.links import CdmRunLink
from airflow_provider_cdm.tasks.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_cdm._compat import Context
    from airflow_provider_cdm.client.jobs.job_check import JobCheck
    from airflow_provider_cdm.client.jobs.start_record import StartRecord, StartResult
    from airflow_provider_cdm.client.sansio import Flow
    from airflow_provider_cdm.client.session import CdmSession
    from airflow_provider_cdm.tasks.attempt_options import AttemptOptions
    from airflow_provider_cdm.tasks.outcome import RunOutcomeTask
    from airflow_provider_cdm.tasks.refusals import Refusals
    from airflow_provider_cdm.tasks.run_wait import RunWait
    from airflow_provider_cdm.tasks.stop_notes import StopNotes
    from airflow_provider_cdm.triggers.submission import CdmSubmissionTrigger


class AttemptJob(Protocol):
    """The job that an attempt starts; what it needs before its run, after it, and on a kill."""

    @property
    def name(self) -> str:
        """Name of the job."""

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the definition; ``None`` where the task did not define the job."""

    @property
    def trigger_class(self) -> type[CdmSubmissionTrigger]:
        """What waits for its run in the triggerer."""

    @property
    def definition(self) -> Mapping[str, Any] | None:
        """Definition of the job, where the task has it."""

    def prepare(self, attempt: Attempt) -> None:
        """Make sure that the job can be started."""

    @property
    def check(self) -> JobCheck:
        """The check of the definition before the first start of the attempt."""

    def before_start(self, session: CdmSession, cluster_id: str) -> Flow[None]:
        """Check the job before a start, if :meth:`prepare` has not.

        :raises CdmError: when the job must not be started.
        """

    def redefine(self, session: CdmSession, cluster_id: str) -> Flow[None]:
        """Bring the job to its definition before a start, if :meth:`prepare` left it as it was."""

    def prepare_again(self, attempt: Attempt, error: errors.CdmNotFound) -> None:
        """Make sure of it once more after CDM did not find the job; or raise the error."""

    def is_lost(
        self, attempt: Attempt, error: errors.CdmOutcomeUnknown, since: float | None
    ) -> bool:
        """Return whether an unknown outcome means that the job has to be made and run again.

        :param since: when this attempt took over the run of an earlier one, epoch seconds by the
            server's clock; ``None`` if it started the run.
        """

    @property
    def taken_over_at(self) -> float | None:
        """When :meth:`prepare` found the job of an earlier attempt, by the server's clock."""

    def dispose(self, attempt: Attempt, run: Submission) -> None:
        """Clean up after a run that has ended, before its outcome is judged."""

    def stopped(self, session: CdmSession, run: RunRef) -> None:
        """Clean up after a run was asked to stop."""


class Attempt:
    """One attempt of a task to start a job once and to wait for its run.

    Session, request and journal are resolved on first use and once. After a deferral, the attempt
    goes on in another process as a new object with the same deadline and id.

    :param task: the operator: its connection, its log, and what it makes of a run that has ended.
    :param context: context of the running task, as Airflow passes it.
    :param job: the job to start.
    :param options: how to start it and how to wait.
    :param deadline: when to stop waiting, epoch seconds; ``None`` for never.
    :param attached_at: when this attempt took over the run of an earlier one, epoch seconds by the
        server's clock; ``None`` if it started its run.
    :param cleared: whether the task was cleared before it did.
    """

    def __init__(
        self,
        task: RunOutcomeTask,
        context: Context,
        job: AttemptJob,
        options: AttemptOptions,
        deadline: float | None = None,
        attached_at: float | None = None,
        cleared: bool = False,
    ) -> None:
        self.task = task
        self.context = context
        self.job = job
        self.options = options
        self.deadline = deadline
        self.attached_at = attached_at
        self.cleared = cleared
        self.log = task.log
        self.killed = False
        self.attempt_id = uuid.uuid4().hex
        self.own_run: RunRef | None = None
        self._waited_for: list[RunRef] = []
        self._cluster_id: str | None = None

    @cached_property
    def journal(self) -> Journal:
        """The journal of what this attempt starts."""
        return Journal(self.context, self.task)

    @cached_property
    def wait(self) -> RunWait:
        """The wait for a run; a task that only starts one needs none."""
        from airflow_provider_cdm.tasks.run_wait import RunWait

        return RunWait(self.task, self.context, self.options, self.job.trigger_class)

    @cached_property
    def stop_notes(self) -> StopNotes:
        """What the attempts of this task note about a stop of their run."""
        from airflow_provider_cdm.tasks.stop_notes import StopNotes

        return StopNotes(self.context, self.journal.subject)

    @cached_property
    def session(self) -> CdmSession:
        """The session of the task's connection.

        :raises CdmKilled: when the attempt was killed before: the kill could not interrupt it.
        """
        session = self.task.hook.get_conn()
        self._check_kill()
        return session

    @cached_property
    def request(self) -> StartRequest:
        """What to start, from the rendered arguments.

        :raises CdmConfigError: when an argument cannot be used.
        """
        cluster_id = self.task.hook.resolve_cluster()
        return StartRequest(
            cluster_id=cluster_id,
            job_name=arguments.job_name(self.job.name),
            variables=self.options.variables,
            generation=self.journal.generation,
            attempt_id=self.attempt_id,
            if_running=self.options.if_running,
            definition=self.job.fingerprint,
            standby_cluster_ids=arguments.standby_clusters(
                self.options.standby_cluster_ids, cluster_id
            ),
        )

    def server_time(self) -> float:
        """Return the present time by CDM's clock, epoch seconds: clocks of workers differ."""
        return self.session.api.exchanger.server_time()

    # From the start to the end

    def run(self) -> dict[str, Any]:
        """Go through all steps of the attempt.

        :returns: the task's result.
        """
        seconds, _ = self.options.wait_limit
        self.deadline = None if seconds is None else self.session.clock() + seconds
        standby = self.request.standby_cluster_ids
        self.log.info(
            "Job %r in cluster %s%s, connection %r",
            *(self.job.name, self.request.cluster_id),
            f" (stand-by: {', '.join(standby)})" if standby else "",
            self.task.cdm_conn_id,
        )
        return self.start_and_wait()

    def start_and_wait(self) -> dict[str, Any]:
        """Start the job, or take over the run of an earlier attempt; wait if the task waits.

        :returns: the task's result.
        """
        while True:
            try:
                return self._start_and_wait()
            except errors.CdmOutcomeUnknown as error:
                if not self.job.is_lost(self, error, self.job.taken_over_at):
                    raise

    def resume_start(self, event: Any) -> dict[str, Any]:
        """Go on after a deferred wait for a run that was in the way."""
        from airflow_provider_cdm.client.jobs.progress import outcome_line
        from airflow_provider_cdm.triggers.event import SubmissionEvent

        if (stall := SubmissionEvent.stall_in(event)) is not None:
            run, progress = self.wait.report_stall(*stall)
            self._defer_for_other(run, progress=progress)
        try:
            other = self.wait.run_in(event)
        except errors.CdmOutcomeUnknown as error:
            self.log.warning("%s It was in the way, so the job is started now.", error)
            other = error.submission
        else:
            self.log.info("%s", outcome_line(other, foreign=True))
        self._waited_for.append(RunRef.of(other))
        return self.start_and_wait()

    def resume_wait(self, event: Any, *, own: bool) -> dict[str, Any]:
        """Go on after a deferred wait for the run of this task.

        :param own: whether this task started it.
        """
        from airflow_provider_cdm.triggers.event import SubmissionEvent

        if (stall := SubmissionEvent.stall_in(event)) is not None:
            run, progress = self.wait.report_stall(*stall)
            self._defer_wait(run, own=own, progress=progress)
        try:
            return self._conclude(self.wait.run_in(event), own=own)
        except errors.CdmOutcomeUnknown as error:
            if not self.job.is_lost(self, error, self.attached_at):
                raise
        return self.start_and_wait()

    def wait_for_other(self, run: RunRef) -> None:
        """Wait until a run that is in the way has ended; defers if the task is deferrable."""
        from airflow_provider_cdm.client.jobs.progress import outcome_line

        self.log.info("Busy with %s; starts when it is over", run.number)
        if self.task.deferrable:
            self._defer_for_other(run)
        try:
            ended = self.wait.for_other(run, self.deadline)
        except errors.CdmOutcomeUnknown as error:
            self.log.warning("%s It was in the way, so the job is started now.", error)
        else:
            self.log.info("%s", outcome_line(ended, foreign=True))
        self._waited_for.append(run)

    def has_waited_for(self, run: Submission) -> bool:
        """Return whether this attempt has waited for the end of a run, or of a later one.

        An answer that is out of date would otherwise lead to one short wait after another.
        """
        return any(
            ended.cluster_id == run.cluster_id
            and not (ended.is_before(run) or ended.is_unordered(run))
            for ended in self._waited_for
        )

    @property
    def _identity(self) -> dict[str, Any]:
        """What makes the object after a deferral the same attempt."""
        return {
            "deadline": self.deadline,
            "attempt_id": self.attempt_id,
            "checked": self.job.check.dump(),
        }

    def _start_and_wait(self) -> dict[str, Any]:
        from airflow_provider_cdm.client.jobs.progress import title_of

        started = self._start()
        run, ref = started.run, RunRef.of(started.run)
        own = not started.foreign
        self._count_start(started)
        self.own_run = ref if own else None
        address = CdmRunLink.store(self.context, self.session.settings, run)
        title = title_of(run, foreign=started.foreign)
        self.log.info("%s: %s. See %s", title, run.status, address)
        self.attached_at = self.server_time() if started.from_earlier_attempt else None
        if run.ended:
            return self._conclude(run, own=own)
        if not self.options.wait_for_completion:
            self.journal.leave()
            return self.task.leave_run(self.context, replace(run, job_type=self._job_type))
        if self.task.deferrable:
            # No poll before: the run was seen active just now.
            self._defer_wait(ref, own=own)
        ended = self.wait.for_run(ref, self.deadline, self.job.definition, own=own)
        return self._conclude(ended, own=own)

    def _defer_for_other(self, run: RunRef, progress: Mapping[str, Any] | None = None) -> None:
        """Defer until a run that is in the way has ended."""
        self.wait.defer(
            run, self.deadline, "start_after_wait", self._identity, own=False, progress=progress
        )

    def _defer_wait(
        self, run: RunRef, *, own: bool, progress: Mapping[str, Any] | None = None
    ) -> None:
        """Defer until the run of this task has ended."""
        waiting = {
            **self._identity,
            "attached_at": self.attached_at,
            "cleared": self.cleared,
            "own": own,
        }
        self.wait.defer(
            *(run, self.deadline, "execute_complete", waiting),
            own=own,
            progress=progress,
            job_type=self._job_type,
        )

    @property
    def _job_type(self) -> str | None:
        """Type of the job, if it is known: then nobody has to read it."""
        return self.job.check.job_type or job_type_of(self.job.definition)

    def _count_start(self, started: StartResult) -> None:
        attached = started.foreign or started.from_earlier_attempt
        outcome = "attached" if attached else "found" if started.found else "new"
        metrics.count_start(outcome, self.context["ti"], started.run.cluster_id)

    def _start(self) -> StartResult:
        """Start the job, or find out which run is this task's.

        :raises CdmStartUncertain: when that cannot be determined.
        """
        try:
            return self._start_or_wait_for_turn()
        except errors.CdmStartUncertain:
            metrics.count_start("uncertain", self.context["ti"], self._here.cluster_id)
            raise

    @property
    def _here(self) -> StartRequest:
        """The request in the cluster in which the job is being started."""
        return self.request.at(self._cluster_id or self.request.cluster_id)

    def _before_start(self, cluster_id: str) -> Flow[None]:
        self._cluster_id = cluster_id
        return self.job.before_start(self.session, cluster_id)

    def _start_or_wait_for_turn(self) -> StartResult:
        self.job.prepare(self)
        refusals: Refusals | None = None
        while True:
            try:
                return self._start_once()
            except errors.CdmAlreadyRunning as refusal:
                if self.request.if_running == "fail":
                    raise
                other = refusal.submission
                if other is not None and not self.has_waited_for(other):
                    self.wait_for_other(RunRef.of(other))
                    refusals = None
                    continue
                from airflow_provider_cdm.tasks.refusals import Refusals

                # The run ended between two calls, or CDM contradicts itself.
                refusals = refusals or Refusals(self._here.run(None), self.options.poll_interval)
                left = None if self.deadline is None else self.deadline - self.session.clock()
                limit = self.options.wait_limit[1]
                seconds = refusals.pause_after(refusal, self.session.monotonic(), left, limit)
                self.log.info(
                    "CDM calls the job busy, but shows no active run; starting it in %.0f s",
                    seconds,
                )
                self.session.run(pause(seconds))
            except errors.CdmNotFound as error:
                self.job.prepare_again(self, error)

    def _start_once(self) -> StartResult:
        policy, limit = StartPolicy(), self.options.wait_limit[1]
        if self.deadline is not None:
            # Past the deadline, a start that was lost is settled, but no outage is waited out.
            left = max(0.0, self.deadline - self.session.clock())
            policy = replace(policy, history_timeout=min(policy.history_timeout, left))
        self._check_kill()
        record = self.journal.record()
        self.cleared = record is not None and self.request.may_follow_a_clear(record)
        self._cluster_id = self.request.in_cluster_of(record).cluster_id
        start = start_once(
            *(self.session.api, self.request, self.journal.last, policy),
            deadline=self.deadline,
            limit=limit,
            left_running=record is not None and self._left_running(record),
            before_restart=partial(self.job.redefine, self.session, self.request.cluster_id),
            before_start=self._before_start,
        )
        return self.session.run(start, self.journal.save)

    def _left_running(self, record: StartRecord) -> bool:
        """Return whether the earlier attempt was killed and left its run running, as it was to.

        Then a clear of the running task is a restart of the task, not of the job. If the DAG run
        has begun again since, the task had ended before it was cleared.
        """
        if record.run is None or record.result is not None:
            return False
        if not self.options.wait_for_completion:
            # Its journal is the same after its end.
            return False
        if self.options.cancel_on_kill and not record.foreign:
            return False
        if self.request.generation.began_again_since(record.generation):
            return False
        return not self.stop_notes.show_own_end(self.request.at(record.cluster_id).run(record.run))

    def _conclude(self, run: Submission, *, own: bool) -> dict[str, Any]:
        """Note the outcome, clean up, and judge the run.

        :param own: whether this task started it.
        """
        self._check_kill()
        task = self.task
        run = task.with_tables(run)
        stopped = self.attached_at is not None and self._was_stopped_by_us(run, self.attached_at)
        self.job.dispose(self, run)
        self.journal.conclude(run)
        if stopped:
            self.log.warning(
                "%s was stopped when its task was killed or cleared, or gave up; starting the job"
                " again",
                RunRef.of(run).title,
            )
            return self.start_and_wait()
        variables = self.options.variables if own else None
        return task.judge_run(self.context, run, variables, foreign=not own)

    def _check_kill(self) -> None:
        """Do nothing more after a kill: the next attempt may have begun already.

        :raises CdmKilled: after a kill.
        """
        if self.killed:
            raise errors.CdmKilled

    def _was_stopped_by_us(self, run: Submission, attached_at: float) -> bool:
        """Return whether a run that was taken over ended because an earlier attempt stopped it."""
        if not run.failed:
            return False
        return self.stop_notes.show_our_stop(
            run,
            self.journal.record(),
            attached_at=attached_at,
            now=self.server_time(),
            expected=self.cleared and self.options.cancel_on_kill,
        )
